"""How files come and go: preupload, Git LFS in one piece or in parts, downloads with ranges and redirects."""

from __future__ import annotations

import fnmatch
import hashlib
import re
import secrets
import threading
from dataclasses import dataclass, field
from math import ceil
from typing import Any
from urllib.parse import quote

from local_hub.accounts import may_download, may_write
from local_hub.call import Call
from local_hub.errors import Refusal, entry_not_found
from local_hub.objects import Commit
from local_hub.repository import LFS_BYTES, Repository
from local_hub.wire import Reply, Request


def preupload(call: Call, repo: Repository) -> Reply:
    """`POST /api/models/ID/preupload/R`: which files go to LFS, and what is there of each."""
    may_write(repo.owner, call.user)
    commit = repo.commits[repo.resolve(call.name)]
    asked = call.request.json()
    ignored = _patterns(asked.get("gitIgnore", ""))
    lfs = _lfs_patterns(repo, commit)
    rows = []
    for file in asked.get("files", []):
        path, name = file["path"], file["path"].rpartition("/")[2]
        large = file["size"] >= LFS_BYTES or any(fnmatch.fnmatch(name, pattern) for pattern in lfs)
        row = {"path": path, "uploadMode": "lfs" if large else "regular"}
        row["shouldIgnore"] = any(fnmatch.fnmatch(path, p) or fnmatch.fnmatch(name, p) for p in ignored)
        if path in commit.files:
            row["oid"] = commit.files[path].etag
        rows.append(row)
    return Reply.json({"files": rows})


def _patterns(gitignore: str) -> list[str]:
    return [line.strip() for line in gitignore.splitlines() if line.strip() and not line.startswith("#")]


def _lfs_patterns(repo: Repository, commit: Commit) -> list[str]:
    file = commit.files.get(".gitattributes")
    lines = repo.content(file).decode().splitlines() if file else []
    return [line.split()[0] for line in lines if "filter=lfs" in line]


