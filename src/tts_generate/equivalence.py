"""Mathematical equivalence of answers, by math-verify: 1/2 and 0.5 are one answer, in votes and in grading.

math-verify guards itself against endless simplification by a signal, which works in a main thread only. It runs in a
child process of its own here, where it has one: any thread may ask, an answer that hangs costs a few seconds and is
then held to be different, and every verdict is kept.
"""

from __future__ import annotations

import atexit
import json
import logging
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, Literal

from tts_generate.errors import TTSError, UnknownNameError

Votes = Literal["equal", "math"]
"""How answers are told apart: as texts, or as mathematics."""

logger = logging.getLogger(__name__)
_SECONDS = 6
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
    r"""Whether two answers are the same mathematics; cached, safe in threads.

    >>> equivalent("0.5", r"\frac{1}{2}"), equivalent("3", "4")
    (True, False)
    """
    one, other = sorted((one, other))
    with _lock:
        return _ask(one, other)


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

    def ask(self, one: str, other: str) -> Any:
        """True, False, or a text that says why they cannot be compared; None if no answer came."""
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps([one, other]) + "\n")
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


def _ask(one: str, other: str) -> bool:
    global _child
    if _child is None:
        _child = _Child()
        atexit.register(end)
    try:
        verdict = _child.ask(one, other)
    except TTSError:
        _child = None
        raise
    if verdict is None:  # it hangs, or brought the process down
        end()
    if verdict not in (True, False, None):
        logger.debug("%r and %r cannot be compared as mathematics: %s", one, other, verdict)
    return verdict is True


def end() -> None:
    """End the process that compares answers, if there is one; the next question starts another."""
    global _child
    child, _child = _child, None
    if child is not None:
        child.end()


def serve() -> None:
    """What the child does: verdicts until the parent goes."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    parsed: dict[str, Any] = {}

    def expression(text: str) -> Any:
        if text not in parsed:
            parsed[text] = parse(f"\\boxed{{{text}}}", parsing_timeout=2)
        return parsed[text]

    for line in sys.stdin:
        one, other = json.loads(line)
        try:
            verdict: bool | str = bool(verify(expression(one), expression(other), timeout_seconds=2))
        except Exception as error:  # sympy raises many kinds on what is not mathematics
            verdict = repr(error)
        sys.stdout.write(json.dumps(verdict) + "\n")
        sys.stdout.flush()
