"""Answers: found in a branch's text, normalised, and grouped so that equal ones share an id."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from tts_generate.errors import InputError
from tts_generate.votes import NO_ANSWER

BOXED = "\\boxed{"


def normalise(answer: str) -> str:
    r"""The text by which answers are compared: outer space and `$` gone, inner space runs made one.

    >>> normalise("  $ 1  / 2 $ ")
    '1 / 2'
    """
    return re.sub(r"\s+", " ", re.sub(r"^[\s$]+|[\s$]+$", "", answer))


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete `\boxed{…}` of `text`, braces balanced; None if there is none.

    >>> last_boxed(r"so \boxed{3}, no: \boxed{\frac{1}{2}} and \boxed{un")
    '\\frac{1}{2}'
    """
    end = len(text)
    while (start := text.rfind(BOXED, 0, end)) >= 0:
        depth = 1
        for i in range(start + len(BOXED), len(text)):
            depth += (text[i] == "{") - (text[i] == "}")
            if depth == 0:
                return text[start + len(BOXED) : i]
        end = start
    return None


def ends_thinking(prompt: str, think_end: str | None) -> bool:
    r"""Whether a prompt has ended the thinking, so that what follows it is the answer; white space may follow.

    >>> ends_thinking("<think>\n\n</think>\n\n", "</think>"), ends_thinking("<think>\n", "</think>")
    (True, False)
    """
    end = (think_end or "").strip()
    return end != "" and prompt.rstrip().endswith(end)


@dataclass(frozen=True, slots=True)
class AnswerFormat:
    r"""How a model is asked for its answer, and how the answer is read from its text.

    A probe forces `probe_suffix` behind a branch and decodes greedily until the answer is complete.

    >>> boxed = AnswerFormat()
    >>> boxed.find(r"so 7 . </think> \boxed{ 7 }")
    '7'
    >>> boxed.find("still thinking") is None
    True
    >>> AnswerFormat(answer_pattern=r"answer is (\w+)").find("the answer is B")
    'B'
    """

    probe_suffix: str = "\n</think>\n\n\\boxed{"
    """Text forced behind the branch; begins with `think_end` (after white space) where the model thinks."""
    think_end: str = "</think>"
    """Text that ends the model's thinking; "" for a model that does not think apart."""
    answer_pattern: str | None = None
    r"""Regular expression whose first group (or whole match) is the answer, the last one counting; None: a box."""

    def __post_init__(self) -> None:
        if not self.probe_suffix:
            raise InputError("probe_suffix must not be empty: it is what makes the model state its answer.")
        if self.answer_pattern is not None:
            try:
                re.compile(self.answer_pattern)
            except re.error as error:
                raise InputError(f"answer_pattern {self.answer_pattern!r} is no regular expression: {error}") from None

    def find(self, text: str) -> str | None:
        """The normalised answer stated last in `text`, after the thinking if it has ended; None without one."""
        text = self._after_thinking(text)
        if self.answer_pattern is None:
            found = last_boxed(text)
        else:
            matches = list(re.finditer(self.answer_pattern, text))
            last = matches[-1] if matches else None
            found = None if last is None else last.group(1 if last.re.groups else 0)
        return normalise(found) or None if found is not None else None

    def closed(self, text: str) -> bool:
        r"""Whether more tokens could not change the answer: the box is closed. A pattern may always match more.

        >>> AnswerFormat().closed(r"</think>\boxed{ }"), AnswerFormat().closed(r"</think>\boxed{ 1")
        (True, False)
        """
        return self.answer_pattern is None and last_boxed(self._after_thinking(text)) is not None

    def _after_thinking(self, text: str) -> str:
        return text.rsplit(self.think_end, 1)[-1] if self.think_end else text

    def thought(self, prompt: str) -> str:
        r"""What a branch behind `prompt` is read as having said: the end of its thinking, where it ends with it.

        So do chat templates with `enable_thinking=False`. What earlier turns thought is not this branch's.

        >>> AnswerFormat().thought("<think>\n\n</think>\n\n"), AnswerFormat().thought("</think> 7 <user>")
        ('</think>', '')
        """
        return self.think_end if ends_thinking(prompt, self.think_end) else ""

    def suffix_for(self, text: str) -> str:
        r"""The suffix that makes a branch with this `text` state its answer; shorter once it has stopped thinking.

        >>> AnswerFormat().suffix_for("a = 7 . </think> so")
        '\\boxed{'
        >>> AnswerFormat().suffix_for("a = 7 . </think> \\boxed{")
        ''
        """
        if not self.think_end or self.think_end not in text:
            return self.probe_suffix
        suffix = self.probe_suffix.rsplit(self.think_end, 1)[-1].strip()
        said = text.rsplit(self.think_end, 1)[1]
        opened = suffix and said.count(suffix) > 0 and self.find(said) is None
        return "" if opened else suffix


@dataclass(slots=True)
class AnswerBook:
    """Gives equal answers of one question the same small integer, in order of first sight.

    With a test `same`, answers that differ as texts share the id of the first one they are the same as.

    >>> book = AnswerBook()
    >>> book.id("7"), book.id("8"), book.id("7"), book.id(None)
    (0, 1, 0, -1)
    >>> book.text(1), book.text(-1)
    ('8', None)
    """

    same: Callable[[str, str], bool] | None = None
    _ids: dict[str, int] = field(default_factory=dict)
    _texts: list[str] = field(default_factory=list)

    def id(self, answer: str | None) -> int:
        """The id of `answer`; `NO_ANSWER` for None."""
        if answer is None:
            return NO_ANSWER
        if answer not in self._ids:
            twin = next((t for t in self._texts if self.same(t, answer)), None) if self.same is not None else None
            if twin is None:
                self._ids[answer] = len(self._texts)
                self._texts.append(answer)
            else:
                self._ids[answer] = self._ids[twin]
        return self._ids[answer]

    def text(self, answer: int) -> str | None:
        """The answer an id stands for; None for `NO_ANSWER`."""
        return None if answer == NO_ANSWER else self._texts[answer]
