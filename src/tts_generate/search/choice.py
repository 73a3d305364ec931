"""The choice, and what is said about it afterwards.

The best candidates of the loop are compared on questions that no proposal has seen too; the one chosen is then measured
once more with fresh orders of the branches, beside the baselines; held-out stores are opened after that, once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tts_generate.controller import Controller
from tts_generate.errors import CandidateError, InputError
from tts_generate.evaluate import BETAS, CMC_BETAS, Method, as_dict, baselines, sweep
from tts_generate.recorded.recording import fewest_branches
from tts_generate.schedule import Range, Schedule
from tts_generate.search.archive import Evaluation
from tts_generate.search.bench import Bench
from tts_generate.search.candidate import KnobCandidate, Proposal
from tts_generate.search.narrow import narrowed
from tts_generate.search.objective import (
    Cost,
    Curve,
    Fidelity,
    Gain,
    Gains,
    Objective,
    cost_of,
    gain_over,
    reference_curve,
)
from tts_generate.search.questions import Part
from tts_generate.statistics import saving, tokens_at

FINALISTS = 40
SELECT = Fidelity(BETAS, 60, 500_000)
FRESH = Fidelity(BETAS, 100, 0)
"""The published orders, seeds 0 to 99, which no earlier look has used."""


@dataclass(frozen=True)
class Contest:
    """How candidates are run, with whom they are compared, and how."""

    bench: Bench
    reference: type[Controller]
    objective: Objective = "tokens"
    threads: int | None = None
    gain: Gains = gain_over
    _references: dict[tuple[int, Fidelity], tuple[Part, Curve]] = field(default_factory=dict, compare=False)

    def measure(self, part: Part, candidate: Proposal, fidelity: Fidelity) -> Measured:
        """A candidate beside the reference, which asks for no more branches than the least that a question has.

        Knobs are held to as many; code is shown how many each question has, and may open them all.

        Every figure that chooses or is reported comes from here, and every one of code that a model wrote from strict
        mode: the host counts, and hands over only what was paid for.

        Raises:
            CandidateError: code that fails, or decides otherwise when an episode is alone.
        """
        theirs = self.reference_curve(part, fidelity)
        how: dict[str, Any] = {"cost": cost_of(self.objective), "threads": self.threads}
        ours = self.bench.look(part, candidate, fidelity, strict=True, **how).curve
        return Measured(part, theirs, ours, self.gain(theirs, ours, part.weights), self.gain)

    def reference_curve(self, part: Part, fidelity: Fidelity) -> Curve:
        """What the reference does on `part`, replayed once; the part is kept with it, so that its id stays its own."""
        key = (id(part), fidelity)
        if key not in self._references:
            reference = narrowed(self.reference, fewest_branches(part.recordings))
            curve = reference_curve(part, reference, fidelity, self.objective, self.threads)
            self._references[key] = part, curve
        return self._references[key][1]


@dataclass(frozen=True)
class Measured:
    """A family beside its reference, on the same questions and orders."""

    part: Part
    reference: Curve
    curve: Curve
    gain: Gain
    how: Gains = gain_over

    def without(self) -> dict[str, Gain]:
        """By recording: the gain over all the others; nothing where there is one only."""
        found = {}
        for number, recording in enumerate(self.part.recordings):
            weights = self.part.weights * (np.arange(len(self.part.weights)) != number)
            if weights.any():
                found[recording.name] = self.how(self.reference, self.curve, weights / weights.sum())
        return found

    @property
    def steady(self) -> float:
        """The least score, of all recordings and with each left out: a gain that one model makes alone is luck."""
        return min(gain.score for gain in (self.gain, *self.without().values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: its curve, its reference's, and the gain over it, on all recordings and on each."""
        told: dict[str, Any] = {"gain": self.gain.to_dict()}
        for name, curve in (("curve", self.curve), ("reference", self.reference)):
            tokens, accuracy = curve.points(self.part.weights)
            told[name] = {"betas": list(curve.betas), "tokens": tokens.tolist(), "accuracy": accuracy.tolist()}
        told["recordings"] = {
            recording.name: self.how(
                self.reference.alone(number), self.curve.alone(number), self.part.alone(number).weights
            ).to_dict()
            for number, recording in enumerate(self.part.recordings)
        }
        told["without"] = {name: gain.to_dict() for name, gain in self.without().items()}
        return told


@dataclass(frozen=True)
class Choice:
    """The finalist with the best mean of two scores: on the questions it was proposed by, and on those set aside.

    Either score is the least of those with one recording (one model) left out.
    """

    candidate: Proposal
    proposed: Gain
    """On the questions it was proposed by, with fresh orders."""
    selected: Gain
    """On those that no proposal has seen."""
    finalists: int
    steady: float
    """The mean of the two scores by which it was chosen, points."""


