"""A store on the Hub: which files it has, and how they are fetched, at a commit that cannot change, and checked.

A dataset repo with a store has the files of its folder, and beside them `files.json` with the SHA-256 of each, and a
README. No code is in it, and none is run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tts_generate.errors import StoreError, StoreFormatError
from tts_generate.hub.names import check_repo_id, is_commit
from tts_generate.strict_json import check_format
from tts_generate.trajectories.files import parse, read_text

INDEX = "files.json"
INDEX_FORMAT = "tts-store-files/1"
STORE_FILE = re.compile(r"manifest\.json|questions\.jsonl|part-[0-9a-z-]{1,80}\.parquet")
_MAX_INDEX = 16 << 20


@dataclass(frozen=True)
class Index:
    """What `files.json` says."""

    files: Mapping[str, str]
    """SHA-256 by name."""

    def to_json(self) -> str:
        """Indented JSON."""
        row = {"format": INDEX_FORMAT, "files": dict(sorted(self.files.items()))}
        return json.dumps(row, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, where: object) -> Index:
        """Read one, believing nothing: its names become paths.

        Raises:
            StoreFormatError: naming `where` and what is wrong.

        >>> Index.from_json('{"format": "x"}', "files.json")
        Traceback (most recent call last):
        tts_generate.errors.StoreFormatError: files.json has format 'x'; this version of tts-generate reads \
'tts-store-files/1'.
        """
        try:
            row = parse(text)
        except ValueError as error:
            raise StoreFormatError(f"{where} is not JSON: {error}") from error
        check_format(row, INDEX_FORMAT, where, error=StoreFormatError)
        if set(row) != {"format", "files"} or not _is_index(row["files"]):
            raise StoreFormatError(f"{where} must hold the SHA-256 of every file of a store by name, and no more.")
        return cls(row["files"])


def _is_index(files: Any) -> bool:
    return (
        isinstance(files, dict)
        and {"manifest.json", "questions.jsonl"} <= set(files)
        and all(STORE_FILE.fullmatch(name) is not None for name in files)
        and all(isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) for value in files.values())
    )


def fetch(repo_id: str, revision: str | None = None) -> tuple[Path, str]:
    """The folder in the cache that holds a store, and the commit that it is of.

    A commit whose files are all in the cache is read from there, and nobody is asked.

    Raises:
        InputError: `repo_id` is no name of a repo.
        HubError: it cannot be had.
        StoreError: it is no trajectory store.
        StoreFormatError: a file that is not what `files.json` says, fetched twice.
    """
    from tts_generate.hub import client  # late: most stores are folders, and it is not light

    check_repo_id(repo_id, "dataset")
    repo = f"datasets/{repo_id}"
    commit = revision if revision and is_commit(revision) else client.resolve(repo, revision or "main")
    index = read_index(repo, commit)
    lacking = [name for name in index.files if client.cached(repo, commit, name) is None]
    if lacking:
        client.cache(repo, commit, lacking)
    folder = client.snapshot_folder(repo, commit)
    _check_strays(index, (path.name for path in folder.glob("part-*.parquet")), f"{repo} at commit {commit}")
    for name, sha256 in index.files.items():
        if sha256_of(folder / name) != sha256:
            client.download(repo, commit, name, again=True)
            if sha256_of(folder / name) != sha256:
                raise StoreFormatError(
                    f"{name} of {repo} at commit {commit} is not what its {INDEX} says, however often it is fetched: "
                    "it was changed, or cut short. Take another revision."
                )
    return folder, commit


def read_index(repo: str, commit: str) -> Index:
    """What a store of the Hub consists of at a commit; raises what `fetch` does."""
    from tts_generate.hub import client

    path = client.cached(repo, commit, INDEX)
    if path is None:
        there = {} if client.offline() else client.listing(repo, commit)
        if there and INDEX not in there:
            raise StoreError(
                f"{repo} at commit {commit} is not a trajectory store: it has no {INDEX}; it has "
                f"{', '.join(sorted(there)[:5])}. Publish one: tts-generate store push."
            )
        if there and there[INDEX].size > _MAX_INDEX:
            raise StoreFormatError(
                f"{INDEX} of {repo} has {there[INDEX].size:,} bytes; at most {_MAX_INDEX:,} are read."
            )
        path = client.download(repo, commit, INDEX)
        index = Index.from_json(read_text(path), f"{repo}/{INDEX} at commit {commit}")
        _check_strays(index, there, f"{repo} at commit {commit}")
        return index
    return Index.from_json(read_text(path), f"{repo}/{INDEX} at commit {commit}")


def _check_strays(index: Index, names: Iterable[str], where: str) -> None:
    strays = [name for name in names if re.fullmatch(r"part-.*\.parquet", name) and name not in index.files]
    if strays:
        raise StoreFormatError(f"{where} has shards that its {INDEX} does not name: {', '.join(strays[:3])}.")


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file; "" if it is not there."""
    if not path.is_file():
        return ""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
