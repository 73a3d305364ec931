"""Reads the Hub and its cache through `huggingface_hub`, with every failure told in one line.

A repo of a dataset is named `datasets/user/name`, one of a model `user/name`, as in the Hub's addresses.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, NoReturn

import huggingface_hub
from huggingface_hub import HfApi, constants
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
from tqdm.auto import tqdm

from tts_generate.errors import HubError
from tts_generate.hub.names import check_paths
from tts_generate.secret import keep_secret

HTTPError: type[Exception] = HfHubHTTPError.__bases__[0]
"""What fails below `huggingface_hub`: httpx2's error, or httpx's, by which of them it speaks to the Hub."""

Content = bytes | Path
"""What a file of a commit holds, or the local file that has it."""


@dataclass(frozen=True)
class Listed:
    """A file of a commit, as the Hub lists it."""

    size: int
    git_id: str
    sha256: str | None
    """Of a file that Git LFS keeps."""

    def holds(self, content: Content) -> bool:
        """Whether it has these contents."""
        with open(content, "rb") if isinstance(content, Path) else io.BytesIO(content) as file:
            if self.sha256 is not None:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
            data = file.read()
            return hashlib.sha1(f"blob {len(data)}\0".encode() + data).hexdigest() == self.git_id


def resolve(repo_id: str, revision: str) -> str:
    """The commit that a branch or tag stands for; what the cache knows where the Hub cannot be reached.

    Raises:
        HubError: no such repo or revision, or nobody there to ask.
    """
    with told(repo_id, revision):
        found = HfApi().resolve_revision(**named(repo_id), revision=revision).resolved
    return found


def snapshot_folder(repo_id: str, commit: str = "") -> Path:
    """Where the cache keeps the files of a commit; of all commits, if none is given."""
    known = named(repo_id)
    folder = f"{known['repo_type']}s--{known['repo_id'].replace('/', '--')}"
    return Path(constants.HF_HUB_CACHE) / folder / "snapshots" / commit


def cached(repo_id: str, commit: str, name: str) -> Path | None:
    """A file of a commit in the local cache; None if it is not there. Asks nobody."""
    path = snapshot_folder(repo_id, commit) / name
    return path if path.is_file() else None


def cached_commits(repo_id: str) -> list[str]:
    """The commits of a repo of which the cache holds something."""
    folder = snapshot_folder(repo_id)
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def download(repo_id: str, commit: str, name: str, *, again: bool = False) -> Path:
    """A file of a commit, from the cache if it is there.

    Raises:
        HubError: it cannot be had, or what came is of another commit.
    """
    with told(repo_id, commit):
        found = Path(
            huggingface_hub.hf_hub_download(**named(repo_id), filename=name, revision=commit, force_download=again)
        )
        snapshot = found.parents[name.count("/")].name
        if snapshot != commit:
            raise HubError(
                f"{repo_id}: {commit} is no commit but a branch or tag that looks like one, at commit {snapshot} now; "
                "nothing of it was run."
            )
    return found


def snapshot(repo_id: str, commit: str, into: Path, patterns: Sequence[str]) -> None:
    """Copy those files of a commit that match `patterns` into a folder.

    Raises:
        HubError: they cannot be had, or a file has a name that leads out of the folder or to another one.
    """
    there = listing(repo_id, commit)
    check_paths(there, f"{repo_id} at commit {commit}")
    wanted = [glob.escape(path) for path in there if any(fnmatchcase(path, pattern) for pattern in patterns)]
    with told(repo_id, commit):
        huggingface_hub.snapshot_download(
            **named(repo_id), revision=commit, local_dir=into, allow_patterns=wanted, tqdm_class=_Silent
        )


class _Silent(tqdm):  # type: ignore[type-arg]
    """No bar for some small files."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **{**kwargs, "disable": True})


def offline() -> bool:
    """Whether `huggingface_hub` was told to ask nobody."""
    return bool(constants.is_offline_mode())


def page(repo_id: str, commit: str, name: str = "") -> str:
    """Where people can read a commit, or a file of it."""
    return f"{constants.ENDPOINT}/{repo_id}/{'blob' if name else 'tree'}/{commit}{f'/{name}' if name else ''}"


def differing(repo_id: str, revision: str, files: Mapping[str, Content]) -> list[str]:
    """Paths of `files` that the commit does not hold, or holds otherwise, by the hashes that the Hub lists.

    Raises:
        HubError: it cannot be listed.
    """
    there = listing(repo_id, revision)
    return [path for path, content in files.items() if path not in there or not there[path].holds(content)]


