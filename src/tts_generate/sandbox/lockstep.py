"""Strict mode for many episodes at once: each takes its next hook together with all others, in one message.

The host carries out and counts what each episode decides, by the loops that replay has (`recorded.episodes`), compiled
where that pays, and hands over what that revealed and no more. Answer ids are numbered anew in every episode, as in
`strict`, which stays the slow twin of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tts_generate.recorded.compiled import compiled_function, records_of
from tts_generate.recorded.episodes import ON_DEMAND, Columns, Work, count, go_on, open_more
from tts_generate.recorded.recording import RecordedQuestion, Recording
from tts_generate.recorded.table import BranchRow, StepRow, Table
from tts_generate.rules import clear_decision
from tts_generate.sandbox.channel import Channel
from tts_generate.sandbox.strict import StrictController, same_knobs
from tts_generate.sandbox.together import BEGIN, HEAD, ROW, SCALARS
from tts_generate.state import Decision, State

PLAN, REVIEW, ANSWER, OVER, STUCK = 1, 2, 3, 4, 5
"""Where an episode stands, beside `BEGIN`: the hook that is asked next, the end, or a decision that cannot be."""
_ENTRIES = 2_000_000
"""Steps of branches that the states of one batch hold at most: two tables of 16 MB each."""
_I8 = np.dtype("<i8")
"""Of all numbers that are sent, which is int64 as it lies on every machine with a list of system calls."""


class Board(NamedTuple):
    """Where each episode of a batch stands, what its candidate has seen, and what it is told next."""

    asked: NDArray[np.int64]
    """The episodes that are asked next; so many as `counts[0]`."""
    phase: NDArray[np.int64]
    moves: NDArray[np.int64]
    """By episode: branches that its last plan moved."""
    known: NDArray[np.int64]
    """By episode: answers that were shown."""
    shown: NDArray[np.int64]
    """(episodes, answers) by answer: the id it was shown by, -1 until then."""
    real: NDArray[np.int64]
    """(episodes, answers) by the id it was shown by: the answer."""
    depth: NDArray[np.int64]
    """(episodes, branches) as it was shown last; -1 before a branch was."""
    pruned: NDArray[np.bool_]
    pooled: NDArray[np.int64]
    scalars: NDArray[np.int64]
    rows: NDArray[np.int64]
    pool: NDArray[np.int64]
    counts: NDArray[np.int64]
    """Episodes asked, rows of branches, rows of the pool, and the most branches that one of them has opened."""


class Decided(NamedTuple):
    """What the candidate decides for the episodes that were asked, in their order."""

    heads: NDArray[np.int64]
    """(asked, 4) open, open_steps, stop, answer."""
    steps: NDArray[np.int64]
    prune: NDArray[np.uint8]
    probe: NDArray[np.uint8]
    """Of all branches where probes are on demand: those that are opened now may be probed too; else of none."""


def turn(
    states: Any, dos: Any, table: Table, work: Work, board: Board, did: Decided, moved: NDArray[np.int64], out: Any
) -> int:
    """Carry out one decision of every episode that was asked, and note what that reveals; plain source that compiles.

    Returns:
        -1, or the first episode that answers with an id that it has not been shown.
    """
    asked, rows = board.counts[0], 0
    pool, width, kept = 0, 0, 0
    for k in range(asked):
        e: int = board.asked[k]
        state, do = states[e], dos[e]
        if did.heads[k, 3] < -1 or did.heads[k, 3] >= board.known[e]:
            return e
        take(state, do, board, did, e, k)
        phase = resume(state, do, board.phase[e], board.moves, e, table, work, moved)
        board.phase[e] = phase
        if phase == OVER:
            count(state, do.answer, out, 0, e)
        elif phase != STUCK:
            board.asked[kept] = e
            rows = reveal(state, board, e, table, work, rows)
            pool = reveal_pool(state, board, e, kept, pool)
            width = max(width, state.opened)
            kept += 1
    board.counts[0], board.counts[1], board.counts[2], board.counts[3] = kept, rows, pool, width
    return -1


def take(state: State, do: Decision, board: Board, did: Decided, e: int, k: int) -> None:
    """A decision as the runner knows it."""
    clear_decision(do)
    do.open = did.heads[k, 0]
    do.open_steps = did.heads[k, 1]
    do.stop = did.heads[k, 2] == 1
    do.answer = -1
    if did.heads[k, 3] >= 0:
        do.answer = board.real[e, did.heads[k, 3]]
    for i in range(state.opened):
        do.steps[i] = did.steps[k, i]
        do.prune[i] = did.prune[k, i] == 1
    for i in range(min(state.max_branches, did.probe.shape[1])):
        do.probe[i] = did.probe[k, i] == 1


def resume(
    state: State,
    do: Decision,
    phase: int,
    moves: NDArray[np.int64],
    e: int,
    table: Table,
    work: Work,
    moved: NDArray[np.int64],
) -> int:
    """What an episode does next, as `run_episode` goes on: the hook that is asked, or `OVER`, or `STUCK`."""
    offset, order = work.offset[e], work.orders[work.kind[e], 0]
    following = STUCK
    if phase == BEGIN:
        if do.open >= 1 and open_more(state, do, table, work, offset, order):
            following = PLAN
    elif phase == ANSWER:
        following = OVER
    elif do.stop:
        following = OVER if do.answer != -1 else ANSWER
    elif phase == PLAN:
        moves[e] = go_on(state, do, table, work, offset, order, moved)
        if moves[e] >= 0:
            following = REVIEW
    elif do.open <= 0 and state.live == 0:
        following = ANSWER
    elif (do.open > 0 or moves[e] > 0) and open_more(state, do, table, work, offset, order):
        state.round += 1
        following = PLAN
    if following == PLAN and state.round >= work.max_rounds:
        following = ANSWER
    return following


def named(board: Board, e: int, answer: int) -> int:
    """The id by which an episode knows an answer; a new one at first sight."""
    if answer < 0:
        return -1
    if board.shown[e, answer] < 0:
        board.shown[e, answer] = board.known[e]
        board.real[e, board.known[e]] = answer
        board.known[e] += 1
    name: int = board.shown[e, answer]
    return name


def reveal(state: State, board: Board, e: int, table: Table, work: Work, row: int) -> int:
    """The branches that changed since they were shown, as rows from `row` on; the row after the last of them."""
    order = work.orders[work.kind[e], 0]
    for i in range(state.opened):
        before = board.depth[e, i]
        if state.depth[i] == before and (state.pruned[i] != 0) == board.pruned[e, i]:
            continue
        board.depth[e, i] = state.depth[i]
        board.pruned[e, i] = state.pruned[i] != 0
        board.rows[row, 7] = named(board, e, state.answers[i, state.depth[i] - 1])
        board.rows[row, 0] = e
        board.rows[row, 1] = i
        board.rows[row, 2] = named(board, e, state.answer[i])
        board.rows[row, 3] = state.depth[i]
        board.rows[row, 4] = state.tokens[i]
        board.rows[row, 5] = (1 if state.finished[i] else 0) + (2 if state.pruned[i] else 0)
        board.rows[row, 6] = state.finish_rank[i]
        board.rows[row, 8] = max(0, before)
        board.rows[row, 9] = table.branches[work.offset[e] + order[i]].first
        row += 1
    return row


def reveal_pool(state: State, board: Board, e: int, k: int, row: int) -> int:
    """The numbers of episode `e`, told as the `k`th, and what joined its pool, as rows from `row` on."""
    for place in range(board.pooled[e], state.pooled):
        board.pool[row, 0] = e
        board.pool[row, 1] = place
        board.pool[row, 2] = named(board, e, state.pool[place])
        row += 1
    board.pooled[e] = state.pooled
    board.scalars[k, 0] = state.pooled  # in the order of `SCALARS`
    board.scalars[k, 1] = named(board, e, state.leader)
    board.scalars[k, 2] = state.leader_votes
    board.scalars[k, 3] = state.runner_up_votes
    board.scalars[k, 4] = state.opened
    board.scalars[k, 5] = state.live
    board.scalars[k, 6] = state.round
    board.scalars[k, 7] = state.generated_tokens
    board.scalars[k, 8] = state.probe_tokens
    board.scalars[k, 9] = state.sequential_tokens
    return row


class Stuck(Exception):
    """An episode's decision that cannot be carried out; the number of its question in its `Ground`."""

    def __init__(self, question: int) -> None:
        super().__init__(question)
        self.question = question


