"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)


def write_whole(path: Path, text: str | bytes, aside: Path | None = None) -> None:
    """Write a file by way of another one, `aside`, so that it is there whole or as it was, even if the power goes.

    Raises:
        OSError: it cannot be written.
    """
    aside = aside or path.with_name(f".{path.name}.tmp")
    with contextlib.suppress(FileNotFoundError):
        os.unlink(aside)
    with open(os.open(aside, _NEW, 0o644), "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(aside, path)
