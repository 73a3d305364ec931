"""What the metrics share: how an answer is read from a prediction, and which answers are one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from numbers import Integral

from tts_generate.answer_formats import hashes
from tts_generate.answers import AnswerFormat
from tts_generate.boxes import has_box, last_boxed, normalise
from tts_generate.equivalence import Partition, same_answer
from tts_generate.errors import InputError


def answer_of(prediction: str | None) -> str | None:
    r"""The answer that a prediction states: its last box, or all of it where there is no box; None if empty.

    What stands before `</think>` is not looked at.

    >>> answer_of(r"so \boxed{ 7 } ."), answer_of(" 7 "), answer_of(r"so \boxed{7"), answer_of("")
    ('7', '7', None, None)
    """
    if prediction is None:
        return None
    said = AnswerFormat().said(prediction)
    found = last_boxed(said) if has_box(said) else said
    return normalise(found) or None if found is not None else None


class Grader:
    r"""Says which predictions are right, by text (`votes="equal"`) or by mathematics (`votes="math"`).

    >>> Grader("equal").right("7", r"\boxed{7}"), Grader("equal").right(None, "7")
    (True, False)
    """

    def __init__(self, votes: str) -> None:
        self.same = same_answer(votes)

    def right(self, prediction: str | None, reference: str) -> bool:
        """Whether a prediction is the reference's answer; without an answer it is not."""
        answer, gold = answer_of(prediction), hashes(reference) or answer_of(reference)
        if gold is None:
            raise InputError(
                f"reference {reference!r:.80} states no answer; give the answer, or text with a \\boxed{{}} or ####."
            )
        return answer is not None and (answer == gold or (self.same is not None and self.same(answer, gold)))

    def count(self, predictions: Sequence[str | None], reference: str) -> tuple[int, list[int], int]:
        """Branches of one question that are right, those with each of the wrong answers, and those without one.

        >>> Grader("equal").count(["7", "8", None, "8", "9"], "7")
        (1, [2, 1], 1)
        """
        answers = [answer_of(prediction) for prediction in predictions]
        wrong = [answer for answer in answers if answer is not None and not self.right(answer, reference)]
        blank = answers.count(None)
        heads = wrong if self.same is None else map(Partition(wrong).head, wrong)
        return len(answers) - blank - len(wrong), list(Counter(heads).values()), blank


def budgets(k: int | Sequence[int], branches: int) -> list[int]:
    """The k asked for, each from 1 to the fewest branches of a question.

    >>> budgets([1, 4], 8)
    [1, 4]
    """
    asked = list(k) if isinstance(k, Sequence) else [k]
    for each in asked:
        if isinstance(each, bool) or not isinstance(each, Integral) or not 1 <= each <= branches:
            raise InputError(
                f"k must be whole numbers from 1 to the {branches} predictions of a question, got {each!r}."
            )
    return [int(each) for each in asked]
