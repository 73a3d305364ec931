"""Seconds as replay predicts them, beside those that a live run takes; and what a computed H100 would take.

    python benchmarks/seconds.py [OUT.json] [--model FOLDER] [--rows 64]
    python benchmarks/seconds.py --only-model --model FOLDER

Measures a profile of this CPU with the tiny model (and with a real one, which records eight questions first; with
`--only-model` with that one alone, beside what OUT.json has), answers recorded questions live with several controllers
in calls of 1, 8 and 96 prompts, and predicts the same calls from the recording. Then calls by turns: what the
controllers save of self-consistency's seconds, with the profile (rows that are free work ahead) and without. Where the
published tables are at hand ($AUTOTTS_DATA or ../shared), a computed profile of an H100 with Qwen3-8B's shape tells
what the controllers would take there with one prompt.
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
from real_live import SAMPLING, STEP
from real_live import questions as real_questions
from transformers import AutoModelForCausalLM, AutoTokenizer

from tts_generate import tiny
from tts_generate.controller import Controller
from tts_generate.engine import enable, record
from tts_generate.engine.loop import Loop
from tts_generate.engine.predict import predict
from tts_generate.engine.profiling import _Bench, measure
from tts_generate.loading import DEFAULT_CONTROLLER, held_within, load_controller
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
LIVE = ("cmc", "thrift", "pace", "pace_short", "default")
"""What is timed beside self-consistency, with a profile and without; `default`: the end that the engine chooses."""
ASKED, BRANCHES, SEED = 96, 64, 1
OF_A_REAL_ONE = 16
"""Branches of a question that a real model records."""
PROFILES = ROOT / "benchmarks" / "results" / "profiles"
FEW = 8
"""Prompts of a call up to which all of them are; beyond, rows are never idle."""
QWEN3_8B = {"parameters": 8.19e9, "column_bytes": 36 * 2 * 8 * 128 * 2}
"""36 layers, 8 heads of 128 for keys and values, bfloat16."""


class Reference:
    """A forward pass that is always the same, timed now and then: a shared machine is faster and slower by the minute.

    Used `with` it around what calls `owner.method`: it is timed before, not more often than it takes a tenth of the
    time, and its own time is known. Of few tokens, as those are: what other machines take of the memory slows it alike.
    """

    def __init__(self, model: Any, owner: type, method: str) -> None:
        self.model, self.owner, self.method = model, owner, method
        self.ids = torch.arange(1, 9)[None]
        self.taken: list[float] = []
        self.last = 0.0

    def __enter__(self) -> Reference:
        plain = self.plain = getattr(self.owner, self.method)

        def timed(of: Any, *args: Any, **kwargs: Any) -> Any:
            start = time.perf_counter()
            if start - self.last > max(0.5, 10 * self.taken[-1] if self.taken else 0.0):
                with torch.no_grad():
                    self.model(self.ids)
                self.last = time.perf_counter()
                self.taken.append(self.last - start)
            return plain(of, *args, **kwargs)

        setattr(self.owner, self.method, timed)
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self.owner, self.method, self.plain)

    @property
    def seconds(self) -> float:
        """Of one such pass, on average."""
        return float(np.mean(self.taken))


def profiled(model: Any, tokenizer: Any, rows: int, **how: Any) -> tuple[Profile, float]:
    """A profile, and the reference's seconds while it was measured."""
    with Reference(model, _Bench, "passes") as reference:
        profile = measure(model, tokenizer, max_rows=rows, **how)
    return profile, reference.seconds


def held(name: str, branches: int) -> Controller:
    """A controller within the branches there are."""
    if name == "default":
        return load_controller(DEFAULT_CONTROLLER)
    return held_within(load_controller(name.removesuffix("_short"), **CONTROLLERS[name]), branches)


