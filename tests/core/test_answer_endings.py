r"""How answers are read: endings as models write them, each with what a user would say it answers.

What stands in the box is read as it stands (`x = 5`, `**7**`, `50%`): whether two answers are one is a matter of votes.
Commas between the thousands of a number alone are gone, as in every other format.
"""

from __future__ import annotations

import time

import pytest

from tts_generate.answers import AnswerFormat
from tts_generate.boxes import last_boxed, normalise
from tts_generate.errors import InputError
from tts_generate.metrics.grading import answer_of

T = "a = 1 . </think> "
BOXES: list[tuple[str, str | None]] = [
    # a box as it should be
    (r"\boxed{7}", "7"),
    (r"\boxed{ 7 }.", "7"),
    (r"The final answer is $\boxed{7}$.", "7"),
    (r"$$\boxed{7}$$", "7"),
    (r"\[ \boxed{7} \]", "7"),
    (r"\(\boxed{7}\)", "7"),
    (r"**\boxed{7}**", "7"),
    (r"**Final Answer**: \(\boxed{\text{Evelyn}}\)", "Evelyn"),
    (r"\mathbf{\boxed{7}}", "7"),
    (r"\[ x = {\boxed{7}} \]", "7"),
    ("```latex\n\\boxed{7}\n```", "7"),
    (r"\boxed{7}<|im_end|>", "7"),
    # what may stand in it
    (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\boxed{\dfrac{\sqrt{3}}{2}}", r"\dfrac{\sqrt{3}}{2}"),
    (r"\boxed{\text{A}}", "A"),
    (r"\boxed{(A)}", "A"),
    (r"\boxed{\mathrm{(C)}}.", "C"),
    (r"\boxed{\textbf{(C)}\ 12}", r"\textbf{(C)}\ 12"),
    (r"\boxed{x = 5}", "x = 5"),
    (r"\boxed{(-\infty, 2] \cup [3, \infty)}", r"(-\infty, 2] \cup [3, \infty)"),
    (r"\boxed{\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}"),
    (r"\boxed{x^{2^{n}} + {a}_{1}}", r"x^{2^{n}} + {a}_{1}"),
    (r"\boxed{**7**}", "**7**"),
    (r"\boxed{$7$}", "7"),
    (r"\boxed{\$18}", r"\$18"),
    (r"\boxed{18\$}", r"18\$"),
    (r"\boxed{50\%}", r"50\%"),
    (r"\boxed{50%} of them", "50%"),
    ("\\boxed{7 % the answer\n}", "7 % the answer"),
    ("\\boxed{\n  7\n}", "7"),
    ("\\boxed{3\u00a0km}", "3 km"),
    ("\\boxed{½}", "½"),
    ("\\boxed{東京}", "東京"),
    ("\\boxed{\u22123}", "\u22123"),
    (r"\boxed{1,000}", "1000"),  # as `#### 1,000`, in every format
    (r"\boxed{-1,234,567.25}", "-1234567.25"),
    (r"\boxed{1,500\%}", r"1500\%"),
    (r"\boxed{(1,000)}", "(1,000)"),  # no number alone: a pair, a list, an interval
    (r"\boxed{1,00}", "1,00"),
    (r"\boxed{1,2345}", "1,2345"),
    (r"\boxed{1234,567}", "1234,567"),
    (r"\boxed{1, 000}", "1, 000"),
    (r"\boxed{\$1,000}", r"\$1,000"),
    (r"\boxed{1{,}000}", "1{,}000"),
    (r"\boxed{12_{16}}", "12_{16}"),
    # braces that are no groups
    (r"\boxed{\{1,2\}}", r"\{1,2\}"),
    (r"\boxed{\left\{ 1, 2 \right.}", r"\left\{ 1, 2 \right."),
    (
        r"\boxed{f(x) = \left\{\begin{array}{l} 0 \\ 1 \end{array}\right.}",
        r"f(x) = \left\{\begin{array}{l} 0 \\ 1 \end{array}\right.",
    ),
    (r"\boxed{x \mid x > \}}", r"x \mid x > \}"),
    (r"\boxed{1 \\{2}}", r"1 \\{2}"),
    # other boxes, other ways to write one
    (r"\fbox{7}", "7"),
    (r"\framebox{7}", "7"),
    (r"\framebox[2cm][c]{7}", "7"),
    (r"\boxed {7}", "7"),
    ("\\boxed\n{7}", "7"),
    (r"\boxed 7", "7"),
    (r"$\boxed 12$", "12"),
    (r"so \boxed 3.14.", "3.14"),
    (r"$\boxed -5$", "-5"),
    (r"$\boxed 1,000$ apples", "1000"),
    (r"$\boxed 50\%$", r"50\%"),
    (r"\boxed 7 apples", "7"),
    (r"$\boxed C$", "C"),
    (r"$\boxed\frac12$", r"\frac12"),
    (r"$\boxed\frac{1}{\sqrt{2}}$", r"\frac{1}{\sqrt{2}}"),
    (r"$\boxed -\dfrac{1}{2}$", r"-\dfrac{1}{2}"),
    (r"$\boxed\sqrt[3]{2}$", r"\sqrt[3]{2}"),
    (r"$\boxed\pi$", r"\pi"),
    (r"\boxed \text{no}", "no"),
    (r"$\boxed 2\pi$", None),  # TeX boxes the 2 alone, who wrote it meant more: half of it would be a wrong answer
    (r"$\boxed 12x$", None),
    (r"\boxed{7}, which I \boxed as you asked", "7"),
    (r"\boxedtext{7}", None),
    # several
    (r"\boxed{3}, no: \boxed{5}", "5"),
    (r"\boxed{a} and \boxed{b}", "b"),
    (r"\boxed{x = \boxed{5}}", "5"),
    (r"\boxed{\fbox{7}}", "7"),
    (r"\boxed{7} \fbox{8}", "8"),
    (r"\boxed{7} as asked, in a \boxed{}", "7"),
    (r"a \boxed{} it is: \boxed{7}", "7"),
    (r"\boxed{7} \boxed{ $ }", "7"),
    (r"\boxed{}", None),
    (r"\boxed{ }", None),
    (r"\boxed{\boxed{}}", None),
    # cut, or out of balance
    (r"\boxed{7", None),
    (r"\boxed{\frac{1}{2}", None),
    (r"\boxed{3} so \boxed{5", "3"),
    (r"\boxed{un \boxed{3}", "3"),
    (r"\boxed", None),
    (r"\boxed{7}}", "7"),
    (r"} \boxed{7}", "7"),
    (r"{ \boxed{7}", "7"),
    (r"f(x) = \{ \boxed{7}", "7"),
    ("}" * 5, None),
    ("", None),
    # as JSON prints it: of a text whose boxes all stand so, each two backslashes are one
    (r"\\boxed{7}", "7"),
    (r"\\boxed{\\frac{1}{2}}", r"\frac{1}{2}"),
    (r"\\boxed{\\left\\{ 1 \\right.}", r"\left\{ 1 \right."),
    (r"x = 3 + 4 \\\boxed{7}", "7"),  # a line break and a box
    (r"\\ \boxed{a \\ b}", r"a \\ b"),
    # no box
    ("The answer is 7.", None),
    ("#### 7", None),
]
THINKING: list[tuple[str, str | None]] = [
    (r"maybe \boxed{1} </think> so \boxed{2}", "2"),
    (r"\boxed{3} </think> no box", None),
    (r"\boxed{3} </think> \boxed{7", None),
    (r"\boxed{3} </think>", None),
    (r"wait </think> \boxed{7} </think>", "7"),  # said twice, as some do
    (r"a </think> hm </think> \boxed{7}", "7"),
    (r"<think> a </think> \boxed{7} <think> or \boxed{8}? </think> so yes", "7"),
    (r"<think> a </think> \boxed{7} <think> or \boxed{8}, no, cut", "7"),
    (r"<think> a </think> hm <think> \boxed{8} </think> \boxed{9}", "9"),
    (r"the model of a branch that does not think apart: \boxed{7}", "7"),
]
PATTERNS: list[tuple[str, str, str | None]] = [
    (r"answer is (\d+)|final: (\w+)", "answer is 3, final: B", "B"),
    (r"answer is (\d+)|final: (\w+)", "final: B, the answer is 3", "3"),
    (r"answer is (\d+)|final: (\w+)|(none)", "none", "none"),
    (r"#### (.+)", "#### 1\n#### 42 ", "42"),
    (r"#### (.+)", "#### 1,000", "1000"),
    ("hashes", "#### 1,000", "1000"),
    ("sentence", "The answer is 1,000.", "1000"),
    ("json:n", '{"n": "1,000"}', "1000"),
    (r"\d+", "3 or 4", "4"),
    (r"(\d*)", "so 42 it is", "42"),  # it matches nothing at the end, too
    (r"answer:( \w+)?", "answer: 7; answer:", "7"),
    (r"answer:( \w+)?", "answer:", None),
    (r"(?P<answer>\d+) is it", "7 is it", "7"),
    (r"(?i)ANSWER: (.*)", "answer: $7$", "7"),
    (r"x", "y", None),
]


@pytest.mark.parametrize(("text", "answer"), BOXES)
def test_boxes(text: str, answer: str | None) -> None:
    assert AnswerFormat(answer_pattern="boxed").find(T + text) == answer
    assert AnswerFormat(answer_pattern="boxed", think_end="").find(text) == answer
    assert answer is None or AnswerFormat(think_end="").find(text) == answer


@pytest.mark.parametrize(("text", "answer"), THINKING)
def test_what_is_thought_is_not_said(text: str, answer: str | None) -> None:
    assert AnswerFormat().find(text) == answer
    assert answer_of(text) == (answer or ("no box" if text.endswith("no box") else None))


@pytest.mark.parametrize(("pattern", "text", "answer"), PATTERNS)
def test_patterns(pattern: str, text: str, answer: str | None) -> None:
    assert AnswerFormat(answer_pattern=pattern).find(text) == answer


def test_other_marks_of_the_end_of_the_thinking() -> None:
    twice = r"<|end_of_thought|> \boxed{7} <|end_of_thought|>"
    assert AnswerFormat(think_end="<|end_of_thought|>").find(twice) == "7"
    again = r"[/THINK] \boxed{7} [THINK] \boxed{8}"
    mistral = AnswerFormat("[/THINK]\\boxed{", "[/THINK]")
    assert mistral.find(again) == "7"
    assert mistral.suffix_for(again) == "[/THINK]\\boxed{"  # it thinks again, and is to stop
    assert mistral.suffix_for("[/THINK] so") == "\\boxed{"


def test_an_empty_box_is_not_an_open_one() -> None:
    """A probe behind it forces a box of its own, and is complete when that one is closed."""
    usual = AnswerFormat()
    assert usual.suffix_for(r"a </think> \boxed{} is") == "\\boxed{"
    assert not usual.closed(r"</think> \boxed{} is \boxed{ 4")
    assert usual.closed(r"</think> \boxed{} is \boxed{ 4 }")


@pytest.mark.parametrize(
    "text",
    [
        "\\" * 50_000, "\\boxed{" * 20_000, "\\boxed " * 20_000, "\\boxed\\frac{" * 10_000, "\\boxed" + " " * 100_000,
        "{" * 100_000, "$" * 50_000 + "a" + "$" * 50_000 + "b", "\\boxed{a" + "$ " * 50_000 + "b}",
        "\\framebox" + "[]" * 50_000, "\\boxed " + "1," * 50_000, "</think><think>" * 10_000,
    ],
    ids=lambda text: f"{text[:12]}…",
)  # fmt: skip
def test_a_model_that_goes_round_in_circles_is_read_in_no_time(text: str) -> None:
    start = time.process_time()
    AnswerFormat().find(text)
    last_boxed(text[::-1])
    normalise(text)
    assert time.process_time() - start < 2


def test_a_pattern_that_would_never_end_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tts_generate.answers._PATTERN_SECONDS", 0.2)
    with pytest.raises(InputError, match=r"a text of 61 characters after 0.2 seconds; write it so"):
        AnswerFormat(answer_pattern=r"(a|a)*$").find("a" * 60 + "!")
