"""The host's end of a candidate's stream: one question, one reply, all of it checked, within limits.

The candidate may send anything at any time. What is not exactly one well-formed reply, in time and within its size,
ends it.
"""

from __future__ import annotations

import os
import re
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NoReturn

from tts_generate.arguments import check_fields
from tts_generate.errors import CandidateError, InputError
from tts_generate.inert import inert
from tts_generate.sandbox import wire

_KEPT = 4096  # bytes of standard error
_SIGNALS = {
    "SIGSYS": ("forbidden", "made a system call that no controller needs, and was killed for it"),
    "SIGXCPU": ("time", "used up its CPU time"),
    "SIGKILL": ("ended", "closed its stream, or was killed, instead of answering"),
}


@dataclass(frozen=True)
class Limits:
    """What one candidate may take.

    >>> Limits(seconds=-1)
    Traceback (most recent call last):
    tts_generate.errors.InputError: limit seconds must be a positive number, got -1.
    """

    seconds: float = 120.0
    """Wall time that the host waits for it, over all its replies together."""
    cpu_seconds: float = 300.0
    memory_mb: float = 1024
    """Memory on top of what the worker holds when it is locked."""
    reply_bytes: int = 1 << 20
    """The longest reply, results of bulk replay aside, whose length is known beforehand."""

    def __post_init__(self) -> None:
        check_fields(self)
        for name, value in vars(self).items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise InputError(f"limit {name} must be a positive number, got {value!r}.")


