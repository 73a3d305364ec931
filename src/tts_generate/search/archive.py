"""What a search has tried, as data: evaluations, the code of candidates that are code, and proposals that failed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from tts_generate.search.candidate import KnobCandidate, Proposal, Written
from tts_generate.search.objective import Curve, Gain

_COLUMNS = ("accuracy", "cost", "chain")
"""Of a curve that is kept."""
FAILED = -1000.0
"""Score of a candidate whose evaluation failed, below that of any that did not."""


@dataclass(frozen=True)
class Telling:
    """An episode that tells what to change in a candidate, beside the reference at about the same mean cost."""

    kind: Literal["lost", "gained", "costly"]
    """The reference was right and the candidate wrong, the other way round, or it spent most over the reference."""
    recording: str
    question: str
    shuffle: int
    """Row of the replay: which order of the branches."""
    beta: float
    tokens: int
    reference_beta: float
    reference_tokens: int
    share: float
    """Of the orders of this question, those that came out like this one; the mean excess in tokens if costly."""


@dataclass(frozen=True)
class Evaluation:
    """One look at one candidate."""

    candidate: Proposal
    rung: int
    tokens: tuple[float, ...]
    """Of each budget."""
    accuracy: tuple[float, ...]
    gains: tuple[float, ...]
    """Over the reference at each of its costs."""
    score: float
    interval: tuple[float, float] | None = None
    """95 % interval of the mean gain; of candidates that are code."""
    telling: tuple[Telling, ...] = ()
    """Episodes that tell what to change; of candidates that are code."""
    confirmed: Mapping[str, int] | None = None
    """How many `episodes` were run in strict mode too, and the `seed` of their choice; all came out the same."""
    warned: tuple[str, ...] = ()
    """What its process warned of, such as hooks that do not compile. Untrusted text."""
    chain: tuple[float, ...] = ()
    """The longest chain of tokens at each budget."""
    curve: Curve | None = field(default=None, compare=False)
    """What it does on each question; of candidates that are code."""
    problem: str | None = None
    """Why it has no curve: its code failed, or it was disqualified. Untrusted text."""

    @classmethod
    def of(cls, candidate: Proposal, rung: int, found: Curve, gain: Gain, **more: Any) -> Evaluation:
        """What is kept of an evaluation, rounded to what it can be trusted for; `more` are further fields."""
        tokens, accuracy = found.points(gain.weights)
        return cls(
            candidate,
            rung,
            tuple(round(float(value), 1) for value in tokens),
            tuple(round(float(value), 4) for value in accuracy),
            tuple(round(value, 4) for value in gain.at_costs),
            round(gain.score, 4),
            chain=tuple(round(float(value), 1) for value in found.chains(gain.weights)),
            **more,
        )

    @classmethod
    def failed(cls, candidate: Proposal, rung: int, problem: str) -> Evaluation:
        """An evaluation that came to nothing."""
        return cls(candidate, rung, (), (), (), FAILED, problem=problem)

    @property
    def mean(self) -> float:
        """Mean gain over the costs."""
        return float(np.mean(self.gains)) if self.gains else FAILED

    @property
    def values(self) -> tuple[float, float]:
        """Mean gain at the lower and at the upper half of the costs."""
        gains = self.gains or (FAILED,)
        half = max(1, len(gains) // 2)
        return float(np.mean(gains[:half])), float(np.mean(gains[-half:]))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; of a candidate that is code its name, by which the archive has it."""
        mine = self.candidate.to_dict() if isinstance(self.candidate, KnobCandidate) else {"name": self.candidate.name}
        row = {
            "kind": "evaluation",
            **mine,
            "rung": self.rung,
            "tokens": list(self.tokens),
            "accuracy": list(self.accuracy),
            "gains": list(self.gains),
            "score": self.score,
        }
        for name in ("interval", "chain", "confirmed", "warned", "problem"):
            if getattr(self, name) not in (None, ()):
                row[name] = getattr(self, name)
        if self.curve is not None:
            row["curve"] = _curve_row(self.curve)
        return {**row, "telling": [asdict(one) for one in self.telling]} if self.telling else row

    @classmethod
    def from_dict(cls, row: Mapping[str, Any], written: Mapping[str, Written]) -> Evaluation:
        """The evaluation that `to_dict` wrote; `written` are the archive's candidates that are code."""
        candidate = KnobCandidate.from_dict(row) if "knobs" in row else written[row["name"]]
        return cls(
            candidate,
            row["rung"],
            tuple(row["tokens"]),
            tuple(row["accuracy"]),
            tuple(row["gains"]),
            row["score"],
            interval=(row["interval"][0], row["interval"][1]) if "interval" in row else None,
            telling=tuple(Telling(**one) for one in row.get("telling", ())),
            confirmed=row.get("confirmed"),
            warned=tuple(row.get("warned", ())),
            chain=tuple(row.get("chain", ())),
            curve=_curve_of(row["curve"]) if "curve" in row else None,
            problem=row.get("problem"),
        )


