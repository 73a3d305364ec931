"""A completions server that answers well, but for what a test has it say to some requests."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

STEP = 4
"""Tokens of a good reply that goes on."""
IDS = [7, 8, 9, 10]
QUESTION = '{"question_id": "a", "question": "Q: a = 6 ; a ?", "gold_answer": "6"}\n'
"""A question as a file has it."""


def event(**changed: Any) -> dict[str, Any]:
    """A good reply in one event, with some fields of it changed: of its choice, or of itself."""
    choice = {"index": 0, "text": " a b c d", "finish_reason": "length", "token_ids": [*IDS]}
    choice["logprobs"] = {"token_logprobs": [-0.5] * STEP}
    whole = {"choices": [choice], "usage": {"prompt_tokens": 3, "completion_tokens": STEP}}
    for name, value in changed.items():
        (choice if name in choice or name in ("stop_reason", "matched_stop") else whole)[name] = value
    return whole


def sse(*events: Any, end: str = "\n\n") -> bytes:
    """Events as a stream, which ends as it should."""
    said = [each if isinstance(each, str) else json.dumps(each) for each in events]
    return "".join(f"data: {text}{end}" for text in (*said, "[DONE]")).encode("utf-8", "surrogatepass")


class Liar:
    """`with Liar(say) as liar:`; `say` gets the body of a request, and None of it is the answer that is good.

    What it says is bytes, or pieces of them that are sent one by one, or a status with headers and bytes.
    """

    def __init__(
        self, say: Callable[[dict[str, Any]], Any] = lambda body: None, models: Any = None, tokens: bool = False
    ) -> None:
        self.requests: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, format: str, *args: Any) -> None:
                pass

            def do_GET(self) -> None:
                owner.requests.append((self.path, dict(self.headers), {}))
                listed = models() if callable(models) else models
                self._send(listed if listed is not None else b'{"data": [{"id": "m", "max_model_len": 4096}]}')

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                owner.requests.append((self.path, dict(self.headers), body))
                said = say(body)
                self._send(sse(_good(body, tokens)) if said is None else said)

            def _send(self, said: Any) -> None:
                status, headers, said = said if isinstance(said, tuple) else (200, {}, said)
                self.send_response(status)
                kind = "text/event-stream" if self.command == "POST" else "application/json"
                headers = {"content-type": kind, **headers}
                if isinstance(said, bytes):
                    headers["content-length"] = str(len(said))
                for name, value in headers.items():
                    self.send_header(name, value)
                if not isinstance(said, bytes):
                    self.close_connection = True
                    self.send_header("connection", "close")
                self.end_headers()
                with contextlib.suppress(OSError):
                    for piece in [said] if isinstance(said, bytes) else said:
                        self.wfile.write(piece)
                        self.wfile.flush()

        self._http = _Listening(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._http.server_port}"
        self.url = f"http://{self.address}/v1"

    def __enter__(self) -> Liar:
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.02,))
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def _good(body: dict[str, Any], tokens: bool) -> dict[str, Any]:
    """The answer that is good: tokens or text, as many as were asked for."""
    count = min(STEP, body["max_tokens"])
    found = event(text=" a" * count, usage={"prompt_tokens": 3, "completion_tokens": count})
    choice = found["choices"][0]
    choice |= {"token_ids": IDS[:count], "logprobs": {"token_logprobs": [-0.5] * count}}
    if not tokens:
        del choice["token_ids"], choice["logprobs"]
    return found


class _Listening(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is none."""


@contextlib.contextmanager
def echo(status: int, token: str) -> Iterator[tuple[str, list[bool]]]:
    """A server that answers every request with a status, and with all that it was sent; its address, and whether each
    request held the token.
    """
    told: list[bool] = []

    class Echo(BaseHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:
            pass

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("content-length") or 0))
            keys = [value for name, value in self.headers.items() if name.lower() in ("authorization", "x-api-key")]
            sent = f"not taken: {keys}"
            told.append(token in sent)
            text = json.dumps({"error": {"type": "x", "message": sent}, "message": sent, "commitId": sent}).encode()
            if status == 0:  # no JSON, and cut off
                text = sent.encode()
            self.send_response(status or 200)
            self.send_header("content-type", "application/json")
            self.send_header("x-error-message", sent)
            self.send_header("retry-after", "0")
            self.send_header("content-length", str(len(text) + 9 * (status == 0)))
            self.end_headers()
            self.wfile.write(text)
            self.close_connection = True

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = answer

    http = ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}", told
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def again_and_again(piece: bytes, pause: float = 0.0, first: Iterable[bytes] = ()) -> Iterator[bytes]:
    """A stream without an end; 30 s at most, so that a test that fails does end."""
    yield from first
    end = time.monotonic() + 30
    while time.monotonic() < end:
        yield piece
        time.sleep(pause)
