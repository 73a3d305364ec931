"""Conformance tests that any controller must pass; run them on your own, in your own test suite.

from tts_generate.testing import check_controller
check_controller("path/to/my_controller")
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from tts_generate.arguments import checked, whole
from tts_generate.controller import Controller, Knob
from tts_generate.errors import InputError, TTSError
from tts_generate.loading import load_controller
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import Question, Trajectory

__all__ = [
    "INTERVAL", "MAX_DEPTH", "ConformanceError", "check_compiled", "check_controller", "check_independent",
    "check_knobs", "check_monotone", "check_no_future", "random_trajectories", "recording_of",
]  # fmt: skip

INTERVAL = 10
"""Tokens of one step in random recordings."""
MAX_DEPTH = 9
_ANSWERS = ("1", "2", "3", None)
_BETAS = (0.0, 0.25, 0.5, 0.75, 1.0)


class ConformanceError(TTSError):
    """A controller breaks a promise that replay, the engine or the search relies on."""


@checked
def check_controller(
    controller: str | Path | Controller, *, recordings: int = 4, branches: int = 64, seed: int = 0
) -> None:
    """Run every check below, over five budgets and `recordings` random recordings each.

    Args:
        controller: see `load_controller`; its code is trusted.
        recordings: random recordings for each budget.
        branches: branches of their questions; as many as the controller asks for at beta 1.
        seed: of the random recordings.

    Raises:
        ConformanceError: naming the promise, and how it was broken.
        ControllerError: an episode that stalls, or asks for more branches than there are.

    >>> check_controller("asc", recordings=1)
    """
    recordings = whole("recordings", recordings)
    at = {beta: load_controller(controller, beta=beta, trust_remote_code=True) for beta in _BETAS}
    check_knobs(type(at[0.5]))
    for number, (beta, chosen) in enumerate(at.items()):
        for n in range(recordings):
            check_independent(chosen, random_trajectories(random.Random(), branches))  # that nobody can know
            rng = random.Random(f"{seed} {number} {n}")
            rows = random_trajectories(rng, branches)
            check_no_future(chosen, rows, rng)
            if find_spec("numba") is not None and chosen.compiles:
                check_compiled(load_controller(controller, beta=beta, trust_remote_code=True), rows)


@checked
def check_knobs(kind: type[Controller]) -> None:
    """Every number among the knobs must be monotone in beta, and survive being set by hand."""
    betas = np.linspace(0, 1, 101)
    check_monotone(kind.__name__, betas, [kind.from_beta(float(beta)).knobs for beta in betas])
    again = kind(**kind.from_beta(0.5).knobs).knobs
    if again != kind.from_beta(0.5).knobs:
        raise ConformanceError(f"{kind.__name__}: knobs set by hand to what beta=0.5 gives come out as {again}.")


@checked
def check_monotone(name: str, betas: Sequence[float] | np.ndarray, rows: Sequence[Mapping[str, Knob]]) -> None:
    """Every number among the knobs `rows` at `betas`, of a controller called `name`, must move one way."""
    if not len(rows) == len(betas) > 0:
        raise InputError(f"check_monotone takes a row of knobs for each budget, got {len(rows)} for {len(betas)}.")
    for knob, value in rows[0].items():
        if isinstance(value, str):
            continue
        steps = np.diff([float(row[knob]) for row in rows])
        if not ((steps >= 0).all() or (steps <= 0).all()):
            moved = np.flatnonzero(steps)
            turn = betas[moved[1 + np.flatnonzero(np.diff(np.sign(steps[moved])))[0]]]
            raise ConformanceError(
                f"{name}.schedule: {knob} rises and falls with beta (first near {turn:.2f}); a budget knob "
                "must move every other knob one way."
            )


@checked
def check_no_future(controller: Controller, rows: Sequence[Trajectory], rng: random.Random) -> None:
    """Changing everything an episode did not read must change nothing that it did."""
    before = recording_of(rows)
    episode = before.episode(controller, 0)
    depths = [int(depth) for depth in episode.state.depth[: episode.state.opened]]
    finished = episode.state.finished.tolist()
    others = [
        row if n < len(depths) and finished[n] else _another(row, depths[n] if n < len(depths) else 0, rng)
        for n, row in enumerate(rows)
    ]
    told, other = before.trace(controller, 0), recording_of(others).trace(controller, 0)
    for one, two in zip(told.events, other.events, strict=False):
        if one != two:
            raise ConformanceError(
                f"{controller!r} sees what it did not read: with other unread steps it does {two} instead of {one}."
            )
    if len(told.events) != len(other.events):
        raise ConformanceError(f"{controller!r} sees what it did not read: it takes another number of rounds.")


@checked
def check_independent(controller: Controller, rows: Sequence[Trajectory]) -> None:
    """An episode must not depend on those that ran before in this process, wherever they are remembered.

    The first of them must be the first to show `rows`: what has been learnt from them before is not found.
    """
    recording, rng = recording_of(rows), random.Random(0)
    order = list(range(len(rows)))
    first = recording.trace(controller, 0, order)
    for others in (1, 2):
        for _ in range(others):
            recording.trace(controller, 0, rng.sample(order, len(order)))
        if recording.trace(controller, 0, order).events != first.events:
            raise ConformanceError(
                f"{controller!r} remembers other episodes; allocate everything that changes in `memory`: no closure, "
                "default argument, global, class attribute or cache may keep any of it."
            )


@checked
def check_compiled(controller: Controller, rows: Sequence[Trajectory]) -> None:
    """Compiled and interpreted hooks must give the same episodes."""
    recording = recording_of(rows)
    slow = replay(recording, controller, shuffles=3, compiled=False)
    fast = replay(recording, controller, shuffles=3, compiled=True)
    for column in ("answer_ids", "generated_tokens", "probe_tokens", "wasted_tokens", "opened", "rounds"):
        if (getattr(slow, column) != getattr(fast, column)).any():
            raise ConformanceError(
                f"{controller!r} gives other {column} compiled than interpreted. Look for an index out of range, for "
                "entries read beyond state.opened or a branch's depth, and for numpy functions where math has them."
            )


@checked
def recording_of(rows: Sequence[Trajectory]) -> Recording:
    """A recording of one question, with a second one whose branches are as long as any may be."""
    questions = [Question("question", "", "1"), Question("longest", "", "1")]
    return Recording.of(questions, [*rows, *_longest(len(rows))], INTERVAL, name="random recording")


@checked
def random_trajectories(rng: random.Random, branches: int) -> list[Trajectory]:
    """Branches of one question: ragged, with ties, repeated answers, and some without any."""
    return [_trajectory("question", n, rng.randint(1, MAX_DEPTH * INTERVAL), rng) for n in range(branches)]


@lru_cache
def _longest(branches: int) -> tuple[Trajectory, ...]:
    rng = random.Random(0)
    return tuple(_trajectory("longest", n, MAX_DEPTH * INTERVAL, rng) for n in range(branches))


def _trajectory(question: str, branch: int, tokens: int, rng: random.Random) -> Trajectory:
    steps = -(-tokens // INTERVAL)
    return Trajectory(
        question_id=question,
        branch=branch,
        seed=0,
        prompt_tokens=3,
        tokens=tokens,
        finish_reason="eos",
        final_answer=rng.choice(_ANSWERS),
        probe_positions=tuple(INTERVAL * (k + 1) for k in range(steps - 1)),
        probe_answers=tuple(rng.choice(_ANSWERS) for _ in range(steps - 1)),
        probe_tokens=(2,) * (steps - 1),
        probe_logprobs=(None,) * (steps - 1),
        step_logprobs=tuple(-rng.random() for _ in range(steps)),
    )


def _another(row: Trajectory, depth: int, rng: random.Random) -> Trajectory:
    """A branch that is the same up to `depth`, where it has not ended, and different from there on."""
    other = _trajectory(row.question_id, row.branch, rng.randint(INTERVAL * depth + 1, MAX_DEPTH * INTERVAL), rng)

    def spliced(name: str) -> tuple[Any, ...]:
        return (*getattr(row, name)[:depth], *getattr(other, name)[depth:])

    return changed(other, probe_answers=spliced("probe_answers"), step_logprobs=spliced("step_logprobs"))
