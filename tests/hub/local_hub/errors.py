"""What the server refuses, in the Hub's words: the client libraries tell errors apart by `X-Error-Code`."""

from __future__ import annotations


class Refusal(Exception):
    """A request that is answered with an error."""

    def __init__(self, status: int, message: str, code: str | None = None, **more: object) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.more = more
        """What else the JSON of the answer holds."""


def revision_not_found(revision: str) -> Refusal:
    """No branch, tag or commit of that name."""
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str) -> Refusal:
    """No such file or folder in that commit."""
    return Refusal(404, f"{path} does not exist", "EntryNotFound")
