"""Starts the keeper process, plain, in bubblewrap or behind a command prefix, and has it fork locked children."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from tts_generate.errors import SandboxUnavailable
from tts_generate.sandbox import wire
from tts_generate.version import __version__

LOCKS: Mapping[str, str] = {
    "seccomp": "system calls on an allow-list only: no files, network, processes, signals",
    "landlock": "no file and no TCP port may be opened, no abstract socket or signal outside",
    "limits": "limits on memory, CPU time, files and processes",
    "bubblewrap": "own view of processes, network and files around all of it, where it works",
}
"""Every lock by its name."""

_START_SECONDS = 120
ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
BOOT = f"""
import json, os, struct, sys
def read(count):
    parts = b""
    while len(parts) < count:
        part = os.read(0, count - len(parts))
        if not part: sys.exit(3)
        parts += part
    return parts
settings = json.loads(read(struct.unpack("<I", read(4))[0]))
os.environ.clear()
os.environ.update(dict.fromkeys({ONE_THREAD!r}, "1"))
if settings["paths"] is None:
    import site
    site.main()
else:
    sys.path[:0] = settings["paths"]
import types, tts_generate
package = types.ModuleType("tts_generate.sandbox")  # its __init__ is the host's
package.__path__ = [os.path.join(os.path.dirname(tts_generate.__file__), "sandbox")]
sys.modules["tts_generate.sandbox"] = package
from tts_generate.sandbox.keeper import keep
keep(settings)
"""
"""What the keeper's Python runs first; its settings come by standard input."""


@dataclass(frozen=True)
class Child:
    """A forked and locked process, before any code of a candidate is in it."""

    pid: int
    stream: socket.socket
    errors: int
    locks: dict[str, Any]

    def close(self) -> None:
        """Close the host's ends."""
        self.stream.close()
        os.close(self.errors)


