"""Accuracy and tokens of controllers on recordings: sweeps over beta, against named baselines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import held_to
from tts_generate.errors import InputError
from tts_generate.loading import Trust, load_controller
from tts_generate.recorded.recording import fewest_branches
from tts_generate.recorded.run import worth_compiling
from tts_generate.replay import Recording, ReplayResult, replay
from tts_generate.statistics import (
    area_under,
    compare_samples,
    frontier,
    mean_interval,
    mean_of_samples_interval,
    pass_at_k,
    saving,
    tokens_at,
)
from tts_generate.tracking import Compared

NUMBERS = (
    "accuracy", "tokens", "generated_tokens", "probe_tokens", "wasted_tokens", "sequential_tokens", "branches", "rounds"
)  # fmt: skip
"""Of a row: percent, and means a question."""
_COUNTED = ("generated_tokens", "probe_tokens", "wasted_tokens", "sequential_tokens", "rounds")
BETAS = tuple(k / 10 for k in range(11))
"""The budgets of a curve."""
CMC_BETAS = (0.0, 0.2, 0.5, 0.8, 1.0)
"""The budgets of CMC that found controllers are shown beside; those of its authors."""


@dataclass(frozen=True)
class Method:
    """A controller at one budget, as one row of a sweep."""

    label: str
    controller: str
    beta: float | None = None
    knobs: Mapping[str, Any] = field(default_factory=dict)
    trust_remote_code: Trust = False
    sandbox: bool = False
    """Run its code where it can reach nothing; see `load_controller`."""

    @classmethod
    def at(
        cls, controller: str | Path, beta: float, branches: int | None = None, *, name: str | None = None, **how: Any
    ) -> Method:
        """A controller at a budget, opening no more than `branches`; `how` as in `load_controller`, trust and sandbox.

        >>> Method.at("self_consistency", 1.0, 16).knobs
        {'max_samples': 16}
        """
        usual = load_controller(controller, beta=beta, **how)
        held = held_to(usual.knobs, branches) if branches else {}
        return cls(f"{name or controller} β={beta:g}", str(controller), beta, held, **how)


@dataclass(frozen=True)
class Row:
    """What a method does on one recording; tokens are means per question."""

    label: str
    controller: str
    beta: float | None
    """None where a knob was set by hand and no budget was given."""
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
    sequential_tokens: float
    """Longest chain of dependent decoding: what the question takes with any number of rows."""
    branches: float
    rounds: float
    against: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By baseline: `points` of accuracy over it, paired by question, with their 95 % interval `points_ci`, and the
    share of its tokens that is saved, `saving`."""


@dataclass(frozen=True)
class Cell:
    """Every method on one recording."""

    recording: Recording
    rows: tuple[Row, ...]
    results: tuple[ReplayResult, ...]


@dataclass(frozen=True)
class Sweep:
    """Every method on every recording, and on their average."""

    cells: tuple[Cell, ...]
    average: tuple[Row, ...]

    def frontiers(self, baseline: str) -> dict[str, dict[str, Any]]:
        """Of each controller on the average: its frontier over beta, and what that is worth.

        `area` is the mean accuracy of the frontier over the logarithm of tokens, from the fewest that every controller
        can be held to, up to the baseline's; `tokens_at_baseline` the tokens at which the controller has the
        baseline's accuracy, None if it never has, `saving_at_baseline` the share of its tokens that saves, and
        `chain_at_baseline` the longest chain of tokens there.
        """
        reference = next(row for row in self.average if row.label == baseline)
        points: dict[str, list[tuple[float, float]]] = {}
        chains: dict[str, dict[tuple[float, float], float]] = {}
        for row in self.average:
            name, point = row.label if row.beta is None else row.controller, (row.tokens, row.accuracy)
            points.setdefault(name, []).append(point)
            known = chains.setdefault(name, {})
            known[point] = min(row.sequential_tokens, known.get(point, row.sequential_tokens))
        swept = [found for name, found in points.items() if name != baseline]
        low = max((min(tokens for tokens, _ in found) for found in swept), default=reference.tokens)
        told = {}
        for name, found in points.items():
            tokens, best, chain = tokens_at(found, reference.accuracy), frontier(found), chains[name]
            mixed = None if tokens is None else np.interp(tokens, [at for at, _ in best], [chain[at] for at in best])
            told[name] = {
                "points": [list(point) for point in best],
                "chain_at_baseline": None if mixed is None else float(mixed),
                "area": area_under(found, low, reference.tokens),
                "tokens_at_baseline": tokens,
                "saving_at_baseline": None if tokens is None else saving(tokens, reference.tokens),
            }
        return told


