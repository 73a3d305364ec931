"""Recordings: the questions and branches that a replay reads, and how an episode is run on them.

The rules are those of the published program (AutoTTS, arXiv 2605.08083), and of a live run of the same branches:
a branch with P probes is finished by its step P + 1; a step costs `interval_tokens`, the last one what is left; a fresh
branch read to its end in one go costs its tokens; a probe costs what was decoded for it when it was recorded, also one
that asked a branch at its end.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tts_generate.answers import AnswerBook
from tts_generate.arguments import checked
from tts_generate.controller import Controller, describe
from tts_generate.equivalence import Partition, Votes, same_answer
from tts_generate.errors import InputError, StoreError, UnknownNameError
from tts_generate.processors import BranchProcessorList
from tts_generate.recorded.table import (
    STEP_BYTES,
    UNREAD,
    BranchRow,
    Column,
    StepRow,
    Table,
    interior_of,
    read,
    table_of,
)
from tts_generate.runner import Episode, Outcome, Unit
from tts_generate.trace import Event, Trace
from tts_generate.trajectories import Question, Trajectory, TrajectoryStore
from tts_generate.trajectories.fields import misfit
from tts_generate.trajectories.files import check_memory
from tts_generate.votes import NO_ANSWER

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class RecordedQuestion:
    """A question with its branches in recorded order: `branches` rows of `table` from `offset` on."""

    question: Question
    table: Table
    offset: int
    branches: int
    prompt_tokens: int
    book: AnswerBook
    gold: int
    cut: Mapping[int, bool] = field(default_factory=dict)
    """Recorded branches that ran into the limit of their length, and whether each was asked for its answer there."""
    answer_pattern: str | None = None
    """How answers were read, where that is known."""

    def trace(self, controller: Controller, events: list[Event], order: Sequence[int] | None) -> Trace:
        """The events of an episode that opened the branches in `order` (recorded order if None)."""
        places = range(self.branches) if order is None else order
        cut = {place: self.cut[number] for place, number in enumerate(places) if number in self.cut}
        told = self.question.question_id, describe(controller), events, self.book.text
        return Trace.of(*told, cut, self.answer_pattern)

    @cached_property
    def rows(self) -> Table:
        """The question's part of `table` as plain Python rows, which interpreted code reads faster than arrays."""
        branches = list(map(BranchRow._make, self.table.branches[self.offset : self.offset + self.branches].tolist()))
        start, end = branches[0].first, branches[-1].first + branches[-1].interior + 1
        steps = list(map(StepRow._make, self.table.steps[start:end].tolist()))
        return Table(
            [row._replace(first=row.first - start) for row in branches], steps, self.table.logprobs[start:end].tolist()
        )

    def advance(self, unit: Unit, branch: int, interval_tokens: int) -> Outcome:
        """What a run sees when it carries out `unit` on recorded branch number `branch`.

        Raises:
            StoreError: that was not recorded.
        """
        table = self.rows
        depth, generated, probe_tokens, answer, finished = read(
            table, branch, unit.start, unit.steps, unit.probe, interval_tokens
        )
        if depth == UNREAD:
            raise StoreError(
                f"branch {branch} of question {self.question.question_id!r} was not recorded beyond depth "
                f"{table.branches[branch].interior}; record it to its end to replay this controller."
            )
        if answer == UNREAD:
            raise StoreError(
                f"branch {branch} of question {self.question.question_id!r} was not probed at depth {depth}; "
                "record it with a probe at every step to replay this controller."
            )
        first = table.branches[branch].first
        logprobs = table.logprobs[first + unit.start : first + depth]
        return Outcome(unit.branch, depth, generated, probe_tokens, answer, finished, logprobs)


