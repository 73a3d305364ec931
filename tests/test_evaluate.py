"""Intervals that are never empty or NaN, and frontiers that nothing beats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tts_generate.errors import InputError
from tts_generate.evaluate import accuracy_interval, methods
from tts_generate.statistics import compare, compare_samples, frontier, mean_interval


@settings(max_examples=30, deadline=None)
@given(st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0]), min_size=1, max_size=40))
def test_an_interval_holds_the_mean(values: list[float]) -> None:
    low, high = mean_interval(values)
    assert low <= np.mean(values) + 1e-12
    assert np.mean(values) <= high + 1e-12
    assert low >= min(values) or len(set(values)) == 1


@pytest.mark.parametrize("right", [0, 7])
def test_all_wrong_or_all_right_is_not_certain(right: int) -> None:
    low, high = accuracy_interval(np.arange(7) < right)
    exact = stats.binomtest(right, 7).proportion_ci(method="exact")
    assert (low, high) == (exact.low, exact.high)
    assert high - low > 0.3


def test_nothing_has_no_interval() -> None:
    with pytest.raises(InputError, match="at least one value"):
        mean_interval([])


def test_paired_comparison_is_tighter_than_two_apart() -> None:
    rng = np.random.default_rng(0)
    hard = rng.random(200)
    ours, baseline = (hard > 0.4).astype(float), (hard > 0.42).astype(float)
    difference, (low, high) = compare(ours, baseline)
    assert difference == pytest.approx((ours - baseline).mean())
    apart = np.diff(mean_interval(ours))[0] + np.diff(mean_interval(baseline))[0]
    assert high - low < apart / 2
    assert compare(ours, ours) == (0.0, (0.0, 0.0))


def test_a_method_differs_from_itself_by_nothing_on_several_recordings() -> None:
    """The bug: no difference at all was taken for a share of 0 of 30, whose exact interval goes up to 12 points."""
    rng = np.random.default_rng(0)
    for lengths in ((30, 30), (30, 12)):
        ours = [rng.random(length) for length in lengths]
        assert compare_samples(ours, ours) == (0.0, (0.0, 0.0))
    other = [np.roll(sample, 1) for sample in ours]
    gain, (low, high) = compare_samples(ours, other)
    assert low < gain < high


points = st.lists(st.tuples(st.integers(1, 50).map(float), st.integers(0, 50).map(float)), min_size=1, max_size=30)


@given(points)
def test_nothing_beats_a_point_of_the_frontier(found: list[tuple[float, float]]) -> None:
    best = frontier(found)
    for tokens, accuracy in best:
        assert not any(t <= tokens and a >= accuracy and (t, a) != (tokens, accuracy) for t, a in found)
    for tokens, accuracy in found:
        assert any(t <= tokens and a >= accuracy for t, a in best)


def test_methods_carry_trust() -> None:
    (only,) = methods(["cmc"], [0.5], trust_remote_code=True)
    assert (only.label, only.beta, only.trust_remote_code) == ("cmc β=0.5", 0.5, True)
