"""What the demo prints: tables that fit 80 columns, and what their numbers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.table import Table

from tts_generate.demo.live import LiveRun
from tts_generate.demo.methods import SHUFFLES
from tts_generate.evaluate import Row, accuracy_interval
from tts_generate.statistics import compare, saving

LABELS = {
    "self_consistency": "SC@64",
    "self_consistency_16": "SC@16",
    "self_consistency_8": "SC@8",
    "asc": "ASC@64",
    "cmc": "CMC β=0.5",
    "thrift": "thrift β=0.5",
    "found": "found",
}
"""Names of the live runs for people: SC@n is self-consistency of n branches."""


def verdict(runs: dict[str, LiveRun]) -> list[str]:
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
            f"CMC β=0.5 against {LABELS[name]}: {100 * gain:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}) for "
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


def search_line(result: Mapping[str, Any]) -> str:
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
    return f"{accuracy:.1f} ({interval[0]:.1f}-{interval[1]:.1f})"


def replay_table(rows: Sequence[Row], questions: int) -> Table:
    """Every method over its budgets, a line each."""
    title = f"{questions} recorded questions, {SHUFFLES} orders of the branches; tokens a question"
    table = _table(title, "accuracy % (95 %)", "tokens", "of them\nprobe", "wasted", "branches")
    for row in rows:
        cells = [f"{row.tokens:,.0f}", f"{row.probe_tokens:,.0f}", f"{row.wasted_tokens:,.0f}", f"{row.branches:.1f}"]
        table.add_row(row.label, _accuracy(row.accuracy, row.accuracy_ci), *cells)
    return table


def live_table(runs: dict[str, LiveRun]) -> Table:
    """What each method answered, and what it took."""
    baseline = runs["self_consistency"]
    title = f"{len(baseline.correct)} kept-aside questions, live; tokens of all of them"
    columns = ("gener-\nated", "probe", "wasted", "sec-\nonds", "tokens\nsaved", "time\nsaved")
    table = _table(title, "accuracy % (95 %)", *columns)
    for name, found in runs.items():
        low, high = accuracy_interval(found.correct)
        table.add_row(
            LABELS[name],
            _accuracy(100 * float(found.correct.mean()), (100 * low, 100 * high)),
            f"{found.cost.generated_tokens:,}",
            f"{found.cost.probe_tokens:,}",
            f"{found.cost.wasted_tokens:,}",
            f"{found.seconds:.1f}",
            f"{saving(found.tokens, baseline.tokens):.1%}",
            f"{saving(found.seconds, baseline.seconds):.1%}",
        )
    return table