@dataclass(frozen=True)
class Recording:
    """Every trajectory of a store, ready to be replayed."""

    questions: tuple[RecordedQuestion, ...]
    table: Table
    interval_tokens: int
    max_probe_tokens: int
    name: str = "recording"

    @classmethod
    @checked
    def of(
        cls,
        questions: Iterable[Question],
        trajectories: Iterable[Trajectory],
        interval_tokens: int,
        *,
        source: str = "recorded",
        name: str = "recording",
        votes: Votes = "equal",
        answer_pattern: str | None = None,
    ) -> Recording:
        """Arrange `trajectories` by question; questions without any are left out.

        Args:
            questions: what was asked.
            trajectories: the branches, in any order.
            interval_tokens: tokens of one step.
            source: as in the manifest of their store.
            name: for messages.
            votes: "equal": answers are one if their texts are; "math": if they are the same mathematics, in what a
                controller sees (its votes and its stopping) as in the grading.
            answer_pattern: how the answers were read, for traces to say.

        Raises:
            StoreError: there is nothing to replay, the branches of a question are not numbered 0, 1, 2, …, one of them
                cannot be cut into such steps, or it would take more memory than a store may.
        """
        if interval_tokens < 1:
            raise InputError(f"interval_tokens must be at least 1, got {interval_tokens}.")
        found: dict[str, list[Trajectory]] = {}
        for trajectory in trajectories:
            found.setdefault(trajectory.question_id, []).append(trajectory)
        asked = [question for question in questions if question.question_id in found]
        if not asked:
            raise StoreError(f"{name} holds no recorded branch; record some first (tts-generate record).")
        arranged = [_arranged(found[question.question_id]) for question in asked]
        _check_steps(arranged, interval_tokens, source, name)
        by_mathematics = same_answer(votes) is not None
        books = [_book(branches, by_mathematics) for branches in arranged]
        columns = [
            Column(branch, book, interval_tokens, source)
            for branches, book in zip(arranged, books, strict=True)
            for branch in branches
        ]
        table = table_of(columns)
        offsets = np.cumsum([0, *(len(branches) for branches in arranged)]).tolist()
        recorded = tuple(
            RecordedQuestion(
                question=question,
                table=table,
                offset=offset,
                branches=len(branches),
                prompt_tokens=branches[0].prompt_tokens,
                book=book,
                gold=book.gold(question.gold_answer),
                cut={branch.branch: branch.forced for branch in branches if branch.finish_reason == "length"},
                answer_pattern=answer_pattern,
            )
            for question, branches, book, offset in zip(asked, arranged, books, offsets, strict=False)
        )
        return cls(recorded, table, interval_tokens, int(table.steps["probe_tokens"].max(initial=0)), name)

    @classmethod
    @checked
    def from_store(cls, store: TrajectoryStore | str | Path, *, votes: Votes = "equal") -> Recording:
        """Read a whole store into memory; `votes` as in `of`. A warning says what it lacks: branches, right answers."""
        if not isinstance(store, TrajectoryStore):
            store = TrajectoryStore.open(store)
        manifest = store.manifest
        rows = store.trajectories()
        whole = len(store.questions) * manifest.branches
        if len(rows) < whole:
            there = {row.question_id for row in rows}
            lacking = [q.question_id for q in store.questions if q.question_id not in there]
            none = (
                f"; {len(lacking)} of {len(store.questions)} questions have none (first {lacking[0]!r})"
                if lacking
                else ""
            )
            logger.warning("%s: %d of %d branches are recorded%s.", store.name, len(rows), whole, none)
        if unknown := sum(question.gold_answer is None for question in store.questions):
            told = store.name, unknown, len(store.questions)
            logger.warning(
                "%s: %d of %d questions have no right answer; whatever is answered there counts as wrong.", *told
            )
        return cls.of(
            store.questions,
            rows,
            manifest.interval_tokens,
            source=manifest.source,
            name=store.name,
            votes=votes,
            answer_pattern=manifest.answer_pattern,
        )

    @cached_property
    def max_branches(self) -> int:
        """Branches of the question that has most."""
        return max(recorded.branches for recorded in self.questions)

    @cached_property
    def max_depth(self) -> int:
        """Steps of the longest branch."""
        return int(self.table.branches["interior"].max()) + 1

    @cached_property
    def right(self) -> list[NDArray[np.bool_]]:
        """Of each question, which of its branches end with its answer."""
        branches = self.table.branches
        finals = self.table.steps["answer"][branches["first"] + branches["interior"]]
        ends = [(finals[q.offset : q.offset + q.branches], q.gold) for q in self.questions]
        return [(own == gold) & (own != NO_ANSWER) for own, gold in ends]

    @cached_property
    def has_logprobs(self) -> bool:
        """Whether every step of every branch has its mean log-probability."""
        return len(self.table.logprobs) > 0 and not np.isnan(self.table.logprobs).any()

    @checked
    def numbers(self, question: str | None) -> list[int]:
        """Number of the question with an id, or given by its number; of all questions for None.

        Raises:
            UnknownNameError: no such question.
        """
        ids = [recorded.question.question_id for recorded in self.questions]
        if question is None:
            return list(range(len(ids)))
        if question in ids:
            return [ids.index(question)]
        if question.isdecimal() and len(question) < 10 and int(question) < len(ids):
            return [int(question)]
        raise UnknownNameError.of(f"question of {self.name}", question, ids)

    def check(self, controller: Controller) -> None:
        """Refuse a controller that reads what this recording does not hold.

        Raises:
            StoreError: naming the column.
        """
        if controller.reads_logprobs and not self.has_logprobs:
            missing = "gaps" if len(self.table.logprobs) else "none"
            raise StoreError(
                f"{type(controller).__name__} reads log-probabilities, and {self.name} has {missing} (column "
                "step_logprobs). Record the branches with tts-generate record, or choose a controller that votes by "
                "answers alone."
            )

    def episode(
        self,
        controller: Controller,
        index: int,
        order: Sequence[int] | None = None,
        processors: BranchProcessorList | None = None,
        events: list[Event] | None = None,
    ) -> Episode:
        """Run `controller` on question number `index`, opening its branches in `order` (recorded order if None)."""
        recorded = self.questions[index]
        if order is None:
            order = range(recorded.branches)
        episode = Episode(
            controller,
            max_branches=len(order),
            max_depth=self.max_depth,
            interval_tokens=self.interval_tokens,
            max_probe_tokens=self.max_probe_tokens,
            processors=processors if processors is not None else BranchProcessorList(),
            trace=events,
            text=recorded.book.text,
        )
        units = episode.start()
        while units:
            units = episode.resume([recorded.advance(unit, order[unit.branch], self.interval_tokens) for unit in units])
        return episode

    @checked
    def trace(self, controller: Controller, index: int, order: Sequence[int] | None = None) -> Trace:
        """What `controller` does on question number `index`, event by event."""
        events: list[Event] = []
        self.episode(controller, index, order, events=events)
        return self.questions[index].trace(controller, events, order)


