"""The README's picture: accuracy for tokens, of a real model's recording and in the demo, from committed results.

python tools/frontier_picture.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tts_generate.report.frontier import Point, plot_frontiers

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OUT = ROOT / "docs" / "images" / "frontier.png"


SHOWN = ("self_consistency", "asc", "cmc", "thrift")
BUDGETS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""Of a real model's recording."""


def replayed(rows: list[dict[str, Any]]) -> list[Point]:
    """Points of a replay, by controller."""
    return [
        Point(row["controller"], row["tokens"], row["accuracy"], tuple(row["accuracy_ci"]), short(row)) for row in rows
    ]


def of_the_real(result: dict[str, Any]) -> list[Point]:
    """What `real_model.json` holds, each point once."""
    rows = [row for row in result["replay"]["rows"] if row["controller"] in SHOWN and row["beta"] in BUDGETS]
    return replayed(list({(row["controller"], row["tokens"]): row for row in rows}.values()))


def points(demo: dict[str, Any]) -> list[Point]:
    """What `demo.json` holds, by controller."""
    found = replayed(demo["replay"])
    for name, run in demo["live"].items():
        tokens = (run["generated_tokens"] + run["probe_tokens"]) / demo["questions"]["live"]
        low, high = run["accuracy_ci"]
        series = name.rstrip("_0123456789")
        found.append(Point(series, tokens, 100 * run["accuracy"], (100 * low, 100 * high), live=True))
    return found


def short(row: dict[str, Any]) -> str:
    """What a point is called beside its dot."""
    return f"{row['knobs']['max_samples']}" if row["controller"] == "self_consistency" else f"β={row['beta']:g}"


def main() -> None:
    """Draw it."""
    demo, real = (json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in ("demo", "real_model"))
    panels = {
        "Qwen2.5-Coder-0.5B-Instruct, recorded": of_the_real(real),
        "The tiny reasoner, recorded; diamonds: live": points(demo),
    }
    plot_frontiers(panels, OUT)


if __name__ == "__main__":
    main()
