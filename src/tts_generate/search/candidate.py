"""What a search tries, and who thinks of it: candidates and proposers."""

from __future__ import annotations

import difflib
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from tts_generate.controller import Controller, Knob
from tts_generate.schedule import Ends, from_json, scheduled, to_json


@dataclass(frozen=True)
class KnobCandidate:
    """A family of controllers: the schedule of every knob that a search sets."""

    schedule: Mapping[str, Knob | Ends]
    origin: str
    """Who proposed it, and how."""
    parent: str | None = None
    """Name of the candidate it was made from, if it was from one."""

    @property
    def name(self) -> str:
        """A name that says what is in it: the same knobs, the same name.

        >>> KnobCandidate({"width": 3}, "start").name == KnobCandidate({"width": 3}, "again").name
        True
        """
        text = json.dumps(to_json(self.schedule), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def family(self, kind: type[Controller]) -> type[Controller]:
        """The controller `kind` with this schedule."""
        return scheduled(kind, self.schedule, kind.__name__)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"name": self.name, "origin": self.origin, "parent": self.parent, "knobs": to_json(self.schedule)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> KnobCandidate:
        """The candidate that `to_dict` wrote."""
        return cls(from_json(row["knobs"], f"candidate {row['name']}"), row["origin"], row["parent"])


@dataclass(frozen=True)
class Written:
    """A family of controllers as code that somebody else wrote; it runs in the sandbox and nowhere else."""

    code: str
    origin: str
    """Who wrote it, and when."""
    parent: str | None = None
    """Name of the candidate it was made from, if it was from one."""
    idea: str = ""
    """What its writer says of it. Untrusted text."""

    @property
    def name(self) -> str:
        """A name that says what is in it: the same code, the same name.

        >>> Written("pass", "one").name == Written("pass", "another").name
        True
        """
        return hashlib.sha256(self.code.encode()).hexdigest()[:10]

    def difference(self, other: Written, context: int = 3) -> list[str]:
        """What turns its code into another's, as the lines of a unified diff."""
        mine, theirs = self.code.splitlines(), other.code.splitlines()
        return list(difflib.unified_diff(mine, theirs, self.name, other.name, lineterm="", n=context))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = {"name": self.name, "origin": self.origin, "parent": self.parent}
        return {**told, "idea": self.idea, "code": self.code}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Written:
        """The candidate that `to_dict` wrote."""
        return cls(row["code"], row["origin"], row["parent"], row["idea"])


Proposal = KnobCandidate | Written
"""What proposers propose: knobs of a controller that is known, or a controller."""


@dataclass(frozen=True)
class Scored:
    """A candidate with what became of it."""

    candidate: Proposal
    rung: int
    """The fidelity it was promoted to, from 0."""
    values: tuple[float, float]
    """Mean gain over the reference at the lower and at the upper half of its costs, points."""
    score: float


class Proposer(Protocol):
    """Thinks of candidates and hears what became of them; the loop asks, evaluates, and tells, in this order.

    The same seed and the same answers give the same proposals: a search that was cut off is gone on with by asking
    again from the start and answering from its history.
    """

    name: str

    def propose(self, count: int) -> Sequence[Proposal] | None:
        """Up to `count` candidates for the next round, none where it came to nothing; None ends the search."""

    def learn(self, scored: Sequence[Scored]) -> None:
        """What became of the candidates of the last round, in their order."""
