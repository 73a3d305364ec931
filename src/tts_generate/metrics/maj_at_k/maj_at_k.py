"""maj@k: how often the majority of k branches is right, exact over every way to draw them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from tts_generate.metrics.grading import Grader, budgets
from tts_generate.statistics import maj_at_k, mean_interval

_DESCRIPTION = """\
maj@k is the accuracy of the majority vote of k branches. It is computed exactly, as the mean over all ways to draw k of
the n predictions of a question, so that k may be less than n; answers that tie win equally often.
"""
_INPUTS = """\
Args:
    predictions: for each question a list of n texts: answers, or branches that state theirs in a box.
    references: for each question its answer.
    k: branches that vote, one number or several.
    votes: "math" (1/2 and 0.5 are one answer) or "equal" (texts).
Returns:
    maj@k for each k, a share in [0, 1], and its 95 % interval over questions as "maj@k_ci".
"""
_CITATION = "Wang et al., Self-Consistency Improves Chain of Thought Reasoning in Language Models, arXiv 2203.11171."


class MajAtK(evaluate.Metric):
    """maj@k by `evaluate`: `evaluate.load(metrics.path("maj_at_k"))`, or `MajAtK()`."""

    def _info(self) -> evaluate.MetricInfo:
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation=_CITATION,
            inputs_description=_INPUTS,
            features=datasets.Features(
                {"predictions": datasets.List(datasets.Value("string")), "references": datasets.Value("string")}
            ),
        )

    def _compute(
        self,
        predictions: Sequence[Sequence[str | None]],
        references: Sequence[str],
        k: int | Sequence[int] = 1,
        votes: str = "math",
    ) -> dict[str, Any]:
        grader = Grader(votes)
        asked = budgets(k, min(map(len, predictions), default=0))
        counts = [grader.count(list(row), gold) for row, gold in zip(predictions, references, strict=True)]
        told: dict[str, Any] = {}
        for each in asked:
            chances = [maj_at_k(right, wrong, blank, each) for right, wrong, blank in counts]
            told[f"maj@{each}"] = float(np.mean(chances))
            told[f"maj@{each}_ci"] = list(mean_interval(chances))
        return told
