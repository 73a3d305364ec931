"""What a candidate is worth: a frontier, not a point.

A candidate is a family of controllers over beta. Its accuracy is read off at the costs that a reference controller has
at its own budgets, and the gain is the difference at equal cost, question by question, so that it can be resampled.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tts_generate.arguments import check_fields
from tts_generate.controller import Controller
from tts_generate.evaluate import BETAS
from tts_generate.recorded.recording import fewest_branches
from tts_generate.replay import ReplayResult, replay
from tts_generate.search.questions import Part
from tts_generate.statistics import gain_interval

Cost = Literal["tokens", "sequential"]
Objective = Literal["tokens", "balanced", "latency", "sequential"]
"""What is asked of a frontier: accuracy at equal tokens, at equal tokens with a chain that is held to a share of
self-consistency's (`HELD`), or at an equal chain."""
HELD: Mapping[str, float] = {"balanced": 1.0, "latency": 0.45}
"""By objective: the longest chain that is let pass, of that of self-consistency with all branches."""
_UNREACHED = 10.0
"""Points of accuracy lost for each factor of e that a frontier starts above a cost it is asked for."""
_LET_PASS = 0.05


@dataclass(frozen=True, slots=True)
class Fidelity:
    """How closely a candidate is looked at: budgets, and orders of the branches from one seed on."""

    betas: tuple[float, ...]
    shuffles: int
    first_shuffle: int

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in (("betas", tuple(map(float, self.betas))), ("shuffles", int(self.shuffles))):
            object.__setattr__(self, name, value)  # plain, whatever came: it names looks, and is written down

    @property
    def orders(self) -> dict[str, Any]:
        """The orders of the branches, as `replay` takes them."""
        return {"shuffles": self.shuffles, "first_shuffle": self.first_shuffle}