def listing(repo_id: str, revision: str, *, recursive: bool = True) -> dict[str, Listed]:
    """Every file of a commit, or those at its top.

    Raises:
        HubError: it cannot be listed.
    """
    with told(repo_id, revision):
        found = {
            entry.path: Listed(entry.size, entry.blob_id, entry.lfs.sha256 if entry.lfs else None)
            for entry in HfApi().list_repo_tree(**named(repo_id), revision=revision, recursive=recursive)
            if isinstance(entry, huggingface_hub.hf_api.RepoFile)
        }
    return found


def cache(repo_id: str, commit: str, names: Sequence[str]) -> Path:
    """The cached files of a commit, those named there and whole; nothing is fetched that the cache has.

    Raises:
        HubError: they cannot be had.
    """
    patterns = [glob.escape(name) for name in names]
    with told(repo_id, commit):
        found = Path(huggingface_hub.snapshot_download(**named(repo_id), revision=commit, allow_patterns=patterns))
    return found


@contextlib.contextmanager
def told(repo_id: str, revision: str) -> Iterator[None]:
    """Tell what went wrong with a request in one line."""
    try:
        yield
    except (
        HfHubHTTPError,
        EntryNotFoundError,
        RevisionResolutionError,
        OfflineModeIsEnabled,
        huggingface_hub.errors.LocalTokenNotFoundError,
        HTTPError,
    ) as error:
        explain(error, repo_id, revision)
    except OSError as error:
        raise HubError(f"{repo_id} at {revision}: {in_one_line(error)}.") from error


def explain(error: Exception, repo_id: str, revision: str) -> NoReturn:
    """Raise what went wrong as an error of ours.

    Raises:
        HubError: always.
    """
    keep_secret(huggingface_hub.get_token())
    where = f"{repo_id} at {revision}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else 0
    if isinstance(error, RevisionNotFoundError):
        text = f"{repo_id} has no revision {revision!r}"
    elif isinstance(error, GatedRepoError):
        text = f"{repo_id} is gated: ask for access at {constants.ENDPOINT}/{repo_id} ({_token()})"
    elif isinstance(error, RepositoryNotFoundError):
        text = (
            f"there is no repo {repo_id} at {constants.ENDPOINT}, or none that you may see ({_token()}){_twin(repo_id)}"
        )
    elif isinstance(error, (LocalEntryNotFoundError, RevisionResolutionError, OfflineModeIsEnabled)):
        commits = ", ".join(cached_commits(repo_id)) or "nothing"
        why = "HF_HUB_OFFLINE is set" if offline() else f"the Hub at {constants.ENDPOINT} cannot be reached"
        text = f"{where} is not in the cache and {why}; of this repo the cache holds: {commits}"
    elif isinstance(error, EntryNotFoundError):
        text = f"{where} does not have that file ({in_one_line(error)})"
    elif isinstance(error, huggingface_hub.errors.LocalTokenNotFoundError):
        text = "nobody is logged in: set HF_TOKEN, or run 'hf auth login'"
    elif status == 401:
        text = f"the Hub does not take the login ({_token()}); renew it with 'hf auth login'"
    elif status == 403:
        text = f"you may not do that with {repo_id}: the token lacks the right to write ({_token()})"
    else:
        text = f"{where}: the Hub answers {status or 'nothing of use'} ({in_one_line(error)})"
    raise HubError(f"{text}.") from error


def _twin(repo_id: str) -> str:
    """What to do where a controller was asked for and there is a store of its name, or the other way round."""
    known = named(repo_id)
    model = known["repo_type"] == "model"
    with contextlib.suppress(HfHubHTTPError, HTTPError):
        if HfApi().repo_exists(known["repo_id"], repo_type="dataset" if model else "model"):
            what, other = (
                ("dataset", "a store: tts-generate store pull")
                if model
                else ("model", "a controller: tts-generate pull")
            )
            return f"; there is a {what} of that name, which may be {other}"
    return ""


def named(repo_id: str) -> dict[str, Any]:
    """The id and the type of a repo, as `huggingface_hub` takes them."""
    bare = repo_id.removeprefix("datasets/")
    return {"repo_id": bare, "repo_type": "model" if bare == repo_id else "dataset"}


def _token() -> str:
    """Whether a token was sent; never the token."""
    return "with a token" if huggingface_hub.get_token() else "without a token: HF_TOKEN is not set"


def in_one_line(error: BaseException) -> str:
    """The kind of an error, and the first line of what it says."""
    keep_secret(huggingface_hub.get_token())  # a server may have repeated it
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0][:300] if lines else 'no reason given'}".rstrip(".")
