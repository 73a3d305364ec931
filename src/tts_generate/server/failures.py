"""What kinds of failure there are, and a server's own words for them."""

from __future__ import annotations

import json
import math
import time
from email.utils import parsedate_to_datetime
from typing import Any

from tts_generate.errors import ServerError
from tts_generate.secret import without_secrets

_NEVER = {501, 505}
"""Status codes of 500 and more by which a server says what it cannot do at all."""
_PASSING = {408, 409, 425, 429, *range(500, 600)} - _NEVER
"""Status codes that may be gone when the request is sent again."""
_TOO_MANY = 429
_BUSY = {_TOO_MANY, *range(502, 600)} - _NEVER
"""Those by which a server, or what stands before it, says that it answers nobody."""
_STATUS = range(400, 600)
_LONGEST = 500
"""Characters that are shown of what a server says."""


class PassingError(ServerError):
    """A failure that may be gone when the request is sent again: of the network, or of a server in trouble."""

    def __init__(
        self, message: str, *, retry_after: float = 0.0, limited: bool = False, answered: bool = False
    ) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to be left alone."""
        self.limited = limited
        """Whether the server only said that it has enough to do."""
        self.answered = answered
        """Whether it is there and well, for all that is known, and only this answer is none."""


class GarbledError(PassingError):
    """The server is there, and what it answered is not what a completions endpoint sends."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the response is not what a completions endpoint sends: {what}", answered=True)


class RefusedError(ServerError):
    """The server will not do what it was asked, however often; `status` is its HTTP status code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


def failure(status: int, payload: bytes, retry_after: str | None, location: str | None) -> ServerError:
    """The error of a response that is not 200."""
    text = payload.decode(errors="replace")
    if location is not None and status not in _PASSING:
        return RefusedError(
            f"HTTP {status}: it redirects to {shown(location)}; give that address, if it is right", status
        )
    try:
        told = json.loads(text)
    except (ValueError, RecursionError):
        told = text
    return said(told, text, status, seconds(retry_after))


def said(told: Any, text: str, status: int, retry_after: float = 0.0) -> ServerError:
    """An error in the server's own words, which are in `told` or, if they are not found there, all of `text`."""
    while isinstance(told, dict):
        told = next((told[name] for name in ("error", "message", "detail") if told.get(name)), None)
    message = f"HTTP {status}: {shown(told if isinstance(told, str) else text)}"
    if status in _PASSING:
        busy = status in _BUSY
        return PassingError(message, retry_after=retry_after, limited=status == _TOO_MANY, answered=not busy)
    return RefusedError(message, status)


def status_in(error: Any) -> int:
    """The status of an error that came in a stream; 500 where it has none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and code in _STATUS else 500


def shown(text: str, most: int = _LONGEST) -> str:
    """The beginning of a stranger's text; secrets are taken out before it is cut, so that no half of one is left."""
    return without_secrets(text)[:most]


def seconds(retry_after: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 without one that can be read.

    >>> seconds("1.5"), seconds(None), seconds("soon"), seconds("Wed, 21 Oct 2015 07:28:00 GMT"), seconds("nan")
    (1.5, 0.0, 0.0, 0.0, 0.0)
    """
    if retry_after is None:
        return 0.0
    try:
        told = float(retry_after)
    except ValueError:
        try:
            told = parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(told) else max(0.0, told)
