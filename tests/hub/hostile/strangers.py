"""Texts that act on a terminal or a page, and files in which every text is one."""

from __future__ import annotations

from typing import Any

from tts_generate.hub.card import identity
from tts_generate.publish.measuring import FORMAT
from tts_generate.trace import Trace

ACTING = {
    "NUL": "\0", "bell": "\a", "backspace": "\b", "carriage return": "\r", "vertical tab": "\v", "form feed": "\f",
    "colour": "\x1b[31m", "screen": "\x1b[2J", "title": "\x1b]0;x\a", "link": "\x1b]8;;http://x\x1b\\",
    "clipboard": "\x1b]52;c;AAAA\a", "CSI in one": "\x9b31m", "OSC in one": "\x9d0;x\x9c", "delete": "\x7f",
    "next line": "\x85", "soft hyphen": "\xad", "joiner": "\u034f", "Arabic mark": "\u061c", "filler": "\u115f",
    "no width": "\u200b", "joined": "\u200d", "left mark": "\u200e", "right mark": "\u200f", "line": "\u2028",
    "paragraph": "\u2029", "embedding": "\u202a\u202b\u202c", "override": "\u202d\u202e", "word joiner": "\u2060",
    "isolates": "\u2066\u2067\u2068\u2069", "Hangul filler": "\u3164", "private": "\ue000", "byte order": "\ufeff",
    "half of a pair": "\udc9b", "tag": "\U000e0041", "selector": "\U000e0100", "unknown": "\U000effff",
}  # fmt: skip
MARKUP = "[red]no[/such]store[link=http://x]y[/link] :smile: [report]"
EVIL = MARKUP + "".join(text for text in ACTING.values() if text != "\udc9b")
"""As a file may hold it."""
NAME = (EVIL + "\udc9b").replace("\0", "").replace("/", "_")
"""As a file may be called."""
STORE = NAME.replace("\udc9b", "")
KEPT = "".join(c for c in EVIL if c not in "\0\r\v\f\x85\u2028\u2029")
"""As a store may hold it; lines that end where none should are its own tests' business."""


def evaluation(of: dict[str, Any], text: str = EVIL) -> dict[str, Any]:
    """What was measured, every text of it a stranger's."""
    row = {"label": text, "controller": text, "beta": 0.5, "accuracy": 1.0, "accuracy_ci": [0.0, 2.0]}
    row |= {"tokens": 10, "probe_tokens": 1, "wasted_tokens": 1, "sequential_tokens": 5}
    row |= {"against": {text: {"points": 1.0, "points_ci": [0.0, 2.0], "saving": 0.5}}}
    store = {"name": text, "fingerprint": "ab", "model": {"name_or_path": text, "revision": text}, "questions": 3}
    store |= {"branches": 4, "interval_tokens": 10, "rows": [row, {**row, "beta": None}]}
    store |= {"by_question": {"accuracy": [[1.0] * 3], "tokens": [[9.0] * 3]}}
    live = {**row, "model": {"name_or_path": text}, "dataset": text, "questions": 3}
    told = {"format": FORMAT, "controller": identity(of), "name": text, "betas": [0.5], "shuffles": 1, "live": [live]}
    return {**told, "stores": [store, store], "average": store["rows"]}


def trace_of(text: str = EVIL) -> Trace:
    reading = {"branch": 0, "depth": 1, "tokens": 32, "answer": text, "finished": True}
    event = {"round": 0, "leader": text, "leader_votes": 1, "runner_up_votes": 0, "live": 0, "tokens": 32}
    events = (
        {**event, "verb": "open", "pruned": [7], "branches": [reading]},
        {**event, "verb": "answer", "answer": text},
    )
    return Trace(text, {"controller": text, "beta": None, "knobs": {text: text}}, events)
