"""Faults that the server puts into its answers on demand."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tts_generate.errors import InputError


@dataclass(eq=False)
class Fault:
    """What goes wrong with the requests that match, as often as `times` says; parts of it can be combined.

    The order of events: `arrived` is set, `before` is called, the server waits for `released` and `delay`, then it
    answers `status`, resets the connection, or does what was asked and spoils the answer.

    Raises:
        InputError: nothing would go wrong, or parts that cannot be combined.
    """

    path: str = "*"
    """Pattern of paths without their query, as a shell has them: `*` is any text, slashes too."""
    method: str | None = None
    times: int | None = 1
    """None: every time."""
    skip: int = 0
    """Matching requests that are let through first."""
    status: int | None = None
    """Answer this error instead, having done nothing."""
    retry_after: int | None = None
    """Seconds, in the `Retry-After` of that error."""
    reset: bool = False
    """Reset the connection without an answer, having done nothing."""
    lose_reply: bool = False
    """Do what was asked, then reset the connection without an answer."""
    cut_after: int | None = None
    """Bytes of the answer's body after which the connection ends, in good order but too early."""
    reset_after: int | None = None
    """Bytes of the answer's body after which the connection is reset."""
    bytes_per_second: float | None = None
    """Speed of the answer's body."""
    corrupt: bool = False
    """Change one byte in the middle of the answer's body."""
    delay: float = 0.0
    """Seconds to wait first."""
    hold: bool = False
    """Wait for `released` first."""
    before: Callable[[], object] | None = None
    """Called first: what another client does at this moment."""
    headers: Mapping[str, str] = field(default_factory=dict)
    """More headers of the error."""

    def __post_init__(self) -> None:
        self.arrived = threading.Event()
        self.released = threading.Event()
        ends = [name for name in ("status", "reset", "lose_reply") if getattr(self, name) not in (None, False)]
        spoils = [name for name in ("cut_after", "reset_after", "bytes_per_second") if getattr(self, name) is not None]
        spoils += ["corrupt"] * self.corrupt
        if len(ends) > 1 or (ends and spoils):
            raise InputError(f"a fault has one end: {', '.join(ends + spoils)} do not go together.")
        if not (ends or spoils or self.delay or self.hold or self.before):
            raise InputError("a fault needs something that goes wrong: status, reset, lose_reply, cut_after, …")
        if self.cut_after is not None and self.reset_after is not None:
            raise InputError("an answer breaks off once: cut_after and reset_after do not go together.")
        if (self.retry_after is not None or self.headers) and self.status is None:
            raise InputError("retry_after and headers belong to an error: give its status.")

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant."""
        return self.method in (None, method) and fnmatchcase(path, self.path)


class Faults:
    """The faults to come, in the order in which they were asked for."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []
        self._lock = threading.Lock()

    def add(self, fault: Fault) -> Fault:
        """Put one in."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """No more faults; requests that are held go on."""
        with self._lock:
            for fault in self._faults:
                fault.released.set()
            self._faults.clear()

    def take(self, method: str, path: str) -> Fault | None:
        """The first fault for this request, used up by one; None as a rule."""
        with self._lock:
            for fault in self._faults:
                if fault.times == 0 or not fault.matches(method, path):
                    continue
                if fault.skip:
                    fault.skip -= 1
                    continue
                if fault.times is not None:
                    fault.times -= 1
                return fault
        return None
