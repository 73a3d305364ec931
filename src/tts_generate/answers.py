"""Answers: found in a branch's text, normalised, and grouped so that equal ones share an id."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any, TypedDict

from tts_generate.answer_formats import NamedFormat, named_format, stated, tidy
from tts_generate.arguments import check_fields, whole
from tts_generate.boxes import normalise
from tts_generate.equivalence import FirstAlike, Votes, same_answer
from tts_generate.errors import InputError, warn
from tts_generate.votes import NO_ANSWER

_PATTERN_SECONDS = 5.0
_THINK_END = "</think>"
MAX_PROBE_TOKENS = 20
"""Tokens of a probed answer, where nothing else is said."""


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

    A probe forces `probe_suffix` behind a branch and decodes greedily until the answer is complete, or
    `max_probe_tokens` long.

    >>> boxed = AnswerFormat()
    >>> boxed.find(r"so 7 . </think> \boxed{ 7 }")
    '7'
    >>> boxed.find("still thinking") is None
    True
    >>> AnswerFormat(answer_pattern=r"answer is (\w+)").find("the answer is B")
    'B'
    >>> AnswerFormat(answer_pattern="hashes").find("5 + 2 = 7\n#### 7")
    '7'
    """

    probe_suffix: str = "\n</think>\n\n\\boxed{"
    """Text forced behind the branch; begins with `think_end` (after white space) where the model thinks."""
    think_end: str = _THINK_END
    """Text that ends the model's thinking; "" for a model that does not think apart."""
    answer_pattern: str | Callable[[str], str | None] = "auto"
    r"""The name of a format: `boxed`, `hashes` (`#### 7`), `tag` (`<answer>7</answer>`), `sentence` ("the answer is
    7"), `choice` (a letter), `number` (the last one), `text` (all that a branch says that ends by itself), `json:KEY`,
    or `auto`, which takes the first of boxed, hashes, tag and sentence that a text has, and of a branch that ended
    without one all of a short text, a choice or the last number. Or a regular expression; the answer is the first group
    that matched (or the whole match, without groups) of the last match that is not empty. Or a function of what a
    branch has said outside its thinking, that gives the answer, or None; where it raises none is read, with a
    warning."""
    max_probe_tokens: int = MAX_PROBE_TOKENS
    """Tokens of a probed answer at most, the forced suffix not counted."""
    force_answer: bool = True
    """Ask a branch that is cut at `max_new_tokens` without an answer once, at its end (budget forcing); and those of a
    question whose time is up without any answer, where they stand."""
    votes: Votes = "equal"
    r"""Which answers are one when they vote: equal texts, or the same mathematics ("math": `0.5` and `\frac12`)."""

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "max_probe_tokens", whole("max_probe_tokens", self.max_probe_tokens))
        if not self.probe_suffix:
            raise InputError("probe_suffix must not be empty: it is what makes the model state its answer.")
        if not self.answer_pattern:
            raise InputError("answer_pattern must not be empty: it finds the answer in what a branch said.")
        same_answer(self.votes)  # says what is missing
        if not isinstance(self.answer_pattern, str) and not _takes_a_text(self.answer_pattern):
            raise InputError(
                f"answer_pattern ({self.pattern_name}) must be a function of one text: text -> str or None."
            )
        if isinstance(self.answer_pattern, str) and self._named is None:
            try:
                re.compile(self.answer_pattern)
            except re.error as error:
                raise InputError(f"answer_pattern {self.answer_pattern!r} is no regular expression: {error}") from None

    def card(self) -> dict[str, Any]:
        """What the manifest of a recording says of it."""
        said = {**asdict(self), "answer_pattern": self.pattern_name}
        most = said.pop("max_probe_tokens")
        del said["votes"]  # of a replay
        return {"format": said, "max_probe_tokens": most}

    @property
    def pattern_name(self) -> str:
        """The pattern as it is written down: of a function its name."""
        pattern = self.answer_pattern
        if isinstance(pattern, str):
            return pattern
        return f"function {getattr(pattern, '__module__', '?')}.{getattr(pattern, '__qualname__', repr(pattern))}"

    def book(self) -> AnswerBook:
        """A new book of answers, in which those are equal that `votes` says are."""
        same = same_answer(self.votes)
        return AnswerBook(None if same is None else FirstAlike(same).head)

    def find(self, text: str, ended: bool = False, cut: bool = False) -> str | None:
        r"""The normalised answer stated last in `text`, after the thinking if it has ended; None without one.

        What is empty states nothing: an answer before it counts. Of a branch that has `ended` by itself some formats
        read more; of one that was `cut`, or stands in the middle, no word that may be on the way.

        >>> AnswerFormat().find(r"\boxed{7} as \boxed{}, </think> \boxed{8}, <think> or \boxed{9} </think> </think>")
        '8'

        Raises:
            InputError: `answer_pattern` takes seconds, as one does that can match the same text in very many ways.
        """
        said, way = self.said(text), self._named
        if way is not None:
            found = (way.read_ended if ended else way.read_cut if cut else way.read)(said)
        elif isinstance(self.answer_pattern, str):
            found = self._matched(self.answer_pattern, said)
        else:
            found = self._told(self.answer_pattern, said)
        return normalise(whole_characters(found)) or None if found is not None else None

    def _told(self, read: Callable[[str], str | None], text: str) -> str | None:
        try:
            found: Any = read(text)
        except Exception as error:  # as of a search that finds nothing: what was decoded so far is not lost for that
            said = f"{type(error).__name__}: {error!s:.80}"
            warn(f"answer_pattern ({self.pattern_name}) raised {said}; where it does, no answer is read.", stacklevel=3)
            return None
        if not (found is None or isinstance(found, str)):
            raise InputError(f"answer_pattern ({self.pattern_name}) must give text or None, gave {found!r:.80}.")
        return found

    def _matched(self, pattern: str, text: str) -> str | None:
        import regex  # type: ignore[import-untyped]  # matches as `re` does, and can be told when to give up

        found = None
        try:
            for match in regex.finditer(pattern, text, timeout=_PATTERN_SECONDS):
                said = match[0] if not match.re.groups else next((g for g in match.groups() if g is not None), "")
                found = said if normalise(said) else found
        except TimeoutError:
            raise InputError(
                f"answer_pattern {pattern!r} had not read a text of {len(text)} characters after {_PATTERN_SECONDS:g} "
                "seconds; write it so that there is one way to match a text, without repeats inside repeats."
            ) from None
        return found

    @property
    def _named(self) -> NamedFormat | None:
        return named_format(self.answer_pattern) if isinstance(self.answer_pattern, str) else None

    @property
    def looks_for(self) -> str:
        r"""How a message says what is looked for.

        >>> AnswerFormat(answer_pattern="hashes").looks_for, AnswerFormat(answer_pattern="= (.*)").looks_for
        ("answer_pattern='hashes' looks for, #### 42", "answer_pattern='= (.*)' looks for")
        """
        shape = "" if self._named is None else f", {self._named.looks}"
        return f"answer_pattern={self.pattern_name!r} looks for{shape}"

    def closed(self, text: str) -> bool:
        r"""Whether more tokens could not change the answer: the box is closed. A pattern may always match more.

        >>> AnswerFormat().closed(r"</think>\boxed{ }"), AnswerFormat().closed(r"</think>\boxed{ 1")
        (True, False)
        """
        way = self._named
        return way is not None and way.complete(self.said(text))

    def said(self, text: str) -> str:
        r"""What stands outside the thinking; all of `text` where no thinking ends in it.

        >>> AnswerFormat().said("a </think> b <think> c </think> d"), AnswerFormat().said("a")
        (' b \n d', 'a')
        """
        if not self.think_end or self.think_end not in text:
            return text
        parts = text.split(self.think_end)[1:]
        start = self._think_start
        return "\n".join(part.split(start)[0] if start else part for part in parts)

    @property
    def _think_start(self) -> str:
        """What begins a thinking that `think_end` ends, where that is a tag; "" if it is none."""
        return self.think_end.replace("/", "", 1) if "/" in self.think_end else ""

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
        said = text.rpartition(self.think_end)[2] if self.think_end and self.think_end in text else None
        if said is None or (self._think_start and self._think_start in said):
            return self.probe_suffix
        suffix = self.probe_suffix.rsplit(self.think_end, 1)[-1].strip()
        opened = suffix and suffix in said and self.find(said) is None
        return "" if opened and not self.closed(said[said.rindex(suffix) :]) else suffix


