"""Crashes of a writing process, on purpose: killed at any time or call, calls that fail, files cut and bits flipped.

Run as a program it is the nursery: it imports once, then forks a writer for every line it is sent and says what became
of it. It never reads a store itself, so that its forks are of a process without threads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from test_store import MANIFEST as MADE_UP
from test_store import QUESTIONS, ROWS

from tts_generate.errors import TTSError
from tts_generate.trajectories import StoreWriter, TrajectoryStore, check, repair
from tts_generate.trajectories.schema import questions_sha256

MANIFEST = dataclasses.replace(MADE_UP, questions_sha256=questions_sha256(QUESTIONS))
CALLS = ("pwrite", "fsync", "ftruncate", "link", "unlink", "replace")
FAILURES = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EINTR": errno.EINTR, "short": 0}


class Nursery:
    """The process that forks writers."""

    def __enter__(self) -> Nursery:
        command = [sys.executable, __file__]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.communicate()

    def write(self, path: Path, **how: Any) -> dict[str, Any]:
        """Let a writer record what is missing at `path`.

        Args:
            path: the store.
            how: `seconds` until it is killed; or `at`, the call at which it is killed or, with `failure`, which fails;
                `rows`, how many it records at most.

        Returns:
            `acknowledged` [question, branch] pairs, `killed`, `calls` made, `error` ("" if none).
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"path": str(path), **how}) + "\n")
        self.process.stdin.flush()
        told: dict[str, Any] = json.loads(self.process.stdout.readline())
        return told


