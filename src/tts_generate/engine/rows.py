"""The rows of the cache: which branch is in which, and what it does there; the keys of everything are branches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.cache import Prefix, SlotCache
from tts_generate.engine.order import Order
from tts_generate.engine.shapes import Shapes
from tts_generate.live.branch import Probe
from tts_generate.runner import Unit

GOES_ON, EOS, STOP, LENGTH, BROKEN = range(5)
"""How the token drawn last ends its branch: not, as "eos", by a stopping criterion, by its number, with NaN logits."""


@dataclass(frozen=True, slots=True, eq=False)
class Job:
    """A unit being carried out: which episode wants it, and on which branch."""

    episode: int
    unit: Unit
    branch: CachedBranch
    target: int
    """Tokens of the branch at which the unit ends."""
    ahead: bool = False
    """Whether nobody has asked for it yet."""

    def __lt__(self, other: Job) -> bool:
        """Earlier questions first, then earlier branches."""
        return self.branch.order < other.branch.order


_ROW = np.dtype(
    [
        ("branch", object),  # None: the row is empty
        ("job", object),  # None: its branch waits for a decision
        ("probe", object),  # the one that is under way, if any
        ("key", np.int64),  # `branch_key` of the branch
        ("offset", np.int64),  # tokens of the prompt that are not in the row
        ("prompt", np.int64),  # columns of the prompt
        ("length", np.int64),  # columns of the prompt and the branch
        ("stop", np.int64),  # tokens in the cache at which the branch pauses
        ("end", np.int64),  # how the token drawn last ends it
        ("decoding", np.bool_),  # whether passes feed it
    ],
    align=True,
)
_DRAWN = np.dtype([("id", np.int64), ("logprob", np.float32)], align=True)
_EMPTY = np.array((None, None, None, 0, 0, 0, 0, 0, GOES_ON, False), _ROW)


@dataclass(frozen=True, slots=True)
class Evicted:
    """A branch that had to leave its row: the row as it was, what was drawn, and what the cache held."""

    row: np.ndarray
    drawn: np.ndarray
    prefix: Prefix
    untaken: int
    """Tokens that were fed and that the branch has not taken."""

    @property
    def length(self) -> int:
        """Columns of the prompt and the branch."""
        return int(self.row["length"][0])


class Rows:
    """The rows of a cache: each is empty, or a branch waits in it for a decision, or it is at work on a job.

    Everything that gives a branch a row, moves it or takes it out is done here, so that the cache follows. Between two
    calls this holds, and `check` says so:

    - Every row is a row of the cache, and what its branch and its probe take fits into the cache's columns.
    - A branch is in one row and knows which; an empty row has nothing of the last one's.
    - A row is at work as long as it has a job, one of its branch. One that is not has no probe and is not decoding.
    - `length - prompt` tokens of the branch are in the cache, and one more is drawn and fed next; the first of them are
      those that the branch has taken.
    - A branch that decodes has not ended, has not come to its stop, and does not reach the columns of its probe.

    `arrange` has rows at work come first, 0 … live - 1; they stay there until one comes or goes.

    Args:
        cache: whose rows they are.
        shapes: how many rows read as many columns as the longest of them.
        gap: columns between a branch and its probe, for the tokens that it draws meanwhile.
    """

    def __init__(self, cache: SlotCache, shapes: Shapes, gap: int) -> None:
        self.cache, self.shapes, self.gap = cache, shapes, gap
        self._order = Order(shapes.block)
        self._table, self._drawn = np.full(0, _EMPTY), np.zeros((0, 64), _DRAWN)
        self._allocate(0)

    def _allocate(self, slots: int, tokens: int = 0) -> None:
        """Have this many rows, with room for at least this many drawn tokens of each."""
        kept, room = min(slots, self.slots), self._drawn.shape[1]
        assert not np.count_nonzero(self._table["branch"][kept:])
        table, drawn = np.full(slots, _EMPTY), np.zeros((slots, max(room, tokens)), _DRAWN)
        table[:kept], drawn[:kept, :room] = self._table[:kept], self._drawn[:kept]
        self._table, self._drawn = table, drawn
        # views: what is written here is in the table, with which it moves
        self.branch, self.job, self.probe = table["branch"], table["job"], table["probe"]
        self.key, self.offset, self.prompt = table["key"], table["offset"], table["prompt"]
        self.length, self.stop = table["length"], table["stop"]
        self.end, self.decoding = table["end"], table["decoding"]
        self.ids, self.logprobs = drawn["id"], drawn["logprob"]

    def _widen(self, tokens: int) -> None:
        room = self._drawn.shape[1]
        if tokens > room:
            self._allocate(self.slots, max(tokens, 2 * room))

    # ---- what there is

    @property
    def slots(self) -> int:
        """Rows there are."""
        return len(self._table)

    @property
    def capacity(self) -> int:
        """Columns of each."""
        return self.cache.capacity

    @property
    def working(self) -> np.ndarray:
        """(slots,) whether each row is at work."""
        working: np.ndarray = self.job.astype(np.bool_)
        return working

    @property
    def _held(self) -> np.ndarray:
        held: np.ndarray = self.branch.astype(np.bool_)
        return held

    @property
    def live(self) -> int:
        """Rows at work; after `arrange` they are the first ones."""
        return int(np.count_nonzero(self.job))

    @property
    def read_columns(self) -> float:
        """Columns that a row at work reads, on average; 0 where none is."""
        lengths = self.length[self.working]
        return float(lengths.mean()) if len(lengths) else 0.0

    @property
    def held(self) -> int:
        """Rows that hold a branch, at work or waiting."""
        return int(np.count_nonzero(self.branch))

    def empty(self) -> list[int]:
        """The rows that hold no branch."""
        empty: list[int] = np.flatnonzero(~self._held).tolist()
        return empty

    def jobs(self) -> list[Job]:
        """The jobs at work."""
        return [job for job in self.job if job is not None]

    def waiting(self) -> list[CachedBranch]:
        """The branches that wait for a decision."""
        return [self.branch[slot] for slot in np.flatnonzero(self._held & ~self.working)]

    def waits(self, branch: CachedBranch) -> bool:
        """Whether a branch waits in a row for a decision, and could go on."""
        slot = branch.slot
        return slot is not None and self.job[slot] is None and self.end[slot] == GOES_ON

    def probes(self) -> list[tuple[int, Probe]]:
        """The rows with a probe under way, and those."""
        return [(slot, self.probe[slot]) for slot in np.flatnonzero(self.probe).tolist()]

    def fed(self, slots: np.ndarray | int) -> np.ndarray:
        """Tokens of each branch that are in the cache."""
        fed: np.ndarray = self.length[slots] - self.prompt[slots]
        return fed

    @property
    def columns(self) -> int:
        """Columns that any row holds, its probe's included."""
        return max([int(self.length.max(initial=0)), *(self._reach(slot) for slot, _ in self.probes())])

    def _reach(self, slot: int) -> int:
        probe = self.probe[slot]
        return max(int(self.length[slot]), 0 if probe is None else probe.column(self.gap) + len(probe.feeds()))

    # ---- one branch

    def admit(self, branches: Sequence[CachedBranch], slots: Sequence[int], prefix: Prefix) -> None:
        """Give branches of one prompt, of which the layers hold `prefix`, empty rows that have columns for it."""
        shared = branches[0].shared_prefix is not None
        self.cache.admit([layer.first(0) for layer in prefix] if shared else prefix, slots)
        for branch, slot in zip(branches, slots, strict=True):
            columns = branch.prompt_columns
            offset = len(branch.prompt_ids) - columns
            self._table[slot] = branch, None, None, branch.key, offset, columns, columns, 0, GOES_ON, False
            branch.slot = slot

    def work(self, job: Job) -> None:
        """Have the row of a job's branch at work on it."""
        self.job[job.branch.row] = job

    def wait(self, branch: CachedBranch) -> None:
        """Have a branch wait in its row."""
        slot = branch.row
        self.job[slot] = self.probe[slot] = None
        self.decoding[slot] = False

    def decode(self, branch: CachedBranch, stop: int) -> None:
        """Have a branch decode until `stop` of its tokens are in the cache, if it is not there already."""
        slot = branch.row
        self.stop[slot] = stop
        self.decoding[slot] = self.end[slot] == GOES_ON and self.fed(slot) < stop

    def take(self, branch: CachedBranch, upto: int, interval_tokens: int) -> None:
        """Have a branch take what was drawn for it, up to `upto` tokens."""
        drawn = self._drawn[branch.row, len(branch.ids) : upto]
        branch.take(drawn["id"].tolist(), drawn["logprob"].tolist(), interval_tokens)

    def write(
        self, slots: np.ndarray, places: np.ndarray, tokens: np.ndarray, logprobs: np.ndarray, ends: np.ndarray
    ) -> None:
        """Write down a token drawn at a place of each row's branch, those before it having been fed.

        A row whose branch has ended, or is at its stop, decodes no more.
        """
        self._widen(int(places.max(initial=0)) + 1)
        self.ids[slots, places], self.logprobs[slots, places], self.end[slots] = tokens, logprobs, ends
        self.length[slots] = self.prompt[slots] + places  # after them: an interrupt finds every counted token written
        self.decoding[slots] &= (ends == GOES_ON) & (places < self.stop[slots])

    def release(self, branch: CachedBranch) -> int:
        """Empty the row of a branch, if it has one; how many tokens were fed that it has not taken."""
        if branch.slot is None:
            return 0
        slot, probe = branch.slot, self.probe[branch.slot]
        untaken = max(0, int(self.fed(slot)) - len(branch.ids)) + (0 if probe is None else probe.fed)
        self._table[slot] = _EMPTY
        branch.slot = None
        return untaken

    def evict(self, branch: CachedBranch) -> Evicted:
        """Take a branch out of its row with everything that it needs to go on."""
        slot = branch.row
        row, drawn = self._table[[slot]], self._drawn[slot, : int(self.fed(slot)) + 1].copy()
        prefix = self.cache.save(slot, self._reach(slot))
        return Evicted(row, drawn, prefix, self.release(branch))

    def restore(self, evicted: Evicted, slot: int) -> None:
        """Put a branch into an empty row, where it goes on as if it had never left one."""
        self.cache.admit(evicted.prefix, [slot])
        count = len(evicted.drawn)
        self._widen(count)
        self._table[slot], self._drawn[slot, :count] = evicted.row[0], evicted.drawn
        self.branch[slot].slot = slot

    # ---- all of them

    def resize(self, slots: int, capacity: int) -> None:
        """Have this many rows of this many columns; where there are fewer, branches move to the first ones."""
        if slots < self.slots:
            held = np.flatnonzero(self._held)
            self._move(held[held >= len(held)], np.setdiff1d(np.arange(len(held)), held))
            self._allocate(slots)
        self.cache.resize(slots, capacity, self.columns)
        self._allocate(slots)

    def drop(self) -> None:
        """Give back the memory of the cache; there are no rows then."""
        self.cache.drop()
        self._allocate(0)

    def arrange(self) -> None:
        """Bring the rows at work to the front, and like lengths together where that pays."""
        self._move(*self._order.moves(self._held, self.working, self.length))

    def _move(self, sources: np.ndarray, targets: np.ndarray) -> None:
        """Move each source row to its target, all at once; rows left behind are empty."""
        if not len(sources):
            return
        self.cache.move(sources.tolist(), targets.tolist(), self.columns)
        self._table[targets], self._drawn[targets] = self._table[sources], self._drawn[sources]
        self._table[np.setdiff1d(sources, targets)] = _EMPTY
        for slot in targets.tolist():
            self.branch[slot].slot = slot

    # ---- what holds

    def check(self) -> None:
        """Assert what the class says of itself."""
        assert self.slots == self.cache.rows, "every row is one of the cache"
        assert self.columns <= self.cache.capacity, "no row reaches beyond the cache"
        for slot in range(self.slots):
            if self.branch[slot] is None:
                assert self._table[slot] == _EMPTY, "nothing is left in an empty row"
            else:
                self._check_held(slot, self.branch[slot])

    def _check_held(self, slot: int, branch: CachedBranch) -> None:
        job, probe, fed, taken = self.job[slot], self.probe[slot], int(self.fed(slot)), len(branch.ids)
        assert branch.slot == slot, "a branch knows its row"
        assert (self.key[slot], self.prompt[slot]) == (branch.key, branch.prompt_columns), "a row is its branch's"
        assert self.prompt[slot] + self.offset[slot] == len(branch.prompt_ids), "a prompt is in the row or beside it"
        assert job is None or job.branch is branch, "a row works for its branch"
        assert job is not None or (probe is None and not self.decoding[slot]), "a row that waits does nothing"
        assert taken <= fed + branch.asking, "a branch takes what was fed; one that is asked at its end, its last token"
        assert branch.ids == self.ids[slot, :taken].tolist(), "a branch takes what was drawn"
        due = self.end[slot] != GOES_ON or fed >= self.stop[slot]
        assert not (self.decoding[slot] and due), "a branch decodes to its stop or its end"
        if probe is not None:
            begins = probe.base + self.gap + (probe.again is not None)
            assert self.length[slot] <= begins, "a branch does not reach the columns of its probe"
