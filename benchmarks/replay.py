"""Times replay: µs an episode and core of every controller, compiled and interpreted; the published sweep; growth.

    python benchmarks/replay.py [OUT.json] [--quick]

On the published AIME24 tables where they are (`../shared` or $AUTOTTS_DATA), else on the shipped tiny model's answers,
which the JSON then says. `--quick` finishes in 40 s. The JSON is printed to standard output too.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import random
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from tts_generate.controller import Controller
from tts_generate.loading import builtin_controllers, load_controller
from tts_generate.published import LLMDesignedMethod
from tts_generate.recorded.machine_code import keep_nothing
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import import_autotts

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared"))
MODELS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")
BETAS = tuple(round(0.1 * k, 1) for k in range(11))
SHUFFLES = 100


def recordings(folder: Path) -> tuple[str, list[Recording]]:
    """The four published tables, or one tiny recording."""
    if (DATA / "replay").is_dir():
        stores = [import_autotts(DATA / "replay" / m / "aime24.json", folder / m) for m in MODELS]
        return "the four published AIME24 tables", [Recording.from_store(store) for store in stores]
    from tts_generate import record, tiny

    store = record(*tiny.load(), tiny.questions("record")[:8], folder / "tiny")
    return "8 questions x 64 branches of the tiny model", [Recording.from_store(store)]


def seconds(run: Callable[[], Any], times: int = 3) -> float:
    """The fastest of a few runs."""
    found = []
    for _ in range(times):
        start = time.perf_counter()
        run()
        found.append(time.perf_counter() - start)
    return min(found)


def microseconds(recording: Recording, controller: Controller, shuffles: int, **how: Any) -> float:
    """An episode of a replay, on one core."""
    taken = seconds(lambda: replay(recording, controller, shuffles=shuffles, **how), 2 if how["compiled"] else 1)
    return 1e6 * taken / (shuffles * len(recording.questions))


def published_way(recording: Recording, shuffles: int) -> float:
    """CMC as the published program runs it: a method that calls a question's verbs, scipy's Beta for confidence.

    Not their program, which has no licence: the same interface and the same calls, written from the rules page.
    """
    file = ROOT / "tests" / "replay" / "published_cmc.py"
    spec = importlib.util.spec_from_file_location("published_cmc", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["LLMDesignedMethod"] = LLMDesignedMethod
    spec.loader.exec_module(module)
    tables = [
        [(q.rows.steps[b.first : b.first + b.interior + 1], b.tokens, b.interior) for b in q.rows.branches]
        for q in recording.questions
    ]
    start = time.perf_counter()
    for shuffle in range(shuffles):
        for table in tables:
            branches = list(table)
            random.Random(shuffle).shuffle(branches)
            module.CMCMethod({"beta": 0.5}).solve(Environment(branches))
    return 1e6 * (time.perf_counter() - start) / (shuffles * len(tables))


class Environment:
    """The published question's verbs, over recorded branches, with its account of cost."""

    def __init__(self, branches: list[Any]) -> None:
        self.branches = [[branch, 0, 0] for branch in branches]
        self.opened = 0
        self.cost = 0

    def probe_new(self) -> tuple[str, int, bool]:
        """Open the next branch."""
        if self.opened >= len(self.branches):
            raise ValueError("Index out of range for branches.")
        self.opened += 1
        answer, finished = self.probe_more(self.opened - 1)
        return answer, self.opened - 1, finished

    def probe_more(self, index: int) -> tuple[str, bool]:
        """One more step."""
        (steps, tokens, interior), depth, spent = self.branches[index]
        self.branches[index][1] += 1
        cost = 500 if depth < interior else max(0, tokens - spent)
        self.branches[index][2] += cost
        self.cost += cost
        return str(steps[depth].answer), depth == interior


