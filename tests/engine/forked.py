"""Processes of their own that need not import torch and transformers again: each is forked from one that has.

They are processes like others: with a number, signals, an exit code, and files for what they write.
"""

from __future__ import annotations

import os
import runpy
import shutil
import signal
import socket
import sys
import tempfile
from collections.abc import Callable, Mapping
from multiprocessing import forkserver, get_context, resource_tracker
from pathlib import Path
from typing import Any

import pytest

ONE_CORE = {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
_CONTEXT = get_context("forkserver")
_CONTEXT.set_forkserver_preload(["tts_generate.engine.distributed", "tts_generate.cli", "engine_models"])


class Forked:
    """A process that calls `function`, which is in a module; the first one starts the one that all are forked from.

    Used as a `subprocess.Popen` is, with `environment` beside that of this process.
    """

    def __init__(self, function: Callable[..., object], *arguments: object, **environment: str) -> None:
        self._folder = Path(tempfile.mkdtemp())
        files = [str(self._folder / name) for name in ("out", "err")]
        for file in files:
            Path(file).touch()
        self._process = _CONTEXT.Process(target=_call, args=(files, environment, function, arguments))
        self.returncode: int | None = None
        with pytest.MonkeyPatch.context() as patch:
            for name, value in ONE_CORE.items():
                patch.setenv(name, value)
            self._process.start()

    def poll(self) -> int | None:
        """The exit code, once there is one."""
        if self.returncode is None:
            self.returncode = self._process.exitcode
        return self.returncode

    def send_signal(self, number: int) -> None:
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def written(self) -> str:
        """What it wrote to its standard output so far."""
        return (self._folder / "out").read_text("utf-8")

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """What it wrote, after its end; once."""
        self._process.join(timeout)
        late = self.poll() is None
        if late:
            self._process.kill()
            self._process.join()
        self._process.close()
        out, err = ((self._folder / name).read_text("utf-8") for name in ("out", "err"))
        shutil.rmtree(self._folder)
        assert not late, f"it went on for {timeout} seconds and wrote {out} {err}"
        return out, err


def _call(files: list[str], environment: Mapping[str, str], function: Callable[..., object], arguments: Any) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)  # whoever runs the suite may have it ignored
    for number, path in enumerate(files, 1):
        opened = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(opened, number)
        os.close(opened)
    os.environ.update(environment)
    function(*arguments)


def command(folder: str, arguments: list[str]) -> None:
    """What `tts-generate` with these arguments does in a folder; of a `Forked` process."""
    from tts_generate.cli import app

    os.chdir(folder)
    sys.argv = ["tts-generate", *arguments]
    app()


def script(folder: str, path: str, arguments: list[str]) -> None:
    """What `python path` with these arguments does in a folder; of a `Forked` process."""
    os.chdir(folder)
    sys.argv = [path, *arguments]
    runpy.run_path(path, run_name="__main__")


def job_of(count: int, function: Callable[..., object], *arguments: object, **environment: str) -> list[Forked]:
    """The processes of one job, as a launcher starts them; without one, which would end all when one ends."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    job = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, **environment}
    return [Forked(function, *arguments, **job, RANK=str(n), LOCAL_RANK=str(n)) for n in range(count)]


def stop() -> None:
    """End the process that all are forked from."""
    forkserver._forkserver._stop()
    resource_tracker._resource_tracker._stop()
