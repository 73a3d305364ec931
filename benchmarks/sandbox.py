"""Measures the sandbox: hostile controllers tried and contained, start-up, and what bulk and strict replay cost.

    python benchmarks/sandbox.py [OUT.json]

Bulk is compared with the same replays unconfined, compiling included, as the search does them: a new candidate, 11
budgets, 20 shuffles. On the published AIME24 tables where they are (`../shared` or $AUTOTTS_DATA), else on a random
recording, which the JSON then says.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests" / "search" / "hostile"))
import circumstances  # noqa: E402

from tts_generate.controller import Controller  # noqa: E402
from tts_generate.recorded.episodes import Columns  # noqa: E402
from tts_generate.recorded.machine_code import keep_nothing  # noqa: E402
from tts_generate.replay import Recording, ReplayResult, replay  # noqa: E402
from tts_generate.sandbox import Sandbox  # noqa: E402
from tts_generate.testing import random_trajectories, recording_of  # noqa: E402
from tts_generate.trajectories import import_autotts  # noqa: E402

DATA = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared"))
MODELS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")
BETAS = tuple(round(0.1 * k, 1) for k in range(11))
SHUFFLES = 20
CANDIDATES = ("cmc", "asc", "parallel_probe")
CIRCUMSTANCES = {"as_root": "as it is", "ordinary_user": "ordinary user", "namespaces_refused": "namespaces refused"}
REPEATS = 4


def recordings(folder: Path) -> tuple[str, list[Recording]]:
    """The four published tables, or one random recording."""
    if (DATA / "replay").is_dir():
        stores = [import_autotts(DATA / "replay" / m / "aime24.json", folder / m) for m in MODELS]
        return "the four published AIME24 tables", [Recording.from_store(store) for store in stores]
    return "a random recording", [recording_of(random_trajectories(random.Random(0), 64))]


def source(name: str) -> str:
    """The code of a shipped controller."""
    return (ROOT / "controllers" / name / "controller.py").read_text("utf-8")


def unconfined(code: str, tables: list[Recording]) -> list[ReplayResult]:
    """A new candidate as it would run in this process: its module executed, its hooks compiled, every replay."""
    keep_nothing()  # a new candidate was never compiled before
    module = types.ModuleType(f"candidate_{time.monotonic_ns()}")
    sys.modules[module.__name__] = module
    exec(compile(code, "controller.py", "exec"), vars(module))
    kind = next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Controller) and value.__module__ == module.__name__
    )
    return [
        replay(table, kind.from_beta(beta), shuffles=SHUFFLES, compiled=True, threads=1)
        for table in tables
        for beta in BETAS
    ]


def confined(box: Sandbox, code: str, tables: list[Recording]) -> list[ReplayResult]:
    """The same in the sandbox."""
    with box.candidate(code) as candidate:
        return [
            candidate.replay(table, beta=beta, shuffles=SHUFFLES, compiled=True) for table in tables for beta in BETAS
        ]


def timed(run: Any, *arguments: Any) -> tuple[float, Any]:
    """Seconds, and what came."""
    started = time.perf_counter()
    found = run(*arguments)
    return time.perf_counter() - started, found


def bulk(box: Sandbox, tables: list[Recording]) -> dict[str, Any]:
    """Seconds of a candidate, unconfined and in the sandbox, turn about; the fastest of each."""
    rows = {}
    box.prepare(tables)
    for name in CANDIDATES:
        code = source(name)
        unconfined(code, tables[:1])  # so that neither side compiles what all candidates share
        confined(box, code, tables[:1])
        pairs = []
        for _ in range(REPEATS):
            free, expected = timed(unconfined, code, tables)
            boxed, found = timed(confined, box, code, tables)
            assert all(
                (getattr(a, c) == getattr(b, c)).all()
                for a, b in zip(expected, found, strict=True)
                for c in Columns._fields
            )
            pairs.append((free, boxed))
        rows[name] = {
            "unconfined_s": min(free for free, _ in pairs),
            "sandbox_s": min(boxed for _, boxed in pairs),
            "ratio": min(boxed for _, boxed in pairs) / min(free for free, _ in pairs),
        }
    return rows


def replay_alone(box: Sandbox, tables: list[Recording]) -> dict[str, float]:
    """Seconds of the replays of one candidate when its hooks are compiled already, turn about; the fastest of each."""
    everything = [(table, beta) for table in tables for beta in BETAS]
    free, boxed = [], []
    with box.candidate(source("cmc")) as candidate:
        for table in tables:
            candidate.replay(table, shuffles=1, compiled=True)
            replay(table, "cmc", shuffles=1, compiled=True)
        for _ in range(REPEATS):
            started = time.perf_counter()
            for t, b in everything:
                replay(t, "cmc", beta=b, shuffles=SHUFFLES, compiled=True, threads=1)
            between = time.perf_counter()
            for t, b in everything:
                candidate.replay(t, beta=b, shuffles=SHUFFLES, compiled=True)
            free.append(between - started)
            boxed.append(time.perf_counter() - between)
    return {"unconfined_s": min(free), "sandbox_s": min(boxed), "ratio": min(boxed) / min(free)}


def start_up(code: str) -> dict[str, float]:
    """Milliseconds until a sandbox is there, and until a candidate is loaded behind its locks."""
    found: dict[str, float] = {}
    found["sandbox_ms"] = 1000 * statistics.median(timed(lambda: Sandbox().close())[0] for _ in range(5))
    with Sandbox() as box:
        found["compiler_ms"] = 1000 * timed(lambda: box.candidate(code).close())[0]
        for mode in ("strict", "bulk"):
            times = [timed(lambda: box.candidate(code, mode=mode).close())[0] for _ in range(15)]  # noqa: B023
            found[f"{mode}_candidate_ms"] = 1000 * statistics.median(times)
    return found


def strict(box: Sandbox, table: Recording) -> dict[str, float]:
    """Milliseconds of a CMC episode, step by step, and of the same one interpreted in this process."""
    with box.candidate(source("cmc"), mode="strict") as candidate:
        seconds, found = timed(lambda: candidate.replay(table, shuffles=2))
    free, _ = timed(lambda: replay(table, "cmc", shuffles=2, compiled=False))
    bulk_result = box.evaluate(source("cmc"), table, shuffles=SHUFFLES)
    confirm, verdict = timed(lambda: box.confirm(source("cmc"), [bulk_result], shuffles=SHUFFLES))
    assert verdict.same
    episodes = found.rounds.size
    return {
        "episode_ms": 1000 * seconds / episodes,
        "interpreted_episode_ms": 1000 * free / episodes,
        "hook_us": 1e6 * (seconds - free) / float(2 * found.rounds.sum() + 2 * episodes),
        "confirm_episodes": verdict.episodes,
        "confirm_s": confirm,
    }


def hostile() -> dict[str, Any]:
    """Tried and contained, in each of the circumstances."""
    found: dict[str, Any] = {}
    for key, name in CIRCUMSTANCES.items():
        try:
            told = circumstances.run(name)
        except circumstances.NotHere as error:
            found[key] = {"missing": str(error)}
            continue
        found[key] = {k: told[k] for k in ("locks", "uid", "controllers", "tried", "contained")}
    tried = [row for row in found.values() if "tried" in row]
    return {
        "controllers": tried[0]["controllers"],
        "tried": sum(row["tried"] for row in tried),
        "contained": sum(row["contained"] for row in tried),
        "circumstances": found,
    }


def main(out: Path) -> None:
    """Measure, print, and write one JSON file."""
    with tempfile.TemporaryDirectory() as folder:
        data, tables = recordings(Path(folder))
    with Sandbox() as box:
        ratios = bulk(box, tables)
        result = {
            "format": "tts-benchmark/1",
            "data": data,
            "machine": {"cpu": platform.machine(), "cores": os.cpu_count(), "python": platform.python_version()},
            "locks": box.line,
            "hostile": hostile(),
            "start_up": start_up(source("cmc")),
            "bulk": {
                "episodes": SHUFFLES * len(BETAS) * sum(len(table.questions) for table in tables),
                "candidates": ratios,
                "worst_ratio": max(row["ratio"] for row in ratios.values()),
                "replay_alone": replay_alone(box, tables),
            },
            "strict": strict(box, tables[0]),
        }
    text = json.dumps(result, indent=1) + "\n"
    out.write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Measure the sandbox.")
    parser.add_argument("out", nargs="?", type=Path, default=ROOT / "benchmarks" / "results" / "sandbox.json")
    main(parser.parse_args().out)
