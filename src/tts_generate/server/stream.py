"""One completion over HTTP: the request, the events of its stream, and what kinds of failure there are."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

import httpx2

from tts_generate.errors import ServerError

_PASSING = {408, 409, 425, 429, 500, 502, 503, 504}
"""Status codes that may be gone when the request is sent again."""
_TOO_MANY = 429


class PassingError(ServerError):
    """A failure that may be gone when the request is sent again: of the network, or of a server in trouble."""

    def __init__(self, message: str, *, retry_after: float = 0.0, limited: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Seconds that the server asked to be left alone."""
        self.limited = limited
        """Whether the server only said that it has enough to do."""


class RefusedError(ServerError):
    """The server will not do what it was asked, however often; `status` is its HTTP status code."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True, slots=True)
class Completion:
    """What a server answered to one request."""

    text: str
    finish_reason: str
    """"stop" (it ended, or said a stop string) or "length"."""
    stop_reason: str | int | None
    """The stop string or token, from servers that say."""
    token_ids: tuple[int, ...] | None
    """Ids of the decoded tokens, from servers that tell."""
    logprobs: tuple[float, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int
    """Tokens of the prompt that the server found in its prefix cache, if it says."""


@dataclass(slots=True)
class _Parts:
    """The pieces of a completion as they come."""

    text: list[str] = field(default_factory=list)
    ids: list[int] | None = None
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)

    def add(self, event: Any) -> None:
        """Take one event; what is not there is passed over."""
        if not isinstance(event, dict):
            raise PassingError(f"expected a JSON object, got {str(event)[:80]!r}")
        if event.get("error") is not None:
            raise _said(event, int(_code(event["error"])))
        self.usage = event.get("usage") or self.usage
        for choice in event.get("choices") or []:
            self.text.append(choice.get("text") or "")
            if choice.get("token_ids") is not None:
                self.ids = [*(self.ids or []), *choice["token_ids"]]
            told = choice.get("logprobs") or {}
            self.logprobs += told.get("token_logprobs") or []
            self.finish_reason = choice.get("finish_reason") or self.finish_reason
            stop_reason = choice.get("stop_reason", choice.get("matched_stop"))  # vLLM's word, SGLang's word
            self.stop_reason = self.stop_reason if stop_reason is None else stop_reason

    def whole(self) -> Completion:
        """The completion, if its end has come."""
        if self.finish_reason is None:
            raise PassingError(f"the response was cut off after {len(''.join(self.text))} characters")
        if self.finish_reason not in ("stop", "length"):
            raise PassingError(f"the server gave up with finish_reason {self.finish_reason!r}")
        details = self.usage.get("prompt_tokens_details") or {}
        return Completion(
            text="".join(self.text),
            finish_reason=self.finish_reason,
            stop_reason=self.stop_reason,
            token_ids=None if self.ids is None else tuple(self.ids),
            logprobs=tuple(self.logprobs),
            prompt_tokens=self.usage.get("prompt_tokens"),
            completion_tokens=self.usage.get("completion_tokens"),
            cached_tokens=details.get("cached_tokens") or 0,
        )


async def complete(client: httpx2.AsyncClient, url: str, body: Mapping[str, Any]) -> Completion:
    """Ask `url`/completions and hear the answer to its end; cancelling the task closes the connection.

    Raises:
        PassingError: it may work when asked again.
        RefusedError: it will not.
    """
    parts = _Parts()
    try:
        async with client.stream("POST", f"{url}/completions", json=body) as response:
            if response.status_code != httpx2.codes.OK:
                raise _failure(response, await response.aread())
            if "json" in response.headers.get("content-type", ""):  # a server that does not stream
                parts.add(json.loads(await response.aread()))
            else:
                async for line in response.aiter_lines():
                    data = line.removeprefix("data:").strip() if line.startswith("data:") else ""
                    if data and data != "[DONE]":
                        parts.add(json.loads(data))
    except httpx2.RequestError as error:
        raise PassingError(f"{type(error).__name__}{f': {error}' if str(error) else ''}") from error
    except (ValueError, TypeError, AttributeError) as error:
        raise PassingError(f"the response is not what a completions endpoint sends: {error}") from error
    return parts.whole()


async def list_models(client: httpx2.AsyncClient, url: str) -> list[dict[str, Any]]:
    """What `url`/models lists; [] from a server that lists nothing.

    Raises:
        PassingError: the server cannot be reached.
    """
    try:
        response = await client.get(f"{url}/models")
        found = response.json().get("data", []) if response.status_code == httpx2.codes.OK else []
    except httpx2.RequestError as error:
        raise PassingError(f"{type(error).__name__}{f': {error}' if str(error) else ''}") from error
    except (ValueError, AttributeError):
        return []
    return [entry for entry in found if isinstance(entry, dict) and "id" in entry]


def _failure(response: httpx2.Response, payload: bytes) -> ServerError:
    """The error of a response that is not 200."""
    try:
        told = json.loads(payload)
    except ValueError:
        told = payload.decode(errors="replace")
    return _said(told, response.status_code, _seconds(response.headers.get("retry-after")))


def _said(told: Any, status: int, retry_after: float = 0.0) -> ServerError:
    """An error in the server's own words."""
    while isinstance(told, dict):
        told = next((told[name] for name in ("error", "message", "detail") if told.get(name)), str(told))
    message = f"HTTP {status}: {str(told)[:500]}"
    if status in _PASSING:
        return PassingError(message, retry_after=retry_after, limited=status == _TOO_MANY)
    return RefusedError(message, status)


def _code(error: Any) -> int:
    """The status of an error that came in a stream; 500 where it has none."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and code >= httpx2.codes.BAD_REQUEST else 500


def _seconds(retry_after: str | None) -> float:
    """Seconds of a Retry-After header, a number or a date; 0 without one that can be read.

    >>> _seconds("1.5"), _seconds(None), _seconds("soon"), _seconds("Wed, 21 Oct 2015 07:28:00 GMT")
    (1.5, 0.0, 0.0, 0.0)
    """
    if retry_after is None:
        return 0.0
    try:
        return max(0.0, float(retry_after))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError):
        return 0.0
