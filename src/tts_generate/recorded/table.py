"""Recorded branches as flat arrays, and the one rule by which they are read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from tts_generate.answers import AnswerBook
from tts_generate.state import TO_END
from tts_generate.trajectories import Trajectory

UNREAD = -2
"""In `Table.answers`: a depth at which nothing was probed when the branch was recorded."""


class BranchRow(NamedTuple):
    """A recorded branch."""

    tokens: int
    interior: int
    """Depths at which it is not finished: P in the published rules."""
    first: int
    """Place of its first step in `Table.steps`."""
    complete: bool
    """Whether it was recorded to its end; if not, it can be read up to depth `interior` only."""


class StepRow(NamedTuple):
    """What a branch showed at one depth."""

    answer: int
    """`UNREAD` where nothing was probed."""
    probe_tokens: int


_BRANCH = np.dtype([("tokens", "i8"), ("interior", "i8"), ("first", "i8"), ("complete", "?")], align=True)
STEP_BYTES = 64
"""What a step takes in memory, about: here, and in the state of an episode."""
_STEP = np.dtype([("answer", "i8"), ("probe_tokens", "i8")], align=True)


class Table(NamedTuple):
    """Branches one after the other, as arrays of records or lists of rows; depth k + 1 is at place `first` + k."""

    branches: Any
    """`BranchRow`s, (N,)."""
    steps: Any
    """`StepRow`s, (all depths of all branches,)."""
    logprobs: Any
    """Mean log-probability of the tokens of each step, NaN where not recorded; empty where none was."""


def read(
    table: Table, branch: int, start: int, steps: int, probe: bool, interval_tokens: int
) -> tuple[int, int, int, int, bool]:
    """What a run sees when it advances a recorded branch, in plain source that compiles.

    Returns:
        (depth, generated tokens, probe tokens, answer shown, finished); the answer is `UNREAD` where it was not
        recorded, and so is depth where the branch was not recorded that far.
    """
    recorded = table.branches[branch]
    interior = recorded.interior
    if steps <= interior - start:
        depth = start + steps
        generated = interval_tokens * steps
        if not probe:
            return depth, generated, 0, -1, False
        shown = table.steps[recorded.first + depth - 1]
        return depth, generated, shown.probe_tokens, shown.answer, False
    if not recorded.complete:
        return UNREAD, 0, 0, UNREAD, False
    if steps >= TO_END and start == 0:
        generated = recorded.tokens
    else:
        generated = interval_tokens * (interior - start) + max(0, recorded.tokens - interval_tokens * interior)
    shown = table.steps[recorded.first + interior]
    return interior + 1, generated, shown.probe_tokens, shown.answer, True


def interior_of(trajectory: Trajectory, interval_tokens: int, source: str) -> int:
    """Depths at which a branch is not finished."""
    if source == "autotts":  # published tables list their probes; some tokens fall short of the last one
        return len(trajectory.probe_positions)
    return max(0, -(-trajectory.tokens // interval_tokens) - (trajectory.finish_reason is not None))


class Column:
    """One trajectory as arrays over depth."""

    def __init__(self, trajectory: Trajectory, book: AnswerBook, interval_tokens: int, source: str) -> None:
        self.tokens = trajectory.tokens
        self.complete = trajectory.finish_reason is not None
        self.interior = interior_of(trajectory, interval_tokens, source)
        self.answers = np.full(self.interior + 1, UNREAD, np.int64)
        self.probe_tokens = np.zeros(self.interior + 1, np.int64)
        for position, answer, tokens in zip(
            trajectory.probe_positions, trajectory.probe_answers, trajectory.probe_tokens, strict=True
        ):
            depth = -(-position // interval_tokens)
            self.answers[depth - 1] = book.id(answer)
            self.probe_tokens[depth - 1] = tokens
        self.answers[self.interior] = book.id(trajectory.final_answer)
        self.logprobs = np.full(self.interior + 1, np.nan)
        steps = trajectory.step_logprobs[: self.interior + 1]
        self.logprobs[: len(steps)] = [np.nan if value is None else value for value in steps]
        if steps and not self.complete:
            self.logprobs[self.interior] = 0.0  # the step behind the last one of a branch that was stopped: never read


def table_of(columns: Sequence[Column]) -> Table:
    """Branches one after the other."""
    branches = np.zeros(len(columns), _BRANCH)
    branches["tokens"] = [column.tokens for column in columns]
    branches["interior"] = [column.interior for column in columns]
    branches["complete"] = [column.complete for column in columns]
    branches["first"][1:] = np.cumsum(branches["interior"] + 1)[:-1]
    steps = np.zeros(int((branches["interior"] + 1).sum()), _STEP)
    steps["answer"] = np.concatenate([column.answers for column in columns])
    steps["probe_tokens"] = np.concatenate([column.probe_tokens for column in columns])
    logprobs = np.concatenate([column.logprobs for column in columns])
    return Table(branches, steps, logprobs[:0] if np.isnan(logprobs).all() else logprobs)
