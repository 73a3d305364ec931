"""The parameters proposer: Optuna's multi-objective samplers over the knob schedules of one controller.

Each knob that a controller declares a range for is a value at beta 0 and one at beta 1 (one value only where the range
says that it does not move), and a switch where its part can be turned off. Costs nothing but processor time.
Source: Optuna (arXiv 1907.10902), NSGA-II (Deb et al., 2002).
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from tts_generate.controller import Knob
from tts_generate.errors import TTSError
from tts_generate.schedule import Ends, Range, Schedule
from tts_generate.search.candidate import KnobCandidate, Scored

POPULATION = 48
ELITE = 12
"""Best candidates so far, of which every other proposal changes one a little."""
_STEP = 0.12
"""Of such a change, in units of a knob's range."""


class ParametersProposer:
    """Proposes schedules of `ranges`, beginning with `starts`; maximises the gain at low and at high costs.

    One half of every round comes from the sampler, which explores; the other half are the best so far with one to
    three of their parameters changed a little, which refines, and one that is the middle of the best, in which the luck
    of each is averaged out (as in CMA-ES, Hansen 2016). All are told to the sampler.

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
        self._random = random.Random(seed)
        sampler = optuna.samplers.NSGAIISampler(seed=seed, population_size=POPULATION)
        self._study = optuna.create_study(directions=["maximize", "maximize"], sampler=sampler)
        self._starts = [parameters_of(start, ranges) for start in starts]
        self._elite: list[tuple[tuple[int, float], str, dict[str, Any]]] = []
        self._asked: list[Any] = []

    def propose(self, count: int) -> list[KnobCandidate]:
        """The next `count` schedules."""
        first = [(parameters, "start", None) for parameters in self._starts[:count]]
        self._starts = self._starts[count:]
        told: list[tuple[dict[str, Any], str, str | None]] = list(first)
        if self._elite:
            told += [self._nudged() for _ in range((count - len(first)) // 2)]
            told[-1:] = [(centre([row[2] for row in self._elite], self._distributions), "centre", None)]
        for parameters, _, _ in told:
            self._study.enqueue_trial(parameters)
        told += [({}, "nsga2", None)] * (count - len(told))
        self._asked = [self._study.ask(self._distributions) for _ in told]
        return [
            KnobCandidate(schedule_of(trial.params, self._ranges), origin, parent)
            for trial, (_, origin, parent) in zip(self._asked, told, strict=True)
        ]

    def learn(self, scored: Sequence[Scored]) -> None:
        """Hand the gains to the sampler, and keep the best."""
        best = {name: (place, parameters) for place, name, parameters in self._elite}
        for trial, found in zip(self._asked, scored, strict=True):
            self._study.tell(trial, found.values)
            best[found.candidate.name] = (found.rung, found.score), trial.params
        ranked = sorted(
            ((place, name, parameters) for name, (place, parameters) in best.items()), key=lambda row: row[:2]
        )
        self._elite = ranked[-ELITE:]

    def _nudged(self) -> tuple[dict[str, Any], str, str | None]:
        _, parent, parameters = self._random.choice(self._elite)
        changed = dict(parameters)
        for name in self._random.sample(sorted(changed), min(len(changed), self._random.choice((1, 1, 2, 3)))):
            changed[name] = nudge(changed[name], self._distributions[name], self._random)
        return changed, "nudge", parent


def nudge(value: Any, distribution: Any, rng: random.Random) -> Any:
    """A value near `value` in its distribution; the other one of a switch."""
    if not hasattr(distribution, "low"):
        return not value
    low, high = float(distribution.low), float(distribution.high)
    step = rng.gauss(0.0, _STEP)
    if distribution.log:
        moved = math.exp(math.log(value) + step * math.log(high / low))
    else:
        moved = value + step * (high - low)
    held = min(max(moved, low), high)
    return round(held) if isinstance(distribution.low, int) else held


def centre(rows: Sequence[Mapping[str, Any]], distributions: Mapping[str, Any]) -> dict[str, Any]:
    """The mean of each parameter, of its logarithm where the distribution has one; the majority of a switch."""
    found: dict[str, Any] = {}
    for name, distribution in distributions.items():
        values = [row[name] for row in rows]
        if not hasattr(distribution, "low"):
            found[name] = 2 * sum(values) >= len(values)
            continue
        middle = math.exp(statistics.fmean(map(math.log, values))) if distribution.log else statistics.fmean(values)
        held = min(max(middle, distribution.low), distribution.high)
        found[name] = round(held) if isinstance(distribution.low, int) else held
    return found


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
