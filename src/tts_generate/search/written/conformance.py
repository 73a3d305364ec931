"""What a candidate's code must pass before it is replayed: `testing.check_controller`, behind the locks."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Knob
from tts_generate.errors import CandidateError
from tts_generate.hub.card import has_class
from tts_generate.recorded.episodes import Columns
from tts_generate.replay import Recording
from tts_generate.sandbox import Candidate, Sandbox
from tts_generate.sandbox.confirmation import Confirmation, Difference
from tts_generate.sandbox.strictly import columns_of
from tts_generate.testing import ConformanceError, check_monotone, random_trajectories, recording_of

_BETAS = tuple(k / 100 for k in range(101))
_SHOWN = (0, 50, 100)
_REPLAYED = (0.0, 0.5, 1.0)
_BRANCHES = (64, 2)
"""Of the random recordings: as many as usual, and as few as there may be."""
_ORDERS = 2
_SECONDS, _CPU_SECONDS = 20.0, 5.0
"""For all of it, and for each process, at most: it takes less than one where every loop ends."""
_HINTS = {
    "branches but this episode has": " Never open more than state.max_branches in all.",
    "only integers": " Indices and the votes of `confidence` are whole; `weighted_confidence` takes weights.",
    **dict.fromkeys(("was not done in", "used up its CPU time"), " Does every `while` of its hooks end?"),
}
"""By a part of an error's text: what to do."""
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
    family; episodes on random recordings, of 64 branches and of 2: each alone in strict mode, where what was not
    revealed cannot be read, and beside others, where they must come out the same.

    Raises:
        CandidateError: what is wrong, for whoever wrote it.
    """
    seconds, cpu_seconds = min(_SECONDS, box.limits.seconds), min(_CPU_SECONDS, box.limits.cpu_seconds)
    limits = dataclasses.replace(box.limits, seconds=seconds, cpu_seconds=cpu_seconds)
    how: dict[str, Any] = {"quiet": True, "limits": limits}
    with box.candidate(code, mode="strict", **how) as opened, opened.allowed(0.0):
        _check_name(code, opened.name)
        rows = opened.knobs(_BETAS)
        _check_knobs(opened, rows, families)
        alone = [_alone(opened, recording) for recording in _recordings()]
    with box.candidate(code, **how) as opened:
        differences = [_beside(opened, *episodes) for episodes in alone]
        name = opened.name
    Confirmation(_ORDERS * len(_REPLAYED) * len(_BRANCHES), tuple(itertools.chain(*differences))).require()
    return Examined(name, {f"{_BETAS[k]:g}": rows[k] for k in _SHOWN})


def _check_name(code: str, name: str) -> None:
    """Refuse a class that the folder of the best could not be loaded by."""
    if not has_class(code.encode(), name):
        raise CandidateError(
            "import",
            f"the class is called {name!r}, and no such class stands at the top of the file: define it there, "
            "unindented, by a name of at most 100 ASCII letters, digits and underscores, and do not rename it.",
        )


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


_Alone = dict[tuple[float, int], NDArray[np.int64]]
"""By budget and order of the branches: the columns of an episode."""


def _alone(opened: Candidate, recording: Recording) -> tuple[Recording, _Alone]:
    """A candidate's episodes on a random recording, each in a process of its own that shows what was revealed."""
    found: _Alone = {}
    with _told(recording):
        for beta in _REPLAYED:
            controller = opened.controller(beta=beta)
            recording.check(controller)
            for s in range(_ORDERS):
                found[beta, s] = columns_of(recording, controller, 0, s, _ORDERS, 0)
    return recording, found


def _beside(opened: Candidate, recording: Recording, alone: _Alone) -> list[Difference]:
    """Where the same episodes come out otherwise in one process."""
    found = []
    with _told(recording):
        for beta in _REPLAYED:
            result = opened.replay(recording, beta=beta, shuffles=_ORDERS, compiled=False)
            for s in range(_ORDERS):
                columns = np.array([getattr(result, name)[s, 0] for name in Columns._fields])
                found.append(Difference.of(beta, s, 0, columns, alone[beta, s]))
    return [one for one in found if one is not None]


@contextlib.contextmanager
def _told(recording: Recording) -> Iterator[None]:
    """Say of what goes wrong in which episode it did, and what to do where the error does not."""
    try:
        yield
    except CandidateError as error:
        hint = next((hint for part, hint in _HINTS.items() if part in str(error)), "")
        here = f"This was in a random episode that has {recording.max_branches} branches.{hint}"
        raise CandidateError(error.reason, f"{error} {here}", line=error.line, output=error.output) from error


def _recordings() -> list[Recording]:
    rng = random.Random(0)
    return [recording_of(random_trajectories(rng, branches)) for branches in _BRANCHES]
