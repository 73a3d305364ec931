"""Runs a controller over every recorded question and every order of its branches."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from tts_generate.arguments import checked
from tts_generate.controller import Controller, describe
from tts_generate.errors import InputError
from tts_generate.processors import BranchProcessorList
from tts_generate.recorded.compiled import run_compiled
from tts_generate.recorded.episodes import Columns, Work, count, raise_problem, run_episodes
from tts_generate.recorded.recording import Recording
from tts_generate.state import Decision, State
from tts_generate.trace import Event, Trace
from tts_generate.votes import NO_ANSWER

_WORTH_COMPILING = 1000


def worth_compiling(episodes: int) -> bool:
    """Whether compiling (seconds) costs less than interpreting so many episodes (milliseconds each); if it can be."""
    return episodes >= _WORTH_COMPILING and find_spec("numba") is not None


@dataclass(frozen=True)
class ReplayResult:
    """Every episode of a replay; arrays have shape (shuffles, questions)."""

    controller: dict[str, Any]
    recording: Recording
    answer_ids: NDArray[np.int64]
    """The answer of each episode, as an id of the question's `book`; `NO_ANSWER` where none was found."""
    generated_tokens: NDArray[np.int64]
    probe_tokens: NDArray[np.int64]
    wasted_tokens: NDArray[np.int64]
    sequential_tokens: NDArray[np.int64]
    """Longest chain of tokens that had to wait for one another: what the episode takes with any number of rows."""
    opened: NDArray[np.int64]
    rounds: NDArray[np.int64]
    traces: tuple[Trace, ...] = ()
    """Of every episode, question by question, where they were asked for."""
    compile_seconds: float | None = None
    """Seconds spent on compiling the hooks, 0 where they were compiled before; None: they ran interpreted."""

    @cached_property
    def answers(self) -> NDArray[np.str_]:
        """The answer of each episode; "" where none was found."""
        found = np.empty(self.answer_ids.shape, dtype=object)
        for q, recorded in enumerate(self.recording.questions):
            found[:, q] = [recorded.book.text(int(answer)) or "" for answer in self.answer_ids[:, q]]
        return found.astype(np.str_)

    @cached_property
    def correct(self) -> NDArray[np.bool_]:
        """Whether each episode answers right."""
        gold = np.array([recorded.gold for recorded in self.recording.questions])
        right: NDArray[np.bool_] = (self.answer_ids == gold) & (self.answer_ids != NO_ANSWER)
        return right

    @cached_property
    def cost(self) -> NDArray[np.int64]:
        """Generated and probe tokens of each episode; prompts cost every method the same."""
        return self.generated_tokens + self.probe_tokens

    @property
    def prompt_tokens(self) -> NDArray[np.int64]:
        """Prompt tokens of each episode, the same in every shuffle."""
        tokens = np.array([recorded.prompt_tokens for recorded in self.recording.questions], np.int64)
        return np.broadcast_to(tokens, self.answer_ids.shape)

    @property
    def accuracy(self) -> float:
        """Share of episodes that answer right, 0 to 1."""
        return float(self.correct.mean())

    @property
    def tokens(self) -> float:
        """Mean cost of an episode, in tokens."""
        return float(self.cost.mean())

    def save_episodes(self, path: str | Path) -> None:
        """Write `correct`, `cost` and `answers`, each (shuffles, questions), as npz, making its folder."""
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        np.savez_compressed(path, correct=self.correct, cost=self.cost, answers=self.answers)


@runtime_checkable
class RunsElsewhere(Protocol):
    """A controller whose code runs in other processes, and which replays many episodes at once there."""

    def replayed(
        self, recording: Recording, shuffles: int, first_shuffle: int, threads: int | None
    ) -> NDArray[np.int64]:
        """The `Columns` of every episode, (columns, shuffles, questions)."""


@lru_cache(maxsize=64)
def _orders(shuffles: int, branches: int, first: int) -> NDArray[np.int64]:
    """(max(1, shuffles), branches); the recorded order alone for 0 shuffles."""
    return np.array(shuffled_orders(shuffles, branches, first) if shuffles else [list(range(branches))], np.int64)


