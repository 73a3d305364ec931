"""Talks to the Hub: the one place that does, through `huggingface_hub`, with every failure told in one line.

A repo of a dataset is named `datasets/user/name`, one of a model `user/name`, as in the Hub's addresses.
"""

from __future__ import annotations

import contextlib
import glob
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import huggingface_hub
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
    RevisionResolutionError,
)

from tts_generate.errors import ConflictError, HubError
from tts_generate.hub.listed import Content, Listed

_TRIES = 5
_PATIENCE = 300.0
"""Seconds that retries of one commit may wait altogether."""
_UNCLEAR = (500, 502, 503, 504, 429, 409)
"""Answers to a commit after which it is asked whether it landed, and then tried again."""


def resolve(repo_id: str, revision: str) -> str:
    """The commit that a branch or tag stands for; what the cache knows where the Hub cannot be reached.

    Raises:
        HubError: no such repo or revision, or nobody there to ask.
    """
    with _told(repo_id, revision):
        return HfApi().resolve_revision(**_named(repo_id), revision=revision).resolved
    raise AssertionError


def snapshot_folder(repo_id: str, commit: str = "") -> Path:
    """Where the cache keeps the files of a commit; of all commits, if none is given."""
    named = _named(repo_id)
    folder = f"{named['repo_type']}s--{named['repo_id'].replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / commit


def cached(repo_id: str, commit: str, name: str) -> Path | None:
    """A file of a commit in the local cache; None if it is not there. Asks nobody."""
    path = snapshot_folder(repo_id, commit) / name
    return path if path.is_file() else None


def cached_commits(repo_id: str) -> list[str]:
    """The commits of a repo of which the cache holds something."""
    folder = snapshot_folder(repo_id)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def sizes(repo_id: str, commit: str) -> dict[str, int]:
    """The files at the top of a repo, with their bytes.

    Raises:
        HubError: it cannot be listed.
    """
    with _told(repo_id, commit):
        listed = HfApi().list_repo_tree(**_named(repo_id), revision=commit)
        return {entry.path: entry.size for entry in listed if isinstance(entry, huggingface_hub.hf_api.RepoFile)}
    raise AssertionError


def download(repo_id: str, commit: str, name: str, *, again: bool = False) -> Path:
    """A file of a commit, from the cache if it is there.

    Args:
        repo_id: the repo.
        commit: a whole commit hash.
        name: the file.
        again: fetch it even if it is cached.

    Raises:
        HubError: it cannot be had, or what came is of another commit.
    """
    with _told(repo_id, commit):
        found = Path(
            huggingface_hub.hf_hub_download(**_named(repo_id), filename=name, revision=commit, force_download=again)
        )
        snapshot = found.parents[name.count("/")].name
        if snapshot != commit:
            raise HubError(
                f"{repo_id}: {commit} is no commit but a branch or tag that looks like one, at commit {snapshot} now; "
                "nothing of it was run."
            )
        return found
    raise AssertionError


def snapshot(repo_id: str, commit: str, into: Path, patterns: Sequence[str] | None = None) -> list[Path]:
    """Copy the files of a commit into a folder, those that match `patterns`; what was written.

    Raises:
        HubError: they cannot be had.
    """
    with _told(repo_id, commit):
        chosen = list(patterns) if patterns is not None else None
        huggingface_hub.snapshot_download(**_named(repo_id), revision=commit, local_dir=into, allow_patterns=chosen)
    return sorted(path for path in into.rglob("*") if path.is_file() and ".cache" not in path.relative_to(into).parts)


def offline() -> bool:
    """Whether `huggingface_hub` was told to ask nobody."""
    return bool(constants.is_offline_mode())


def page(repo_id: str, commit: str, name: str = "") -> str:
    """Where people can read a commit, or a file of it."""
    return f"{constants.ENDPOINT}/{repo_id}/{'blob' if name else 'tree'}/{commit}{f'/{name}' if name else ''}"


def check_login(repo_id: str) -> str:
    """The name of whoever is logged in; called before long work whose result is to be published.

    Raises:
        HubError: nobody is, or the token has expired.
    """
    with _told(repo_id, "main"):
        return str(HfApi().whoami()["name"])
    raise AssertionError


