"""An append-only journal: what `append` has returned for is on the disk, whatever happens next.

`journal` is that of a store's only writer, or of the main one of several; `journal-<n>` of the n-th of the others.

A record is its length, its crc32, and its JSON. A crash in the middle of a write leaves a torn record at the very end,
which is passed over. Damage before that costs the records it hits and no others: whole records behind it are found. A
record whose checksum is right and whose text is no list of JSON objects was made by no writer, and counts as damage.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from tts_generate.errors import StoreError
from tts_generate.trajectories.files import WRITE, new_file, open_file, parse, write_at
from tts_generate.trajectories.files import read_bytes as read_file

logger = logging.getLogger(__name__)
_HEAD = struct.Struct("<II")
_START = b"[{"
"""How the JSON of every record begins; by it the next record is found behind damage."""
_EFFORT = 32
"""How many times its length a journal may be read in vain; bytes made for that, not damage, take more."""


def read_journal(path: Path) -> Iterator[tuple[list[dict[str, Any]], int, int]]:
    """Every whole record of a journal with where it starts and ends, in bytes; nothing if there is no journal."""
    yield from records_of(read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """A journal as it stands; b"" if there is none."""
    try:
        return read_file(path, linked=False)
    except FileNotFoundError:
        return b""


def records_of(data: bytes) -> Iterator[tuple[list[dict[str, Any]], int, int]]:
    """Every whole record of a journal's bytes, with where it starts and ends."""
    offset, effort = 0, _EFFORT * len(data)
    while offset >= 0 and effort >= 0:
        end, rows = _record(data, offset)
        if rows:
            yield rows, offset, end
            offset = end
        else:
            effort -= end - offset
            found = data.find(_START, offset + _HEAD.size + 1)
            offset = found - _HEAD.size if found >= 0 else -1


def damaged_bytes(data: bytes, records: Iterable[tuple[list[dict[str, Any]], int, int]]) -> int:
    """How many bytes of a journal are of no whole record, but for one at its end whose writing was cut off."""
    end = gaps = 0
    for _, start, stop in records:
        gaps, end = gaps + start - end, stop
    rest = data[end:]
    return gaps + (0 if not rest.strip(b"\0") or torn(rest) else len(rest))


def journal_path(store: Path, index: int) -> Path:
    """The journal of a writer."""
    return store / (f"journal-{index}" if index else "journal")


def other_journals(store: Path) -> list[Path]:
    """The journals of all writers but the main one."""
    return [path for path in sorted(store.glob("journal-*")) if path.name.removeprefix("journal-").isdecimal()]


def _record(data: bytes, offset: int) -> tuple[int, list[dict[str, Any]]]:
    """Up to where `data` was read, which is where a record ends, and its rows; none if there is no whole one."""
    start = offset + _HEAD.size
    if not data.startswith(_START, start):
        return offset, []
    length, crc = _HEAD.unpack_from(data, offset)
    payload = memoryview(data)[start : start + length]
    fits = len(payload) == length
    whole = fits and zlib.crc32(payload) == crc
    try:
        rows = parse(bytes(payload)) if whole else []
    except ValueError:
        rows = []
    return start + length if fits else offset, rows if all(isinstance(row, dict) for row in rows) else []


def torn(rest: bytes) -> bool:
    """Whether what follows a journal's last whole record is shorter than it says, as a cut-off write leaves it."""
    return len(rest) < _HEAD.size or len(rest) < _HEAD.size + _HEAD.unpack_from(rest)[0]


class Journal:
    """A journal open for writing; a torn tail is cut off, and a damaged journal is first copied aside."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self.rows: list[dict[str, Any]] = []
        data = read_bytes(path)
        records = list(records_of(data))
        for rows, _, end in records:
            self.rows += rows
            self.end = end
        if damaged_bytes(data, records):
            kept = replace_journal(path, self.rows)
            self.end = path.stat().st_size
            logger.warning(
                "%s was damaged; %d whole records were kept, the damaged file is %s. "
                "What is missing is recorded again.",
                path,
                len(self.rows),
                kept,
            )
        self._file = open_file(path, WRITE)
        try:
            self._settle(path)
        except OSError:
            os.close(self._file)
            raise

    def _settle(self, path: Path) -> None:
        """Cut off what is behind the last whole record, and see that the file and its name are on the disk."""
        os.ftruncate(self._file, self.end)
        os.fsync(self._file)
        sync(path.parent)  # a file whose name is not on the disk is not on the disk

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write one record and wait until it is on the disk; after an error the journal is what it was before.

        Raises:
            StoreError: naming the path and the space left.
        """
        record = _pack(rows)
        try:
            written = 0
            while written < len(record):
                written += write_at(self._file, record[written:], self.end + written)
            os.fsync(self._file)
        except OSError as error:
            with contextlib.suppress(OSError):  # it stays as a record nobody was told of, and the next one is over it
                os.ftruncate(self._file, self.end)
            raise full(self.path, error) from error
        self.end += len(record)
        self.rows += rows

    def clear(self) -> None:
        """Forget everything: it has been sealed elsewhere.

        Raises:
            StoreError: the disk fails.
        """
        try:
            os.ftruncate(self._file, 0)
            self.end = 0
            self.rows = []
            os.fsync(self._file)
        except OSError as error:
            raise full(self.path, error) from error

    def close(self) -> None:
        """Close the file; what was appended stays."""
        os.close(self._file)


def replace_journal(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Replace a journal by one of these rows; where the old one stays, whole, beside it."""
    kept = free_name(path)
    aside = path.with_suffix(".tmp")
    with new_file(aside) as file:
        file.write(_pack(rows) if rows else b"")
    sync(aside)
    os.link(path, kept)
    os.replace(aside, path)
    sync(path.parent)
    return kept


def free_name(path: Path) -> Path:
    """Where a damaged file goes: beside where it was, over nothing."""
    taken = {file.name for file in path.parent.glob(f"{path.name}.damaged-*")}
    number = next(n for n in range(len(taken) + 1) if f"{path.name}.damaged-{n}" not in taken)
    return path.with_name(f"{path.name}.damaged-{number}")


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk; Windows can be asked for files alone."""
    if (folder := path.is_dir()) and not hasattr(os, "O_DIRECTORY"):
        return
    handle = os.open(path, os.O_RDONLY if folder else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _pack(rows: list[dict[str, Any]]) -> bytes:
    payload = json.dumps(rows, ensure_ascii=False, allow_nan=False).encode()
    return _HEAD.pack(len(payload), zlib.crc32(payload)) + payload


def full(path: Path, error: OSError) -> StoreError:
    """A write error as one of ours, with the space that is left."""
    free = shutil.disk_usage(next(filter(Path.is_dir, path.absolute().parents))).free
    return StoreError(
        f"cannot write {path}: {error.strerror} ({free:,} bytes free). What was recorded before is kept; make room "
        "and run the same command again."
    )