def methods(
    controllers: Sequence[str],
    betas: Sequence[float],
    trust_remote_code: Trust = False,
    max_branches: int | None = None,
) -> list[Method]:
    """Every controller at every beta.

    Args:
        controllers: names, folders, Hub repos or published files.
        betas: budgets.
        trust_remote_code: as in `load_controller`.
        max_branches: the branches that were recorded. A controller whose knobs count more is held to as many, which
            its label says.

    >>> [method.label for method in methods(["asc", "cmc"], [0, 0.5])]
    ['asc β=0', 'asc β=0.5', 'cmc β=0', 'cmc β=0.5']
    >>> [method.label for method in methods(["self_consistency"], [0, 1], max_branches=16)]
    ['self_consistency β=0', 'self_consistency β=1, max_samples=16']
    """
    if not controllers or not betas:
        raise InputError("there is nothing to compare; name at least one controller, and one beta.")
    found = [
        Method.at(name, beta, max_branches, trust_remote_code=trust_remote_code)
        for name in controllers
        for beta in betas
    ]
    return [replace(m, label=", ".join([m.label, *(f"{k}={v}" for k, v in m.knobs.items())])) for m in found]


def baselines(branches: int) -> list[Method]:
    """Self-consistency and adaptive consistency of 64 branches, or of as many as there are.

    >>> [method.label for method in baselines(64)]
    ['SC@64', 'ASC@64']
    """
    count = min(64, branches)
    return [
        Method(f"{label}@{count}", name, None, {"max_samples": count})
        for label, name in (("SC", "self_consistency"), ("ASC", "asc"))
    ]


def evaluate_method(
    recording: Recording, method: Method, shuffles: int, *, compiled: bool | None = None, threads: int | None = None
) -> tuple[Row, ReplayResult]:
    """Replay one method; the interval is over questions, each question's accuracy being its mean over shuffles."""
    controller = load_controller(
        method.controller,
        beta=method.beta,
        trust_remote_code=method.trust_remote_code,
        sandbox=method.sandbox,
        **method.knobs,
    )
    result = replay(recording, controller, shuffles=shuffles, compiled=compiled, threads=threads)
    low, high = mean_interval(by_question(result))
    means: dict[str, Any] = {name: float(getattr(result, name).mean()) for name in _COUNTED}
    row = Row(
        label=method.label,
        controller=method.controller,
        beta=method.beta if method.knobs else controller.beta,
        knobs=dict(controller.knobs),
        accuracy=100 * result.accuracy,
        accuracy_ci=(100 * low, 100 * high),
        tokens=result.tokens,
        branches=float(result.opened.mean()),
        **means,
    )
    return row, result


def by_question(result: ReplayResult) -> NDArray[np.float64]:
    """Each question's accuracy, its mean over shuffles, 0 to 1."""
    return np.asarray(result.correct.mean(axis=0), np.float64)


