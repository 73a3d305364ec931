"""The Hub's API, what is read by it: users, repositories, listings, history."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode

import yaml

from local_hub.accounts import may_download, may_write
from local_hub.call import Call, iso, object_number
from local_hub.errors import Refusal, entry_not_found
from local_hub.objects import Commit, File
from local_hub.repository import Repository
from local_hub.wire import Reply

_FRONT_MATTER = re.compile(r"\A---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def whoami(call: Call) -> Reply:
    """`GET /api/whoami-v2`."""
    if call.user is None:
        raise Refusal(401, "Invalid username or password.")
    orgs = [{"name": name, "type": "org"} for name in call.user.orgs]
    role = {"type": "access_token", "accessToken": {"role": call.user.role, "displayName": "local"}}
    return Reply.json({"type": "user", "name": call.user.name, "orgs": orgs, "auth": role})


def validate_yaml(call: Call) -> Reply:
    """`POST /api/validate-yaml`: a card's metadata."""
    found = _FRONT_MATTER.match(call.request.json().get("content", ""))
    if not found:
        return Reply.json({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        loaded = yaml.safe_load(found[1])
    except yaml.YAMLError as error:
        return Reply.json({"errors": [{"message": f"Invalid YAML: {error}"}], "warnings": []}, 400)
    if not isinstance(loaded, dict):
        return Reply.json({"errors": [{"message": "metadata should be an object"}], "warnings": []}, 400)
    return Reply.json({"errors": [], "warnings": []})


def info(call: Call, repo: Repository) -> Reply:
    """`GET /api/models/ID[/revision/R]`."""
    oid = repo.resolve(call.name or "main")
    commit = repo.commits[oid]
    blobs = "blobs" in call.request.query
    card = card_data(repo, commit)
    told: dict[str, Any] = {
        "_id": object_number(repo),
        "id": repo.id,
        "author": repo.owner,
        "sha": oid,
        "createdAt": iso(repo.created),
        "lastModified": iso(commit.seconds),
        "private": repo.private,
        "gated": repo.gated or False,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": card.get("tags") or [],
        "cardData": card,
        "siblings": [
            {"rfilename": path, **(_blob(file) if blobs else {})} for path, file in sorted(commit.files.items())
        ],
        "usedStorage": sum(len(content) for content in (*repo.blobs.values(), *repo.lfs.values())),
    }
    if repo.type == "model":
        told |= {"modelId": repo.id, "library_name": card.get("library_name"), "pipeline_tag": card.get("pipeline_tag")}
    wanted = call.request.query.get("expand")
    return Reply.json({k: v for k, v in told.items() if not wanted or k in {"_id", "id", *wanted}})


def tree(call: Call, repo: Repository) -> Reply:
    """`GET /api/models/ID/tree/R[/PATH]`, in pages."""
    commit, folder = repo.commits[repo.resolve(call.name)], call.path
    if folder not in commit.folders:
        raise entry_not_found(folder)
    query = {name: values[0] for name, values in call.request.query.items()}
    recursive = query.get("recursive", "").lower() in ("true", "1")
    inside = f"{folder}/" if folder else ""
    paths = sorted(path for path in (*commit.files, *commit.folders) if path.startswith(inside) and path != folder)
    paths = [path for path in paths if path and (recursive or "/" not in path.removeprefix(inside))]
    start = int(query.get("cursor", 0))
    expand = query.get("expand", "").lower() in ("true", "1")
    rows = [_entry(repo, call.name, commit, path, expand) for path in paths[start : start + call.page]]
    reply = Reply.json(rows)
    if start + call.page < len(paths):
        following = urlencode({**query, "cursor": str(start + call.page)})
        reply.headers["Link"] = f'<{call.url}{call.request.raw_path}?{following}>; rel="next"'
    return reply


def paths_info(call: Call, repo: Repository) -> Reply:
    """`POST /api/models/ID/paths-info/R`: what is known of some paths; those that are not there are left out."""
    commit = repo.commits[repo.resolve(call.name)]
    asked = call.request.json()
    expand = str(asked.get("expand", [""])[0] if isinstance(asked.get("expand"), list) else asked.get("expand"))
    paths = [path.strip("/") for path in asked.get("paths", [])]
    known = [path for path in paths if path in commit.files or path in commit.folders]
    return Reply.json([_entry(repo, call.name, commit, path, expand.lower() == "true") for path in known])


def refs(call: Call, repo: Repository) -> Reply:
    """`GET /api/models/ID/refs`."""

    def under(prefix: str) -> list[dict[str, str]]:
        found = [(ref, oid) for ref, oid in sorted(repo.refs.items()) if ref.startswith(prefix)]
        return [{"name": ref.removeprefix(prefix), "ref": ref, "targetCommit": oid} for ref, oid in found]

    told = {"branches": under("refs/heads/"), "converts": [], "tags": under("refs/tags/")}
    if "include_prs" in call.request.query:
        told["pullRequests"] = under("refs/pr/")
    return Reply.json(told)


def commits(call: Call, repo: Repository) -> Reply:
    """`GET /api/models/ID/commits/R`, the newest first."""
    return Reply.json(
        [
            {
                "id": oid,
                "title": commit.title,
                "message": commit.message,
                "date": iso(commit.seconds),
                "authors": [{"user": commit.author}],
            }
            for oid, commit in repo.history(call.name)
        ]
    )


def auth_check(call: Call, repo: Repository) -> Reply:
    """`GET /api/models/ID/auth-check[/write]`."""
    may_download(repo, call.user)
    if call.name == "write":
        may_write(repo.owner, call.user)
    return Reply.json({})


def card_data(repo: Repository, commit: Commit) -> dict[str, Any]:
    """The metadata of a README, {} where there is none that can be read."""
    file = commit.files.get("README.md")
    found = _FRONT_MATTER.match(repo.content(file).decode("utf-8", "replace")) if file else None
    try:
        loaded = yaml.safe_load(found[1]) if found else None
    except yaml.YAMLError:
        loaded = None
    return loaded if isinstance(loaded, dict) else {}


def _blob(file: File) -> dict[str, Any]:
    told: dict[str, Any] = {"size": file.size, "blobId": file.oid}
    if file.sha256:
        told["lfs"] = {"sha256": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    return told


def _entry(repo: Repository, revision: str, commit: Commit, path: str, expand: bool) -> dict[str, Any]:
    """A path in a listing."""
    file = commit.files.get(path)
    told: dict[str, Any] = {"type": "file" if file else "directory", "path": path, "size": file.size if file else 0}
    told["oid"] = file.oid if file else commit.folders[path]
    if file and file.sha256:
        told["lfs"] = {"oid": file.sha256, "size": file.size, "pointerSize": file.pointer_size}
    if expand:
        oid, last = _last_change(repo, revision, path)
        told["lastCommit"] = {"id": oid, "title": last.title, "date": iso(last.seconds)}
    return told


def _last_change(repo: Repository, revision: str, path: str) -> tuple[str, Commit]:
    """The newest commit that changed a path."""
    past = list(repo.history(revision))
    for (oid, commit), (_, before) in pairwise(past):
        if _state(commit, path) != _state(before, path):
            return oid, commit
    return past[-1]


def _state(commit: Commit, path: str) -> object:
    return commit.files.get(path) or commit.folders.get(path)
