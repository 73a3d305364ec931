"""One repository: commits, branches and tags, and the contents of its files, all in memory."""

from __future__ import annotations

import hashlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from local_hub.errors import Refusal, entry_not_found, revision_not_found
from local_hub.objects import Commit, File

RepoType = Literal["model", "dataset", "space"]
LFS_PATTERNS = (
    "arrow",
    "bin",
    "gz",
    "npy",
    "npz",
    "onnx",
    "parquet",
    "pickle",
    "pkl",
    "pt",
    "pth",
    "safetensors",
    "zip",
)
"""Endings of the names of files that go to LFS in a new repository."""
LFS_BYTES = 10 * 1024 * 1024
"""A file from this size on goes to LFS whatever its name is."""


@dataclass
class Change:
    """What a commit does to one path."""

    path: str
    content: bytes | None = None
    sha256: str | None = None
    """Of an LFS file, uploaded before."""
    deletes: Literal["file", "folder"] | None = None


@dataclass
class Repository:
    """A repository as the Hub keeps it; made with a first commit that holds `.gitattributes`."""

    id: str
    type: RepoType
    owner: str
    private: bool = False
    gated: Literal["auto", "manual"] | None = None
    allowed: set[str] = field(default_factory=set)
    """Users who may read it although it is gated."""
    created: float = field(default_factory=time.time)
    commits: dict[str, Commit] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    """`refs/heads/main` and the like, to commit ids."""
    blobs: dict[str, bytes] = field(default_factory=dict)
    """Contents of the files that git keeps, by git id."""
    lfs: dict[str, bytes] = field(default_factory=dict)
    """Contents of the others, by SHA-256."""

    def __post_init__(self) -> None:
        self.lock = threading.RLock()
        lines = "".join(f"*.{ending} filter=lfs diff=lfs merge=lfs -text\n" for ending in LFS_PATTERNS)
        self._add("main", (), {}, [Change(".gitattributes", lines.encode())], self.owner, "initial commit", "")

    @property
    def head(self) -> str:
        """The commit that `main` is at."""
        return self.refs["refs/heads/main"]

    def resolve(self, revision: str) -> str:
        """The commit id of a branch, a tag, a full ref, a commit, or the first seven or more digits of one.

        Raises:
            Refusal: 404, RevisionNotFound.
        """
        for ref in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if ref in self.refs:
                return self.refs[ref]
        if re.fullmatch("[0-9a-f]{7,40}", revision):
            found = [oid for oid in self.commits if oid.startswith(revision)]
            if len(found) == 1:
                return found[0]
        raise revision_not_found(revision)

    def file(self, commit: str, path: str) -> File:
        """A file of a commit.

        Raises:
            Refusal: 404, EntryNotFound.
        """
        try:
            return self.commits[commit].files[path]
        except KeyError:
            raise entry_not_found(path) from None

    def content(self, file: File) -> bytes:
        """The bytes of a file."""
        return self.lfs[file.sha256] if file.sha256 else self.blobs[file.oid]

    def read(self, path: str, revision: str = "main") -> bytes:
        """The bytes of a file, as a test wants them."""
        return self.content(self.file(self.resolve(revision), path))

    def history(self, revision: str = "main") -> Iterator[tuple[str, Commit]]:
        """Commits from a revision back to the first, the newest first."""
        oid: str | None = self.resolve(revision)
        while oid:
            commit = self.commits[oid]
            yield oid, commit
            oid = commit.parents[0] if commit.parents else None

    def store(self, content: bytes) -> str:
        """Keep an LFS object; its SHA-256."""
        sha256 = hashlib.sha256(content).hexdigest()
        self.lfs[sha256] = content
        return sha256

    def commit(
        self,
        branch: str,
        changes: Iterable[Change],
        *,
        author: str,
        title: str,
        message: str = "",
        parent: str | None = None,
        ref: str | None = None,
    ) -> str:
        """Put changes on a branch, all of them or none; the id of the new commit.

        Args:
            branch: name of a branch, or a full ref such as `refs/pr/1`.
            changes: in order.
            author: a user.
            title: first line of the commit message.
            message: the rest of it.
            parent: commit that the branch must be at; any if left out.
            ref: where the commit goes instead of the branch: a pull request.

        Raises:
            Refusal: 404 for an unknown branch or a file to delete that is not there, 412 where the branch is at another
                commit than `parent`, 400 for an LFS file that was not uploaded.
        """
        with self.lock:
            at = self.refs.get(branch if branch.startswith("refs/") else f"refs/heads/{branch}")
            if at is None:
                raise revision_not_found(branch)
            if parent is not None and not at.startswith(parent):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            return self._add(ref or branch, (at,), dict(self.commits[at].files), changes, author, title, message)

    def new_pull_request(self) -> str:
        """The ref of the next pull request."""
        return f"refs/pr/{1 + sum(ref.startswith('refs/pr/') for ref in self.refs)}"

    def name(self, ref: str, oid: str, exists: Callable[[], Refusal]) -> None:
        """Make a branch or a tag.

        Raises:
            Refusal: what `exists` makes, if there is one.
        """
        with self.lock:
            if ref in self.refs:
                raise exists()
            self.refs[ref] = oid

    def _add(
        self,
        branch: str,
        parents: tuple[str, ...],
        files: dict[str, File],
        changes: Iterable[Change],
        author: str,
        title: str,
        message: str,
    ) -> str:
        for change in changes:
            self._apply(files, change)
        commit = Commit(files, parents, author, int(time.time()), title, message)
        self.commits[commit.oid] = commit
        self.refs[branch if branch.startswith("refs/") else f"refs/heads/{branch}"] = commit.oid
        return commit.oid

    def _apply(self, files: dict[str, File], change: Change) -> None:
        path = _checked(change.path)
        if change.deletes:
            gone = [p for p in files if p == path or (change.deletes == "folder" and p.startswith(f"{path}/"))]
            if not gone:
                raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
            for name in gone:
                del files[name]
        elif change.sha256 is not None:
            if change.sha256 not in self.lfs:
                raise Refusal(400, f"LFS pointer of {path} points to an object that was not uploaded: {change.sha256}")
            files[path] = File.pointer(change.sha256, len(self.lfs[change.sha256]))
        else:
            content = change.content or b""
            files[path] = File.of(content)
            self.blobs[files[path].oid] = content


def _checked(path: str) -> str:
    path = path.strip("/")
    if not path or {"", ".", "..", ".git"} & set(path.split("/")):
        raise Refusal(400, f"invalid path in a commit: {path!r}")
    return path
