"""Which branch is in which row of the batch; numpy only, and the keys of everything are branches, never rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tts_generate.engine.branch import Branch, Probe
from tts_generate.runner import Unit


@dataclass(slots=True, eq=False)
class Job:
    """A unit being carried out: which episode wants it, on which branch, and what it took so far."""

    episode: int
    unit: Unit
    branch: Branch
    target: int
    """Tokens of the branch at which the unit ends."""
    probe: Probe | None = None
    generated_tokens: int = 0
    probe_tokens: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Earlier questions first, then earlier branches."""
        return self.episode, self.unit.branch


@dataclass(slots=True)
class Rows:
    """The slots of the cache: each is free, holds a waiting branch, or is decoding a job.

    Decoding rows are kept dense in 0..live-1, so that the batch of a forward pass is exactly the rows at work.
    """

    branches: list[Branch | None] = field(default_factory=list)
    jobs: list[Job | None] = field(default_factory=list)
    length: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """Columns of each row that hold keys and values."""
    feed: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    """The token each row feeds next."""

    @property
    def slots(self) -> int:
        """Rows there are."""
        return len(self.branches)

    @property
    def live(self) -> int:
        """Rows at work; after `arrange` they are the first ones."""
        return sum(job is not None for job in self.jobs)

    def working(self) -> list[Job]:
        """The jobs of rows 0..live-1; call `arrange` first."""
        return [job for job in self.jobs if job is not None]

    def admit(self, branch: Branch, length: int) -> int:
        """Give a branch a free slot, of which `length` columns will be filled."""
        branch.slot = slot = self._free_slot()
        self.branches[slot] = branch
        self.length[slot] = length
        return slot

    def start(self, job: Job) -> None:
        """Set a job to work in its branch's row."""
        self.jobs[job.branch.row] = job

    def _free_slot(self) -> int:
        """The first free slot; the rows grow by half when there is none."""
        for slot, branch in enumerate(self.branches):
            if branch is None:
                return slot
        slot = self.slots
        more = max(4, slot // 2)
        self.branches += [None] * more
        self.jobs += [None] * more
        self.length = np.concatenate([self.length, np.zeros(more, np.int64)])
        self.feed = np.concatenate([self.feed, np.zeros(more, np.int64)])
        return slot

    def release(self, branch: Branch) -> None:
        """Free the slot of a branch that is finished, pruned, or no longer asked for."""
        if branch.slot is not None:
            self.branches[branch.slot] = None
            self.jobs[branch.slot] = None
            self.length[branch.slot] = 0
            branch.slot = None

    def arrange(self) -> tuple[list[int], list[int]]:
        """Bring the rows at work to the front; returns (source, target) slots whose cache contents must follow."""
        live = self.live
        holes = [slot for slot in range(live) if self.jobs[slot] is None]
        movers = [slot for slot in range(live, self.slots) if self.jobs[slot] is not None]
        sources, targets = [], []
        for hole, mover in zip(holes, movers, strict=True):
            waiting = self.branches[hole] is not None
            sources += [mover, hole] if waiting else [mover]
            targets += [hole, mover] if waiting else [hole]
            columns: tuple[Any, ...] = (self.branches, self.jobs, self.length, self.feed)
            for column in columns:
                column[hole], column[mover] = column[mover], column[hole]
            for slot in (hole, mover):
                branch = self.branches[slot]
                if branch is not None:
                    branch.slot = slot
        return sources, targets
