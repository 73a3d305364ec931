"""The README's picture: accuracy for tokens in the demo, replayed and live, drawn from its committed result.

python tools/frontier_picture.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tts_generate.report.frontier import Point, plot_frontier

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "docs" / "images" / "frontier.png"


def points(demo: dict[str, Any]) -> list[Point]:
    """What `demo.json` holds, by controller."""
    found = [
        Point(row["controller"], row["tokens"], row["accuracy"], tuple(row["accuracy_ci"]), short(row))
        for row in demo["replay"]
    ]
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
    demo = json.loads((ROOT / "benchmarks" / "results" / "demo.json").read_text("utf-8"))
    plot_frontier(points(demo), OUT, title="Tiny reasoner: accuracy for tokens (replay; diamonds: live)")


if __name__ == "__main__":
    main()
