"""What the engine does on a device: live runs against replay, by dtype, and speed beside transformers' generate.

    python benchmarks/engine.py benchmarks/results/engine_cpu.json --device cpu

Agreement: the shipped tiny model records its questions, then CMC runs live with the same seed and is compared with the
replay of the recording, episode by episode; and every live run is replayed from what it decoded.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import transformers
import typer

from tts_generate import tiny
from tts_generate.engine import enable, record
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import Question

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def agreement(device: str, dtype: torch.dtype, questions: int = 32, branches: int = 64) -> dict[str, Any]:
    """Episodes of CMC at three budgets: live from scratch against the recording, and against itself written down."""
    model, tokenizer = tiny.load()
    enable(model.to(device=device, dtype=dtype), tokenizer=tokenizer)
    asked = tiny.questions("record")[:questions]
    with tempfile.TemporaryDirectory() as folder:
        store = record(model, tokenizer, asked, Path(folder) / "store", branches=branches, seed=0, progress=False)
        recording = Recording.from_store(store)
    batch = tokenizer([q.question for q in asked], return_tensors="pt", padding=True, padding_side="left").to(device)
    inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    counts = {"episodes": 0, "recording_equal": 0, "written_down_equal": 0, "branches": 0, "branches_equal": 0}
    for beta in (0.2, 0.5, 1.0):
        live = model.generate(
            **inputs,
            strategy="autotts",
            controller="cmc",
            beta=beta,
            seed=0,
            max_rows=100,
            return_dict_in_generate=True,
        )
        rows = [branch for found in live.branches for branch in found]
        numbered = [Question(str(n), q.question, q.gold_answer) for n, q in enumerate(asked)]
        interval = recording.interval_tokens
        again = replay(Recording.of(numbered, rows, interval, source="live"), "cmc", beta=beta, shuffles=0, traces=True)
        first = replay(recording, "cmc", beta=beta, shuffles=0, traces=True)
        counts["episodes"] += len(asked)
        counts["recording_equal"] += sum(a.events == b.events for a, b in zip(live.trace, first.traces, strict=True))
        counts["written_down_equal"] += sum(a.events == b.events for a, b in zip(live.trace, again.traces, strict=True))
        for recorded, found in zip(recording.questions, live.branches, strict=True):
            for mine, branch in zip(recorded.branches, found, strict=False):
                counts["branches"] += 1
                whole = branch.finish_reason is not None
                counts["branches_equal"] += mine.tokens == branch.tokens if whole else mine.tokens >= branch.tokens
    return counts


def speed(device: str, dtype: torch.dtype, branches: int, repeats: int = 3) -> dict[str, float]:
    """Seconds for `branches` branches of one tiny question after the other, ours beside transformers' generate.

    Lengths differ, so generate() runs every row to the longest; ours lets finished rows go. The two alternate.
    """
    model, tokenizer = tiny.load()
    enable(model.to(device=device, dtype=dtype), tokenizer=tokenizer)
    ours = theirs = 0.0
    tokens = 0
    for repeat, question in enumerate(tiny.questions("record")[: repeats + 1]):  # the first one warms up
        batch = tokenizer(question.question, return_tensors="pt").to(device)
        inputs = {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
        start = _now(device)
        output = model.generate(
            **inputs,
            strategy="autotts",
            controller="self_consistency",
            controller_kwargs={"max_samples": branches},
            max_branches=branches,
            seed=repeat,
            max_rows=branches,
            return_dict_in_generate=True,
        )
        middle = _now(device)
        model.generate(**inputs, num_return_sequences=branches)
        if repeat:
            ours += middle - start
            theirs += _now(device) - middle
            tokens += output.total_cost.generated_tokens
    return {"branches": branches, "generate_over_ours": theirs / ours, "tokens_per_second": tokens / ours}


def _now(device: str) -> float:
    if device != "cpu":
        torch.cuda.synchronize()
    return time.perf_counter()


def main(
    out: Annotated[Path, typer.Argument(help="JSON file to write.")],
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    questions: Annotated[int, typer.Option(help="Questions of the agreement.")] = 32,
) -> None:
    """Measure everything and write one JSON file."""
    torch.set_num_threads(1)
    dtypes = DTYPES if device != "cpu" else {k: v for k, v in DTYPES.items() if k != "float16"}  # slow on CPU
    result = {
        "format": "tts-benchmark/1",
        "device": torch.cuda.get_device_name() if device != "cpu" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "agreement": {name: agreement(device, dtype, questions) for name, dtype in dtypes.items()},
        "speed": {str(n): speed(device, torch.float32, n) for n in (16, 64)},
    }
    out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
