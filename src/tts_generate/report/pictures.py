"""The pictures of a page as files: frontiers, tokens by kind, and the lanes of an episode, as PNG and SVG."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tts_generate.errors import InputError, UnknownNameError
from tts_generate.report.frontier import AXES, caption, drawing, panels_of, plot_frontier, save
from tts_generate.report.page import Asked, Page
from tts_generate.report.search_page import axis_of, frontier_points, of_earlier
from tts_generate.trace import Trace

_ANSWERS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#6a51c9", "#a39200")
_REST, _NONE = "#8b949e", "#cfd5db"
_KINDS = {"generated, counted": "#0072b2", "wasted on pruned branches": "#d98f00", "probe": "#6f7a86"}


def draw_page(page: Page, folder: Path, questions: Sequence[str] = ()) -> Iterator[Path]:
    """Write the pictures of a page into `folder`, each as .png and .svg; their paths, one by one.

    `frontier` and `tokens` are of the page's first table, `trace` the lanes of its first traced question.

    Args:
        page: the page.
        folder: made where it is not there.
        questions: the questions whose lanes to draw instead, by id, each as `trace-ID`; "all" for all that are traced.

    Raises:
        TTSError: matplotlib is not installed.
        InputError: the folder cannot be made, or nothing is traced.
        UnknownNameError: a question that is not traced here.
    """
    traced = [asked for asked in page.asked if any(asked.traces)]
    chosen = _chosen(traced, questions) if questions else dict(zip(["trace"], traced, strict=False))
    _make(folder)
    measured = next(iter(page.measured), None)
    if measured and (points := measured.points()):
        yield from _both(folder / "frontier", lambda path: plot_frontier(points, path, title=page.title))
    if measured:
        rows = measured.rows
        yield from _both(folder / "tokens", lambda path: plot_tokens(rows, path, title=page.title))
    for name, asked in chosen.items():
        pairs = zip(page.methods, asked.traces, strict=True)
        traces = {label: trace for label, trace in pairs if trace is not None}
        yield from _both(folder / name, partial(plot_traces, traces, title=f"question {asked.name}"))


def draw_search(
    result: Mapping[str, Any],
    held_out: Mapping[str, Any] | None,
    page: Page,
    folder: Path,
    questions: Sequence[str] = (),
) -> Iterator[Path]:
    """Write the pictures of a search: `frontier`, `held-out` if there is one, and those of `page` (`draw_page`)."""
    yield from draw_page(page, folder, questions)
    settings = result["settings"]
    found = {"frontier": ("Search set, fresh orders of the branches", result["fresh"], result["baselines"])}
    if held_out:
        found["held-out"] = (f"Held out{of_earlier(result, held_out)}", held_out, held_out["baselines"])
    for name, (title, measured, baselines) in found.items():
        points = frontier_points(measured, baselines, settings)
        yield from _both(folder / name, partial(plot_frontier, points, title=title, axis=AXES[axis_of(settings)]))


def _chosen(traced: Sequence[Asked], wanted: Sequence[str]) -> dict[str, Asked]:
    """Questions by the name of their file; of several stores, a question's id is enough where only one has it."""
    if not traced:
        raise InputError("no question is traced here, so there are no lanes to draw.")
    if "all" in wanted:
        found = list(traced)
    else:
        found = []
        for name in wanted:
            same = [asked for asked in traced if name in (asked.name, asked.name.rpartition(": ")[2])]
            if len(same) != 1:
                raise UnknownNameError.of("question", name, [asked.name for asked in traced])
            found += same
    files: dict[str, Asked] = {}
    for asked in found:
        name = "trace-" + re.sub(r"[^\w.-]+", "_", asked.name)[:100]
        files[name if name not in files else f"{name}-{len(files)}"] = asked
    return files


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make {folder}: {error.strerror}.") from error


def _both(path: Path, draw: Callable[[Path], None]) -> Iterator[Path]:
    for ending in (".png", ".svg"):
        file = path.with_name(path.name + ending)
        draw(file)
        yield file


