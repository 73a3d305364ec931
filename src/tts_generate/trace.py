"""What happened in an episode, event by event: written by the runner only, the same live and in replay."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

FORMAT = "tts-trace/1"


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

    def to_dict(self, text: Callable[[int], str | None]) -> dict[str, Any]:
        """Plain JSON values, with answer ids written as the answers they stand for."""
        row: dict[str, Any] = {"round": self.round, "verb": self.verb}
        if self.verb == "answer":
            return {**row, "answer": None if self.answer is None else text(self.answer)}
        return {
            **row,
            "pruned": list(self.pruned),
            "branches": [
                {
                    "branch": reading.branch,
                    "depth": reading.depth,
                    "tokens": reading.tokens,
                    "answer": text(reading.answer),
                    "finished": reading.finished,
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

    @classmethod
    def of(
        cls,
        question_id: str,
        controller: Mapping[str, Any],
        events: list[Event],
        text: Callable[[int], str | None],
    ) -> Trace:
        """Spell out the answers of `events` by `text`, the answer of an id."""
        return cls(question_id, controller, tuple(event.to_dict(text) for event in events))

    def to_dict(self) -> dict[str, Any]:
        """One JSON object, format named."""
        return {
            "format": FORMAT,
            "question_id": self.question_id,
            "controller": dict(self.controller),
            "events": list(self.events),
        }
