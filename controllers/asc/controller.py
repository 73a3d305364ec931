"""Adaptive consistency: read one branch after the other until the majority is unlikely to change.

Source: Aggarwal et al., "Let's Sample Step by Step" (arXiv 2305.11860), and its stopping criteria by their names there.
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import TO_END, Decision, State
from tts_generate.votes import confidence, tally


class ASC(Controller):
    """Reads branches to their end one at a time, until the majority is sure enough: `criterion` above `threshold`."""

    probing = "never"

    max_samples: int
    """Branches at most (1 or more)."""
    threshold: float
    """How sure the majority must be before reading stops (0 to 1)."""
    criterion: Literal["beta", "dirichlet", "entropy", "majority"]
    """How sure a majority is: the posterior probability that the leader beats the runner-up (beta) or every other
    answer (dirichlet); 1 - entropy of the votes, in units of its maximum (entropy); its share of the votes (majority).
    """

    @staticmethod
    def schedule(beta: float) -> dict[str, float | str]:
        """4 branches at beta 0, 64 at beta 1; the published threshold and criterion throughout."""
        return {"max_samples": round(4 + 60 * beta), "threshold": 0.95, "criterion": "beta"}

    def begin(self, state: State, do: Decision) -> None:
        """Read the first branch."""
        do.open = 1
        do.open_steps = TO_END

    def review(self, state: State, do: Decision) -> None:
        """Stop when the vote is settled or the samples are spent, else read one more branch."""
        if (state.opened >= 2 and self._certainty(state) > self.threshold) or state.opened >= self.max_samples:
            do.stop = True
            do.answer = state.leader
        else:
            do.open = 1
            do.open_steps = TO_END

    def _certainty(self, state: State) -> float:
        if self.criterion == "beta":
            return confidence(state.leader_votes, state.runner_up_votes)
        votes = tally(state.pool, state.pooled)
        if len(votes) == 0:
            return 0.0
        if self.criterion == "majority":
            return state.leader_votes / state.pooled
        return 1.0 - normalised_entropy(votes) if self.criterion == "entropy" else leads(votes)


def normalised_entropy(votes: np.ndarray) -> float:
    """Entropy of the shares of `votes` over that of equal shares; 0 for one answer, 1 for a tie of all."""
    total, entropy = votes.sum(), 0.0
    for count in votes:
        entropy -= count / total * math.log(count / total)
    return entropy / math.log(max(2, len(votes)))


def leads(votes: np.ndarray) -> float:
    """Posterior probability that the answer with most votes is the most frequent one, under a uniform Dirichlet prior.

    P(X_1 > X_j for all j) of independent Gamma(votes + 1) variables: a sum over a fine grid of X_1.
    """
    leader = 0
    for k in range(len(votes)):
        if votes[k] > votes[leader]:
            leader = k
    shape = votes[leader] + 1
    step = (shape + 10.0 * math.sqrt(shape)) / 400
    probability = 0.0
    for n in range(1, 401):
        x = n * step
        density = math.exp((shape - 1) * math.log(x) - x - math.lgamma(shape))
        for k in range(len(votes)):
            if k != leader:
                density *= gamma_below(votes[k] + 1, x)
        probability += density * step
    return min(1.0, probability)


def gamma_below(shape: int, x: float) -> float:
    """P(Gamma(shape) < x) for a whole shape: one minus a Poisson sum."""
    term = math.exp(-x)
    rest = term
    for k in range(1, shape):
        term *= x / k
        rest += term
    return max(0.0, 1.0 - rest)
