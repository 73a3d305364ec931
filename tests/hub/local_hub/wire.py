"""HTTP: requests in, answers out, and what a fault does to them."""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from local_hub.errors import Refusal
from local_hub.faults import Fault, Faults

_PIECE = 64 * 1024


@dataclass
class Request:
    """A request as it came, and in the log, how it ended."""

    method: str
    path: str
    """Decoded, without the query."""
    raw_path: str
    query: Mapping[str, list[str]]
    headers: Mapping[str, str]
    """Names in lower case."""
    body: bytes = field(repr=False)
    status: int | None = None
    """Of the answer; None where the connection was reset before it."""
    sent: int = 0
    """Bytes of the answer's body."""

    def json(self) -> Any:
        """The body, as JSON or as a form.

        Raises:
            Refusal: 400, it is neither.
        """
        if self.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
            return parse_qs(self.body.decode())
        try:
            return json.loads(self.body or b"{}")
        except ValueError as error:
            raise Refusal(400, f"the body is not JSON: {error}") from error


@dataclass
class Reply:
    """An answer."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, value: object, status: int = 200, **headers: str) -> Reply:
        """An answer in JSON; `_` in names of headers stands for `-`."""
        named = {name.replace("_", "-"): text for name, text in headers.items()}
        return cls(status, json.dumps(value).encode(), {"Content-Type": "application/json", **named})

    @classmethod
    def refusing(cls, refusal: Refusal) -> Reply:
        """An error as the Hub sends it: its message in a header and in the JSON."""
        reply = cls.json({"error": str(refusal), **refusal.more}, refusal.status, X_Error_Message=str(refusal))
        if refusal.code:
            reply.headers["X-Error-Code"] = refusal.code
        return reply


class Listener(ThreadingHTTPServer):
    """Listens on a port of this machine until it is closed, when all its connections end.

    Args:
        port: 0 for a free one.
        answer: a request's reply.
        faults: what goes wrong on purpose.
        log: takes every request.
        name: of this machine in the address that clients are given.
    """

    request_queue_size = 128
    daemon_threads = True

    def __init__(
        self,
        port: int,
        answer: Callable[[Request], Reply],
        faults: Faults,
        log: list[Request],
        name: str = "127.0.0.1",
    ) -> None:
        self.answer, self.faults, self.log = answer, faults, log
        self.failures: list[Exception] = []
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(("127.0.0.1", port), _Handler)
        self.url = f"http://{name}:{self.server_address[1]}"
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Serve a connection in a thread of its own."""
        with self._lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget a connection that has ended."""
        with self._lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that has gone is not an error of ours."""

    def close(self) -> None:
        """Stop listening, and end every connection."""
        self.shutdown()
        with self._lock:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the other side was faster
                    connection.shutdown(socket.SHUT_RDWR)
        self.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    server: Listener
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing on the terminal: the server has its own log."""

    def _serve(self) -> None:
        address = urlsplit(self.path)
        request = Request(
            self.command,
            unquote(address.path),
            address.path,
            parse_qs(address.query),
            {name.lower(): value for name, value in self.headers.items()},
            self._body(),
        )
        self.server.log.append(request)
        fault = self.server.faults.take(request.method, request.path)
        if fault is not None:
            _suffer(fault)
        if fault is not None and fault.reset:
            return self._reset()
        reply = _faulty(fault) if fault is not None and fault.status is not None else self._answer(request)
        if fault is not None and fault.lose_reply:
            return self._reset()
        request.status = reply.status
        self._send(request, reply, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _serve

    def _answer(self, request: Request) -> Reply:
        try:
            return self.server.answer(request)
        except Refusal as refusal:
            return Reply.refusing(refusal)
        except Exception as error:
            self.server.failures.append(error)  # a mistake of this server: raised when it is closed
            return Reply.refusing(Refusal(500, f"{type(error).__name__}: {error}"))

    def _body(self) -> bytes:
        if self.headers.get("transfer-encoding", "").lower() == "chunked":
            pieces = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                pieces.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(pieces)
        return self.rfile.read(int(self.headers.get("content-length") or 0))

    def _send(self, request: Request, reply: Reply, fault: Fault | None) -> None:
        self.send_response(reply.status)
        body = reply.body
        for name, value in {"Content-Length": str(len(body)), **reply.headers}.items():
            self.send_header(name, value.encode("utf-8", "replace").decode("latin-1").replace("\n", " "))
        self.end_headers()
        if request.method == "HEAD":
            return
        if fault is None:
            self.wfile.write(body)
            request.sent = len(body)
        else:
            self._spoil(request, _changed(body) if fault.corrupt and body else body, fault)

    def _spoil(self, request: Request, body: bytes, fault: Fault) -> None:
        """Send a body slowly, or a part of it."""
        end = next((after for after in (fault.cut_after, fault.reset_after) if after is not None), len(body))
        speed = fault.bytes_per_second
        piece = _PIECE if speed is None else max(1, int(speed / 20))
        for start in range(0, min(end, len(body)), piece):
            part = body[start : min(start + piece, end)]
            self.wfile.write(part)
            request.sent += len(part)
            if speed is not None:
                time.sleep(len(part) / speed)
        if end < len(body):
            self.close_connection = True
            if fault.reset_after is not None:
                self._reset()

    def _reset(self) -> None:
        """End the connection at once, with a reset instead of an orderly end."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        self.close_connection = True


def _suffer(fault: Fault) -> None:
    fault.arrived.set()
    if fault.before is not None:
        fault.before()
    if fault.hold:
        fault.released.wait()
    if fault.delay:
        time.sleep(fault.delay)


def _faulty(fault: Fault) -> Reply:
    assert fault.status is not None
    reply = Reply.refusing(Refusal(fault.status, f"asked for: {fault.status}"))
    reply.headers |= fault.headers
    if fault.retry_after is not None:
        reply.headers["Retry-After"] = str(fault.retry_after)
    return reply


def _changed(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
