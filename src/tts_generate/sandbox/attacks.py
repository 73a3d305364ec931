"""Attacks on the machine that a candidate must not succeed with, each tried for real: is it stopped, and by which lock?

They are harmless where they do succeed: the files, sockets and processes they reach for are made for the purpose.
"""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from tts_generate.errors import CandidateError
from tts_generate.sandbox.box import Sandbox
from tts_generate.sandbox.channel import Limits
from tts_generate.sandbox.process import LOCKS, ONE_THREAD

WORKED = "attack worked"
_EXIT_CODE = 42  # of an attack that replaces its process
_LIMITS, _BRIEF = Limits(seconds=10, memory_mb=128), Limits(seconds=0.5, memory_mb=128)
_HEAD = "import ctypes, os, socket, sys, time\nlibc = ctypes.CDLL(None, use_errno=True)\nworked = False\n"
_TAIL = f"\nif worked:\n    raise RuntimeError({WORKED!r})\n"

MACHINE: Mapping[str, str] = {
    "read its environment": "worked = bool(set(os.environ) - set({ONE_THREAD}))",
    "use open descriptors of the host": """
for fd in range(5, 256):
    try:
        os.fstat(fd)
        worked = True
    except OSError:
        pass""",
    "read the host's environment": "worked = bool(open('/proc/{HOST}/environ', 'rb').read())",
    "read the host's memory map": "worked = bool(open('/proc/{HOST}/maps', 'rb').read())",
    "trace its parent (ptrace)": "worked = libc.ptrace(0x4206, os.getppid(), 0, 0) == 0",
    "read a file of yours": "worked = open({FILE!r}).read() == 'secret'",
    "list a folder": "worked = bool(os.listdir('/usr') and os.path.exists({FILE!r}) or os.listdir({FOLDER!r}))",
    "write a file": "worked = bool(open({FOLDER!r} + '/written', 'w'))",
    "write shared memory": "f = '/dev/shm/tts_generate_{HOST}'; worked = bool(open(f, 'w')); os.unlink(f)",
    "connect by TCP": "socket.socket(2, 1).connect((b'127.0.0.1', {TCP})); worked = True",
    "send by UDP": "worked = socket.socket(2, 2).sendto(b'x', (b'127.0.0.1', {UDP})) == 1",
    "connect to a Unix socket": "socket.socket(1, 1).connect({UNIX!r}); worked = True",
    "connect to an abstract socket": "socket.socket(1, 1).connect('\\0' + {ABSTRACT!r}); worked = True",
    "start a process": """
pid = os.fork()
if pid == 0:
    os._exit(0)
os.waitpid(pid, 0)
worked = True""",
    "outlive its end as a daemon": """
pid = os.fork()
if pid == 0:
    os.setsid()
    time.sleep(0.05)
    os._exit(0)
worked = True""",
    "start a thread": "import _thread; _thread.start_new_thread(int, ()); worked = True",
    "run a program": "os.execv('/bin/sh', ['sh', '-c', 'exit {EXIT}'])",
    "signal its parent": "os.kill(os.getppid(), 0); worked = True",
    "make a user namespace": "worked = libc.unshare(0x10000000) == 0",
    "set up io_uring": "worked = libc.syscall(425, 1, ctypes.create_string_buffer(120)) >= 0",
    "raise its own limits": """
import resource
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
worked = True""",
    "run machine code of its own": """
libc.mmap.restype = ctypes.c_void_p
worked = libc.mmap(None, ctypes.c_size_t(4096), 7, 0x22, -1, ctypes.c_long(0)) not in (None, 2**64 - 1)""",
    "hear of another process by its clock": "worked = time.clock_gettime((~{HOST} << 3) | 2) >= 0",
    "reach for the machine's memory (madvise)": "worked = libc.madvise(None, 0, 199) == 0 or ctypes.get_errno() != 1",
    "hear of others by the memory that is free": "worked = libc.sysinfo(ctypes.create_string_buffer(112)) == 0",
    "take more memory than it may": "x = bytearray(256 << 20); worked = True",
}
"""Attacks that the kernel must stop, by name; they run in strict mode."""

