"""One episode as lines of text: what was opened, read, pruned and answered, and how the vote stood."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tts_generate.inert import inert
from tts_generate.trace import Trace, some

_SHOWN = 12
"""Branches named in one line."""


def timeline(trace: Trace) -> Iterator[str]:
    """The lines of a trace, each of them one line and inert, whatever the answers hold."""
    for line in _lines(trace):
        yield inert(line, lines=False)


def _lines(trace: Trace) -> Iterator[str]:
    beta = "" if trace.controller["beta"] is None else f" at beta {trace.controller['beta']:g}"
    yield f"{trace.question_id} · {trace.controller['controller']}{beta} ({trace.knobs})"
    for event in trace.events:
        yield f"  round {event['round']:>3}  {_deed(event)}"
        yield f"             {_vote(event)}"


def _deed(event: dict[str, Any]) -> str:
    if event["verb"] == "answer":
        return f"answers {_text(event['answer'])}"
    readings = [_reading(reading) for reading in event["branches"]]
    parts = [f"{'opens' if event['verb'] == 'open' else 'reads on'} {some(readings, _SHOWN)}"] if readings else []
    if event["pruned"]:
        parts.append(f"prunes {some([f'#{branch}' for branch in event['pruned']], _SHOWN)}")
    return "; ".join(parts)


def _reading(reading: dict[str, Any]) -> str:
    cut = " CUT, ASKED" if reading.get("forced") else " CUT"
    end = (cut if reading.get("cut") else " END") if reading["finished"] else ""
    return f"#{reading['branch']} to {reading['depth']}: {_text(reading['answer'])}{end}"


def _vote(event: dict[str, Any]) -> str:
    vote = "no vote yet"
    if event["leader"] is not None:
        vote = f"pool {_text(event['leader'])} {event['leader_votes']}:{event['runner_up_votes']}"
    return f"{vote} · {event['live']} live · {event['tokens']:,} tokens"


def _text(answer: str | None) -> str:
    return "no answer" if answer is None else answer
