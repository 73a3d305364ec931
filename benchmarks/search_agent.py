"""What the workbench takes for a candidate that is code, on the four AIME24 tables.

    python benchmarks/search_agent.py [OUT.json]       # some 3 minutes

Controllers that ship with this package stand for those that a model would write; no model is asked. Shows seconds a
candidate by what is done with it. The tables are looked for in `../shared` or $AUTOTTS_DATA.
"""

from __future__ import annotations

import json
import os
import platform
import re
import sys
import time
from pathlib import Path
from typing import Any

from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.sandbox import Sandbox
from tts_generate.search.agent import prompts
from tts_generate.search.candidate import Written
from tts_generate.search.loop import RUNGS
from tts_generate.search.questions import Part, split
from tts_generate.search.written.conformance import examine
from tts_generate.search.written.workbench import Workbench
from tts_generate.trajectories import import_autotts

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared"))
MODELS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")
CANDIDATES = ("cmc", "asc", "parallel_probe")
"""Beside the example that the model is shown; it alone is examined, the others want all branches of the tables."""


def tables() -> list[Recording]:
    """The four tables, imported once."""
    found = []
    for model in MODELS:
        store = ROOT / "build" / "aime24" / model
        if not store.exists():
            import_autotts(DATA / "replay" / model / "aime24.json", store)
        found.append(Recording.from_store(store))
    return found


def seconds(bench: Workbench, part: Part, code: str) -> dict[str, Any]:
    """Of one candidate: looked at on each rung, confirmed on the last, and traced."""
    told: dict[str, Any] = {}
    started = time.perf_counter()

    def lap(what: str) -> None:
        nonlocal started
        told[what], started = time.perf_counter() - started, time.perf_counter()

    for number, rung in enumerate(RUNGS):
        last = number == len(RUNGS) - 1
        look = bench.look(part, Written(code, "here"), rung, tell=True, confirm=1 if last else None)
        lap(f"rung{number + 1}_s")
    if look.telling:  # the reference beside itself has none
        bench.trace(part, Written(code, "here"), RUNGS[-1], look.telling[0])
        lap("trace_s")
    return {**told, "episodes": sum(len(r.betas) * r.shuffles for r in RUNGS) * part.count}


def main(out: Path) -> None:
    """Measure and write."""
    part, _ = split(Part.of(tables()), 0)
    rows = {}
    with Sandbox() as box:
        bench = Workbench(box, type(load_controller("cmc")))
        started = time.perf_counter()
        box.prepare(part.recordings)
        prepared = time.perf_counter() - started
        for rung in RUNGS:
            bench.reference_replays(part, rung)
        codes = {name: (ROOT / "controllers" / name / "controller.py").read_text("utf-8") for name in CANDIDATES}
        codes["example"] = re.findall(r"```python\n(.*?)```", prompts.read("interface"), re.DOTALL)[0]
        started = time.perf_counter()
        examine(box, codes["example"])
        examined = time.perf_counter() - started
        for name, code in codes.items():
            rows[name] = seconds(bench, part, code)
            rows[name]["all_s"] = sum(value for key, value in rows[name].items() if key.endswith("_s"))
            print(name, rows[name])
    machine = {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()}
    told = {"format": "tts-benchmark/1", "data": "the four published AIME24 tables", "machine": machine}
    told |= {"questions": part.count, "prepared_s": prepared, "examined_s": examined, "candidates": rows}
    told["slowest_s"] = max(row["all_s"] for row in rows.values())
    out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "search_agent.json"))
