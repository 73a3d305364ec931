"""Whether a candidate's code compiles, decides the same compiled, and keeps up: said when it is written."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping
from typing import Any

from tts_generate.errors import CandidateError
from tts_generate.recorded.episodes import Columns
from tts_generate.replay import Recording
from tts_generate.sandbox import Candidate
from tts_generate.search.objective import Fidelity
from tts_generate.search.questions import Part

_BETAS = (0.0, 0.5, 1.0)
_QUESTIONS = 16
"""Of those that are replayed interpreted too."""
_LONG = 3.0
"""Seconds of timing that are enough."""


def check_speed(opened: Candidate, part: Part, fidelity: Fidelity, seconds: float) -> None:
    """Compile a candidate's hooks, compare them with what they decide interpreted, and time them.

    Raises:
        CandidateError: numba's reason and the line; what compiled hooks decide otherwise; or how slow they are.
    """
    if not opened.compiles:
        raise CandidateError("slow", f"{opened.name} has compiles = False; hooks must compile here: leave that out.")
    whole = part.recordings[0]
    few = dataclasses.replace(whole, questions=whole.questions[:_QUESTIONS])
    how: dict[str, Any] = {"shuffles": 1, "first_shuffle": fidelity.first_shuffle}
    opened.replay(few, compiled=True, **how)
    if opened.warnings:
        raise CandidateError("slow", f"{opened.warnings[0]} Mend that, and write it again.")
    for last in (False, True):  # the first time it compiles what recordings of other sizes need
        each = _pace(opened, part, how)
        expected = each * len(fidelity.betas) * fidelity.shuffles * part.count
        if expected <= seconds:
            break
        if last:
            raise CandidateError(
                "slow",
                f"{opened.name} compiles, but an episode takes {1000 * each:.1f} ms: the closest look at it would take "
                f"{expected:.0f} s, {seconds:.0f} are allowed. Some hook does too much at each step: leave out loops "
                "over loops, and count on from the round before, in `memory`.",
            )
    for beta in _BETAS:
        _check_same(opened, few, beta, how)


def _pace(opened: Candidate, part: Part, how: Mapping[str, Any]) -> float:
    """Seconds that an episode takes compiled, on average over some budgets."""
    started, episodes, spent = time.perf_counter(), 0, 0.0
    for recording in part.recordings:
        for beta in _BETAS:
            if spent < _LONG:
                opened.replay(recording, beta=beta, compiled=True, **how)
                episodes, spent = episodes + len(recording.questions), time.perf_counter() - started
    return spent / episodes


def _check_same(opened: Candidate, few: Recording, beta: float, how: Mapping[str, Any]) -> None:
    fast, slow = (opened.replay(few, beta=beta, compiled=compiled, **how) for compiled in (True, False))
    for name in Columns._fields:
        if (getattr(fast, name) != getattr(slow, name)).any():
            raise CandidateError(
                "different",
                f"{opened.name} has other {name} compiled than interpreted (beta {beta:g}). Compiled, an attribute "
                "keeps the type that `memory` gives it (0 cuts what is added to it to whole numbers: write 0.0), "
                "and no index is checked: neither beyond state.opened or a branch's depth, nor of your own arrays.",
            )
