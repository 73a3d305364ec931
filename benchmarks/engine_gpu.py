"""What the engine does on a GPU: agreement of live runs with replay, by dtype, and speed beside transformers' generate.

    python benchmarks/engine_gpu.py OUT.json

Agreement: the shipped tiny model records its questions, then CMC runs live with the same seed and is compared with the
replay of the recording, episode by episode; and every live run is replayed from what it decoded. Speed: a randomly
initialised model of Qwen3-0.6B's shape decodes branches of unequal length (a share of its vocabulary ends a branch),
against `generate(num_return_sequences=...)`, which runs every row to the longest; both in one process, alternating.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, Qwen3Config

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


def speed(device: str, dtype: torch.dtype, branches: int, mean: int, most: int) -> dict[str, float]:
    """Seconds for `branches` branches of one question, ours beside transformers' generate, three times alternating."""
    config = Qwen3Config(
        vocab_size=4096, hidden_size=1024, num_hidden_layers=28, num_attention_heads=16, num_key_value_heads=8,
        head_dim=128, intermediate_size=3072, max_position_embeddings=8192, eos_token_id=2, pad_token_id=0,
        bos_token_id=None,
    )  # fmt: skip
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation="sdpa").eval().to(device)
    _, tokenizer = tiny.load()
    enable(model, tokenizer=tokenizer)
    ids = torch.randint(5, 30, (1, 64), device=device)
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    ends = list(range(100, 100 + config.vocab_size // mean))  # random weights: so many of them end a branch by chance
    sampling: dict[str, Any] = {
        "do_sample": True, "max_new_tokens": most, "top_k": 0, "temperature": 1.0, "eos_token_id": ends,
    }  # fmt: skip
    ours, theirs, tokens = [], [], 0
    for repeat in range(4):  # the first one warms up
        torch.cuda.synchronize()
        start = time.perf_counter()
        output = model.generate(
            **inputs, strategy="autotts", controller="self_consistency", controller_kwargs={"max_samples": branches},
            seed=repeat, interval_tokens=100, max_rows=branches, return_dict_in_generate=True,
            **sampling,
        )  # fmt: skip
        torch.cuda.synchronize()
        middle = time.perf_counter()
        model.generate(**inputs, num_return_sequences=branches, **sampling)
        torch.cuda.synchronize()
        if repeat:
            ours.append(middle - start)
            theirs.append(time.perf_counter() - middle)
            tokens += output.total_cost.generated_tokens
    return {
        "branches": branches,
        "ours_seconds": sum(ours) / 3,
        "generate_seconds": sum(theirs) / 3,
        "ratio": sum(theirs) / sum(ours),
        "tokens_per_second": tokens / sum(ours),
    }


def main(out: str) -> None:
    """Measure everything and write one JSON file."""
    device = "cuda"
    result = {
        "format": "tts-benchmark/1",
        "device": torch.cuda.get_device_name(),
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "agreement": {name: agreement(device, dtype) for name, dtype in DTYPES.items()},
        "speed": [speed(device, torch.bfloat16, branches, 200, 800) for branches in (16, 64, 256)],
    }
    Path(out).write_text(json.dumps(result, indent=2) + "\n")
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main(sys.argv[1])
