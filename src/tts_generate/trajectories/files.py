"""The files of a store, opened believing nothing: no pipe is waited for, no link is written through, JSON is JSON."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from tts_generate.errors import InputError, StoreError, StoreFormatError
from tts_generate.strict_json import once

WRITE = os.O_RDWR | os.O_CREAT
"""How a file that stays is opened for writing."""
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_HOW = sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_CLOEXEC", "O_BINARY"))
"""Of every file, as far as this system has it; Windows has none of these but the last, which others lack."""
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISLNK, "a symbolic link"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
)
_NO_FILE = {errno.ELOOP, errno.EISDIR, errno.ENXIO}
MEMORY_VARIABLE = "TTS_STORE_MEMORY_GB"
_MEMORY_GB = 16


def open_file(path: Path, flags: int = os.O_RDONLY, *, linked: bool = False) -> int:
    """A descriptor of a plain file; a link to one is none, unless it may be `linked`.

    Raises:
        StoreFormatError: something else than a file stands there.
        OSError: it cannot be opened.
    """
    if not (linked or _NO_LINK) and path.is_symlink():
        _refuse(path, stat.S_IFLNK)
    try:
        file = os.open(path, flags | _HOW | (0 if linked else _NO_LINK), 0o644)
    except OSError as error:
        if error.errno in _NO_FILE or path.is_dir():  # which Windows calls no permission
            _refuse(path, os.lstat(path).st_mode)
        raise
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        _refuse(path, mode)
    return file


def _refuse(path: Path, mode: int) -> NoReturn:
    what = next((word for is_kind, word in _KINDS if is_kind(mode)), "a device")
    raise StoreFormatError(f"{path} is {what}, not a file of a store; move it away, or put the file there.")


def read_bytes(path: Path, *, linked: bool = True) -> bytes:
    """What a file holds, if that fits into the memory that a store may take.

    Raises:
        FileNotFoundError: it is not there.
        StoreFormatError: it is no file, or cannot be read.
        StoreError: it is too large.
    """
    try:
        with open(open_file(path, linked=linked), "rb") as file:
            check_memory(path, os.fstat(file.fileno()).st_size)
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise StoreFormatError(f"{path} cannot be read: {error}.") from error


def read_text(path: Path) -> str:
    """The same as UTF-8 text.

    Raises:
        StoreFormatError: it is not there, is no file, cannot be read, or is no text.
        StoreError: it is too large.
    """
    try:
        return read_bytes(path).decode("utf-8")
    except (FileNotFoundError, UnicodeDecodeError) as error:
        raise StoreFormatError(f"{path} cannot be read: {error}.") from error


def new_file(path: Path) -> BinaryIO:
    """A file to write and then to rename; what stands there is of a writer that was killed.

    Raises:
        OSError: it cannot be made.
    """
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    return open(os.open(path, _NEW, 0o644), "wb")


def write_at(file: int, data: bytes, place: int) -> int:
    """Write into an open file, from `place` on; how many bytes were written."""
    if hasattr(os, "pwrite"):
        return os.pwrite(file, data, place)
    os.lseek(file, place, os.SEEK_SET)
    return os.write(file, data)


def parse(text: str | bytes) -> Any:
    """What JSON text stands for.

    Raises:
        ValueError: it is not JSON, which has neither NaN nor infinity; a name stands twice; it is nested too deeply.

    >>> parse('{"a": 1, "a": 2}')
    Traceback (most recent call last):
    ValueError: 'a' is in it twice
    """
    try:
        return json.loads(text, object_pairs_hook=once, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def check_memory(what: object, needed: int) -> None:
    """Refuse what would take more memory than a store may.

    Raises:
        StoreError: it would; the message names the variable that is the limit.
        InputError: that variable is no number.
    """
    told = os.environ.get(MEMORY_VARIABLE, str(_MEMORY_GB))
    try:
        limit = float(told)
    except ValueError:
        raise InputError(f"{MEMORY_VARIABLE} must be a number of gigabytes, got {told!r:.80}.") from None
    if not needed <= limit * 1e9:
        raise StoreError(
            f"{what} would take {needed / 1e9:,.1f} GB of memory, and at most {limit:g} are given to a store. If you "
            f"know where it is from, and have the memory, set {MEMORY_VARIABLE}."
        )
