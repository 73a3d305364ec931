"""The search of knobs: schedules of one controller whose code is trusted, proposed by Optuna."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tts_generate.controller import Controller
from tts_generate.errors import UnknownNameError
from tts_generate.recorded.recording import fewest_branches
from tts_generate.replay import Recording
from tts_generate.schedule import Ends, Range, Schedule, ranges_of
from tts_generate.search.bench import Families
from tts_generate.search.best import called, write_controller
from tts_generate.search.candidate import KnobCandidate, Proposal
from tts_generate.search.choice import Contest, Measured, ablation
from tts_generate.search.history import History
from tts_generate.search.loop import Judge
from tts_generate.search.narrow import narrowed, narrowed_ranges
from tts_generate.search.objective import Fidelity, Gains, gain_over
from tts_generate.search.parameters import ParametersProposer


class Knobs:
    """Searches the knobs of `kind`; see `way.Way`.

    Raises:
        ControllerError: it declares no ranges.
        UnknownNameError: a knob that it does not declare a range for.
        StoreError: it reads what the recordings do not hold.
    """

    def __init__(
        self,
        kind: type[Controller],
        name: str,
        knobs: Sequence[str] | None,
        recordings: Sequence[Recording],
        seed: int,
    ) -> None:
        branches = fewest_branches(recordings)
        self.kind, self.name, self._seed = narrowed(kind, branches), name, seed
        ranges = narrowed_ranges(ranges_of(self.kind), branches, all(r.has_logprobs for r in recordings))
        for knob in knobs or ():
            if knob not in ranges:
                raise UnknownNameError.of(f"knob of {name} to search", knob, ranges)
        self.ranges = {knob: room for knob, room in ranges.items() if knobs is None or knob in knobs}
        self.bench = Families(self.kind)
        self.gain: Gains = gain_over
        self._knobs = knobs
        for recording in recordings:
            recording.check(self.kind.from_beta(0.5))

    def settings(self) -> dict[str, Any]:
        """What two searches of one folder must agree in."""
        return {"controller": self.name, "knobs": self._knobs, "proposer": ParametersProposer.name}

    def proposer(self, judge: Judge, history: History) -> ParametersProposer:
        """Who proposes."""
        return ParametersProposer(self.ranges, starts(self.kind, self.ranges), self._seed)

    def usd(self) -> float:
        """Nothing: it costs processor time."""
        return 0.0

    def about(
        self, candidate: Proposal, measured: Measured, contest: Contest, fidelity: Fidelity, history: History
    ) -> dict[str, Any]:
        """The candidate, and the points of mean gain that are lost without each of its parts."""
        assert isinstance(candidate, KnobCandidate)
        lost = ablation(candidate.schedule, self.ranges, measured, contest, fidelity)
        return {"candidate": candidate.to_dict(), "ablation": lost}

    def write_best(self, history: History, candidate: Proposal, gained: str, provenance: Mapping[str, Any]) -> None:
        """Write the controller with the candidate's schedules."""
        assert isinstance(candidate, KnobCandidate)
        write_controller(
            history.folder / "best",
            self.name,
            candidate.schedule,
            name=f"found_{candidate.name}",
            description=f"{called(self.name)} with schedules found by search: {gained}",
            provenance={"source": "tts-generate search", **provenance},
        )

    def close(self) -> None:
        """Nothing is held open."""


def starts(kind: type[Controller], ranges: dict[str, Range]) -> list[Schedule]:
    """What to try first: the controller's own schedule, from its ends, and those that it lists in `starts`."""
    low, high = kind.schedule(0.0), kind.schedule(1.0)
    own: dict[str, Any] = {name: Ends(low[name], high[name], room.scale) for name, room in ranges.items()}  # type: ignore[arg-type]
    listed: Sequence[Schedule] = getattr(kind, "starts", ())
    return [own, *({**own, **{name: knob for name, knob in start.items() if name in ranges}} for start in listed)]
