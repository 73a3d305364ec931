"""`tts-controllers.lock`: which commit of a repo is meant, and what its files are. It pins; it does not vouch."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tts_generate.disk import write_whole
from tts_generate.errors import ControllerError, InputError
from tts_generate.strict_json import check_format, check_shape, read_json

FORMAT = "tts-controllers-lock/1"
LOCK_FILE = "tts-controllers.lock"
_COMMIT = Annotated[str, "40 hexadecimal digits", re.compile("[0-9a-f]{40}").fullmatch]
_ENTRY: dict[str, Any] = {"revision": str, "commit": _COMMIT, "files": {str: str}}
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
    check_format(told, FORMAT, path, "Make it anew.", error=ControllerError)
    check_shape(told, {"controllers": {str: _ENTRY}}, path, error=ControllerError)
    for repo_id, row in told["controllers"].items():
        if len(row) > len(_ENTRY):
            raise ControllerError(f"{path}: {repo_id} must have {', '.join(_ENTRY)} and nothing else.")
    return {repo_id: Locked(path, repo_id, **row) for repo_id, row in told["controllers"].items()}


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
