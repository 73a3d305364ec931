"""A store in the hands of hypothesis: any order of adding, sealing, crashing, opening, reading, and disks that refuse.

What must hold at any moment (the invariants of shared/research/reliability.md, section 8): I1 what was acknowledged is
there, as it was recorded, once; I2 beside it at most the last batch of a writer that was not acknowledged; I3 the store
opens, and a writer's opening leaves no temporary file; I4 a shard never changes; I5 recorded to its end it is the store
of an uninterrupted recording; I6 what was acknowledged is not asked for again; I7 a reader sees what was sealed before
it looked; I8 the lock of a dead process is free.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import pytest
from crashes import MANIFEST, QUESTIONS
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from nursery import CALLS, wrapped
from test_store import row

from tts_generate.errors import StoreError
from tts_generate.trajectories import StoreWriter, TrajectoryStore, check
from tts_generate.trajectories.parts import read_parts

ROWS = [row(question, branch) for question in "ab" for branch in range(10)]
MAIN, SIDE = 0, 1
SHRINKS = ("ftruncate", "unlink")
"""Calls that a full disk still does."""


Hit = tuple[str, int]
"""What strikes an operation, and at which of its calls, 0 for all; ("", 0) for nothing."""
NOTHING = ("", 0)
ANY_ROWS = st.lists(st.sampled_from(ROWS), max_size=4, unique_by=lambda one: one.key)


def hits(calls: int) -> st.SearchStrategy[Hit]:
    """Nothing; or one of so many calls; or all of them, by a disk that is full or read-only."""
    struck = st.tuples(st.sampled_from(["kill", "kill", "ENOSPC", "EIO"]), st.integers(1, calls))
    return st.one_of(st.just(NOTHING), struck, struck, st.sampled_from([NOTHING, ("full", 0), ("read-only", 0)]))


class Killed(BaseException):
    """The process is no more: it makes no other call."""


class Disk:
    """What the calls of one operation meet."""

    def __init__(self, hit: Hit) -> None:
        what, self.at = hit
        self.refuses, self.strike = ("", what) if self.at else (what, "")
        self.calls, self.dead = 0, False

    def wrap(self, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **more: Any) -> Any:
            if name == "open":
                writes = arguments[1] & (os.O_RDWR | os.O_WRONLY | os.O_CREAT)
                self._refuse("open", bool(writes) and self.refuses == "read-only")
                return real(*arguments, **more)
            self.calls += 1
            struck = self.strike and self.calls == self.at
            if name == "pwrite" and (self.refuses == "full" or struck):  # half of it, and then
                real(arguments[0], arguments[1][: len(arguments[1]) // 2], arguments[2])
            if self.dead or (struck and self.strike == "kill"):
                self.dead = True
                raise Killed
            if struck:
                raise OSError(getattr(errno, self.strike), self.strike)
            self._refuse(name, bool(self.refuses))
            return real(*arguments, **more)

        return call

    def _refuse(self, name: str, refuses: bool) -> None:
        if refuses and self.refuses == "read-only":
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        if refuses and name not in SHRINKS:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class StoreMachine(RuleBasedStateMachine):
    """One folder, a main writer, and one that joins it."""

    seen: ClassVar[dict[str, int]] = {}
    """What has been done so far, by all machines."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.path = self.folder / "s"
        self.writers: dict[int, StoreWriter] = {}
        self.acknowledged: set[tuple[str, int]] = set()
        self.maybe: dict[int, set[tuple[str, int]]] = {MAIN: set(), SIDE: set()}
        self.parts: dict[str, str] = {}
        self.readers: list[tuple[TrajectoryStore, set[tuple[str, int]]]] = []

    def attempt(self, what: str, work: Callable[[], Any], hit: Hit) -> str:
        """Do it: "done", "failed" by one clear error, or "killed"."""
        disk, said = Disk(hit), ""
        try:
            with wrapped(disk.wrap, (*CALLS, "open")):
                work()
            how = "done"
        except StoreError as error:
            how, said = "failed", str(error)
        except Killed:
            how = "killed"
            self.abandon()
        assert how != "failed" or str(self.path) in said
        assert how == "done" or disk.refuses or disk.calls >= disk.at > 0, "it failed without a reason"
        name = f"{what} {how}"
        self.seen[name] = self.seen.get(name, 0) + 1
        return how

    def abandon(self) -> None:
        """As a kill leaves it: the operating system closes what was open."""
        for file in self.held():
            os.close(file)
        self.writers.clear()

    def held(self) -> list[int]:
        """Open descriptors of the store, its journals and its locks; arrow closes shards a little later."""
        found = []
        for file in map(int, os.listdir("/proc/self/fd")):
            with contextlib.suppress(OSError):  # that by which the folder was listed
                where = Path(os.readlink(f"/proc/self/fd/{file}"))
                if where == self.path or (where.parent == self.path and where.name.startswith(("journal", "LOCK"))):
                    found.append(file)
        return found

    @precondition(lambda self: not self.writers)
    @rule(hit=st.one_of(st.just(NOTHING), st.just(NOTHING), hits(14)))
    def open(self, hit: Hit) -> None:
        def work() -> None:
            self.writers[MAIN] = StoreWriter.open(self.path, MANIFEST, QUESTIONS)

        if self.attempt("open", work, hit) == "done":
            done = self.writers[MAIN].done
            assert self.acknowledged <= done <= self.acknowledged | self.maybe[MAIN] | self.maybe[SIDE]  # I6, I8
            assert not list(self.path.glob("*.tmp"))  # I3
            self.acknowledged, self.maybe = set(done), {MAIN: set(), SIDE: set()}

    @precondition(lambda self: MAIN in self.writers and SIDE not in self.writers)
    @rule(hit=hits(4))
    def join(self, hit: Hit) -> None:
        def work() -> None:
            self.writers[SIDE] = StoreWriter.join(self.path, MANIFEST, SIDE)

        self.attempt("join", work, hit)

    @precondition(lambda self: self.writers)
    @rule(who=st.sampled_from([MAIN, SIDE]), rows=ANY_ROWS, hit=hits(3))
    def add(self, who: int, rows: list[Any], hit: Hit) -> None:
        """Writers side by side do not record the same branches; nor does one that joined record what was there."""
        who = who if who in self.writers else 1 - who
        writer, taken = self.writers[who], self.maybe[1 - who]
        taken = taken | (self.acknowledged - writer.done if who == SIDE or SIDE in self.writers else set())
        rows = [one for one in rows if one.key not in taken]
        new = {one.key for one in rows} - writer.done
        if self.attempt("add", lambda: writer.append(rows), hit) == "done":
            self.acknowledged |= new
            self.maybe[who] = set() if new else self.maybe[who]
        else:
            self.maybe[who] = new

    @precondition(lambda self: self.writers)
    @rule(who=st.sampled_from([MAIN, SIDE]), rows=ANY_ROWS, hit=hits(7))
    def seal(self, who: int, rows: list[Any], hit: Hit) -> None:
        """With something to seal, mostly."""
        self.add(MAIN, rows, NOTHING)
        self.attempt("seal", self._writer(who).seal, hit)

    @precondition(lambda self: self.writers)
    @rule(who=st.sampled_from([MAIN, SIDE]), rows=ANY_ROWS, hit=hits(8))
    def close(self, who: int, rows: list[Any], hit: Hit) -> None:
        self.add(who, rows, NOTHING)
        writer = self._writer(who)
        self.attempt("close", writer.close, hit)
        self.writers = {name: other for name, other in self.writers.items() if other is not writer}

    def _writer(self, who: int) -> StoreWriter:
        return self.writers.get(who) or self.writers[1 - who]

    @rule()
    def crash(self) -> None:
        self.abandon()

    @precondition(lambda self: self.writers)
    @rule()
    def second_writer(self) -> None:
        with pytest.raises(StoreError, match="written by another process"):
            StoreWriter.open(self.path, MANIFEST, QUESTIONS)

    @precondition(lambda self: (self.path / "manifest.json").is_file())
    @rule()
    def reader(self) -> None:
        """Open one, as on a disk that takes nothing; it is looked into later too."""
        with wrapped(Disk(("read-only", 0)).wrap, (*CALLS, "open")):
            store = TrajectoryStore.open(self.path)
            self.readers = [*self.readers[-1:], (store, {one.key for one in store.trajectories()})]

    @invariant()
    def what_was_acknowledged_is_there(self) -> None:
        """I1, I2, I4, and that nothing is left open."""
        if not (self.path / "manifest.json").is_file():
            assert not self.acknowledged
            return
        there = TrajectoryStore.open(self.path).trajectories()
        keys = {one.key for one in there}
        assert len(there) == len(keys)
        assert self.acknowledged <= keys <= self.acknowledged | self.maybe[MAIN] | self.maybe[SIDE]
        assert there == [one for one in ROWS if one.key in keys]
        now = {part.name: hashlib.sha256(part.read_bytes()).hexdigest() for part in self.path.glob("part-*.parquet")}
        assert self.parts.items() <= now.items()
        self.parts = now
        assert len(self.held()) == 2 * len(self.writers)

    @invariant()
    def readers_see_more_and_more(self) -> None:
        """I7."""
        for store, saw in self.readers:
            sealed = {one.key for one in read_parts(self.path)}
            assert (saw & self.acknowledged) | sealed <= {one.key for one in store.trajectories()}

    def teardown(self) -> None:
        """I5, and that no check finds anything wrong."""
        self.abandon()
        if (self.path / "manifest.json").is_file():
            assert check(self.path).sound
        with StoreWriter.open(self.path, MANIFEST, QUESTIONS) as writer:
            writer.append(ROWS)
        assert TrajectoryStore.open(self.path).trajectories() == ROWS
        assert {one.key for one in read_parts(self.path)} == {one.key for one in ROWS}
        assert check(self.path).sound
        shutil.rmtree(self.folder)
