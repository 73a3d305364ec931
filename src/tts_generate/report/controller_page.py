"""The page of a controller: what it is, what was measured, and how to load it; numbers from the evaluation alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tts_generate.inert import as_markdown
from tts_generate.report.templating import fill, markup


def controller_page(
    card: Mapping[str, Any], evaluation: Mapping[str, Any] | None, *, repo_id: str, knobs: str, own_words: str
) -> str:
    """The Markdown of a controller's README, without its head.

    Raises:
        TTSError: jinja2 is not installed.
    """
    return fill(
        "controller.md",
        {"cell": _cell, "percent": _percent, "points": _points},
        card=card,
        evaluation=evaluation,
        repo_id=repo_id,
        knobs=knobs,
        own_words=markup(own_words),
        provenance=card.get("provenance", {}),
    )


def _cell(text: object) -> str:
    """Text that stays within its cell of a table, and is no markup."""
    if isinstance(text, Mapping):
        text = ", ".join(f"{name} {value}" for name, value in text.items())
    return as_markdown(text)


def _percent(row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_ci"]
    return f"{row['accuracy']:.1f} ({low:.1f} to {high:.1f})"


def _points(row: Mapping[str, Any], baseline: str) -> str:
    """Points over a baseline with their interval, and the share of its tokens that is saved."""
    found = row.get("against", {}).get(baseline)
    if found is None or row["label"] == baseline:
        return ""
    low, high = found["points_ci"]
    return f"{found['points']:+.1f} ({low:+.1f} to {high:+.1f}), {100 * found['saving']:.0f} % saved"
