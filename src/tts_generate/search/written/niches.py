"""Parents that differ: the best of each niche over tokens and longest chain, and who behaves least like those.

A candidate is a curve, so it stands in every niche in which it has budgets, and is ranked there by what those gain.
Sources: MAP-Elites (Mouret and Clune, arXiv 1504.04909); novelty by behaviour, Lehman and Stanley
(10.1162/EVCO_a_00025); parents drawn from where little was built, ShinkaEvolve (arXiv 2509.19349).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tts_generate.search.archive import Archive, Evaluation
from tts_generate.search.loop import Judge
from tts_generate.search.objective import gain_at_own_cost

_TOKENS = ("few tokens", "some tokens", "many tokens")
"""Thirds of the reference's costs, by their logarithms."""
_CHAINS = ("a shorter chain", "a longer chain")
"""Than the reference has at as many tokens, on average over the budgets of the niche."""
_UNLIKE = 0.05
"""Share of its tokens that a candidate must spend on other questions to be another behaviour."""


@dataclass(frozen=True)
class Standing:
    """Where a candidate stands in a niche, on average over the budgets that it has there."""

    niche: str
    gain: float
    """Points over the reference at its own costs."""
    tokens: float
    chain: float
    usual: float
    """The reference's chain at as many tokens."""


@dataclass(frozen=True)
class Parent:
    """A candidate to go on from."""

    name: str
    why: str
    children: int
    """Candidates that were made from it."""


def places(judge: Judge, found: Evaluation) -> list[Standing]:
    """The niches of a candidate; none where its chain is not known."""
    if found.curve is None or not found.curve.chain:
        return []
    reference, weights = judge.reference_curve(found.rung), judge.part.weights
    (tokens, _), (theirs, _) = found.curve.points(weights), reference.points(weights)
    order = np.argsort(theirs)
    usual = np.interp(tokens, theirs[order], reference.chains(weights)[order])
    chain, gains = found.curve.chains(weights), gain_at_own_cost(reference, found.curve, weights).at_costs
    bars = np.geomspace(max(1.0, theirs.min()), max(2.0, theirs.max()), len(_TOKENS) + 1)[1:-1]
    told = []
    for third, name in enumerate(_TOKENS):
        mine = np.digitize(tokens, bars) == third
        if mine.any():
            longer = np.log(np.maximum(1.0, chain[mine]) / np.maximum(1.0, usual[mine])).mean() > 0
            means = (float(np.asarray(values)[mine].mean()) for values in (gains, tokens, chain, usual))
            told.append(Standing(f"{name}, {_CHAINS[int(longer)]}", *means))
    return told


def leads(judge: Judge, found: Evaluation, archive: Archive) -> str:
    """The first niche of which a candidate is the best at its rung; "" if of none."""
    others = [
        one for one in archive.evaluations if one.rung == found.rung and one.candidate.name != found.candidate.name
    ]
    best: dict[str, float] = {}
    for place in (place for one in others for place in places(judge, one)):
        best[place.niche] = max(place.gain, best.get(place.niche, place.gain))
    return next((p.niche for p in places(judge, found) if p.gain > best.get(p.niche, -np.inf)), "")


def parents(judge: Judge, archive: Archive, rounds: int) -> list[Parent]:
    """The best of each niche of the first `rounds` rounds, and the one that behaves least like those."""
    looked = [
        last
        for name, entry in archive.written.items()
        if entry.round < rounds and (last := archive.last(name)) is not None and last.problem is None
    ]
    best: dict[str, tuple[tuple[int, float], Standing, Evaluation]] = {}
    for one in looked:
        for place in places(judge, one):
            rank = one.rung, place.gain
            if place.niche not in best or rank > best[place.niche][0]:
                best[place.niche] = rank, place, one
    elites = {one.candidate.name: one for _, _, one in best.values()}
    found = {name: "; ".join(_standing(place) for _, place, one in best.values() if one is elite)
             for name, elite in elites.items()}  # fmt: skip
    found |= _unlike(judge, looked, list(elites.values()))
    made_from = [entry.candidate.parent for entry in archive.written.values() if entry.round < rounds]
    return [Parent(name, why, made_from.count(name)) for name, why in found.items()]


def first_of(found: Sequence[Parent]) -> Parent:
    """The parent that least was made from; the first of several."""
    return min(found, key=lambda parent: parent.children)


def told(found: Sequence[Parent]) -> list[str]:
    """Parents as lines."""
    made = {0: "nothing was made from it yet", 1: "1 was made from it"}
    return [f"- {p.name}: {p.why}. So far {made.get(p.children, f'{p.children} were made from it')}." for p in found]


def apart(judge: Judge, one: Evaluation, other: Evaluation) -> float:
    """The share of its tokens that a candidate spends on other questions than another does."""
    mine, theirs = (_spent(judge, found) for found in (one, other))
    return float(np.abs(mine - theirs).sum() / 2)


def _standing(place: Standing) -> str:
    return (
        f"{place.niche} (gain {place.gain:+.2f} at {place.tokens:,.0f} tokens, chain {place.chain:,.0f}, the "
        f"reference's {place.usual:,.0f})"
    )


def _unlike(judge: Judge, looked: Sequence[Evaluation], elites: Sequence[Evaluation]) -> dict[str, str]:
    """Of the better half, the one that is least like the best of the niches; none where all are like one of them."""
    known = [one for one in looked if one.curve is not None]
    if not elites or not known:
        return {}
    bar = float(np.median([one.score for one in known]))
    others = [one for one in known if one.score >= bar and all(one is not elite for elite in elites)]
    far = [(min(apart(judge, one, elite) for elite in elites), one) for one in others]
    share, furthest = max(far, key=lambda row: row[0], default=(0.0, None))
    if furthest is None or share < _UNLIKE:
        return {}
    why = f"unlike the others: {share:.0%} of its tokens go to other questions (score {furthest.score:+.2f})"
    return {furthest.candidate.name: why}


def _spent(judge: Judge, found: Evaluation) -> NDArray[np.float64]:
    """The share of a candidate's tokens that each question takes, on average over its budgets."""
    assert found.curve is not None
    rows = [w * values / len(values[0]) for w, values in zip(judge.part.weights, found.curve.cost, strict=True)]
    all_of = np.concatenate(rows, axis=1)
    shares: NDArray[np.float64] = (all_of / np.maximum(1e-9, all_of.sum(axis=1, keepdims=True))).mean(axis=0)
    return shares
