"""The main job, end to end, with the tiny model that ships here: record, replay, search, answer live, compare."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from rich.console import Console

from tts_generate import tiny
from tts_generate.answers import is_right
from tts_generate.controller import Controller
from tts_generate.demo.live import LiveRun
from tts_generate.demo.methods import SEED, find, live_points, points, replayed
from tts_generate.demo.real import run_real
from tts_generate.demo.tables import LABELS, live_table, replay_table, search_line, verdict
from tts_generate.engine import enable, record
from tts_generate.evaluate import as_dict
from tts_generate.loading import held_within, load_controller
from tts_generate.publish.live import prompts, replay_of, same_episodes
from tts_generate.replay import Recording, replay
from tts_generate.report.frontier import plot_frontiers
from tts_generate.statistics import saving
from tts_generate.trajectories import Question


def run(
    out: Path, *, recorded: int, live: int, branches: int, console: Console, minutes: float = 0.6
) -> dict[str, Any]:
    """Run the demo, print its tables, and write `demo.json` and `frontier.png` into `out`."""
    started = time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(out / "store", ignore_errors=True)
    model, tokenizer = tiny.load()
    enable(model, tokenizer=tokenizer)

    console.rule("1. record", align="left")
    asked = tiny.questions("record")[:recorded]
    store = record(model, tokenizer, asked, out / "store", branches=branches, seed=SEED)
    recording = Recording.from_store(store)

    console.rule("2. replay: every controller on the same recorded branches, no model", align="left")
    rows = replayed(recording, branches)
    console.print(replay_table(rows, len(asked)))

    console.rule("3. search: a controller for these branches, found by replay alone", align="left")
    result = find(out / "store", out / "search", minutes)
    found = load_controller(out / "search" / "best", beta=result["beta"])
    console.print(search_line(result))

    console.rule("4. the same on an ordinary language model, whose recording ships here", align="left")
    told = run_real(out, minutes / 2, console)

    console.rule("5. live: kept-aside questions, answered by model.generate(strategy='autotts')", align="left")
    kept_aside = tiny.questions("test")[:live]
    methods = {**_live_methods(branches), "found": {"controller": found}}
    runs = {name: _answer(console, model, tokenizer, kept_aside, name, **how) for name, how in methods.items()}
    console.print(live_table(runs))
    for line in verdict(runs):
        console.print(line, highlight=False)

    console.rule("6. live = replay", align="left")
    decoded = {name: (methods[name]["controller"], runs[name]) for name in ("cmc", "thrift", "found")}
    check = _live_equals_replay(console, model, tokenizer, decoded, recording, asked)
    console.print(f"{check['equal']} of {check['episodes']} episodes have the same actions, answers and costs.")

    report = {
        "format": "tts-demo/1",
        **_of_live(runs),
        "live_equals_replay": check,
        "search": {name: result[name] for name in ("beta", "tried", "candidates_per_minute", "seconds", "candidate")}
        | {"gain": result["fresh"]["gain"]},
        "replay": [as_dict(row) for row in rows],
        "real": told,
        "questions": {"recorded": len(asked), "live": len(kept_aside), "branches": branches},
        "seed": SEED,
        "seconds": time.monotonic() - started,
        "versions": _versions(),
    }
    (out / "demo.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    panels = {
        f"{told['model'].rpartition('/')[2]}, recorded: accuracy for tokens": points(told["replay"]),
        "Tiny reasoner, recorded and live": points(report["replay"]) + live_points(report["live"], len(kept_aside)),
    }
    plot_frontiers(panels, out / "frontier.png")
    console.print(f"Wrote {out / 'demo.json'} and {out / 'frontier.png'} after {report['seconds']:.0f} s.")
    return report


def _versions() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }


def _of_live(runs: Mapping[str, LiveRun]) -> dict[str, Any]:
    """What `demo.json` says of the live runs, and of CMC's beside self-consistency's."""
    baseline, ours = runs["self_consistency"], runs["cmc"]
    return {
        "live": {name: found.to_dict() for name, found in runs.items()},
        "token_saving": saving(ours.tokens, baseline.tokens),
        "time_saving": saving(ours.seconds, baseline.seconds),
    }


def _live_methods(branches: int) -> dict[str, dict[str, Any]]:
    """What is compared live, by its name in `demo.json`."""

    def sampled(controller: str, count: int) -> dict[str, Any]:
        return {"controller": controller, "controller_kwargs": {"max_samples": min(count, branches)}}

    return {
        "self_consistency": sampled("self_consistency", 64),
        "self_consistency_16": sampled("self_consistency", 16),
        "self_consistency_8": sampled("self_consistency", 8),
        "asc": sampled("asc", 64),
        **{name: {"controller": held_within(load_controller(name, beta=0.5), branches)} for name in ("cmc", "thrift")},
    }


def _answer(
    console: Console, model: Any, tokenizer: Any, questions: Sequence[Question], name: str, **how: Any
) -> LiveRun:
    """Answer every question with one method; the same seed for all, so that they read the same branches."""
    console.print(f"{LABELS.get(name, name)}:", highlight=False)
    start = time.perf_counter()
    output = model.generate(
        **prompts(model, tokenizer, questions),
        strategy="autotts",
        seed=SEED,
        progress=True,
        return_dict_in_generate=True,
        **how,
    ).whole()
    seconds = time.perf_counter() - start
    right = [
        is_right(answer, question.gold_answer or "") for answer, question in zip(output.answers, questions, strict=True)
    ]
    return LiveRun(output, np.array(right), seconds)


def _live_equals_replay(
    console: Console,
    model: Any,
    tokenizer: Any,
    runs: Mapping[str, tuple[Controller, LiveRun]],
    recording: Recording,
    asked: Sequence[Question],
) -> dict[str, int]:
    """Replay what live runs decoded; then answer recorded questions live and compare with the recording's replay."""
    step = recording.interval_tokens
    equal = [
        same
        for controller, ours in runs.values()
        for same in same_episodes(ours.output, replay_of(ours.output, controller, step))
    ]
    cmc = runs["cmc"][0]
    live = _answer(console, model, tokenizer, asked, "cmc on the recorded questions", controller=cmc)
    equal += same_episodes(live.output, replay(recording, cmc, shuffles=0, traces=True))
    return {"episodes": len(equal), "equal": sum(equal)}
