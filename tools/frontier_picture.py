"""The README's picture: accuracy for tokens, of a real model's recording and in the demo, from committed results.

python tools/frontier_picture.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tts_generate.demo.methods import live_points, points
from tts_generate.report.frontier import Point, plot_frontiers

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
OUT = ROOT / "docs" / "images" / "frontier.png"
SHOWN = ("self_consistency", "asc", "cmc", "thrift")
BUDGETS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""Of a real model's recording."""


def of_the_real(result: dict[str, Any]) -> list[Point]:
    """What `real_model.json` holds, each point once."""
    rows = [row for row in result["replay"]["rows"] if row["controller"] in SHOWN and row["beta"] in BUDGETS]
    return points(list({(row["controller"], row["tokens"]): row for row in rows}.values()))


def main() -> None:
    """Draw it."""
    demo, real = (json.loads((RESULTS / f"{name}.json").read_text("utf-8")) for name in ("demo", "real_model"))
    panels = {
        "Qwen2.5-Coder-0.5B-Instruct, recorded": of_the_real(real),
        "The tiny reasoner, recorded; diamonds: live": points(demo["replay"])
        + live_points(demo["live"], demo["questions"]["live"]),
    }
    plot_frontiers(panels, OUT)


if __name__ == "__main__":
    main()
