"""Who gets a row: queued jobs in order, within a budget of memory.

Where rows run out, branches that wait for a decision leave theirs first, then those that are asked for last; what they
hold is copied to the host's memory and comes back as it was, so nothing is decoded twice and no token changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Iterator

import numpy as np
import torch

from tts_generate.engine.batch import Batch, Saved
from tts_generate.engine.branch import CachedBranch as Branch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.memory import Room
from tts_generate.engine.rows import Job
from tts_generate.engine.settings import Settings
from tts_generate.errors import InputError, TTSError, warn

_FIRST_COLUMNS = 128
"""Columns behind the longest prompt that the cache begins with; it doubles as branches grow."""

_AT_ONCE = 512
"""Columns up to which it begins with all that the call's longest branch may need: growing costs more than it saves."""

Prefilled = Callable[[int], tuple[Prefix, torch.Tensor]]
"""Episode number -> what the layers hold of its prompt, and the logits (V,) after it."""


class Admission:
    """The jobs that wait for rows, and the rows.

    Args:
        batch: where the rows are.
        settings: how many rows and how much memory; the rows are halved whenever memory runs out.
        longest_prompt: columns that the call's longest prompt takes in a row.
        longest: columns that its longest branch may come to, its probe included.
    """

    def __init__(self, batch: Batch, settings: Settings, longest_prompt: int, longest: int) -> None:
        self.batch, self.max_rows, self.max_cache_bytes = batch, settings.max_rows, settings.max_cache_bytes
        self.ahead_rows = settings.ahead_rows
        shapes = batch.decoder.shapes
        self.most = shapes.capacity(longest)
        at_once = longest <= _AT_ONCE or batch.settings.static
        self.first = self.most if at_once else shapes.capacity(min(longest, longest_prompt + _FIRST_COLUMNS))
        self.room: Room | None = None
        self.queue: list[tuple[tuple[int, int], Job]] = []
        self.saved: dict[Branch, Saved] = {}

    def measure(self, prefix: Prefix) -> None:
        """Learn from the first prompt what a column takes.

        Raises:
            InputError: not even one branch may grow to its end within the budget.
        """
        if self.room is None:
            self.room = Room(prefix, self.max_cache_bytes)
            if self.room.rows(self.most) < 1:
                raise InputError(
                    f"a branch of this call may come to {self.most:,} columns of key-value cache, "
                    f"{self.room.row_bytes(self.most):,} bytes, and {sum(self.room.bytes.values()):,} may "
                    "be used; raise max_cache_bytes, or pass fewer max_new_tokens."
                )

    @property
    def open(self) -> bool:
        """Whether there are rows that no job waits for."""
        return self.batch.rows.live - len(self._ahead()) + len(self.queue) < self.max_rows

    def push(self, job: Job) -> None:
        """Queue a job."""
        heapq.heappush(self.queue, (job.order, job))

    def jobs(self, episode: int) -> Iterator[Job]:
        """The jobs of an episode that have rows."""
        return (job for job in self.batch.rows.jobs if job is not None and job.episode == episode)

    def forget(self, episode: int) -> None:
        """Take an episode's jobs out of the queue."""
        self.queue = [item for item in self.queue if item[1].episode != episode]
        heapq.heapify(self.queue)

    def drop(self, branch: Branch) -> None:
        """Forget the cache of a branch that nobody will continue."""
        self.batch.release(branch)
        saved = self.saved.pop(branch, None)
        if saved is not None:
            self.batch.discarded_tokens += max(0, saved.length - branch.prompt_columns - len(branch.ids))

    def place(self, prefilled: Prefilled) -> None:
        """Give queued jobs rows while there are any, the earliest questions and branches first."""
        too_many = self.batch.rows.live + len(self.queue) - self._ahead_rows
        for job in sorted(self._ahead(), key=lambda job: job.order, reverse=True)[: max(0, too_many)]:
            self.batch.pause(job)
        while self.queue and self.batch.rows.live < self.max_rows:
            job = self.queue[0][1]
            if job.branch.slot is None and not self._seat(job, prefilled):
                return
            heapq.heappop(self.queue)
            self.batch.start(job)

    @property
    def _ahead_rows(self) -> int:
        return min(self.ahead_rows, self.max_rows)

    def _ahead(self) -> list[Job]:
        """The jobs at work that nobody has asked for yet."""
        return [job for job in self.batch.rows.jobs if job is not None and job.ahead] if self.ahead_rows else []

    def look_ahead(self, jobs: Iterable[Job], prefilled: Prefilled) -> None:
        """Give rows that would be idle to jobs that nobody has asked for yet, in this order."""
        rows = self.batch.rows
        if self.queue or rows.live >= self._ahead_rows or not rows.live:
            return
        for job in jobs:
            if job.branch.slot is None:
                self._reserve(job.branch.prompt_columns + self.batch.spread)
                if not len(rows.empty()):
                    return
                self.batch.admit([job.branch], rows.empty()[:1].tolist(), *prefilled(job.episode))
            self.batch.start(job)
            if rows.live >= self._ahead_rows:
                return

    def _seat(self, job: Job, prefilled: Prefilled) -> bool:
        """Put a branch into a row: back as it was, or new, with those of its question that are next in the queue."""
        branch = job.branch
        if branch in self.saved:
            saved = self.saved[branch]
            self._reserve(saved.length + self.batch.spread)
            slots = self._slots(1)
            if slots:
                self.batch.restore(branch, slots[0], saved)
                del self.saved[branch]
            return bool(slots)
        self._reserve(branch.prompt_columns + self.batch.spread)
        new = sorted(j.order for _, j in self.queue if j.episode == job.episode and self._is_new(j.branch))
        slots = self._slots(min(len(new), self.max_rows - self.batch.rows.live))
        if slots:
            chosen = set(new[: len(slots)])
            branches = [j.branch for order, j in sorted(self.queue, key=lambda item: item[0]) if order in chosen]
            self.batch.admit(branches, slots, *prefilled(job.episode))
        return bool(slots)

    def _is_new(self, branch: Branch) -> bool:
        return branch.slot is None and branch not in self.saved

    def _slots(self, count: int) -> list[int]:
        """Up to `count` empty slots, made if they fit, and else won from branches that wait; [] if all are at work."""
        rows = self.batch.rows
        short = count - len(rows.empty())
        if short > 0:
            assert self.room is not None
            cache = self.batch.decoder.cache
            allowed = min(2 * self.max_rows, self.room.rows(cache.capacity))
            soon = self.max_rows if self.batch.settings.static else max(rows.held + len(self.queue), self._ahead_rows)
            wanted = min(allowed, max(rows.slots + short, min(self.max_rows, soon)))
            if wanted > rows.slots:
                cache.resize(wanted, cache.capacity, self.batch.columns)
                rows.resize(wanted)
        if not len(rows.empty()):
            self._evict(working=False)
        return [int(slot) for slot in rows.empty()[:count]]

    def widen(self) -> None:
        """Make room for what the next pass writes."""
        self._reserve(self.batch.columns_needed)

    def _reserve(self, columns: int) -> None:
        """Have at least this many columns; there may be fewer rows then."""
        cache, rows = self.batch.decoder.cache, self.batch.rows
        need = self.batch.decoder.shapes.capacity(columns)
        if need <= cache.capacity:
            return
        assert self.room is not None
        wanted = max(need, self.first, min(self.most, 2 * cache.capacity))
        if self.room.rows(wanted) < rows.slots:
            wanted = need
        allowed = max(1, min(rows.slots, self.room.rows(wanted))) if rows.slots else 0
        while rows.held > allowed:
            self._evict(working=True)
        if allowed < rows.slots:
            self.batch.pack()
            rows.resize(allowed)
        cache.resize(allowed, wanted, self.batch.columns)

    def _evict(self, working: bool) -> None:
        """Have one branch leave its row: the last one that waits, else (if `working`) the last one at work."""
        rows = self.batch.rows
        held = np.array([slot for slot, branch in enumerate(rows.branches) if branch is not None], np.int64)
        waiting = held[~rows.working[held]]
        if len(waiting):
            branch = max((rows.branches[slot] for slot in waiting), key=lambda branch: branch.order)
            self.saved[branch] = self.batch.save(branch)
        elif working and len(held):
            job = max((rows.jobs[slot] for slot in held), key=lambda job: job.order)
            self.saved[job.branch] = self.batch.save(job.branch)
            if not job.ahead:
                self.push(job)

    def shrink(self, error: BaseException) -> None:
        """Memory ran out: every branch leaves its row, the cache is given back, and half the rows come again.

        Raises:
            TTSError: there was but one row.
        """
        rows, cache = self.batch.rows, self.batch.decoder.cache
        count = min(self.max_rows, rows.slots) // 2
        if count < 1 or self.room is None:
            raise TTSError(
                "out of memory with a single branch at work; pass fewer max_new_tokens, a shorter prompt, or a smaller "
                f"model or dtype. ({error})"
            ) from error
        while rows.held:
            self._evict(working=True)
        self.room.shrink(count, cache.capacity)
        cache.drop()
        rows.resize(0)
        self.max_rows = count
        warn(f"out of memory: going on with {count} rows; nothing is lost", RuntimeWarning, stacklevel=2)
