"""A branch whose keys and values stand in the engine's cache."""

from __future__ import annotations

from dataclasses import dataclass

from tts_generate.engine.cache import Prefix
from tts_generate.live.branch import Branch


@dataclass(slots=True, eq=False)
class CachedBranch(Branch):
    """A branch of the engine: where its prompt and its own tokens are."""

    shared_prefix: Prefix | None = None
    """What the layers hold of the prompt, where that stands once for all branches and not in each one's row."""
    slot: int | None = None
    """The cache row that holds the branch, while it has one."""

    @property
    def row(self) -> int:
        """The slot of a branch that has one."""
        assert self.slot is not None
        return self.slot

    @property
    def prompt_columns(self) -> int:
        """Columns that the prompt takes in the branch's row."""
        return len(self.prompt_ids) if self.shared_prefix is None else 0
