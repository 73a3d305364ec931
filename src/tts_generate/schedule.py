"""Knobs as data: the range in which a search may set each, and schedules over beta that a file can hold.

A schedule is what a controller folder keeps under "knobs": a value throughout, or one at beta 0 and one at beta 1 with
a line between them, straight or straight in the logarithm. Either is monotone in beta, whatever the numbers are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeGuard, get_args

from tts_generate.controller import Controller, Knob
from tts_generate.errors import ControllerError, UnknownNameError

Scale = Literal["linear", "log"]


@dataclass(frozen=True, slots=True)
class Ends:
    """A knob at beta 0 and at beta 1; whole numbers at both ends are whole in between.

    >>> Ends(4, 64, "log").at(0.5)
    16
    >>> Ends(0.5, 0.1).at(0.25)
    0.4
    """

    start: int | float
    end: int | float
    scale: Scale = "linear"

    def at(self, beta: float) -> int | float:
        """The value at `beta`, rounded to a whole number or to 4 significant digits."""
        if self.scale == "log":
            value = math.exp((1 - beta) * math.log(self.start) + beta * math.log(self.end))
        else:
            value = (1 - beta) * self.start + beta * self.end
        if isinstance(self.start, int) and isinstance(self.end, int):
            return round(value)
        return float(f"{value:.4g}")

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"start": self.start, "end": self.end, "scale": self.scale}


Schedule = Mapping[str, Knob | Ends]
"""By knob: its value at every beta, or how it goes from beta 0 to beta 1."""


def at(schedule: Schedule, beta: float) -> dict[str, Knob]:
    """Every knob of `schedule` at `beta`.

    >>> at({"width": Ends(4, 8), "criterion": "beta"}, 1.0)
    {'width': 8, 'criterion': 'beta'}
    """
    return {name: knob.at(beta) if isinstance(knob, Ends) else knob for name, knob in schedule.items()}


def between(few: Schedule, short: Schedule, latency: float) -> dict[str, Knob | Ends]:
    """The schedule that lies `latency` of the way from one to another, each knob on its own scale.

    Raises:
        ControllerError: a knob of `short` that `few` does not have, or has in another form.

    >>> between({"width": Ends(4, 8, "log"), "criterion": "beta"}, {"width": Ends(16, 32, "log")}, 0.5)
    {'width': Ends(start=8, end=16, scale='log'), 'criterion': 'beta'}
    """
    found = dict(few)
    for name, there in short.items():
        here = few.get(name)
        if isinstance(here, Ends) and isinstance(there, Ends) and here.scale == there.scale:
            ends = (Ends(here.start, there.start, here.scale), Ends(here.end, there.end, here.scale))
            found[name] = Ends(ends[0].at(latency), ends[1].at(latency), here.scale)
        elif is_number(here) and is_number(there):
            found[name] = Ends(here, there).at(latency)
        else:
            raise ControllerError(f"knob {name} is {here} at latency 0 and {there} at latency 1, which has no between.")
    return found


def to_json(schedule: Schedule) -> dict[str, Any]:
    """A schedule as plain JSON values."""
    return {name: knob.to_dict() if isinstance(knob, Ends) else knob for name, knob in schedule.items()}


def from_json(row: Mapping[str, Any], where: object) -> dict[str, Knob | Ends]:
    """The schedule that `to_json` wrote.

    Raises:
        ControllerError: naming `where` and the knob that is not a value or {"start", "end", "scale"}.
    """
    found: dict[str, Knob | Ends] = {}
    for name, knob in row.items():
        found[name] = _ends(name, knob, where) if isinstance(knob, dict) else knob
    return found


def _ends(name: str, row: Mapping[str, Any], where: object) -> Ends:
    start, end, scale = row.get("start"), row.get("end"), row.get("scale", "linear")
    if is_number(start) and is_number(end) and scale in get_args(Scale) and set(row) <= {"start", "end", "scale"}:
        if scale == "linear" or (start > 0 and end > 0):
            return Ends(start, end, scale)
    raise ControllerError(
        f'{where}: knob {name} must be a value, or {{"start": number, "end": number, "scale": "linear" or "log"}} '
        f"(above 0 for log), got {dict(row)}."
    )


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a value is a number that a hook can reckon with, in 64 bits.

    >>> is_number(7), is_number(10**4000), is_number(float("nan")), is_number(True)
    (True, False, False, False)
    """
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -(1 << 63) < value < 1 << 63


def scheduled(kind: type[Controller], schedule: Schedule, name: str) -> type[Controller]:
    """The controller `kind` with `schedule` for some or all of its knobs; the others follow beta as before.

    Raises:
        UnknownNameError: a knob that `kind` does not have.

    >>> from tts_generate.loading import load_controller
    >>> kind = scheduled(type(load_controller("asc")), {"max_samples": Ends(8, 16)}, "FewerSamples")
    >>> kind.from_beta(0.5)
    FewerSamples(beta=0.5, max_samples=12, threshold=0.95, criterion=beta)
    """
    known = kind.schedule(0.5)
    for knob in schedule:
        if knob not in known:
            raise UnknownNameError.of(f"knob of {kind.__name__}", knob, known)

    def of_beta(beta: float) -> dict[str, Knob]:
        return {**kind.schedule(beta), **at(schedule, beta)}

    return derived(kind, of_beta, name, own_schedule=dict(schedule))


def derived(
    kind: type[Controller], of_beta: Callable[[float], dict[str, Knob]], name: str, **more: Any
) -> type[Controller]:
    """A class of the hooks of `kind` with another `schedule`, and whatever attributes are given."""
    body = {"schedule": staticmethod(of_beta), **more, "__doc__": kind.__doc__, "__module__": __name__}
    return type(name, (kind,), body)


@dataclass(frozen=True, slots=True)
class Range:
    """Where a search may set a knob: `low` to `high`, whole numbers if both are.

    >>> Range(1, 64, "log").whole
    True
    """

    low: int | float
    high: int | float
    scale: Scale = "linear"
    moves: bool = True
    """Whether it may change with beta; if not, one value serves every budget."""
    off: int | float | None = None
    """The value outside the range that switches its part off."""
    logprobs: bool = False
    """Whether its part reads log-probabilities, which not every recording holds."""

    @property
    def whole(self) -> bool:
        """Whether the knob counts something."""
        return isinstance(self.low, int) and isinstance(self.high, int)


def ranges_of(kind: type[Controller]) -> Mapping[str, Range]:
    """The ranges that a controller declares in `ranges`; those of its knobs only.

    Raises:
        ControllerError: it declares none, or one of something that is no knob.
    """
    ranges: Mapping[str, Range] = getattr(kind, "ranges", {})
    if not ranges:
        raise ControllerError(
            f"{kind.__name__} declares no ranges, so its knobs cannot be searched; give the class "
            '`ranges = {"knob": Range(low, high)}` (tts_generate.schedule), or search "worth".'
        )
    for name in ranges:
        if name not in kind.schedule(0.5):
            raise UnknownNameError.of(f"knob in ranges of {kind.__name__}", name, kind.schedule(0.5))
    return ranges
