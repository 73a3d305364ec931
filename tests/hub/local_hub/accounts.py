"""Who asks, and what they may do: users, organisations and tokens."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from local_hub.errors import Refusal
from local_hub.repository import Repository


@dataclass(frozen=True, slots=True)
class User:
    """A user by one of their tokens."""

    name: str
    orgs: tuple[str, ...] = ()
    role: Literal["read", "write"] = "write"

    def owns(self, namespace: str) -> bool:
        """Whether repositories of that namespace are theirs."""
        return namespace == self.name or namespace in self.orgs


class Accounts:
    """The tokens that the server takes."""

    def __init__(self) -> None:
        self._tokens: dict[str, User] = {}

    def add(self, token: str, user: User) -> None:
        """Let a token stand for a user."""
        self._tokens[token] = user

    def revoke(self, token: str) -> None:
        """Forget a token: from now on it is an invalid one."""
        del self._tokens[token]

    def user(self, authorization: str | None) -> User | None:
        """Whose token a request carries; None for a request without one.

        Raises:
            Refusal: 401, an unknown or revoked token.
        """
        if authorization is None:
            return None
        user = self._tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return user


def may_see(repo: Repository | None, user: User | None) -> Repository:
    """A repository that is there for this user: a private one of others is not.

    Raises:
        Refusal: 404, or 401 without a token: RepoNotFound.
    """
    if repo is None or (repo.private and not (user and user.owns(repo.owner))):
        if user is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        raise Refusal(404, "Repository not found", "RepoNotFound")
    return repo


def may_download(repo: Repository, user: User | None) -> None:
    """Whether files of a repository that they see may be read.

    Raises:
        Refusal: 401 or 403, GatedRepo.
    """
    if repo.gated and not (user and (user.owns(repo.owner) or user.name in repo.allowed)):
        url = f"Access to {repo.type} {repo.id} is restricted."
        if user is None:
            raise Refusal(401, f"{url} You must have access to it and be authenticated to access it.", "GatedRepo")
        raise Refusal(403, f"{url} You are not in the authorized list.", "GatedRepo")


def may_write(namespace: str, user: User | None) -> User:
    """Whether they may write to repositories of a namespace.

    Raises:
        Refusal: 401 without a token, 403 with one that may not.
    """
    if user is None:
        raise Refusal(401, "Invalid username or password.")
    if user.role != "write":
        raise Refusal(403, "Your token has not the right to write: it is a read token")
    if not user.owns(namespace):
        raise Refusal(403, f"You don't have the rights to write to {namespace}")
    return user
