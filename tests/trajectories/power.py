"""The power goes: every state in which a folder can be left, as far as fsync says what is on the disk and what is not.

After ALICE (Pillai et al., OSDI 2014), in small. A file holds what it held at its last fsync, or what it holds now, or
half of what was added since; each name that was made or removed since the last fsync of the folder is, or is not.
SIGKILL shows none of this: what a killed process wrote is the operating system's, and stays.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from crashes import MANIFEST, QUESTIONS, ROWS
from nursery import wrapped

from tts_generate.errors import TTSError
from tts_generate.trajectories import StoreWriter, TrajectoryStore

State = tuple[frozenset[tuple[str, bytes]], frozenset[tuple[str, int]]]
"""Files by name, and what had been acknowledged."""


class Disk:
    """Collects the states of one folder; the `ignored`-th fsync does nothing, as on a disk that lies."""

    def __init__(self, path: Path, ignored: int = 0) -> None:
        self.path, self.ignored = path, ignored
        self.states: set[State] = set()
        self.acknowledged: set[tuple[str, int]] = set()
        self.fsyncs = 0
        self._names: dict[str, int] = {}
        self._contents: dict[int, bytes] = {}
        self._held: dict[int, int] = {}  # open, so that no number is given to another file

    def _now(self) -> tuple[dict[str, int], dict[int, bytes]]:
        names: dict[str, int] = {}
        contents: dict[int, bytes] = {}
        for file in sorted(self.path.iterdir()) if self.path.is_dir() else ():
            if file.name != "LOCK":
                number = file.stat().st_ino
                names[file.name], contents[number] = number, file.read_bytes()
                if number not in self._held:
                    self._held[number] = os.open(file, os.O_RDONLY)
        return names, contents

    def look(self) -> None:
        """Add every state in which a power cut now can leave the folder."""
        names, contents = self._now()
        changes = [name for name in sorted({*names, *self._names}) if names.get(name) != self._names.get(name)]
        for made in itertools.product((False, True), repeat=len(changes)):
            there = {name: number for name, number in self._names.items() if name not in changes}
            for name, new in zip(changes, made, strict=True):
                number = (names if new else self._names).get(name)
                if number is not None:
                    there[name] = number
            numbers = sorted(set(there.values()))
            for data in itertools.product(*(self._versions(number, contents) for number in numbers)):
                held = dict(zip(numbers, data, strict=True))
                files = frozenset((name, held[number]) for name, number in there.items())
                self.states.add((files, frozenset(self.acknowledged)))

    def _versions(self, number: int, contents: dict[int, bytes]) -> list[bytes]:
        old = self._contents.get(number, b"")
        new = contents.get(number, old)
        return sorted({old, new, new[: (len(old) + len(new)) // 2] if len(new) > len(old) else new})

    def synced(self, file: int) -> None:
        """An fsync returned."""
        self.fsyncs += 1
        if self.fsyncs == self.ignored or not self.path.is_dir():
            return
        names, contents = self._now()
        found = os.fstat(file)
        if stat.S_ISDIR(found.st_mode):
            if found.st_ino == self.path.stat().st_ino:
                self._names = names
        elif found.st_ino in contents:
            self._contents[found.st_ino] = contents[found.st_ino]

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Look before every call that changes the disk."""

        def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **more: Any) -> Any:
                self.look()
                result = real(*arguments, **more)
                if name == "fsync":
                    self.synced(arguments[0])
                return result

            return call

        try:
            with wrapped(watched):
                yield
                self.look()
        finally:
            for file in self._held.values():
                os.close(file)


def record(path: Path, rows: int, seal_every: int, ignored: int = 0) -> Disk:
    """Record and seal, and collect every state."""
    disk = Disk(path, ignored)
    with disk.watching(), StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        for number, row in enumerate(ROWS[:rows], 1):
            writer.append([row])
            disk.acknowledged.add(row.key)
            disk.look()
            if number % seal_every == 0:
                writer.seal()
                disk.look()
    return disk


def lost(folder: Path, state: State, rewrite: bool) -> bool:
    """Whether a state lacks something that was acknowledged, or cannot be opened."""
    files, acknowledged = state
    folder.mkdir()
    for name, content in files:
        (folder / name).write_bytes(content)
    try:
        if rewrite or "manifest.json" not in dict(files):
            with StoreWriter.open(folder, MANIFEST, QUESTIONS):
                pass
        there = TrajectoryStore.open(folder).trajectories()
    except TTSError:
        return True
    wanted = {row.key: row for row in ROWS}
    return not acknowledged <= {row.key for row in there} or any(wanted[row.key] != row for row in there)


def power_cuts(folder: Path, rows: int, seal_every: int) -> dict[str, int]:
    """Open every state: for reading, and one in four for writing too; then with one fsync after the other left out.

    Returns:
        `states`; `lost`, of these; `fsyncs`; `needed`, the fsyncs without which a state loses something.
    """
    disk = record(folder / "recorded", rows, seal_every)
    bad = [lost(folder / f"state-{n}", state, rewrite=n % 4 == 0) for n, state in enumerate(disk.states)]
    needed = 0
    for ignored in range(1, disk.fsyncs + 1):
        lying = record(folder / f"lying-{ignored}", rows, seal_every, ignored)
        states = enumerate(lying.states - disk.states)
        needed += any(lost(folder / f"state-{ignored}-{n}", state, rewrite=False) for n, state in states)
    return {"states": len(disk.states), "lost": sum(bad), "fsyncs": disk.fsyncs, "needed": needed}
