"""What is said about accuracy and tokens: intervals, paired comparisons, frontiers, and the metrics at k."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tts_generate.errors import InputError

_RESAMPLES = 2000
_SEED = 0
Point = tuple[float, float]
"""(tokens, accuracy)."""


def mean_interval(values: ArrayLike, *, shares: bool = True) -> tuple[float, float]:
    """A 95 % bootstrap interval of the mean of `values`, resampled whole (give one value a question).

    Percentile bootstrap of scipy with a fixed seed. A sample without spread shows no width by resampling; for
    shares in [0, 1] the exact Clopper-Pearson bound is returned instead: 40 right of 40 is not "100 % to 100 %". Shares
    in between vary no more than right and wrong of the same mean, so that its bound holds for them too.

    Args:
        values: of each question.
        shares: whether they are shares; numbers of tokens that are all 1 are no certainty of anything.

    >>> mean_interval([0.0, 1.0] * 20), mean_interval([1, 1, 1], shares=False)
    ((0.35, 0.65), (1.0, 1.0))
    >>> [round(bound, 3) for bound in mean_interval([1.0] * 40)]
    [0.912, 1.0]
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise InputError(f"an interval needs a list of at least one value, got shape {sample.shape}.")
    if np.ptp(sample) == 0:
        mean = float(sample[0])
        return _exact(mean, sample.size) if shares else (mean, mean)
    return _bootstrap((sample,), np.mean)


def _exact(share: float, count: int) -> tuple[float, float]:
    """Clopper-Pearson bounds of a share of so many."""
    from scipy import stats  # also in `_bootstrap`: its half a second is not for who only answers

    right = min(max(share, 0.0), 1.0) * count
    low = stats.beta.ppf(0.025, right, count - right + 1) if right > 0 else 0.0
    high = stats.beta.ppf(0.975, right + 1, count - right) if right < count else 1.0
    return float(low), float(high)


def _bootstrap(samples: Sequence[NDArray[np.float64]], statistic: Any, **options: Any) -> tuple[float, float]:
    from scipy import stats

    how: dict[str, Any] = {"n_resamples": _RESAMPLES, "method": "percentile", "rng": np.random.default_rng(_SEED)}
    found = stats.bootstrap(samples, statistic, **how, **options).confidence_interval
    return float(found.low), float(found.high)


def ratio_interval(parts: ArrayLike, of: ArrayLike) -> tuple[float, float]:
    """A bootstrap interval of `sum(parts) / sum(of)`, pairs resampled whole (give one pair a question).

    >>> ratio_interval([1, 2, 3], [2, 4, 6])
    (0.5, 0.5)
    """
    over, under = np.asarray(parts, np.float64), np.asarray(of, np.float64)
    if over.ndim != 1 or over.size == 0 or over.shape != under.shape or not ((under >= 0).all() and under.any()):
        raise InputError(
            f"a ratio needs two lists of one length, the second not below 0 and not all 0, got shapes {over.shape} and "
            f"{under.shape}."
        )
    if over.size == 1:
        return float(over[0] / under[0]), float(over[0] / under[0])
    least = under[under > 0].min()  # for the rare draw of nothing but questions that took nothing
    shares = (over, under), lambda parts, of, axis=-1: parts.sum(axis) / np.maximum(of.sum(axis), least)
    return _bootstrap(*shares, paired=True)


def compare(ours: ArrayLike, baseline: ArrayLike) -> tuple[float, tuple[float, float]]:
    """Mean difference `ours - baseline` over the same questions, with its paired bootstrap interval.

    >>> compare([1.0, 1.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0])
    (0.25, (0.0, 0.75))
    """
    difference = np.asarray(ours, np.float64) - np.asarray(baseline, np.float64)
    if np.ptp(difference) == 0:
        return float(difference[0]), (float(difference[0]), float(difference[0]))
    return float(difference.mean()), mean_interval(difference)


def saving(tokens: float, baseline: float) -> float:
    """The share of the baseline's tokens that is not spent.

    >>> saving(300, 1000)
    0.7
    """
    return 1.0 - tokens / baseline


