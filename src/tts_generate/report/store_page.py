"""The page of a trajectory store: what it holds, how it was recorded, how to use it; numbers counted from its rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from tts_generate.inert import as_markdown
from tts_generate.report.templating import fill, markup


def store_page(summary: Mapping[str, Any], manifest: Mapping[str, Any], *, repo_id: str, own_words: str) -> str:
    """The Markdown of a store's README, without its head.

    Raises:
        TTSError: jinja2 is not installed.
    """
    filters: dict[str, Callable[..., str]] = {"count": _count, "code": _code, "percent": _percent, "cell": as_markdown}
    return fill("store.md", filters, summary=summary, manifest=manifest, repo_id=repo_id, own_words=markup(own_words))


def _count(number: float) -> str:
    return f"{number:,.0f}"


def _code(value: object) -> str:
    """A value as it stands in the manifest, as code in a cell of a table."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    shown = repr(text)[1:-1] if isinstance(value, str) else text
    ticks = "`" * (1 + max(map(len, re.findall("`+", shown)), default=0))
    pad = " " if "`" in (shown[:1], shown[-1:]) else ""
    return f"{ticks}{pad}{shown}{pad}{ticks}".replace("|", "\\|") if shown.strip() else "(empty)"


def _percent(row: Mapping[str, Any]) -> str:
    low, high = row["accuracy_ci"]
    return f"{row['accuracy']:.1f} % ({low:.1f} to {high:.1f})"
