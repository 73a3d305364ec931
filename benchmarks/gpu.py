"""What the engine does on a GPU: the bandwidth roofline, transformers' two ways to generate beside it, live = replay.

    python benchmarks/gpu.py benchmarks/results/gpu.json     # on a machine with a CUDA device
    python benchmarks/gpu.py --profiles FOLDER               # seconds of a pass, of three sizes of Qwen3
    python benchmarks/gpu.py --small                         # a smoke run on any device: its figures mean nothing

Models are random: a Qwen3 of 1.7B's shape for the roofline and the comparison, the shipped tiny one for live = replay.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import transformers
import typer
from engine import DTYPES, END, Numbers, agreement, cmc_saving, long_prompt, ours, random_model, theirs
from transformers import GenerationConfig

from tts_generate import tiny
from tts_generate.engine.profiling import measure

QWEN3_1_7B = {
    "hidden_size": 2048, "intermediate_size": 6144, "num_hidden_layers": 28, "num_attention_heads": 16,
    "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151_936,
}  # fmt: skip
QWEN3_0_6B = {**QWEN3_1_7B, "hidden_size": 1024, "intermediate_size": 3072}
QWEN3_8B = {
    **QWEN3_1_7B, "hidden_size": 4096, "intermediate_size": 12_288, "num_hidden_layers": 36, "num_attention_heads": 32,
}  # fmt: skip
SMALL = {
    "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "vocab_size": 512,
}  # fmt: skip


def seconds(device: str, run: Callable[[], Any]) -> tuple[float, Any]:
    """Wall-clock seconds of a call, the device's queue empty before and after."""
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    result = run()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, result


def copy_bandwidth(device: str, size: int) -> float:
    """Bytes a second that a plain copy of `size` bytes reads and writes, the best of ten."""
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / min(seconds(device, lambda: target.copy_(source))[0] for _ in range(10))


def roofline(model: Any, device: str, rows: int, tokens: int, bandwidth: float, static: bool) -> dict[str, float]:
    """Share of the bandwidth that decoding uses: weights, and keys and values read in a step, over the step's time."""
    config = model.config
    prompt = torch.arange(3, 67, device=device)[None] % config.vocab_size
    options = {"cache_implementation": "static"} if static else {}

    def run(cap: int) -> Any:
        return ours(model, prompt, Numbers(), rows, cap, options)

    run(8)
    short, _ = seconds(device, lambda: run(tokens // 2))
    whole, _ = seconds(device, lambda: run(tokens))
    step = (whole - short) / (tokens - tokens // 2)
    element = model.dtype.itemsize
    weights = sum(p.numel() for name, p in model.named_parameters() if "embed_tokens" not in name) * element
    columns = prompt.shape[1] + 3 * tokens // 4
    column = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * element
    return {
        "rows": rows, "static": static, "step_ms": 1e3 * step, "bytes_a_step": weights + rows * columns * column,
        "share_of_bandwidth": (weights + rows * columns * column) / step / bandwidth,
    }  # fmt: skip


def continuous(model: Any, prompts: torch.Tensor, branches: int, cap: int) -> int:
    """The same questions by transformers' continuous batching; tokens it generated."""
    config = GenerationConfig(do_sample=True, max_new_tokens=cap, eos_token_id=END, pad_token_id=0, top_k=50)
    asked = [[token for token in row if token] for row in prompts.tolist() for _ in range(branches)]
    outputs = model.generate_batch(inputs=asked, generation_config=config)
    return sum(len(output.generated_tokens) for output in outputs.values())


def beside(model: Any, device: str, questions: int, branches: int, cap: int) -> dict[str, Any]:
    """Seconds per token of self-consistency on ragged branches: ours, `generate`, and `generate_batch`, by turns."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(2, model.config.vocab_size, (questions, 64), generator=generator).to(device)
    spent: dict[str, list[float]] = {"ours": [], "ours_static": [], "generate": [], "generate_batch": []}
    lengths: list[int] = []
    for _ in range(2):
        for name, options in (("ours", {}), ("ours_static", {"cache_implementation": "static"})):
            took, output = seconds(device, lambda o=options: ours(model, prompts, Numbers(), branches, cap, o))
            spent[name].append(took / output.total_cost.generated_tokens)
        took, lengths = seconds(device, lambda: theirs(model, prompts, branches, cap))
        spent["generate"].append(took / sum(lengths))
        took, tokens = seconds(device, lambda: continuous(model, prompts, branches, cap))
        spent["generate_batch"].append(took / tokens)
    best = {name: min(times) for name, times in spent.items()}
    return {
        "questions": questions, "branches": branches, "longest_over_mean": max(lengths) * len(lengths) / sum(lengths),
        "us_per_token": {name: 1e6 * value for name, value in best.items()},
        "speedup_over_generate": best["generate"] / min(best["ours"], best["ours_static"]),
        "speedup_over_generate_batch": best["generate_batch"] / min(best["ours"], best["ours_static"]),
    }  # fmt: skip


def measure_profiles(folder: Path, small: bool, device: str, dtype: torch.dtype) -> None:
    """What passes of each shape take here, a file each, for `sweep --profile`."""
    folder.mkdir(parents=True, exist_ok=True)
    shapes = {"small": SMALL} if small else {"qwen3-0.6b": QWEN3_0_6B, "qwen3-1.7b": QWEN3_1_7B, "qwen3-8b": QWEN3_8B}
    tokenizer = tiny.load()[1]
    for name, sizes in shapes.items():
        model = random_model(None, sizes, dtype, device, 8192)
        found = measure(model, tokenizer, max_rows=4 if small else 256, do_sample=True)
        found.save(folder / f"{name}.json")
        print(name, found.error)


def main(
    out: Annotated[Path | None, typer.Argument(help="JSON file to write.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A smoke run on small models, on any device.")] = False,
    profiles: Annotated[Path | None, typer.Option(help="Folder for profiles of the shapes; nothing else then.")] = None,
) -> None:
    """Measure, print JSON, and write it where a file is named."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not small:
        raise typer.BadParameter("there is no CUDA device here; pass --small to see that the script runs.")
    sizes, dtype = (SMALL, torch.float32) if small else (QWEN3_1_7B, torch.bfloat16)
    if profiles is not None:
        measure_profiles(profiles, small, device, dtype)
        return
    rows, tokens, cap = (8, 32, 48) if small else (64, 512, 2048)
    bandwidth = median(copy_bandwidth(device, 1 << (22 if small else 30)) for _ in range(3))
    even = random_model(None, sizes, dtype, device, 8192)
    ragged = random_model(12 if small else 400, sizes, dtype, device, 8192)
    result = {
        "format": "tts-benchmark/1",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        "copy_bandwidth_gb_s": bandwidth / 1e9,
        "roofline": [roofline(even, device, rows, tokens, bandwidth, static) for static in (False, True)],
        "beside": [beside(ragged, device, n, 4 if small else 64, cap) for n in ((1, 2) if small else (1, 8))],
        "long_prompt": long_prompt(ragged, 64 if small else 4096),
        "cmc": [cmc_saving(n, 1 if small else 3, device) for n in ((2,) if small else (1, 8, 96))],
        "agreement": {
            name: agreement(device, DTYPES[name], 2 if small else 32, 64)
            for name in (("float32",) if small else ("bfloat16", "float16", "float32"))
        },
    }  # fmt: skip
    if out is not None:
        out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
