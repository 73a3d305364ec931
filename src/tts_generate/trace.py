"""What happened in an episode, event by event: written by the runner only, the same live and in replay."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tts_generate.errors import InputError
from tts_generate.strict_json import LARGEST, Count, check_format, check_shape, parse_json

FORMAT = "tts-trace/2"
_EVENT: dict[Any, Any] = {
    "round": Count, "verb": Literal["open", "continue", "answer"], "leader": str | None, "leader_votes": Count,
    "runner_up_votes": Count, "live": Count, "tokens": Count,
}  # fmt: skip
_SHAPE = {
    "question_id": str,
    "controller": {"controller": str, "beta": float | None, "knobs": {str: bool | float | str}, "latency?": float},
    "answer_pattern?": str,
    "events": [_EVENT],
}
_READING = {"branch": Count, "depth": Count, "tokens": Count, "answer": str | None, "finished": bool}
_MOVE: dict[Any, Any] = {"pruned": [Count], "branches": [_READING]}
_ANSWER = {"answer": str | None, "pruned?": [Count], "branches?": [_READING]}
"""What a trace holds, as far as it is read: of an event that is the answer, and of any other."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Where one branch stands after it advanced: depth in steps, tokens so far, answer id shown, whether it ended."""

    branch: int
    depth: int
    tokens: int
    answer: int
    finished: bool


@dataclass(frozen=True, slots=True)
class Event:
    """One move of an episode: branches opened, branches advanced (after pruning some), or the answer."""

    round: int
    verb: Literal["open", "continue", "answer"]
    pruned: tuple[int, ...] = ()
    readings: tuple[Reading, ...] = ()
    answer: int | None = None
    leader: int = -1
    """Majority of the pool after the move; `NO_ANSWER` while it is empty."""
    leader_votes: int = 0
    runner_up_votes: int = 0
    live: int = 0
    """Branches neither finished nor pruned after the move."""
    tokens: int = 0
    """Generated and probe tokens of the episode so far."""

    def to_dict(self, text: Callable[[int], str | None], cut: Mapping[int, bool]) -> dict[str, Any]:
        """Plain JSON values, with answer ids written as the answers they stand for, and "cut" at the ends of some.

        With "forced" it has been asked for its answer there.
        """
        row: dict[str, Any] = {name: getattr(self, name) for name in _EVENT} | {"leader": text(self.leader)}
        if self.verb == "answer":
            return {**row, "answer": None if self.answer is None else text(self.answer)}
        return {
            **row,
            "pruned": list(self.pruned),
            "branches": [
                {
                    **{name: getattr(reading, name) for name in _READING},
                    "answer": text(reading.answer),
                    **({"cut": True} if reading.finished and reading.branch in cut else {}),
                    **({"forced": True} if reading.finished and cut.get(reading.branch) else {}),
                }
                for reading in self.readings
            ],
        }


@dataclass(frozen=True, slots=True)
class Trace:
    """The events of one episode with the answers spelt out, comparable across environments by `==`."""

    question_id: str
    controller: Mapping[str, Any]
    events: tuple[dict[str, Any], ...]
    answer_pattern: str | None = field(default=None, compare=False)
    """How answers were read, see `AnswerFormat`; None where nobody says."""

    @classmethod
    def of(
        cls,
        question_id: str,
        controller: Mapping[str, Any],
        events: list[Event],
        text: Callable[[int], str | None],
        cut: Mapping[int, bool],
        answer_pattern: str | None = None,
    ) -> Trace:
        """Spell out the answers of `events` by `text`, the answer of an id; `cut` branches ended at their limit.

        Those whose value is true were asked for their answer there.
        """
        return cls(question_id, controller, tuple(event.to_dict(text, cut) for event in events), answer_pattern)

    @property
    def knobs(self) -> str:
        """Those of its controller, in words."""
        told = self.controller["knobs"].items()
        return ", ".join(
            f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}" for name, value in told
        )

    def to_dict(self) -> dict[str, Any]:
        """One JSON object, format named."""
        return {
            "format": FORMAT,
            "question_id": self.question_id,
            "controller": dict(self.controller),
            **({} if self.answer_pattern is None else {"answer_pattern": self.answer_pattern}),
            "events": list(self.events),
        }

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], where: object = "a trace") -> Trace:
        """The trace of such an object, of which `where` says where it stands.

        Raises:
            InputError: another format, or something in it that is not what it must be.
        """
        row = dict(row) if isinstance(row, Mapping) else row
        check_format(row, FORMAT, where, "Make it again with tts-generate trace.")
        check_shape(row, _SHAPE, where)
        read: set[int] = set()
        for event in row["events"]:
            check_shape(event, _ANSWER if event["verb"] == "answer" else _MOVE, where)
            read.update(reading["branch"] for reading in event.get("branches", ()))
            if event["leader_votes"] + event["runner_up_votes"] > len(read):
                raise InputError(f"{where}: more branches vote in round {event['round']} than were read.")
        return cls(row["question_id"], row["controller"], tuple(row["events"]), row.get("answer_pattern"))


def some(names: list[str], most: int) -> str:
    """The first of the names, and how many more there are.

    >>> some(["#1", "#2", "#3"], 2)
    '#1, #2 and 1 more'
    """
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def write_traces(path: str | Path, traces: Iterable[Trace]) -> int:
    """Write traces as JSON lines, one at a time; how many there were. A file is there whole or as it was.

    So traces may be those that `read_traces` reads of the same file. A pipe or a terminal is written as it is.
    """
    piped = os.path.exists(path) and not os.path.isfile(path)
    path = path if piped else os.path.realpath(path)
    count, aside = 0, Path(path if piped else f"{path}.tmp")
    try:
        with open(aside, "w", encoding="utf-8", errors="backslashreplace") as file:
            for trace in traces:
                file.write(json.dumps(trace.to_dict(), ensure_ascii=False) + "\n")
                count += 1
        if not piped:
            os.replace(aside, path)
    finally:
        if not piped:
            aside.unlink(missing_ok=True)
    return count


def read_traces(path: str | Path) -> Iterator[Trace]:
    """The traces of a file that `write_traces` wrote, one at a time.

    Raises:
        InputError: naming the line that is not a trace.
    """
    with open(path, "rb") as file:
        for number, line in enumerate(iter(partial(file.readline, LARGEST + 1), b""), 1):
            where = f"{path}, line {number}"
            yield Trace.from_dict(parse_json(line, where), where)