def head_of(repo_id: str) -> str | None:
    """The commit at the head of a repo's `main`; None if there is no such repo, or none that may be seen.

    Raises:
        HubError: it cannot be asked.
    """
    with _told(repo_id, "main"):
        try:
            return HfApi().repo_info(**_named(repo_id)).sha
        except RepositoryNotFoundError as error:
            if isinstance(error, GatedRepoError):
                raise
            return None
    raise AssertionError


def create(repo_id: str, *, private: bool | None) -> str:
    """Make a repo, if it is not there; the commit at its head.

    Raises:
        HubError: it may not be made.
    """
    with _told(repo_id, "main"):
        HfApi().create_repo(**_named(repo_id), private=private, exist_ok=True)
        return str(HfApi().repo_info(**_named(repo_id)).sha)
    raise AssertionError


def commit(repo_id: str, files: Mapping[str, Content], stale: Sequence[str], parent: str, message: str) -> str:
    """Make one commit of all `files` on top of `parent`, or none; its hash.

    A try whose outcome is unclear is repeated only once the head shows that it did not land.

    Args:
        repo_id: the repo.
        files: contents by path, or the local files that have them.
        stale: paths to delete.
        parent: the head that was looked at; if `main` is elsewhere by now, nothing is written.
        message: of the commit.

    Raises:
        ConflictError: somebody else's commit came first.
        HubError: it could not be made; `main` is as it was.
    """
    waited, wait = 0.0, 1.0
    for number in range(_TRIES):
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        operations += [CommitOperationDelete(path) for path in stale]
        try:
            made = HfApi().create_commit(
                **_named(repo_id), operations=operations, commit_message=message, parent_commit=parent
            )
            return str(made.oid)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status != 412 and status not in _UNCLEAR:
                _explain(error, repo_id, "main")
            failed: Exception = error
            asked = _retry_after(error)
        except httpx2.HTTPError as error:
            failed, asked, status = error, 0.0, 0
        except RuntimeError as error:  # how huggingface_hub tells that the upload of a file failed, tries and all
            raise HubError(
                f"nothing was published: {_line(error)} ({_line(error.__cause__ or error)}). The main of {repo_id} is "
                f"still at {parent}; publish again to go on."
            ) from error
        landed = _landed(repo_id, files, parent)
        if landed is not None:
            return landed
        wait = max(asked, wait)
        if number + 1 == _TRIES or waited + wait > _PATIENCE or (status == 409 and number > 0):
            raise HubError(
                f"nothing was published: {repo_id} could not be written ({_line(failed)}), and its main is still at "
                f"{parent}. Publish again to go on."
            ) from failed
        time.sleep(wait * random.uniform(1.0, 1.1))
        waited, wait = waited + wait, wait * 2
    raise AssertionError


def _landed(repo_id: str, files: Mapping[str, Content], parent: str) -> str | None:
    """The head, if it is our commit after all; None if `parent` still is.

    Raises:
        ConflictError: it is somebody else's.
    """
    with _told(repo_id, "main"):
        head = str(HfApi().repo_info(**_named(repo_id)).sha)
    if head == parent:
        return None
    if differing(repo_id, head, files):
        raise ConflictError(
            f"nothing was published: somebody committed {head} to {repo_id} since {parent} was looked at. Look at "
            f"{page(repo_id, head)}, and publish again if yours should follow it."
        )
    return head


def differing(repo_id: str, revision: str, files: Mapping[str, Content]) -> list[str]:
    """Paths of `files` that the commit does not hold, or holds otherwise, by the hashes that the Hub lists.

    Raises:
        HubError: it cannot be listed.
    """
    there = listing(repo_id, revision)
    return [path for path, content in files.items() if path not in there or not there[path].holds(content)]