HOST: Mapping[str, tuple[str, str]] = {
    "compute for ever": ("time", "while True: pass"),
    "sleep": ("time", "while True: time.sleep(60)"),
    "ignore being asked to end": ("time", "import signal\nsignal.signal(15, signal.SIG_IGN)\nwhile True: pass"),
    "flood its output": ("time", "while True: sys.stdout.write('x' * 100000)"),
    "end as if it had succeeded": ("ended", "os._exit(0)"),
    "crash": ("crash", "ctypes.string_at(0)"),
    "close its stream": ("ended", "os.closerange(0, 99)\ntime.sleep(60)"),
    "announce a reply of 4 GB": ("protocol", "os.write(4, b'\\xff' * 8)"),
    "send a pickle": ("protocol", "os.write(4, b'\\x0b\\0\\0\\0cos\\nsystem\\n.')\ntime.sleep(60)"),
    "answer before it is asked": (
        "protocol", "import json\n"
        "kind = dict(name='A', probing='never', max_rounds=9, reads_logprobs=False, compiles=False, score=1)"
        "\nm = json.dumps(dict(t=1, kind=kind)).encode()\n"
        "for _ in range(2): os.write(4, len(m).to_bytes(4, 'little') + m)\ntime.sleep(60)",
    ),
    "send half a reply": ("time", "os.write(4, b'\\x0b\\0\\0\\0{')\ntime.sleep(60)"),
    "nest its reply 200,000 deep": (
        "protocol", "os.write(4, (200000).to_bytes(4, 'little'))\nfor _ in range(20): os.write(4, b'[' * 10000)",
    ),
}  # fmt: skip
"""Attacks that the host must stop: the reason it must give, and the code."""
_BY_HOST = {"time": "time limit", "ended": "end of its process", "crash": "end of its process", "protocol": "checks"}


@dataclass(frozen=True)
class AttackOutcome:
    """What came of an attack."""

    attack: str
    stopped: bool
    by: tuple[str, ...]
    """Every lock that stops it alone; () where only all of them together do, or none."""
    said: str
    """What the candidate's process said, or the host of it."""


def check(bubblewrap: bool | None = None) -> Iterator[AttackOutcome]:
    """Try every attack under all locks, and under each lock alone.

    Raises:
        SandboxUnavailable: there is no sandbox here to try them on.
    """
    with ExitStack() as stack:
        full = stack.enter_context(Sandbox(_LIMITS, bubblewrap=bubblewrap))
        alone = {"clean start": stack.enter_context(Sandbox(_LIMITS, without=tuple(LOCKS)))}
        for name in LOCKS:
            if name == "bubblewrap" and full.locks[name] is not True:
                continue
            others = tuple(other for other in LOCKS if other != name)
            alone[name] = stack.enter_context(Sandbox(_LIMITS, without=others))
        places = stack.enter_context(targets())
        for attack, code in MACHINE.items():
            source = machine_attack(code, places)
            stopped, said = try_attack(full, source)
            by = [name for name, box in alone.items() if try_attack(box, source)[0]]
            yield AttackOutcome(attack, stopped, ("clean start",) if "clean start" in by else tuple(by), said)
        for attack, (reason, code) in HOST.items():
            error = _error(full, _HEAD + code, _BRIEF if reason == "time" else _LIMITS)
            told = "nothing" if error is None else str(error)
            yield AttackOutcome(attack, error is not None and error.reason == reason, (_BY_HOST[reason],), told)


def machine_attack(code: str, places: Mapping[str, object]) -> str:
    """The source of an attack, with what it reaches for filled in."""
    for name, value in places.items():
        code = code.replace("{" + name + "!r}", repr(value)).replace("{" + name + "}", str(value))
    return _HEAD + code + _TAIL


def try_attack(box: Sandbox, source: str) -> tuple[bool, str]:
    """Whether an attack is stopped, and what was said."""
    error = _error(box, source, _LIMITS)
    said = "it did nothing" if error is None else str(error)
    return not (WORKED in said or f"exit code {_EXIT_CODE}" in said), said


def _error(box: Sandbox, source: str, limits: Limits) -> CandidateError | None:
    tail = "\nfrom tts_generate.controller import Controller\nclass Attack(Controller): pass\n"
    try:
        with box.candidate(source + tail, mode="strict", check=False, limits=limits) as candidate:
            candidate.knobs([])
    except CandidateError as error:
        return error
    return None


@contextmanager
def targets() -> Iterator[dict[str, object]]:
    """What attacks reach for: a file, sockets that listen, this process."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.chmod(0o777)
        (folder / "secret").write_text("secret")
        abstract = f"tts_generate_{os.getpid()}_{folder.name}"
        listening = {}
        for name, family, kind, address in (
            ("TCP", socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 0)),
            ("UDP", socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 0)),
            ("UNIX", socket.AF_UNIX, socket.SOCK_STREAM, str(folder / "socket")),
            ("ABSTRACT", socket.AF_UNIX, socket.SOCK_STREAM, "\0" + abstract),
        ):
            listener = stack.enter_context(socket.socket(family, kind))
            listener.bind(address)
            if kind == socket.SOCK_STREAM:
                listener.listen(64)
            listening[name] = listener
        yield {
            "HOST": os.getpid(),
            "FILE": str(folder / "secret"),
            "FOLDER": str(folder),
            "TCP": listening["TCP"].getsockname()[1],
            "UDP": listening["UDP"].getsockname()[1],
            "UNIX": str(folder / "socket"),
            "ABSTRACT": abstract,
            "EXIT": _EXIT_CODE,
            "ONE_THREAD": ONE_THREAD,
        }
