"""The processes that write one store: each locks a file of its own while it lives, and says in it how it ended.

LOCK      of the process that opened the store: the only one, or the main one of several
LOCK-<n>  of the n-th of the others

The operating system frees a lock when its process ends, however it ends: nobody has to beat, and nothing times out.
"""

from __future__ import annotations

import contextlib
import os
import time
from pathlib import Path

from filelock import lock_descriptor

from tts_generate.errors import ProcessError, StoreError
from tts_generate.trajectories.files import WRITE, open_file, write_at
from tts_generate.trajectories.journal import full

DONE = "done"
_POLL_SECONDS = 0.5
_NOT_READ = b"\n"
"""The first byte of a seat, which Windows lets nobody read while the file is locked."""


class Seat:
    """This process's place at a store.

    Raises:
        StoreError: another process has it.
        OSError: the folder cannot be written.
    """

    def __init__(self, path: Path, index: int) -> None:
        self.path = _seat(path, index)
        self._passing = False
        self._file = open_file(self.path, WRITE)
        try:
            if not lock_descriptor(self._file, blocking=False):
                raise _busy(path)
        except BaseException:
            os.close(self._file)
            raise

    def say(self, text: str) -> None:
        """Let the others know: `DONE`, why this process ends early, or "" while it works.

        Raises:
            StoreError: the disk is full or fails.
        """
        self._passing = text == DONE and self.path.name != "LOCK"
        try:
            os.ftruncate(self._file, 0)
            write_at(self._file, (_NOT_READ + text.encode())[:4096], 0)
            os.fsync(self._file)
        except OSError as error:
            raise full(self.path, error) from error

    def leave(self) -> None:
        """Free the lock, and remove the file of a process whose work is done and that was not the main one."""
        if self._passing:
            with contextlib.suppress(OSError):  # whoever opens the store next removes it
                self.path.unlink()
        os.close(self._file)


def clear_seats(path: Path) -> None:
    """Remove what processes of an earlier job left; the caller has LOCK.

    Raises:
        StoreError: one of them still runs.
    """
    for seat in path.glob("LOCK-*"):
        if _alive(seat):
            raise _busy(path)
        seat.unlink()


class Watch:
    """Looks after the other processes of a job: the main process after all, the others after the main one."""

    def __init__(self, path: Path, index: int, count: int) -> None:
        self.path, self.index, self.count = path, index, count
        self._others = set(range(1, count)) if index == 0 else {0} if count > 1 else set[int]()
        self._looked = time.monotonic()

    def __call__(self) -> None:
        """See that all are at work or done; looks at the disk at most every half second.

        Raises:
            ProcessError: naming the process that ended early, and why if it could say so.
        """
        if time.monotonic() - self._looked >= _POLL_SECONDS:
            self._look()

    def wait(self) -> None:
        """Return when all are done, however long that takes.

        Raises:
            ProcessError: as above.
        """
        self._look()
        while self._others:
            time.sleep(_POLL_SECONDS / 5)
            self._look()

    def _look(self) -> None:
        self._looked = time.monotonic()
        for other in sorted(self._others):
            seat = _seat(self.path, other)
            alive = _alive(seat)
            said = _said(seat)
            if said == DONE:
                self._others.discard(other)
            elif said or not alive:
                raise ProcessError(said if said.startswith("process ") else self._obituary(other, said))

    def _obituary(self, other: int, said: str) -> str:
        why = said.removesuffix(".") or "it was killed"
        return (
            f"process {other} of {self.count} ended early: {why}. What was recorded is kept; run the same command "
            "again, with as many processes as you like, to go on."
        )


def _seat(path: Path, index: int) -> Path:
    return path / (f"LOCK-{index}" if index else "LOCK")


def _said(seat: Path) -> str:
    """What the process that had or has this seat told the others."""
    if not seat.is_file():
        return ""
    with open(seat, "rb") as file:
        file.seek(len(_NOT_READ))
        return file.read().decode("utf-8", "replace")


def _alive(seat: Path) -> bool:
    """Whether the process that has this seat still runs."""
    try:
        file = open_file(seat, os.O_RDWR)
    except FileNotFoundError:
        return False
    try:
        return not lock_descriptor(file, blocking=False)
    finally:
        os.close(file)


def _busy(path: Path) -> StoreError:
    return StoreError(f"{path} is being written by another process; wait for it, or choose another folder.")
