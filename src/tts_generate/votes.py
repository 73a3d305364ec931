"""Majority, its confidence, and nothing else: the votes every controller is built from.

The functions are plain loops over small arrays so that numba can compile them together with a controller's hooks;
interpreted they are the oracle of the compiled ones.
"""

from __future__ import annotations

import itertools
import math

import numpy as np
from numpy.typing import NDArray

NO_ANSWER = -1
"""The answer id of a branch that has not shown an answer yet; it never gets a vote."""


def majority(answers: NDArray[np.int64], count: int) -> tuple[int, int, int]:
    """The most frequent of the first `count` answer ids; of several with the top count, the one that came first.

    Args:
        answers: answer ids, (at least `count`,) int64; `NO_ANSWER` casts no vote.
        count: how many of them vote, in order of entry.

    Returns:
        (winner, its votes, votes of the runner-up); `(NO_ANSWER, 0, 0)` when nobody votes.

    >>> majority(np.array([3, 5, 5, 3, 7]), 5)
    (3, 2, 2)
    >>> majority(np.array([-1, -1]), 2)
    (-1, 0, 0)
    """
    largest = -1
    for i in range(count):
        if answers[i] > largest:
            largest = answers[i]
    votes = np.zeros(largest + 1, np.int64)
    for i in range(count):
        if answers[i] >= 0:
            votes[answers[i]] += 1
    winner, first, second = -1, 0, 0
    for i in range(count):
        candidate = answers[i]
        if candidate < 0:
            continue
        share = votes[candidate]
        votes[candidate] = 0  # counted: later entries of the same answer are no runner-up
        if share > first:
            winner, first, second = candidate, share, first
        elif share > second:
            second = share
    return int(winner), int(first), int(second)


def tally(answers: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Votes of each different answer among the first `count`, in order of entry; `NO_ANSWER` casts none.

    >>> tally(np.array([3, 5, 5, -1, 7]), 5)
    array([1, 2, 1])
    """
    seen = np.empty(count, np.int64)
    votes = np.zeros(count, np.int64)
    different = 0
    for i in range(count):
        if answers[i] < 0:
            continue
        place = 0
        while place < different and seen[place] != answers[i]:
            place += 1
        if place == different:
            seen[place] = answers[i]
            different += 1
        votes[place] += 1
    return votes[:different]


def _tails(votes: int) -> NDArray[np.float64]:
    """P(at most `second` of `first + second + 1` fair coins fall heads), (votes + 1, votes + 1), rounded once."""
    tails = np.zeros((votes + 1, votes + 1))
    row = [1]  # of Pascal's triangle
    for trials in range(1, 2 * votes + 2):
        row = [1, *(a + b for a, b in itertools.pairwise(row)), 1]
        below = 0
        for second in range(min(trials, votes + 1)):
            below += row[second]
            if trials - 1 - second <= votes:
                tails[trials - 1 - second, second] = below / (1 << trials)
    return tails


_TABLED = 64
_TAILS = _tails(_TABLED)


def confidence(first: int, second: int) -> float:
    """The posterior probability that the leading answer beats the runner-up, under a uniform prior.

    `1 - BetaCDF(1/2; first + 1, second + 1)`, which for whole numbers is a binomial sum; 0 without votes. Tabled up to
    64 votes each, summed beyond (up to about 1,000). Source: adaptive consistency (arXiv 2305.11860), used by CMC
    (arXiv 2605.08083).

    >>> confidence(0, 0), confidence(1, 0), confidence(3, 3)
    (0.0, 0.75, 0.5)
    """
    if first == 0:
        return 0.0
    if first <= _TABLED and second <= _TABLED:
        return float(1.0 - _TAILS[first, second])
    trials = first + second + 1
    term = 0.5**trials
    tail = term
    for k in range(second):
        term *= (trials - k) / (k + 1.0)
        tail += term
    return 1.0 - tail


def weighted_confidence(first: float, second: float) -> float:
    """`confidence` for votes that weigh: the leader's weights and the runner-up's, summed, by a normal approximation.

    Of votes that weigh 1 it lies a little above `confidence`; 0 without votes.

    >>> round(weighted_confidence(4.5, 1.2), 3), round(weighted_confidence(4, 1), 3), round(confidence(4, 1), 3)
    (0.912, 0.905, 0.891)
    """
    if first <= 0.0:
        return 0.0
    return 1.0 - 0.5 * math.erfc((first - second) / math.sqrt(2.0 * (first + second + 0.25)))
