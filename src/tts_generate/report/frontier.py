"""The accuracy-token picture: one line a controller over its budgets, intervals as bars, live runs as rings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from tts_generate.errors import TTSError

_COLOURS = ("#1f6feb", "#d1495b", "#2a9d5c", "#8a5cc2", "#c97b12", "#4d5761")


@dataclass(frozen=True)
class Point:
    """One measured point: mean tokens a question, accuracy in percent with its interval."""

    series: str
    tokens: float
    accuracy: float
    interval: tuple[float, float]
    label: str = ""
    live: bool = False


def plot_frontier(points: Sequence[Point], path: str | Path | TextIO, *, title: str) -> None:
    """Write a PNG (or SVG, by the ending of `path`; SVG into an open text file).

    Raises:
        TTSError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
        from matplotlib.ticker import LogFormatter
    except ImportError as error:
        raise TTSError("plots need matplotlib: pip install 'tts-generate[report]'.") from error
    figure = Figure(figsize=(8.4, 5.2), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(point.series for point in points))
    for number, name in enumerate(names):
        colour = _COLOURS[number % len(_COLOURS)]
        mine = sorted((p for p in points if p.series == name), key=lambda p: p.tokens)
        replayed = [p for p in mine if not p.live]
        axes.plot([p.tokens for p in replayed], [p.accuracy for p in replayed], "-o", color=colour, ms=4.5, label=name)
        for point in mine:
            low, high = point.interval
            shift = 1.025 if point.live else 1.0  # beside the replayed bar, not on it
            x = point.tokens * shift
            axes.plot([x, x], [low, high], color=colour, alpha=0.28, lw=2.2, zorder=1)
            if point.live:
                axes.plot([x], [point.accuracy], "D", mfc="white", mec=colour, mew=1.6, ms=7, zorder=4)
            if point.label:
                offset = (5, -12) if number % 2 == 0 else (-8, 8)  # neighbouring series: one below, one above
                axes.annotate(
                    point.label,
                    (x, point.accuracy),
                    xytext=offset,
                    textcoords="offset points",
                    fontsize=8,
                    color=colour,
                )
    if any(point.live for point in points):
        axes.plot([], [], "D", mfc="white", mec="#4d5761", mew=1.6, ms=7, ls="none", label="live, kept-aside questions")
    axes.set_xscale("log")
    for ticks in (axes.xaxis.set_major_formatter, axes.xaxis.set_minor_formatter):
        ticks(LogFormatter(labelOnlyBase=False, minor_thresholds=(2, 0.4)))
    axes.set_xlabel("tokens a question (generated + probe, log scale)")
    axes.set_ylabel("accuracy (%), bars: 95 % interval over questions")
    axes.set_title(title, loc="left", fontsize=11)
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9, loc="lower right")
    save(figure, path)


def save(figure: Any, path: str | Path | TextIO) -> None:
    """Write a figure as PNG or SVG by the ending of `path`, as SVG into a text file; the same figure, the same file."""
    from matplotlib import rc_context

    with rc_context({"svg.hashsalt": "tts-generate"}):
        if not isinstance(path, (str, Path)):
            figure.savefig(path, format="svg", metadata={"Date": None})
        elif Path(path).suffix == ".svg":
            figure.savefig(Path(path), metadata={"Date": None})
        else:
            figure.savefig(Path(path))
