"""Intervals that are never empty or NaN, and frontiers that nothing beats."""

from __future__ import annotations

import random
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tts_generate.errors import InputError
from tts_generate.evaluate import Row, Sweep, accuracy_interval, methods, sweep
from tts_generate.loading import builtin_controllers, load_controller
from tts_generate.replay import replay
from tts_generate.statistics import (
    compare,
    compare_samples,
    frontier,
    mean_interval,
    mean_of_samples_interval,
    ratio_interval,
)
from tts_generate.testing import random_trajectories, recording_of


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
    assert (low, high) == pytest.approx((exact.low, exact.high), rel=1e-9)
    assert high - low > 0.3


@pytest.mark.parametrize(("share", "count"), [(0.73, 1), (0.5, 2), (0.25, 12)])
def test_equal_shares_of_few_questions_are_not_certain(share: float, count: int) -> None:
    """One question at 73 % over its orders had an interval from 73 to 73 %."""
    low, high = mean_interval([share] * count)
    assert 0 <= low < share - 0.1
    assert share + 0.1 < high <= 1
    if (share * count).is_integer():
        exact = stats.binomtest(round(share * count), count).proportion_ci(method="exact")
        assert (low, high) == pytest.approx((exact.low, exact.high))


def test_a_question_that_took_nothing_is_no_reason_to_lose_the_others() -> None:
    """One that ended in an error before its first token ended the metric of all that were paid for."""
    low, high = ratio_interval([1, 1, 0, 1], [100, 200, 0, 300])
    assert 0 < low <= 3 / 600 <= high < 1
    for of in ([0, 0], [1, -1]):
        with pytest.raises(InputError, match="not below 0 and not all 0"):
            ratio_interval([1, 1], of)


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


def test_a_recording_of_one_question_beside_others_has_an_interval() -> None:
    """The bug: scipy draws from two values or more, and a search of two stores ended in its ValueError."""
    one, others = np.array([0.5]), np.array([0.0, 1.0] * 20)
    low, high = mean_of_samples_interval([one, others])
    assert (low, high) == pytest.approx([(0.5 + end) / 2 for end in mean_interval(others)])
    gain, (low, high) = compare_samples([one, others], [np.zeros(1), np.zeros(40)])
    assert low < gain < high


def test_a_chain_is_its_own_controllers() -> None:
    """The bug: of two controllers with the same tokens and accuracy, either had the chain of the last."""
    rows = [
        Row(name, name, None, {}, 50.0, (40.0, 60.0), 100.0, 100.0, 0.0, 0.0, chain, 4.0, 1.0)
        for name, chain in (("side by side", 25.0), ("one by one", 100.0))
    ]
    told = Sweep((), tuple(rows)).frontiers("side by side")
    assert [told[row.label]["chain_at_baseline"] for row in rows] == [25.0, 100.0]


def test_recordings_of_one_name_and_two_steps_are_not_averaged() -> None:
    found = recording_of(random_trajectories(random.Random(0), 4))
    other = replace(found, interval_tokens=2 * found.interval_tokens)
    with pytest.raises(InputError, match="must have one step, got random recording 10, random recording 20"):
        sweep([found, other], methods(["asc"], [0.5], max_branches=4), 2)


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


@pytest.mark.parametrize("name", sorted(set(builtin_controllers()) - {"deepconf"}))
def test_every_controller_runs_on_few_branches(name: str) -> None:
    """A store of 16 branches, at every budget; deepconf reads log-probabilities, which this one has not."""
    recording = recording_of(random_trajectories(random.Random(3), 16))
    swept = sweep([recording], methods([name], [0.0, 0.5, 1.0], max_branches=16), 2, compiled=False)
    assert len(swept.average) == 3
    for beta in (0.0, 1.0):
        controller = load_controller(name, beta=beta)
        if controller.most_branches is not None:
            assert replay(
                recording_of(random_trajectories(random.Random(4), 64)), controller, shuffles=2
            ).opened.max() <= (controller.most_branches)


def test_what_counts_branches_is_held() -> None:
    labels = [m.label for m in methods(["parallel_probe", "answer_stability", "short_m_at_k"], [1.0], max_branches=16)]
    assert labels == [f"{name} β=1, num_chains=16" for name in ("parallel_probe", "answer_stability", "short_m_at_k")]
    assert load_controller("parallel_probe", beta=0.0).most_branches == 4
    assert load_controller("worth", n_init=9, max_branches=4).most_branches == 9  # one wave