@dataclass
class Storage:
    """Where LFS objects go and come from, beside the Hub and with signed addresses: it takes no tokens."""

    url: str = ""
    part_bytes: int = 64 * 1024 * 1024
    """An object larger than this is uploaded in parts of this size."""
    _uploads: dict[str, tuple[Repository, str, int]] = field(default_factory=dict)
    _parts: dict[tuple[str, int], bytes] = field(default_factory=dict)
    _downloads: dict[str, tuple[bytes, str]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def batch(self, call: Call, repo: Repository) -> Reply:
        """`POST /ID.git/info/lfs/objects/batch`: where to upload the objects that are not there."""
        may_write(repo.owner, call.user)
        asked = call.request.json()
        if asked.get("operation") != "upload" or asked.get("hash_algo", "sha256") != "sha256":
            raise Refusal(400, "only uploads by sha256 are served here")
        several = "multipart" in asked.get("transfers", [])
        objects = [self._object(call, repo, row["oid"], row["size"], several) for row in asked.get("objects", [])]
        return Reply.json({"transfer": "multipart" if several else "basic", "objects": objects})

    def _object(self, call: Call, repo: Repository, oid: str, size: int, several: bool) -> dict[str, Any]:
        row: dict[str, Any] = {"oid": oid, "size": size, "authenticated": True}
        if not re.fullmatch("[0-9a-f]{64}", oid):
            return {**row, "error": {"code": 422, "message": f"not a sha256: {oid}"}}
        if oid in repo.lfs:
            return row
        signature = secrets.token_urlsafe(16)
        self._uploads[signature] = (repo, oid, size)
        address = f"{self.url}/{oid}?signature={signature}"
        upload: dict[str, Any] = {"href": address}
        if several and size > self.part_bytes:
            parts = {str(n): f"{address}&part={n}" for n in range(1, 1 + ceil(size / self.part_bytes))}
            complete = f"{call.url}/api/lfs/complete?signature={signature}"
            upload = {"href": complete, "header": {"chunk_size": str(self.part_bytes), **parts}}
        verify = {"href": f"{call.url}/api/lfs/verify?signature={signature}"}
        return {**row, "actions": {"upload": upload, "verify": verify}}

    def complete(self, call: Call) -> Reply:
        """`POST /api/lfs/complete`: all parts of an object are there; its ETags are checked."""
        signature, repo, oid, size = self._upload(call.request)
        told = sorted(call.request.json().get("parts", []), key=lambda part: int(part["partNumber"]))
        parts = [self._parts.get((signature, int(part["partNumber"])), b"") for part in told]
        if [_etag(part) for part in parts] != [part["etag"] for part in told]:
            raise Refusal(400, "the parts are not those that were uploaded")
        self._keep(repo, oid, size, b"".join(parts))
        return Reply.json({"success": True})

    def verify(self, call: Call) -> Reply:
        """`POST /api/lfs/verify`: the object is there, with the size that was announced."""
        _, repo, oid, size = self._upload(call.request)
        asked = call.request.json()
        if oid not in repo.lfs or (asked.get("oid"), asked.get("size")) != (oid, size):
            raise Refusal(404, f"LFS object {oid} of {size} bytes is not there")
        return Reply.json({"success": True})

    def link(self, repo: Repository, sha256: str, path: str) -> str:
        """A signed address of an object."""
        signature = secrets.token_urlsafe(16)
        self._downloads[signature] = (repo.lfs[sha256], path.rpartition("/")[2])
        return f"{self.url}/{sha256}?signature={signature}"

    def answer(self, request: Request) -> Reply:
        """What the storage says to a request.

        Raises:
            Refusal: 400 for a token, 403 for a signature that is not one of ours.
        """
        if "authorization" in request.headers:
            raise Refusal(400, "a signed address takes no token: the client sent its token to a third party")
        if request.method == "PUT":
            return self._put(request)
        signature = request.query.get("signature", [""])[0]
        if request.method not in ("GET", "HEAD") or signature not in self._downloads:
            raise Refusal(403, "the signature does not match")
        content, name = self._downloads[signature]
        return ranged(request, content, {"Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}"})

    def _put(self, request: Request) -> Reply:
        signature, repo, oid, size = self._upload(request)
        part = request.query.get("part")
        if part:
            self._parts[signature, int(part[0])] = request.body
        else:
            self._keep(repo, oid, size, request.body)
        return Reply(200, headers={"ETag": _etag(request.body)})

    def _upload(self, request: Request) -> tuple[str, Repository, str, int]:
        signature = request.query.get("signature", [""])[0]
        if signature not in self._uploads:
            raise Refusal(403, "the signature does not match")
        return signature, *self._uploads[signature]

    def _keep(self, repo: Repository, oid: str, size: int, content: bytes) -> None:
        if len(content) != size or hashlib.sha256(content).hexdigest() != oid:
            raise Refusal(400, f"what was uploaded is not {oid} of {size} bytes")
        repo.lfs[oid] = content


def resolve(call: Call, repo: Repository, storage: Storage) -> Reply:
    """`GET /ID/resolve/R/PATH`: a file, or where LFS has it."""
    may_download(repo, call.user)
    oid, path = repo.resolve(call.name), call.path
    if path not in repo.commits[oid].files:
        missing = Reply.refusing(entry_not_found(path))
        missing.headers["X-Repo-Commit"] = oid
        return missing
    file = repo.file(oid, path)
    told = {"X-Repo-Commit": oid, "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
    if not file.sha256:
        return ranged(call.request, repo.content(file), told)
    told |= {"X-Linked-ETag": f'"{file.sha256}"', "X-Linked-Size": str(file.size)}
    return Reply(302, headers={**told, "Location": storage.link(repo, file.sha256, path)})


def ranged(request: Request, content: bytes, headers: dict[str, str]) -> Reply:
    """All of a file, or the range of bytes that was asked for."""
    headers = {"Content-Type": "application/octet-stream", "Accept-Ranges": "bytes", **headers}
    found = re.fullmatch(r"bytes=(\d*)-(\d*)", request.headers.get("range", ""))
    if not found or not any(found.groups()):
        return Reply(200, content, headers)
    first, last = found.groups()
    if first:
        start, end = int(first), min(int(last) if last else len(content), len(content) - 1)
    else:
        start, end = max(0, len(content) - int(last)), len(content) - 1
    if start > end:
        return Reply(416, b"", {"Content-Range": f"bytes */{len(content)}"})
    headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
    return Reply(206, content[start : end + 1], headers)


def _etag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'
