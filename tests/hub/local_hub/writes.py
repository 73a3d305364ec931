"""The Hub's API, what is changed by it: commits, branches and tags, settings."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Iterator
from typing import Any, cast

from local_hub.accounts import may_write
from local_hub.call import Call, web_url
from local_hub.errors import Refusal, revision_not_found
from local_hub.repository import Change, Repository, RepoType
from local_hub.wire import Reply


def commit(call: Call, repo: Repository) -> Reply:
    """`POST /api/models/ID/commit/R`: JSON lines, a header first."""
    user = may_write(repo.owner, call.user) if "create_pr" not in call.request.query else call.user
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    lines = [json.loads(line) for line in call.request.body.splitlines() if line.strip()]
    if not lines or lines[0].get("key") != "header":
        raise Refusal(400, "the first line of a commit is its header")
    header = lines[0]["value"]
    ref = repo.new_pull_request() if "create_pr" in call.request.query else None
    oid = repo.commit(
        call.name,
        list(_changes(lines[1:])),
        author=user.name,
        title=header.get("summary") or "commit",
        message=header.get("description") or "",
        parent=header.get("parentCommit"),
        ref=ref,
    )
    page = web_url(call.url, repo)
    told = {"success": True, "commitUrl": f"{page}/commit/{oid}", "commitOid": oid, "hookOutput": ""}
    if ref:
        told["pullRequestUrl"] = f"{page}/discussions/{ref.rpartition('/')[2]}"
    return Reply.json(told)


def _changes(lines: list[dict[str, Any]]) -> Iterator[Change]:
    """What the lines of a commit change.

    Raises:
        Refusal: 400, a line that is none of the protocol's.
    """
    for line in lines:
        key, value = line.get("key"), line.get("value", {})
        if key == "file" and value.get("encoding", "base64") == "base64":
            try:
                yield Change(value["path"], base64.b64decode(value["content"], validate=True))
            except (KeyError, binascii.Error) as error:
                raise Refusal(400, f"a file of the commit is not base64: {error}") from error
        elif key == "lfsFile" and value.get("algo") == "sha256":
            yield Change(value["path"], sha256=value["oid"])
        elif key in ("deletedFile", "deletedFolder"):
            yield Change(value["path"], deletes="file" if key == "deletedFile" else "folder")
        else:
            raise Refusal(400, f"unknown line of a commit: {key!r}")


def make_tag(call: Call, repo: Repository) -> Reply:
    """`POST /api/models/ID/tag/REVISION`."""
    return _make(call, repo, "refs/tags/", call.request.json().get("tag") or "", call.name)


def make_branch(call: Call, repo: Repository) -> Reply:
    """`POST /api/models/ID/branch/NAME`."""
    return _make(call, repo, "refs/heads/", call.name, call.request.json().get("startingPoint") or "main")


def _make(call: Call, repo: Repository, prefix: str, name: str, start: str) -> Reply:
    may_write(repo.owner, call.user)
    if not re.fullmatch(r"[\w][\w./-]*", name) or name.startswith("refs/"):
        raise Refusal(400, f"Invalid reference: {name!r}")
    ref = prefix + name
    repo.name(ref, repo.resolve(start), lambda: Refusal(409, f"Reference already exists: {ref}"))
    return Reply.json({})


def drop_tag(call: Call, repo: Repository) -> Reply:
    """`DELETE /api/models/ID/tag/NAME`."""
    return _drop(call, repo, f"refs/tags/{call.name}")


def drop_branch(call: Call, repo: Repository) -> Reply:
    """`DELETE /api/models/ID/branch/NAME`."""
    return _drop(call, repo, f"refs/heads/{call.name}")


def _drop(call: Call, repo: Repository, ref: str) -> Reply:
    may_write(repo.owner, call.user)
    if ref == "refs/heads/main":
        raise Refusal(403, "main cannot be deleted")
    if repo.refs.pop(ref, None) is None:
        raise revision_not_found(call.name)
    return Reply.json({})


def settings(call: Call, repo: Repository) -> Reply:
    """`PUT /api/models/ID/settings`: who may see and read it."""
    may_write(repo.owner, call.user)
    asked = call.request.json()
    if "visibility" in asked or "private" in asked:
        repo.private = asked.get("visibility") == "private" or bool(asked.get("private"))
    if "gated" in asked:
        repo.gated = asked["gated"] or None
    return Reply.json({"private": repo.private, "gated": repo.gated or False})


def asked_repo(call: Call) -> tuple[RepoType, str, str]:
    """Type, namespace and id of the repository that a request to create or delete one names.

    Raises:
        Refusal: 401 or 403 where they may not, 400 for a name that is none.
    """
    asked = call.request.json()
    name, namespace = asked.get("name") or "", asked.get("organization")
    if call.user is None:
        raise Refusal(401, "Invalid username or password.")
    namespace = namespace or call.user.name
    may_write(namespace, call.user)
    type_ = asked.get("type") or "model"
    if type_ not in ("model", "dataset", "space") or not re.fullmatch(r"[\w][\w.-]{0,95}", name):
        raise Refusal(400, f"Invalid repo: {type_} {name!r}")
    return cast(RepoType, type_), namespace, f"{namespace}/{name}"
