"""The proxy's addresses, and what may come in: bounded, and refused in OpenAI's words."""

from __future__ import annotations

import asyncio
import hmac
import json
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, suppress
from typing import Any, TypeVar

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from tts_generate.errors import TTSError
from tts_generate.serve import responses
from tts_generate.serve.refusal import Refusal, refusal_of
from tts_generate.serve.request import client_request
from tts_generate.serve.responder import Bounds, Reply, Responder
from tts_generate.server.question import Served
from tts_generate.strict_json import parse_json

_HEARTBEAT = 10.0
"""Seconds of silence after which a stream says that it is there."""
_GONE = 499
"""The status of what nobody reads any more."""
_ROUTES = "There are POST /v1/chat/completions, POST /v1/completions, GET /v1/models and GET /health."
T = TypeVar("T")


class ProxyApp:
    """The routes to one responder, as an ASGI application.

    Args:
        responder: where requests are answered.
        name: what the model is called here.
        bounds: what may come in.
    """

    def __init__(self, responder: Responder, name: str, bounds: Bounds) -> None:
        self.responder, self.name, self.bounds, self.urls = responder, name, bounds, responder.settings.model.urls
        routes = [
            Route("/health", self._health, methods=["GET"]),
            Route("/v1/models", self._models, methods=["GET"]),
            Route("/v1/chat/completions", self._chat, methods=["POST"]),
            Route("/v1/completions", self._completions, methods=["POST"]),
        ]
        handlers = {kind: self._refused for kind in (TTSError, HTTPException, ClientDisconnect, Exception)}
        self._app = Starlette(routes=routes, exception_handlers=handlers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request; one that asks something is in flight until its last byte is sent."""
        asks = scope["type"] == "http" and scope["method"] == "POST"
        self.responder.in_flight += asks
        try:
            await self._app(scope, receive, send)
        finally:
            self.responder.in_flight -= asks

    async def _health(self, request: Request) -> Response:
        there = self.responder.connection.answering
        if not there:
            with suppress(TTSError):
                await self.responder.look()
            there = self.responder.connection.answering
        said = {
            "status": "ok" if there else "no upstream answers",
            "upstreams": there,
            "requests": self.responder.in_flight,
        }
        return _json(said, 200 if there else 503)

    async def _models(self, request: Request) -> Response:
        self._check_key(request)
        entry = {"id": self.name, "object": "model", "created": 0, "owned_by": "tts-generate"}
        return _json({"object": "list", "data": [entry]})

    async def _chat(self, request: Request) -> Response:
        return await self._answered(request, chat=True)

    async def _completions(self, request: Request) -> Response:
        return await self._answered(request, chat=False)

    async def _answered(self, request: Request, *, chat: bool) -> Response:
        """An answer, or the beginning of a stream."""
        self._check_key(request)
        if self.responder.in_flight > self.bounds.max_requests:
            most = f"{self.bounds.max_requests} requests are in flight, which is all that are taken; come again."
            raise Refusal(most, 429, headers={"retry-after": "1"})
        body = await self._body(request)
        asked = client_request(body, self.responder.settings.model.tokenizer, self.name, chat=chat)
        waves: asyncio.Queue[Served | None] = asyncio.Queue()
        reply = await self.responder.take(asked, waves.put_nowait)
        if asked.stream:
            return _Events(self._chunks(reply, waves))
        if await while_there(request.receive, self.responder.answer(reply)) is None:
            raise ClientDisconnect
        return _json(responses.whole(reply, self.name, self.urls))

    async def _chunks(
        self, reply: Reply, waves: asyncio.Queue[Served | None]
    ) -> AsyncGenerator[dict[str, Any] | None, None]:
        """The chunks of a stream; None where there is nothing to say for a while."""
        answer = asyncio.ensure_future(self.responder.answer(reply))
        answer.add_done_callback(lambda done: waves.put_nowait(None))
        try:
            yield responses.begun(reply, self.name)
            while not (answer.done() and waves.empty()):
                try:
                    question = await asyncio.wait_for(waves.get(), _HEARTBEAT)
                except TimeoutError:
                    yield None
                    continue
                if question is not None and question.wave:
                    yield responses.progress(reply, self.name, question)
            try:
                await answer
            except Exception as error:
                yield refusal_of(error, self.urls).body
                if not isinstance(error, TTSError):
                    raise
            else:
                for chunk in responses.chunks(reply, self.name, self.urls):
                    yield chunk
        finally:
            answer.cancel()
            await asyncio.gather(answer, return_exceptions=True)

    def _check_key(self, request: Request) -> None:
        """Refuse whoever does not have the key."""
        if self.bounds.key is None:
            return
        kind, _, sent = request.headers.get("authorization", "").partition(" ")
        same = hmac.compare_digest(sent.strip().encode(), self.bounds.key.encode())
        if kind.lower() != "bearer" or not same:
            what = "another key than this server's" if sent else "no key"
            raise Refusal(f"the request has {what}; send it as 'Authorization: Bearer KEY'.", 401)

    async def _body(self, request: Request) -> Any:
        """The JSON of a request; that a page of somebody else's can make a browser send is none."""
        if "json" not in (kind := request.headers.get("content-type", "")):
            raise Refusal(f"the content-type must be application/json, got {kind!r:.80}.", 415)
        body, most, seconds = b"", self.bounds.max_body, self.bounds.body_seconds
        length = request.headers.get("content-length", "")
        try:
            async with asyncio.timeout(seconds):
                async for piece in request.stream():
                    body += piece
                    if len(body) > most or (length.isdecimal() and int(length) > most):
                        raise Refusal(f"the body has more than the {most:,} bytes that are read; send less.", 413)
        except TimeoutError:
            raise Refusal(f"the body did not come within {seconds:g} seconds; send it again.", 408) from None
        found = parse_json(body, "the body", largest=most)
        if b"\\u" in body:
            _check_pairs(found)
        return found

    async def _refused(self, request: Request, error: Exception) -> Response:
        """What a client is told of an error."""
        if isinstance(error, ClientDisconnect):
            return Response(status_code=_GONE)
        if isinstance(error, HTTPException):
            said = f"{request.method} {request.url.path:.80} is not here: {error.detail}. " + _ROUTES
            error = Refusal(said, error.status_code, headers=error.headers)
        refusal = refusal_of(error, self.urls)
        return _json(refusal.body, refusal.status, refusal.headers)


def _json(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """As ASCII: a server's text may have halves of surrogate pairs."""
    return Response(json.dumps(value), status, headers, "application/json")


def _check_pairs(value: Any) -> None:
    """Refuse halves of surrogate pairs, which no tokenizer reads."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise Refusal("the body: a text has half of a surrogate pair; send whole characters.") from None


class _Events(Response):
    """A stream of events, called off when its reader goes away."""

    def __init__(self, chunks: AsyncGenerator[dict[str, Any] | None, None]) -> None:
        super().__init__(media_type="text/event-stream", headers={"cache-control": "no-cache"})
        del self.headers["content-length"]
        self._chunks = chunks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them, as they come."""

        async def sent() -> None:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            async with aclosing(self._chunks) as chunks:
                async for chunk in chunks:
                    event = ": still here\n\n" if chunk is None else f"data: {json.dumps(chunk)}\n\n"
                    await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
            await send({"type": "http.response.body", "body": b"data: [DONE]\n\n"})

        await while_there(receive, sent())


async def while_there(receive: Receive, work: Coroutine[Any, Any, T]) -> T | None:
    """What work comes to; None where the client has gone, for whom it is called off."""

    async def gone() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    doing, leaving = asyncio.ensure_future(work), asyncio.ensure_future(gone())
    try:
        await asyncio.wait([doing, leaving], return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        doing.cancel()
        leaving.cancel()
        await asyncio.gather(doing, leaving, return_exceptions=True)
