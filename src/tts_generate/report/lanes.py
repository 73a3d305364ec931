"""Traces as the trace viewer reads them: columns of small numbers, squeezed, one parcel a question."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tts_generate.trace import Trace
from tts_generate.votes import NO_ANSWER, confidence

_VERBS = ("open", "continue", "answer")


def parcel(traces: Sequence[Trace]) -> tuple[list[str], str]:
    """The answers in the traces of one question, and the traces' columns as base64 of a raw deflate stream of JSON.

    A browser unpacks it by itself (`DecompressionStream`), question by question, when it is looked at; 64 branches of
    200 steps take some 30 kB instead of a megabyte.
    """
    ids: dict[str, int] = {}
    text = json.dumps([columns(trace, ids) for trace in traces], separators=(",", ":"), ensure_ascii=False)
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = squeeze.compress(text.encode()) + squeeze.flush()
    return list(ids), base64.b64encode(packed).decode()


def columns(trace: Trace, ids: dict[str, int]) -> dict[str, list[Any]]:
    """One trace as columns: an entry an event, and for what branches did an entry a reading (`moved` of them an event).

    `steps` and `spent` (tokens) are what a reading added to its branch. `confidence` is that of the pool's vote,
    `votes.confidence` of the leader's votes and the runner-up's. Answers are numbers of `ids`, which is added to.
    """

    def number(answer: str | None) -> int:
        return NO_ANSWER if answer is None else ids.setdefault(answer, len(ids))

    found: dict[str, list[Any]] = {name: [] for name in (*_OF_EVENTS, *_OF_READINGS, "result")}
    depth: dict[int, int] = {}
    tokens: dict[int, int] = {}
    for event in trace.events:
        readings = event.get("branches", [])
        shown = confidence(event["leader_votes"], event["runner_up_votes"])
        row = (
            event["round"],
            _VERBS.index(event["verb"]),
            number(event["leader"]),
            event["leader_votes"],
            event["runner_up_votes"],
            round(shown, 4),
            event["live"],
            event["tokens"],
            event.get("pruned", []),
            len(readings),
        )
        _add(found, _OF_EVENTS, row)
        for reading in readings:
            branch = reading["branch"]
            added = (reading["depth"] - depth.get(branch, 0), reading["tokens"] - tokens.get(branch, 0))
            depth[branch], tokens[branch] = reading["depth"], reading["tokens"]
            _add(found, _OF_READINGS, (branch, *added, number(reading["answer"]), _end(reading)))
        if event["verb"] == "answer":
            found["result"] = [number(event["answer"])]
    return found


def _end(reading: Mapping[str, Any]) -> int:
    """0 on its way, 1 ended, 2 ended at the limit of its length."""
    return int(reading["finished"]) + bool(reading.get("cut"))


_OF_EVENTS = ("round", "verb", "leader", "votes", "second", "confidence", "live", "tokens", "pruned", "moved")
_OF_READINGS = ("branch", "steps", "spent", "answer", "ended")


def _add(found: dict[str, list[Any]], names: Iterable[str], row: Iterable[Any]) -> None:
    for name, value in zip(names, row, strict=True):
        found[name].append(value)


def spent(trace: Trace) -> dict[str, int]:
    """Generated, probe and wasted tokens of a traced episode, its branches and its rounds, as its ledger had them.

    >>> reading = {"branch": 0, "depth": 1, "tokens": 32, "answer": "7", "finished": False}
    >>> event = {"round": 0, "tokens": 36, "branches": [reading], "pruned": []}
    >>> spent(Trace("q", {}, (event,)))["probe_tokens"]
    4
    """
    tokens: dict[int, int] = {}
    pruned: set[int] = set()
    for event in trace.events:
        tokens.update({reading["branch"]: reading["tokens"] for reading in event.get("branches", [])})
        pruned.update(event.get("pruned", []))
    last = trace.events[-1]
    return {
        "tokens": last["tokens"],
        "generated_tokens": sum(tokens.values()),
        "probe_tokens": last["tokens"] - sum(tokens.values()),
        "wasted_tokens": sum(tokens.get(branch, 0) for branch in pruned),
        "branches": len(tokens),
        "rounds": last["round"],
    }
