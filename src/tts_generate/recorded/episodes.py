"""The cycle of a recorded episode as one loop, in plain source that compiles: the fast twin of `runner.Episode`.

It runs compiled, and as plain Python where numba is missing or stuck. It has no messages: an episode that cannot go on
is a problem, and is run again by `Episode`, which says why.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Controller
from tts_generate.recorded.recording import RecordedQuestion, Recording
from tts_generate.recorded.table import UNREAD, Table, read
from tts_generate.rules import (
    clear_decision,
    clear_state,
    count_outcome,
    has_shown,
    open_branches,
    prune_and_order,
)
from tts_generate.state import Decision, State

PROBLEM = -9
"""As an answer: the controller or the recording does not allow the episode to go on."""
NEVER, EVERY_STEP, ON_DEMAND = 0, 1, 2


class Columns(NamedTuple):
    """What is kept of every episode, (shuffles, questions) each."""

    answer_ids: NDArray[np.int64]
    generated_tokens: NDArray[np.int64]
    probe_tokens: NDArray[np.int64]
    wasted_tokens: NDArray[np.int64]
    sequential_tokens: NDArray[np.int64]
    opened: NDArray[np.int64]
    rounds: NDArray[np.int64]

    @classmethod
    def empty(cls, shuffles: int, questions: int) -> NDArray[np.int64]:
        """Room for all of them in one array, (columns, shuffles, questions)."""
        return np.zeros((len(cls._fields), shuffles, questions), np.int64)


class Work(NamedTuple):
    """The episodes to run: question q has branches `offset[q]` to `offset[q] + branches[q]` of a table."""

    offset: NDArray[np.int64]
    branches: NDArray[np.int64]
    orders: NDArray[np.int64]
    """(kinds, shuffles, branches) orders in which branches are opened."""
    kind: NDArray[np.int64]
    """Which of the kinds of orders a question takes: those of its number of branches."""
    interval_tokens: int
    probing: int
    max_rounds: int
    logprobs: bool
    """Whether the controller is shown log-probabilities: one that does not ask for them is not, here as live."""

    @classmethod
    def of(
        cls,
        questions: Sequence[RecordedQuestion],
        orders: Mapping[int, NDArray[np.int64]],
        controller: Controller,
        interval_tokens: int,
        offset: int | None = None,
    ) -> Work:
        """Every order of every question; `offset` where the table holds one question only."""
        kinds = sorted({recorded.branches for recorded in questions})
        padded = np.full((len(kinds), len(orders[kinds[0]]), kinds[-1]), -1, np.int64)
        for number, branches in enumerate(kinds):
            padded[number, :, :branches] = orders[branches]
        return cls(
            offset=np.array([q.offset if offset is None else offset for q in questions], np.int64),
            branches=np.array([q.branches for q in questions], np.int64),
            orders=padded,
            kind=np.array([kinds.index(q.branches) for q in questions], np.int64),
            interval_tokens=interval_tokens,
            probing={"never": NEVER, "every_step": EVERY_STEP, "on_demand": ON_DEMAND}[controller.probing],
            max_rounds=controller.max_rounds,
            logprobs=bool(controller.reads_logprobs),
        )


def raise_problem(recording: Recording, controller: Controller, question: int, order: NDArray[np.int64]) -> None:
    """Run an episode that has a problem once more, by the runner that says what it is."""
    recording.episode(controller, question, order.tolist())
    raise AssertionError(f"{controller!r} has a problem in replay but none in the runner; please report this.")


def run_episodes(
    controller: Controller,
    state: State,
    do: Decision,
    table: Table,
    work: Work,
    out: NDArray[np.int64],
    first: int,
    last: int,
) -> int:
    """Run episodes `first` to `last`, counted along the questions; the number of the first with a problem, or -1."""
    moved = np.zeros(state.max_branches, np.int64)
    questions = len(work.offset)
    for e in range(first, last):
        s, q = e // questions, e % questions
        state.max_branches = work.branches[q]
        answer = run_episode(controller, state, do, table, work, work.offset[q], work.orders[work.kind[q], s], moved)
        if answer == PROBLEM:
            return e
        count(state, answer, out, s, q)
    return -1


def count(state: State, answer: int, out: NDArray[np.int64], s: int, q: int) -> None:
    """The columns of an episode that is over, in the order of `Columns`."""
    wasted = 0
    for i in range(state.opened):
        if state.pruned[i]:
            wasted += state.tokens[i]
    out[0, s, q] = answer
    out[1, s, q] = state.generated_tokens
    out[2, s, q] = state.probe_tokens
    out[3, s, q] = wasted
    out[4, s, q] = state.sequential_tokens
    out[5, s, q] = state.opened
    out[6, s, q] = state.round


def run_episode(
    controller: Controller,
    state: State,
    do: Decision,
    table: Table,
    work: Work,
    offset: int,
    order: NDArray[np.int64],
    moved: NDArray[np.int64],
) -> int:
    """One episode, phase by phase as `Episode._run`; its answer, or `PROBLEM`."""
    clear_state(state)
    controller.memory(state.max_branches)
    clear_decision(do)
    controller.begin(state, do)
    if do.open < 1 or not open_more(state, do, table, work, offset, order):
        return PROBLEM
    while state.round < work.max_rounds:
        clear_decision(do)
        controller.plan(state, do)
        if do.stop:
            break
        moves = go_on(state, do, table, work, offset, order, moved)
        if moves < 0:
            return PROBLEM
        clear_decision(do)
        controller.review(state, do)
        if do.stop:
            break
        if do.open <= 0 and state.live == 0:
            break
        if (do.open <= 0 and moves == 0) or not open_more(state, do, table, work, offset, order):
            return PROBLEM
        state.round += 1
    answer = do.answer if do.stop and do.answer != -1 else controller.answer(state)
    return answer if answer == -1 or has_shown(state, answer) else PROBLEM


def go_on(
    state: State,
    do: Decision,
    table: Table,
    work: Work,
    offset: int,
    order: NDArray[np.int64],
    moved: NDArray[np.int64],
) -> int:
    """Prune and advance as planned; how many branches that moved, or -1 where one was not recorded that far."""
    live = state.live
    count = prune_and_order(state, do, moved)
    moves = count + live - state.live
    longest = 0
    for k in range(count):
        tokens = advance(state, do, table, work, offset, order, moved[k], do.steps[moved[k]])
        if tokens < 0:
            return -1
        longest = max(longest, tokens)
    state.sequential_tokens += longest
    return moves


def open_more(state: State, do: Decision, table: Table, work: Work, offset: int, order: NDArray[np.int64]) -> bool:
    """Open `do.open` branches, if any, and read their first steps; False if that cannot be."""
    if do.open <= 0:
        return True
    first = state.opened
    if do.open > state.max_branches - first or do.open_steps < 1:  # their sum may be beyond 64 bits, and look like less
        return False
    last = first + do.open
    open_branches(state, do.open)
    longest = 0
    for i in range(first, last):
        tokens = advance(state, do, table, work, offset, order, i, do.open_steps)
        if tokens < 0:
            return False
        longest = max(longest, tokens)
    state.sequential_tokens += longest
    return True


def advance(
    state: State, do: Decision, table: Table, work: Work, offset: int, order: NDArray[np.int64], branch: int, steps: int
) -> int:
    """Read on in one branch; the tokens that took, or -1 where they were not recorded."""
    probe = work.probing == EVERY_STEP or (work.probing == ON_DEMAND and do.probe[branch])
    row = offset + order[branch]
    start = state.depth[branch]
    depth, generated, probe_tokens, answer, finished = read(table, row, start, steps, probe, work.interval_tokens)
    if depth == UNREAD or answer == UNREAD:
        return -1
    if work.logprobs and len(table.logprobs) > 0:
        first = table.branches[row].first
        for d in range(start, depth):
            state.logprobs[branch, d] = table.logprobs[first + d]
    count_outcome(state, branch, depth, generated, probe_tokens, answer, finished)
    return generated + probe_tokens