def kept(curve: Curve) -> Curve:
    """A curve as it is kept: percent to two digits, whole tokens."""
    accuracy, cost, chain = (
        tuple(np.round(v, digits) for v in values)
        for values, digits in ((curve.accuracy, 2), (curve.cost, 0), (curve.chain, 0))
    )
    return Curve(curve.betas, accuracy, cost, chain)


def _curve_row(curve: Curve) -> dict[str, Any]:
    columns = {name: [values.tolist() for values in getattr(curve, name)] for name in _COLUMNS}
    return {"betas": list(curve.betas), **columns}


def _curve_of(row: Mapping[str, Any]) -> Curve:
    columns: dict[str, Any] = {
        name: tuple(np.array(values, np.float64) for values in row.get(name, ())) for name in _COLUMNS
    }
    return Curve(tuple(row["betas"]), **columns)


@dataclass(frozen=True)
class Entry:
    """A candidate that is code, as the archive keeps it."""

    candidate: Written
    kind: str
    """The name of its class."""
    round: int
    seed: int
    """Of the search."""
    usd: float
    """What was paid since the proposal before."""
    knobs: Mapping[str, Mapping[str, Any]]
    """Its knobs at some budgets, by budget."""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        told = {"class": self.kind, "round": self.round, "seed": self.seed, "usd": self.usd, "knobs_at": self.knobs}
        return {"kind": "written", **self.candidate.to_dict(), **told}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Entry:
        """The entry that `to_dict` wrote."""
        return cls(Written.from_dict(row), row["class"], row["round"], row["seed"], row["usd"], row["knobs_at"])


@dataclass(frozen=True)
class Failure:
    """A proposal that came to nothing, or a round that did."""

    round: int
    problem: str
    """Untrusted text."""
    usd: float
    code: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"kind": "failure", **asdict(self)}

    @classmethod
    def from_dict(cls, row: Mapping[str, Any]) -> Failure:
        """The failure that `to_dict` wrote."""
        return cls(row["round"], row["problem"], row["usd"], row["code"])


@dataclass
class Archive:
    """Everything a search has tried, in the order in which it did."""

    found: dict[tuple[str, int], Evaluation] = field(default_factory=dict)
    """By candidate and rung."""
    written: dict[str, Entry] = field(default_factory=dict)
    """Candidates that are code, by name."""
    failures: list[Failure] = field(default_factory=list)
    rounds: list[Mapping[str, Any]] = field(default_factory=list)

    @classmethod
    def of(cls, rows: Iterable[Mapping[str, Any]]) -> Archive:
        """The archive that a journal holds."""
        archive = cls()
        for row in rows:
            archive.take(row)
        return archive

    def take(self, row: Mapping[str, Any]) -> None:
        """Take in one row of the journal; an evaluation of code that damage has cost is left out."""
        if row["kind"] == "written":
            self.written[row["name"]] = Entry.from_dict(row)
        elif row["kind"] == "failure":
            self.failures.append(Failure.from_dict(row))
        elif row["kind"] == "round":
            self.rounds.append(row)
        elif "knobs" in row or row["name"] in self.written:
            codes = {name: entry.candidate for name, entry in self.written.items()}
            evaluation = Evaluation.from_dict(row, codes)
            self.found[evaluation.candidate.name, evaluation.rung] = evaluation

    @property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation, in the order in which they were made."""
        return list(self.found.values())

    def last(self, name: str) -> Evaluation | None:
        """The closest look at a candidate; None if there was none."""
        rungs = [evaluation for evaluation in self.found.values() if evaluation.candidate.name == name]
        return max(rungs, key=lambda evaluation: evaluation.rung, default=None)

    def lineage(self, name: str) -> list[Entry]:
        """The candidates that one was made from, oldest first, and itself."""
        line: list[Entry] = []
        while name in self.written and self.written[name] not in line:
            line.insert(0, self.written[name])
            name = line[0].candidate.parent or ""
        return line
