"""Crashes of a writing process, on purpose: killed at any call, calls that fail, files cut and bits flipped.

Run as a program it is a nursery of writers. It never reads a store itself, so that its forks are of a process without
threads. Kills at random times are in `kills`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
from nursery import Nursery, serve
from test_store import MANIFEST as MADE_UP
from test_store import QUESTIONS, ROWS

from tts_generate.errors import TTSError
from tts_generate.trajectories import StoreWriter, Trajectory, TrajectoryStore, check, repair
from tts_generate.trajectories.schema import from_table, questions_sha256, to_table

MANIFEST = dataclasses.replace(MADE_UP, questions_sha256=questions_sha256(QUESTIONS))


class Ledger:
    """What a store acknowledged, held against what it holds.

    Args:
        path: the store.
        rows: what is recorded into it.
    """

    def __init__(self, path: Path, rows: Sequence[Trajectory] = ROWS) -> None:
        self.path = path
        self.wanted = {row.key: row for row in rows}
        self.acknowledged: set[tuple[str, int]] = set()
        self.unreadable = 0
        self.parts: dict[str, str] = {}
        self.changed_parts = 0
        """Shards that were seen, and are gone or others now."""
        self.unacknowledged = 0
        """The most branches that were there once more than acknowledged."""

    def note(self, told: dict[str, Any]) -> None:
        """Take in what a writer acknowledged."""
        self.acknowledged |= {(question, branch) for question, branch in told["told"]}

    def lost(self) -> int:
        """Acknowledged branches that the store does not hold as they were recorded, each once."""
        if not (self.path / "manifest.json").is_file():
            return len(self.acknowledged)
        try:
            there = TrajectoryStore.open(self.path).trajectories()
        except TTSError:
            self.unreadable += 1
            return len(self.acknowledged)
        good = {row.key for row in there if self.wanted[row.key] == row}
        found = len(self.acknowledged - good) + len(there) - len(good)
        self.unacknowledged = max(self.unacknowledged, len(good - self.acknowledged))
        self.acknowledged |= good  # a next writer does not record them again
        self._look_at_parts()
        return found

    def _look_at_parts(self) -> None:
        now = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in self.path.glob("part-*.parquet")}
        self.changed_parts += sum(now.get(name) != content for name, content in self.parts.items())
        self.parts = now


def kills_at_every_call(folder: Path, rows: int) -> dict[str, int]:
    """Kill a writer before its first, second, … last call that changes the disk, then go on with the store."""
    return _every_call(folder, rows, None)


def every_call_fails(folder: Path, rows: int, failure: str) -> dict[str, int]:
    """The same, but the call fails: the writer must end by an error of ours, or get by."""
    return _every_call(folder, rows, failure)


def _every_call(folder: Path, rows: int, failure: str | None) -> dict[str, int]:
    found = {"points": 0, "lost": 0, "unreadable": 0, "not_ours": 0, "unlike_uninterrupted": 0}
    with Nursery(__file__) as nursery:
        for at in range(1, 10_000):
            path = folder / f"{failure}-{at}"
            ledger = Ledger(path)
            told = nursery.work(path, at=at, rows=rows, failure=failure)
            if told["calls"] < at:
                return found
            ledger.note(told)
            found["points"] += 1
            found["not_ours"] += bool(told["error"]) and not told["ours"]
            found["lost"] += ledger.lost()
            ledger.note(nursery.work(path, rows=rows))
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
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", ".* are damaged: the branches in them are missing")
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


def _write(tell: Callable[[Any], None], enter: Callable[[str], None], path: Path, rows: int | None = None) -> None:
    """Record what is missing of the first `rows`, one by one."""
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        for row in ROWS[:rows]:
            if row.key not in writer.done:
                writer.append([row])
                tell([row.question_id, row.branch])
                if row.branch % 7 == 6:
                    writer.seal()


if __name__ == "__main__":
    from_table(to_table(ROWS[:1]))  # imports what a first record would, 0.1 s long
    serve(_write)
