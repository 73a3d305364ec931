"""The server: addresses of the Hub and who answers them."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal, Self, cast
from urllib.parse import unquote

from local_hub import reads, transfer, writes
from local_hub.accounts import Accounts, User, may_see
from local_hub.call import Call, object_number, web_url
from local_hub.clients import clients_here, environment
from local_hub.errors import Refusal
from local_hub.faults import Fault, Faults
from local_hub.repository import Change, Repository, RepoType
from local_hub.wire import Listener, Reply, Request
from tts_generate.arguments import checked

_REPO = re.compile(r"/api/(model|dataset|space)s/([^/]+/[^/]+)(?:/([^/]+)(?:/([^/]+)(?:/(.+))?)?)?")
_FILE = re.compile(r"/(?:(dataset|space)s/)?([^/]+/[^/]+)/resolve/([^/]+)/(.+)")
_LFS = re.compile(r"/(?:(dataset|space)s/)?([^/]+/[^/]+)\.git/info/lfs/objects/batch")

_ABOUT = {
    ("GET", ""): reads.info,
    ("GET", "revision"): reads.info,
    ("GET", "tree"): reads.tree,
    ("POST", "paths-info"): reads.paths_info,
    ("GET", "refs"): reads.refs,
    ("GET", "commits"): reads.commits,
    ("GET", "auth-check"): reads.auth_check,
    ("POST", "preupload"): transfer.preupload,
    ("POST", "commit"): writes.commit,
    ("POST", "tag"): writes.make_tag,
    ("DELETE", "tag"): writes.drop_tag,
    ("POST", "branch"): writes.make_branch,
    ("DELETE", "branch"): writes.drop_branch,
    ("PUT", "settings"): writes.settings,
}
"""The requests about one repository, by method and the word after its id."""


class HubServer:
    """A Hub on this machine, empty at first, that the real client libraries speak to; `with` it, or call `close`.

    It listens on two ports of this machine: its own at 127.0.0.1, and that of the storage of large files at localhost,
    which is another host to a client, as the real one is, and is sent no token. Everything is in memory. Commits are
    git's: the same files, author and second give the same id. Clients are told where it is by `environ` before they are
    imported, or by `endpoint=hub.url`.

    Args:
        port: 0 for a free one.
        user: who `token` stands for.
        token: a token that may write to the user's repositories.
        page: entries of one page of a listing.
        part_bytes: larger LFS objects are uploaded in parts of this size.

    >>> with HubServer() as hub:
    ...     repo = hub.create("user/model", files={"config.json": b"{}"})
    ...     repo.read("config.json")
    b'{}'
    """

    @checked
    def __init__(
        self,
        port: int = 0,
        *,
        user: str = "user",
        token: str = "hf_local",
        page: int = 1000,
        part_bytes: int = 64 * 1024 * 1024,
    ) -> None:
        self.user, self.token, self.page = user, token, page
        self.repos: dict[tuple[str, str], Repository] = {}
        self._accounts, self._faults = Accounts(), Faults()
        self._storage = transfer.Storage(part_bytes=part_bytes)
        self._log: list[Request] = []
        self._lock = threading.Lock()
        self.add_token(token, user)
        self._listener = Listener(port, self._answer, self._faults, self._log)
        self._store = Listener(0, self._storage.answer, self._faults, self._log, "localhost")
        self.url: str = self._listener.url
        self._storage.url = self._store.url

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop, and end all connections.

        Raises:
            Exception: the server itself failed while it answered; clients saw an error 500.
        """
        self._faults.clear()
        self._listener.close()
        self._store.close()
        for failure in self._listener.failures + self._store.failures:
            raise failure

    def environ(self, home: str | Path, *, token: str | None = "") -> dict[str, str]:
        """The variables that make a client process use this Hub, and no other.

        Args:
            home: folder of its caches (`HF_HOME`).
            token: None for none; the server's own if left out.
        """
        return environment(self.url, home, self.token if token == "" else token)

    def clients(self, home: str | Path, *, token: str | None = "") -> AbstractContextManager[None]:
        """Make huggingface_hub use this Hub in this process, for a `with` block; see `environ` for the arguments.

        Libraries that copy what it says when they are imported, as datasets does, need a process of their own.
        """
        return clients_here(self.url, home, self.token if token == "" else token)

    def add_token(
        self, token: str, user: str, *, orgs: Iterable[str] = (), role: Literal["read", "write"] = "write"
    ) -> None:
        """Let a token stand for a user, who may read and write in their own namespace and in their organisations'."""
        self._accounts.add(token, User(user, tuple(orgs), role))

    def revoke(self, token: str) -> None:
        """Make a token invalid, as one that has expired."""
        self._accounts.revoke(token)

    def create(
        self,
        repo_id: str,
        type: RepoType = "model",
        *,
        files: Mapping[str, bytes] | None = None,
        private: bool = False,
        gated: Literal["auto", "manual"] | None = None,
    ) -> Repository:
        """Make a repository, with a commit of some files in it."""
        owner = repo_id.partition("/")[0]
        repo = self.repos[type, repo_id] = Repository(repo_id, type, owner, private, gated)
        if files:
            self.commit(repo_id, files, type)
        return repo

    def commit(
        self, repo_id: str, files: Mapping[str, bytes | None], type: RepoType = "model", title: str = "x"
    ) -> str:
        """Commit files to `main`, as another client would; None deletes one. The commit's id."""
        repo = self.repos[type, repo_id]
        changes = [
            Change(p, content) if content is not None else Change(p, deletes="file") for p, content in files.items()
        ]
        return repo.commit("main", changes, author=repo.owner, title=title)

    def repo(self, repo_id: str, type: RepoType = "model") -> Repository:
        """A repository."""
        return self.repos[type, repo_id]

    def fault(self, path: str = "*", **what: Any) -> Fault:
        """Let something go wrong with the next request for `path`: see `Fault`."""
        return self._faults.add(Fault(path, **what))

    def clear_faults(self) -> None:
        """No more faults."""
        self._faults.clear()

    def requests(self, path: str = "*", method: str | None = None) -> list[Request]:
        """The requests so far, in the order in which they came; those of the storage of large files among them."""
        return [r for r in list(self._log) if method in (None, r.method) and fnmatchcase(r.path, path)]

    def forget_requests(self) -> None:
        """Begin a new log."""
        self._log.clear()

    def _answer(self, request: Request) -> Reply:
        call = Call(request, self._accounts.user(request.headers.get("authorization")), self.url, self.page)
        fixed = {
            ("GET", "/api/whoami-v2"): reads.whoami,
            ("POST", "/api/validate-yaml"): reads.validate_yaml,
            ("POST", "/api/repos/create"): self._create,
            ("DELETE", "/api/repos/delete"): self._delete,
            ("POST", "/api/lfs/complete"): self._storage.complete,
            ("POST", "/api/lfs/verify"): self._storage.verify,
        }
        if (request.method, request.path) in fixed:
            return fixed[request.method, request.path](call)
        if found := _FILE.fullmatch(request.raw_path):
            call.name, call.path = unquote(found[3]), unquote(found[4])
            return transfer.resolve(call, self._seen(call, found[1], found[2]), self._storage)
        if (found := _LFS.fullmatch(request.raw_path)) and request.method == "POST":
            return self._storage.batch(call, self._seen(call, found[1], found[2]))
        if found := _REPO.fullmatch(request.raw_path):
            call.name, call.path = unquote(found[4] or ""), unquote(found[5] or "")
            return self._about(call, self._seen(call, found[1], found[2]), found[3] or "")
        raise Refusal(404, f"this Hub has no {request.method} {request.path}")

    def _about(self, call: Call, repo: Repository, what: str) -> Reply:
        """The requests about one repository."""
        if what in ("xet-write-token", "xet-read-token"):
            raise Refusal(404, "this Hub has no Xet: set HF_HUB_DISABLE_XET=1 in the client's environment")
        try:
            answer = _ABOUT[call.request.method, what]
        except KeyError:
            raise Refusal(404, f"this Hub has no {call.request.method} {call.request.path}") from None
        return answer(call, repo)

    def _seen(self, call: Call, type_: str | None, repo_id: str) -> Repository:
        return may_see(self.repos.get((type_ or "model", unquote(repo_id))), call.user)

    def _create(self, call: Call) -> Reply:
        type_, namespace, repo_id = writes.asked_repo(call)
        asked = call.request.json()
        with self._lock:
            if (type_, repo_id) in self.repos:
                page = web_url(self.url, self.repos[type_, repo_id])
                raise Refusal(409, "You already created this repo", url=page)
            private = asked.get("visibility") == "private" or bool(asked.get("private"))
            repo = self.repos[type_, repo_id] = Repository(repo_id, type_, namespace, private)
        return Reply.json({"url": web_url(self.url, repo), "name": repo_id, "id": object_number(repo)})

    def _delete(self, call: Call) -> Reply:
        type_, _, repo_id = writes.asked_repo(call)
        with self._lock:
            may_see(self.repos.pop(cast(Any, (type_, repo_id)), None), call.user)
        return Reply.json({})
