"""What is wrong with a store, file by file, and its repair: nothing is deleted, what can be read is kept.

`check` only reads: a read-only mount or a full disk will do, and so will a store that is being written. `repair` moves
what is damaged aside (`<name>.damaged-<n>`), once the rows that can be read are on the disk elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from tts_generate.arguments import checked
from tts_generate.errors import InputError, StoreError, StoreFormatError
from tts_generate.trajectories.journal import (
    Journal,
    damaged_bytes,
    free_name,
    full,
    journal_path,
    other_journals,
    read_bytes,
    records_of,
    replace_journal,
    sync,
)
from tts_generate.trajectories.parts import read_part, shards
from tts_generate.trajectories.schema import Manifest, Question, Trajectory, read_manifest, read_questions
from tts_generate.trajectories.writers import Seat, clear_seats


@dataclass(frozen=True, slots=True)
class Finding:
    """Something about one file of a store."""

    file: str
    text: str
    wrong: bool = True
    """False for what a killed writer may leave, which is no damage."""

    def __str__(self) -> str:
        return f"{self.file}: {self.text}"


@dataclass(frozen=True, slots=True)
class CheckedStore:
    """What `check` found."""

    path: Path
    findings: tuple[Finding, ...]
    branches: int
    """Branches that can be read, each counted once."""
    expected: int
    """Branches of a finished recording; 0 where manifest or questions cannot be read."""
    _kept: dict[Path, list[Trajectory]] = field(repr=False)
    """Of each file that a repair replaces, the rows worth keeping."""

    @property
    def sound(self) -> bool:
        """Whether nothing is wrong."""
        return not any(finding.wrong for finding in self.findings)


@checked
def check(path: str | Path) -> CheckedStore:
    """Read every file of a store, and say what is wrong with which.

    Args:
        path: its folder. Nothing is written there.

    Raises:
        StoreError: no folder of that name, or nothing in it that is part of a store; or one that takes too much memory.
    """
    path = Path(path)
    if not path.is_dir() or not any((path / name).exists() for name in ("manifest.json", "questions.jsonl", "journal")):
        raise StoreError(f"{path} is not a trajectory store: a folder with manifest.json and questions.jsonl is one.")
    reading = _Reading(path)
    # As in TrajectoryStore.trajectories: a row that moves meanwhile is seen twice, not never.
    journals = {file: reading.bytes_of(file) for file in (*other_journals(path), journal_path(path, 0))}
    for part in shards(path):
        reading.part(part)
    for file, data in journals.items():
        reading.journal(file, data)
    reading.leftovers()
    manifest, questions = reading.manifest, reading.questions
    expected = manifest.branches * len(questions) if manifest is not None and questions is not None else 0
    return CheckedStore(path, tuple(reading.findings), len(reading.rows), expected, reading.kept)


@checked
def repair(path: str | Path) -> tuple[CheckedStore, CheckedStore]:
    """Move damaged files of a store aside, and keep every branch that can be read.

    Killed or out of disk half-way, nothing that could be read before is lost, and it can be called again. Where nothing
    is wrong, nothing is written.

    Returns:
        What was found, and what is found now.

    Raises:
        StoreError: no store; one that another process writes; one on a disk that is full or cannot be written.
        StoreFormatError: manifest.json or questions.jsonl are damaged, which nothing here can make again.
    """
    found = check(path)
    lost = [finding for finding in found.findings if finding.wrong and finding.file in _MADE_ONCE]
    if lost:
        raise StoreFormatError(
            f"{found.path} cannot be repaired: {lost[0]}. Put that file back from a copy of the store; or run the "
            "command that recorded it into another folder, which makes the same file, and copy it from there."
        )
    if found.sound:
        return found, found
    try:
        seat = Seat(found.path, 0)
    except OSError as error:
        raise StoreError(f"cannot write to {found.path}: {error.strerror}.") from error
    try:
        clear_seats(found.path)
        _mend(check(found.path))  # again, now that nobody else can write
    except OSError as error:
        raise full(found.path / "journal", error) from error
    finally:
        seat.leave()
    return found, check(found.path)


_MADE_ONCE = ("manifest.json", "questions.jsonl")


def _mend(found: CheckedStore) -> None:
    main = journal_path(found.path, 0)
    journals = {file for file in found._kept if file.suffix != ".parquet" and stat.S_ISREG(file.lstat().st_mode)}
    for file, rows in found._kept.items():
        if file in journals:
            replace_journal(file, [row.to_row() for row in rows])
    for file, rows in found._kept.items():
        if file not in journals:
            if rows:
                journal = Journal(main)
                try:
                    journal.append([row.to_row() for row in rows])
                finally:
                    journal.close()
            os.rename(file, free_name(file))
            sync(found.path)


class _Reading:
    """Rows that can be read, with what is wrong about the files they are in."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.findings: list[Finding] = []
        self.rows: dict[tuple[str, int], Trajectory] = {}
        self.taken = 0
        self.kept: dict[Path, list[Trajectory]] = {}
        self.manifest = self._manifest()
        self.questions = self._questions()

    def _wrong(self, file: Path, text: str, rows: Iterable[Trajectory] | None = None) -> None:
        self.findings.append(Finding(file.name, text.replace(f"{self.path}{os.sep}", "")))
        if rows is not None:
            self.kept[file] = list(rows)

    def _note(self, file: Path, text: str) -> None:
        self.findings.append(Finding(file.name, text, wrong=False))

    def _manifest(self) -> Manifest | None:
        try:
            return read_manifest(self.path)
        except (StoreFormatError, InputError) as error:
            self._wrong(self.path / "manifest.json", str(error))
            return None

    def _questions(self) -> tuple[Question, ...] | None:
        if self.manifest is not None and not self.manifest.hashed:
            self._wrong(
                self.path / "manifest.json", "has no hash of the questions: nobody can tell if they were changed"
            )
        try:
            return read_questions(self.path, self.manifest)
        except StoreFormatError as error:
            self._wrong(self.path / "questions.jsonl", str(error))
            return None

    def bytes_of(self, journal: Path) -> bytes:
        """A journal as it stands."""
        try:
            return read_bytes(journal)
        except StoreFormatError as error:
            self._wrong(journal, str(error), [])
            return b""

    def part(self, file: Path) -> None:
        """Read a shard."""
        try:
            rows, needed = read_part(file, self.taken)
            self.taken += needed
        except StoreFormatError as error:
            self._wrong(file, str(error).split(" Move it aside")[0], [])
            return
        good, wrong = self._take(rows)
        if wrong:
            self._wrong(file, wrong, good)

    def journal(self, file: Path, data: bytes) -> None:
        """Take in a journal's whole records, and look at what is between and behind them."""
        records = list(records_of(data))
        rows, foreign = [], ""
        for row in (row for record, _, _ in records for row in record):
            try:
                rows.append(Trajectory.from_row(row))
            except StoreFormatError as error:
                foreign = str(error)
        good, wrong = self._take(rows)
        wrong = foreign or wrong
        rest = len(data) - (records[-1][2] if records else 0)
        if count := damaged_bytes(data, records):
            wrong = "; ".join(filter(None, [f"{count:,} bytes are damaged, {len(records)} records are whole", wrong]))
        elif rest:
            self._note(file, f"{rest:,} bytes at its end are of a record whose writing was cut off")
            self.kept[file] = good  # a writer cuts them off; whoever repairs keeps them aside
        if wrong:
            self._wrong(file, wrong, good)

    def _take(self, rows: Iterable[Trajectory]) -> tuple[list[Trajectory], str]:
        """Take in rows; those that belong here, and what is wrong with the first of the others."""
        known = None if self.questions is None else {question.question_id for question in self.questions}
        good: list[Trajectory] = []
        wrong = ""
        for row in rows:
            if known is not None and row.question_id not in known:
                wrong = wrong or f"it holds a branch of {row.question_id!r}, not in questions.jsonl"
            elif self.manifest is not None and self.manifest.misfit(row):
                wrong = wrong or f"branch {row.branch} of {row.question_id!r}: {self.manifest.misfit(row)}"
            elif self.rows.setdefault(row.key, row) != row:
                wrong = wrong or f"branch {row.branch} of {row.question_id!r} stands elsewhere with other contents"
            else:
                good.append(row)
        return good, wrong

    def leftovers(self) -> None:
        """Name what is beside the store."""
        for file in sorted(self.path.iterdir()):
            if file.suffix == ".tmp":
                self._note(file, "left by a writer that was killed; the next one removes it")
            elif file.name.startswith("LOCK") and not stat.S_ISREG(file.lstat().st_mode):
                self._wrong(file, "is no file: nobody can record here until it is moved away")
            elif ".damaged-" in file.name:
                self._note(file, "moved aside earlier; no part of the store")
