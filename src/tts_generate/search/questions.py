"""Which questions a search may learn from, and which only choose: the search set, checked and split."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tts_generate.errors import InputError
from tts_generate.recorded.recording import fewest_branches
from tts_generate.replay import RecordedQuestion, Recording
from tts_generate.trajectories import Question


@dataclass(frozen=True)
class Part:
    """Questions of one or more recordings, and how much each recording counts."""

    recordings: tuple[Recording, ...]
    weights: NDArray[np.float64]
    """(recordings,), their sum is 1."""

    @classmethod
    def of(cls, recordings: Sequence[Recording], weights: Sequence[float] | None = None) -> Part:
        """Every question of the recordings; each recording counts the same if no weights are given.

        Raises:
            InputError: not one positive weight a recording.
        """
        given = np.array([1.0] * len(recordings) if weights is None else list(weights), np.float64)
        if len(given) != len(recordings) or not ((given > 0) & np.isfinite(given)).all():
            raise InputError(
                f"weights must be one positive number a store, {len(recordings)} in all, got {list(weights or ())}."
            )
        return cls(tuple(recordings), given / given.sum())

    def alone(self, number: int) -> Part:
        """One recording of it."""
        return Part((self.recordings[number],), np.ones(1))

    @property
    def count(self) -> int:
        """Questions, of all recordings together."""
        return sum(len(recording.questions) for recording in self.recordings)


def split(whole: Part, seed: int, share: float = 1 / 3) -> tuple[Part, Part]:
    """(what candidates are proposed and promoted by, what chooses among the best): `share` of the questions chooses.

    One question at least is on either side.
    With a share of 0 every question does both: where they are few, a candidate that has not seen a third of them is
    worth less than an estimate that is spared them; then only held-out stores say what a gain is worth elsewhere. A
    question that several recordings have in common is in the same part of each.

    Raises:
        InputError: there are fewer than two questions, or the share is none.
    """
    if not 0 <= share < 1:
        raise InputError(f"the share of the questions that only choose must be from 0 to below 1, got {share}.")
    keys = sorted({_key(recorded) for recording in whole.recordings for recorded in recording.questions})
    if len(keys) < 2:
        raise InputError(
            f"the search set holds {len(keys)} question; a search needs 2 or more, some to learn from and others to "
            "choose by. Record more questions, or add stores."
        )
    if share == 0:
        return whole, whole
    random.Random(seed).shuffle(keys)
    chosen = set(keys[: min(max(1, round(share * len(keys))), len(keys) - 1)])
    return _part(whole, set(keys) - chosen), _part(whole, chosen)


def folds(whole: Part, count: int, seed: int) -> list[tuple[Part, Part]]:
    """(the rest, the fold) for each of `count` folds of the questions, every question in one fold.

    Raises:
        InputError: there are fewer questions than folds.
    """
    keys = sorted({_key(recorded) for recording in whole.recordings for recorded in recording.questions})
    if len(keys) < count:
        raise InputError(f"the search set holds {len(keys)} questions, fewer than the {count} folds asked for.")
    random.Random(seed).shuffle(keys)
    return [(_part(whole, set(keys) - set(keys[k::count])), _part(whole, set(keys[k::count]))) for k in range(count)]


def check(recordings: Sequence[Recording]) -> None:
    """Refuse a search set on which no controller can be told from another.

    Raises:
        InputError: naming what is wrong with it, and what to do.
    """
    if not recordings:
        raise InputError("a search needs at least one store of recorded trajectories.")
    check_names([recording.name for recording in recordings])
    intervals = {recording.name: recording.interval_tokens for recording in recordings}
    if len(set(intervals.values())) != 1:
        raise InputError(
            f"the stores of one search must have one step, got {intervals}: controllers count in steps. Search apart."
        )
    few = {recording.name: fewest_branches([recording]) for recording in recordings}
    for name, branches in few.items():
        if branches < 2:
            raise InputError(
                f"{name} has a question with {branches} branch; there is nothing to decide with fewer than 2. Record "
                "more branches a question (tts-generate record --branches 64)."
            )
    right = np.concatenate([branches for recording in recordings for branches in recording.right])
    check_gold([recorded.question for recording in recordings for recorded in recording.questions])
    if right.all() or not right.any():
        told = "right" if right.all() else "wrong"
        raise InputError(
            f"every recorded branch of every question ends with a {told} answer, so every controller has the same "
            "accuracy and there is nothing to search for. Record questions that the model answers sometimes."
        )


def check_gold(questions: Sequence[Question]) -> None:
    """Refuse questions whose right answer is not known: whatever is answered would count as wrong.

    Raises:
        InputError: naming the first.
    """
    unknown = [question.question_id for question in questions if question.gold_answer is None]
    if unknown:
        raise InputError(
            f"question {unknown[0]!r} has no gold_answer ({len(unknown)} such questions); accuracy needs one of each."
        )


def check_names(names: Sequence[str]) -> None:
    """Refuse stores of one name, by which results tell them apart.

    Raises:
        InputError: naming it.
    """
    for name in names:
        if names.count(name) > 1:
            raise InputError(
                f"{names.count(name)} stores are called {name!r}, and results go by their names; rename one."
            )


def _key(recorded: RecordedQuestion) -> str:
    return recorded.question.question or recorded.question.question_id


def _part(whole: Part, keys: set[str]) -> Part:
    kept = [
        (dataclasses.replace(recording, questions=questions), weight)
        for recording, weight in zip(whole.recordings, whole.weights.tolist(), strict=True)
        if (questions := tuple(recorded for recorded in recording.questions if _key(recorded) in keys))
    ]
    return Part.of([recording for recording, _ in kept], [weight for _, weight in kept])
