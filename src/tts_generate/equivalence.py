"""Mathematical equivalence of answers, by math-verify: 1/2 and 0.5 are one answer, in votes and in grading.

math-verify guards itself against endless simplification by a signal, which works in a main thread only. It runs in a
child process of its own here, where it has one: any thread may ask, an answer that hangs costs a few seconds and is
then held to be different, and every verdict is kept.
"""

from __future__ import annotations

import logging
import multiprocessing
import threading
from collections.abc import Callable
from functools import lru_cache
from multiprocessing.connection import Connection
from typing import Any, Literal

from tts_generate.errors import TTSError, UnknownNameError

Votes = Literal["equal", "math"]
"""How answers are told apart: as texts, or as mathematics."""

logger = logging.getLogger(__name__)
_SECONDS = 6
_lock = threading.Lock()
_child: tuple[Any, Connection] | None = None


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


def _ask(one: str, other: str) -> bool:
    global _child
    if _child is None:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(theirs,), daemon=True)
        process.start()
        theirs.close()
        _child = process, ours
    process, connection = _child
    try:
        connection.send((one, other))
        if connection.poll(_SECONDS + 60 * (process.exitcode is None and not _warm.is_set())):
            verdict = connection.recv()
            _warm.set()
            if verdict in (True, False):
                return bool(verdict)
            logger.debug("%r and %r cannot be compared as mathematics: %s", one, other, verdict)
            return False
    except (EOFError, OSError):
        pass
    process.kill()
    process.join()
    _child = None
    _warm.clear()
    return False


_warm = threading.Event()


def _serve(connection: Connection) -> None:
    """The child: verdicts until the parent goes."""
    from math_verify import parse, verify

    logging.disable(logging.CRITICAL)
    parsed: dict[str, Any] = {}

    def expression(text: str) -> Any:
        if text not in parsed:
            parsed[text] = parse(f"\\boxed{{{text}}}", parsing_timeout=2)
        return parsed[text]

    while True:
        try:
            one, other = connection.recv()
        except (EOFError, OSError):
            return
        try:
            connection.send(bool(verify(expression(one), expression(other), timeout_seconds=2)))
        except Exception as error:  # sympy raises many kinds on what is not mathematics
            connection.send(repr(error))
