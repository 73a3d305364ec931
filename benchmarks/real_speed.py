"""A real language model: tokens a second of this engine over those of transformers' own `generate`, by turns.

    python benchmarks/real_speed.py MODEL [OUT.json] [--prompts 1,8] [--tokens 48] [--dtype float32]

MODEL is a folder of Qwen2.5-Coder-0.5B-Instruct, or any other with a chat template. Both sample 64 branches a prompt
with the same settings and end where branches end; tokens are those of the branches, without what only fills a batch.
With `--tokens 48` hardly a branch has ended, with 256 nearly all: OUT.json keeps a run for each.
"""

from __future__ import annotations

import json
import os
import platform
import time
from pathlib import Path
from statistics import median
from typing import Annotated, Any

import torch
import transformers
import typer
from engine import lengths
from real_questions import FILE
from transformers import AutoModelForCausalLM, AutoTokenizer

from tts_generate.engine import enable
from tts_generate.loading import load_controller

ROOT = Path(__file__).resolve().parent.parent
BRANCHES = 64
SAMPLING = {"do_sample": True, "temperature": 0.7, "top_p": 0.95}
ASKED = "{question} Think in a few steps and put the answer into \\boxed{{}}."


def asked(tokenizer: Any, count: int) -> Any:
    """Questions of the set kept aside, in the chat template; input ids and mask."""
    lines = [json.loads(line) for line in FILE.read_text("utf-8").splitlines()]
    texts = [line["question"] for line in lines if line["set"] == "aside"][:count]
    chats = [[{"role": "user", "content": ASKED.format(question=text)}] for text in texts]
    return tokenizer.apply_chat_template(
        chats, add_generation_prompt=True, padding=True, padding_side="left", return_dict=True, return_tensors="pt"
    )


def ours(model: Any, inputs: Any, most: int, turn: int) -> int:
    """Self-consistency through this engine; its tokens."""
    controller = load_controller("self_consistency", max_samples=BRANCHES)
    output = model.generate(
        **inputs, strategy="autotts", controller=controller, seed=turn, max_new_tokens=most, interval_tokens=most,
        max_rows=BRANCHES * len(inputs["input_ids"]), force_answer=False, return_dict_in_generate=True, **SAMPLING,
    ).whole()  # fmt: skip
    return int(output.total_cost.generated_tokens)


def theirs(model: Any, inputs: Any, most: int, turn: int) -> int:
    """As many branches by transformers; their tokens up to each one's end."""
    torch.manual_seed(turn)
    new = model.generate(**inputs, num_return_sequences=BRANCHES, max_new_tokens=most, **SAMPLING)
    return sum(lengths(new[:, inputs["input_ids"].shape[1] :], model.generation_config.eos_token_id))


def compared(model: Any, tokenizer: Any, count: int, most: int, turns: int) -> dict[str, Any]:
    """Both by turns, on so many prompts."""
    inputs = asked(tokenizer, count)
    rates: dict[str, list[float]] = {"ours": [], "theirs": []}
    for turn in range(turns):
        for name, way in (("ours", ours), ("theirs", theirs)):
            start = time.perf_counter()
            tokens = way(model, inputs, most, turn)
            rates[name].append(tokens / (time.perf_counter() - start))
            print(f"{count} prompts, {name}: {tokens} tokens, {rates[name][-1]:.1f} a second", flush=True)
    ratios = [a / b for a, b in zip(rates["ours"], rates["theirs"], strict=True)]
    return {
        "prompts": count, "prompt_tokens": inputs["input_ids"].shape[1], "speedup": median(ratios), "speedups": ratios,
        "tokens_per_second": median(rates["ours"]),
    }  # fmt: skip


def main(
    folder: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of the model.")],
    out: Annotated[Path, typer.Argument()] = ROOT / "benchmarks" / "results" / "real_speed.json",
    prompts_of: Annotated[str, typer.Option("--prompts", help="Prompts of a call, separated by commas.")] = "1,8",
    tokens: Annotated[int, typer.Option(help="Tokens of a branch at most.")] = 48,
    turns: Annotated[int, typer.Option(help="Times that both take their turn.")] = 1,
    dtype: Annotated[str, typer.Option(help="float32 or bfloat16.")] = "float32",
) -> None:
    """Measure and write."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    enable(model, tokenizer=tokenizer)
    ours(model, asked(tokenizer, 1), 2, 0)  # warms up, and holds the model against its own forward pass
    of_one_length = {
        "model": folder.name, "dtype": dtype, "branches": BRANCHES, "max_new_tokens": tokens, "sampling": SAMPLING,
        "threads": torch.get_num_threads(), "cores": os.cpu_count(),
        "machine": platform.machine(), "torch": torch.__version__, "transformers": transformers.__version__,
        "rows": {str(n): compared(model, tokenizer, int(n), tokens, turns) for n in prompts_of.split(",")},
    }  # fmt: skip
    result = json.loads(out.read_text("utf-8")) if out.exists() else {"format": "tts-real-speed/2", "runs": {}}
    result["runs"][str(tokens)] = of_one_length
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
