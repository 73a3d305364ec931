"""Who gets a row: queued jobs in order, within a budget of memory.

Where rows run out, branches that wait for a decision leave theirs first, then those that are asked for last; what they
hold is copied to the host's memory and comes back as it was, so nothing is decoded twice and no token changes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable

import torch

from tts_generate.engine.batch import Batch
from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.memory import Room
from tts_generate.engine.rows import Evicted, Job
from tts_generate.engine.settings import Settings
from tts_generate.errors import InputError, TTSError, warn

_FIRST_COLUMNS = 128
"""Columns behind the longest prompt that the cache begins with; it doubles as branches grow."""

_AT_ONCE = 512
"""Columns up to which it begins with all that the call's longest branch may need: growing costs more than it saves."""

Prefilled = Callable[[int], tuple[Prefix, torch.Tensor]]
"""Episode number -> what the layers hold of its prompt, and the logits (V,) after it."""


class Admission:
    """The jobs that wait for rows, and the branches that had to leave theirs.

    Args:
        batch: what is at work in the rows.
        settings: how many rows and how much memory; the rows are halved whenever memory runs out.
        longest_prompt: columns that the call's longest prompt takes in a row.
        longest: columns that its longest branch may come to, its probe included.
    """

    def __init__(self, batch: Batch, settings: Settings, longest_prompt: int, longest: int) -> None:
        self.batch, self.max_rows, self.max_cache_bytes = batch, settings.max_rows, settings.max_cache_bytes
        self.rows, self.capacity = batch.rows, batch.rows.shapes.capacity
        self.ahead_rows, self.profile, self.static = settings.ahead_rows, settings.profile, settings.static
        self.most = self.capacity(longest)
        at_once = longest <= _AT_ONCE or self.static
        self.first = self.most if at_once else self.capacity(min(longest, longest_prompt + _FIRST_COLUMNS))
        self.room: Room | None = None
        self.queue: list[Job] = []
        self.evicted: dict[CachedBranch, Evicted] = {}

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
        return self.rows.live - len(self._ahead()) + len(self.queue) < self.max_rows

    def push(self, job: Job) -> None:
        """Queue a job."""
        heapq.heappush(self.queue, job)

    def forget(self, episode: int) -> None:
        """Take an episode's jobs out of the queue."""
        self.queue = [job for job in self.queue if job.episode != episode]
        heapq.heapify(self.queue)

    def holds(self, branch: CachedBranch) -> bool:
        """Whether a branch can go on from all of its tokens, none of which was decoded ahead."""
        return branch.read == len(branch.ids) and (branch.slot is not None or branch in self.evicted)

    def drop(self, branch: CachedBranch) -> None:
        """Forget the cache of a branch that nobody will continue."""
        self.batch.release(branch)
        evicted = self.evicted.pop(branch, None)
        if evicted is not None:
            self.batch.discarded_tokens += evicted.untaken

    def place(self, prefilled: Prefilled) -> None:
        """Give queued jobs rows while there are any, the earliest questions and branches first."""
        ahead = sorted(self._ahead(), reverse=True)
        if ahead:
            asked = self.rows.live - len(ahead) + len(self.queue)
            for job in ahead[: max(0, asked + len(ahead) - self._ahead_rows(asked))]:
                self.batch.pause(job)
        while self.queue and self.rows.live < self.max_rows:
            job = self.queue[0]
            if job.branch.slot is None and not self._seat(job, prefilled):
                return
            heapq.heappop(self.queue)
            self.batch.start(job)

    def _ahead_rows(self, asked: int) -> int:
        """Rows up to which idle ones work ahead, beside `asked` that are at work on what was asked for."""
        if self.ahead_rows != "auto":
            return min(self.ahead_rows, self.max_rows)
        if self.profile is None or not 0 < asked < self.max_rows:
            return 0
        return self.profile.free_rows(asked, self.rows.read_columns, self.max_rows)

    def _ahead(self) -> list[Job]:
        """The jobs at work that nobody has asked for yet."""
        return [job for job in self.rows.jobs() if job.ahead] if self.ahead_rows else []

    def look_ahead(self, jobs: Iterable[Job], prefilled: Prefilled) -> None:
        """Give rows that would be idle to jobs that nobody has asked for yet, in this order."""
        if not self.ahead_rows or self.queue or not self.rows.live:
            return
        most = self._ahead_rows(self.rows.live - len(self._ahead()))
        if self.rows.live >= most:
            return
        for job in jobs:
            if job.branch.slot is None:
                self._reserve(job.branch.prompt_columns + self.batch.spread)
                slots = self.rows.empty()[:1]
                if not slots:
                    return
                self.batch.admit([job.branch], slots, *prefilled(job.episode))
            self.batch.start(job)
            if self.rows.live >= most:
                return

    def _seat(self, job: Job, prefilled: Prefilled) -> bool:
        """Put a branch into a row: back as it was, or new, with those of its question that are next in the queue."""
        branch = job.branch
        if branch in self.evicted:
            evicted = self.evicted[branch]
            self._reserve(evicted.length + self.batch.spread)
            slots = self._slots(1)
            if slots:
                self.rows.restore(evicted, slots[0])
                del self.evicted[branch]
            return bool(slots)
        self._reserve(branch.prompt_columns + self.batch.spread)
        unseated = (each for each in self.queue if each.branch.slot is None and each.branch not in self.evicted)
        new = sorted(each for each in unseated if each.episode == job.episode)
        slots = self._slots(min(len(new), self.max_rows - self.rows.live))
        if slots:
            self.batch.admit([each.branch for each in new[: len(slots)]], slots, *prefilled(job.episode))
        return bool(slots)

    def _slots(self, count: int) -> list[int]:
        """Up to `count` empty rows, made if they fit, and else won from branches that wait; [] if all are at work."""
        rows = self.rows
        short = count - len(rows.empty())
        if short > 0:
            assert self.room is not None
            allowed = min(2 * self.max_rows, self.room.rows(rows.capacity))
            asked = rows.held + len(self.queue)
            soon = self.max_rows if self.static else max(asked, self._ahead_rows(rows.live + len(self.queue)))
            wanted = min(allowed, max(rows.slots + short, min(self.max_rows, soon)))
            if wanted > rows.slots:
                rows.resize(wanted, rows.capacity)
        if not rows.empty():
            self._evict(working=False)
        return rows.empty()[:count]

    def widen(self) -> None:
        """Make room for what the next pass writes."""
        self._reserve(self.batch.columns_needed)

    def _reserve(self, columns: int) -> None:
        """Have at least this many columns; there may be fewer rows then."""
        rows, need = self.rows, self.capacity(columns)
        if need <= rows.capacity:
            return
        assert self.room is not None
        wanted = max(need, self.first, min(self.most, 2 * rows.capacity))
        if self.room.rows(wanted) < rows.slots:
            wanted = need
        allowed = max(1, min(rows.slots, self.room.rows(wanted))) if rows.slots else 0
        while rows.held > allowed:
            self._evict(working=True)
        rows.resize(allowed, wanted)

    def _evict(self, working: bool) -> None:
        """Have one branch leave its row: the last one that waits, else (if `working`) the last one at work."""
        waiting, jobs = self.rows.waiting(), self.rows.jobs()
        if waiting:
            branch = max(waiting, key=lambda branch: branch.order)
            self.evicted[branch] = self.rows.evict(branch)
        elif working and jobs:
            job = max(jobs)
            if job.ahead:
                self.batch.pause(job)
            self.evicted[job.branch] = self.rows.evict(job.branch)
            if not job.ahead:
                self.push(job)

    def shrink(self, error: BaseException) -> None:
        """Memory ran out: every branch leaves its row, the cache is given back, and half the rows come again.

        Raises:
            TTSError: there was but one row.
        """
        rows = self.rows
        count = min(self.max_rows, rows.slots) // 2
        if count < 1 or self.room is None:
            raise TTSError(
                "out of memory with a single branch at work; pass fewer max_new_tokens, a shorter prompt, or a smaller "
                f"model or dtype. ({error})"
            ) from error
        while rows.held:
            self._evict(working=True)
        self.room.shrink(count, rows.capacity)
        rows.drop()
        self.max_rows = count
        warn(f"out of memory: going on with {count} rows; nothing is lost", RuntimeWarning, stacklevel=2)
