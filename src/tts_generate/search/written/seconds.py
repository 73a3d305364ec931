"""Seconds that a candidate takes on a device: the engine's own loop over a few recorded questions, on its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tts_generate.controller import Controller
from tts_generate.profile import Profile
from tts_generate.sandbox import Sandbox
from tts_generate.search.candidate import Written
from tts_generate.search.questions import Part
from tts_generate.trajectories import TrajectoryStore

_QUESTIONS = 4
"""Of all stores together, each asked alone."""
_BETAS = (0.0, 0.5, 1.0)


@dataclass(frozen=True)
class Clock:
    """A device's profile, and the stores whose branches it is to decode."""

    profile: Profile
    stores: Mapping[str, Path]
    """By the name of their recording."""
    _opened: dict[str, TrajectoryStore] = field(default_factory=dict)
    _known: dict[tuple[Any, ...], float] = field(default_factory=dict)
    """Seconds of the reference, which every candidate stands beside."""

    def seconds(self, part: Part, controller: Controller) -> float:
        """From question to answer, on average over the first questions of each recording of `part`."""
        from tts_generate.engine.predict import predict

        found = [
            predict(self._store(name), controller, self.profile, questions=asked).seconds
            for name, asked in _asked(part)
        ]
        return float(np.concatenate(found).mean())

    def _store(self, name: str) -> TrajectoryStore:
        if name not in self._opened:
            self._opened[name] = TrajectoryStore.open(self.stores[name])
        return self._opened[name]

    def _of_reference(self, part: Part, reference: type[Controller], beta: float) -> float:
        key = (_asked(part), reference, beta)
        if key not in self._known:
            self._known[key] = self.seconds(part, reference.from_beta(beta))
        return self._known[key]

    def told(self, box: Sandbox, part: Part, candidate: Written, reference: type[Controller]) -> str:
        """A candidate's seconds beside the reference's, as a line.

        Raises:
            CandidateError: it fails there.
        """
        rows = []
        with box.candidate(candidate.code, mode="strict", quiet=True) as opened:
            for beta in _BETAS:
                ours = self.seconds(part, opened.controller(beta=beta))
                theirs = self._of_reference(part, reference, beta)
                rows.append(f"beta {beta:g}: {ours:,.3g} s, the reference {theirs:,.3g} s")
        device = self.profile.about.get("device", "the device of the profile")
        return f"seconds to an answer on {device}, a question at a time: {'; '.join(rows)}"


def _asked(part: Part) -> tuple[tuple[str, tuple[str, ...]], ...]:
    few = max(1, _QUESTIONS // len(part.recordings))
    return tuple(
        (each.name, tuple(one.question.question_id for one in each.questions[:few])) for each in part.recordings
    )
