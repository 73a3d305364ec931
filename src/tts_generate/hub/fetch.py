"""A controller from the Hub: fetched once a process, at a commit that cannot change, and checked."""

from __future__ import annotations

from functools import lru_cache

from tts_generate.errors import ControllerError
from tts_generate.hub import client
from tts_generate.hub.card import CARD
from tts_generate.hub.lock import Locked
from tts_generate.hub.names import Repo
from tts_generate.hub.pin import commit_of
from tts_generate.hub.source import Source, missing, read_source


def read_repo(repo: Repo) -> Source:
    """The controller of a repo, fetched unless the cache has it; the same throughout the process.

    Raises:
        ControllerError: naming the file and what is wrong with it, or that it is not what the lock file says.
        HubError: it cannot be found or reached.
        UntrustedCodeError: a moving revision, where that is refused.
    """
    commit, entry = commit_of(repo)
    source = fetch(repo.repo_id, commit)
    if entry is not None:
        _check_locked(source, entry)
    return source


@lru_cache(maxsize=256)
def fetch(repo_id: str, commit: str) -> Source:
    """The controller at one commit, from the cache, or from the Hub where a file is missing or was damaged."""
    had = client.cached(repo_id, commit, CARD) is not None
    try:
        return _fetch(repo_id, commit, again=False)
    except ControllerError:
        if not had or client.offline():
            raise
        return _fetch(repo_id, commit, again=True)  # a copy cut short is fetched once more; a bad original stays bad


def _fetch(repo_id: str, commit: str, *, again: bool) -> Source:
    listed: dict[str, int] = {}

    def read(name: str, limit: int) -> bytes:
        path = None if again else client.cached(repo_id, commit, name)
        if path is None:
            if not listed and not client.offline():
                listed.update(client.sizes(repo_id, commit))
            where = f"{repo_id}/{name} at commit {commit}"
            if listed and name not in listed:
                raise ControllerError(missing(where, name, list(listed)))
            if listed.get(name, 0) > limit:
                raise ControllerError(f"{where} has {listed[name]:,} bytes; at most {limit:,} are read.")
            path = client.download(repo_id, commit, name, again=again)
        with open(path, "rb") as file:
            return file.read(limit + 1)

    return read_source(
        client.snapshot_folder(repo_id, commit),
        read,
        lambda name: f"{repo_id}/{name} at commit {commit}",
        repo_id,
        commit,
        lambda name: client.page(repo_id, commit, name),
    )


def _check_locked(source: Source, entry: Locked) -> None:
    for name, found in source.files.items():
        expected = entry.files.get(name)
        if found != expected:
            raise ControllerError(
                f"{name} of {source.label} has sha256 {found}, and {entry.path} locks it to {expected}; nothing of it "
                "was run."
            )
