"""What a candidate's code must pass before it is replayed: `testing.check_controller`, behind the locks."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tts_generate.controller import Knob
from tts_generate.errors import CandidateError
from tts_generate.replay import Recording, ReplayResult
from tts_generate.sandbox import Candidate, Sandbox
from tts_generate.testing import ConformanceError, check_monotone, random_trajectories, recording_of

_BETAS = tuple(k / 100 for k in range(101))
_SHOWN = (0, 50, 100)
_REPLAYED = (0.0, 0.5, 1.0)
_BRANCHES = (64, 2)
"""Of the random recordings: as many as usual, and as few as there may be."""
_EPISODES = 24
_MOST = 1e15
"""Of a knob that is a number."""


@dataclass(frozen=True)
class Examined:
    """A candidate that passed."""

    name: str
    """Of its class."""
    knobs: dict[str, dict[str, Knob]]
    """At beta 0, 0.5 and 1, by beta."""


def examine(box: Sandbox, code: str, *, families: bool = True) -> Examined:
    """Check code by every rule that holds before anything is measured.

    The import rules; one class that loads; knobs that each move one way with beta, or not at all for one that is no
    family; episodes on random recordings, of 64 branches and of 2, that come out the same in strict mode, where there
    is no future to look at and no other episode to remember.

    Args:
        box: where it runs.
        code: of the candidate.
        families: whether it is to be a family over beta.

    Raises:
        CandidateError: what is wrong, for whoever wrote it.
    """
    with box.candidate(code, quiet=True) as opened:
        rows = opened.knobs(_BETAS)
        _check_knobs(opened, rows, families)
        results = [_replayed(opened, recording) for recording in _recordings()]
        name = opened.name
    for found in results:
        box.confirm(code, found, shuffles=2, episodes=_EPISODES).require()
    return Examined(name, {f"{_BETAS[k]:g}": rows[k] for k in _SHOWN})


def _check_knobs(opened: Candidate, rows: Sequence[dict[str, Knob]], families: bool) -> None:
    """Refuse a schedule that is no budget; its values may be forged, so nothing is taken for granted."""
    for beta, row in zip(_BETAS, rows, strict=True):
        if row.keys() != rows[0].keys():
            raise CandidateError(
                "knobs", f"{opened.name} has other knobs at beta {beta:g} than at 0; name all of them."
            )
        for knob, value in row.items():
            is_name = isinstance(value, str)
            if is_name != isinstance(rows[0][knob], str) or not (is_name or abs(float(value)) < _MOST):
                raise CandidateError("knobs", f"{opened.name}: {knob} is {value!r:.40} at beta {beta:g}.")
    try:
        check_monotone(opened.name, _BETAS, rows)
    except ConformanceError as error:
        raise CandidateError("knobs", str(error)) from None
    if not families and any(row != rows[0] for row in rows):
        raise CandidateError("knobs", f"{opened.name}.schedule depends on beta; here every knob is a constant.")
    middle: dict[str, Any] = rows[50]
    (again,) = opened.knobs([0.5], **middle)
    if again != middle:
        raise CandidateError("knobs", f"{opened.name}: knobs set by hand to {middle} come out as {again}.")


def _replayed(opened: Candidate, recording: Recording) -> list[ReplayResult]:
    """A candidate's replays of a random recording."""
    try:
        return [opened.replay(recording, beta=beta, shuffles=2, compiled=False) for beta in _REPLAYED]
    except CandidateError as error:
        here = f"in an episode that has {recording.max_branches} branches (never open more than state.max_branches)"
        raise CandidateError(error.reason, f"{error} This was {here}.", line=error.line, output=error.output) from error


def _recordings() -> list[Recording]:
    rng = random.Random(0)
    return [recording_of(random_trajectories(rng, branches)) for branches in _BRANCHES]
