"""A page on which every text is an attack."""

from __future__ import annotations

from tts_generate.report.page import Asked, Page, Told
from tts_generate.trace import Trace

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>'\"&"


def hostile_page() -> Page:
    reading = {"branch": 0, "depth": 1, "tokens": 32, "answer": HOSTILE, "finished": True}
    event = {"round": 0, "verb": "open", "leader": HOSTILE, "leader_votes": 1, "runner_up_votes": 0, "live": 0}
    events = (
        {**event, "tokens": 32, "pruned": [], "branches": [reading]},
        {**event, "verb": "answer", "tokens": 32, "answer": HOSTILE},
    )
    trace = Trace(HOSTILE, {"controller": HOSTILE, "beta": None, "knobs": {"k": HOSTILE}}, events)
    asked = Asked(HOSTILE, HOSTILE, HOSTILE, [Told(100.0, 32)], [trace])
    return Page(HOSTILE, {HOSTILE: HOSTILE}, methods=[HOSTILE], asked=[asked], notes=[HOSTILE])
