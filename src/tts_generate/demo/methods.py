"""What the demo does without a model: every method replayed on the same recorded branches, and a search."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tts_generate.evaluate import BETAS, CMC_BETAS, Method, Row, evaluate_method, methods
from tts_generate.replay import Recording
from tts_generate.report.frontier import Point
from tts_generate.search import Fidelity, Search, Setup
from tts_generate.tracking import Compared, Searched

SHUFFLES = 8
SEED = 1
_KNOBS = ("n_init", "widen", "max_branches", "read_bar", "wave_bar", "depth_power", "share_power", "length_power")
"""Of `worth`, as many as a minute can tell something about."""
_SELECT, _FRESH = Fidelity(BETAS, 20, 500_000), Fidelity(BETAS, 40, 0)


def replayed(recording: Recording, branches: int) -> list[Row]:
    """Every method on the recording; savings are told against self-consistency of all branches."""
    chosen = usual_methods(branches)
    rows = []
    largest = max((m for m in chosen if m.controller == "self_consistency"), key=lambda m: m.knobs["max_samples"])
    with Compared(len(chosen), "replaying", baseline=largest.label) as bar:
        for method in chosen:
            rows.append(evaluate_method(recording, method, SHUFFLES)[0])
            bar.add(method.label, rows[-1].accuracy, rows[-1].tokens)
    return rows


def usual_methods(branches: int) -> list[Method]:
    """Self-consistency at five sizes; ASC, CMC and thrift over their budgets."""
    sizes = [n for n in (4, 8, 16, 32, 64) if n <= branches]
    alone = [Method(f"SC@{n}", "self_consistency", None, {"max_samples": n}) for n in sizes]
    return [*alone, *methods(["asc", "cmc", "thrift"], CMC_BETAS, max_branches=branches)]


def find(store: Path, out: Path, minutes: float) -> dict[str, Any]:
    """Search on a recording and nothing else; the result. The controller found is in `out`/best.

    The result's `beta` is the largest at which it spends no more than CMC at 0.5 on the search set, probes counted.
    """
    shutil.rmtree(out, ignore_errors=True)
    search = Search(Setup((store,), knobs=_KNOBS, seed=SEED, select=_SELECT, fresh=_FRESH))
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


def points(rows: Sequence[Mapping[str, Any]]) -> list[Point]:
    """Of a replay's rows, as `demo.json` and a sweep's JSON hold them."""
    found = []
    for row in rows:
        sized = row["controller"] == "self_consistency"
        short = f"{row['knobs']['max_samples']}" if sized else f"β={row['beta']:g}"
        found.append(Point(row["controller"], row["tokens"], row["accuracy"], tuple(row["accuracy_ci"]), short))
    return found


def live_points(runs: Mapping[str, Mapping[str, Any]], questions: int) -> list[Point]:
    """Of live runs on so many questions, as `demo.json` holds them."""
    found = []
    for name, run in runs.items():
        tokens = (run["generated_tokens"] + run["probe_tokens"]) / questions
        low, high = run["accuracy_ci"]
        series = name.rstrip("_0123456789")
        found.append(Point(series, tokens, 100 * run["accuracy"], (100 * low, 100 * high), live=True))
    return found