def compared(
    model: Any,
    tokenizer: Any,
    store: TrajectoryStore,
    profile: Profile,
    usual: float,
    rows: int,
    sampling: dict[str, Any],
    prompts_of: Sequence[int],
    alone: int,
    names: Sequence[str] = tuple(CONTROLLERS),
) -> list[dict[str, Any]]:
    """A row for each controller and number of prompts: seconds of a call, measured and predicted.

    `error` is what is left once the machine's speed meanwhile is allowed for: by how much a reference took longer than
    the `usual` seconds that it took while the profile was measured (`slower`).
    """
    branches, found = store.manifest.branches, []
    first = prompts(model, tokenizer, store.questions[:1])
    model.generate(**first, strategy="autotts", controller="asc", **(sampling | {"max_new_tokens": 32}))  # warms up
    settings = {"interval_tokens": store.manifest.interval_tokens, "max_rows": rows, "seed": store.manifest.seed}
    for count in [count for count in prompts_of if count <= len(store.questions)]:
        asked = store.questions[: alone if count == 1 else count]
        for name in names:
            controller = held(name, branches)
            said = predict(
                store, controller, profile, prompts=count, max_rows=rows, first_shuffle=None, questions=len(asked)
            )
            taken = []
            with Reference(model, Loop, "turn") as reference:
                for first in range(0, len(asked), count):
                    inputs = prompts(model, tokenizer, asked[first : first + count])
                    start = time.perf_counter()
                    model.generate(**inputs, strategy="autotts", controller=controller, **settings, **sampling)
                    taken.append(time.perf_counter() - start)
            measured, predicted = float(np.sum(taken)) - sum(reference.taken), float(said.calls.sum())
            slower = reference.seconds / usual
            raw, error = predicted / measured - 1, predicted * slower / measured - 1
            found.append({
                "controller": name, "prompts": count, "calls": len(taken), "measured": measured,
                "predicted": predicted, "raw_error": raw, "slower": slower, "error": error, "passes": said.passes,
            })  # fmt: skip
            print(f"{name:18} {count:3} prompts: measured {measured:.2f} s, predicted {predicted:.2f} s, {raw:+.0%}; "
                  f"slower by {slower - 1:+.0%}: {error:+.0%}", flush=True)  # fmt: skip
    return found


def live(
    model: Any, tokenizer: Any, profile: Profile | None, asked: Sequence[Question], rows: int,
    prompts_of: Sequence[int], alone: int, **how: Any,
) -> dict[str, dict[str, Any]]:  # fmt: skip
    """Calls by turns: self-consistency of all branches, and each controller without the profile and with it.

    With it, rows that would be idle work ahead where they are free; without one, the default alone is compared. By
    number of prompts, then by name; what had the profile ends in `_profile`.
    """
    found: dict[str, dict[str, Any]] = {}
    for count in prompts_of:
        chosen = asked[: alone if count == 1 else count]
        found[str(count)] = {"questions": len(chosen)}
        names = LIVE if count <= FEW and profile is not None else ("default",)
        known = (False,) if profile is None else (False, True)
        ways = [("self_consistency", False), *((name, knows) for name in names for knows in known)]
        of = {way: {"seconds": 0.0, "right": 0, "tokens": 0, "discarded": 0} for way in ways}
        for first in range(0, len(chosen), count):
            some = chosen[first : first + count]
            inputs = prompts(model, tokenizer, some)
            for (name, knows), sums in of.items():
                start = time.perf_counter()
                output = model.generate(
                    **inputs, strategy="autotts", controller=held(name, BRANCHES), max_rows=rows, seed=SEED,
                    profile=profile if knows else None, return_dict_in_generate=True, **how,
                ).whole()  # fmt: skip
                sums["seconds"] += time.perf_counter() - start
                sums["right"] += sum(a == q.gold_answer for a, q in zip(output.answers, some, strict=True))
                sums["tokens"] += output.total_cost.generated_tokens + output.total_cost.probe_tokens
                sums["discarded"] += output.discarded_tokens
        usual = of[ways[0]]
        for (name, knows), sums in of.items():
            saved = {f"{what}_saved": 1 - sums[what] / usual[what] for what in ("seconds", "tokens")}
            found[str(count)][f"{name}_profile" if knows else name] = {**sums, **saved}
            print(f"{name:18} {'profile' if knows else '':8} {count:3} prompts: {sums['seconds']:.2f} s, {saved}")
    return found


def errors(rows: Sequence[dict[str, Any]], which: str) -> dict[str, float]:
    """Of all of them."""
    wrong = [abs(row[which]) for row in rows]
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
        said = predict(store, held(name, BRANCHES), profile, prompts=1, max_rows=64)
        found[name] = said.to_dict()
        print(f"H100, computed: {name:18} {found[name]['seconds']:.0f} s a question")
    return {"profile": asdict(profile), "seconds": found}


