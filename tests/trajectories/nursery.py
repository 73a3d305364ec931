"""A process that imports once and forks a worker for every line it is sent: to be killed, or to have its calls fail.

A script that is a nursery ends with `serve(work)`. `work(tell, enter, path, …)` says by `tell` what it has
acknowledged, and by `enter` where it is, in memory that outlives it.
"""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tts_generate.errors import TTSError

CALLS = ("mkdir", "pwrite", "fsync", "ftruncate", "link", "unlink", "replace")
"""Those that change the disk."""
FAILURES = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EINTR": errno.EINTR, "short": 0}
PLACES = ("starting", "opening", "recording", "sealing", "acknowledging", "closing", "done")
"""Where a worker can be; it starts at the first."""

Work = Callable[..., None]


class Nursery:
    """`with` it: the process of `script`, which forks workers; `environment` are further variables of it."""

    def __init__(self, script: str, **environment: str) -> None:
        self._script, self._environment = script, {**os.environ, **environment}

    def __enter__(self) -> Nursery:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([sys.executable, self._script], env=self._environment, **pipes)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def work(self, path: Path, **how: Any) -> dict[str, Any]:
        """Let a worker do what is missing at `path`.

        Args:
            path: where.
            how: `seconds` until it is killed, counted from what it first tells with `ready`; or `at`, the call at which
                it is killed or, with `failure`, which fails; anything else is for the work.

        Returns:
            `told`, what it told; `killed`; `place`, where it was then; `calls` made; `error` ("" if none), and whether
            it is `ours`.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"path": str(path), **how}) + "\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found


def serve(work: Work) -> None:
    """Fork a worker for every line of standard input, and say in a line what became of it."""
    for request in sys.stdin:
        print(json.dumps(_fork(work, **json.loads(request))), flush=True)


@contextlib.contextmanager
def wrapped(
    wrap: Callable[[str, Callable[..., Any]], Callable[..., Any]], names: Sequence[str] = CALLS
) -> Iterator[None]:
    """Have the calls of `names` be what `wrap(name, real call)` makes of them."""
    real = {name: getattr(os, name) for name in names}
    for name in names:
        setattr(os, name, wrap(name, real[name]))
    try:
        yield
    finally:
        for name in names:
            setattr(os, name, real[name])


@contextlib.contextmanager
def trouble(at: int | None, failure: str | None = None) -> Iterator[Callable[[], int]]:
    """The `at`-th call that changes the disk kills this process or, with `failure`, fails; how many there were."""
    count = 0

    def troubled(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            nonlocal count
            count += 1
            if count != at:
                return real(*arguments, **more)
            if failure is None:
                os.kill(os.getpid(), signal.SIGKILL)
            if failure == "short":
                if name == "pwrite":
                    file, data, offset = arguments
                    return real(file, data[: len(data) // 2], offset)
                return real(*arguments, **more)
            raise OSError(FAILURES[str(failure)], os.strerror(FAILURES[str(failure)]))

        return call

    with wrapped(troubled):
        yield lambda: count


def _fork(work: Work, path: str, seconds: float | None = None, ready: bool = False, at: int | None = None,
          failure: str | None = None, **more: Any) -> dict[str, Any]:  # fmt: skip
    """A worker, and what became of it."""
    inlet, outlet = os.pipe()
    page = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if child == 0:
        os.close(inlet)
        os.dup2(2, 1)  # what the work prints is not an answer of ours
        _run(work, outlet, page, path, at, failure, more)
    os.close(outlet)
    with os.fdopen(inlet, "rb") as pipe:
        lines = [pipe.readline()] if ready else []
        if seconds is not None:
            time.sleep(seconds)
            os.kill(child, signal.SIGKILL)
        lines += pipe.readlines()
    _, status = os.waitpid(child, 0)
    told = [json.loads(line) for line in lines if line.endswith(b"\n")]
    end = told.pop() if told and isinstance(told[-1], dict) else {"error": "", "ours": True, "calls": at or 0}
    with page:
        return {"told": told, "killed": os.WIFSIGNALED(status), "place": PLACES[page[0]], **end}


def _run(work: Work, outlet: int, page: mmap.mmap, path: str, at: int | None, failure: str | None, more: Any) -> None:
    """In the worker: work, and say how it ended."""

    def tell(what: Any) -> None:
        os.write(outlet, json.dumps(what).encode() + b"\n")

    def enter(place: str) -> None:
        page[0] = PLACES.index(place)

    with trouble(at, failure) as calls:
        end = {"error": "", "ours": True}
        try:
            work(tell, enter, Path(path), **more)
        except Exception as error:
            end = {"error": f"{type(error).__name__}: {error}", "ours": isinstance(error, TTSError)}
        tell({**end, "calls": calls()})
    os._exit(0)
