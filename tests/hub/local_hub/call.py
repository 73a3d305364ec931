"""A request to the Hub's API, and what many answers hold."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from local_hub.accounts import User
from local_hub.repository import Repository
from local_hub.wire import Request


@dataclass
class Call:
    """A request, who made it, and what it is about."""

    request: Request
    user: User | None
    url: str
    """Of the server."""
    page: int
    """Entries of one page of a listing."""
    name: str = ""
    """A revision, a branch or a tag."""
    path: str = ""
    """A path in a repository."""


def web_url(url: str, repo: Repository) -> str:
    """The page of a repository."""
    return f"{url}/{'' if repo.type == 'model' else repo.type + 's/'}{repo.id}"


def object_number(repo: Repository) -> str:
    """The 24 digits by which the Hub's database knows a repository."""
    return f"{int(repo.created):08x}" + f"{repo.type}/{repo.id}".encode().hex()[:16].ljust(16, "0")


def iso(seconds: float) -> str:
    """A time as the Hub writes it.

    >>> iso(0)
    '1970-01-01T00:00:00.000Z'
    """
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3] + "Z"