@dataclass(frozen=True)
class Ground:
    """Recordings of one `interval_tokens` made ready for batches, as one table of all their questions."""

    questions: tuple[RecordedQuestion, ...]
    """Recording by recording."""
    shapes: tuple[tuple[int, int, int, int], ...]
    """By question: branches, and of its recording the depth, the tokens of a step and those of a probe."""
    offsets: tuple[int, ...]
    """By question: its first branch."""
    compiled: bool
    table: Table
    logprobs: NDArray[np.float64]
    answers: int
    """Different answers of the question that has most, at most."""

    @classmethod
    def of(cls, recordings: Sequence[Recording], compiled: bool) -> Ground:
        """The arrays, for compiled loops; Python rows, which interpreted ones read faster."""
        tables, known = [one.table for one in recordings], any(len(one.table.logprobs) for one in recordings)
        branches = np.concatenate([table.branches for table in tables])
        steps = np.concatenate([table.steps for table in tables])
        before = np.cumsum([0, *(len(table.steps) for table in tables)])[:-1]
        branches["first"] += np.repeat(before, [len(table.branches) for table in tables])
        logs = [one.logprobs if len(one.logprobs) else np.full(len(one.steps), np.nan) for one in tables]
        logprobs = np.concatenate(logs) if known else np.zeros(0)
        table = Table(branches, steps, logprobs)
        if not compiled:
            rows = list(map(BranchRow._make, branches.tolist())), list(map(StepRow._make, steps.tolist()))
            table = Table(*rows, logprobs.tolist())
        first = np.cumsum([0, *(len(one.branches) for one in tables)]).tolist()
        found = [
            (one, question, start) for one, start in zip(recordings, first, strict=False) for question in one.questions
        ]
        return cls(
            questions=tuple(question for _, question, _ in found),
            shapes=tuple((q.branches, r.max_depth, r.interval_tokens, r.max_probe_tokens) for r, q, _ in found),
            offsets=tuple(start + question.offset for _, question, start in found),
            compiled=compiled, table=table, logprobs=logprobs, answers=int(steps["answer"].max(initial=0)) + 1,
        )  # fmt: skip

    def run(
        self,
        channel: Channel,
        controller: StrictController,
        questions: Sequence[int],
        orders: Mapping[int, NDArray[np.int64]],
    ) -> NDArray[np.int64]:
        """The columns of one episode of each of `questions`, (columns, questions).

        Args:
            channel: of a process that has run none of them.
            controller: the candidate at a budget.
            questions: their numbers, in the order in which the candidate meets them.
            orders: by number of branches, one order, (1, branches).

        Raises:
            CandidateError: the candidate fails, or is another than it says.
            Stuck: an episode cannot go on.
        """
        room = [max(64, size) for size in np.max(self.shapes, axis=0)[:2]]
        most = max(1, _ENTRIES // int(np.prod(room)))
        parts = [questions[start : start + most] for start in range(0, len(questions), most)]
        found = [_Batch(self, channel, controller, part, orders).run() for part in parts]
        return np.concatenate(found, axis=1)


class _Batch:
    """Episodes that go on together in one process."""

    def __init__(
        self,
        ground: Ground,
        channel: Channel,
        controller: StrictController,
        questions: Sequence[int],
        orders: Mapping[int, NDArray[np.int64]],
    ) -> None:
        self.ground, self.channel, self.questions = ground, channel, questions
        asked, shapes = [ground.questions[q] for q in questions], [ground.shapes[q] for q in questions]
        work = Work.of(asked, orders, controller, shapes[0][2])
        self.work = work._replace(offset=np.array([ground.offsets[q] for q in questions], np.int64))
        self.begun = {
            "shapes": shapes, "beta": controller.beta, "knobs": dict(controller.given),
            "logprobs": self.work.logprobs and len(ground.logprobs) > 0,
        }  # fmt: skip
        self.knobs = controller.knobs
        most = np.max(shapes, axis=0).tolist()
        self.moved = np.zeros(most[0], np.int64)
        self.states: Any
        self.dos: Any
        if ground.compiled:
            self.states, self.dos = records_of(len(asked), *most)
            self.states["max_branches"] = [shape[0] for shape in shapes]
        else:
            self.states, self.dos = [State(*shape) for shape in shapes], [Decision(shape[0]) for shape in shapes]
        self.board = _board(len(asked), most[0], ground.answers)
        self.out = Columns.empty(1, len(asked))
        self.turn: Any = compiled_function(turn) if ground.compiled else turn

    def run(self) -> NDArray[np.int64]:
        """Ask and carry out until every episode is over."""
        reply, _ = self.channel.ask("batch", self.begun)
        same_knobs(reply.get("knobs"), self.knobs)
        board = self.board
        while board.counts[0] > 0:
            asked = board.asked[: board.counts[0]].copy()
            did = self._ask(asked)
            wrong = int(
                self.turn(self.states, self.dos, self.ground.table, self.work, board, did, self.moved, self.out)
            )
            if wrong >= 0:
                self.channel.fail("decision", "the candidate answered an id that no branch has shown.")
            for e in asked[board.phase[asked] == STUCK]:
                raise Stuck(self.questions[e])
        return self.out[:, 0]

    def _ask(self, asked: NDArray[np.int64]) -> Decided:
        """What the candidate decides for the episodes `asked`, once every part of it is what it must be."""
        board, (count_, rows, pool, width) = self.board, self.board.counts.tolist()
        probed = len(self.moved) if self.work.probing == ON_DEMAND else 0
        told = (asked, board.phase[asked], board.scalars[:count_], board.rows[:rows, :ROW], board.pool[:pool])
        raw = b"".join(part.tobytes() for part in told) + self._logprobs(board.rows[:rows])
        size = count_ * (8 * HEAD + (8 + 1) * width + probed)
        _, back = self.channel.ask("turn", {"counts": [count_, rows, pool, width, probed]}, raw, expects=size)
        heads = np.frombuffer(back, _I8, HEAD * count_).reshape(count_, HEAD)
        place = 8 * HEAD * count_
        steps = np.frombuffer(back, _I8, count_ * width, place).reshape(count_, width)
        place += 8 * count_ * width
        prune = np.frombuffer(back, np.uint8, count_ * width, place).reshape(count_, width)
        probe = np.frombuffer(back, np.uint8, count_ * probed, place + count_ * width).reshape(count_, probed)
        if (prune > 1).any() or (probe > 1).any() or ((heads[:, 2] < 0) | (heads[:, 2] > 1)).any():
            self.channel.refuse("a decision that is neither true nor false")
        return Decided(heads, steps, prune, probe)

    def _logprobs(self, rows: NDArray[np.int64]) -> bytes:
        """The log-probabilities of the steps that `rows` tell of, one after the other."""
        logprobs = self.ground.logprobs
        if not self.begun["logprobs"]:
            return b""
        counts = rows[:, 3] - rows[:, 8]
        starts = np.repeat(rows[:, 9] + rows[:, 8] - np.cumsum(counts) + counts, counts)
        return logprobs[starts + np.arange(len(starts))].astype("<f8").tobytes()


def _board(episodes: int, branches: int, answers: int) -> Board:
    def table(*shape: int, fill: int = 0) -> NDArray[np.int64]:
        return np.full(shape, fill, np.int64)

    return Board(
        asked=np.arange(episodes), phase=table(episodes, fill=BEGIN), moves=table(episodes), known=table(episodes),
        shown=table(episodes, answers, fill=-1), real=table(episodes, answers, fill=-1),
        depth=table(episodes, branches, fill=-1), pruned=np.zeros((episodes, branches), np.bool_),
        pooled=table(episodes), scalars=_nothing_yet(episodes), rows=table(episodes * branches, ROW + 1),
        pool=table(episodes * branches, 3), counts=np.array([episodes, 0, 0, 0], np.int64),
    )  # fmt: skip


def _nothing_yet(episodes: int) -> NDArray[np.int64]:
    scalars = np.zeros((episodes, len(SCALARS)), np.int64)
    scalars[:, SCALARS.index("leader")] = -1
    return scalars
