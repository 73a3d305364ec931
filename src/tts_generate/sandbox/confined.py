"""A controller of unknown origin, run for `load_controller(..., sandbox=True)`: strict mode, in replay and live."""

from __future__ import annotations

import atexit
import threading
import weakref
from collections.abc import Mapping
from typing import Any

from tts_generate.controller import Controller, Knob
from tts_generate.errors import UnknownNameError
from tts_generate.sandbox.box import Sandbox
from tts_generate.sandbox.candidate import Candidate
from tts_generate.sandbox.channel import Limits
from tts_generate.schedule import Schedule, at

_LIMITS = Limits(seconds=600, cpu_seconds=600)
"""Over all its hooks together, of a tenth of a millisecond each: enough for millions, and an end to one that hangs."""
_lock = threading.Lock()
_sandbox: list[Sandbox] = []


class _Home:
    """Keeps a candidate's process for as long as a controller, or a copy of it in an episode, is in use."""

    def __init__(self, candidate: Candidate) -> None:
        weakref.finalize(self, candidate.close)


def confine(source: bytes, entry: str, schedule: Schedule, beta: float, knobs: Mapping[str, Any]) -> Controller:
    """The controller `entry` of `source`, its hooks in a locked process that ends with the last use of the controller.

    Raises:
        SandboxUnavailable: this machine cannot lock a process.
        CandidateError: the code does not load.
        UnknownNameError: a knob that it does not have.
    """
    candidate = _shared().candidate(source, mode="strict", entry=entry, limits=_LIMITS)
    try:
        (known,) = candidate.knobs([beta])
        given: dict[str, Knob] = {**at(schedule, beta), **knobs}
        for name in given:
            if name not in known:
                raise UnknownNameError.of(f"knob of {candidate.name}", name, known)
        controller = candidate.controller(beta=beta, **given)
    except BaseException:
        candidate.close()
        raise
    controller.home = _Home(candidate)
    return controller


def _shared() -> Sandbox:
    """The sandbox of this process, which ends with it."""
    with _lock:
        if not _sandbox:
            _sandbox.append(Sandbox())
            atexit.register(_sandbox[0].close)
        return _sandbox[0]