class Keeper:
    """A keeper process.

    Args:
        compiles: whether its children can compile (bulk mode).
        prefix: a command that takes the Python command to run as its last arguments and passes its streams through;
            each candidate then has a keeper of its own.
        python: the interpreter behind the prefix, which finds this package by itself; the host's own if left out.
        bubblewrap: run it in bubblewrap.

    Raises:
        SandboxUnavailable: it does not start.
    """

    def __init__(
        self, compiles: bool, prefix: Sequence[str] = (), python: str | None = None, bubblewrap: bool = False
    ) -> None:
        self.single = bool(prefix)
        self._lock = threading.Lock()
        paths = None if python is not None else _paths(compiles)
        interpreter = python or os.path.realpath(sys.executable)
        around = list(prefix) or (_bubblewrap_command(interpreter, paths or []) if bubblewrap else [])
        self._control, theirs = socket.socketpair()
        try:
            self._process = subprocess.Popen(
                [*around, interpreter, "-I", "-B", "-S", "-c", BOOT],
                stdin=theirs.fileno(), stdout=theirs.fileno(), stderr=subprocess.PIPE,
                env={"PATH": os.environ.get("PATH", os.defpath)} if prefix else {}, cwd="/", start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            self._control.close()
            raise SandboxUnavailable(f"cannot start {around[0] if around else interpreter}: {error}.") from error
        finally:
            theirs.close()
        settings = {"paths": paths, "compiles": compiles, "single": self.single}
        self._control.settimeout(_START_SECONDS)
        ready = self._ask(settings).get("ready", {})
        if ready.get("version") != __version__:
            self.close()
            raise SandboxUnavailable(
                f"the process behind {around[:1]} has tts_generate {ready.get('version')}, this is {__version__}; "
                "install the same version in it."
            )

    def fork(self, request: dict[str, Any]) -> Child:
        """A new locked child.

        Raises:
            SandboxUnavailable: it cannot be had.
        """
        if self.single:
            told = self._ask({"do": "fork", **request})
            ours, errors = self._control.dup(), os.dup(self._errors().fileno())
        else:
            ours, theirs, errors, write = _connected()
            try:
                told = self._ask({"do": "fork", **request}, [theirs.fileno(), write])
            except SandboxUnavailable:
                ours.close()
                os.close(errors)
                raise
            finally:
                theirs.close()
                os.close(write)
        if "died" in told:
            text = os.read(errors, 1000).decode("utf-8", "replace")
            ours.close()
            os.close(errors)
            raise SandboxUnavailable(f"a process died while it was being locked (wait status {told['died']}): {text}")
        return Child(told["pid"], ours, errors, {**told["locks"], "status": told["status"]})

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def warm(self, branches: int, depth: int) -> None:
        """Have what all candidates share compiled for recordings of this size; slow once, then nothing."""
        self._ask({"do": "warm", "branches": branches, "depth": depth})

    def end(self, pid: int, patience: float) -> int:
        """End a child; its exit code, negative for a signal."""
        if self.single:
            return self._end_single(patience)
        try:
            status = int(self._ask({"do": "end", "pid": pid, "patience": patience})["ended"])
        except SandboxUnavailable:  # the keeper has gone, and its children with it
            return -signal.SIGKILL
        return os.waitstatus_to_exitcode(status)

    def close(self) -> None:
        """End the keeper, and its children with it."""
        with contextlib.suppress(OSError):
            self._control.shutdown(socket.SHUT_RDWR)  # also where a child's stream is a copy of it
        self._control.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            _kill_group(self._process)
        self._errors().close()

    def _end_single(self, patience: float) -> int:
        try:
            code = self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self.close()
            return -signal.SIGKILL
        return int(128 - code if code > 128 else code)

    def _ask(self, message: dict[str, Any], descriptors: Sequence[int] = ()) -> dict[str, Any]:
        """A request to the keeper, which is trusted, and its reply."""
        if self._errors().closed:
            raise SandboxUnavailable("the process that forks candidates has ended.")
        with self._lock:
            try:
                self._control.sendall(wire.pack(message))
                if descriptors:
                    socket.send_fds(self._control, [b"F"], list(descriptors))
                reply = _receive(self._control)
            except OSError as error:
                reply = None
                failed = f": {error}"
            else:
                failed = ""
        if reply is None:
            said = self._said()
            self.close()
            raise SandboxUnavailable(f"the process that forks candidates has ended{failed}. It said: {said}")
        return reply

    def _said(self) -> str:
        os.set_blocking(self._errors().fileno(), False)
        return (self._errors().read() or b"nothing")[-2000:].decode("utf-8", "replace")

    def _errors(self) -> IO[bytes]:
        assert self._process.stderr is not None
        return self._process.stderr


def _connected() -> tuple[socket.socket, socket.socket, int, int]:
    """Both ends of a child's stream, and of its standard error.

    Raises:
        SandboxUnavailable: too many files are open.
    """
    try:
        errors, write = os.pipe()
        try:
            return *socket.socketpair(), errors, write
        except OSError:
            os.close(errors)
            os.close(write)
            raise
    except OSError as error:
        raise SandboxUnavailable(
            f"no further process can be connected ({error.strerror}): every question in flight has one of its own. Ask "
            "fewer at once, or raise the limit of open files (ulimit -n)."
        ) from error


def _receive(control: socket.socket) -> dict[str, Any] | None:
    """The next message, read no further than its end; None at the end of the stream."""
    head = _exactly(control, wire.LENGTH.size)
    text = None if head is None else _exactly(control, wire.LENGTH.unpack(head)[0])
    return None if text is None else wire.unpack(text)


def _exactly(control: socket.socket, count: int) -> bytes | None:
    parts = b""
    while len(parts) < count:
        part = control.recv(count - len(parts))
        if not part:
            return None
        parts += part
    return parts


def _kill_group(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _paths(compiles: bool) -> list[str]:
    """Folders from which the keeper imports this package and what it needs; no others."""
    wanted = ["tts_generate", "numpy", *(("numba", "llvmlite", "pyarrow", "filelock") if compiles else ())]
    found = []
    for name in wanted:
        spec = find_spec(name)
        if spec is None or spec.origin is None:
            raise SandboxUnavailable(f"a bulk sandbox needs {name}: pip install 'tts-generate[replay]'.")
        found.append(str(Path(spec.origin).resolve().parent.parent))
    return list(dict.fromkeys(found))


def _bubblewrap_command(interpreter: str, paths: Sequence[str]) -> list[str]:
    """What runs a command with its own processes, network and files: the interpreter and the packages, read-only."""
    command = [shutil.which("bwrap") or "bwrap", "--unshare-all", "--unshare-user", "--die-with-parent"]
    command += ["--new-session", "--clearenv", "--cap-drop", "ALL", "--proc", "/proc", "--dev", "/dev"]
    for folder in ("/usr", "/lib", "/lib64", "/bin"):
        if os.path.islink(folder):
            command += ["--symlink", os.readlink(folder), folder]
        elif os.path.isdir(folder):
            command += ["--ro-bind", folder, folder]
    for folder in dict.fromkeys([os.path.realpath(sys.base_prefix), *paths]):
        command += ["--ro-bind", folder, folder]
    return [*command, "--chdir", "/", "--"]


@lru_cache(maxsize=1)
def bubblewrap_problem() -> str | None:
    """Why bubblewrap cannot be used here; None where it works."""
    if shutil.which("bwrap") is None:
        return "not installed"
    command = [*_bubblewrap_command("", []), "/bin/true"]
    done = subprocess.run(command, capture_output=True, text=True, env={}, check=False)
    return None if done.returncode == 0 else (done.stderr.strip() or f"exit code {done.returncode}").split(",")[0][:100]