class Ledger:
    """What a store acknowledged, held against what it holds."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.acknowledged: set[tuple[str, int]] = set()
        self.unreadable = 0

    def note(self, told: dict[str, Any]) -> None:
        """Take in what a writer acknowledged."""
        self.acknowledged |= {(question, branch) for question, branch in told["acknowledged"]}

    def lost(self) -> int:
        """Acknowledged branches that the store does not hold as they were recorded."""
        if not (self.path / "manifest.json").is_file():
            return len(self.acknowledged)
        try:
            there = TrajectoryStore.open(self.path).trajectories()
        except TTSError:
            self.unreadable += 1
            return len(self.acknowledged)
        wanted = {row.key: row for row in ROWS}
        good = {row.key for row in there if wanted[row.key] == row}
        return len(self.acknowledged - good) + len(there) - len(good)


def random_kills(folder: Path, count: int, seed: int) -> dict[str, int]:
    """SIGKILL writers at random times until `count` were hit; every store is gone on with until it is whole."""
    rng = random.Random(seed)
    found = {"kills": 0, "stores": 0, "acknowledged": 0, "lost": 0, "unreadable": 0, "unlike_uninterrupted": 0}
    with Nursery() as nursery:
        while found["kills"] < count:
            path = folder / f"store-{found['stores']}"
            ledger, killed = Ledger(path), True
            while killed:
                # Once there are enough kills, the last store is finished in peace.
                seconds = rng.uniform(0, 0.12) if found["kills"] < count else None
                told = nursery.write(path, seconds=seconds)
                ledger.note(told)
                killed = told["killed"]
                found["kills"] += killed
                found["lost"] += ledger.lost()
            found["stores"] += 1
            found["acknowledged"] += len(ledger.acknowledged)
            found["unreadable"] += ledger.unreadable
            whole = TrajectoryStore.open(path).trajectories() == ROWS and not list(path.glob("*.tmp"))
            found["unlike_uninterrupted"] += not whole
    return found


def kills_at_every_call(folder: Path, rows: int) -> dict[str, int]:
    """Kill a writer before its first, second, … last call that changes the disk, then go on with the store."""
    return _every_call(folder, rows, None)


def every_call_fails(folder: Path, rows: int, failure: str) -> dict[str, int]:
    """The same, but the call fails: the writer must end by an error of ours, or get by."""
    return _every_call(folder, rows, failure)


def _every_call(folder: Path, rows: int, failure: str | None) -> dict[str, int]:
    found = {"points": 0, "lost": 0, "unreadable": 0, "not_ours": 0, "unlike_uninterrupted": 0}
    with Nursery() as nursery:
        for at in range(1, 10_000):
            path = folder / f"{failure}-{at}"
            ledger = Ledger(path)
            told = nursery.write(path, at=at, rows=rows, failure=failure)
            if told["calls"] < at:
                return found
            ledger.note(told)
            found["points"] += 1
            found["not_ours"] += bool(told["error"]) and not told["ours"]
            found["lost"] += ledger.lost()
            ledger.note(nursery.write(path, rows=rows))
            found["lost"] += ledger.lost()
            found["unreadable"] += ledger.unreadable
            found["unlike_uninterrupted"] += TrajectoryStore.open(path).trajectories() != ROWS[:rows]
    raise AssertionError("the writer never ends")


def journal_cuts(path: Path, rows: int, step: int) -> dict[str, int]:
    """Cut a journal at every `step`-th byte: the records before the cut are there, for readers and after repair."""
    writer = StoreWriter.open(path, MANIFEST, QUESTIONS)
    ends = [0]
    for row in ROWS[:rows]:
        writer.append([row])
        ends.append((path / "journal").stat().st_size)
    data = (path / "journal").read_bytes()
    writer._leave()  # as a kill leaves it: not sealed
    found = {"cuts": 0, "lost": 0, "unreadable": 0}
    for cut in range(0, len(data) + 1, step):
        (path / "journal").write_bytes(data[:cut])
        whole = ROWS[: sum(end <= cut for end in ends) - 1]
        found["cuts"] += 1
        try:
            there = TrajectoryStore.open(path).trajectories()
            _, after = repair(path)
        except TTSError:
            found["unreadable"] += 1
            continue
        found["lost"] += there != whole or after.branches != len(whole)
    return found


def flips(path: Path, bits: list[int], name: str) -> dict[str, int]:
    """Flip single bits of one file: it is told, or the rows are what they were; and repaired, the store opens."""
    file = path / name
    data = file.read_bytes()
    whole = TrajectoryStore.open(path).trajectories()
    found = {"flips": 0, "named": 0, "harmless": 0, "silent": 0, "not_repaired": 0}
    for bit in bits:
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        file.write_bytes(changed)
        found["flips"] += 1
        told = bool(check(path).findings)
        try:
            same = TrajectoryStore.open(path).trajectories() == whole
        except TTSError:
            same = False
        found["named" if told else "harmless" if same else "silent"] += 1
        repair(path)
        found["not_repaired"] += not check(path).sound
        TrajectoryStore.open(path).trajectories()
        for aside in path.glob("*.damaged-*"):
            aside.unlink()
        (path / "journal").write_bytes(b"")
        file.write_bytes(data)
    return found


def _writer(pipe: int, path: str, rows: int | None) -> None:
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        for row in ROWS[:rows]:
            if row.key not in writer.done:
                writer.append([row])
                os.write(pipe, json.dumps([row.question_id, row.branch]).encode() + b"\n")
                if row.branch % 7 == 6:
                    writer.seal()


@contextlib.contextmanager
def _trouble(at: int | None, failure: str | None) -> Iterator[Callable[[], int]]:
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

    for name in CALLS:
        setattr(os, name, troubled(name, getattr(os, name)))
    yield lambda: count


def _fork(path: str, seconds: float | None = None, at: int | None = None, failure: str | None = None,
          rows: int | None = None) -> dict[str, Any]:  # fmt: skip
    """A writer, and what became of it."""
    inlet, outlet = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(inlet)
        with _trouble(at, failure) as calls:
            told = {"error": "", "ours": True}
            try:
                _writer(outlet, path, rows)
            except Exception as error:
                told = {"error": f"{type(error).__name__}: {error}", "ours": isinstance(error, TTSError)}
            os.write(outlet, json.dumps({**told, "calls": calls()}).encode() + b"\n")
        os._exit(0)
    os.close(outlet)
    if seconds is not None:
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
    with os.fdopen(inlet, "rb") as pipe:
        lines = [json.loads(line) for line in pipe if line.endswith(b"\n")]
    _, status = os.waitpid(child, 0)
    end = lines.pop() if lines and isinstance(lines[-1], dict) else {"error": "", "ours": True, "calls": at or 0}
    return {"acknowledged": lines, "killed": os.WIFSIGNALED(status), **end}


if __name__ == "__main__":
    for request in sys.stdin:
        print(json.dumps(_fork(**json.loads(request))), flush=True)
