"""Charts of a page as plain numbers: where points, lines, bars and ticks stand; the template draws them as SVG.

Colours are classes (`s0`, `s1`, …) that the page's style sheet gives a light and a dark value.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from tts_generate.report.frontier import AXES, Point
from tts_generate.statistics import frontier

WIDTH, HEIGHT = 860.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 56.0, 16.0, 14.0, 46.0
COLOURS = 8
"""Series that have a colour of their own; more begin anew."""


class Tick(NamedTuple):
    """A mark of an axis: where, in the units of the view box, and what it says."""

    at: float
    text: str


class Dot(NamedTuple):
    """A measured point with the ends of its interval, in the units of the view box, and what a pointer is told."""

    x: float
    y: float
    low: float
    high: float
    text: str


class Series(NamedTuple):
    """One controller: its dots, and the line through those that nothing of its own beats."""

    name: str
    colour: int
    dots: list[Dot]
    line: str


@dataclass(frozen=True)
class FrontierChart:
    """Accuracy over tokens (log scale), one series a controller, intervals as bars."""

    axis: str
    series: list[Series]
    x_ticks: list[Tick]
    y_ticks: list[Tick]

    @classmethod
    def of(cls, points: Sequence[Point], axis: str = AXES["tokens"]) -> FrontierChart:
        """Lay the points out; there must be at least one, and their tokens must be above 0."""
        tokens = [point.tokens for point in points]
        left, right = math.log(min(tokens) * 0.9), math.log(max(tokens) * 1.1)
        ends = [end for point in points for end in (*point.interval, point.accuracy)]
        bottom, top = max(0.0, min(ends) - 2.0), min(100.0, max(ends) + 2.0)

        def x(value: float) -> float:
            return LEFT + (math.log(value) - left) / (right - left) * (WIDTH - LEFT - RIGHT)

        def y(value: float) -> float:
            return TOP + (top - value) / (top - bottom) * (HEIGHT - TOP - BOTTOM)

        series = []
        for number, name in enumerate(dict.fromkeys(point.series for point in points)):
            mine = sorted((p for p in points if p.series == name), key=lambda p: p.tokens)
            dots = [Dot(x(p.tokens), y(p.accuracy), y(p.interval[0]), y(p.interval[1]), _told(p)) for p in mine]
            best = frontier([(p.tokens, p.accuracy) for p in mine])
            line = " ".join(f"{x(t):.1f},{y(a):.1f}" for t, a in best)
            series.append(Series(name, number % COLOURS, dots, line))
        return cls(
            axis,
            series,
            [Tick(x(value), _short(value)) for value in _decades(math.exp(left), math.exp(right))],
            [Tick(y(value), f"{value:g}") for value in _steps(bottom, top)],
        )


@dataclass(frozen=True)
class TokenBar:
    """Tokens of one method by kind, in percent of the longest bar."""

    label: str
    kept: float
    wasted: float
    probe: float
    row: Mapping[str, Any]


def bars(rows: Sequence[Mapping[str, Any]]) -> list[TokenBar]:
    """One bar a row of a sweep: generated tokens that counted, generated ones of pruned branches, probe tokens.

    >>> bars([{"label": "SC", "tokens": 200, "generated_tokens": 150, "wasted_tokens": 50, "probe_tokens": 50}])[0].kept
    50.0
    """
    longest = max(max(row["tokens"] for row in rows), 1)
    return [
        TokenBar(
            row["label"],
            100 * (row["generated_tokens"] - row["wasted_tokens"]) / longest,
            100 * row["wasted_tokens"] / longest,
            100 * row["probe_tokens"] / longest,
            row,
        )
        for row in rows
    ]


def _told(point: Point) -> str:
    low, high = point.interval
    return (
        f"{point.label or point.series}: {point.accuracy:.1f} % ({low:.1f} to {high:.1f}), {point.tokens:,.0f} tokens"
    )


def _short(value: float) -> str:
    """A round number of tokens for an axis: 500, 20k, 1M."""
    for size, name in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{name}"
    return f"{value:g}"


def _decades(low: float, high: float) -> list[float]:
    """1, 2 and 5 times the powers of ten between two values."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    return [m * 10.0**power for power in powers for m in (1, 2, 5) if low <= m * 10.0**power <= high]


def _steps(low: float, high: float) -> list[float]:
    """About six round percentages between two."""
    step = next(step for step in (1, 2, 5, 10, 20) if (high - low) / step <= 7 or step == 20)
    return [float(value) for value in range(math.ceil(low / step) * step, math.floor(high) + 1, step)]