def fewest_branches(recordings: Iterable[Recording]) -> int:
    """Branches of the question that has fewest."""
    return min(recorded.branches for recording in recordings for recorded in recording.questions)


def _arranged(trajectories: list[Trajectory]) -> list[Trajectory]:
    trajectories.sort(key=lambda trajectory: trajectory.branch)
    numbers = [trajectory.branch for trajectory in trajectories]
    if numbers != list(range(len(numbers))):
        raise StoreError(
            f"question {trajectories[0].question_id!r} has branches {numbers}; they must be numbered from 0 without "
            "gaps. Finish the recording (run the same command again)."
        )
    return trajectories


def _check_steps(questions: Sequence[list[Trajectory]], interval_tokens: int, source: str, name: str) -> None:
    """Refuse branches that cannot be cut into steps, or into so many that they do not fit into memory."""
    total = deepest = 0
    for row in (row for branches in questions for row in branches):
        wrong = misfit(row, interval_tokens, source)
        if wrong:
            raise StoreError(f"{name}: branch {row.branch} of {row.question_id!r} cannot be replayed: {wrong}.")
        steps = interior_of(row, interval_tokens, source) + 1
        total, deepest = total + steps, max(deepest, steps)
    check_memory(f"replaying {name}", STEP_BYTES * max(total, deepest * max(map(len, questions))))


def _book(trajectories: list[Trajectory], by_mathematics: bool) -> AnswerBook:
    """The answers of a question; by mathematics one partition of all of them, which knows nothing of orders."""
    finals = [trajectory.final_answer for trajectory in trajectories]
    probed = [answer for trajectory in trajectories for answer in trajectory.probe_answers]
    given = [answer for answer in (*finals, *probed) if answer is not None]
    book = AnswerBook(Partition(given).head if by_mathematics else None)
    for answer in finals:  # first, so that ids of answers that can win are small
        book.id(answer)
    return book
