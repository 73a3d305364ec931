"""How a controller on the Hub is named: `user/name`, or `user/name@revision`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tts_generate.errors import HubError, InputError
from tts_generate.inert import inert

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")
_NOWHERE = re.compile(r'[\\:*?"<>|]')
_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])( *\..*)?", re.IGNORECASE)
_LONGEST = 255
"""Bytes of a file's name."""


@dataclass(frozen=True)
class Repo:
    """A controller's repo as it was asked for."""

    repo_id: str
    revision: str | None = None
    """A branch, a tag or a commit; None: whatever `main` is."""


def is_commit(revision: str) -> bool:
    """Whether a revision is a whole commit hash, which never moves.

    >>> is_commit("3d50a595a4cda36f3fa7debe3fc47bd871611954"), is_commit("main"), is_commit("3d50a59")
    (True, False, False)
    """
    return _COMMIT.fullmatch(revision) is not None


def is_repo_id(text: str) -> bool:
    """Whether a text is the id of a repo, `user/name`.

    >>> is_repo_id("me/ctl"), is_repo_id("cmc"), is_repo_id("./me"), is_repo_id("a/b/c"), is_repo_id("me/..")
    (True, False, False, False, False)
    """
    return _REPO.fullmatch(text) is not None and ".." not in text and "--" not in text and not text.endswith((".", "-"))


def check_repo_id(text: str, kind: str = "repo") -> None:
    """Refuse what is no id of a repo; `kind` says what it should be of.

    Raises:
        InputError: it is none.
    """
    if not is_repo_id(text):
        raise InputError(f"{text!r} is no {kind} of the Hub; expected is 'user/name'.")


def repo_of(text: str, revision: str | None = None) -> Repo | None:
    """The repo that `text` names, `user/name` or `user/name@revision`; None if it is no such name.

    Raises:
        InputError: two revisions, or one for something that is not a repo.

    >>> repo_of("me/ctl@v1")
    Repo(repo_id='me/ctl', revision='v1')
    >>> repo_of("asc") is None
    True
    """
    name, at, theirs = text.partition("@")
    if not is_repo_id(name):
        if revision is not None:
            raise InputError(f"revision={revision!r} is for a repo of the Hub, user/name; {text!r} is none.")
        return None
    if at and revision is not None and theirs != revision:
        raise InputError(f"{text!r} names one revision and revision={revision!r} another; give one.")
    chosen = theirs if at else revision
    if chosen is not None and (not chosen or chosen.startswith("-") or ".." in chosen or not chosen.isprintable()):
        raise InputError(f"revision {chosen!r} of {name} is no branch, tag or commit.")
    if chosen is not None and Path(name).exists():
        raise InputError(
            f"{name!r} with a revision is a repo, and a file or folder of that name is here too; move that, or leave "
            "the revision out and write './' before it."
        )
    return Repo(name, chosen)


def check_paths(paths: Iterable[str], where: str) -> None:
    r"""Refuse a repo with a file whose name leads out of it, or is another file's, on this system or on another.

    Raises:
        HubError: naming the file and what is wrong with its name.

    >>> check_paths(["README.md", "a\\..\\b"], "me/ctl")
    Traceback (most recent call last):
    tts_generate.errors.HubError: me/ctl holds a file named 'a\\..\\b', which has '\\' in it; nothing of it is written.
    """
    files = set(paths)
    spelt: dict[str, str] = {}
    for path in sorted(files):
        parts = path.split("/")
        why = next(filter(None, map(_unfit, parts)), "")
        folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
        for place in (*folders, path):
            known = spelt.setdefault(unicodedata.normalize("NFC", place).casefold(), place)
            why = why or (f"is {known!r} on some systems" if known != place else "")
        if folder := next((folder for folder in folders if folder in files), ""):
            why = why or f"lies in {folder!r}, which is a file"
        if why:
            raise HubError(f"{where} holds a file named {path!r:.200}, which {why}; nothing of it is written.")


def _unfit(part: str) -> str:
    """What is wrong with a part of a path; "" for nothing."""
    if part in ("", ".", ".."):
        return "leads out of its folder" if part else "begins or ends with '/', or has two in a row"
    if found := _NOWHERE.search(part):
        return f"has {found[0]!r} in it"
    if inert(part, lines=False) != part:
        return "has characters in it that nobody sees"
    if part.endswith((".", " ")) or part.startswith(" "):
        return "begins or ends with a space, or ends with a dot"
    if _DEVICE.fullmatch(part):
        return "is a device on Windows"
    return "" if len(part.encode()) <= _LONGEST else "is too long for a file"