def real(folder: Path, rows: int, dtype: str, live_alone: int, prompts_of: Sequence[int]) -> dict[str, Any]:
    """A real model's profile and rows: it records a few of the questions kept aside, and answers them live.

    With `live_alone`, so many of them alone, or all in one call, by self-consistency of 64 and by the default, and
    nothing else.
    """
    network = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, dtype)).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    enable(network, tokenizer=tokenizer)
    how = {name: SAMPLING[name] for name in ("max_new_tokens", "temperature", "top_p")}
    asked = real_questions("aside", FEW)
    if live_alone:
        counts = [count for count in prompts_of if count <= FEW]
        found = live(network, tokenizer, None, asked, rows, counts, live_alone, interval_tokens=STEP, **how)
        return {"live": {"branches": BRANCHES, "dtype": dtype, **found}}
    recorded = record(
        network, tokenizer, asked, FOLDER / folder.name, branches=OF_A_REAL_ONE, seed=SEED, interval_tokens=STEP, **how
    )
    profile, usual = profiled(network, tokenizer, rows, passes=12, do_sample=True, **how)
    profile.save(PROFILES / f"cpu_{folder.name}.json")
    names = ("self_consistency", "cmc", "pace", "pace_short")
    found = compared(network, tokenizer, recorded, profile, usual, rows, how, (1, FEW), 3, names)
    return {"branches": OF_A_REAL_ONE, "dtype": dtype, "profile": asdict(profile), "rows": found}


def main(
    out: Annotated[Path, typer.Argument()] = ROOT / "benchmarks" / "results" / "seconds.json",
    model: Annotated[
        Path | None, typer.Option(help="Folder of a real model, with a chat template like Qwen's.")
    ] = None,
    only_model: Annotated[bool, typer.Option(help="Add the real model to what OUT.json has.")] = False,
    live_alone: Annotated[
        int, typer.Option(help="With --only-model: answers by turns, of so many questions alone, and no more.")
    ] = 0,
    dtype: Annotated[str, typer.Option(help="Of that model's weights: float32 or bfloat16.")] = "bfloat16",
    rows: Annotated[int, typer.Option(help="Branches of one pass at most.")] = 64,
    prompts_of: Annotated[str, typer.Option("--prompts", help="Prompts of a call, separated by commas.")] = "1,8,96",
    alone: Annotated[int, typer.Option(help="Questions that are answered one by one.")] = 8,
) -> None:
    """Measure, predict, compare, write."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    if only_model and model is None:
        raise typer.BadParameter("--only-model needs --model FOLDER")
    if live_alone and not only_model:
        raise typer.BadParameter("--live-alone needs --only-model")
    result = json.loads(out.read_text("utf-8")) if only_model else of_tiny(rows, prompts_of, alone)
    if model is not None:
        of_model = result["models"].setdefault(model.name, {})
        found = real(model, rows, dtype, live_alone, [int(each) for each in prompts_of.split(",")])
        of_model |= {"live": {**of_model.get("live", {}), **found["live"]}} if live_alone else found
    every = [row for table in result["models"].values() for row in table.get("rows", ())]
    result |= {"error": errors(every, "error"), "raw_error": errors(every, "raw_error")}
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def of_tiny(rows: int, prompts_of: str, alone: int) -> dict[str, Any]:
    """What is measured with the tiny model, and computed."""
    counts = [int(each) for each in prompts_of.split(",")]
    network, tokenizer = tiny.load()
    enable(network, tokenizer=tokenizer)
    asked = tiny.questions("test")[:ASKED]
    recorded = record(network, tokenizer, asked, FOLDER / "tiny", branches=BRANCHES, seed=SEED)
    profile, usual = profiled(network, tokenizer, rows, passes=30)
    profile.save(PROFILES / "cpu_tiny.json")
    rows_of = compared(network, tokenizer, recorded, profile, usual, rows, {}, counts, alone)
    return {
        "format": "tts-seconds/1",
        "max_rows": rows,
        "models": {"tiny": {"profile": asdict(profile), "rows": rows_of}},
        "live": live(network, tokenizer, profile, asked, rows, counts, alone),
        "h100": on_h100(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


if __name__ == "__main__":
    typer.run(main)