def listing(repo_id: str, revision: str) -> dict[str, Listed]:
    """Every file of a commit.

    Raises:
        HubError: it cannot be listed.
    """
    with _told(repo_id, revision):
        found = HfApi().list_repo_tree(**_named(repo_id), revision=revision, recursive=True)
        return {
            entry.path: Listed(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
            for entry in found
            if isinstance(entry, huggingface_hub.hf_api.RepoFile)
        }
    raise AssertionError


def cache(repo_id: str, commit: str, names: Sequence[str]) -> Path:
    """The cached files of a commit, those named there and whole; nothing is fetched that the cache has.

    Raises:
        HubError: they cannot be had.
    """
    with _told(repo_id, commit):
        patterns = [glob.escape(name) for name in names]
        return Path(huggingface_hub.snapshot_download(**_named(repo_id), revision=commit, allow_patterns=patterns))
    raise AssertionError


def paths(repo_id: str, revision: str) -> list[str]:
    """Every file of a commit.

    Raises:
        HubError: it cannot be listed.
    """
    with _told(repo_id, revision):
        return list(HfApi().list_repo_files(**_named(repo_id), revision=revision))
    raise AssertionError


def tags(repo_id: str) -> list[str]:
    """Every tag of a repo.

    Raises:
        HubError: it cannot be listed.
    """
    with _told(repo_id, "main"):
        return [ref.name for ref in HfApi().list_repo_refs(**_named(repo_id)).tags]
    raise AssertionError


def tag(repo_id: str, name: str, revision: str) -> None:
    """Tag a commit.

    Raises:
        HubError: it may not be, or the tag is there already.
    """
    with _told(repo_id, revision):
        HfApi().create_tag(**_named(repo_id), tag=name, revision=revision)


@contextlib.contextmanager
def _told(repo_id: str, revision: str) -> Iterator[None]:
    """Tell what went wrong with a request in one line."""
    try:
        yield
    except (
        HfHubHTTPError,
        EntryNotFoundError,
        RevisionResolutionError,
        OfflineModeIsEnabled,
        huggingface_hub.errors.LocalTokenNotFoundError,
        httpx2.HTTPError,
    ) as error:
        _explain(error, repo_id, revision)
    except OSError as error:
        raise HubError(f"{repo_id} at {revision}: {_line(error)}.") from error


def _explain(error: Exception, repo_id: str, revision: str) -> NoReturn:
    where = f"{repo_id} at {revision}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, RevisionNotFoundError):
        text = f"{repo_id} has no revision {revision!r}"
    elif isinstance(error, GatedRepoError):
        text = f"{repo_id} is gated: ask for access at {constants.ENDPOINT}/{repo_id} ({_token()})"
    elif isinstance(error, RepositoryNotFoundError):
        text = f"there is no repo {repo_id} at {constants.ENDPOINT}, or none that you may see ({_token()})"
    elif isinstance(error, (LocalEntryNotFoundError, RevisionResolutionError, OfflineModeIsEnabled)):
        commits = ", ".join(cached_commits(repo_id)) or "nothing"
        why = "HF_HUB_OFFLINE is set" if offline() else f"the Hub at {constants.ENDPOINT} cannot be reached"
        text = f"{where} is not in the cache and {why}; of this repo the cache holds: {commits}"
    elif isinstance(error, EntryNotFoundError):
        text = f"{where} does not have that file ({_line(error)})"
    elif isinstance(error, huggingface_hub.errors.LocalTokenNotFoundError):
        text = "nobody is logged in: set HF_TOKEN, or run 'hf auth login'"
    elif status == 401:
        text = f"the Hub does not take the login ({_token()}); renew it with 'hf auth login'"
    elif status == 403:
        text = f"you may not do that with {repo_id}: the token lacks the right to write ({_token()})"
    else:
        text = f"{where}: the Hub answers {status or 'nothing of use'} ({_line(error)})"
    raise HubError(f"{text}.") from error


def _named(repo_id: str) -> dict[str, Any]:
    """The id and the type of a repo, as `huggingface_hub` takes them."""
    bare = repo_id.removeprefix("datasets/")
    return {"repo_id": bare, "repo_type": "model" if bare == repo_id else "dataset"}


def _token() -> str:
    """Whether a token was sent; never the token."""
    return "with a token" if huggingface_hub.get_token() else "without a token: HF_TOKEN is not set"


def _line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}".rstrip(".")


def _retry_after(error: HfHubHTTPError) -> float:
    """Seconds that the Hub asks to wait."""
    told = error.response.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else 0.0
