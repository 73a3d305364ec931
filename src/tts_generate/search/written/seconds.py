"""Seconds that a candidate takes on a device: the engine's own loop over a few recorded questions, on its profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

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

    def seconds(self, part: Part, controller: Controller) -> float:
        """From question to answer, on average over the first questions of each recording of `part`."""
        from tts_generate.engine.predict import predict

        found = []
        for recording in part.recordings:
            few = recording.questions[: max(1, _QUESTIONS // len(part.recordings))]
            asked = [one.question.question_id for one in few]
            store = TrajectoryStore.open(self.stores[recording.name])
            found.append(predict(store, controller, self.profile, questions=asked).seconds)
        return float(np.concatenate(found).mean())

    def told(self, box: Sandbox, part: Part, candidate: Written, reference: type[Controller]) -> str:
        """A candidate's seconds beside the reference's, as a line.

        Raises:
            CandidateError: it fails there.
        """
        rows = []
        with box.candidate(candidate.code, mode="strict", quiet=True) as opened:
            for beta in _BETAS:
                ours = self.seconds(part, opened.controller(beta=beta))
                theirs = self.seconds(part, reference.from_beta(beta))
                rows.append(f"beta {beta:g}: {ours:,.3g} s, the reference {theirs:,.3g} s")
        device = self.profile.about.get("device", "the device of the profile")
        return f"seconds to an answer on {device}, a question at a time: {'; '.join(rows)}"
