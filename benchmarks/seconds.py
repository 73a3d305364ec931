"""Seconds as replay predicts them, beside those that a live run takes; and what a computed H100 would take.

    python benchmarks/seconds.py [OUT.json] [--model FOLDER --store STORE] [--rows 64]

Measures a profile of this CPU with the tiny model (and with another one, of whose questions STORE is a recording),
answers recorded questions live with several controllers in calls of 1, 8 and 96 prompts, and predicts the same calls
from the recording. Where the published tables are at hand ($AUTOTTS_DATA or ../shared), a computed profile of an H100
with Qwen3-8B's shape tells what the controllers would take there with one prompt.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tts_generate import tiny
from tts_generate.controller import Controller
from tts_generate.engine import enable, record
from tts_generate.engine.predict import predict
from tts_generate.engine.profiling import measure
from tts_generate.loading import held_within, load_controller
from tts_generate.profile import Profile
from tts_generate.publish.live import prompts
from tts_generate.trajectories import Question, TrajectoryStore, import_autotts

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "seconds"
DATA = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared")) / "replay" / "Qwen3-8B" / "aime24.json"
CONTROLLERS: dict[str, dict[str, Any]] = {
    "self_consistency": {}, "asc": {}, "cmc": {}, "short_m_at_k": {}, "pace": {"latency": 0.0},
    "pace_short": {"latency": 1.0}, "thrift": {},
}  # fmt: skip
"""The knobs of what is compared, by its name; `pace` at either end."""
AHEAD = ("cmc", "thrift", "pace", "pace_short")
"""Those with which rows are seen to work ahead."""
ASKED, SEED = 96, 1
QWEN3_8B = {"parameters": 8.19e9, "column_bytes": 36 * 2 * 8 * 128 * 2}
"""36 layers, 8 heads of 128 for keys and values, bfloat16."""


def held(name: str, branches: int) -> Controller:
    """A controller within the branches there are."""
    return held_within(load_controller(name.removesuffix("_short"), **CONTROLLERS[name]), branches)


def compared(
    model: Any,
    tokenizer: Any,
    store: TrajectoryStore,
    profile: Profile,
    rows: int,
    sampling: dict[str, Any],
    prompts_of: Sequence[int],
    alone: int,
) -> list[dict[str, Any]]:
    """A row for each controller and number of prompts: seconds of a call, measured and predicted."""
    branches, found = store.manifest.branches, []
    settings = {"interval_tokens": store.manifest.interval_tokens, "max_rows": rows, "seed": store.manifest.seed}
    for count in [count for count in prompts_of if count <= len(store.questions)]:
        asked = store.questions[: alone if count == 1 else count]
        for name in CONTROLLERS:
            controller = held(name, branches)
            said = predict(
                store, controller, profile, prompts=count, max_rows=rows, first_shuffle=None, questions=len(asked)
            )
            taken = []
            for first in range(0, len(asked), count):
                inputs = prompts(model, tokenizer, asked[first : first + count])
                start = time.perf_counter()
                model.generate(**inputs, strategy="autotts", controller=controller, **settings, **sampling)
                taken.append(time.perf_counter() - start)
            measured, predicted = float(np.sum(taken)), float(said.calls.sum())
            error = predicted / measured - 1
            found.append({
                "controller": name, "prompts": count, "calls": len(taken), "measured": measured,
                "predicted": predicted, "error": error, "passes": said.passes,
            })  # fmt: skip
            print(f"{name:18} {count:3} prompts: measured {measured:.2f} s, predicted {predicted:.2f} s, {error:+.0%}")
    return found


def ahead_saves(
    model: Any, tokenizer: Any, profile: Profile, asked: Sequence[Question], rows: int, prompts_of: Sequence[int],
    alone: int,
) -> list[dict[str, Any]]:  # fmt: skip
    """What free rows save that work ahead by themselves: seconds of calls with the profile and without, by turns."""
    found = []
    for count in prompts_of:
        chosen = asked[: alone if count == 1 else count]
        for name in AHEAD:
            seconds: dict[bool, list[float]] = {False: [], True: []}
            tokens, discarded = 0, 0
            for first in range(0, len(chosen), count):
                inputs = prompts(model, tokenizer, chosen[first : first + count])
                for knows in (False, True):
                    start = time.perf_counter()
                    output = model.generate(
                        **inputs, strategy="autotts", controller=held(name, 64), max_rows=rows, seed=SEED,
                        profile=profile if knows else None, return_dict_in_generate=True,
                    )  # fmt: skip
                    seconds[knows].append(time.perf_counter() - start)
                tokens += output.total_cost.generated_tokens + output.total_cost.probe_tokens
                discarded += output.discarded_tokens
            without, with_profile = sum(seconds[False]), sum(seconds[True])
            row = {
                "controller": name, "prompts": count, "seconds": without, "seconds_ahead": with_profile,
                "saved": 1 - with_profile / without, "discarded_over_tokens": discarded / tokens,
            }  # fmt: skip
            found.append(row)
            print(f"{name:18} {count:3} prompts: {without:.2f} s, {with_profile:.2f} s ahead, {row['saved']:.0%} saved")
    return found


def errors(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Of all of them."""
    wrong = [abs(row["error"]) for row in rows]
    return {"median": float(np.median(wrong)), "worst": max(wrong)}


