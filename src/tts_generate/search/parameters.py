"""The parameters proposer: Optuna's multi-objective samplers over the knob schedules of one controller.

Each knob that a controller declares a range for is a value at beta 0 and one at beta 1 (one value only where the range
says that it does not move), and a switch where its part can be turned off. Costs nothing but processor time.
Source: Optuna (arXiv 1907.10902), NSGA-II (Deb et al., 2002).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tts_generate.controller import Knob
from tts_generate.errors import TTSError
from tts_generate.schedule import Ends, Range, Schedule
from tts_generate.search.candidate import Candidate, Scored

POPULATION = 48


class ParametersProposer:
    """Proposes schedules of `ranges`, beginning with `starts`; maximises the gain at low and at high costs.

    Args:
        ranges: by knob, where it may be set.
        starts: schedules to try first, of knobs in `ranges`.
        seed: of the sampler.

    Raises:
        TTSError: optuna is not installed.
    """

    name = "parameters"

    def __init__(self, ranges: Mapping[str, Range], starts: Sequence[Schedule], seed: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise TTSError("the search needs optuna: pip install 'tts-generate[search]'.") from error
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._ranges = ranges
        self._distributions = distributions(ranges)
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
        self._study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
        self._starts = len(starts)
        for start in starts:
            self._study.enqueue_trial(parameters_of(start, ranges))
        self._asked: list[Any] = []

    def propose(self, count: int) -> list[Candidate]:
        """The next `count` schedules."""
        self._asked = [self._study.ask(self._distributions) for _ in range(count)]
        return [
            Candidate(schedule_of(trial.params, self._ranges), "start" if trial.number < self._starts else "nsga2")
            for trial in self._asked
        ]

    def learn(self, scored: Sequence[Scored]) -> None:
        """Hand the gains to the sampler."""
        for trial, found in zip(self._asked, scored, strict=True):
            self._study.tell(trial, found.values)


def distributions(ranges: Mapping[str, Range]) -> dict[str, Any]:
    """The parameters of a schedule, as optuna's distributions."""
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, room in ranges.items():
        log = room.scale == "log"
        for end in ("start", "end") if room.moves else ("start",):
            if room.whole:
                found[f"{name}.{end}"] = IntDistribution(int(room.low), int(room.high), log=log)
            else:
                found[f"{name}.{end}"] = FloatDistribution(room.low, room.high, log=log)
        if room.off is not None:
            found[f"{name}.on"] = CategoricalDistribution([True, False])
    return found


def schedule_of(parameters: Mapping[str, Any], ranges: Mapping[str, Range]) -> dict[str, Knob | Ends]:
    """The schedule that a trial's parameters stand for; real numbers to three significant digits."""

    def rounded(name: str, end: str) -> int | float:
        value = parameters[f"{name}.{end}"]
        return int(value) if ranges[name].whole else float(f"{value:.3g}")

    schedule: dict[str, Knob | Ends] = {}
    for name, room in ranges.items():
        if room.off is not None and not parameters[f"{name}.on"]:
            schedule[name] = room.off
        elif room.moves:
            schedule[name] = Ends(rounded(name, "start"), rounded(name, "end"), room.scale)
        else:
            schedule[name] = rounded(name, "start")
    return schedule


def parameters_of(schedule: Schedule, ranges: Mapping[str, Range]) -> dict[str, Any]:
    """The parameters that stand for a schedule, as near as its ranges allow."""
    found: dict[str, Any] = {}
    for name, room in ranges.items():
        knob = schedule[name]
        ends = (knob.start, knob.end) if isinstance(knob, Ends) else (knob, knob)
        is_on = room.off is None or ends != (room.off, room.off)
        if room.off is not None:
            found[f"{name}.on"] = is_on
        for end, value in zip(("start", "end") if room.moves else ("start",), ends, strict=False):
            kept = float(value) if is_on else (room.low + room.high) / 2
            inside = min(max(kept, room.low), room.high)
            found[f"{name}.{end}"] = round(inside) if room.whole else inside
    return found
