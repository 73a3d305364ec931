"""A small completions server that speaks token ids, as vLLM does, and really decodes: for tests and measurements.

    python tools/token_server.py --port 8100 [--batch 16]

It serves the shipped tiny model. Requests that wait are decoded together, up to `batch` at a time; a client that goes
away is dropped at the next token. One process, one thread for the model, no prefix cache. As vLLM does, it looks for
stop strings in the text of the request alone, leaves them out of it, takes no notice of fields that it does not know,
and answers 400 to values that cannot be.
"""

from __future__ import annotations

import contextlib
import json
import queue
import select
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Annotated, Any

import torch
import typer
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tts_generate import tiny

MODEL = "tiny"


@dataclass(eq=False)
class Request:
    """A request being decoded; events of its stream go through `events`, None ends it."""

    ids: list[int]
    max_tokens: int
    stop: list[str]
    greedy: bool
    processors: LogitsProcessorList
    generator: torch.Generator
    said: list[int] = field(default_factory=list)
    text: str = ""
    told: int = 0
    """Characters of it that were sent."""
    events: queue.Queue[dict[str, Any] | None] = field(default_factory=queue.Queue)
    gone: bool = False

    @classmethod
    def of(cls, body: dict[str, Any], ids: list[int]) -> Request:
        """A request from its JSON."""
        temperature, top_k = float(body.get("temperature", 1.0)), int(body.get("top_k", -1))
        processors = LogitsProcessorList()
        if temperature > 0:
            processors.append(TemperatureLogitsWarper(temperature))
        if top_k > 0:
            processors.append(TopKLogitsWarper(top_k))
        if body.get("top_p", 1.0) < 1:
            processors.append(TopPLogitsWarper(body["top_p"]))
        if body.get("min_p", 0.0) > 0:
            processors.append(MinPLogitsWarper(body["min_p"]))
        generator = torch.Generator()
        generator.manual_seed(body["seed"]) if body.get("seed") is not None else generator.seed()
        return cls(ids, int(body["max_tokens"]), body.get("stop") or [], temperature == 0, processors, generator)