def frontier(points: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """The points (tokens, accuracy) that no other beats: none has fewer tokens and at least the accuracy.

    >>> frontier([(10, 50.0), (20, 49.0), (30, 60.0)])
    [(10, 50.0), (30, 60.0)]
    """
    best: list[tuple[float, float]] = []
    for tokens, accuracy in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or accuracy > best[-1][1]:
            best.append((tokens, accuracy))
    return best


def area_under(points: Iterable[Point], low: float, high: float) -> float | None:
    """Mean accuracy of the best point so far, over the logarithm of tokens from `low` to `high`; None if that is empty.

    >>> round(area_under([(10, 50.0), (100, 70.0)], 10, 1000), 9)
    60.0
    """
    best = frontier(points)
    if not best or best[0][0] > low or low >= high:
        return None
    edges = [low, *(tokens for tokens, _ in best if low < tokens < high), high]
    heights = [max(a for t, a in best if t <= edge) for edge in edges[:-1]]
    widths = np.diff(np.log(edges))
    return float(np.dot(heights, widths) / widths.sum())


def tokens_at(points: Iterable[Point], accuracy: float) -> float | None:
    """Fewest tokens at which a frontier has `accuracy`; None where it never has.

    Between two points of it lies what a mixture of both budgets does, question by question at random.

    >>> tokens_at([(10, 50.0), (100, 70.0)], 60)
    55.0
    """
    best = frontier(points)
    for (tokens, reached), before in zip(best, [None, *best], strict=False):
        if reached >= accuracy:
            if before is None:
                return tokens
            share = (accuracy - before[1]) / (reached - before[1])
            return before[0] + share * (tokens - before[0])
    return None


def pass_at_k(right: int, of: int, k: int) -> float:
    """The chance that at least one of `k` branches is right, unbiased from `right` of `of` recorded ones.

    Source: Chen et al., "Evaluating Large Language Models Trained on Code" (arXiv 2107.03374).

    >>> round(pass_at_k(1, 4, 2), 3)
    0.5
    """
    if not 1 <= k <= of:
        raise InputError(f"pass@k needs 1 <= k <= {of} recorded branches, got k={k}.")
    return 1.0 - math.comb(of - right, k) / math.comb(of, k)


def maj_at_k(right: int, wrong: Sequence[int], blank: int, k: int) -> float:
    """The chance that the majority of `k` branches is right, exact over every way to draw them from the recorded ones.

    Several answers with the top count win equally often; branches without an answer cast no vote.

    Args:
        right: recorded branches with the right answer.
        wrong: how many have each of the wrong answers.
        blank: how many have none.
        k: branches drawn, 1 to all.

    >>> maj_at_k(2, [1], 0, 2), maj_at_k(2, [1], 0, 3)
    (0.6666666666666666, 1.0)
    >>> maj_at_k(3, [1, 1], 2, 1) == 3 / 7
    True
    """
    of = right + sum(wrong) + blank
    if not 1 <= k <= of:
        raise InputError(f"maj@k needs 1 <= k <= {of} recorded branches, got k={k}.")
    chance = 0.0
    for most in range(1, min(right, k) + 1):
        ways = math.comb(right, most)
        for ties, others in enumerate(_below(wrong, blank, most, k - most)):
            chance += ways * others / ((ties + 1) * math.comb(of, k))
    return chance


def _below(wrong: Sequence[int], blank: int, most: int, draw: int) -> list[int]:
    """Ways to draw `draw` branches that are not right, no answer over `most` times, by how many are drawn so often."""
    ways = [[1] + [0] * draw]  # by ties, by branches drawn
    for count in wrong:
        grown = [[0] * (draw + 1) for _ in range(len(ways) + 1)]
        for ties, row in enumerate(ways):
            for drawn, before in enumerate(row):
                for more in range(min(count, most, draw - drawn) + 1 if before else 0):
                    grown[ties + (more == most)][drawn + more] += before * math.comb(count, more)
        ways = [row for row in grown if any(row)]
    return [sum(row[draw - none] * math.comb(blank, none) for none in range(min(blank, draw) + 1)) for row in ways]


def mean_of_samples_interval(samples: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The interval of the mean of several recordings' means, each resampled by question.

    Samples of one length are the same questions asked of several models, and are resampled together. Of other samples
    one of a single question stays as it is: there is nothing to draw.

    >>> mean_of_samples_interval([np.array([0.0, 1.0] * 20), np.array([0.0, 1.0] * 20)])
    (0.35, 0.65)
    """
    if len({len(sample) for sample in samples}) == 1:
        return mean_interval(np.mean(samples, axis=0))
    several, alone = [s for s in samples if len(s) > 1], sum(float(s[0]) for s in samples if len(s) == 1)
    return _bootstrap(
        several, lambda *drawn, axis=-1: (alone + sum(np.mean(s, axis=axis) for s in drawn)) / len(samples)
    )


def gain_interval(gains: Sequence[NDArray[np.float64]]) -> tuple[float, float]:
    """The interval of the mean gain over several recordings: of points, not of shares, so 0 throughout has no width.

    >>> gain_interval([np.zeros(12)]), gain_interval([np.ones(12), np.ones(3)])
    ((0.0, 0.0), (1.0, 1.0))
    """
    return compare_samples(gains, [np.zeros(len(gain)) for gain in gains])[1]


def compare_samples(
    ours: Sequence[NDArray[np.float64]], baseline: Sequence[NDArray[np.float64]]
) -> tuple[float, tuple[float, float]]:
    """`compare` over several recordings, each counting the same: the mean of their differences, with its interval.

    Where every question differs by as much there is nothing to resample, and the interval has no width.

    >>> same = [np.array([0.0, 1.0]), np.array([1.0, 1.0])]
    >>> compare_samples(same, same)
    (0.0, (0.0, 0.0))
    """
    if len(ours) == 1:
        return compare(ours[0], baseline[0])
    differences = [np.asarray(a - b) for a, b in zip(ours, baseline, strict=True)]
    mean = float(np.mean([difference.mean() for difference in differences]))
    alike = len({len(difference) for difference in differences}) == 1
    if np.ptp(np.mean(differences, axis=0) if alike else np.concatenate(differences)) == 0:
        return mean, (mean, mean)
    return mean, mean_of_samples_interval(differences)
