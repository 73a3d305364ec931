"""The client of the Messages API: keys checked at the door, replies bounded, no key sent where a redirect points."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import anthropic
import httpx2

from tts_generate.arguments import key
from tts_generate.errors import InputError
from tts_generate.secret import Secret, without_secrets
from tts_generate.server.address import taken_apart

PATIENCE = httpx2.Timeout(900.0, connect=10.0)
"""For one reply; long enough for the longest that an agent may ask for, so that none has to be streamed."""
_BYTES = 1 << 24
"""Of one reply."""
_SECONDS = 1800.0
"""For the whole of one, however it trickles."""
_URL, _HEADERS = "ANTHROPIC_BASE_URL", "ANTHROPIC_CUSTOM_HEADERS"


def connected(retries: int) -> anthropic.Anthropic:
    """A client as the environment says.

    Raises:
        InputError: there is no key, or what there is cannot be used; no secret is in the message.
    """
    base, own = os.environ.get(_URL), None
    if base:
        base, own = taken_apart(base.strip())
    for line in os.environ.get(_HEADERS, "").splitlines():
        for word in line.partition(":")[2].split():
            key(f"{_HEADERS}: a header", word)
    client = _made(base or None, own, retries)
    if client.api_key is None and client.auth_token is None and client.credentials is None:
        raise InputError(
            "there is no key for the API: set ANTHROPIC_API_KEY, or search with --proposer command or parameters."
        )
    if client.api_key is not None:
        client.api_key = key("ANTHROPIC_API_KEY", client.api_key)
    if client.auth_token is not None:
        client.auth_token = key("ANTHROPIC_AUTH_TOKEN", client.auth_token)
    return client


def unconnected() -> anthropic.Anthropic:
    """A client that needs no key: something else answers its requests, and none is sent."""
    http = anthropic.DefaultHttpxClient(trust_env=False)
    return anthropic.Anthropic(api_key="none", base_url="http://localhost", max_retries=0, http_client=http)


def _made(base: str | None, own: Secret | None, retries: int) -> anthropic.Anthropic:
    """The client itself, with whatever the libraries look up in the environment."""

    def authorized(request: httpx2.Request) -> httpx2.Request:
        if own is not None:
            request.headers["Authorization"] = own
        return request

    try:
        http = anthropic.DefaultHttpxClient(
            follow_redirects=False,
            timeout=PATIENCE,
            auth=authorized,
            headers={"Accept-Encoding": "identity"},
            event_hooks={"response": [_bound]},
        )
        return anthropic.Anthropic(max_retries=retries, timeout=PATIENCE, base_url=base, http_client=http)
    except (ValueError, ImportError, httpx2.InvalidURL, anthropic.AnthropicError) as error:
        problem = type(error).__name__
        if isinstance(error, anthropic.AnthropicError):
            problem += without_secrets(f": {error}")
    raise InputError(  # here, so that it does not carry a proxy's password with it
        "the API cannot be reached as the environment says (ANTHROPIC_…, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY): "
        f"{problem}."
    )


def _bound(response: httpx2.Response) -> None:
    """Have a reply read within bounds; one that is packed, though that was not asked for, could unpack to anything."""
    if response.headers.get("content-encoding", "identity") != "identity":
        raise httpx2.DecodingError("the reply is packed, which was not asked for", request=response.request)
    assert isinstance(response.stream, httpx2.SyncByteStream)
    response.stream = _Bounded(response.stream, response.request)


class _Bounded(httpx2.SyncByteStream):
    """A reply's bytes, no more of them and no longer than a message takes."""

    def __init__(self, stream: httpx2.SyncByteStream, request: httpx2.Request) -> None:
        self._stream, self._request = stream, request

    def __iter__(self) -> Iterator[bytes]:
        size, end = 0, time.monotonic() + _SECONDS
        for piece in self._stream:
            size += len(piece)
            if size > _BYTES or time.monotonic() > end:
                raise httpx2.ReadError(
                    f"a reply of over {_BYTES:,} bytes or {_SECONDS:g} seconds", request=self._request
                )
            yield piece

    def close(self) -> None:
        """Close the connection's end of it."""
        self._stream.close()
