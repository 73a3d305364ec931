"""Votes against a Counter and against exact arithmetic; answers against their texts."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from tts_generate.answers import AnswerBook, AnswerFormat, is_right
from tts_generate.boxes import last_boxed, normalise
from tts_generate.errors import InputError
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import Question, Trajectory
from tts_generate.votes import confidence, majority


@given(st.lists(st.integers(-1, 6), max_size=40))
def test_majority_is_a_counter_with_first_seen_ties(answers: list[int]) -> None:
    voting = [answer for answer in answers if answer >= 0]
    ranked = Counter(voting).most_common()  # Counter keeps first-seen order among equals
    winner, first = ranked[0] if ranked else (-1, 0)
    second = ranked[1][1] if len(ranked) > 1 else 0
    assert majority(np.array([*answers, 99], np.int64), len(answers)) == (winner, first, second)


@pytest.mark.long
def test_confidence_is_the_beta_tail_for_all_counts_up_to_128() -> None:
    for first in range(129):
        for second in range(129):
            found = confidence(first, second)
            if first == 0:
                assert found == 0.0
                continue
            trials = first + second + 1
            exact = 1 - Fraction(sum(comb(trials, k) for k in range(second + 1)), 2**trials)
            assert found == pytest.approx(float(exact), abs=1e-12)
            assert found == pytest.approx(1 - beta.cdf(0.5, first + 1, second + 1), abs=1e-12)


@given(st.text(alphabet="ab {}\\$", max_size=30))
def test_a_box_is_found_again_and_normalised_once(content: str) -> None:
    balanced = content.replace("{", "").replace("}", "").replace("\\", "")
    assert last_boxed(f"so \\boxed{{{balanced}}} it is") == balanced
    assert normalise(normalise(content)) == normalise(content)


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (r"<think> a \boxed{1} </think> so \boxed{ 2 }", "2"),
        (r"\boxed{1} and then \boxed{2", "1"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{}", None),
        (r"<think> \boxed{3} </think> no box", None),
        ("", None),
        ("}" * 5, None),
    ],
)
def test_find(text: str, answer: str | None) -> None:
    assert AnswerFormat().find(text) == answer


def test_suffix_depends_on_where_the_branch_stands() -> None:
    usual = AnswerFormat()
    assert usual.suffix_for("still thinking") == "\n</think>\n\n\\boxed{"
    assert usual.suffix_for("done </think> The answer") == "\\boxed{"
    assert usual.suffix_for("done </think> The answer is \\boxed{") == ""
    assert AnswerFormat(probe_suffix="Answer:", think_end="").suffix_for("x") == "Answer:"


@pytest.mark.parametrize("gold", [" 7,000 ", "$7000$", "7000", r"$\boxed{7000}$", "7 * 1000 = 7000\n#### 7,000"])
def test_a_gold_answer_is_compared_as_answers_are(gold: str) -> None:
    """A questions file may write it with a dollar around, or as a solution; `--dataset` reads what that states."""
    rows = [
        Trajectory("q", n, 0, 1, 10, "eos", final, (), (), (), (), ()) for n, final in enumerate(["7000", "7000", "8"])
    ]
    recording = Recording.of([Question("q", "", gold)], rows, 10)
    assert replay(recording, "self_consistency", shuffles=0, max_samples=3).accuracy == 1
    assert is_right("7000", gold)
    assert not is_right("8", gold)


def test_a_table_whose_answers_were_never_normalised_is_compared_as_it_stands() -> None:
    rows = [Trajectory("q", n, 0, 1, 10, "eos", final, (), (), (), (), ()) for n, final in enumerate(["$7$", "$7$"])]
    recording = Recording.of([Question("q", "", "$7$")], rows, 10)
    assert replay(recording, "self_consistency", shuffles=0, max_samples=2).accuracy == 1
    assert is_right("$7$", "$7$")


@pytest.mark.parametrize(
    ("pattern", "said", "gold"),
    [
        ("auto", "The answer is (B).", "(B)"),
        ("text", "SELECT name FROM users;", "SELECT name FROM users;"),
        ("tag", "<answer>Paris.</answer>", "Paris."),
        ("boxed", r"\boxed{(B)}", "(B)"),
    ],
)
def test_a_gold_answer_is_read_as_answers_are(pattern: str, said: str, gold: str) -> None:
    """Word for word the right answer, and wrong: what stands around it was taken off one of the two only."""
    found = AnswerFormat(answer_pattern=pattern).find(said, ended=True)
    assert found is not None
    assert is_right(found, gold)
    rows = [Trajectory("q", 0, 0, 1, 10, "eos", found, (), (), (), (), ())]
    recording = Recording.of([Question("q", "", gold)], rows, 10)
    assert replay(recording, "self_consistency", shuffles=0, max_samples=1).accuracy == 1
    assert not is_right("A", gold)


def test_bad_formats_say_so() -> None:
    with pytest.raises(InputError, match="regular expression"):
        AnswerFormat(answer_pattern="(")
    with pytest.raises(InputError, match="probe_suffix"):
        AnswerFormat(probe_suffix="")


@given(st.lists(st.one_of(st.none(), st.sampled_from("abc")), max_size=20))
def test_equal_answers_have_equal_ids(answers: list[str | None]) -> None:
    book = AnswerBook()
    ids = [book.id(answer) for answer in answers]
    assert [book.text(number) for number in ids] == answers
    assert sorted(set(ids) - {-1}) == list(range(len(set(answers) - {None})))
