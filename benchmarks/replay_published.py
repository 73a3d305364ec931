"""Replays the published methods on the published AIME24 tables and compares every episode with the published program.

    python benchmarks/replay_published.py [OUT.json]

Needs the tables (`../shared` or $AUTOTTS_DATA), which are not ours to ship. 100 shuffles of 30 questions each; accuracy
in percent with a 95 % bootstrap interval over questions, tokens a question.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from tts_generate.evaluate import Method, as_dict, evaluate_method
from tts_generate.replay import Recording
from tts_generate.statistics import compare, saving
from tts_generate.trajectories import import_autotts

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared"))
MODELS = ("Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B")
METHODS = {
    "self_consistency_64": Method("self_consistency of 64", "self_consistency", None, {"max_samples": 64}),
    "asc_64": Method("asc of 64", "asc", None, {"max_samples": 64}),
    "asc_8": Method("asc of 8", "asc", None, {"max_samples": 8}),
    "esc_64": Method("esc of 64", "esc", None, {"max_samples": 64}),
    "pp_16": Method("parallel_probe of 16", "parallel_probe", None, {"num_chains": 16}),
    "pp_64": Method("parallel_probe of 64", "parallel_probe", None, {"num_chains": 64}),
    **{f"cmc_b{beta:g}".replace(".", "_"): Method(f"cmc β={beta:g}", "cmc", beta) for beta in (0, 0.2, 0.5, 0.8, 1)},
    "thrift_b0_5": Method("thrift β=0.5", "thrift", 0.5),
}
SHUFFLES = 100


def main(out: Path) -> None:
    """Replay, compare, average, and write one JSON file."""
    started = time.perf_counter()
    cells: dict[str, dict[str, Any]] = {}
    per_question: dict[str, list[np.ndarray]] = {name: [] for name in METHODS}
    episodes = equal = 0
    with tempfile.TemporaryDirectory() as folder:
        for model in MODELS:
            store = import_autotts(DATA / "replay" / model / "aime24.json", Path(folder) / model)
            recording = Recording.from_store(store)
            cells[model] = {}
            for name, method in tqdm(METHODS.items(), desc=model, unit="method"):
                row, result = evaluate_method(recording, method, SHUFFLES)
                cells[model][name] = as_dict(row)
                per_question[name].append(result.correct.mean(axis=0))
                file = DATA / "spec" / "expected" / f"{model}_aime24_{name.replace('0_', '0.')}.npz"
                if file.is_file():
                    with np.load(file) as expected:
                        same = (result.cost == expected["cost"]) & (result.answers == expected["answers"])
                    episodes += same.size
                    equal += int(same.sum())
    average = {}
    for name in METHODS:
        rows = [cells[model][name] for model in MODELS]
        average[name] = {
            key: float(np.mean([row[key] for row in rows])) for key in ("accuracy", "tokens", "sequential_tokens")
        }
    for name, row in average.items():
        for baseline in ("self_consistency_64", "asc_64"):
            ours, theirs = np.concatenate(per_question[name]), np.concatenate(per_question[baseline])
            gain, (low, high) = compare(ours, theirs)
            row[f"saving_over_{baseline}"] = saving(row["tokens"], average[baseline]["tokens"])
            row[f"points_over_{baseline}"] = [100 * gain, 100 * low, 100 * high]
    result = {
        "format": "tts-benchmark/1",
        "shuffles": SHUFFLES,
        "exact": {"episodes": episodes, "equal": equal},
        "average": average,
        "cells": cells,
        "seconds": time.perf_counter() - started,
    }
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(f"{equal} of {episodes} episodes equal; wrote {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "replay_published.json")