def growth(recording: Recording) -> dict[str, Any]:
    """CMC at half budget, compiled: questions on one core, threads over everything; parallel_probe over branches."""
    cmc = load_controller("cmc", beta=0.5)
    episodes = SHUFFLES * len(recording.questions)
    found: dict[str, Any] = {"questions": {}, "threads": {}, "branches": {}}
    for share in (1, 2, 4):
        part = Recording(
            recording.questions[: max(1, len(recording.questions) // share)],
            recording.table,
            recording.interval_tokens,
            recording.max_probe_tokens,
        )
        found["questions"][len(part.questions)] = microseconds(part, cmc, SHUFFLES, compiled=True, threads=1)
    for threads in sorted({1, 2, os.cpu_count() or 1}):
        taken = seconds(lambda: replay(recording, cmc, shuffles=SHUFFLES, compiled=True, threads=threads))  # noqa: B023
        found["threads"][threads] = 1e6 * taken / episodes
    for chains in (8, 16, 32, 64):
        wide = load_controller("parallel_probe", num_chains=chains)
        found["branches"][chains] = microseconds(recording, wide, 20, compiled=True, threads=1)
    return found


def main(out: Path | None, quick: bool) -> None:
    """Measure, print, and write one JSON file."""
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        data, tables = recordings(Path(folder))
    keep_nothing()  # `compile_s` is compiling; loading what is kept: machine_code.py
    recording = tables[min(1, len(tables) - 1)]
    compiled_us, interpreted_us, compile_s = {}, {}, {}
    for name in ["cmc"] + [n for n in builtin_controllers() if n != "cmc"]:
        controller = load_controller(name, beta=0.5)
        if controller.reads_logprobs and len(recording.table.logprobs) == 0:
            continue
        if quick and name not in ("cmc", "asc", "self_consistency"):
            continue
        first = replay(recording, controller, shuffles=1, compiled=True, threads=1)
        compile_s[name] = first.compile_seconds
        compiled_us[name] = microseconds(recording, controller, SHUFFLES, compiled=True, threads=1)
        replay(recording, controller, shuffles=0, compiled=False)  # builds the rows that interpreted code reads
        interpreted_us[name] = microseconds(recording, controller, 2, compiled=False)
    published_us = published_way(recording, 2)
    cores = os.cpu_count() or 1

    def sweep() -> None:
        for beta in BETAS:
            for table in tables:
                replay(table, "cmc", beta=beta, shuffles=SHUFFLES, compiled=True, threads=min(2, cores))

    sweep_s = seconds(sweep, 1 if quick else 3)
    result = {
        "format": "tts-benchmark/1",
        "data": data,
        "machine": {"cpu": platform.machine(), "cores": cores, "python": platform.python_version()},
        "cmc_compiled_us": compiled_us["cmc"],
        "cmc_interpreted_us": interpreted_us["cmc"],
        "published_way_us": published_us,
        "compiled_over_published_way": published_us / compiled_us["cmc"],
        "interpreted_over_published_way": published_us / interpreted_us["cmc"],
        "compile_s": compile_s["cmc"],
        "sweep_episodes": len(BETAS) * SHUFFLES * sum(len(table.questions) for table in tables),
        "sweep_s_two_threads": sweep_s,
        "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "controllers": {
            name: {
                "compiled_us": compiled_us[name],
                "interpreted_us": interpreted_us[name],
                "compile_s": compile_s[name],
            }
            for name in compiled_us
        },
        "growth_us": {} if quick else growth(recording),
        "recordings_mb": float(np.sum([t.table.steps.nbytes + t.table.branches.nbytes for t in tables]) / 1e6),
        "seconds": time.perf_counter() - started,
    }
    text = json.dumps(result, indent=1) + "\n"
    if out is not None:
        out.write_text(text, "utf-8")
    sys.stdout.write(text)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Time replay.")
    parser.add_argument("out", nargs="?", type=Path)
    parser.add_argument("--quick", action="store_true", help="CMC, ASC and self-consistency only, within 40 s")
    arguments = parser.parse_args()
    main(arguments.out, arguments.quick)
