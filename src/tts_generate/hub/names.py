"""How a controller on the Hub is named: `user/name`, or `user/name@revision`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from tts_generate.errors import InputError

_REPO = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,95}/[A-Za-z0-9_.-]{1,96}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repo:
    """A controller's repo as it was asked for."""

    repo_id: str
    revision: str | None = None
    """A branch, a tag or a commit; None: whatever `main` is."""

    @property
    def pinned(self) -> bool:
        """Whether the revision is a commit, written out."""
        return self.revision is not None and is_commit(self.revision)


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
