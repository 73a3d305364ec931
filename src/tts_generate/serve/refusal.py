"""What a client is told where it is not answered, in the shape of OpenAI's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tts_generate.errors import InputError, ServerError, TTSError, UnsupportedError
from tts_generate.server.failures import RefusedError

_THEIRS = (400, 413, 422)
"""Status codes by which a server says that what the client asked cannot be."""

_KINDS = {401: "authentication_error", 429: "rate_limit_error"}


class Refusal(TTSError):
    """A request that is not answered: `status` is the HTTP status code, `param` the field it is about."""

    def __init__(
        self, message: str, status: int = 400, *, param: str | None = None, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(message)
        self.status, self.param, self.headers = status, param, dict(headers or {})

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI writes it."""
        kind = _KINDS.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
        return {"error": {"message": str(self), "type": kind, "param": self.param, "code": self.status}}


def refusal_of(error: Exception, urls: Sequence[str] = ()) -> Refusal:
    """What a client is told of an error; which servers stand behind this one, at `urls`, is not its business.

    >>> refusal_of(ServerError("http://10.0.0.7/v1 cannot be reached"), ["http://10.0.0.7/v1"]).body["error"]["message"]
    'upstream 1 cannot be reached'
    """
    if isinstance(error, Refusal):
        return error
    message, status = str(error), 500
    if isinstance(error, (InputError, UnsupportedError)):
        status = 400
    elif isinstance(error, ServerError):
        status = 503
        if isinstance(error, RefusedError):
            status = 400 if error.status in _THEIRS else 502
    elif not isinstance(error, TTSError):
        message = f"{type(error).__name__}: this server's log says more"
    for number, url in enumerate(urls, 1):
        message = message.replace(url, f"upstream {number}")
    return Refusal(message, status)
