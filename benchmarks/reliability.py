"""Attacks the whole and counts: crashes of a recording, calls that fail, damaged files, many live calls, interruptions.

    python benchmarks/reliability.py [OUT.json] [--quick]

The trials are those of tests/trajectories/crashes.py and tests/engine/endurance.py, in their hundreds; the hostile
controllers are counted by benchmarks/sandbox.py and the hostile repos by benchmarks/hub.py. It ends with exit code 1 if
anything was lost, unreadable, silent or left behind. `--quick` makes every number small, to see that it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "tests" / "trajectories"), str(ROOT / "tests" / "engine")]
import crashes  # noqa: E402
import endurance  # noqa: E402
import power  # noqa: E402
from engine_models import make_live  # noqa: E402

FULL = {
    "kills": 500,
    "rows": 8,
    "fail_rows": 2,
    "cut_rows": 4,
    "cut_step": 1,
    "flips": 300,
    "calls": 1000,
    "points": 8,
    "threads": 20,
}
QUICK = {
    "kills": 10,
    "rows": 2,
    "fail_rows": 1,
    "cut_rows": 2,
    "cut_step": 25,
    "flips": 20,
    "calls": 30,
    "points": 3,
    "threads": 4,
}
MUST_BE_ZERO = {
    "lost",
    "unreadable",
    "unlike_uninterrupted",
    "not_ours",
    "silent",
    "not_repaired",
    "changed",
    "caches_left",
    "different",
}


def flips(folder: Path, count: int, kind: str) -> dict[str, int]:
    """Single bits of a journal, or of a shard, flipped one after the other; at random places, the same each time."""
    path = folder / kind
    writer = crashes.StoreWriter.open(path, crashes.MANIFEST, crashes.QUESTIONS)
    writer.append(crashes.ROWS[:3])
    writer.append(crashes.ROWS[3:6])
    if kind == "part":
        writer.seal()
    writer._leave()  # as a kill leaves it: not sealed
    name = "journal" if kind == "journal" else next(path.glob("part-*")).name
    bits = random.Random(kind).sample(range((path / name).stat().st_size * 8), count)
    return crashes.flips(path, bits, name)


def store(folder: Path, size: dict[str, int]) -> dict[str, Any]:
    """The recording store under every kind of crash."""
    failures: dict[str, int] = {}
    for failure in crashes.FAILURES:
        for name, number in crashes.every_call_fails(folder, size["fail_rows"], failure).items():
            failures[name] = failures.get(name, 0) + number
    return {
        "random_kills": crashes.random_kills(folder, size["kills"], seed=1),
        "kills_at_every_call": crashes.kills_at_every_call(folder, size["rows"]),
        "failing_calls": {"kinds": len(crashes.FAILURES), **failures},
        "power_cuts": power.power_cuts(folder, size["rows"] // 2, 2),
        "journal_cuts": crashes.journal_cuts(folder / "cuts", size["cut_rows"], size["cut_step"]),
        "journal_flips": flips(folder, size["flips"], "journal"),
        "shard_flips": flips(folder, size["flips"], "part"),
    }


def live(size: dict[str, int]) -> dict[str, Any]:
    """The live engine: many calls, interrupted ones, two threads."""
    model = make_live("qwen3")
    return {
        "many_calls": endurance.many_calls(model, size["calls"]),
        "interrupted": endurance.interrupted_calls(model, size["points"]),
        "two_threads": endurance.two_threads(model, make_live("qwen3"), size["threads"]),
    }


def timed(run: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """What came, with the seconds it took."""
    started = time.perf_counter()
    return {**run(*arguments), "seconds": round(time.perf_counter() - started, 1)}


def broken(found: Any, place: str = "") -> list[str]:
    """Every count that must be 0 and is not, by its place."""
    if not isinstance(found, dict):
        return [f"{place} is {found}"] if place.rpartition(".")[2] in MUST_BE_ZERO and found else []
    return [line for name, value in found.items() for line in broken(value, f"{place}.{name}".lstrip("."))]


def total(found: dict[str, Any], *names: str) -> int:
    """The sum of some counts over all trials of the store."""
    return sum(row.get(name, 0) for row in found.values() if isinstance(row, dict) for name in names)


def main(arguments: list[str]) -> int:
    """Attack, print, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "reliability.json")
    parser.add_argument("--quick", action="store_true")
    chosen = parser.parse_args(arguments)
    size = QUICK if chosen.quick else FULL
    before = psutil.Process().num_fds()
    with tempfile.TemporaryDirectory() as folder:
        stored = timed(store, Path(folder), size)
    left = {
        "processes": len(psutil.Process().children(recursive=True)),
        "descriptors": psutil.Process().num_fds() - before,
    }
    result = {
        "format": "tts-benchmark/1",
        "quick": chosen.quick,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        "store": stored,
        "kills": total(stored, "kills") + stored["kills_at_every_call"]["points"],
        "lost": total(stored, "lost"),
        "unreadable": total(stored, "unreadable"),
        "repaired": {"tried": total(stored, "named", "harmless"), "failed": total(stored, "not_repaired")},
        "left_behind": left,
        "live": timed(live, size),
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    chosen.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))
    wrong = broken(result) + [f"left_behind.{name} is {count}" for name, count in left.items() if count > 0]
    print("\n".join(wrong) or "nothing lost, nothing unreadable, nothing left behind")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