def _takes_a_text(read: Callable[..., Any]) -> bool:
    """Whether a function can be called with a text; yes where nobody can tell, as of some that are built in."""
    with suppress(ValueError):  # it has no signature
        try:
            inspect.signature(read).bind("")
        except TypeError:
            return False
    return True


def is_right(answer: str | None, gold: str, same: Callable[[str, str], bool] | None = None) -> bool:
    r"""Whether an answer is the right one: of a text that `gold` is or states (see `golds`), or the `same`.

    >>> is_right("7", " $7$ "), is_right("7", r"\boxed{7}"), is_right("8", "7"), is_right(None, "7")
    (True, True, False, False)
    """
    if answer is None:
        return False
    right = golds(gold)
    return answer in right or (same is not None and any(same(answer, each) for each in right))


def golds(gold: str) -> tuple[str, str, str]:
    """The texts by which a right answer is given: as it is, what it states, and that as a sentence's is read.

    >>> golds(" Paris.")
    (' Paris.', 'Paris.', 'Paris')
    """
    return gold, stated(gold), tidy(stated(gold))


def whole_characters(text: str) -> str:
    r"""Text of whole characters, which a store holds; half of one, as JSON may name it, is a mark for it.

    >>> whole_characters("\ud83d\ude00") == "\U0001f600", whole_characters("7\ud83d") == "7\ufffd"
    (True, True)
    """
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


