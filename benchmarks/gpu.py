"""What the engine does on a GPU: the bandwidth roofline, transformers' two ways to generate beside it, live = replay.

    python benchmarks/gpu.py benchmarks/results/gpu.json     # on a machine with a CUDA device
    python benchmarks/gpu.py --profiles FOLDER               # seconds of a pass, of three sizes of Qwen3
    python benchmarks/gpu.py --small                         # a smoke run on any device: its figures mean nothing

Models are random: a Qwen3 of 1.7B's shape for the roofline and the comparison, the shipped tiny one for live = replay.
"""

from __future__ import annotations

import json
import time
import traceback
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
        return ours(model, prompt, Numbers(), rows, cap, options, force_answer=False)

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


WAYS: dict[str, dict[str, Any]] = {"ours": {}, "ours_static": {"cache_implementation": "static"}}


def beside(
    model: Any, device: str, questions: int, branches: int, cap: int, others: tuple[str, ...] = ("generate",)
) -> dict[str, Any]:
    """Seconds per token of self-consistency on ragged branches: ours, with captured graphs and without, and others."""
    generator = torch.Generator().manual_seed(1)
    prompts = torch.randint(2, model.config.vocab_size, (questions, 64), generator=generator).to(device)
    best: dict[str, float] = {}
    lengths: list[int] = []
    ours(model, prompts, Numbers(), 1, 8)
    rows = min(questions * branches, 512)
    for name, options in WAYS.items():
        took, output = seconds(
            device,
            lambda o=options: ours(model, prompts, Numbers(), branches, cap, o, max_rows=rows, force_answer=False),
        )
        best[name] = took / output.total_cost.generated_tokens
        lengths = [branch.tokens for found in output.branches for branch in found]
    for name in others:
        run = theirs if name == "generate" else continuous
        took, found = seconds(device, lambda r=run: r(model, prompts, branches, cap))
        best[name] = took / (found if isinstance(found, int) else sum(found))
    mine = min(best[name] for name in WAYS)
    return {
        "questions": questions, "branches": branches, "longest_over_mean": max(lengths) * len(lengths) / sum(lengths),
        "us_per_token": {name: 1e6 * value for name, value in best.items()},
        **{f"speedup_over_{name}": best[name] / mine for name in others},
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


def parts(small: bool, device: str) -> dict[str, Callable[[], Any]]:
    """What is measured, by name, the most telling first."""
    sizes, dtype = (SMALL, torch.float32) if small else (QWEN3_1_7B, torch.bfloat16)
    rows, tokens, cap, mean, branches = (8, 32, 48, 12, 4) if small else (64, 256, 384, 80, 64)
    made: dict[str, Any] = {}

    def model(name: str, mean_tokens: int | None, shape: dict[str, int]) -> Any:
        if name not in made:
            made.clear()
            if device == "cuda":
                torch.cuda.empty_cache()
            made[name] = random_model(mean_tokens, shape, dtype, device, 8192)
        return made[name]

    def bandwidth() -> float:
        return median(copy_bandwidth(device, 1 << (22 if small else 30)) for _ in range(3))

    def rooflines() -> list[dict[str, float]]:
        even = model("even", None, sizes)
        return [roofline(even, device, rows, tokens, bandwidth(), static) for static in (False, True)]

    def turns(name: str, shape: dict[str, int], counts: tuple[int, ...], others: tuple[str, ...]) -> list[Any]:
        ragged = model(name, mean, shape)
        return [beside(ragged, device, count, branches, cap, others) for count in counts]

    eight = SMALL if small else QWEN3_8B
    dtypes = ("float32",) if small else ("bfloat16", "float32")
    return {
        "copy_bandwidth_gb_s": lambda: bandwidth() / 1e9,
        "roofline": rooflines,
        "beside": lambda: turns("ragged", sizes, (1, 2) if small else (1, 8), ("generate",)),
        "beside_8b": lambda: turns("ragged_8b", eight, (1,) if small else (1, 8), ("generate",)),
        "long_prompt": lambda: long_prompt(model("ragged", mean, sizes), 64 if small else 4096),
        "cmc": lambda: [cmc_saving(count, 1, device) for count in ((2,) if small else (1, 8))],
        "agreement": lambda: {name: agreement(device, DTYPES[name], 2 if small else 16, 64) for name in dtypes},
        "beside_32": lambda: turns("ragged", sizes, (2,) if small else (32,), ()),
        "beside_generate_batch": lambda: turns("ragged", sizes, (1, 2) if small else (1, 8), ("generate_batch",)),
    }


def main(
    out: Annotated[Path | None, typer.Argument(help="JSON file to write.")] = None,
    small: Annotated[bool, typer.Option("--small", help="A smoke run on small models, on any device.")] = False,
    profiles: Annotated[Path | None, typer.Option(help="Folder for profiles of the shapes; nothing else then.")] = None,
    part: Annotated[list[str] | None, typer.Option(help="Only this part, beside what the file holds.")] = None,
) -> None:
    """Measure part after part; what is measured is written at once, and a part that fails is written as its error."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cpu" and not small:
        raise typer.BadParameter("there is no CUDA device here; pass --small to see that the script runs.")
    if profiles is not None:
        measure_profiles(profiles, small, device, torch.float32 if small else torch.bfloat16)
        return
    kept = json.loads(out.read_text("utf-8")) if part and out is not None and out.exists() else {"seconds": {}}
    result: dict[str, Any] = kept | {
        "format": "tts-benchmark/1",
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
    }
    for name, run in parts(small, device).items():
        if part and name not in part:
            continue
        start = time.perf_counter()
        try:
            result[name] = run()
        except Exception as error:  # the machine is lent for minutes: the other parts are measured all the same
            traceback.print_exc()
            result[name] = {"error": f"{type(error).__name__}: {error}"}
        result["seconds"][name] = time.perf_counter() - start
        print(f"{name}: {result['seconds'][name]:.1f} s", flush=True)
        if out is not None:
            out.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    typer.run(main)
