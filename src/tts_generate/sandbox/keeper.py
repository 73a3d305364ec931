"""The keeper: a clean `python -I -S` process that never runs a candidate's code, and forks a locked child for each.

It has imported what a candidate may use, so that a child need not open a file, and holds nothing else: no environment,
no recording, no other candidate. It verifies a child's locks before the host sends it any code, ends it when it is
told to, and ends with all its children when the host is gone. Runs in the child: no import of the host's part.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import linecache
import os
import platform
import select
import signal
import socket
import sys
import time
import types
from collections.abc import Mapping
from typing import Any

from tts_generate.import_rules import ALLOWED_MODULES
from tts_generate.sandbox import wire
from tts_generate.sandbox.locks import lock

_ALSO_LOADED = ("linecache", "numpy.ma", "traceback", "tts_generate.rules", "tts_generate.sandbox.inside")
_Options = Mapping[str, Any]


def keep(settings: _Options) -> None:
    """Serve the host on standard input and output until it is gone. What Python's start hands over to.

    Args:
        settings: `compiles` (load numba too), `single` (one child, on the keeper's own streams, then end).
    """
    for name in (*ALLOWED_MODULES, *_ALSO_LOADED):
        importlib.import_module(name)
    from tts_generate.version import __version__

    told = {"version": __version__, "python": list(sys.version_info[:2])}
    wire.write(1, wire.pack({"ready": told}))
    if not settings["compiles"]:
        forget_places()
    _Keeper(bool(settings["single"]), bool(settings["compiles"])).serve()


class _Keeper:
    """The loop of one keeper process."""

    def __init__(self, single: bool, compiles: bool) -> None:
        self.single = single
        self.cold = compiles
        self.parent = os.getppid()
        self.children: dict[int, float] = {}
        """By process: the CPU seconds that it may take."""

    def serve(self) -> None:
        ready = select.poll()
        ready.register(0, select.POLLIN)
        while os.getppid() == self.parent:
            if ready.poll(1000):
                message = wire.read(0)
                if message is None:
                    break
                request, _ = message
                if request["do"] == "fork":
                    self.fork(request)
                elif request["do"] == "warm":
                    self.warm(int(request["branches"]), int(request["depth"]))
                    wire.write(1, wire.pack({"warm": True}))
                else:
                    wire.write(1, wire.pack({"ended": self.end(int(request["pid"]), float(request["patience"]))}))
        for pid in list(self.children):
            self.end(pid)

    def load(self) -> None:
        """Load the compiler; children find it in memory."""
        from tts_generate.sandbox.inside import load_compiler

        load_compiler()
        forget_places()
        self.cold = False
        _freeze()

    def warm(self, branches: int, depth: int) -> None:
        """Compile what every candidate shares, for recordings of this size; children find it in memory."""
        from tts_generate.sandbox.inside import warm_up

        if self.cold:
            self.load()
        warm_up(branches, depth)
        _freeze()

    def fork(self, request: _Options) -> None:
        """Fork a child, see it locked, and tell the host."""
        if self.cold:
            self.load()
        streams = (0, 1, 2) if self.single else self._streams()
        ours, theirs = os.pipe()
        pid = os.fork()
        if pid == 0:
            _child(streams, theirs, request)
        os.close(theirs)
        if not self.single:
            for descriptor in set(streams):
                os.close(descriptor)
        message = wire.read(ours)
        os.close(ours)
        without_end = "limits" in request["without"]
        self.children[pid] = float("inf") if without_end else float(request["cpu_seconds"])
        if message is None:
            wire.write(1, wire.pack({"pid": pid, "died": self.end(pid, 1.0)}))
            return
        wire.write(1, wire.pack({"pid": pid, "locks": message[0], "status": _status(pid)}))
        if self.single:
            os._exit(self._watch(pid))

    def _streams(self) -> tuple[int, int, int]:
        """What the host sent along with its request: the child's stream and its standard error."""
        with socket.socket(fileno=os.dup(0)) as control:
            _, descriptors, _, _ = socket.recv_fds(control, 1, 2)
        stream, errors = descriptors
        return stream, stream, errors

    def end(self, pid: int, patience: float = 0.0) -> int:
        """Kill a child and all in its session, unless it ends by itself within `patience` seconds; its wait status."""
        if pid not in self.children:
            return 0
        seconds = self.children.pop(pid)
        deadline = time.monotonic() + patience
        while not (alone := _over(pid)) and time.monotonic() < deadline:
            time.sleep(0.001)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
        _, status, used = os.wait4(pid, 0)
        if alone and status == signal.SIGKILL and used.ru_utime + used.ru_stime >= seconds:
            return signal.SIGXCPU  # it ignored this signal, and got the one that cannot be ignored a second later
        return status

    def _watch(self, pid: int) -> int:
        """Wait for the only child, and end it when the host's end of standard input is closed; an exit code."""
        gone = select.poll()
        gone.register(0, 0)  # hang-up only: what can be read is the child's
        while not (_over(pid) or gone.poll(20) or os.getppid() != self.parent):
            pass
        status = self.end(pid)
        return os.waitstatus_to_exitcode(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status)


def _freeze() -> None:
    """A child's collector leaves alone what is there now, which it shares with this process."""
    gc.collect()
    gc.freeze()


def forget_places() -> None:
    """Take out of this process what machine it runs on, and where its files lie; it imports nothing more."""
    for name in ("executable", "_base_executable", "prefix", "exec_prefix", "base_prefix", "base_exec_prefix"):
        setattr(sys, name, "")
    for names in (sys.path, sys.argv, sys.orig_argv):
        names.clear()
    for cache in (sys.path_importer_cache, linecache.cache):
        cache.clear()
    here = os.uname()
    vars(platform).update(
        _uname_cache=platform.uname_result(here.sysname, "", "", "", here.machine), _platform_cache={}
    )
    for name, module in list(sys.modules.items()):
        where = vars(module) if isinstance(module, types.ModuleType) else {}
        for attribute, value in (("__file__", name), ("__cached__", name), ("__path__", [])):
            if attribute in where:
                where[attribute] = value
        where |= dict.fromkeys(("__spec__", "__loader__"))


def _over(pid: int) -> bool:
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is not None


def _status(pid: int) -> dict[str, str]:
    """What the kernel says of a process that the host wants to know."""
    found = {}
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status") as file:
        for line in file:
            name, _, value = line.partition(":")
            if name in ("State", "Seccomp", "NoNewPrivs"):
                found[name] = value.strip()
    return found


def _child(streams: tuple[int, int, int], told: int, request: _Options) -> None:
    """Lock this process, tell its parent, and serve the candidate; never returns."""
    try:
        os.setsid()
        devnull = os.open(os.devnull, os.O_RDONLY)
        aside = [fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10) for descriptor in (*streams, told, devnull)]
        for descriptor, place in zip(aside, (3, 4, 2, 5, 0), strict=True):  # in, out, errors, parent, nothing to read
            os.dup2(descriptor, place)
        os.dup2(2, 1)
        os.closerange(6, 1 << 16)
        from tts_generate.sandbox.inside import serve

        locks = lock(request)
        wire.write(5, wire.pack(locks))
        os.close(5)
        serve(3, 4)
    except BaseException as error:
        with contextlib.suppress(OSError):
            sys.stderr.write(f"{type(error).__name__}: {error}"[:500])
    finally:
        os._exit(70)
