r"""Mathematical equivalence of answers, by math-verify: 1/2 and 0.5 are one answer, in votes and in grading.

math-verify guards itself against endless simplification by a signal, which works in a main thread only. It runs in a
child process of its own here, where it has one: any thread may ask, an answer that hangs costs a few seconds and is
then held to be different, and every verdict is kept.

Its verdicts are no equivalence relation (50 = 50\% = 0.5, but 50 is not 0.5): `Partition` makes one of them.
"""

from __future__ import annotations

import atexit
import itertools
import json
import logging
import os
import queue
import re
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

from tts_generate.errors import TTSError, UnknownNameError

Votes = Literal["equal", "math"]
"""How answers are told apart: as texts, or as mathematics."""

logger = logging.getLogger(__name__)
_SECONDS = 6
_WORDS = re.compile(r"(?:\\(?:text|textbf|textit|mathrm)\{)?\s*([^\W\d_]{3,}(?: [^\W\d_]+)*)\s*\}?")
_TOLD_APART = ("Integer(", "words ")
"""Forms that differ wherever their texts do."""
_lock = threading.Lock()
_child: _Child | None = None


def same_answer(votes: str) -> Callable[[str, str], bool] | None:
    """The test by which answers that differ as texts may be one; None for `votes="equal"`.

    Raises:
        UnknownNameError: neither "equal" nor "math".
        TTSError: math-verify is not installed.
    """
    if votes == "equal":
        return None
    if votes != "math":
        raise UnknownNameError.of("votes", votes, ("equal", "math"))
    try:
        import math_verify  # noqa: F401
    except ImportError as error:
        raise TTSError("votes='math' needs math-verify: pip install 'tts-generate[math]'.") from error
    return equivalent


@lru_cache(maxsize=1_000_000)
def equivalent(one: str, other: str) -> bool:
    r"""Whether two answers are the same mathematics, or the same words; cached, safe in threads.

    >>> equivalent("0.5", r"\frac{1}{2}"), equivalent("3", "4"), equivalent("East", r"\text{east}")
    (True, False, True)
    """
    if one == other:
        return True
    forms = _form(one), _form(other)
    if forms[0] == forms[1] or any(all(form.startswith(kind) for form in forms) for kind in _TOLD_APART):
        return forms[0] == forms[1] != ""
    if "" in forms:
        return False
    verdict = _ask(*sorted((one, other)))
    if verdict not in (True, False, None):
        logger.debug("%r and %r cannot be compared as mathematics: %s", one, other, verdict)
    return verdict is True


@lru_cache(maxsize=1_000_000)
def _form(answer: str) -> str:
    """What math-verify makes of an answer, as text: answers of one form are the same. "": it takes too long over it.

    Words are their letters in order; math-verify takes them for products, in which listen is silent.
    """
    if words := _WORDS.fullmatch(answer):
        return f"words {words[1].casefold()}"
    form = _ask(answer)
    return "" if form is None else form or f"text {answer}"


class Partition:
    r"""Answers of one question in groups that are one answer each, whatever the order in which they are given.

    Answers of one form (what math-verify reads: 1/2 and \frac12) are together; of two forms math-verify says whether
    they are equal, and `grouped` makes groups of that.

    >>> found = Partition(["50", "0.5", r"50\%", "50", "50", r"\frac12"])
    >>> [found.head(answer) for answer in ("50", "0.5", r"50\%", r"\frac12", "1/2", "3")]
    ['50', '0.5', '50', '0.5', '0.5', '3']

    Args:
        answers: every answer as often as it was given.
    """

    def __init__(self, answers: Iterable[str]) -> None:
        counts = Counter(answers)
        forms: dict[str, list[str]] = {}
        for answer in counts:
            forms.setdefault(_form(answer) or f"slow {answer}", []).append(answer)
        names = {form: min(texts, key=lambda text: (-counts[text], text)) for form, texts in forms.items()}
        votes = {names[form]: sum(counts[text] for text in texts) for form, texts in forms.items()}
        groups = grouped(votes, equivalent)
        self._of_form = {form: groups[name] for form, name in names.items()}
        self._heads = {text: self._of_form[form] for form, texts in forms.items() for text in texts}
        self._ranked = list(dict.fromkeys(groups.values()))

    def head(self, answer: str) -> str:
        """The name of an answer's group; one that was not given joins the largest group whose name it equals."""
        if answer in self._heads:
            return self._heads[answer]
        form = _form(answer)
        if form in self._of_form:
            return self._of_form[form]
        return next((head for head in self._ranked if equivalent(head, answer)), answer)


class FirstAlike:
    r"""Groups of answers in the order in which they come: one joins the first group whose name is the same answer.

    What a live run has, which cannot know what is still to come. A `Partition` of all of them differs only where an
    answer is ambiguous, as 50\% is beside 50 and 0.5.

    >>> found = FirstAlike(equivalent)
    >>> [found.head(answer) for answer in ("0.5", r"\frac12", "3", "0.50")]
    ['0.5', '0.5', '3', '0.5']
    """

    def __init__(self, same: Callable[[str, str], bool]) -> None:
        self.same = same
        self.names: list[str] = []

    def head(self, answer: str) -> str:
        """The name of an answer's group: its first member."""
        found = next((name for name in self.names if self.same(name, answer)), None)
        if found is None:
            self.names.append(answer)
        return answer if found is None else found


