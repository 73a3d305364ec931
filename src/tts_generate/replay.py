"""The recorded environment: controllers run on look-ups, no token is decoded.

The rules are those of the published program (AutoTTS, arXiv 2605.08083), and of a live run of the same branches:
a branch with P probes is finished by its step P + 1; a step costs `interval_tokens`, the last one what is left; a fresh
branch read to its end in one go costs its tokens; a probe costs what was decoded for it when it was recorded.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.answers import AnswerBook
from tts_generate.controller import Controller, describe
from tts_generate.errors import InputError, StoreError
from tts_generate.loading import load_controller
from tts_generate.processors import BranchProcessorList
from tts_generate.runner import Cost, Episode, Outcome, Unit
from tts_generate.state import TO_END
from tts_generate.trace import Event, Trace
from tts_generate.trajectories import Question, Trajectory, TrajectoryStore
from tts_generate.votes import NO_ANSWER

_UNREAD = -2  # a depth at which nothing was probed when the branch was recorded


@dataclass(frozen=True, slots=True)
class RecordedBranch:
    """One trajectory as arrays over depth: entry k is what was shown, and spent, at depth k + 1."""

    tokens: int
    interior: int
    """Depths at which the branch is not finished; P in the published rules."""
    complete: bool
    """Whether it was recorded to its end; if not, it can be read up to depth `interior` only."""
    answers: NDArray[np.int64]
    probe_tokens: NDArray[np.int64]
    logprobs: NDArray[np.float64]

    def step_tokens(self, start: int, depth: int, interval_tokens: int) -> int:
        """Tokens generated on the way from depth `start` to `depth`: the published cost rule."""
        tokens = interval_tokens * (min(depth, self.interior) - min(start, self.interior))
        if depth > self.interior:
            tokens += max(0, self.tokens - interval_tokens * self.interior)
        return tokens


@dataclass(frozen=True, slots=True)
class RecordedQuestion:
    """A question with its branches in recorded order; answer ids index `book`."""

    question: Question
    branches: tuple[RecordedBranch, ...]
    prompt_tokens: int
    book: AnswerBook
    gold: int

    def advance(self, unit: Unit, branch: int, interval_tokens: int) -> Outcome:
        """What a run sees when it carries out `unit` on recorded branch number `branch`."""
        record = self.branches[branch]
        if unit.steps >= TO_END and unit.start == 0:
            depth, generated = record.interior + 1, record.tokens
        else:
            depth = min(unit.start + unit.steps, record.interior + 1)
            generated = record.step_tokens(unit.start, depth, interval_tokens)
        finished = depth > record.interior
        if finished and not record.complete:
            raise StoreError(
                f"branch {branch} of question {self.question.question_id!r} was not recorded beyond depth "
                f"{record.interior}; record it to its end to replay this controller."
            )
        probed = unit.probe and not finished
        answer = int(record.answers[depth - 1]) if finished or probed else NO_ANSWER
        if answer == _UNREAD:
            raise StoreError(
                f"branch {branch} of question {self.question.question_id!r} was not probed at depth {depth}; "
                "record it with a probe at every step to replay this controller."
            )
        probe_tokens = int(record.probe_tokens[depth - 1]) if probed else 0
        logprob = float(record.logprobs[depth - 1])
        return Outcome(unit.branch, depth, generated, probe_tokens, answer, finished, logprob)


@dataclass(frozen=True)
class Recording:
    """Every trajectory of a store, ready to be replayed."""

    questions: tuple[RecordedQuestion, ...]
    interval_tokens: int
    max_probe_tokens: int
    name: str = "recording"

    @classmethod
    def of(
        cls,
        questions: Iterable[Question],
        trajectories: Iterable[Trajectory],
        interval_tokens: int,
        *,
        source: str = "recorded",
        name: str = "recording",
    ) -> Recording:
        """Arrange `trajectories` by question; questions without any are left out.

        Raises:
            StoreError: there is nothing to replay, or the branches of a question are not numbered 0, 1, 2, …
        """
        found: dict[str, list[Trajectory]] = {}
        for trajectory in trajectories:
            found.setdefault(trajectory.question_id, []).append(trajectory)
        recorded = tuple(
            _question(question, found[question.question_id], interval_tokens, source)
            for question in questions
            if question.question_id in found
        )
        if not recorded:
            raise StoreError(f"{name} holds no recorded branch; record some first (tts-generate record).")
        most = max(int(b.probe_tokens.max(initial=0)) for q in recorded for b in q.branches)
        return cls(recorded, interval_tokens, most, name)

    @classmethod
    def from_store(cls, store: TrajectoryStore | str | Path) -> Recording:
        """Read a whole store into memory."""
        if not isinstance(store, TrajectoryStore):
            store = TrajectoryStore.open(store)
        manifest = store.manifest
        rows = store.trajectories()
        return cls.of(store.questions, rows, manifest.interval_tokens, source=manifest.source, name=store.path.name)

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
            order = range(len(recorded.branches))
        episode = Episode(
            controller,
            max_branches=len(order),
            interval_tokens=self.interval_tokens,
            max_probe_tokens=self.max_probe_tokens,
            processors=processors if processors is not None else BranchProcessorList(),
            trace=events,
        )
        units = episode.start()
        while units:
            units = episode.resume([recorded.advance(unit, order[unit.branch], self.interval_tokens) for unit in units])
        return episode


def _question(
    question: Question, trajectories: list[Trajectory], interval_tokens: int, source: str
) -> RecordedQuestion:
    trajectories.sort(key=lambda trajectory: trajectory.branch)
    numbers = [trajectory.branch for trajectory in trajectories]
    if numbers != list(range(len(numbers))):
        raise StoreError(
            f"question {question.question_id!r} has branches {numbers}; they must be numbered from 0 without gaps. "
            "Finish the recording (run the same command again)."
        )
    book = AnswerBook()
    for trajectory in trajectories:  # final answers first, so that ids of answers that can win are small
        book.id(trajectory.final_answer)
    branches = tuple(_branch(trajectory, book, interval_tokens, source) for trajectory in trajectories)
    gold = NO_ANSWER if question.gold_answer is None else book.id(question.gold_answer)
    return RecordedQuestion(question, branches, trajectories[0].prompt_tokens, book, gold)


def _branch(trajectory: Trajectory, book: AnswerBook, interval_tokens: int, source: str) -> RecordedBranch:
    complete = trajectory.finish_reason is not None
    if source == "autotts":  # published tables list their probes; some tokens fall short of the last one
        interior = len(trajectory.probe_positions)
    else:
        interior = max(0, -(-trajectory.tokens // interval_tokens) - complete)
    answers = np.full(interior + 1, _UNREAD, np.int64)
    probe_tokens = np.zeros(interior + 1, np.int64)
    for position, answer, tokens in zip(
        trajectory.probe_positions, trajectory.probe_answers, trajectory.probe_tokens, strict=True
    ):
        depth = position // interval_tokens
        answers[depth - 1] = book.id(answer)
        probe_tokens[depth - 1] = tokens
    answers[interior] = book.id(trajectory.final_answer)
    logprobs = np.full(interior + 1, np.nan)
    steps = trajectory.step_logprobs[: interior + 1]
    logprobs[: len(steps)] = [np.nan if value is None else value for value in steps]
    return RecordedBranch(trajectory.tokens, interior, complete, answers, probe_tokens, logprobs)


@dataclass(frozen=True)
class ReplayResult:
    """Every episode of a replay; arrays have shape (shuffles, questions)."""

    controller: dict[str, Any]
    question_ids: tuple[str, ...]
    answers: NDArray[np.str_]
    """The answer of each episode; "" where none was found."""
    correct: NDArray[np.bool_]
    generated_tokens: NDArray[np.int64]
    probe_tokens: NDArray[np.int64]
    wasted_tokens: NDArray[np.int64]
    prompt_tokens: NDArray[np.int64]
    opened: NDArray[np.int64]
    rounds: NDArray[np.int64]
    traces: tuple[Trace, ...] = ()

    @cached_property
    def cost(self) -> NDArray[np.int64]:
        """Generated and probe tokens of each episode, (shuffles, questions); prompts cost every method the same."""
        return self.generated_tokens + self.probe_tokens

    @property
    def accuracy(self) -> float:
        """Share of episodes that answer right, 0 to 1."""
        return float(self.correct.mean())

    @property
    def tokens(self) -> float:
        """Mean cost of an episode, in tokens."""
        return float(self.cost.mean())

    def save_episodes(self, path: str | Path) -> None:
        """Write `correct`, `cost` and `answers`, each (shuffles, questions), as a compressed npz file."""
        np.savez_compressed(path, correct=self.correct, cost=self.cost, answers=self.answers)


def shuffled_orders(shuffles: int, branches: int) -> list[list[int]]:
    """The published permutations: `random.Random(seed).shuffle` of the branches, from seed 0 on.

    >>> shuffled_orders(2, 4)
    [[2, 0, 1, 3], [3, 0, 2, 1]]
    """
    orders = []
    for seed in range(shuffles):
        order = list(range(branches))
        random.Random(seed).shuffle(order)
        orders.append(order)
    return orders


def replay(
    recording: Recording | TrajectoryStore | str | Path,
    controller: str | Path | Controller,
    *,
    beta: float | None = None,
    shuffles: int = 100,
    processors: BranchProcessorList | None = None,
    traces: bool = False,
    trust_remote_code: bool = False,
    **knobs: Any,
) -> ReplayResult:
    """Run a controller on every recorded question, once per shuffle of its branches.

    Args:
        recording: a `Recording`, or a store to read one from.
        controller: see `load_controller`.
        beta: the budget in [0, 1]; the controller's default when left out.
        shuffles: orders in which the branches are opened, seeds 0 to shuffles - 1; 0 for the recorded order alone.
        processors: limits chained around the controller.
        traces: also keep every episode's trace, question by question.
        trust_remote_code: needed for a controller folder that did not come with this package.
        **knobs: knobs to set by hand.

    Raises:
        InputError: a negative number of shuffles.
        ControllerError: the controller wants more branches than were recorded, or stalls.
        StoreError: the controller reads what was not recorded.

    Source: AutoTTS (arXiv 2605.08083); exact on its published tables.
    """
    if shuffles < 0:
        raise InputError(f"shuffles must be 0 (recorded order) or more, got {shuffles}.")
    if not isinstance(recording, Recording):
        recording = Recording.from_store(recording)
    chosen = load_controller(controller, beta=beta, trust_remote_code=trust_remote_code, **knobs)
    runs = max(1, shuffles)
    size = (runs, len(recording.questions))
    columns = {
        name: np.zeros(size, np.int64) for name in ("generated", "probe", "wasted", "prompt", "opened", "rounds")
    }
    answers = np.empty(size, dtype=object)
    correct = np.zeros(size, np.bool_)
    kept: list[Trace] = []
    for q, recorded in enumerate(recording.questions):
        orders: list[list[int] | None] = [None]
        if shuffles:
            orders = list(shuffled_orders(shuffles, len(recorded.branches)))
        for s, order in enumerate(orders):
            events: list[Event] | None = [] if traces else None
            episode = recording.episode(chosen, q, order, processors, events)
            cost: Cost = episode.cost(recorded.prompt_tokens)
            answers[s, q] = recorded.book.text(episode.answer) or ""
            correct[s, q] = episode.answer != NO_ANSWER and episode.answer == recorded.gold
            columns["generated"][s, q] = cost.generated_tokens
            columns["probe"][s, q] = cost.probe_tokens
            columns["wasted"][s, q] = cost.wasted_tokens
            columns["prompt"][s, q] = cost.prompt_tokens
            columns["opened"][s, q] = episode.state.opened
            columns["rounds"][s, q] = episode.state.round
            if events is not None:
                question_id = recorded.question.question_id
                kept.append(Trace.of(question_id, describe(chosen), events, recorded.book.text))
    return ReplayResult(
        controller=dict(describe(chosen)),
        question_ids=tuple(recorded.question.question_id for recorded in recording.questions),
        answers=answers.astype(np.str_),
        correct=correct,
        generated_tokens=columns["generated"],
        probe_tokens=columns["probe"],
        wasted_tokens=columns["wasted"],
        prompt_tokens=columns["prompt"],
        opened=columns["opened"],
        rounds=columns["rounds"],
        traces=tuple(kept),
    )
