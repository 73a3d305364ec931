"""Attacks the whole and counts: crashes, calls that fail, damaged files, many live calls, faults, random replies.

    python benchmarks/reliability.py [OUT.json] [--quick] [--only SECTION ...] [--suite]

The trials are those of the tests, in their hundreds; the hostile controllers are counted by benchmarks/sandbox.py and
the hostile repos by benchmarks/hub.py. It ends with exit code 1 if anything was lost, unreadable, silent or left
behind. `--quick` makes every number small, to see that it runs; `--only` runs some sections and keeps what OUT.json
has of the others; `--suite` runs the whole test suite too and counts what that leaves behind.
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
import torch
from hypothesis import HealthCheck, Phase
from hypothesis import settings as tried
from hypothesis.stateful import run_state_machine_as_test

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("trajectories", "engine", "search", "search/hostile", "server")
sys.path[:0] = [str(ROOT / "tools"), *(str(ROOT / "tests" / name) for name in FOLDERS)]
import crashes  # noqa: E402
import endurance  # noqa: E402
import faults  # noqa: E402
import kills  # noqa: E402
import nursery  # noqa: E402
import power  # noqa: E402
import process_faults  # noqa: E402
import reply_fuzz  # noqa: E402
import search_kills  # noqa: E402
import store_machine  # noqa: E402
import suite_leaks  # noqa: E402
from engine_models import make_live  # noqa: E402

from tts_generate.loading import builtin_controllers, builtin_folder  # noqa: E402

Size = dict[str, int]
SIZES = {
    "kills": (500, 10),
    "rows": (8, 2),
    "fail_rows": (2, 1),
    "cut_rows": (4, 2),
    "cut_step": (1, 25),
    "flips": (300, 20),
    "orders": (300, 5),
    "search_points": (1000, 2),
    "search_kills": (20, 1),
    "paid_kills": (20, 1),
    "calls": (1000, 30),
    "points": (8, 3),
    "threads": (20, 4),
    "fault_points": (4, 1),
    "signals": (2, 1),
    "replies": (10_000, 200),
}
"""Of a full run, and of a quick one."""
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
    "changed_parts",
    "left_over",
    "redone",
    "used_early",
    "unaccounted",
    "wrong",
    "left",
    "taken_wrongly",
    "found",
    "processes",
    "descriptors",
    "temporary_files",
    "exit_code",
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


def orders(count: int) -> dict[str, Any]:
    """The state machine of the store: so many random orders of operations; it raises where an invariant fails."""
    store_machine.StoreMachine.seen.clear()
    how: dict[str, Any] = {"max_examples": count, "stateful_step_count": 40, "deadline": None, "database": None}
    how |= {"suppress_health_check": list(HealthCheck), "phases": [Phase.generate]}
    run_state_machine_as_test(store_machine.StoreMachine, settings=tried(**how))
    seen = store_machine.StoreMachine.seen
    by_end = {end: sum(n for name, n in seen.items() if name.endswith(end)) for end in ("done", "failed", "killed")}
    return {"orders": count, "operations": sum(seen.values()), **by_end}


def store(folder: Path, size: Size) -> dict[str, Any]:
    """The recording store under every kind of crash."""
    failures: dict[str, int] = {}
    for failure in nursery.FAILURES:
        for name, number in crashes.every_call_fails(folder, size["fail_rows"], failure).items():
            failures[name] = failures.get(name, 0) + number
    return {
        "random_kills": kills.random_kills(folder, size["kills"], seed=1),
        "kills_at_every_call": crashes.kills_at_every_call(folder, size["rows"]),
        "failing_calls": {"kinds": len(nursery.FAILURES), **failures},
        "power_cuts": power.power_cuts(folder, size["rows"] // 2, 2),
        "journal_cuts": crashes.journal_cuts(folder / "cuts", size["cut_rows"], size["cut_step"]),
        "journal_flips": flips(folder, size["flips"], "journal"),
        "shard_flips": flips(folder, size["flips"], "part"),
        "any_order": orders(size["orders"]),
    }


def search(folder: Path, size: Size) -> dict[str, Any]:
    """Searches, and conversations that are paid for, killed and gone on with."""
    return {
        "killed": search_kills.search_kills(folder, size["search_points"], size["search_kills"], seed=1),
        "paid": search_kills.paid_kills(folder, size["paid_kills"], seed=1),
    }


def live(folder: Path, size: Size) -> dict[str, Any]:
    """The live engine: many calls, interrupted ones, two threads."""
    model = make_live("qwen3")
    return {
        "many_calls": endurance.many_calls(model, size["calls"]),
        "interrupted": endurance.interrupted_calls(model, size["points"]),
        "two_threads": endurance.two_threads(model, make_live("qwen3"), size["threads"]),
    }


def live_faults(folder: Path, size: Size) -> dict[str, Any]:
    """Faults in the middle of a call, and of whole processes."""
    faults.POINTS = size["fault_points"]
    model = make_live("qwen3")
    found = {name: trial(model) for name, trial in faults.TRIALS.items()}
    return {**found, "processes": process_faults.every(folder, size["signals"])}


def sandbox(folder: Path, size: Size) -> dict[str, Any]:
    """What a candidate's process may answer, and what it is sent."""
    codes = [builtin_folder(name) / "controller.py" for name in builtin_controllers()]
    sources = [code.read_text("utf-8") for code in codes if code.is_file()]
    return {
        "replies": reply_fuzz.fuzz(size["replies"], seed=1),
        "gold": reply_fuzz.gold_in_what_is_sent(sources),
    }


