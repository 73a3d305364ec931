"""The page of a search: what was tried, what was chosen, and what it gains, in one file that needs no other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_generate.report import chart
from tts_generate.report.chart import FrontierChart
from tts_generate.report.frontier import AXES, Point
from tts_generate.report.templating import fill


def search_page(result: Mapping[str, Any], held_out: Mapping[str, Any] | None, best: Path) -> str:
    """The HTML of a search's result.

    Raises:
        TTSError: jinja2 is not installed.
    """
    settings = result["settings"]
    searched = {**result["fresh"], "baselines": result["baselines"], "at_accuracy": result.get("at_accuracy")}
    parts = [_part("Search set, fresh orders of the branches", searched, settings)]
    earlier = of_earlier(result, held_out)
    if held_out:
        parts.append(_part(f"Held out{earlier}", held_out, settings))
    chains = axis_of(settings) != "tokens"
    told: dict[str, Any] = {"result": result, "held_out": held_out, "earlier": earlier, "chains": chains}
    told["apart"] = settings.get("share") != 0  # whether questions were set aside to choose by
    return fill("search.html", **told, parts=parts, best=best, chart=chart)


def of_earlier(result: Mapping[str, Any], held_out: Mapping[str, Any] | None) -> str:
    """Whose the held-out numbers are where the search went on after them and chose another; "" where they are its own.

    Held-out stores are opened once, so that nothing is chosen by them.
    """
    measured = result["candidate"] if held_out is None else held_out.get("candidate", result["candidate"])
    return "" if measured["name"] == result["candidate"]["name"] else f", of {measured['name']}, an earlier choice"


def axis_of(settings: Mapping[str, Any]) -> str:
    """What a search counts its budgets in, as a sweep's row names it; curves of a result call it tokens."""
    return "sequential_tokens" if "sequential" in (settings.get("objective"), settings.get("cost")) else "tokens"


def counted_in(settings: Mapping[str, Any]) -> str:
    """The same in words, as a table's head has it."""
    return "tokens" if axis_of(settings) == "tokens" else "longest chain"


def frontier_points(
    measured: Mapping[str, Any], baselines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]
) -> list[Point]:
    """The found family, its reference and the baselines that are not a family, as points of a picture."""
    reference = settings["reference"]
    points = [
        Point(name, tokens, accuracy, (accuracy, accuracy))
        for name, curve in (("found", measured["curve"]), (reference, measured["reference"]))
        for tokens, accuracy in zip(curve["tokens"], curve["accuracy"], strict=True)
    ]
    return points + [Point.of(row, axis_of(settings)) for row in baselines if row["beta"] is None]


def _part(title: str, measured: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    drawn = FrontierChart.of(frontier_points(measured, measured["baselines"], settings), AXES[axis_of(settings)])
    return {
        "title": title,
        "chart": drawn,
        **{name: measured.get(name) for name in ("curve", "baselines", "at_accuracy")},
    }