class TokenServer:
    """The model, its thread and its HTTP server on a free port of this machine; `with` it.

    `requests` are the bodies it was sent, `decoded` the tokens it decoded, `dropped` the clients that went away.
    `max_logprobs` is vLLM's option; `seeds=False` is vLLM on a CPU, which a seed ends: it answers nobody from then on.
    The model goes by `name`; with `tells_ids=False` it is an older server, which returns no token ids.
    """

    def __init__(
        self,
        port: int = 0,
        batch: int = 16,
        context: int = 512,
        pause: float = 0.0,
        max_logprobs: int = 20,
        seeds: bool = True,
        name: str = MODEL,
        tells_ids: bool = True,
    ) -> None:
        self.model, self.tokenizer = tiny.load()
        self.batch, self.context, self.pause, self.name, self.tells_ids = batch, context, pause, name, tells_ids
        self.max_logprobs, self.seeds, self.over, self.ended = max_logprobs, seeds, False, False
        self.waiting: queue.Queue[Request | None] = queue.Queue()
        self.requests: list[dict[str, Any]] = []
        self.in_flight: set[Request] = set()
        self.decoded = self.dropped = 0
        owner = self

        class Handler(_Handler):
            server_of = owner

        self.http = _Listening(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def __enter__(self) -> TokenServer:
        self._threads = [threading.Thread(target=work) for work in (self.http.serve_forever, self._decode)]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.http.shutdown()
        self.http.server_close()
        self.waiting.put(None)
        for thread in self._threads:
            thread.join()
        self.ended = True  # whoever still waits is answered nothing, as by a process that was killed
        self.http.hang_up()
        for request in list(self.in_flight):
            request.events.put(None)

    def _decode(self) -> None:
        """Decode what waits, together, again and again."""
        torch.set_num_threads(1)
        while (first := self.waiting.get()) is not None:
            rows = [first]
            with contextlib.suppress(queue.Empty):
                while len(rows) < self.batch:
                    more = self.waiting.get_nowait()
                    if more is None:
                        return
                    rows.append(more)
            for request in self._together(rows):
                request.events.put(None)

    @torch.inference_mode()
    def _together(self, rows: list[Request]) -> Iterator[Request]:
        """Decode rows side by side, yielding each as it ends."""
        width = max(len(row.ids) for row in rows)
        feed = torch.tensor([[0] * (width - len(row.ids)) + row.ids for row in rows])
        mask = torch.tensor([[0] * (width - len(row.ids)) + [1] * len(row.ids) for row in rows])
        cache = None
        while rows:
            positions = (mask.cumsum(-1) - 1).clamp(min=0)[:, -feed.shape[1] :]
            out = self.model(feed, attention_mask=mask, position_ids=positions, past_key_values=cache, logits_to_keep=1)
            cache = out.past_key_values
            tokens = [self._say(row, out.logits[n, -1:].float()) for n, row in enumerate(rows)]
            keep = [n for n, row in enumerate(rows) if tokens[n] is not None and not row.gone]
            for n, row in enumerate(rows):
                if n not in keep:
                    self.dropped += row.gone
                    yield row
            rows = [rows[n] for n in keep]
            if rows:
                cache.batch_select_indices(torch.tensor(keep))
                feed = torch.tensor([[tokens[n]] for n in keep])
                mask = torch.cat([mask[keep], torch.ones(len(keep), 1, dtype=mask.dtype)], dim=1)
            if self.pause:
                time.sleep(self.pause)

    def _say(self, row: Request, logits: torch.Tensor) -> int | None:
        """Draw a token, send it; None if it was the last."""
        if row.greedy:
            token = int(logits.argmax())
        else:
            scores = row.processors(torch.tensor([row.ids + row.said]), logits)
            token = int(torch.multinomial(scores.softmax(-1), 1, generator=row.generator))
        row.said.append(token)
        self.decoded += 1
        ended = token == self.tokenizer.eos_token_id
        row.text += "" if ended else " " + self.tokenizer.decode([token])
        places = {each: row.text.find(each) for each in row.stop if each in row.text}
        found = min(places, key=lambda each: places[each] + len(each), default=None)
        reason = "stop" if ended or found else "length" if len(row.said) >= row.max_tokens else None
        upto = places[found] if found else len(row.text)
        if not reason:  # what a stop string may leave out is not told yet
            upto -= max((len(each) - 1 for each in row.stop), default=0)
        text, row.told = row.text[row.told : upto], max(row.told, upto)
        choice = {
            "index": 0,
            "text": text,
            "token_ids": [token],
            "logprobs": {"token_logprobs": [float(logits.log_softmax(-1)[0, token])]},
            "finish_reason": reason,
            "stop_reason": found,
        }
        row.events.put(choice)
        return token if reason is None else None


def _usage(requests: list[Request]) -> dict[str, int]:
    """What several requests took that have one prompt."""
    return {"prompt_tokens": len(requests[0].ids), "completion_tokens": sum(len(each.said) for each in requests)}


_FITS: dict[str, Callable[[Any], bool]] = {
    "temperature": lambda value: value >= 0,
    "top_p": lambda value: 0 < value <= 1,
    "top_k": lambda value: isinstance(value, int) and value >= -1,
    "min_p": lambda value: 0 <= value <= 1,
    "repetition_penalty": lambda value: value > 0,
    "stop": lambda value: len(value) <= 4,
}
"""What vLLM takes."""


class _Listening(ThreadingHTTPServer):
    """A thread a connection; many may come at once."""

    request_queue_size = 128
    daemon_threads = True

    def __init__(self, address: tuple[str, int], handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(address, handler)
        self._connections: set[socket.socket] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        super().shutdown_request(request)
        self._connections.discard(request)

    def hang_up(self) -> None:
        """End all connections, those too that are kept for more requests."""
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


class _Handler(BaseHTTPRequestHandler):
    """/v1/models and /v1/completions."""

    server_of: TokenServer
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """The models there are."""
        entry = {"id": self.server_of.name, "object": "model", "max_model_len": self.server_of.context}
        self._reply(200, {"object": "list", "data": [entry]} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:
        """A completion, as a stream or whole."""
        served = self.server_of
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        served.requests.append(body)
        served.over |= body.get("seed") is not None and not served.seeds
        if served.over:
            self.close_connection = True
            return None
        prompt = body["prompt"]
        ids = prompt if isinstance(prompt, list) else served.tokenizer(prompt)["input_ids"]
        if body.get("model") != served.name:
            return self._reply(404, {"error": {"message": f"The model `{body.get('model')}` does not exist."}})
        if len(ids) + body["max_tokens"] > served.context:
            message = f"maximum context length is {served.context}, you asked for {len(ids)} + {body['max_tokens']}"
            return self._reply(400, {"error": {"message": message}})
        if wrong := next((name for name, fits in _FITS.items() if name in body and not fits(body[name])), None):
            return self._reply(400, {"error": {"message": f"{wrong} cannot be {body[wrong]!r}"}})
        if (asked := body.get("logprobs") or 0) > served.max_logprobs:
            message = f"Requested sample logprobs of {asked}, which is greater than max allowed: {served.max_logprobs}"
            return self._reply(400, {"error": {"message": message}})
        if body.get("stream_options") and not body.get("stream"):
            return self._reply(400, {"error": {"message": "Stream options can only be defined when `stream=True`."}})
        requests = [Request.of(body, ids) for _ in range(body.get("n", 1))]
        served.in_flight.update(requests)
        for request in requests:
            served.waiting.put(request)
        try:
            (self._stream if body.get("stream") else self._whole)(requests, body)
        except OSError:
            self.close_connection = True
            for request in requests:
                request.gone = True
        served.in_flight.difference_update(requests)

    def _next(self, request: Request) -> dict[str, Any] | None:
        event = request.events.get()
        if self.server_of.ended:
            raise ConnectionResetError
        return event

    def _stream(self, requests: list[Request], body: dict[str, Any]) -> None:
        """Send events as they come, of several requests one after the other."""
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for index, request in enumerate(requests):
            while (event := self._next(request)) is not None:
                self._chunk(f"data: {json.dumps({'choices': [{**self._told(event, body), 'index': index}]})}\n\n")
        counts = {"choices": [], "usage": _usage(requests)} if body.get("stream_options") else {"choices": []}
        self._chunk(f"data: {json.dumps(counts)}\n\ndata: [DONE]\n\n")
        self._chunk("")

    def _whole(self, requests: list[Request], body: dict[str, Any]) -> None:
        """Send one answer, unless the client has gone before it is whole."""
        choices = [{**self._choice(request, body), "index": index} for index, request in enumerate(requests)]
        self._reply(200, {"choices": choices, "usage": _usage(requests)})

    def _choice(self, request: Request, body: dict[str, Any]) -> dict[str, Any]:
        """All that was decoded of one request."""
        parts: list[dict[str, Any]] = []
        while (event := self._next(request)) is not None:
            parts.append(event)
            if select.select([self.connection], [], [], 0)[0]:  # it says nothing more, so it has gone
                raise ConnectionResetError
        told = {"token_logprobs": [value for part in parts for value in part["logprobs"]["token_logprobs"]]}
        said = {"text": "".join(part["text"] for part in parts), "token_ids": request.said, "logprobs": told}
        return self._told({**parts[-1], **said}, body)

    def _told(self, choice: dict[str, Any], body: dict[str, Any]) -> dict[str, Any]:
        """A choice with what was asked for."""
        ids = self.server_of.tells_ids and body.get("return_token_ids")
        asked = {"token_ids": ids, "logprobs": body.get("logprobs") is not None}
        return {name: value for name, value in choice.items() if asked.get(name, True)}

    def _chunk(self, text: str) -> None:
        data = text.encode()
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _reply(self, status: int, value: dict[str, Any]) -> None:
        data = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main(
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")],
    batch: Annotated[int, typer.Option(help="Requests decoded together at most.")] = 16,
) -> None:
    """Serve until interrupted."""
    with TokenServer(port, batch) as server, contextlib.suppress(KeyboardInterrupt):
        print(f"serving at {server.url}", flush=True)
        threading.Event().wait()


if __name__ == "__main__":
    typer.run(main)
