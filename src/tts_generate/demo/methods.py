"""What the demo replays: every method on the same recorded branches, no model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tts_generate.controller import Controller
from tts_generate.evaluate import CMC_BETAS, Method, Row, evaluate_method
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.report.frontier import Point
from tts_generate.tracking import Compared

SHUFFLES = 8


def replayed(recording: Recording, branches: int) -> list[Row]:
    """Every method on the recording; savings are told against self-consistency of all branches."""
    methods = usual_methods(branches)
    rows = []
    largest = max((m for m in methods if m.controller == "self_consistency"), key=lambda m: m.knobs["max_samples"])
    with Compared(len(methods), "replaying", baseline=largest.label) as bar:
        for method in methods:
            rows.append(evaluate_method(recording, method, SHUFFLES)[0])
            bar.add(method.label, rows[-1].accuracy, rows[-1].tokens)
    return rows


def usual_methods(branches: int) -> list[Method]:
    """Self-consistency at five sizes; ASC, CMC and thrift over their budgets."""
    sizes = [n for n in (4, 8, 16, 32, 64) if n <= branches]
    methods = [Method(f"SC@{n}", "self_consistency", None, {"max_samples": n}) for n in sizes]
    for name in ("asc", "cmc"):
        limit = {"asc": "max_samples", "cmc": "max_branches"}[name]
        for beta in CMC_BETAS:
            knobs = {limit: min(branches, round(4 + 60 * beta))}
            methods.append(Method(f"{name.upper()} β={beta:g}", name, beta, knobs))
    thrift = {beta: within("thrift", beta, branches).knobs for beta in CMC_BETAS}
    return [*methods, *(Method(f"thrift β={beta:g}", "thrift", beta, knobs) for beta, knobs in thrift.items())]


def within(name: str, beta: float, branches: int) -> Controller:
    """A controller at a budget, within the branches there are."""
    usual = load_controller(name, beta=beta)
    held: dict[str, Any] = {knob: min(branches, int(usual.knobs[knob])) for knob in ("n_init", "max_branches")}
    return load_controller(usual, **held)


def points(rows: Sequence[Row]) -> list[Point]:
    """Of a picture of the replay."""
    return [Point(row.controller, row.tokens, row.accuracy, row.accuracy_ci, _short(row)) for row in rows]


def _short(row: Row) -> str:
    return f"{row.knobs['max_samples']:g}" if row.controller == "self_consistency" else f"β={row.beta:g}"