@checked
def shuffled_orders(shuffles: int, branches: int, first: int = 0) -> list[list[int]]:
    """The published permutations: `random.Random(seed).shuffle` of the branches, from seed `first` on.

    >>> shuffled_orders(2, 4)
    [[2, 0, 1, 3], [3, 0, 2, 1]]
    """
    orders = []
    for seed in range(first, first + shuffles):
        order = list(range(branches))
        random.Random(seed).shuffle(order)
        orders.append(order)
    return orders


def run_recorded(
    recording: Recording,
    controller: Controller,
    *,
    shuffles: int = 100,
    first_shuffle: int = 0,
    processors: BranchProcessorList | None = None,
    traces: bool = False,
    compiled: bool | None = None,
    threads: int | None = None,
) -> ReplayResult:
    """What `tts_generate.replay.replay` returns, of a controller that is there already; see it for the arguments."""
    _check_shuffles(shuffles, recording.max_branches)
    recording.check(controller)
    orders = {n: _orders(shuffles, n, first_shuffle) for n in {q.branches for q in recording.questions}}
    out = Columns.empty(max(1, shuffles), len(recording.questions))
    if compiled is None:
        compiled = worth_compiling(out[0].size)
    seconds = None
    kept: list[Trace] | None = [] if traces else None
    if not processors and not traces and isinstance(controller, RunsElsewhere):
        out[:] = controller.replayed(recording, shuffles, first_shuffle, threads)
    elif processors or traces:
        _follow(recording, controller, orders, out, processors, kept)
    else:
        if compiled:
            seconds = run_compiled(recording, controller, orders, out, threads)
        if seconds is None:
            _interpret(recording, controller, orders, out)
    told = dict(describe(controller))
    return ReplayResult(told, recording, *Columns(*out), traces=tuple(kept or ()), compile_seconds=seconds)


def _check_shuffles(shuffles: int, branches: int) -> None:
    if shuffles < 0:
        raise InputError(f"shuffles must be 0 (recorded order) or more, got {shuffles}.")
    if shuffles > (orders := most_orders(branches)):
        raise InputError(
            f"{branches} branches have {orders} orders, {shuffles} shuffles were asked for; ask for fewer, or 0 for "
            "the recorded order alone."
        )


def most_orders(branches: int) -> float:
    """In how many orders so many branches can be opened; infinity for ten and more, which is no limit.

    >>> most_orders(3), most_orders(64)
    (6, inf)
    """
    return math.factorial(branches) if branches < 10 else math.inf


def _interpret(
    recording: Recording, controller: Controller, orders: dict[int, NDArray[np.int64]], out: NDArray[np.int64]
) -> None:
    """The loop that compiles, as plain Python: one question after the other, its branches as rows."""
    shape = recording.max_depth, recording.interval_tokens, recording.max_probe_tokens
    for q, recorded in enumerate(recording.questions):
        mine = controller.for_episode(recorded.branches)
        state = State(recorded.branches, *shape, recorded.book.text)
        work = Work.of([recorded], orders, controller, recording.interval_tokens, offset=0)
        order = orders[recorded.branches]
        problem = run_episodes(
            mine, state, Decision(recorded.branches), recorded.rows, work, out[:, :, q : q + 1], 0, len(order)
        )
        if problem >= 0:
            raise_problem(recording, controller, q, order[problem])


def _follow(
    recording: Recording,
    controller: Controller,
    orders: dict[int, NDArray[np.int64]],
    out: NDArray[np.int64],
    processors: BranchProcessorList | None,
    traces: list[Trace] | None,
) -> None:
    """Every episode by the runner that live runs have too, which knows processors and traces."""
    for q, recorded in enumerate(recording.questions):
        for s, order in enumerate(orders[recorded.branches].tolist()):
            events: list[Event] | None = None if traces is None else []
            episode = recording.episode(controller, q, order, processors, events)
            if traces is not None:
                traces.append(recorded.trace(controller, events or [], order))
            count(episode.state, episode.answer, out, s, q)