def sweep(
    recordings: Sequence[Recording],
    chosen: Sequence[Method],
    shuffles: int,
    *,
    against: Sequence[Method] = (),
    compiled: bool | None = None,
    threads: int | None = None,
    progress: bool = False,
    weights: Sequence[float] | None = None,
) -> Sweep:
    """Replay every method on every recording, and compare each with the baselines `against`.

    Args:
        recordings: what to replay on; all of one `interval_tokens`.
        chosen: the methods; baselines are put before them.
        shuffles: orders of the branches, see `replay`.
        against: the baselines.
        compiled: see `replay`; None: where the whole sweep makes it worth while.
        threads: see `replay`.
        progress: show a bar over the methods of each recording, with what the best so far saves of the first baseline.
        weights: how much each recording counts in the average, 1 in all; the same if left out.

    Raises:
        InputError: recordings with different steps, or none.
    """
    intervals = [(recording.name, recording.interval_tokens) for recording in recordings]  # names may be equal
    if len({interval for _, interval in intervals}) != 1:
        told = ", ".join(f"{name} {interval}" for name, interval in intervals) or "no recording"
        raise InputError(
            f"recordings of one sweep must have one step, got {told}: controllers count in steps, so their averages "
            "would mean nothing. Sweep them apart."
        )
    everything = [*against, *chosen]
    if compiled is None:
        of_one = max((sum(m.controller == n.controller for m in everything) for n in everything), default=0)
        episodes = sum(len(recording.questions) for recording in recordings) * max(1, shuffles)
        compiled = worth_compiling(episodes * of_one) or None
    cells = []
    for recording in recordings:
        done = []
        with Compared(len(everything), recording.name, shown=progress) as bar:
            for method in everything:
                done.append(evaluate_method(recording, method, shuffles, compiled=compiled, threads=threads))
                bar.add(method.label, done[-1][0].accuracy, done[-1][0].tokens)
        rows, results = tuple(row for row, _ in done), tuple(result for _, result in done)
        samples = [[by_question(result)] for result in results]
        cells.append(Cell(recording, _compared(rows, samples, len(against)), results))
    counts = np.full(len(cells), 1.0) if weights is None else len(cells) * np.asarray(weights)
    samples = [
        [w * by_question(c.results[m]) for w, c in zip(counts, cells, strict=True)] for m in range(len(everything))
    ]
    average = tuple(_average([cell.rows[m] for cell in cells], samples[m], counts) for m in range(len(everything)))
    return Sweep(tuple(cells), _compared(average, samples, len(against)))


def _average(rows: Sequence[Row], samples: Sequence[NDArray[np.float64]], counts: NDArray[np.float64]) -> Row:
    """One method over its recordings, by how much each counts, in the mean 1; `samples` are so already."""
    low, high = mean_of_samples_interval(samples)
    means: dict[str, Any] = {name: float(np.mean([getattr(row, name) for row in rows] * counts)) for name in NUMBERS}
    first = rows[0]
    return Row(first.label, first.controller, first.beta, first.knobs, accuracy_ci=(100 * low, 100 * high), **means)


def _compared(
    rows: Sequence[Row], samples: Sequence[Sequence[NDArray[np.float64]]], references: int
) -> tuple[Row, ...]:
    """The rows with their comparison against the first `references` of them."""
    told = []
    for row, mine in zip(rows, samples, strict=True):
        found = {}
        for reference, theirs in zip(rows[:references], samples[:references], strict=True):
            points = compare_samples(mine, theirs)
            found[reference.label] = {
                "points": 100 * points[0],
                "points_ci": [100 * points[1][0], 100 * points[1][1]],
                "saving": saving(row.tokens, reference.tokens),
            }
        told.append(replace(row, against=found))
    return tuple(told)


def at_k(recording: Recording, ks: Sequence[int], shuffles: int) -> dict[str, float]:
    """pass@k, maj@k and avg@k of a recording, percent.

    pass@k: at least one of k branches is right; maj@k: the majority of k is, over `shuffles` orders; avg@k: a single
    branch is, on average over k, which does not depend on k but for its spread.

    Raises:
        InputError: k outside 1 to the branches recorded.
    """
    told: dict[str, float] = {}
    fewest = fewest_branches([recording])
    right = [(int(branches.sum()), len(branches)) for branches in recording.right]
    for k in ks:
        if not 1 <= k <= fewest:
            raise InputError(f"k must be from 1 to the {fewest} branches recorded, got {k}.")
        told[f"pass@{k}"] = 100 * float(np.mean([pass_at_k(count, of, k) for count, of in right]))
        told[f"maj@{k}"] = 100 * replay(recording, "self_consistency", shuffles=shuffles, max_samples=k).accuracy
        told[f"avg@{k}"] = 100 * float(np.mean([count / of for count, of in right]))
    return told


def as_dict(row: Row) -> dict[str, Any]:
    """A row as plain JSON values."""
    return {**asdict(row), "accuracy_ci": list(row.accuracy_ci)}


def accuracy_interval(correct: NDArray[np.bool_]) -> tuple[float, float]:
    """The interval of a live run's accuracy, one answer a question, 0 to 1."""
    return mean_interval(correct.astype(np.float64))
