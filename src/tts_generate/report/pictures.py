"""The pictures of a page as files: frontiers, tokens by kind, and the lanes of an episode, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_generate.errors import InputError, TTSError
from tts_generate.report.frontier import plot_frontier, save
from tts_generate.report.page import Page
from tts_generate.trace import Trace

_ANSWERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6a51c9", "#a39200")
_REST, _NONE = "#8b949e", "#cfd5db"
_KINDS = {"generated, counted": "#0072b2", "wasted on pruned branches": "#d98f00", "probe": "#6f7a86"}


def draw_page(page: Page, folder: Path) -> Iterator[Path]:
    """Write the pictures of a page into `folder`, each as .png and .svg; their paths, one by one.

    `frontier` and `tokens` are of the page's first table, `trace` the lanes of its first traced question.

    Raises:
        TTSError: matplotlib is not installed.
        InputError: the folder cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}.") from error
    measured = next(iter(page.measured), None)
    points = measured.points() if measured else []
    traced = next((asked for asked in page.asked if any(asked.traces)), None)
    for ending in (".png", ".svg"):
        if points:
            plot_frontier(points, folder / f"frontier{ending}", title=page.title)
            yield folder / f"frontier{ending}"
        if measured:
            plot_tokens(measured.rows, folder / f"tokens{ending}", title=page.title)
            yield folder / f"tokens{ending}"
        if traced:
            pairs = zip(page.methods, traced.traces, strict=True)
            traces = {label: trace for label, trace in pairs if trace is not None}
            plot_traces(traces, folder / f"trace{ending}", title=traced.name)
            yield folder / f"trace{ending}"


def plot_tokens(rows: Sequence[Mapping[str, Any]], path: Path, *, title: str) -> None:
    """Tokens a question by kind, one bar a row of a sweep; PNG or SVG by the ending of `path`."""
    figure, (axes,) = _figure(1, height=1.2 + 0.3 * len(rows))
    labels = [row["label"] for row in rows]
    left = [0.0] * len(rows)
    counted = [row["generated_tokens"] - row["wasted_tokens"] for row in rows]
    lengths = (counted, [row["wasted_tokens"] for row in rows], [row["probe_tokens"] for row in rows])
    for (name, colour), widths in zip(_KINDS.items(), lengths, strict=True):
        axes.barh(labels, widths, left=left, color=colour, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.invert_yaxis()
    axes.set_xlabel("tokens a question")
    axes.set_title(title, loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


def plot_traces(traces: Mapping[str, Trace], path: Path, *, title: str) -> None:
    """The lanes of episodes of one question, by label: branches over depth, coloured by the answer they show.

    A cross is a pruned branch, a dot one that ended. PNG or SVG by the ending of `path`.
    """
    from matplotlib.collections import LineCollection

    figure, every = _figure(len(traces), height=6.0)
    colour = _colours(traces.values())
    deepest = max(reading["depth"] for trace in traces.values() for _, reading in _readings(trace))
    for axes, (label, trace) in zip(every, traces.items(), strict=True):
        depth: dict[int, int] = {}
        shown: dict[int, str | None] = {}
        pruned = {branch for event in trace.events for branch in event.get("pruned", ())}
        lines, hues = [], []
        for branch, reading in _readings(trace):
            if reading["answer"] is not None or reading["finished"]:
                shown[branch] = reading["answer"]
            lines.append([(depth.get(branch, 0), branch), (reading["depth"], branch)])
            hues.append(colour(shown.get(branch)))
            depth[branch] = reading["depth"]
            if reading["finished"]:
                axes.plot(reading["depth"] + 0.012 * deepest, branch, ".", color=hues[-1], ms=5)
        axes.add_collection(LineCollection(lines, colors=hues, linewidths=max(1.0, 220 / max(8, len(depth)))))
        for branch in pruned:
            axes.plot(depth[branch] + 0.012 * deepest, branch, "x", color="#5b6570", ms=4)
        axes.set_xlim(0, deepest * 1.04)
        axes.set_ylim(len(depth) - 0.5, -0.5)
        axes.set_xlabel("depth (steps)")
        answer, tokens = trace.events[-1].get("answer"), trace.events[-1]["tokens"]
        told = f"{label}\nanswers {answer} after {tokens:,} tokens"
        axes.set_title(told, loc="left", fontsize=9)
    every[0].set_ylabel("branch")
    figure.suptitle(title, x=0.01, ha="left", fontsize=11)
    save(figure, path)


def _readings(trace: Trace) -> Iterator[tuple[int, dict[str, Any]]]:
    for event in trace.events:
        for reading in event.get("branches", ()):
            yield reading["branch"], reading


def _colours(traces: Any) -> Callable[[str | None], str]:
    """A colour for each answer, most frequent first, beyond the palette one for all the others."""
    votes: dict[str, int] = {}
    for trace in traces:
        for _, reading in _readings(trace):
            if reading["answer"] is not None and reading["finished"]:
                votes[reading["answer"]] = votes.get(reading["answer"], 0) + 1
    ranked = dict(zip(sorted(votes, key=lambda answer: -votes[answer]), _ANSWERS, strict=False))
    return lambda answer: _NONE if answer is None else ranked.get(answer, _REST)


def _figure(columns: int, *, height: float) -> tuple[Any, Any]:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise TTSError("plots need matplotlib: pip install 'tts-generate[report]'.") from error
    figure = Figure(figsize=(max(8.4, 3.4 * columns), height), dpi=140, layout="constrained")
    FigureCanvasAgg(figure)
    every = figure.subplots(1, columns, squeeze=False)[0]
    for axes in every:
        axes.spines[["top", "right"]].set_visible(False)
    return figure, every
