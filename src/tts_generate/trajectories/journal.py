"""An append-only journal: what `append` has returned for is on the disk, whatever happens next.

A record is its length, its crc32, and its JSON. Reading stops at the first record that is not whole, which is what a
crash in the middle of a write leaves behind.
"""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tts_generate.errors import StoreError

_HEAD = struct.Struct("<II")


def read_journal(path: Path) -> Iterator[tuple[list[dict[str, Any]], int]]:
    """Every whole record of a journal, with the offset behind it; nothing if there is no journal."""
    if not path.is_file():
        return
    data = path.read_bytes()
    offset = 0
    while offset + _HEAD.size <= len(data):
        length, crc = _HEAD.unpack_from(data, offset)
        payload = data[offset + _HEAD.size : offset + _HEAD.size + length]
        if len(payload) < length or zlib.crc32(payload) != crc:
            return
        offset += _HEAD.size + length
        yield json.loads(payload), offset


class Journal:
    """A journal open for writing; a torn tail is cut off when it is opened."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.end = 0
        self.rows: list[dict[str, Any]] = []
        for rows, offset in read_journal(path):
            self.rows += rows
            self.end = offset
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        os.ftruncate(self._file, self.end)
        os.fsync(self._file)

    def append(self, rows: list[dict[str, Any]]) -> None:
        """Write one record and wait until it is on the disk; after an error the journal is what it was before.

        Raises:
            StoreError: naming the path and the space left.
        """
        payload = json.dumps(rows, ensure_ascii=False, allow_nan=False).encode()
        record = _HEAD.pack(len(payload), zlib.crc32(payload)) + payload
        try:
            written = 0
            while written < len(record):
                written += os.pwrite(self._file, record[written:], self.end + written)
            os.fsync(self._file)
        except OSError as error:
            os.ftruncate(self._file, self.end)
            raise full(self.path, error) from error
        self.end += len(record)
        self.rows += rows

    def clear(self) -> None:
        """Forget everything: it has been sealed elsewhere."""
        os.ftruncate(self._file, 0)
        os.fsync(self._file)
        self.end = 0
        self.rows = []

    def close(self) -> None:
        """Close the file; what was appended stays."""
        os.close(self._file)


def full(path: Path, error: OSError) -> StoreError:
    """A write error as one of ours, with the space that is left."""
    space = os.statvfs(path.parent)
    free = space.f_bavail * space.f_frsize
    return StoreError(
        f"cannot write {path}: {error.strerror} ({free:,} bytes free). What was recorded before is kept; make room "
        "and run the same command again."
    )