@dataclass(frozen=True)
class Curve:
    """What a family does at each budget: one array (budgets, questions) a recording."""

    betas: tuple[float, ...]
    accuracy: tuple[NDArray[np.float64], ...]
    """Percent, mean over orders."""
    cost: tuple[NDArray[np.float64], ...]
    """Tokens, mean over orders."""
    chain: tuple[NDArray[np.float64], ...] = ()
    """The longest chain of tokens, mean over orders."""
    bound: tuple[float, ...] = ()
    """Of a reference: the chain that a candidate is held to, a recording; () for none."""

    def alone(self, number: int) -> Curve:
        """The same on one recording."""
        one = slice(number, number + 1)
        return Curve(self.betas, self.accuracy[one], self.cost[one], self.chain[one], self.bound[one])

    def points(self, weights: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(tokens, accuracy) of each budget: the mean of each recording, averaged by `weights`."""
        tokens = np.stack([values.mean(axis=1) for values in self.cost])
        accuracy = np.stack([values.mean(axis=1) for values in self.accuracy])
        return weights @ tokens, weights @ accuracy

    def held_to(self, weights: NDArray[np.float64]) -> float:
        """The chain that a candidate is held to, of a reference; 0 for none."""
        return float(weights @ np.array(self.bound)) if self.bound else 0.0

    def chains(self, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        """The longest chain of each budget, averaged as `points` are; none where it is not known."""
        if not self.chain:
            return np.zeros(0)
        found: NDArray[np.float64] = weights @ np.stack([values.mean(axis=1) for values in self.chain])
        return found


@dataclass(frozen=True)
class Gain:
    """Points of accuracy over the reference at equal cost."""

    at_costs: tuple[float, ...]
    """At each of the reference's costs."""
    by_question: tuple[NDArray[np.float64], ...]
    """Mean over the costs of each question, one array a recording."""
    weights: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """Over all costs."""
        return float(np.mean(self.at_costs))

    @property
    def worst(self) -> float:
        """At the cost where it is least."""
        return min(self.at_costs)

    @property
    def score(self) -> float:
        """The mean, less what the frontier falls below the reference where it does: what candidates are ranked by."""
        return self.mean + min(0.0, self.worst)

    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the mean, resampled by question."""
        scaled = [len(self.weights) * w * values for w, values in zip(self.weights, self.by_question, strict=True)]
        return gain_interval(scaled)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"mean": self.mean, "worst": self.worst, "at_costs": list(self.at_costs), "interval": self.interval()}


Gains = Callable[[Curve, Curve, NDArray[np.float64]], Gain]
"""How a gain is read off the reference's curve and a candidate's: `gain_over` or `gain_at_own_cost`."""


def curve_of(
    part: Part, kind: type[Controller], fidelity: Fidelity, *, cost: Cost = "tokens", threads: int | None = 1
) -> Curve:
    """Replay the family `kind` at every budget of `fidelity` on every question of `part`."""
    return curve_from(replays_of(part, kind, fidelity, threads=threads), fidelity, cost)


def replays_of(
    part: Part, kind: type[Controller], fidelity: Fidelity, *, threads: int | None = 1
) -> list[list[ReplayResult]]:
    """The replays of a curve: by recording, then by budget."""
    return [
        [
            replay(recording, kind.from_beta(beta), **fidelity.orders, compiled=True, threads=threads)
            for beta in fidelity.betas
        ]
        for recording in part.recordings
    ]


def curve_from(results: Sequence[Sequence[ReplayResult]], fidelity: Fidelity, cost: Cost) -> Curve:
    """The curve that replays make, given by recording, then by budget."""
    accuracy, tokens, chain = (
        tuple(np.stack([np.asarray(getattr(row, name).mean(axis=0), np.float64) for row in rows]) for rows in results)
        for name in ("correct", "cost", "sequential_tokens")
    )
    percent = tuple(100.0 * values for values in accuracy)
    return Curve(fidelity.betas, percent, tokens if cost == "tokens" else chain, chain)


def reference_curve(
    part: Part, kind: type[Controller], fidelity: Fidelity, objective: Objective, threads: int | None
) -> Curve:
    """What candidates are compared with: a reference at eleven budgets, and the chain that they are held to."""
    everywhere = Fidelity(BETAS, fidelity.shuffles, fidelity.first_shuffle)
    curve = curve_of(part, kind, everywhere, cost=cost_of(objective), threads=threads)
    if objective not in HELD:
        return curve
    how = {**fidelity.orders, "threads": threads, "compiled": True}
    whole = [
        replay(recording, "self_consistency", max_samples=min(64, fewest_branches([recording])), **how)
        for recording in part.recordings
    ]
    bound = tuple(HELD[objective] * float(result.sequential_tokens.mean()) for result in whole)
    return dataclasses.replace(curve, bound=bound)


def cost_of(objective: Objective) -> Cost:
    """What an objective counts budgets in."""
    return "sequential" if objective == "sequential" else "tokens"


def gain_over(reference: Curve, candidate: Curve, weights: NDArray[np.float64]) -> Gain:
    """The candidate's gain at every cost of the reference.

    Between two budgets it does what a mixture of both does; above its highest cost it keeps what it has there; below
    its lowest it loses `_UNREACHED` points for each factor of e, since it cannot be had for so little. As much is lost
    at every cost where more beta spends fewer tokens (beyond a few percent): beta is a budget; and for each factor of e
    by which its chain is longer than it is held to.

    >>> one = Curve((0.0, 1.0), (np.array([[40.0], [60.0]]),), (np.array([[1000.0], [4000.0]]),))
    >>> other = Curve((0.0, 1.0), (np.array([[50.0], [70.0]]),), (np.array([[1000.0], [4000.0]]),))
    >>> gain_over(one, other, np.ones(1)).at_costs
    (10.0, 10.0)
    """
    costs, _ = reference.points(weights)
    tokens, _ = candidate.points(weights)
    mixture, unreached = _mixture(tokens, costs)
    unreached = unreached + _disorder(tokens) + _too_long(reference, candidate, weights)
    gains = [mixture @ ours - theirs for ours, theirs in zip(candidate.accuracy, reference.accuracy, strict=True)]
    means = weights @ np.stack([values.mean(axis=1) for values in gains]) - _UNREACHED * unreached
    by_question = tuple(values.mean(axis=0) - _UNREACHED * float(unreached.mean()) for values in gains)
    return Gain(tuple(float(value) for value in means), by_question, weights)


def gain_at_own_cost(reference: Curve, candidate: Curve, weights: NDArray[np.float64]) -> Gain:
    """The gain of a candidate without a budget: over what the reference has, mixing its budgets, at each of its costs.

    Outside the reference's costs it is compared with the nearest of them.

    >>> one = Curve((0.0, 1.0), (np.array([[40.0], [60.0]]),), (np.array([[1000.0], [3000.0]]),))
    >>> other = Curve((0.5,), (np.array([[55.0]]),), (np.array([[2000.0]]),))
    >>> gain_at_own_cost(one, other, np.ones(1)).at_costs
    (5.0,)
    """
    costs, _ = candidate.points(weights)
    mixture, _ = _mixture(reference.points(weights)[0], costs)
    gains = [ours - mixture @ theirs for ours, theirs in zip(candidate.accuracy, reference.accuracy, strict=True)]
    lost = _UNREACHED * _too_long(reference, candidate, weights)
    means = weights @ np.stack([values.mean(axis=1) for values in gains]) - lost
    return Gain(tuple(float(value) for value in means), tuple(values.mean(axis=0) - lost for values in gains), weights)


def _too_long(reference: Curve, candidate: Curve, weights: NDArray[np.float64]) -> float:
    """By how many e-folds a candidate's chain is longer than it is held to, the mean over its budgets."""
    if not reference.bound:
        return 0.0
    return float(np.maximum(0.0, np.log(candidate.chains(weights) / reference.held_to(weights))).mean())


def _disorder(tokens: NDArray[np.float64]) -> float:
    """By how many e-folds tokens fall from one budget to the next, in all; a fall of up to 5 % is let pass."""
    falls = np.log(np.maximum(tokens[:-1], 1.0) / np.maximum(tokens[1:], 1.0))
    return float(np.maximum(0.0, falls - _LET_PASS).sum())


def _mixture(
    tokens: NDArray[np.float64], costs: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """How budgets of `tokens` are mixed to cost `costs`, (costs, budgets); and by how many e-folds each is missed."""
    order = np.argsort(tokens, kind="stable")
    at = np.maximum(tokens[order], 1.0)
    mixture = np.empty((len(costs), len(at)))
    for place, budget in enumerate(order):
        mixture[:, budget] = np.interp(costs, at, np.eye(len(at))[place])
    return mixture, np.maximum(0.0, np.log(at[0] / np.maximum(costs, 1.0)))
