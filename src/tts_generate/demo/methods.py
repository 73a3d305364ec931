"""What the demo replays: every method on the same recorded branches, no model."""

from __future__ import annotations

from collections.abc import Sequence

from tts_generate.evaluate import CMC_BETAS, Method, Row, evaluate_method, methods
from tts_generate.replay import Recording
from tts_generate.report.frontier import Point
from tts_generate.tracking import Compared

SHUFFLES = 8


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


def points(rows: Sequence[Row]) -> list[Point]:
    """Of a picture of the replay."""
    return [Point(row.controller, row.tokens, row.accuracy, row.accuracy_ci, _short(row)) for row in rows]


def _short(row: Row) -> str:
    return f"{row.knobs['max_samples']:g}" if row.controller == "self_consistency" else f"β={row.beta:g}"