def grouped(votes: Mapping[str, int], same: Callable[[str, str], bool]) -> dict[str, str]:
    r"""The group of each answer, by the name of its first member; depends on neither order nor chance.

    An answer is ambiguous if it equals two that do not equal one another, as 50\% equals 50 and 0.5; the others fall
    into groups in which all are equal. An ambiguous one joins the group with most votes of those that it equals; one
    that equals ambiguous ones only joins the first of them that leads a group, or leads one. First is who has most
    votes, ties go by the text. Every two answers are compared once.

    Returns:
        Group by answer, groups with most votes (of answers that are not ambiguous) first.
    """

    def first(answer: str) -> tuple[int, str]:
        return -votes[answer], answer

    order = sorted(votes, key=first)
    near = {answer: {answer} for answer in order}
    for one, other in itertools.combinations(order, 2):
        if same(one, other):
            near[one].add(other)
            near[other].add(one)
    certain = [answer for answer in order if all(near[answer] <= near[other] for other in near[answer])]
    groups = {answer: min(near[answer].intersection(certain), key=first) for answer in certain}
    size = Counter({head: 0 for head in groups.values()})
    for answer, head in groups.items():
        size[head] += votes[answer]
    ranked = sorted(size, key=lambda head: (-size[head], head))
    for answer in order:
        if answer not in groups:
            groups[answer] = next((head for head in ranked if head in near[answer]), answer)
            if groups[answer] == answer:
                ranked.append(answer)
    return dict(sorted(groups.items(), key=lambda item: ranked.index(item[1])))


class _Child:
    """A process that compares answers, one line of JSON each way; `python -c`, so that no script is imported again."""

    def __init__(self) -> None:
        code = "from tts_generate.equivalence import serve; serve()"
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,  # Ctrl-C in a terminal is for us: it goes on with what it is asked
        )
        self.replies: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.warm = False
        self.reader = threading.Thread(target=self._read, daemon=True)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.replies.put(line)
        self.replies.put("")  # the end

    def end(self) -> None:
        """Kill it, and close what led to it."""
        self.process.kill()
        self.process.wait()
        self.reader.join()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            with suppress(OSError):  # a line that it did not take
                stream.close()

    def ask(self, answers: tuple[str, ...]) -> Any:
        """What `serve` replies; None if no reply came."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(answers) + "\n")
            self.process.stdin.flush()
            reply = self.replies.get(timeout=_SECONDS if self.warm else _SECONDS + 60)
        except (OSError, queue.Empty):
            reply = ""
        if not reply and not self.warm:
            self.end()
            raise TTSError(
                f"math-verify could not be run in a process of {sys.executable}; its standard error says why. votes="
                "'equal' does without it."
            )
        self.warm = True
        return json.loads(reply) if reply else None


def _ask(*answers: str) -> Any:
    """What the child says of one or two answers; None if it hangs, or is brought down."""
    global _child
    with _lock:
        if _child is not None and _child.process.poll() is not None:
            end()  # it was brought down by something else than a question
        if _child is None:
            _child = _Child()
            atexit.register(end)
        try:
            reply = _child.ask(answers)
        except TTSError:
            _child = None
            raise
        except BaseException:  # Ctrl-C: its reply is still to come, and would be taken for that to the next question
            end()
            raise
        if reply is None:
            end()
        return reply


def _forget() -> None:
    """In a forked process: the one that compares is its parent's, and so are its pipe, its replies and the lock."""
    global _child, _lock
    _child, _lock = None, threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def end() -> None:
    """End the process that compares answers, if there is one; the next question starts another."""
    global _child
    child, _child = _child, None
    if child is not None:
        child.end()


def serve() -> None:
    """What the child does until the parent goes: the form of one answer, the verdict on two, or why there is none."""
    from math_verify import parse, verify
    from sympy import srepr  # type: ignore[import-untyped]

    logging.disable(logging.CRITICAL)
    parsed: dict[str, Any] = {}

    def expression(text: str) -> Any:
        if text not in parsed:
            parsed[text] = parse(f"\\boxed{{{text}}}", parsing_timeout=2)
        return parsed[text]

    for line in sys.stdin:
        read = list(map(expression, json.loads(line)))
        reply: bool | str
        try:
            if len(read) == 2:
                reply = bool(verify(*read, timeout_seconds=2))
            else:
                form = "" if not read[0] or isinstance(read[0][0], str) else srepr(read[0][0])
                reply = "" if form in ("nan", "zoo") else form
        except Exception as error:  # sympy raises many kinds on what is not mathematics
            reply = repr(error) if len(read) == 2 else ""
        sys.stdout.write(json.dumps(reply) + "\n")
        sys.stdout.flush()
