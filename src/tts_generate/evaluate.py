"""Accuracy and tokens of controllers, with intervals: sweeps over beta, frontiers, comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from tts_generate.errors import InputError
from tts_generate.loading import load_controller
from tts_generate.replay import Recording, ReplayResult, replay

_RESAMPLES = 2000
_SEED = 0


@dataclass(frozen=True)
class Method:
    """A controller at one budget, as one row of a sweep."""

    label: str
    controller: str
    beta: float | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    trust_remote_code: bool = False


@dataclass(frozen=True)
class Row:
    """What a method does on one recording; tokens are means per question."""

    label: str
    controller: str
    beta: float | None
    knobs: dict[str, Any]
    accuracy: float
    """Percent."""
    accuracy_ci: tuple[float, float]
    """95 % interval of the accuracy over questions, percent."""
    tokens: float
    """Generated and probe tokens; the prompt costs every method the same."""
    generated_tokens: float
    probe_tokens: float
    wasted_tokens: float
    branches: float
    rounds: float


def mean_interval(values: ArrayLike, *, confidence: float = 0.95) -> tuple[float, float]:
    """A bootstrap interval of the mean of `values`, resampled whole (give one value a question).

    Percentile bootstrap of scipy with a fixed seed. A sample without spread shows no width by resampling; for
    shares in [0, 1] the exact Clopper-Pearson bound is returned instead: 40 right of 40 is not "100 % to 100 %".

    >>> mean_interval([0.0, 1.0] * 20)
    (0.35, 0.65)
    >>> [round(bound, 3) for bound in mean_interval([1.0] * 40)]
    [0.912, 1.0]
    """
    sample = np.asarray(values, np.float64)
    if sample.ndim != 1 or sample.size == 0:
        raise InputError(f"an interval needs a list of at least one value, got shape {sample.shape}.")
    if np.ptp(sample) == 0:
        mean = float(sample[0])
        if mean not in (0.0, 1.0):
            return mean, mean
        exact = stats.binomtest(int(mean * sample.size), sample.size).proportion_ci(confidence, method="exact")
        return float(exact.low), float(exact.high)
    found = stats.bootstrap(
        (sample,),
        np.mean,
        n_resamples=_RESAMPLES,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return float(found.low), float(found.high)


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


def evaluate_method(recording: Recording, method: Method, shuffles: int) -> tuple[Row, ReplayResult]:
    """Replay one method; the interval is over questions, each question's accuracy being its mean over shuffles."""
    controller = load_controller(
        method.controller, beta=method.beta, trust_remote_code=method.trust_remote_code, **method.knobs
    )
    result = replay(recording, controller, shuffles=shuffles)
    low, high = mean_interval(result.correct.mean(axis=0))
    row = Row(
        label=method.label,
        controller=method.controller,
        beta=controller.beta,
        knobs=dict(controller.knobs),
        accuracy=100 * result.accuracy,
        accuracy_ci=(100 * low, 100 * high),
        tokens=result.tokens,
        generated_tokens=float(result.generated_tokens.mean()),
        probe_tokens=float(result.probe_tokens.mean()),
        wasted_tokens=float(result.wasted_tokens.mean()),
        branches=float(result.opened.mean()),
        rounds=float(result.rounds.mean()),
    )
    return row, result


def methods(controllers: Sequence[str], betas: Sequence[float], trust_remote_code: bool = False) -> list[Method]:
    """Every controller at every beta.

    >>> [method.label for method in methods(["asc", "cmc"], [0, 0.5])]
    ['asc β=0', 'asc β=0.5', 'cmc β=0', 'cmc β=0.5']
    """
    return [
        Method(f"{name} β={beta:g}", name, beta, trust_remote_code=trust_remote_code)
        for name in controllers
        for beta in betas
    ]


def average(cells: Sequence[Sequence[Row]]) -> list[dict[str, Any]]:
    """Rows averaged over recordings, method by method: accuracy and tokens (intervals stay with the cells)."""
    rows = []
    for same in zip(*cells, strict=True):
        numbers = ("accuracy", "tokens", "generated_tokens", "probe_tokens", "wasted_tokens", "branches", "rounds")
        means = {name: float(np.mean([getattr(row, name) for row in same])) for name in numbers}
        first = same[0]
        rows.append({"label": first.label, "controller": first.controller, "beta": first.beta, **means})
    return rows


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


def as_dict(row: Row) -> dict[str, Any]:
    """A row as plain JSON values."""
    return {**asdict(row), "accuracy_ci": list(row.accuracy_ci)}


def accuracy_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """The interval of a live run's accuracy, one answer a question, 0 to 1."""
    return mean_interval(correct.astype(np.float64))
