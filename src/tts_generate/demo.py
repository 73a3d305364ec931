"""The main job, end to end, with the tiny model that ships here: record, replay, search, answer live, compare."""

from __future__ import annotations

import json
import platform
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table

from tts_generate import tiny
from tts_generate.controller import Controller, held_to
from tts_generate.engine import AutoTTSOutput, enable, record
from tts_generate.evaluate import BETAS, CMC_BETAS, Method, Row, accuracy_interval, as_dict, evaluate_method, methods
from tts_generate.loading import load_controller
from tts_generate.publish.live import prompts
from tts_generate.replay import Recording, replay
from tts_generate.report.frontier import Point, plot_frontier
from tts_generate.runner import Cost
from tts_generate.search import Fidelity, Search, Setup
from tts_generate.statistics import compare, saving
from tts_generate.tracking import Compared, Searched
from tts_generate.trajectories import Question

_SEED = 1
_SHUFFLES = 8
_KNOBS = ("n_init", "widen", "max_branches", "read_bar", "wave_bar", "depth_power", "share_power", "length_power")
"""Of `worth`, as many as a minute can tell something about."""
_SELECT, _FRESH = Fidelity(BETAS, 20, 500_000), Fidelity(BETAS, 40, 0)
_LABELS = {
    "self_consistency": "SC@64",
    "self_consistency_16": "SC@16",
    "self_consistency_8": "SC@8",
    "asc": "ASC@64",
    "cmc": "CMC β=0.5",
    "thrift": "thrift β=0.5",
    "found": "found",
}
"""Names of the live runs for people: SC@n is self-consistency of n branches."""


