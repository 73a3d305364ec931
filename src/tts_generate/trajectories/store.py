"""A trajectory store: a folder of parquet shards, read without locks and written by one job at a time.

manifest.json     everything needed to repeat the recording
questions.jsonl   the questions, in order
part-*.parquet    one row a branch; a shard is there whole or not at all
journal           branches recorded and not yet sealed into a shard
LOCK              locked by the process that writes

A job of several processes has one that opens the store (the main one) and others that join it: each of these writes a
journal of its own (journal-<n>), holds a lock of its own (LOCK-<n>), and seals its own shards. What they leave behind
when they are killed is taken over by whoever opens the store next.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq

from tts_generate.above import HANDED
from tts_generate.arguments import checked
from tts_generate.disk import write_whole
from tts_generate.errors import StoreError, StoreFormatError, warn
from tts_generate.hub.names import repo_of
from tts_generate.trajectories.files import read_text
from tts_generate.trajectories.journal import (
    Journal,
    damaged_bytes,
    full,
    journal_path,
    other_journals,
    read_bytes,
    records_of,
    sync,
)
from tts_generate.trajectories.parts import read_parts, write_part
from tts_generate.trajectories.remote import fetch
from tts_generate.trajectories.schema import (
    Manifest,
    Question,
    Trajectory,
    questions_sha256,
    questions_to_jsonl,
    read_manifest,
    read_questions,
    to_table,
)
from tts_generate.trajectories.writers import Seat, clear_seats

_SEAL_ROWS = 4096


@dataclass(frozen=True)
class TrajectoryStore:
    """A store open for reading; it writes nothing, so a read-only mount or a full disk will do."""

    path: Path
    manifest: Manifest
    questions: tuple[Question, ...]
    origin: str | None = None
    """Where on the Hub it is from, as `user/name@commit`; None for a folder of yours."""

    @property
    def name(self) -> str:
        """What it is called: its folder, or its dataset on the Hub."""
        return self.path.absolute().name if self.origin is None else self.origin.partition("@")[0].rpartition("/")[2]

    @classmethod
    @checked
    def open(cls, path: str | Path) -> Self:
        """Read manifest and questions.

        Args:
            path: a folder; or, where there is none of that name, a dataset of the Hub, `user/name[@revision]`.

        Raises:
            StoreError: no store there.
            StoreFormatError: a store of another format, a damaged one, or one whose questions were changed.
            HubError: the dataset cannot be had.
        """
        repo = repo_of(str(path)) if not Path(path).exists() else None
        if repo is not None:
            return cls.from_hub(repo.repo_id, revision=repo.revision)
        path = Path(path)
        if not (path / "manifest.json").exists():
            raise StoreError(
                f"{path} is not a trajectory store: it has no manifest.json. Make one: tts-generate record (or import)."
            )
        manifest = read_manifest(path)
        return cls(path, manifest, read_questions(path, manifest))

    @classmethod
    @checked
    def from_hub(cls, repo_id: str, *, revision: str | None = None) -> Self:
        """A store of the Hub, fetched into the cache unless it is there, every file checked by its hash.

        Args:
            repo_id: a dataset, `user/name`.
            revision: a branch, a tag or a commit; `main` if left out. A commit that is cached needs no network.

        Raises:
            HubError: it cannot be had.
            StoreError: it is no trajectory store.
            StoreFormatError: a damaged one, or one of another format.
        """
        folder, commit = fetch(repo_id, revision)
        return dataclasses.replace(cls.open(folder), origin=f"{repo_id}@{commit}")

    @checked
    def push_to_hub(self, repo_id: str, **how: Any) -> Any:
        """Publish what is recorded so far as a dataset of the Hub, in one commit or not at all.

        Args:
            repo_id: `user/name`; made where it does not exist.
            **how: see `tts_generate.publish.publish_store`, such as `tag="v1"` or `private=True`.

        Returns:
            A `tts_generate.publish.PublishedStore`.

        Raises:
            ConflictError: what is there is not what this store goes on with, or somebody committed meanwhile.
            HubError: the Hub cannot be reached, or refuses; its `main` is as it was.
            StoreError: nothing is recorded yet, or the store is damaged.
        """
        return HANDED["publish_store"](self, repo_id, **how)

    def trajectories(self) -> list[Trajectory]:
        """Every recorded branch: sealed shards and the whole records of the journal, by question, then branch.

        Raises:
            StoreFormatError: a damaged shard, by name, or one branch recorded twice with different contents.
        """
        # Rows move from other writers' journals to the main one to shards: read in that order, a row that is moved in
        # between is seen twice, not never.
        journalled = read_journals(self.path, told=True)
        return self.ordered(read_parts(self.path) + journalled)

    def ordered(self, rows: Iterable[Trajectory]) -> list[Trajectory]:
        """Rows of this store by question, then branch, each once.

        Raises:
            StoreFormatError: a branch of no question here or of another recording, or one with different contents.
        """
        place = self._places
        found: dict[tuple[str, int], Trajectory] = {}
        for row in rows:
            if row.question_id not in place:
                raise StoreFormatError(f"{self.path} holds a branch of {row.question_id!r}, not in questions.jsonl.")
            wrong = self.manifest.misfit(row)
            if found.setdefault(row.key, row) != row:
                wrong = "it stands twice, with different contents"
            if wrong:
                raise StoreFormatError(f"{self.path}: branch {row.branch} of {row.question_id!r} is damaged: {wrong}.")
        return sorted(found.values(), key=lambda row: (place[row.question_id], row.branch))

    @cached_property
    def _places(self) -> dict[str, int]:
        return {question.question_id: number for number, question in enumerate(self.questions)}

    def table(self) -> pa.Table:
        """The same as an arrow table."""
        return to_table(self.trajectories())


class StoreWriter:
    """A store open for writing: journals branches as they come and seals them into shards.

    Use it as a context manager; leaving it, by an exception too, seals what was recorded and frees the lock.
    """

    def __init__(self, store: TrajectoryStore, seat: Seat, journal: Journal, done: set[tuple[str, int]]) -> None:
        self.path, self.seat = store.path, seat
        self._store = store
        self.done = done
        """(question_id, branch) of every branch recorded; of a writer that joined, those it recorded itself."""
        self._journal = journal

    @classmethod
    @checked
    def open(cls, path: str | Path, manifest: Manifest, questions: Sequence[Question]) -> Self:
        """Create a store, or go on with one that was recorded with the same settings.

        Raises:
            StoreError: the folder cannot be written, or another process is writing it.
            StoreFormatError: it holds a recording made with other settings; the fields are named.
        """
        path = Path(path)
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
                sync(path.absolute().parent)
            seat = Seat(path, 0)
        except OSError as error:
            raise StoreError(f"cannot write to {path}: {error.strerror}.") from error
        try:
            clear_seats(path)
            seat.say("")
            store = _settle(path, manifest, questions)
            for leftover in path.glob("*.tmp"):  # of a writer that was killed
                leftover.unlink()
            parts = read_parts(path)
            store.ordered(parts + read_journals(path))  # nothing is added to what could not be read back
            sealed = {row.key for row in parts}
            journal = Journal(journal_path(path, 0))
            # Killed between naming a shard and clearing the journal: what is sealed is not sealed again.
            journal.rows = [row for row in journal.rows if _key(row) not in sealed]
            done = sealed | {_key(row) for row in journal.rows}
            try:
                _take_over(path, journal, done)
            except BaseException:
                journal.close()
                raise
        except BaseException as error:
            seat.leave()
            if isinstance(error, OSError):
                raise full(path / "manifest.json", error) from error
            raise
        return cls(store, seat, journal, done)

    @classmethod
    @checked
    def join(cls, path: str | Path, manifest: Manifest, index: int) -> Self:
        """Write beside the main process of this job, which has the store open, as its process `index` (1, 2, …).

        The processes must not record the same branches.

        Raises:
            StoreError: no store there, which is so where the folder is not shared, or it cannot be written.
            StoreFormatError: the main process records with other settings; the fields are named.
        """
        path = Path(path)
        store = TrajectoryStore.open(path)
        _check_settings(store, manifest)
        try:
            seat = Seat(path, index)
            try:
                return cls(store, seat, Journal(journal_path(path, index)), set())
            except BaseException:
                seat.leave()
                raise
        except OSError as error:
            raise StoreError(f"cannot write to {path}: {error.strerror}.") from error

    def append(self, trajectories: Iterable[Trajectory]) -> None:
        """Record branches; they are on the disk when this returns. A branch recorded before is left as it was.

        Raises:
            StoreError: the disk is full or fails; what was recorded before is kept.
            StoreFormatError: a branch that is none of this recording; nothing of the call is recorded.
        """
        rows = [trajectory for trajectory in trajectories if trajectory.key not in self.done]
        if rows:
            self._store.ordered(rows)
            self._journal.append([row.to_row() for row in rows])
            self.done |= {row.key for row in rows}
            if len(self._journal.rows) >= _SEAL_ROWS:
                self.seal()

    def seal(self) -> None:
        """Move the journal into a new shard: written aside, synced, checked, then given its name."""
        if not self._journal.rows:
            return
        name = hashlib.sha256("".join(map(repr, sorted(self.done))).encode()).hexdigest()[:12]
        # One after the last, and no name twice: a shard that was moved aside and is recorded again is not the last one.
        number = 1 + max(
            (int(part.name[5:10]) for part in self.path.glob("part-[0-9][0-9][0-9][0-9][0-9]-*")), default=-1
        )
        target = self.path / f"part-{number:05d}-{name}.parquet"
        aside = target.with_suffix(".tmp")
        try:
            rows = write_part(map(Trajectory.from_row, self._journal.rows), aside)
            sync(aside)
            if pq.read_table(aside, page_checksum_verification=True).num_rows != rows:
                raise StoreError(f"{aside} does not read back as it was written; the disk may be failing.")
            os.link(aside, target)
            aside.unlink()
            sync(self.path)
        except OSError as error:
            with contextlib.suppress(OSError):  # whoever opens the store next removes it
                aside.unlink(missing_ok=True)
            raise full(target, error) from error
        self._journal.clear()

    def close(self) -> None:
        """Seal what was recorded and free the lock, also where sealing fails: the journal keeps it then."""
        try:
            self.seal()
        finally:
            self._leave()

    def _leave(self) -> None:
        self._journal.close()
        if self._journal.path != journal_path(self.path, 0) and not self._journal.rows:
            with contextlib.suppress(OSError):  # empty, and taken over by whoever opens the store next
                self._journal.path.unlink()
        self.seat.leave()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, StoreError):  # the disk is failing: do not try to write more, the journal holds it all
            self._leave()
        else:
            self.close()


def _key(row: dict[str, Any]) -> tuple[str, int]:
    return row["question_id"], row["branch"]


def _take_over(path: Path, journal: Journal, done: set[tuple[str, int]]) -> None:
    """Move what other writers of an earlier job left in their journals into ours; killed half-way, nothing is lost."""
    for leftover in map(Journal, other_journals(path)):
        rows = [row for row in leftover.rows if _key(row) not in done]
        try:
            if rows:
                journal.append(rows)
                done |= {_key(row) for row in rows}
        finally:
            leftover.close()
        leftover.path.unlink()


def read_journals(path: Path, told: bool = False) -> list[Trajectory]:
    """The whole records of every journal: what is recorded and not yet sealed. Warns of damage between if `told`.

    Raises:
        StoreFormatError: naming the journal that is damaged or holds something else.
    """
    found = []
    for journal in (*other_journals(path), journal_path(path, 0)):
        try:
            data = read_bytes(journal)
            records = list(records_of(data))
            found += [Trajectory.from_row(row) for rows, _, _ in records for row in rows]
        except StoreFormatError as error:
            raise StoreFormatError(
                f"{journal} cannot be read ({error}). Move it aside: tts-generate store repair."
            ) from error
        if told and (count := damaged_bytes(data, records)):
            warn(
                f"{count:,} bytes of {journal} are damaged: the branches in them are missing, {len(records)} whole "
                f"records are read. tts-generate store check {path} says more, store repair keeps them aside."
            )
    return found


def _settle(path: Path, manifest: Manifest, questions: Sequence[Question]) -> TrajectoryStore:
    """Write manifest and questions, or check that those there ask for the same recording."""
    if (path / "manifest.json").exists():
        store = TrajectoryStore.open(path)
        _check_settings(store, manifest)
        return store
    text = questions_to_jsonl(questions)
    if questions_sha256(questions) != manifest.questions_sha256:
        raise StoreFormatError("the questions are not those of the manifest: their questions_sha256 differs.")
    ours = {"LOCK", "manifest.tmp", "questions.tmp"}
    if (path / "questions.jsonl").exists() and read_text(path / "questions.jsonl") == text:
        ours.add("questions.jsonl")  # of a writer that was killed right here
    foreign = sorted(file.name for file in path.iterdir() if file.name not in ours and not file.name.startswith("."))
    if foreign:
        raise StoreError(
            f"{path} is not empty and not a store (it holds {', '.join(foreign[:3])}); use another folder."
        )
    _write_text(path / "questions.jsonl", text)
    _write_text(path / "manifest.json", manifest.to_json())  # last: a folder with a manifest is a store
    return TrajectoryStore.open(path)


def _check_settings(store: TrajectoryStore, manifest: Manifest) -> None:
    asked = Manifest.from_json(manifest.to_json(), store.path / "manifest.json")  # as it will be read back
    difference = store.manifest.difference(asked)
    if difference:
        raise StoreFormatError(
            f"{store.path} was recorded with other settings ({difference}). Use the same settings to go on with it, or "
            "another folder."
        )


def _write_text(path: Path, text: str) -> None:
    write_whole(path, text, path.with_suffix(".tmp"))
    sync(path.parent)
