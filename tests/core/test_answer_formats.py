"""Answers are read as people write them, and what states none reads as None, in time that grows with the text."""

from __future__ import annotations

import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tts_generate.answer_formats import NAMED, auto_ended, json_key, named_format, tidy
from tts_generate.answers import AnswerFormat
from tts_generate.live.thinking import asked_of

CASES: list[tuple[str, str, str | None]] = [
    ("hashes", "She has 5.\n#### 5", "5"),
    ("hashes", "#### $1,234.50", "1234.50"),
    ("hashes", "#### 5\nNo.\n#### ", "5"),
    ("hashes", "## 5", None),
    ("tag", "<answer>\n  42 \n</answer>", "42"),
    ("tag", "<answer>42</answer><answer></answer>", "42"),
    ("tag", "<answer>42", None),
    ("sentence", "The answer is 42.", "42"),
    ("sentence", "the final answer is: 3.5 meters.", "3.5"),
    ("sentence", "Answer: $18", "18"),
    ("sentence", "**Answer:** 1,000 dollars", "1000"),
    ("sentence", "**Answer**: B", "B"),
    ("sentence", "The correct answer is (C) mitochondria.", "C"),
    ("sentence", "The answer is **Paris**.", "Paris"),
    ("sentence", "My answer would be New York.\nThanks!", "New York"),
    ("sentence", "Answer = 1/2", "1/2"),
    ("sentence", "The answer is 7. I mean, the answer is 8", "8"),
    ("sentence", "The answer is f(2) = 4.", "f(2) = 4"),
    ("sentence", "The answer is 10:30.", "10:30"),
    ("sentence", "the answer is \u221212", "\u221212"),
    ("sentence", r"The answer is $\boxed{7}$.", "7"),
    ("sentence", r"The answer is \boxed{4", None),
    ("sentence", "What is the answer?", None),
    ("sentence", "The answer is", None),
    ("sentence", "I will answer: " + "word " * 60, None),
    ("choice", "The answer is (D).", "D"),
    ("choice", "I choose option B because A man said so", "B"),
    ("choice", "B) 42", "B"),
    ("choice", "**C**", "C"),
    ("choice", "A dog. I see.", None),
    ("choice", "(K)", None),
    ("number", "about 1,250,000 people", "1250000"),
    ("number", "costs $5.", "5"),
    ("number", "so 12.", "12"),
    ("number", "-3", "-3"),
    ("number", "3/4 of it", "3/4"),
    ("number", "50%", "50%"),
    ("number", "x2 and h1", "1"),
    ("number", "about 1.2e-5 or 3E8", "3E8"),
    ("number", "about 1.2e-5", "1.2e-5"),
    ("number", "none", None),
    ("auto", r"#### 5, so the answer is \boxed{6}", "6"),
    ("auto", "The answer is 4.\n#### 5", "5"),
    ("auto", "5 and then 6 and", None),
    ("auto", r"The answer is \boxed{4", None),
    ("json:answer", '```json\n{"steps": {"answer": 1}, "answer": "B"}\n```', "B"),
    ("json:answer", '{"answer": null} {"answer": 2.50}', "2.5"),
    ("json:answer", '{"answer": 2', None),
    ("json:x", '{"answer": 2}', None),
    ("text", "SELECT  name\n  FROM users;", "SELECT name FROM users"),
    ("text", " “Bonjour le monde.” ", "Bonjour le monde"),
    ("text", "the answer is 4, I say", "the answer is 4, I say"),
    ("text", " \n", None),
]


@pytest.mark.parametrize(("name", "text", "answer"), CASES)
def test_what_is_read(name: str, text: str, answer: str | None) -> None:
    """Of a branch that has ended, and as `AnswerFormat` says it, behind the thinking."""
    way = named_format(name)
    assert way is not None
    if name != "auto":
        assert way.read_ended(text) == answer
    assert AnswerFormat(answer_pattern=name).find(f"the answer is 0 </think>{text}", ended=name != "auto") == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("67", "67"),
        ("**67**", "67"),
        ("Paris.", "Paris"),
        ("B", "B"),
        ("They need 3 boxes and 67 nails", "67"),
        ("I would go for option B in the end", "B"),
        ("There is nothing to be said about it", None),
        ("", None),
    ],
)
def test_what_a_finished_text_says(text: str, answer: str | None) -> None:
    assert auto_ended(text) == answer