def on_h100() -> dict[str, Any] | None:
    """Seconds of one prompt on a computed H100; None without the published tables."""
    if not DATA.exists():
        return None
    folder = FOLDER / "aime24"
    if not folder.exists():
        import_autotts(DATA, folder)
    store = TrajectoryStore.open(folder)
    profile = Profile.roofline(**QWEN3_8B, device="H100, computed", model="Qwen3-8B's shape")
    found = {}
    for name in CONTROLLERS:
        said = predict(store, held(name, 64), profile, prompts=1, max_rows=64)
        found[name] = said.to_dict()
        print(f"H100, computed: {name:18} {found[name]['seconds']:.0f} s a question")
    return {"profile": asdict(profile), "seconds": found}


def main(
    out: Annotated[Path, typer.Argument()] = ROOT / "benchmarks" / "results" / "seconds.json",
    model: Annotated[Path | None, typer.Option(help="Folder of another model.")] = None,
    store: Annotated[Path | None, typer.Option(help="A recording of it.")] = None,
    dtype: Annotated[str, typer.Option(help="Of that model's weights: float32 or bfloat16.")] = "float32",
    rows: Annotated[int, typer.Option(help="Branches of one pass at most.")] = 64,
    prompts_of: Annotated[str, typer.Option("--prompts", help="Prompts of a call, separated by commas.")] = "1,8,96",
    alone: Annotated[int, typer.Option(help="Questions that are answered one by one.")] = 8,
) -> None:
    """Measure, predict, compare, write."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    counts = [int(each) for each in prompts_of.split(",")]
    network, tokenizer = tiny.load()
    enable(network, tokenizer=tokenizer)
    asked = tiny.questions("test")[:ASKED]
    recorded = record(network, tokenizer, asked, FOLDER / "tiny", branches=64, seed=SEED)
    profile = measure(network, tokenizer, max_rows=rows, passes=15)
    tables = {
        "tiny": {
            "profile": asdict(profile),
            "rows": compared(network, tokenizer, recorded, profile, rows, {}, counts, alone),
        }
    }
    saved = ahead_saves(network, tokenizer, profile, asked, rows, counts, alone)
    if model is not None and store is not None:
        network = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
        enable(network, tokenizer=tokenizer)
        recorded = TrajectoryStore.open(store)
        said = recorded.manifest.generation_config
        sampling = {name: said[name] for name in ("temperature", "top_p", "top_k", "max_new_tokens")}
        profile = measure(network, tokenizer, max_rows=rows, passes=3, do_sample=True, **sampling)
        found = compared(network, tokenizer, recorded, profile, rows, sampling, counts, alone)
        tables[str(recorded.manifest.model["class"])] = {"profile": asdict(profile), "rows": found}
    result = {
        "format": "tts-seconds/1",
        "max_rows": rows,
        "models": tables,
        "ahead": saved,
        "error": errors([row for table in tables.values() for row in table["rows"]]),
        "h100": on_h100(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
