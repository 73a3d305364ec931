"""Writes to the Hub: one commit on the head that was looked at, or none; every failure told in one line."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError

from tts_generate.errors import ConflictError, HubError, InputError
from tts_generate.hub.client import Content, HTTPError, differing, explain, in_one_line, named, page, told

_TRIES = 5
_PATIENCE = 300.0
"""Seconds that retries of one commit may wait altogether."""
_UNCLEAR = (500, 502, 503, 504, 429, 409)
"""Answers to a commit after which it is asked whether it landed, and then tried again."""


def check_login(repo_id: str) -> str:
    """The name of whoever is logged in; called before long work whose result is to be published.

    Raises:
        HubError: nobody is, or the token has expired.
    """
    with told(repo_id, "main"):
        found = str(HfApi().whoami()["name"])
    return found


def head_of(repo_id: str) -> str | None:
    """The commit at the head of a repo's `main`; None if there is no such repo, or none that may be seen.

    Raises:
        HubError: it cannot be asked.
    """
    with told(repo_id, "main"):
        try:
            found = HfApi().repo_info(**named(repo_id)).sha
        except GatedRepoError:
            raise
        except RepositoryNotFoundError:
            found = None
    return found


def check_private(repo_id: str) -> None:
    """Refuse a repo that everybody can read.

    Raises:
        InputError: it is public.
        HubError: it cannot be asked.
    """
    with told(repo_id, "main"):
        private = HfApi().repo_info(**named(repo_id)).private
    if not private:
        raise InputError(
            f"{repo_id} is there and public, and private makes a new repo private; nothing was published. Make it "
            "private in its settings first, or publish elsewhere."
        )


def create(repo_id: str, *, private: bool | None) -> str:
    """Make a repo, if it is not there; the commit at its head.

    Raises:
        HubError: it may not be made.
    """
    with told(repo_id, "main"):
        HfApi().create_repo(**named(repo_id), private=private, exist_ok=True)
        found = str(HfApi().repo_info(**named(repo_id)).sha)
    return found


def commit(repo_id: str, files: Mapping[str, Content], stale: Sequence[str], parent: str, message: str) -> str:
    """Make one commit of all `files` on top of `parent`, or none, and read it back; its hash.

    A try whose outcome is unclear is repeated only once the head shows that it did not land.

    Args:
        repo_id: the repo.
        files: contents by path, or the local files that have them.
        stale: paths to delete.
        parent: the head that was looked at; if `main` is elsewhere by now, nothing is written.
        message: of the commit.

    Raises:
        ConflictError: somebody else's commit came first.
        HubError: it could not be made, and `main` is as it was; or the Hub holds something else.
    """
    made = _commit(repo_id, files, stale, parent, message)
    wrong = differing(repo_id, made, files)
    if wrong:
        raise HubError(f"{repo_id} at commit {made} does not hold what was sent ({', '.join(wrong)}); look at it.")
    return made


def _commit(repo_id: str, files: Mapping[str, Content], stale: Sequence[str], parent: str, message: str) -> str:
    tries, waited, wait = 0, 0.0, 1.0
    while True:
        tries += 1
        operations: list[Any] = [CommitOperationAdd(path, content) for path, content in sorted(files.items())]
        operations += [CommitOperationDelete(path) for path in stale]
        try:
            made = HfApi().create_commit(
                **named(repo_id), operations=operations, commit_message=message, parent_commit=parent
            )
            return str(made.oid)
        except HfHubHTTPError as error:
            status = error.response.status_code
            if status != 412 and status not in _UNCLEAR:
                explain(error, repo_id, "main")
            failed: Exception = error
            asked = _retry_after(error)
        except HTTPError as error:
            failed, asked, status = error, 0.0, 0
        except RuntimeError as error:  # how huggingface_hub tells that the upload of a file failed, tries and all
            why = in_one_line(error.__cause__ or error)
            raise HubError(
                f"nothing was published: {in_one_line(error)} ({why}). The main of {repo_id} is still at {parent}; "
                "publish again to go on."
            ) from error
        landed = _landed(repo_id, files, parent)
        if landed is not None:
            return landed
        wait = max(asked, wait)
        if tries == _TRIES or waited + wait > _PATIENCE or (status == 409 and tries > 1):
            raise HubError(
                f"nothing was published: {repo_id} could not be written ({in_one_line(failed)}), and its main is still "
                f"at {parent}. Publish again to go on."
            ) from failed
        time.sleep(wait * random.uniform(1.0, 1.1))
        waited, wait = waited + wait, wait * 2


def _landed(repo_id: str, files: Mapping[str, Content], parent: str) -> str | None:
    """The head, if it is our commit after all; None if `parent` still is."""
    with told(repo_id, "main"):
        head = str(HfApi().repo_info(**named(repo_id)).sha)
    if head == parent:
        return None
    if differing(repo_id, head, files):
        raise ConflictError(
            f"nothing was published: somebody committed {head} to {repo_id} since {parent} was looked at. Look at "
            f"{page(repo_id, head)}, and publish again if yours should follow it."
        )
    return head


def tags(repo_id: str) -> dict[str, str]:
    """Every tag of a repo, and the commit that it is of.

    Raises:
        HubError: it cannot be listed.
    """
    with told(repo_id, "main"):
        found = {ref.name: str(ref.target_commit) for ref in HfApi().list_repo_refs(**named(repo_id)).tags}
    return found


def tag(repo_id: str, name: str, revision: str) -> None:
    """Tag a commit that was made.

    Raises:
        HubError: it may not be, or the tag is there already.
    """
    try:
        with told(repo_id, revision):
            HfApi().create_tag(**named(repo_id), tag=name, revision=revision)
    except HubError as error:
        raise HubError(f"{repo_id} is published at commit {revision}, but that could not be tagged: {error}") from error


def _retry_after(error: HfHubHTTPError) -> float:
    told = error.response.headers.get("Retry-After", "")
    return float(told) if told.isdigit() else 0.0
