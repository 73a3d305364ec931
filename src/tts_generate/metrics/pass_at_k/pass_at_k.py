"""pass@k: how often at least one of k branches is right, unbiased."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import datasets
import evaluate
import numpy as np

from tts_generate.metrics.grading import Grader, budgets
from tts_generate.statistics import mean_interval, pass_at_k

_DESCRIPTION = """\
pass@k is the chance that at least one of k branches is right, estimated without bias from n >= k predictions of each
question: 1 - C(n - c, k) / C(n, k), where c of them are right.
"""
_INPUTS = """\
Args:
    predictions: for each question a list of n texts: answers, or branches that state theirs in a box.
    references: for each question its answer.
    k: branches drawn, one number or several.
    votes: "math" (1/2 and 0.5 are one answer) or "equal" (texts).
Returns:
    pass@k for each k, a share in [0, 1], and its 95 % interval over questions as "pass@k_ci".
"""
_CITATION = "Chen et al., Evaluating Large Language Models Trained on Code, arXiv 2107.03374."


class PassAtK(evaluate.Metric):
    """pass@k by `evaluate`: `evaluate.load(metrics.path("pass_at_k"))`, or `PassAtK()`."""

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
        rights = [
            (sum(grader.right(each, gold) for each in row), len(row))
            for row, gold in zip(predictions, references, strict=True)
        ]
        told: dict[str, Any] = {}
        for each in asked:
            chances = [pass_at_k(right, of, each) for right, of in rights]
            told[f"pass@{each}"] = float(np.mean(chances))
            told[f"pass@{each}_ci"] = list(mean_interval(chances))
        return told
