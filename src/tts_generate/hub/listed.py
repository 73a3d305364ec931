"""A file of a commit, as the Hub lists it, and whether it is the one that is here."""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from pathlib import Path

Content = bytes | Path
"""What a file of a commit holds, or the local file that has it."""


@dataclass(frozen=True)
class Listed:
    """A file of a commit, as the Hub lists it."""

    size: int
    git_id: str
    sha256: str | None
    """Of a file that Git LFS keeps."""

    def holds(self, content: Content) -> bool:
        """Whether it has these contents."""
        with open(content, "rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            if self.sha256 is not None:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
            data = file.read()
            return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest() == self.git_id