@drawing()
def plot_tokens(rows: Sequence[Mapping[str, Any]], path: str | Path, *, title: str) -> None:
    """Tokens a question by kind, one bar a row of a sweep; PNG or SVG by the ending of `path`."""
    figure, (axes,) = panels_of(1, 8.4, 1.2 + 0.3 * len(rows))
    places = range(len(rows))  # not by their labels, of which two may be equal
    left = [0.0] * len(rows)
    counted = [row["generated_tokens"] - row["wasted_tokens"] for row in rows]
    lengths = (counted, [row["wasted_tokens"] for row in rows], [row["probe_tokens"] for row in rows])
    for (name, colour), widths in zip(_KINDS.items(), lengths, strict=True):
        axes.barh(places, widths, left=left, color=colour, label=name)
        left = [start + width for start, width in zip(left, widths, strict=True)]
    axes.set_yticks(places, [caption(row["label"]) for row in rows])
    axes.invert_yaxis()
    axes.set_xlabel("tokens a question")
    axes.set_title(caption(title), loc="left", fontsize=11)
    axes.legend(frameon=False, fontsize=9)
    save(figure, path)


@drawing()
def plot_traces(traces: Mapping[str, Trace], path: str | Path, *, title: str) -> None:
    """The lanes of episodes of one question, by label: branches over depth, coloured by the answer they show.

    A cross is a pruned branch, a dot one that ended, a bar one that ran into the limit of its length. PNG or SVG by the
    ending of `path`.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.ticker import MaxNLocator

    figure, every = panels_of(len(traces), max(8.4, 3.4 * len(traces)), 6.0)
    ranked = _colours(traces.values())
    deepest = max([1, *(reading["depth"] for trace in traces.values() for _, reading in _readings(trace))])
    for axes, (label, trace) in zip(every, traces.items(), strict=True):
        depth: dict[int, int] = {}
        shown: dict[int, str | None] = {}
        pruned = {branch for event in trace.events for branch in event.get("pruned", ())}
        lines, hues = [], []
        for branch, reading in _readings(trace):
            if reading["answer"] is not None or reading["finished"]:
                shown[branch] = reading["answer"]
            lines.append([(depth.get(branch, 0), branch), (reading["depth"], branch)])
            seen = shown.get(branch)
            hues.append(_NONE if seen is None else ranked.get(seen, _REST))
            depth[branch] = reading["depth"]
            if reading["finished"]:
                mark = "|" if reading.get("cut") else "."
                axes.plot(reading["depth"] + 0.012 * deepest, branch, mark, color=hues[-1], ms=5)
        axes.add_collection(LineCollection(lines, colors=hues, linewidths=max(1.0, 220 / max(8, len(depth)))))
        for branch in pruned & depth.keys():
            axes.plot(depth[branch] + 0.012 * deepest, branch, "x", color="#5b6570", ms=4)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlim(0, deepest * 1.04)
        axes.set_ylim(len(depth) - 0.5, -0.5)
        axes.set_xlabel("depth (steps)")
        answer, tokens = trace.events[-1].get("answer"), trace.events[-1]["tokens"]
        said = "no answer" if answer is None else f"answers {caption(answer)}"
        told = f"{caption(label)}\n{said} after {tokens:,} tokens"
        axes.set_title(told, loc="left", fontsize=9)
    every[0].set_ylabel("branch")
    figure.suptitle(caption(title), x=0.01, ha="left", fontsize=11)
    _legend(figure, ranked)
    save(figure, path)


def _legend(figure: Any, ranked: Mapping[str, str]) -> None:
    from matplotlib.lines import Line2D

    keys = [Line2D([], [], color=hue, lw=6, label=f"answer {caption(answer)}") for answer, hue in ranked.items()]
    keys += [Line2D([], [], color=hue, lw=6, label=name) for name, hue in (("another", _REST), ("none yet", _NONE))]
    keys += [
        Line2D([], [], color="#5b6570", ls="none", marker=mark, label=name)
        for mark, name in ((".", "ended"), ("|", "ended at its limit"), ("x", "pruned"))
    ]
    figure.legend(handles=keys, loc="outside lower left", ncols=6, frameon=False, fontsize=8)


def _readings(trace: Trace) -> Iterator[tuple[int, dict[str, Any]]]:
    for event in trace.events:
        for reading in event.get("branches", ()):
            yield reading["branch"], reading


def _colours(traces: Iterable[Trace]) -> dict[str, str]:
    """A colour for each answer, those that most branches of the traces ended with; beyond the palette there is none."""
    ends = (reading["answer"] for trace in traces for _, reading in _readings(trace) if reading["finished"])
    votes = Counter(answer for answer in ends if answer is not None)
    return dict(zip((answer for answer, _ in votes.most_common()), _ANSWERS, strict=False))
