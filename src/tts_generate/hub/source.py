"""A controller as bytes that were checked, wherever they came from; what was checked is what runs."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tts_generate.errors import ControllerError
from tts_generate.hub.card import CARD, MAX_CARD, Card, check_code, check_size, entry_of, parse_card
from tts_generate.import_rules import MAX_SOURCE


@dataclass(frozen=True)
class Source:
    """A controller's files, read once and checked; nothing of it has run."""

    card: Card = field(compare=False, repr=False)
    card_text: bytes
    code: bytes | None
    """None for a controller that is data alone."""
    path: Path
    """Of its folder, or of its snapshot in the cache."""
    readable_at: str
    """Where people can read its code."""
    repo_id: str | None = None
    commit: str | None = None

    @property
    def label(self) -> str:
        """What it is called in messages."""
        return f"{self.repo_id} at commit {self.commit}" if self.repo_id else str(self.path)

    @property
    def mark(self) -> str:
        """A name for this version from this place, fit for a Python module."""
        place = "".join(c if c.isalnum() else "_" for c in (self.repo_id or self.path.name))
        return f"{place}_{hashlib.sha256(self.label.encode() + self.card_text).hexdigest()[:12]}"

    @property
    def files(self) -> dict[str, str]:
        """The sha256 of each file that was read, by name."""
        found = {CARD: self.card_text}
        if self.code is not None:
            found[entry_of(self.card)[0]] = self.code
        return {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}


def read_folder(folder: Path) -> Source:
    """The controller in a folder.

    Raises:
        ControllerError: naming the file and what is wrong with it.
    """
    folder = folder.resolve()
    if not folder.is_dir():
        raise ControllerError(f"{folder} is no folder.")

    def read(name: str, limit: int) -> bytes:
        path = folder / name
        if not path.is_file():
            raise ControllerError(missing(path, name, [p.name for p in folder.iterdir()]))
        if path.resolve().parent != folder:
            raise ControllerError(f"{path} leads out of its folder, to {path.resolve()}; nothing outside is read.")
        with open(path, "rb") as file:
            return file.read(limit + 1)

    return read_source(folder, read, lambda name: str(folder / name))


def read_source(
    folder: Path,
    read: Callable[[str, int], bytes],
    named: Callable[[str], str],
    repo_id: str | None = None,
    commit: str | None = None,
    page: Callable[[str], str] | None = None,
) -> Source:
    """The controller whose files `read` gives, checked.

    Args:
        folder: where they lie.
        read: a file's first bytes, one more than the limit where it is longer.
        named: what a file is called in messages.
        repo_id: whose it is.
        commit: of the repo.
        page: where people can read a file; what it is called, if left out.

    Raises:
        ControllerError: naming the file and what is wrong with it.
    """
    text = read(CARD, MAX_CARD)
    card = parse_card(text, named(CARD))
    code, name = None, ""
    if "entry" in card:
        name = entry_of(card)[0]
        code = read(name, MAX_SOURCE)
        check_size(len(code), named(name))
        check_code(card, code, named(name))
    return Source(card, text, code, folder, (page or named)(name), repo_id, commit)


def missing(where: object, name: str, there: list[str]) -> str:
    """What to say of a file that is not there."""
    shown = ", ".join(sorted(there)[:20]) or "nothing"
    more = f" and {len(there) - 20} more" if len(there) > 20 else ""
    told = "" if name == CARD else ", which the entry of controller.json names,"
    return f"{where}{told} is not there; beside it are: {shown}{more}."
