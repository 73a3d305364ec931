"""Real servers on this machine for the tests: `transformers serve` as a child process, and a proxy that does harm."""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tts_generate import tiny

ASKED = sorted(tiny.questions("test")[:40], key=lambda question: len(question.question))[:2]
"""Two questions with short branches."""
QUESTIONS = [question.question for question in ASKED]
SUFFIX = "</think>\\boxed{"
OPTIONS: dict[str, Any] = {
    "interval_tokens": 16,
    "max_new_tokens": 320,
    "max_probe_tokens": 4,
    "probe_suffix": SUFFIX,
    "temperature": 1.0,
}
"""What the tiny model's generation config says to the engine, and no server tells."""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@contextlib.contextmanager
def transformers_serve(log: Path) -> Iterator[str]:
    """A `transformers serve` process with the tiny model; yields its address."""
    port = free_port()
    command = [
        *(sys.executable, "-c", "from transformers.cli.transformers import main; main()", "serve", str(tiny.path())),
        *("--host", "127.0.0.1", "--port", str(port), "--device", "cpu", "--dtype", "float32", "--log-level", "error"),
    ]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, env=environment) as process:
        try:
            wait_until_healthy(f"http://127.0.0.1:{port}/health", process, log)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            end(process, 10)


def end(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Ask a process to end, and kill it if it has not by then."""
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()


def wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path, seconds: float = 60.0) -> None:
    """Wait until a server answers at `url`; an error with the end of its log if it does not."""
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        with contextlib.suppress(OSError), urllib.request.urlopen(url, timeout=5):
            return
        time.sleep(0.1)
    raise RuntimeError(f"{process.args!r:.200} does not answer: {log.read_text()[-2000:]}")


class Proxy:
    """A proxy before a real server that does harm to chosen requests; `with` it.

    `plan(n)` names what happens to the n-th completion asked for, from 0 (by the first ones the client finds out how to
    speak): "" lets it through; "400", "429", "500", "503" answer so; "reset", "cut" and "stall" break the response off
    after its first bytes; "garbage" is no JSON; "dead" drops this and every later connection.
    """

    def __init__(self, target: str, plan: Callable[[int], str] = lambda n: "") -> None:
        self.plan = plan
        self.count = 0
        self.times: list[float] = []
        self.dead = threading.Event()
        self.over = threading.Event()
        self.target = urlsplit(target)
        self._lock = threading.Lock()
        owner = self

        class Handler(_Harm):
            proxy = owner

        self.http = _Listening(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"

    def harm(self) -> str:
        """What happens to the request that just came."""
        with self._lock:
            number, self.count = self.count, self.count + 1
            self.times.append(time.monotonic())
        what = self.plan(number)
        if what == "dead":
            self.dead.set()
        return what

    def __enter__(self) -> Proxy:
        self._thread = threading.Thread(target=self.http.serve_forever)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.http.shutdown()
        self.http.server_close()
        self._thread.join()


class _Listening(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = True


class _Harm(BaseHTTPRequestHandler):
    proxy: Proxy
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self._forward(None)

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        what = self.proxy.harm()
        if what in ("400", "429", "500", "503"):
            self._reply(int(what), b'{"error": {"message": "harm"}}', {"retry-after": "0.4"} if what == "429" else {})
        elif what == "garbage":
            self._reply(200, b'data: {"choices": [}\n\n', {"content-type": "text/event-stream"})
        else:
            self._forward(body, what)

    def _forward(self, body: bytes | None, what: str = "") -> None:
        if self.proxy.dead.is_set():
            return self._reset()
        upstream = http.client.HTTPConnection(self.proxy.target.hostname or "", self.proxy.target.port, timeout=60)
        with contextlib.closing(upstream):
            upstream.request(self.command, self.path, body, {"content-type": "application/json"} if body else {})
            response = upstream.getresponse()
            self.send_response(response.status)
            self.send_header("content-type", response.headers.get("content-type", ""))
            self.send_header("transfer-encoding", "chunked")
            self.end_headers()
            with contextlib.suppress(OSError):  # the client has gone: so go we, and the server notices
                while data := response.read1(4096):
                    self._chunk(data)
                    if what:
                        return self._break_off(what)
                self._chunk(b"")
        self.close_connection = bool(what)

    def _break_off(self, what: str) -> None:
        if what == "reset":
            return self._reset()
        if what == "stall":
            self.proxy.over.wait(30)
        self.close_connection = True  # without the end that chunked encoding asks for

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")
        self.wfile.flush()

    def _reply(self, status: int, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {"content-length": str(len(data)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)