class Channel:
    """Asks a candidate's process and takes nothing for granted.

    Args:
        stream: connected to the process.
        errors: descriptor from which its standard error is read.
        limits: what it may take.
        end: ends the process, given the seconds in which it may end by itself; its exit code, negative for a signal.
    """

    def __init__(self, stream: socket.socket, errors: int, limits: Limits, end: Callable[[float], int]) -> None:
        self._stream = stream
        self._errors = errors
        self.limits = limits
        self.waited = 0.0
        """Seconds, in all."""
        self._end = end
        self.left = limits.seconds
        self._asked = 0
        self._output = bytearray()
        self._pending = bytearray()
        self._deadline = 0.0
        stream.setblocking(False)
        os.set_blocking(errors, False)
        self._poll = select.poll()
        self._poll.register(errors, select.POLLIN)
        self.open = True

    @property
    def output(self) -> str:
        """What the candidate wrote to its output, at most 4 KB, without control characters. Untrusted."""
        return clean(self._output.decode("utf-8", "replace"))

    def ask(self, do: str, message: Mapping[str, Any], raw: bytes = b"", expects: int = 0) -> tuple[Any, bytes]:
        """The reply to a request: its JSON, and as many raw bytes as are expected.

        Raises:
            CandidateError: the candidate's code failed, or it is no longer of use and has been ended.
        """
        if not self.open:
            raise CandidateError("ended", "this candidate has been ended; open it anew to go on.")
        started = time.monotonic()
        self._deadline = started + self.left
        self._asked += 1
        try:
            self._send(wire.pack({**message, "do": do, "t": self._asked}, raw))
            reply, out = self._receive(expects)
        finally:
            self.left -= time.monotonic() - started
            self.waited += time.monotonic() - started
        if "error" in reply:
            self._report(do, reply["error"])
        return reply, out

    def renew(self) -> None:
        """Wait for later replies as long as for the first ones."""
        self.left = self.limits.seconds

    def close(self) -> None:
        """End the process; nothing it sends any more counts."""
        if self.open:
            self.open = False
            self._end(0.0)
            self._drain()
            self._stream.close()
            os.close(self._errors)

    def refuse(self, what: str) -> NoReturn:
        """End a candidate that sent what no worker of ours sends.

        Raises:
            CandidateError: always.
        """
        self.fail("protocol", f"the candidate broke the protocol: {what}; it has been ended.")

    def fail(self, reason: str, text: str) -> NoReturn:
        """End the candidate and say why.

        Raises:
            CandidateError: always.
        """
        self.close()
        raise CandidateError(reason, text, output=self.output)

    def _send(self, message: bytes) -> None:
        if self._read_some(wait=False):
            self.refuse("it sent bytes that nobody asked for")
        rest = memoryview(message)
        while rest:
            try:
                rest = rest[self._stream.send(rest) :]
            except BlockingIOError:
                self._wait(select.POLLOUT)
            except OSError:
                self._gone()

    def _receive(self, expects: int) -> tuple[dict[str, Any], bytes]:
        (length,) = wire.LENGTH.unpack(self._take(wire.LENGTH.size))
        if length > self.limits.reply_bytes:
            self.refuse(f"a reply of {length} bytes announced, at most {self.limits.reply_bytes} are taken")
        try:
            reply = wire.unpack(self._take(length))
        except (ValueError, RecursionError) as error:
            self.refuse(f"a reply that is not JSON ({error})")
        if type(reply.get("t")) is not int or reply["t"] != self._asked:
            self.refuse(f"a reply to request {reply.get('t')!r:.80}, where {self._asked} is expected")
        raw = reply.pop("raw", 0)
        if type(raw) is not int or raw != (0 if "error" in reply else expects):
            self.refuse(f"{raw!r:.80} raw bytes announced, {expects} are expected")
        return reply, self._take(raw)

    def _take(self, count: int) -> bytes:
        while len(self._pending) < count:
            if not self._read_some(wait=True, most=count - len(self._pending)):
                self._gone()
        taken = bytes(self._pending[:count])
        del self._pending[:count]
        return taken

    def _read_some(self, wait: bool, most: int = 1) -> bool:
        """Read what is there; False at the end of the stream, or when nothing is there to read and `wait` is off."""
        while True:
            try:
                part = self._stream.recv(min(most, 1 << 20))
            except BlockingIOError:
                if not wait:
                    return False
                self._wait(select.POLLIN)
                continue
            except OSError:
                return False
            self._pending += part
            return bool(part)

    def _wait(self, event: int) -> None:
        """Until the stream is ready; standard error is read meanwhile, so that writing it never blocks the child."""
        self._poll.register(self._stream, event)
        while True:
            left = self._deadline - time.monotonic()
            if left <= 0:
                self.fail("time", f"the candidate was not done in {self.limits.seconds:g} s and has been killed.")
            ready = dict(self._poll.poll(1000 * left))
            if self._errors in ready:
                self._drain(once=True)
            if self._stream.fileno() in ready:
                return

    def _drain(self, once: bool = False) -> None:
        """Read standard error, of which the first bytes are kept."""
        try:
            while part := os.read(self._errors, 1 << 16):
                self._output += part[: max(0, _KEPT - len(self._output))]
                if once:
                    return
            self._poll.unregister(self._errors)  # closed by the child
        except (BlockingIOError, KeyError):
            return

    def _gone(self) -> NoReturn:
        """The stream has ended: say what of."""
        self._drain()
        code = self._end(0.5)
        reason, text = "ended", f"ended by itself (exit code {code}) instead of answering"
        name = {each.value: each.name for each in signal.Signals}.get(-code)
        if name is not None:  # behind a command prefix a code above 128 may be one of its own
            reason, text = _SIGNALS.get(name, ("crash", f"crashed ({name})"))
        self.fail(reason, f"the candidate {text}.")

    def _report(self, do: str, error: object) -> NoReturn:
        """Raise what a worker says went wrong in the candidate's code."""
        if type(error) is not dict or set(error) != {"type", "text", "line"}:
            self.refuse("an error that no worker sends")
        kind, text, line = error["type"], error["text"], error["line"]
        stands = line is None or (type(line) is int and 0 <= line <= wire.MAX_REQUEST)
        if type(kind) is not str or type(text) is not str or not stands:
            self.refuse("an error that no worker sends")
        kind, text = " ".join(clean(kind)[:100].split()), clean(text)[:2000]
        where = "" if line is None else f" (line {line})"
        known = {
            "MemoryError": "memory",
            "LooksAhead": "different",
            "ControllerError": "import" if do == "load" else "decision",
        }
        reason = known.get(kind, "import" if do == "load" else "raised")
        self._drain()
        raise CandidateError(reason, f"{kind}{where}: {text}", line=line, output=self.output)


def clean(text: str) -> str:
    r"""Text of a candidate without control characters, and without the places of this machine.

    >>> clean("a\x1b[31mb")
    'a[31mb'
    >>> clean(f"in {os.getcwd()}/controller.py")
    'in …/controller.py'
    """
    printable = "".join(c for c in text if c.isprintable() or c == "\n")
    return inert(_places().sub("…", printable))


@lru_cache(maxsize=1)
def _places() -> re.Pattern[str]:
    """Folders whose names say whose machine this is, and what is on it."""
    wanted = {
        sys.prefix, sys.base_prefix, sys.exec_prefix, os.path.dirname(os.path.realpath(sys.executable)), os.getcwd(),
        os.path.expanduser("~"), *sys.path,
    }  # fmt: skip
    found = {path for one in wanted for path in (one, os.path.realpath(one)) if path.strip("/") and os.path.isabs(path)}
    return re.compile("|".join(re.escape(path) for path in sorted(found, key=len, reverse=True)) or r"(?!)")