@dataclass(frozen=True)
class LiveRun:
    """One method on the kept-aside questions, answered by the model."""

    output: AutoTTSOutput
    correct: NDArray[np.bool_]
    seconds: float

    @property
    def cost(self) -> Cost:
        """Tokens of the whole run."""
        return self.output.total_cost

    @property
    def tokens(self) -> int:
        """Generated and probe tokens; prompts cost every method the same."""
        return self.cost.generated_tokens + self.cost.probe_tokens

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; accuracy as a share, tokens summed over the questions."""
        return {
            "accuracy": float(self.correct.mean()),
            "accuracy_ci": list(accuracy_interval(self.correct)),
            "prompt_tokens": self.cost.prompt_tokens,
            "generated_tokens": self.cost.generated_tokens,
            "probe_tokens": self.cost.probe_tokens,
            "wasted_tokens": self.cost.wasted_tokens,
            "seconds": self.seconds,
        }


def find(store: Path, out: Path, minutes: float) -> dict[str, Any]:
    """Search on a recording and nothing else; the result. The controller found is in `out`/best.

    The result's `beta` is the largest at which it spends no more than CMC at 0.5 on the search set, probes counted.
    """
    shutil.rmtree(out, ignore_errors=True)
    search = Search(Setup((store,), knobs=_KNOBS, seed=_SEED, select=_SELECT, fresh=_FRESH))
    with Searched(minutes) as bar:
        result = search.run(
            out,
            minutes=minutes,
            command="tts-generate demo",
            watch=lambda standing: bar.add(standing.seconds, standing.tried, standing.saved),
        )
    curve, limit = result["fresh"]["curve"], result["fresh"]["reference"]["tokens"][BETAS.index(0.5)]
    within = [beta for beta, tokens in zip(curve["betas"], curve["tokens"], strict=True) if tokens <= limit]
    return {**result, "beta": max(within, default=0.0)}


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
    store = record(model, tokenizer, asked, out / "store", branches=branches, seed=_SEED)
    recording = Recording.from_store(store)

    console.rule("2. replay: every controller on the same recorded branches, no model", align="left")
    rows = _replayed(recording, branches)
    console.print(_replay_table(rows, len(asked)))

    console.rule("3. search: a controller for these branches, found by replay alone", align="left")
    result = find(out / "store", out / "search", minutes)
    found = load_controller(out / "search" / "best", beta=result["beta"])
    console.print(_search_line(result))

    console.rule("4. live: kept-aside questions, answered by model.generate(strategy='autotts')", align="left")
    kept_aside = tiny.questions("test")[:live]
    chosen = {**_live_methods(branches), "found": {"controller": found}}
    runs = {name: _answer(console, model, tokenizer, kept_aside, name, **how) for name, how in chosen.items()}
    console.print(_live_table(runs))
    for line in _verdict(runs):
        console.print(line, highlight=False)

    console.rule("5. live = replay", align="left")
    decoded = {name: (chosen[name]["controller"], runs[name]) for name in ("cmc", "thrift", "found")}
    check = _live_equals_replay(console, model, tokenizer, decoded, recording, asked)
    console.print(f"{check['equal']} of {check['episodes']} episodes have the same actions, answers and costs.")

    baseline, ours = runs["self_consistency"], runs["cmc"]
    report = {
        "format": "tts-demo/1",
        "live": {name: found.to_dict() for name, found in runs.items()},
        "token_saving": saving(ours.tokens, baseline.tokens),
        "time_saving": saving(ours.seconds, baseline.seconds),
        "live_equals_replay": check,
        "search": {name: result[name] for name in ("beta", "tried", "candidates_per_minute", "seconds", "candidate")}
        | {"gain": result["fresh"]["gain"]},
        "replay": [as_dict(row) for row in rows],
        "questions": {"recorded": len(asked), "live": len(kept_aside), "branches": branches},
        "seed": _SEED,
        "seconds": time.monotonic() - started,
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
    }
    (out / "demo.json").write_text(json.dumps(report, indent=2) + "\n", "utf-8")
    plot_frontier(
        _points(rows, runs, len(kept_aside)), out / "frontier.png", title="Tiny reasoner: accuracy for tokens"
    )
    console.print(f"Wrote {out / 'demo.json'} and {out / 'frontier.png'} after {report['seconds']:.0f} s.")
    return report


def _replayed(recording: Recording, branches: int) -> list[Row]:
    """Every method on the recording; savings are told against self-consistency of all branches."""
    chosen = _methods(branches)
    rows = []
    largest = max((m for m in chosen if m.controller == "self_consistency"), key=lambda m: m.knobs["max_samples"])
    with Compared(len(chosen), "replaying", baseline=largest.label) as bar:
        for method in chosen:
            rows.append(evaluate_method(recording, method, _SHUFFLES)[0])
            bar.add(method.label, rows[-1].accuracy, rows[-1].tokens)
    return rows


def _methods(branches: int) -> list[Method]:
    """Self-consistency at five sizes; ASC, CMC and thrift over their budgets."""
    sizes = [n for n in (4, 8, 16, 32, 64) if n <= branches]
    alone = [Method(f"SC@{n}", "self_consistency", None, {"max_samples": n}) for n in sizes]
    return [*alone, *methods(["asc", "cmc", "thrift"], CMC_BETAS, max_branches=branches)]


def _live_methods(branches: int) -> dict[str, dict[str, Any]]:
    """What is compared live, by its name in `demo.json`."""

    def sampled(controller: str, count: int) -> dict[str, Any]:
        return {"controller": controller, "controller_kwargs": {"max_samples": min(count, branches)}}

    return {
        "self_consistency": sampled("self_consistency", 64),
        "self_consistency_16": sampled("self_consistency", 16),
        "self_consistency_8": sampled("self_consistency", 8),
        "asc": sampled("asc", 64),
        **{name: {"controller": _within(name, 0.5, branches)} for name in ("cmc", "thrift")},
    }


def _within(name: str, beta: float, branches: int) -> Controller:
    """A controller at a budget, within the branches there are."""
    usual = load_controller(name, beta=beta)
    held: dict[str, Any] = dict(held_to(usual.knobs, branches))
    return load_controller(usual, **held)


def _answer(
    console: Console, model: Any, tokenizer: Any, questions: Sequence[Question], name: str, **how: Any
) -> LiveRun:
    """Answer every question with one method; the same seed for all, so that they read the same branches."""
    console.print(f"{_LABELS.get(name, name)}:", highlight=False)
    start = time.perf_counter()
    output = model.generate(
        **prompts(model, tokenizer, questions),
        strategy="autotts",
        seed=_SEED,
        progress=True,
        return_dict_in_generate=True,
        **how,
    )
    seconds = time.perf_counter() - start
    right = [a == question.gold_answer for a, question in zip(output.answers, questions, strict=True)]
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
    pairs = []
    for controller, ours in runs.values():
        numbered = [Question(str(number), "") for number in range(len(ours.correct))]
        decoded = [branch for branches in ours.output.branches or [] for branch in branches]
        written = Recording.of(numbered, decoded, recording.interval_tokens, source="live")
        pairs.append((ours.output, replay(written, controller, shuffles=0, traces=True)))
    cmc = runs["cmc"][0]
    again = _answer(console, model, tokenizer, asked, "cmc on the recorded questions", controller=cmc)
    pairs.append((again.output, replay(recording, cmc, shuffles=0, traces=True)))
    episodes = equal = 0
    for output, replayed in pairs:
        for number, (trace, other) in enumerate(zip(output.trace or [], replayed.traces, strict=True)):
            cost = (output.cost or [])[number]
            same_cost = cost.generated_tokens + cost.probe_tokens == replayed.cost[0, number]
            episodes += 1
            equal += trace.events == other.events and bool(same_cost)
    return {"episodes": episodes, "equal": equal}


def _verdict(runs: dict[str, LiveRun]) -> list[str]:
    """What the numbers say, the cheap baselines included."""
    baseline, ours = runs["self_consistency"], runs["cmc"]
    difference, (low, high) = compare(ours.correct, baseline.correct)
    lines = [
        f"CMC β=0.5 against SC@64: {saving(ours.tokens, baseline.tokens):.1%} fewer tokens (probes "
        f"counted), {saving(ours.seconds, baseline.seconds):.1%} less time, accuracy {100 * difference:+.1f} points "
        f"(95 % interval {100 * low:+.1f} to {100 * high:+.1f})."
    ]
    for name in ("asc", "self_consistency_16", "self_consistency_8"):
        other = runs[name]
        gain, (low, high) = compare(ours.correct, other.correct)
        lines.append(
            f"CMC β=0.5 against {_LABELS[name]}: {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) for "
            f"{ours.tokens / other.tokens:.2f} times its tokens and {ours.seconds / other.seconds:.2f} times its time."
        )
    for name, called in (
        ("thrift", "thrift β=0.5, the default where rows are scarce,"),
        ("found", "The controller found"),
    ):
        found = runs[name]
        gain, (low, high) = compare(found.correct, ours.correct)
        lines.append(
            f"{called} against CMC β=0.5: {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) for "
            f"{found.tokens / ours.tokens:.2f} times its tokens and {found.seconds / ours.seconds:.2f} times its time."
        )
    return lines


def _search_line(result: Mapping[str, Any]) -> str:
    """What was tried, and what it gained on the search set."""
    gain = result["fresh"]["gain"]
    return (
        f"{result['tried']} candidates in {result['seconds']:.0f} s. The one chosen gains {gain['mean']:+.2f} points "
        f"over CMC at equal tokens on the\nrecorded questions (95 % interval {gain['interval'][0]:+.2f} to "
        f"{gain['interval'][1]:+.2f}); its β={result['beta']:g} costs no more there than CMC's β=0.5."
    )


def _table(title: str, *columns: str) -> Table:
    """A table that fits 80 columns: the first column is the method, the others are numbers."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column("method", no_wrap=True)
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _accuracy(accuracy: float, interval: tuple[float, float]) -> str:
    """Percent, with its interval."""
    return f"{accuracy:.1f} ({interval[0]:.1f}-{interval[1]:.1f})"