SECTIONS: dict[str, Callable[[Path, Size], dict[str, Any]]] = {
    "store": store,
    "search": search,
    "live": live,
    "faults": live_faults,
    "sandbox": sandbox,
}


def section(name: str, size: Size) -> dict[str, Any]:
    """The results of a section, with the seconds it took, and what it left behind."""
    before, started = psutil.Process().num_fds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = SECTIONS[name](Path(folder), size)
    left = {
        "processes": len(psutil.Process().children(recursive=True)),
        "descriptors": max(0, psutil.Process().num_fds() - before),
    }
    return {**found, "left_behind": left, "seconds": round(time.perf_counter() - started, 1)}


def broken(found: Any, place: str = "") -> list[str]:
    """Every count that must be 0 and is not, by its place."""
    if not isinstance(found, dict):
        return [f"{place} is {found}"] if place.rpartition(".")[2] in MUST_BE_ZERO and found else []
    rows = ((name, value) for name, value in found.items() if name not in ("first", "last", "grown"))
    return [line for name, value in rows for line in broken(value, f"{place}.{name}".lstrip("."))]


def totals(found: dict[str, Any]) -> dict[str, Any]:
    """Sums over the trials of the store, and of what the sections left behind."""
    rows = [row for row in found.get("store", {}).values() if isinstance(row, dict)]

    def total(*names: str) -> int:
        return sum(row.get(name, 0) for row in rows for name in names)

    return {
        "lost": total("lost"),
        "unreadable": total("unreadable"),
        "repaired": {"tried": total("named", "harmless"), "failed": total("not_repaired")},
        "left_behind": {
            what: sum(found[name]["left_behind"][what] for name in SECTIONS if "left_behind" in found.get(name, {}))
            for what in ("processes", "descriptors")
        },
    }


def main(arguments: list[str]) -> int:
    """Attack, print, and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "reliability.json")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--suite", action="store_true")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kept = json.loads(chosen.out.read_text("utf-8")) if chosen.out.is_file() else {}
    if kept.get("quick") != chosen.quick:
        kept = {}
    result = {
        "format": "tts-benchmark/1",
        "quick": chosen.quick,
        "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
        **{name: kept[name] for name in (*SECTIONS, "suite") if name in kept},
    }
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    for name in chosen.only:
        result[name] = section(name, {what: numbers[chosen.quick] for what, numbers in SIZES.items()})
        result |= totals(result)
        chosen.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    if chosen.suite:
        result["suite"] = suite_leaks.run(["-n", "2"])
        chosen.out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))
    wrong = broken(result)
    print("\n".join(wrong) or "nothing lost, nothing unreadable, nothing left behind")
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
