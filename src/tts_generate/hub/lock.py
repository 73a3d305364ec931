"""`tts-controllers.lock`: which commit of a repo is meant, and what its files are. It pins; it does not vouch."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_generate.disk import write_whole
from tts_generate.errors import ControllerError, InputError
from tts_generate.strict_json import read_json

FORMAT = "tts-controllers-lock/1"
LOCK_FILE = "tts-controllers.lock"
LOCK_VARIABLE = "TTS_CONTROLLERS_LOCK"
"""Names the lock file; the one in the working directory, if there is one, where it is not set."""


@dataclass(frozen=True)
class Locked:
    """One repo of a lock file."""

    path: Path
    """Of the lock file."""
    repo_id: str
    revision: str
    """What was asked for when it was locked, such as `main`."""
    commit: str
    files: Mapping[str, str]
    """The sha256 of each file that a load reads, by name."""


def lock_path() -> Path:
    """Where the lock file is looked for."""
    return Path(os.environ.get(LOCK_VARIABLE) or LOCK_FILE)


def locked(repo_id: str) -> Locked | None:
    """What the lock file says of a repo; None if there is no lock file, or nothing in it.

    Raises:
        ControllerError: the lock file is damaged.
        InputError: `TTS_CONTROLLERS_LOCK` names a file that is not there.
    """
    return read_lock(lock_path()).get(repo_id)


def read_lock(path: Path) -> dict[str, Locked]:
    """Every repo of a lock file; none if it does not exist and no variable names it.

    Raises:
        ControllerError: naming the file and what is wrong in it.
        InputError: `TTS_CONTROLLERS_LOCK` names a file that is not there.
    """
    if not path.exists():
        if os.environ.get(LOCK_VARIABLE):
            raise InputError(f"{LOCK_VARIABLE} names {path}, which does not exist.")
        return {}
    told = read_json(path, error=ControllerError)
    if not isinstance(told, dict) or told.get("format") != FORMAT or not isinstance(told.get("controllers"), dict):
        raise ControllerError(f"{path} is no lock file of this version, which reads {FORMAT!r}; make it anew.")
    return {repo_id: _entry(path, repo_id, row) for repo_id, row in told["controllers"].items()}


def write_lock(path: Path, entries: Mapping[str, Locked]) -> None:
    """Write a lock file, whole or not at all, repos in alphabetical order."""
    told = {
        entry.repo_id: {"revision": entry.revision, "commit": entry.commit, "files": dict(entry.files)}
        for entry in sorted(entries.values(), key=lambda entry: entry.repo_id)
    }
    try:
        write_whole(path, json.dumps({"format": FORMAT, "controllers": told}, indent=2) + "\n")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error


def _entry(path: Path, repo_id: str, row: Any) -> Locked:
    expected = {"revision": str, "commit": str, "files": dict}
    if not isinstance(row, dict) or set(row) != set(expected):
        raise ControllerError(f"{path}: {repo_id} must have {', '.join(expected)} and nothing else.")
    for name, kind in expected.items():
        if not isinstance(row[name], kind):
            raise ControllerError(f"{path}: {name} of {repo_id} is {row[name]!r:.80}.")
    for name, sha256 in row["files"].items():
        if not isinstance(sha256, str):
            raise ControllerError(f"{path}: the sha256 of {name:.80} of {repo_id} is {sha256!r:.80}.")
    commit = row["commit"]
    if len(commit) != 40 or not set(commit) <= set("0123456789abcdef"):
        raise ControllerError(f"{path}: commit of {repo_id} is {commit!r:.80}; expected are 40 hexadecimal digits.")
    return Locked(path, repo_id, row["revision"], commit, row["files"])
