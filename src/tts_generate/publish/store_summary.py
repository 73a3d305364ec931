"""What a trajectory store holds, in numbers: counted from its rows, never from what was asked for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.answers import AnswerBook
from tts_generate.statistics import mean_interval
from tts_generate.trajectories import Manifest, Question, Trajectory
from tts_generate.votes import majority


def summarise(manifest: Manifest, questions: Sequence[Question], rows: Sequence[Trajectory]) -> dict[str, Any]:
    """The counts of a store.

    Returns:
        `questions`, `answered` (those with a branch), `branches`, `branches_per_question` (least, most), `complete`,
        `ended` (branches by finish reason), `with_answer`, `tokens` (total, mean, and quantiles of a branch), `probes`,
        `probe_tokens`, `token_ids` (whether the tokens themselves are there), and `accuracy`: percent of single
        branches and of the majority of all of a question, with 95 % intervals over questions; None where no question
        has a right answer.
    """
    by_question: dict[str, list[Trajectory]] = {}
    for row in rows:
        by_question.setdefault(row.question_id, []).append(row)
    tokens = np.array([row.tokens for row in rows])
    widths = [len(branches) for branches in by_question.values()]
    return {
        "questions": len(questions),
        "answered": len(by_question),
        "branches": len(rows),
        "branches_per_question": (min(widths), max(widths)),
        "complete": len(rows) == len(questions) * manifest.branches,
        "ended": dict(sorted(Counter(row.finish_reason or "not read to its end" for row in rows).items())),
        "with_answer": sum(row.final_answer is not None for row in rows),
        "tokens": _spread(tokens),
        "probes": sum(len(row.probe_answers) for row in rows),
        "probe_tokens": sum(sum(row.probe_tokens) for row in rows),
        "token_ids": all(row.token_ids is not None for row in rows),
        "accuracy": _accuracy(questions, by_question),
    }


def _spread(tokens: NDArray[np.int64]) -> dict[str, float]:
    low, median, high = np.quantile(tokens, (0.1, 0.5, 0.9))
    return {
        "total": int(tokens.sum()),
        "mean": float(tokens.mean()),
        "p10": float(low),
        "median": float(median),
        "p90": float(high),
        "most": int(tokens.max()),
    }


def _accuracy(
    questions: Iterable[Question], by_question: Mapping[str, Sequence[Trajectory]]
) -> dict[str, dict[str, Any]] | None:
    """Equal texts are equal answers, as in replay."""
    single, voted = [], []
    for question in questions:
        if question.gold_answer is None or question.question_id not in by_question:
            continue
        book = AnswerBook()
        ids = np.array([book.id(row.final_answer) for row in by_question[question.question_id]], np.int64)
        gold = book.gold(question.gold_answer)
        single.append(100 * float((ids == gold).mean()))
        voted.append(100 * float(majority(ids, len(ids))[0] == gold))
    if not single:
        return None
    return {"branch": _interval(single), "majority": _interval(voted)}


def _interval(percent: Sequence[float]) -> dict[str, Any]:
    low, high = mean_interval([value / 100 for value in percent])
    return {"accuracy": float(np.mean(percent)), "accuracy_ci": (100 * low, 100 * high), "questions": len(percent)}
