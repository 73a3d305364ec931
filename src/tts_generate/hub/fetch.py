"""A controller from the Hub: fetched once a process, at a commit that cannot change, and checked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from tts_generate.errors import ControllerError, InputError
from tts_generate.hub import client
from tts_generate.hub.card import CARD
from tts_generate.hub.lock import Locked, lock_path, read_lock, write_lock
from tts_generate.hub.names import Repo, is_commit, repo_of
from tts_generate.hub.pin import commit_of
from tts_generate.hub.source import Source, missing, read_source

KEPT = (
    "README.md", "LICENSE", "LICENSE.txt", "LICENSE.md", "controller.json", "*.py", "evaluation/*", ".eval_results/*",
    "custom_generate/*",
)  # fmt: skip
"""What a controller's repo is made of; `pull` copies this and nothing else."""


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
        check_locked(source, entry)
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
    listed: dict[str, client.Listed] = {}

    def read(name: str, limit: int) -> bytes:
        path = None if again else client.cached(repo_id, commit, name)
        if path is None:
            if not listed and not client.offline():
                listed.update(client.listing(repo_id, commit, recursive=False))
            where = f"{repo_id}/{name} at commit {commit}"
            if listed and name not in listed:
                raise ControllerError(missing(where, name, list(listed)))
            if listed and listed[name].size > limit:
                raise ControllerError(f"{where} has {listed[name].size:,} bytes; at most {limit:,} are read.")
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


def check_locked(source: Source, entry: Locked) -> None:
    """Refuse files that are not those that were locked.

    Raises:
        ControllerError: naming the file and both hashes.
    """
    for name, found in source.files.items():
        expected = entry.files.get(name)
        if found != expected:
            raise ControllerError(
                f"{name} of {source.label} has sha256 {found}, and {entry.path} locks it to {expected}; nothing of it "
                "was run."
            )


def repo_named(name: str, revision: str | None = None) -> Repo:
    """The repo that a name stands for.

    Raises:
        InputError: it is no repo's name.
    """
    repo = repo_of(name, revision)
    if repo is None:
        raise InputError(f"{name!r} is no repo of the Hub; expected is 'user/name' or 'user/name@revision'.")
    return repo


def pull(name: str, revision: str | None, out: Path) -> Source:
    """Copy a repo into a folder, once its card and its code are checked; nothing of it runs.

    Raises:
        InputError: the folder holds something.
        ControllerError: naming the file and what is wrong with it.
        HubError: it cannot be found or reached.
    """
    source = read_repo(repo_named(name, revision))
    assert source.repo_id is not None
    assert source.commit is not None
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise InputError(f"{out} is there and not empty; name a new folder.")
    client.snapshot(source.repo_id, source.commit, out, KEPT)
    return source


def lock(names: Sequence[str], path: Path | None = None) -> list[Locked]:
    """Write the commits and hashes of repos into a lock file, beside what it holds; without names, all of it anew.

    Args:
        names: repos, `user/name` or `user/name@revision`.
        path: of the lock file; the usual one if left out.

    Returns:
        The entries written.

    Raises:
        InputError: no names, and no lock file.
        ControllerError: a repo that is not what it must be.
        HubError: one that cannot be found or reached.
    """
    path = path or lock_path()
    entries = read_lock(path) if path.is_file() else {}
    repos = [repo_named(name) for name in names]
    if not repos:
        repos = [Repo(entry.repo_id, entry.revision) for entry in entries.values()]
    if not repos:
        raise InputError(f"there is nothing to lock: name repos, user/name; {path} has none.")
    made = []
    for repo in repos:
        revision = repo.revision or "main"
        commit = revision if is_commit(revision) else client.resolve(repo.repo_id, revision)
        made.append(Locked(path, repo.repo_id, revision, commit, fetch(repo.repo_id, commit).files))
    write_lock(path, {**entries, **{entry.repo_id: entry for entry in made}})
    return made
