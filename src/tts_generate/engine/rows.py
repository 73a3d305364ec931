"""Which branch is in which row of the cache; numpy only, and the keys of everything are branches, never rows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tts_generate.engine.branch import CachedBranch as Branch
from tts_generate.engine.shapes import bucketed
from tts_generate.live.branch import Probe
from tts_generate.runner import Unit

MOVE = 3
"""What it takes to move a column of a row, in columns read by a pass (measured on a CPU)."""


@dataclass(slots=True, eq=False)
class Job:
    """A unit being carried out: which episode wants it, on which branch, and what it took so far."""

    episode: int
    unit: Unit
    branch: Branch
    target: int
    """Tokens of the branch at which the unit ends."""
    begun: bool = False
    probe: Probe | None = None
    ahead: bool = False
    """Whether nobody has asked for it yet."""

    @property
    def order(self) -> tuple[int, int]:
        """Earlier questions first, then earlier branches."""
        return self.branch.order


_NUMBERS = ("length", "prompt", "offset", "key", "stop")
_FLAGS = ("working", "feeding", "ended", "criterion")
_TABLES = ("ids", "logprobs")


class Rows:
    """The slots of the cache, as arrays over them: each is empty, holds a waiting branch, or is working on a job.

    Working rows are kept dense in 0 … live - 1. A row's branch has `length - prompt` tokens in the cache, and one more
    that is drawn and fed next: `ids[slot, : length - prompt + 1]`.
    """

    length: np.ndarray
    """Columns that hold the prompt and the branch."""
    prompt: np.ndarray
    """Columns of the prompt."""
    offset: np.ndarray
    """Tokens of the prompt that are not in the row."""
    key: np.ndarray
    """`branch_key` of the branch."""
    stop: np.ndarray
    """Tokens in the cache at which the branch pauses."""
    working: np.ndarray
    feeding: np.ndarray
    """Whether the branch decodes; a working one that does not waits for its probe."""
    ended: np.ndarray
    """Whether the token drawn last is the branch's end."""
    criterion: np.ndarray
    """Whether a stopping criterion ended it."""
    ids: np.ndarray
    logprobs: np.ndarray

    def __init__(self) -> None:
        self.branches = np.empty(0, object)
        self.jobs = np.empty(0, object)
        self._in_vain = 0  # columns read since rows were last sorted, because they were not
        for name in _NUMBERS:
            setattr(self, name, np.zeros(0, np.int64))
        for name in _FLAGS:
            setattr(self, name, np.zeros(0, np.bool_))
        self.ids = np.zeros((0, 64), np.int64)
        self.logprobs = np.zeros((0, 64), np.float32)

    @property
    def slots(self) -> int:
        """Rows there are."""
        return len(self.branches)

    @property
    def live(self) -> int:
        """Rows at work; after `arrange` they are the first ones."""
        return int(self.working.sum())

    def waits(self, slot: int) -> bool:
        """Whether a branch waits there for a decision, and could go on."""
        return self.branches[slot] is not None and not self.working[slot] and not self.ended[slot]

    def counts(self, slots: np.ndarray) -> np.ndarray:
        """Tokens in the cache of each branch."""
        counts: np.ndarray = self.length[slots] - self.prompt[slots]
        return counts

    def empty(self) -> np.ndarray:
        """The slots that hold no branch."""
        return np.array([slot for slot, branch in enumerate(self.branches) if branch is None], np.int64)

    @property
    def held(self) -> int:
        """Rows that hold a branch, at work or waiting."""
        return self.slots - len(self.empty())

    def resize(self, slots: int) -> None:
        """Have exactly `slots` rows; those cut off must be empty."""
        assert all(branch is None for branch in self.branches[slots:])
        for name in ("branches", "jobs", *_NUMBERS, *_FLAGS, *_TABLES):
            old = getattr(self, name)
            new = np.zeros((slots, *old.shape[1:]), old.dtype) if old.dtype != object else np.full(slots, None, object)
            new[: len(old)] = old[:slots]
            setattr(self, name, new)

    def widen(self, tokens: int) -> None:
        """Make room for `tokens` drawn tokens of each branch."""
        room = self.ids.shape[1]
        if tokens > room:
            for name in _TABLES:
                old = getattr(self, name)
                new = np.zeros((self.slots, max(tokens, 2 * room)), old.dtype)
                new[:, :room] = old
                setattr(self, name, new)

    def admit(self, branch: Branch, slot: int) -> None:
        """Give a branch a slot that holds its prompt."""
        branch.slot = slot
        self.branches[slot] = branch
        self.length[slot] = self.prompt[slot] = branch.prompt_columns
        self.offset[slot] = len(branch.prompt_ids) - branch.prompt_columns
        self.key[slot] = branch.key
        self.ended[slot] = self.criterion[slot] = False

    def release(self, branch: Branch) -> None:
        """Empty the slot of a branch that is finished, pruned, put aside, or no longer asked for."""
        if branch.slot is not None:
            self._clear(np.array([branch.slot]))
            branch.slot = None

    def _clear(self, slots: np.ndarray) -> None:
        self.branches[slots] = None
        self.jobs[slots] = None
        self.length[slots] = 0
        self.working[slots] = self.feeding[slots] = False

    def arrange(self, block: int) -> tuple[np.ndarray, np.ndarray]:
        """Bring the rows at work to the front; (sources, targets) whose cache must follow.

        Rows of one block of `block` rows read as many columns as its longest, so like lengths belong together. Where a
        row has come or gone, the last ones fill the gaps; all are sorted, longest first, once the columns that were
        read for want of it are worth the rows that it moves. A row moves only if it is in the wrong block.
        """
        live = np.flatnonzero(self.working)
        order = self._dense(live)
        if len(live) > block:
            by_length = live[np.argsort(-self.length[live], kind="stable")]
            moved = self.length[by_length[~self._stays(by_length, block)]].sum()
            self._in_vain += self._columns_read(order, block) - self._columns_read(by_length, block)
            if self._in_vain > MOVE * moved:
                order, self._in_vain = by_length, 0
        stays = self._stays(order, block)
        if stays.all():
            return live[:0], live[:0]
        count, movers = len(live), order[~stays]
        kept = np.zeros(count, np.bool_)
        kept[order[stays]] = True
        targets = np.flatnonzero(~kept)
        vacated = movers[movers >= count]
        waiting = np.array([s for s in targets if self.branches[s] is not None and not self.working[s]], np.int64)
        sources = np.concatenate([movers, waiting])
        targets = np.concatenate([targets, vacated[: len(waiting)]])
        return self._carry(sources, targets)

    def _dense(self, live: np.ndarray) -> np.ndarray:
        """The rows at work with as few of them as possible elsewhere than they are: the last ones in the gaps."""
        count = len(live)
        order = np.arange(count)
        order[~self.working[:count]] = live[live >= count]
        return order

    @staticmethod
    def _stays(order: np.ndarray, block: int) -> np.ndarray:
        """(N,) whether each of the rows that are to come first, in this order, is in the right block already."""
        stays: np.ndarray = (order // block == np.arange(len(order)) // block) & (order < len(order))
        return stays

    def _columns_read(self, order: np.ndarray, block: int) -> int:
        """Columns that a pass of rows in this order reads, each block as many as its longest row."""
        starts = np.arange(0, len(order), block)
        longest = np.maximum.reduceat(self.length[order], starts) + 1
        rows = np.diff(np.append(starts, len(order)))
        return sum(bucketed(columns) * count for columns, count in zip(longest.tolist(), rows.tolist(), strict=True))

    def pack(self) -> tuple[np.ndarray, np.ndarray]:
        """Bring every branch, working or waiting, to the first slots; (sources, targets) as for `arrange`."""
        held = np.array([slot for slot, branch in enumerate(self.branches) if branch is not None], np.int64)
        targets = np.setdiff1d(np.arange(len(held)), held)
        sources = held[held >= len(held)]
        return self._carry(sources, targets)

    def _carry(self, sources: np.ndarray, targets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Move what is known of each source row to its target, all at once; rows left behind are empty."""
        for name in ("branches", "jobs", *_NUMBERS, *_FLAGS, *_TABLES):
            column = getattr(self, name)
            column[targets] = column[sources]
        self._clear(np.setdiff1d(sources, targets))
        for slot in targets:
            self.branches[slot].slot = int(slot)
        return sources, targets