@pytest.mark.parametrize(
    ("name", "text", "answer"),
    [
        ("auto", "The answer is 4", None),
        ("auto", "The answer is 4.", None),
        ("auto", "The answer is 42 appl", "42"),
        ("auto", "The answer is 41.\nNo, the answer is 4", "41"),
        ("auto", "#### 1,04", None),
        ("auto", "#### 1,042\n", "1042"),
        ("auto", r"so \boxed{42}", "42"),
        ("auto", "<answer>42</answer>", "42"),
        ("hashes", "#### 4", None),
        ("sentence", "the answer is 4", None),
        ("sentence", "the answer is 42. An", "42"),
        ("number", "the answer is 4", None),
        ("number", "the answer is 42 ", "42"),
        ("choice", "the answer is B", None),
        ("choice", "the answer is (B), as", "B"),
        ("text", "Bonjour le", None),
        ("text", "Bonjour. The answer is Bonjour\n", "Bonjour"),
        ("json:answer", '{"answer": 4', None),
        (r"is (\d+)", "is 42", "42"),
    ],
)
def test_the_last_word_of_a_text_that_was_cut_is_on_its_way(name: str, text: str, answer: str | None) -> None:
    """Cut inside of 42, it would be read as 4; who is not read is asked."""
    assert AnswerFormat(answer_pattern=name).find(text, cut=True) == answer


@pytest.mark.parametrize("name", ["choice", "number"])
def test_what_stands_on_the_way_is_no_answer(name: str) -> None:
    assert AnswerFormat(answer_pattern=name).find("(A) has 3, so") is None
    assert AnswerFormat(answer_pattern=name).find("(A) has 3. The answer is (B), 4") in ("B", None)


@pytest.mark.parametrize("name", ["", "Boxed", "json", "json:", r"the (\w+)"])
def test_what_is_no_name_is_a_pattern(name: str) -> None:
    assert named_format(name) is None


@pytest.mark.parametrize(
    ("name", "said", "complete"),
    [
        ("hashes", "42", False),
        ("hashes", "42\n", True),
        ("tag", "42", False),
        ("tag", "42</answer>", True),
        ("choice", "B)", True),
        ("number", "4.\n", True),
        ("json:answer", '"B', False),
        ("json:answer", '"B"}', True),
        ("auto", "7}", True),
        (r"is (\d+)", "7\n", False),
    ],
)
def test_a_probe_is_asked_in_the_format_and_ends_with_its_answer(name: str, said: str, complete: bool) -> None:
    asked = asked_of(None, answer_pattern=name)
    assert asked.probe_suffix.startswith("\n</think>\n\n")
    text = f"so{asked.probe_suffix}{said}"
    assert asked.closed(text) == complete
    assert not complete or asked.find(text) in ("42", "B", "4", "7")
    assert asked_of(None, answer_pattern=name, think_end="", probe_suffix="X").probe_suffix == "X"


PIECES = [
    "answer", " is ", ":", "####", "<answer>", "</answer>", "(B)", "1,000", "1" * 30, ".", "\n", "*", "{",
    '"', "}", " ",
    "\\boxed{", "$", "x",
]  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join) | st.text(max_size=60))
def test_any_text_is_read_or_is_not(text: str) -> None:
    for read in (
        *(read for way in NAMED.values() for read in (way.read, way.read_cut, way.read_ended)),
        json_key("answer"),
    ):
        answer = read(text)
        assert answer is None or (answer and answer == answer.strip())
    assert tidy(tidy(text)) == tidy(text)


@pytest.mark.parametrize("piece", PIECES)
def test_long_texts_take_no_longer_than_they_are_long(piece: str) -> None:
    start = time.process_time()
    for read in (
        *(read for way in NAMED.values() for read in (way.read, way.read_cut, way.read_ended)),
        json_key("answer"),
    ):
        read(piece * (100_000 // len(piece)))
    assert time.process_time() - start < 5


def test_an_answer_is_whole_characters() -> None:
    """JSON may name half of one, which no store holds: a call would be lost at its end."""
    read = AnswerFormat(answer_pattern="json:answer").find
    assert [read(r'{"answer": "7\ud83d"}'), read(r'{"answer": "\ud83d\ude00"}')] == ["7\ufffd", "\U0001f600"]
    assert AnswerFormat(answer_pattern=lambda text: "7\ud83d").find("") == "7\ufffd"


def test_a_function_that_raises_reads_no_answer_and_says_so() -> None:
    """Such as the commonest of them, which takes a group of a search that found nothing."""
    asked = AnswerFormat(answer_pattern=lambda text: re.search(r"= (\d)", text)[1])  # type: ignore[index]
    assert asked.find("1 + 6 = 7") == "7"
    with pytest.warns(RuntimeWarning, match="raised TypeError: .*; where it does, no answer is read"):
        assert asked.find("1 + 6") is None
