"""The choice, and what is said about it afterwards.

The best candidates of the loop are compared on questions that no proposal has seen; the one chosen is then measured
once more with fresh orders of the branches, beside the baselines; held-out stores are opened after that, once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tts_generate.controller import Controller
from tts_generate.evaluate import Method, as_dict, baselines, sweep
from tts_generate.loading import load_controller
from tts_generate.schedule import Range, Schedule
from tts_generate.search.candidate import Candidate
from tts_generate.search.history import Evaluation
from tts_generate.search.loop import ELEVEN
from tts_generate.search.narrow import narrowed
from tts_generate.search.objective import Cost, Curve, Fidelity, Gain, curve_of, gain_over
from tts_generate.search.questions import Part, fewest_branches

FINALISTS = 12
SELECT = Fidelity(ELEVEN, 60, 500_000)
FRESH = Fidelity(ELEVEN, 100, 0)
"""The published orders, seeds 0 to 99, which no earlier look has used."""
_CMC_BETAS = (0.0, 0.2, 0.5, 0.8, 1.0)


@dataclass(frozen=True)
class Choice:
    """The finalist that gains most on the questions set aside for choosing."""

    candidate: Candidate
    proposed: Evaluation
    """What it did on the questions it was proposed by."""
    selected: Gain
    """What it gains on those it was chosen by, the best of `finalists`."""
    finalists: int


@dataclass(frozen=True)
class Measured:
    """A family beside its reference, on the same questions and orders."""

    reference: Curve
    curve: Curve
    gain: Gain


def measure(
    part: Part, kind: type[Controller], reference: type[Controller], fidelity: Fidelity, cost: Cost = "tokens"
) -> Measured:
    """Replay both over all cores."""
    theirs = curve_of(
        part, reference, Fidelity(ELEVEN, fidelity.shuffles, fidelity.first_shuffle), cost=cost, threads=None
    )
    ours = curve_of(part, kind, fidelity, cost=cost, threads=None)
    return Measured(theirs, ours, gain_over(theirs, ours, part.weights))


def choose(
    finalists: Sequence[Evaluation],
    part: Part,
    kind: type[Controller],
    reference: type[Controller],
    cost: Cost = "tokens",
    fidelity: Fidelity = SELECT,
) -> Choice:
    """Compare the finalists on `part`, which none of them was proposed by."""
    theirs = curve_of(part, reference, fidelity, cost=cost, threads=None)
    gains = [
        gain_over(theirs, curve_of(part, e.candidate.family(kind), fidelity, cost=cost, threads=None), part.weights)
        for e in finalists
    ]
    best = max(range(len(finalists)), key=lambda number: gains[number].score)
    return Choice(finalists[best].candidate, finalists[best], gains[best], len(finalists))


def summary(measured: Measured, part: Part) -> dict[str, Any]:
    """A measured family as plain JSON values: its curve, its reference's, the gain over it, all and each recording."""
    weights = part.weights
    told: dict[str, Any] = {"gain": measured.gain.to_dict()}
    for name, curve in (("curve", measured.curve), ("reference", measured.reference)):
        tokens, accuracy = curve.points(weights)
        told[name] = {"betas": list(curve.betas), "tokens": tokens.tolist(), "accuracy": accuracy.tolist()}
    told["recordings"] = {
        recording.name: gain_over(*_only(measured, number), part.alone(number).weights).to_dict()
        for number, recording in enumerate(part.recordings)
    }
    return told


def _only(measured: Measured, number: int) -> tuple[Curve, Curve]:
    """Reference and family on one recording."""
    reference, curve = measured.reference, measured.curve
    return (
        Curve(reference.betas, (reference.accuracy[number],), (reference.cost[number],)),
        Curve(curve.betas, (curve.accuracy[number],), (curve.cost[number],)),
    )


def beside_baselines(part: Part, shuffles: int) -> list[dict[str, Any]]:
    """SC@64, ASC@64, Parallel-Probe and CMC on the same questions, recordings counting the same, as rows of a sweep.

    Of recordings with fewer than 64 branches a question, as many as there are; CMC is held to them too.
    """
    count = min(64, fewest_branches(part.recordings))
    cmc = narrowed(type(load_controller("cmc")), count)
    chosen = [
        Method(f"Parallel-Probe@{count}", "parallel_probe", None, {"num_chains": count}),
        *(Method(f"cmc β={beta:g}", "cmc", beta, cmc.from_beta(beta).knobs) for beta in _CMC_BETAS),
    ]
    rows = sweep(part.recordings, chosen, shuffles, against=baselines(count), compiled=True).average
    return [as_dict(row) for row in rows]


def ablation(
    schedule: Schedule,
    ranges: Mapping[str, Range],
    measured: Measured,
    part: Part,
    kind: type[Controller],
    fidelity: Fidelity,
    cost: Cost,
) -> dict[str, float]:
    """By knob that can be switched off and is on: points of mean gain that are lost without it."""
    lost = {}
    for name, room in ranges.items():
        if room.off is None or schedule[name] == room.off:
            continue
        without = Candidate({**schedule, name: room.off}, "ablation").family(kind)
        curve = curve_of(part, without, fidelity, cost=cost, threads=None)
        lost[name] = measured.gain.mean - gain_over(measured.reference, curve, part.weights).mean
    return lost
