"""Recording with one process and with two, side by side: the same store, in how much less time.

    python benchmarks/distributed.py benchmarks/results/distributed.json

Each recording is a job of its own under `accelerate launch` on the CPU, one thread a process; jobs with one and with
two processes take turns. Seconds are those of `record()` in the slowest process: start and loading are not in them.
With as many processes as cores, whatever else the machine does weighs on the pair more than on the single one.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

from tts_generate import TrajectoryStore, record, tiny

COMMON = ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]


def work(folder: Path, questions: int, branches: int) -> None:
    """What each process does: record its part, and write down how long that took."""
    torch.set_num_threads(1)
    model, tokenizer = tiny.load()
    record(model, tokenizer, tiny.questions("test")[:1], folder / "warm", branches=2, progress=False)
    begun = time.perf_counter()
    record(model, tokenizer, tiny.questions("record")[:questions], folder / "s", branches=branches, progress=False)
    seconds = time.perf_counter() - begun
    (folder / f"seconds-{os.environ.get('RANK', '0')}").write_text(str(seconds))


def job(folder: Path, processes: int, questions: int, branches: int) -> tuple[float, list[Any]]:
    """Seconds of one recording, and the tokens of its rows."""
    folder.mkdir()
    several = ["--multi_gpu", *COMMON, "--num_processes", str(processes)] if processes > 1 else ["--cpu", *COMMON]
    command = [sys.executable, "-m", "accelerate.commands.launch", *several, __file__, "--worker", str(folder)]
    command += ["--questions", str(questions), "--branches", str(branches)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    subprocess.run(command, env=environment, check=True, stderr=subprocess.DEVNULL)
    seconds = [float(path.read_text()) for path in folder.glob("seconds-*")]
    assert len(seconds) == processes
    rows = TrajectoryStore.open(folder / "s").trajectories()
    return max(seconds), [(row.key, row.token_ids, row.probe_answers, row.final_answer) for row in rows]


def main(
    out: Annotated[Path | None, typer.Argument(help="JSON file to write.")] = None,
    questions: int = 8,
    branches: int = 64,
    repeats: int = 3,
    worker: Annotated[Path | None, typer.Option(help="Used by the script itself.")] = None,
) -> None:
    """Measure, check that the stores are equal, and print the JSON."""
    if worker is not None:
        work(worker, questions, branches)
        return
    seconds: dict[int, list[float]] = {1: [], 2: []}
    stores = []
    with tempfile.TemporaryDirectory() as folder:
        for repeat in range(repeats):
            for processes in (1, 2):
                took, rows = job(Path(folder) / f"{repeat}-{processes}", processes, questions, branches)
                seconds[processes].append(took)
                stores.append(rows)
    medians = {processes: statistics.median(taken) for processes, taken in seconds.items()}
    result = {
        "format": "tts-benchmark/1",
        "device": "cpu",
        "cores": os.cpu_count(),
        "note": "a machine shared with other jobs: noisy",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "questions": questions,
        "branches": branches,
        "tokens": sum(len(row[1]) for row in stores[0]),
        "seconds": {str(processes): taken for processes, taken in seconds.items()},
        "two_over_one": medians[1] / medians[2],
        "pairs": [one / two for one, two in zip(seconds[1], seconds[2], strict=True)],
        "stores_equal": all(rows == stores[0] for rows in stores),
    }
    text = json.dumps(result, indent=2) + "\n"
    if out is not None:
        out.write_text(text, "utf-8")
    print(text, end="")


if __name__ == "__main__":
    typer.run(main)