class AnswerOptions(TypedDict, total=False):
    """What a call says of how a model is asked, see `AnswerFormat`; None: as usual for it."""

    probe_suffix: str | None
    think_end: str | None
    answer_pattern: str | Callable[[str], str | None] | None
    max_probe_tokens: int | None
    force_answer: bool | None
    votes: Votes | None


@dataclass(slots=True)
class AnswerBook:
    """Gives equal answers of one question the same small integer, in order of first sight.

    With `head`, which names the group of an answer, answers of one group are equal, and its name is their text.

    >>> book = AnswerBook()
    >>> book.id("7"), book.id("8"), book.id("7"), book.id(None)
    (0, 1, 0, -1)
    >>> book.text(1), book.text(-1)
    ('8', None)
    """

    head: Callable[[str], str] | None = None
    _ids: dict[str, int] = field(default_factory=dict)
    _texts: list[str] = field(default_factory=list)

    def id(self, answer: str | None) -> int:
        """The id of `answer`; `NO_ANSWER` for None."""
        if answer is None:
            return NO_ANSWER
        if answer not in self._ids:
            text = answer if self.head is None else self.head(answer)
            if text not in self._ids:
                self._ids[text] = len(self._texts)
                self._texts.append(text)
            self._ids[answer] = self._ids[text]
        return self._ids[answer]

    def gold(self, answer: str | None) -> int:
        r"""The id of a right answer: as it stands where a branch gave it so, else by the text that it states.

        >>> book = AnswerBook()
        >>> book.id("7"), book.gold(" $7$ "), book.gold("3 + 4\n#### 7")
        (0, 0, 0)
        """
        if answer is None:
            return NO_ANSWER
        right = golds(answer)
        return self.id(next((each for each in right if each in self._ids), right[1]))

    def text(self, answer: int) -> str | None:
        """The answer an id stands for; None for `NO_ANSWER`."""
        return None if answer == NO_ANSWER else self._texts[answer]
