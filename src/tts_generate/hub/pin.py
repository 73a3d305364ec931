"""The commit that stands for a controller's repo: written out, locked, or resolved, shown and warned about."""

from __future__ import annotations

import os
import threading

from tts_generate.errors import InputError, UntrustedCodeError, warn
from tts_generate.hub import client
from tts_generate.hub.lock import Locked, locked
from tts_generate.hub.names import Repo, is_commit

REQUIRE_PIN = "TTS_REQUIRE_PIN"
_resolved: dict[tuple[str, str], str] = {}
_resolving = threading.Lock()


class MovingRevisionWarning(UserWarning):
    """A controller was asked for by a name that may stand for another commit tomorrow."""


def commit_of(repo: Repo) -> tuple[str, Locked | None]:
    """The commit that `repo` stands for, the same throughout the process, and its entry in the lock file.

    A commit is itself. Otherwise the lock file says; what it does not lock is resolved once, and warned about.

    Raises:
        InputError: another commit than the locked one was asked for, or a revision that is none.
        UntrustedCodeError: a moving revision, where `TTS_REQUIRE_PIN` is set.
        HubError: the repo or the revision cannot be found or reached.
    """
    entry = locked(repo.repo_id)
    if entry is not None:
        if repo.revision not in (None, entry.revision, entry.commit):
            raise InputError(
                f"{entry.path} locks {repo.repo_id} to commit {entry.commit} ({entry.revision}), and revision "
                f"{repo.revision!r} was asked for; run 'tts-generate lock {repo.repo_id}@{repo.revision}' to move it."
            )
        return entry.commit, entry
    if repo.revision is not None and is_commit(repo.revision):
        return repo.revision, None
    return _resolve(repo.repo_id, repo.revision or "main"), None


def _resolve(repo_id: str, revision: str) -> str:
    if _required():
        raise UntrustedCodeError(
            f"{repo_id} at {revision!r} may be another commit tomorrow, and {REQUIRE_PIN} is set; pass the whole "
            f"commit as revision, or run 'tts-generate lock {repo_id}@{revision}'."
        )
    with _resolving:
        if (repo_id, revision) not in _resolved:
            _resolved[repo_id, revision] = commit = client.resolve(repo_id, revision)
            warn(
                f"{repo_id} at {revision!r} is commit {commit} now and may be another tomorrow; pass revision="
                f"'{commit}', or run 'tts-generate lock {repo_id}@{revision}'.",
                MovingRevisionWarning,
                stacklevel=6,
            )
        return _resolved[repo_id, revision]


def _required() -> bool:
    value = os.environ.get(REQUIRE_PIN, "").strip().lower()
    if value not in ("", "0", "false", "no", "1", "true", "yes"):
        raise InputError(f"{REQUIRE_PIN} must be 1 or 0, got {value!r}.")
    return value in ("1", "true", "yes")
