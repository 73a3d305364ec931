"""Accuracy and what it took: tokens by kind, tokens per correct answer, and the saving against a baseline."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import evaluate
import numpy as np
from numpy.typing import NDArray

from tts_generate.errors import InputError
from tts_generate.metrics.grading import Grader
from tts_generate.statistics import compare, mean_interval, ratio_interval, saving

_DESCRIPTION = """\
Accuracy of test-time scaling beside its cost. Tokens are counted by kind: those of the prompt, those generated, those
of probes, and of the generated ones the part wasted on branches that were given up. Intervals are 95 %, bootstrapped
over questions; comparisons with a baseline are paired by question.
"""
_INPUTS = """\
Args:
    predictions: the answer to each question, or text that states it in a box.
    references: the right answer to each question.
    prompt_tokens, generated_tokens, probe_tokens, wasted_tokens: of each question, as in the cost of
        `generate(strategy="autotts")`.
    baseline: the same questions answered another way: {"tokens": [...], "correct": [...]}, as "by_question" of an
        earlier result has them.
    votes: "math" (1/2 and 0.5 are one answer) or "equal" (texts).
Returns:
    accuracy; tokens (generated and probe tokens a question) and those of each kind; tokens_per_correct, None if nothing
    is right; each of the first three with "_ci"; with a baseline saving and points over it, with "_ci"; by_question.
"""
_CITATION = "AutoTTS, arXiv 2605.08083."
_KINDS = ("prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens")


class TtsAccuracyCost(evaluate.Metric):
    """Accuracy and tokens by `evaluate`: `evaluate.load(metrics.path("tts_accuracy_cost"))`, or `TtsAccuracyCost()`."""

    def _info(self) -> evaluate.MetricInfo:
        text, number = datasets.Value("string"), datasets.Value("int64")
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features({"predictions": text, "references": text, **dict.fromkeys(_KINDS, number)}),
        )

    def compute(self, *, predictions: Sequence[str | None] | None = None, **given: Any) -> Any:
        """As every metric's; a question may be without an answer, which `evaluate` does not take for a text."""
        texts = None if predictions is None else ["" if each is None else each for each in predictions]
        return super().compute(predictions=texts, **given)

    def _compute(
        self,
        predictions: Sequence[str | None],
        references: Sequence[str],
        baseline: Mapping[str, Sequence[float]] | None = None,
        votes: str = "math",
        **kinds: Sequence[int],
    ) -> dict[str, Any]:
        grader = Grader(votes)
        right = np.array([grader.right(p, gold) for p, gold in zip(predictions, references, strict=True)], np.float64)
        counted = {name: np.asarray(kinds[name], np.int64) for name in _KINDS}
        tokens = counted["generated_tokens"] + counted["probe_tokens"]
        told: dict[str, Any] = {
            "accuracy": float(right.mean()),
            "accuracy_ci": list(mean_interval(right)),
            "tokens": float(tokens.mean()),
            "tokens_ci": list(mean_interval(tokens, shares=False)),
            **{name: float(values.mean()) for name, values in counted.items()},
            **_per_correct(tokens, right),
        }
        if baseline is not None:
            told |= _against(baseline, tokens, right)
        return {**told, "by_question": {"tokens": tokens.tolist(), "correct": right.tolist()}}


def _per_correct(tokens: NDArray[np.int64], right: NDArray[np.float64]) -> dict[str, Any]:
    """Tokens for each right answer; the interval is that of right answers a token, turned over."""
    if not right.any():
        return {"tokens_per_correct": None, "tokens_per_correct_ci": None}
    each = float(tokens.sum() / right.sum())
    if not tokens.all():  # a question whose time was up before its first token: no ratio to resample
        return {"tokens_per_correct": each, "tokens_per_correct_ci": None}
    low, high = ratio_interval(right, tokens)
    return {"tokens_per_correct": each, "tokens_per_correct_ci": [1 / high, 1 / low if low else float("inf")]}


def paired(baseline: Mapping[str, Sequence[float]], count: int) -> dict[str, NDArray[np.float64]]:
    """A baseline's tokens and correct of the same `count` questions.

    Raises:
        InputError: it is of others, or holds something else.
    """
    try:
        theirs = {name: np.asarray(baseline[name], np.float64) for name in ("tokens", "correct")}
    except (KeyError, TypeError, ValueError, IndexError):
        theirs = {}
    of_these = theirs and set(baseline) == set(theirs) and all(each.shape == (count,) for each in theirs.values())
    if not (of_these and (theirs["tokens"] > 0).all() and np.isfinite([*theirs.values()]).all()):
        raise InputError(
            f"baseline must hold tokens and correct of the same {count} questions, numbers, and of tokens one or more "
            f"each, got {baseline!r:.200}; pass the by_question of an earlier result."
        )
    return theirs


def _against(
    baseline: Mapping[str, Sequence[float]], tokens: NDArray[np.int64], right: NDArray[np.float64]
) -> dict[str, Any]:
    """The saving and the points over a baseline, paired by question."""
    theirs = paired(baseline, len(tokens))
    low, high = ratio_interval(tokens, theirs["tokens"])
    points, interval = compare(right, theirs["correct"])
    return {
        "saving": saving(float(tokens.sum()), float(theirs["tokens"].sum())),
        "saving_ci": [1 - high, 1 - low],
        "points": 100 * points,
        "points_ci": [100 * bound for bound in interval],
    }
