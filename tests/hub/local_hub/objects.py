"""Git's objects, by git's rules: a blob, a tree or a commit is named by the SHA-1 of its contents.

Two repositories with the same files have the same tree, and a commit's id vouches for its files and for its whole past.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property


def object_id(kind: str, content: bytes) -> str:
    r"""The id of an object.

    >>> object_id("blob", b"hello\n")
    'ce013625030ba8dba906f756967f9e9ca394464a'
    """
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


@dataclass(frozen=True, slots=True)
class File:
    """A file of a commit; where `sha256` is set, git has a pointer only, and the contents are an LFS object."""

    oid: str
    """Git's id of the blob, the pointer's for an LFS file."""
    size: int
    """Bytes of the file itself."""
    sha256: str | None = None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        """What names the contents: an LFS file's SHA-256, another one's git id."""
        return self.sha256 or self.oid

    @classmethod
    def of(cls, content: bytes) -> File:
        """A file that git keeps itself."""
        return cls(object_id("blob", content), len(content))

    @classmethod
    def pointer(cls, sha256: str, size: int) -> File:
        """A file whose contents LFS keeps."""
        text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return cls(object_id("blob", text), size, sha256, len(text))


@dataclass(frozen=True)
class Commit:
    """A state of a repository, and where it came from."""

    files: Mapping[str, File]
    parents: tuple[str, ...]
    author: str
    seconds: int
    """When, in seconds since 1970."""
    title: str
    message: str = ""

    @cached_property
    def folders(self) -> dict[str, str]:
        """Path and tree id of every folder; the root is ""."""
        return tree_ids(self.files)

    @cached_property
    def oid(self) -> str:
        """The commit's id: of its tree, its parents, its author and its message."""
        who = f"{self.author} <{self.author}@users.noreply.localhost> {self.seconds} +0000"
        lines = [
            f"tree {self.folders['']}",
            *(f"parent {parent}" for parent in self.parents),
            f"author {who}",
            f"committer {who}",
            "",
            self.title,
            *(["", self.message] if self.message else []),
        ]
        return object_id("commit", "\n".join(lines).encode() + b"\n")


def tree_ids(files: Mapping[str, File]) -> dict[str, str]:
    r"""The tree id of every folder that holds a file, and of the root, "".

    >>> tree_ids({"a/b.txt": File.of(b"hello\n")})[""]
    '4b378868f9def8dfbfa9494e931d7367e276bb3a'
    """
    children: dict[str, dict[str, tuple[str, str]]] = {"": {}}
    for path, file in files.items():
        folder, _, name = path.rpartition("/")
        children.setdefault(folder, {})[name] = ("100644", file.oid)
        while folder:
            above, _, name = folder.rpartition("/")
            children.setdefault(above, {}).setdefault(name, ("40000", ""))
            folder = above
    ids: dict[str, str] = {}
    for folder in sorted(children, key=lambda path: path.count("/") + bool(path), reverse=True):  # the deepest first
        entries = {
            name: (mode, oid or ids[f"{folder}/{name}" if folder else name])
            for name, (mode, oid) in children[folder].items()
        }
        ids[folder] = object_id("tree", b"".join(_entries(entries.items())))
    return ids


def _entries(entries: Iterable[tuple[str, tuple[str, str]]]) -> Iterable[bytes]:
    """In git's order: folders as if their names ended in a slash."""
    for name, (mode, oid) in sorted(entries, key=lambda entry: entry[0] + "/" * (entry[1][0] == "40000")):
        yield f"{mode} {name}\0".encode() + bytes.fromhex(oid)