def choose(
    finalists: Sequence[Evaluation],
    propose: Part,
    select: Part,
    contest: Contest,
    fidelity: Fidelity = SELECT,
    failed: Callable[[Proposal, CandidateError], None] = lambda candidate, error: None,
) -> list[Choice]:
    """Compare the finalists on both parts, each counting the same, with orders that none of them has met; best first.

    All are looked at with a quarter of the orders, and the better quarter again with others and with all. The part set
    aside alone would be fair but small; together they reject what gains on one part only, and leaving out one recording
    at a time rejects what gains on one model only. A finalist whose code fails is left out, and `failed` is told.

    Raises:
        InputError: nobody is left.
    """
    early = Fidelity(fidelity.betas, max(1, fidelity.shuffles // 4), fidelity.first_shuffle + fidelity.shuffles)
    looked = _looks(finalists, propose, select, contest, early, failed)
    better = {choice.candidate.name for choice in looked[: max(1, -(-len(looked) // 4))]}
    again = [evaluation for evaluation in finalists if evaluation.candidate.name in better]
    closer = _looks(again, propose, select, contest, fidelity, failed)
    if not looked:
        raise InputError(
            f"the search found no candidate to choose: {len(finalists)} came through the rounds, and none of them "
            "stands up to a closer look, also on the questions set aside; the history says why. Give it more rounds."
        )
    others = [choice for choice in looked if choice.candidate.name not in better]
    return [dataclasses.replace(choice, finalists=len(finalists)) for choice in (*closer, *others)]


def _looks(
    finalists: Sequence[Evaluation],
    propose: Part,
    select: Part,
    contest: Contest,
    fidelity: Fidelity,
    failed: Callable[[Proposal, CandidateError], None],
) -> list[Choice]:
    """One look at each finalist, best first."""
    choices = []
    for evaluation in finalists:
        try:
            ours = contest.measure(propose, evaluation.candidate, fidelity)
            set_aside = ours if select is propose else contest.measure(select, evaluation.candidate, fidelity)
        except CandidateError as error:
            failed(evaluation.candidate, error)
            continue
        steady = (ours.steady + set_aside.steady) / 2
        choices.append(Choice(evaluation.candidate, ours.gain, set_aside.gain, len(finalists), steady))
    return sorted(choices, key=lambda choice: -choice.steady)


def ablation(
    schedule: Schedule, ranges: Mapping[str, Range], measured: Measured, contest: Contest, fidelity: Fidelity
) -> dict[str, float]:
    """By knob that can be switched off and is on: points of mean gain that are lost without it."""
    lost = {}
    for name, room in ranges.items():
        if room.off is None or schedule[name] == room.off:
            continue
        without = KnobCandidate({**schedule, name: room.off}, "ablation")
        lost[name] = measured.gain.mean - contest.measure(measured.part, without, fidelity).gain.mean
    return lost


def at_accuracy(measured: Measured, baseline: Mapping[str, Any], cost: Cost = "tokens") -> dict[str, Any]:
    """The tokens at which a family has a baseline's accuracy, and the share of its tokens that saves; None if never.

    Of a family whose budgets are counted in the longest chain, that chain beside the baseline's.
    """
    tokens, accuracy = measured.curve.points(measured.part.weights)
    found = tokens_at(zip(tokens.tolist(), accuracy.tolist(), strict=True), baseline["accuracy"])
    saved = None if found is None else saving(found, baseline["tokens" if cost == "tokens" else "sequential_tokens"])
    return {"label": baseline["label"], "accuracy": baseline["accuracy"], "tokens": found, "saving": saved}


def beside_baselines(part: Part, fidelity: Fidelity, threads: int | None) -> list[dict[str, Any]]:
    """SC@64, ASC@64, Parallel-Probe and CMC on the same questions, recordings counting as in `part`: rows of a sweep.

    Of recordings with fewer than 64 branches a question, as many as there are; CMC is held to them too.
    """
    count = min(64, fewest_branches(part.recordings))
    chosen = [
        Method(f"Parallel-Probe@{count}", "parallel_probe", None, {"num_chains": count}),
        *(Method.at("cmc", beta, count) for beta in CMC_BETAS),
    ]
    against = baselines(count)
    how: dict[str, Any] = {"compiled": True, "threads": threads, "weights": part.weights.tolist()}
    rows = sweep(part.recordings, chosen, fidelity.shuffles, against=against, **how).average
    return [as_dict(row) for row in rows]