def _replay_table(rows: Sequence[Row], questions: int) -> Table:
    title = f"{questions} recorded questions, {_SHUFFLES} orders of the branches; tokens a question"
    table = _table(title, "accuracy % (95 %)", "tokens", "of them\nprobe", "wasted", "branches")
    for row in rows:
        cells = [f"{row.tokens:,.0f}", f"{row.probe_tokens:,.0f}", f"{row.wasted_tokens:,.0f}", f"{row.branches:.1f}"]
        table.add_row(row.label, _accuracy(row.accuracy, row.accuracy_ci), *cells)
    return table


def _live_table(runs: dict[str, LiveRun]) -> Table:
    baseline = runs["self_consistency"]
    title = f"{len(baseline.correct)} kept-aside questions, live; tokens of all of them"
    columns = ("gener-\nated", "probe", "wasted", "sec-\nonds", "tokens\nsaved", "time\nsaved")
    table = _table(title, "accuracy % (95 %)", *columns)
    for name, found in runs.items():
        low, high = accuracy_interval(found.correct)
        table.add_row(
            _LABELS[name],
            _accuracy(100 * float(found.correct.mean()), (100 * low, 100 * high)),
            f"{found.cost.generated_tokens:,}",
            f"{found.cost.probe_tokens:,}",
            f"{found.cost.wasted_tokens:,}",
            f"{found.seconds:.1f}",
            f"{saving(found.tokens, baseline.tokens):.1%}",
            f"{saving(found.seconds, baseline.seconds):.1%}",
        )
    return table


def _points(rows: Sequence[Row], runs: dict[str, LiveRun], questions: int) -> list[Point]:
    points = [Point(row.controller, row.tokens, row.accuracy, row.accuracy_ci, _short(row)) for row in rows]
    for name, found in runs.items():
        low, high = accuracy_interval(found.correct)
        series = name.rstrip("_0123456789")
        accuracy = 100 * float(found.correct.mean())
        points.append(Point(series, found.tokens / questions, accuracy, (100 * low, 100 * high), live=True))
    return points


def _short(row: Row) -> str:
    return f"{row.knobs['max_samples']:g}" if row.controller == "self_consistency" else f"β={row.beta:g}"
