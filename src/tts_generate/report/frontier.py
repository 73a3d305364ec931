"""The accuracy-token picture: one line a controller over its budgets, intervals as bars, live runs as rings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_generate.errors import InputError, TTSError
from tts_generate.inert import inert

AXES = {
    "tokens": "tokens a question (generated + probe, log scale)",
    "sequential_tokens": "longest chain of tokens that wait for one another, a question (log scale)",
}
"""What accuracy is drawn over, and what the axis says."""
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

    @classmethod
    def of(cls, row: Mapping[str, Any], axis: str = "tokens", **more: Any) -> Point:
        """The point of a sweep's row or of a live one; a method without a budget is a series by itself."""
        series = row["controller"] if row["beta"] is not None else row.get("label", row["controller"])
        low, high = row["accuracy_ci"]
        return cls(series, row[axis], row["accuracy"], (low, high), **more)


@contextmanager
def drawing() -> Iterator[None]:
    """Draw with every text as it is, whatever somebody's matplotlibrc says: a `$` is no formula, and TeX reads none.

    Raises:
        TTSError: matplotlib is not installed.
    """
    try:
        from matplotlib import rc_context
    except ImportError as error:
        raise TTSError("plots need matplotlib: pip install 'tts-generate[report]'.") from error
    with rc_context({"svg.hashsalt": "tts-generate", "text.usetex": False, "text.parse_math": False}):
        yield


def caption(text: object) -> str:
    """A stranger's text as matplotlib may show it: inert, one line, not endless, and not hidden by an underscore.

    >>> caption("_mine"), len(caption("x" * 1000))
    (' _mine', 120)
    """
    shown = inert(text, lines=False)
    shown = shown if len(shown) <= 120 else f"{shown[:119]}…"
    return f" {shown}" if shown.startswith("_") else shown


def plot_frontier(points: Sequence[Point], path: str | Path, *, title: str, axis: str = AXES["tokens"]) -> None:
    """Write a PNG, or SVG by the ending of `path`.

    Raises:
        TTSError: matplotlib is not installed.
    """
    plot_frontiers({title: points}, path, axis=axis)


@drawing()
def plot_frontiers(panels: Mapping[str, Sequence[Point]], path: str | Path, *, axis: str = AXES["tokens"]) -> None:
    """As `plot_frontier`, several side by side, by their titles; a series has one colour in all of them.

    Raises:
        TTSError: matplotlib is not installed.
    """
    figure, every = panels_of(len(panels), 2.4 + 6 * len(panels), 5.2)
    names = list(dict.fromkeys(point.series for points in panels.values() for point in points))
    for axes, (title, points) in zip(every, panels.items(), strict=True):
        _draw(axes, points, names)
        axes.set_xlabel(axis)
        axes.set_title(caption(title), loc="left", fontsize=11)
    _clear(figure)
    save(figure, path)


def panels_of(count: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure of so many inches, and its panels side by side."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, count, squeeze=False)[0]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every


def _draw(axes: Any, points: Sequence[Point], names: Sequence[str]) -> None:
    """One panel; `names` are those of the series of all panels, in the order of their colours."""
    from matplotlib.ticker import LogFormatter

    here = {point.series for point in points}
    for number, name in [(number, name) for number, name in enumerate(names) if name in here]:
        colour = _COLOURS[number % len(_COLOURS)]
        mine = sorted((p for p in points if p.series == name), key=lambda p: p.tokens)
        replayed = [p for p in mine if not p.live]
        line = [p.tokens for p in replayed], [p.accuracy for p in replayed]
        axes.plot(*line, "-o", color=colour, ms=4.5, label=caption(name))
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
                    caption(point.label),
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
    axes.set_ylabel("accuracy (%), bars: 95 % interval over questions")
    axes.grid(alpha=0.25)
    axes.legend(frameon=False, fontsize=9, loc="lower right")


def _clear(figure: Any) -> None:
    """Leave out what stands beside a point where it would lie on the name of an earlier one."""
    figure.draw_without_rendering()
    for axes in figure.axes:
        shown: list[Any] = []
        for text in axes.texts:
            box = text.get_window_extent()
            text.set_visible(not any(box.overlaps(other) for other in shown))
            shown += [box] * text.get_visible()


def save(figure: Any, path: str | Path) -> None:
    """Write a figure as PNG or SVG by the ending of `path`; the same figure, the same file.

    Raises:
        InputError: another ending.
    """
    if (ending := Path(path).suffix) not in (".png", ".svg"):
        raise InputError(f"pictures are PNG or SVG by the ending of their file, got {str(path)!r}.")
    figure.savefig(path, metadata={"Date": None} if ending == ".svg" else {})
