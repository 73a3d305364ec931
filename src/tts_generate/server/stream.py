"""One request over HTTP: what is sent, the events of its stream, and how much and how long of it is heard."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import httpx2

from tts_generate.errors import ServerError
from tts_generate.server.failures import GarbledError, PassingError, failure
from tts_generate.server.reply import Completion, Parts, ServedModel, models

_LINE = re.compile(rb"\r\n|\n|\r")
"""How lines of an event stream end; no other character ends one."""
_ANY, _BY_TOKEN, _BY_SENT = 1 << 20, 1 << 12, 4
"""Bytes that a reply may have in any case, for each token asked for, and for each byte sent, which it may repeat."""
_LISTED, _COMPLAINT = 1 << 22, 1 << 16
"""Bytes of a list of models, and those that are read of what a server says is wrong."""
_MORE_PROMPT = 2000
"""Tokens that a server may put before a prompt; of the prompt, a byte is one at most."""
_STARTING = (502, 503, 504)
"""Status codes by which it, or what stands before it, says that it is not there yet."""
_USUAL = 600.0
"""Seconds that a client waits which has no limit."""


class CalledOffError(asyncio.CancelledError):
    """A request that was called off while its answer came; `heard` is what had come of it."""

    def __init__(self, heard: Completion) -> None:
        super().__init__()
        self.heard = heard


async def complete(
    client: httpx2.AsyncClient,
    url: str,
    body: Mapping[str, Any],
    begin: Callable[[Parts], None] = lambda parts: None,
    heard: Callable[[], None] = lambda: None,
) -> Completion:
    """Ask `url`/completions and hear the answer to its end; cancelling the task closes the connection.

    It may take as long without a token as the client waits for a byte, and in all twice that, and a sixtieth of it for
    each token asked for. An answer that is not streamed may take half of all that. `begin` is told where it is put
    together, and `heard` whenever more of it has come.

    Raises:
        PassingError: it may work when asked again.
        RefusedError: it will not.
        ServerError: there are more tokens than were asked for.
        CalledOffError: the task was cancelled.
    """
    content, headers = json.dumps(body).encode(), {"content-type": "application/json"}
    limits, streamed = client.timeout, body.get("stream", False)
    if not streamed:  # nothing is heard until the end, and the watch below knows how long that may take
        limits = httpx2.Timeout(limits.connect, read=None, pool=None)
    request = client.build_request("POST", f"{url}/completions", content=content, headers=headers, timeout=limits)
    sent, content = len(content), b""  # the variables of a traceback do not hold it
    max_tokens = body.get("max_tokens")
    most_tokens, count = max_tokens if isinstance(max_tokens, int) else _ANY, body.get("n", 1)
    parts = Parts(most_tokens, sent + _MORE_PROMPT)
    if count > 1:
        parts.each = [Parts(most_tokens, parts.prompt_tokens) for _ in range(count)]
    begin(parts)
    patience = client.timeout.read or _USUAL
    now = asyncio.get_running_loop().time
    most = patience * (2 + parts.max_tokens / 60)
    end, first = now() + most, now() + (patience if streamed else most / 2)
    problem: ServerError
    try:
        async with (
            asyncio.timeout_at(first) as watch,
            contextlib.aclosing(await client.send(request, stream=True)) as response,
        ):
            async for data in _events(response, _ANY + _BY_TOKEN * most_tokens * count + _BY_SENT * sent):
                if parts.add(data):
                    watch.reschedule(min(end, now() + patience))
                    heard()
        return parts.whole()
    except asyncio.CancelledError:
        raise CalledOffError(parts.so_far()) from None
    except ServerError as error:
        problem = error
    except (httpx2.RequestError, TimeoutError) as error:
        problem = _problem(error)
    raise problem.with_traceback(None)  # which does not carry what was being sent with it


async def list_models(client: httpx2.AsyncClient, url: str) -> list[ServedModel]:
    """What `url`/models lists; [] from a server that has no such list.

    Raises:
        PassingError: the server cannot be reached.
        GarbledError: it lists what are no models.
    """
    try:
        async with asyncio.timeout(client.timeout.read or _USUAL), client.stream("GET", f"{url}/models") as response:
            if response.status_code in _STARTING:
                raise PassingError(f"HTTP {response.status_code}")
            if response.status_code != httpx2.codes.OK:
                return []
            return models(b"".join([piece async for piece in _bounded(response, _LISTED)]))
    except (httpx2.RequestError, TimeoutError) as error:
        problem = _problem(error)
    raise problem  # which does not carry what was being sent with it


def _problem(error: Exception) -> ServerError:
    if isinstance(error, TimeoutError):
        return PassingError("ReadTimeout: no token for as long as timeout= says, or too few in all")
    said = f"{type(error).__name__}{f': {error}' if str(error) else ''}"
    return PassingError(said, answered=isinstance(error, httpx2.DecodingError))


async def _events(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    """The data of a stream's events; a server that does not stream sends one."""
    if response.status_code != httpx2.codes.OK:
        payload = b""
        async for piece in response.aiter_bytes():
            payload += piece
            if len(payload) > _COMPLAINT:
                break
        told = response.headers
        raise failure(response.status_code, payload[:_COMPLAINT], told.get("retry-after"), told.get("location"))
    if "json" in response.headers.get("content-type", ""):
        yield b"".join([piece async for piece in _bounded(response, most)])
        return
    data: list[bytes] = []
    async for line in _lines(response, most):
        if line.startswith(b"data:"):
            data.append(line[5:].strip())
        elif not line and data:
            event = b"\n".join(data)
            data = []
            if event != b"[DONE]":
                yield event


async def _lines(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    """The lines of a stream, and an empty one at its end."""
    pending: list[bytes] = []
    returned = False
    async for piece in _bounded(response, most):
        first, *others = _LINE.split(piece[1:] if returned and piece.startswith(b"\n") else piece)
        returned = piece.endswith(b"\r")
        pending.append(first)
        for other in others:
            yield b"".join(pending)
            pending = [other]
    for line in (b"".join(pending), b""):
        yield line


async def _bounded(response: httpx2.Response, most: int) -> AsyncIterator[bytes]:
    """A response's bytes as they come, unpacked."""
    size = 0
    async for piece in response.aiter_bytes():
        size += len(piece)
        if size > most:
            raise GarbledError(f"more than {most:,} bytes")
        yield piece
