"""Rows are kept dense, nothing moves that need not, and like lengths come together once that pays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.cache import LayerPrefix, SlotCache, SlotLayer
from tts_generate.engine.order import MOVE, Order
from tts_generate.engine.plan import feed
from tts_generate.engine.rows import EOS, GOES_ON, Evicted, Job, Rows
from tts_generate.engine.shapes import ALL_ROWS, BUCKET, Shapes, bucketed
from tts_generate.live.branch import Probe
from tts_generate.runner import Unit

EMPTY, WAITING, WORKING = range(3)


def prefix_of(values: list[int]) -> list[LayerPrefix]:
    """What two layers hold of a prompt: in each column one number."""
    states = torch.tensor(values, dtype=torch.float32)[None, :, None]
    return [LayerPrefix((states, -states)), LayerPrefix((2 * states, states))]


def job_of(branch: CachedBranch) -> Job:
    return Job(0, Unit(branch.number, 0, 1, False), branch, 100)


class Life(RuleBasedStateMachine):
    """Rows of a cache as the engine uses them; after whatever is done they hold what they say, and so does the cache.

    `held` is, of each branch, what stands in each of its columns.
    """

    @initialize(block=st.sampled_from([1, 2, 1 << 30]), gap=st.integers(0, 5))
    def begin(self, block: int, gap: int) -> None:
        self.rows = Rows(SlotCache([SlotLayer, SlotLayer]), Shapes(block), gap)
        self.held: dict[CachedBranch, dict[int, int]] = {}
        self.aside: dict[CachedBranch, Evicted] = {}
        self.count = 0

    def write(self, branch: CachedBranch, column: int, value: int) -> None:
        """A pass has written a column of a row."""
        for layer, factor in zip(self.rows.cache.layers, (1, 2), strict=True):
            layer.keys[branch.row, 0, column] = factor * value
            layer.values[branch.row, 0, column] = (-1 if factor == 1 else 1) * value
        self.held[branch][column] = value

    def forget(self, branch: CachedBranch) -> None:
        self.held.pop(branch, None)
        self.aside.pop(branch, None)

    def working(self) -> list[CachedBranch]:
        return [job.branch for job in self.rows.jobs()]

    @rule(prompt=st.integers(1, 9), wanted=st.integers(1, 4))
    def admit(self, prompt: int, wanted: int) -> None:
        rows = self.rows
        if rows.capacity < 16:  # columns for the prompt come first, as admission reserves them
            rows.resize(rows.slots, 16)
        if len(rows.empty()) < wanted:
            rows.resize(rows.slots + wanted, rows.capacity)
        slots = rows.empty()[:wanted]
        branches = [CachedBranch(self.count + i, 7 * self.count + i, [1] * prompt) for i in range(wanted)]
        values = [self.count + 1 + column for column in range(prompt)]
        self.count += 100
        rows.admit(branches, slots, prefix_of(values))
        first = np.array([branch.number % 50 for branch in branches])
        rows.write(np.array(slots), 0 * first, first, -first / 9, 0 * first)
        for branch in branches:
            self.held[branch] = dict(enumerate(values))

    @precondition(lambda self: self.rows.waiting())
    @rule(data=st.data(), ahead=st.integers(0, 3))
    def work(self, data: st.DataObject, ahead: int) -> None:
        branch = data.draw(st.sampled_from(self.rows.waiting()))
        self.rows.work(job_of(branch))
        self.rows.decode(branch, int(self.rows.fed(branch.row)) + ahead)

    @rule(ends=st.sets(st.integers(0, 9)), token=st.integers(0, 99))
    def step(self, ends: set[int], token: int) -> None:
        rows = self.rows
        slots = np.flatnonzero(rows.decoding)
        if rows.columns >= rows.capacity:
            rows.resize(rows.slots, 2 * rows.capacity)
        for slot in slots:
            self.write(rows.branch[slot], int(rows.length[slot]), int(rows.ids[slot, rows.fed(slot)]))
        tokens = token + np.arange(len(slots))
        how = np.array([EOS if n in ends else GOES_ON for n in range(len(slots))], np.int64)
        rows.write(slots, rows.fed(slots) + 1, tokens, -tokens / 9, how)

    @precondition(lambda self: any(self.rows.probe[branch.row] is None for branch in self.working()))
    @rule(data=st.data(), forced=st.integers(1, 3))
    def probe(self, data: st.DataObject, forced: int) -> None:
        rows = self.rows
        branch = data.draw(st.sampled_from([b for b in self.working() if rows.probe[b.row] is None]))
        taken = int(rows.fed(branch.row))
        rows.take(branch, taken, 4)
        base = branch.prompt_columns + taken
        while rows.capacity < base + rows.gap + forced:
            rows.resize(rows.slots, 2 * rows.capacity)
        rows.probe[branch.row] = Probe(taken, [3] * forced, "", base)
        rows.decode(branch, taken + rows.gap)
        for column in range(base + rows.gap, base + rows.gap + forced):
            self.write(branch, column, 1000 + column)

    @precondition(lambda self: self.working())
    @rule(data=st.data())
    def wait(self, data: st.DataObject) -> None:
        branch = data.draw(st.sampled_from(self.working()))
        self.rows.wait(branch)
        length = int(self.rows.length[branch.row])
        self.held[branch] = {column: value for column, value in self.held[branch].items() if column < length}

    @precondition(lambda self: self.rows.held)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        branch = data.draw(st.sampled_from([branch for branch in self.rows.branch if branch is not None]))
        fed, probe = int(self.rows.fed(branch.row)), self.rows.probe[branch.row]
        untaken = fed - len(branch.ids) + (probe.fed if probe else 0)
        if data.draw(st.booleans()):
            self.aside[branch] = self.rows.evict(branch)
            assert self.aside[branch].untaken == untaken
        else:
            assert self.rows.release(branch) == untaken
            self.forget(branch)

    @precondition(lambda self: self.aside)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        branch, rows = data.draw(st.sampled_from(list(self.aside))), self.rows
        if not rows.empty():
            rows.resize(rows.slots + 1, max(rows.capacity, 16))
        before = self.aside.pop(branch)
        job, length, end = before.row["job"][0], before.length, before.row["end"][0]
        rows.resize(rows.slots, max(rows.capacity, max(self.held[branch]) + 1))
        rows.restore(before, rows.empty()[-1])
        assert (rows.job[branch.row], rows.length[branch.row], rows.end[branch.row]) == (job, length, end)

    @rule(data=st.data(), more=st.integers(0, 40))
    def resize(self, data: st.DataObject, more: int) -> None:
        slots = data.draw(st.integers(self.rows.held, self.rows.slots + 2))
        self.rows.resize(slots, self.rows.capacity + more)

    @rule()
    def drop(self) -> None:
        for branch in list(self.rows.branch):
            if branch is not None:
                self.aside[branch] = self.rows.evict(branch)
        self.rows.drop()

    @rule(times=st.integers(1, 30))
    def arrange(self, times: int) -> None:
        before = {branch: self.rows.job[branch.row] for branch in self.rows.branch if branch is not None}
        for _ in range(times):
            self.rows.arrange()
        assert self.rows.working[: self.rows.live].all(), "rows at work come first"
        assert {branch: self.rows.job[branch.row] for branch in before} == before

    @invariant()
    def rows_hold_what_they_say(self) -> None:
        self.rows.check()
        assert {branch for branch in self.rows.branch if branch is not None} | set(self.aside) == set(self.held)

    @invariant()
    def the_cache_has_followed(self) -> None:
        for branch in self.rows.branch:
            if branch is not None:
                columns, values = (list(each) for each in (self.held[branch], self.held[branch].values()))
                for layer, wanted in zip(self.rows.cache.layers, prefix_of(values), strict=True):
                    for buffer, states in zip((layer.keys, layer.values), wanted.columns, strict=True):
                        assert torch.equal(buffer[branch.row, :, columns], states)


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)


@given(
    st.lists(st.tuples(st.sampled_from([EMPTY, WAITING, WORKING]), st.integers(1, 400)), min_size=1, max_size=40),
    st.sampled_from([1, 4, 8, 1 << 30]),
    st.integers(0, 30),
)
def test_rows_at_work_come_first_with_their_cache(states: list[tuple[int, int]], block: int, passes: int) -> None:
    rows = Rows(SlotCache([SlotLayer, SlotLayer]), Shapes(block), 0)
    rows.resize(len(states), 400)
    for slot, (state, length) in enumerate(states):
        if state != EMPTY:
            branch = CachedBranch(slot, slot, [5] * length)
            rows.admit([branch], [slot], prefix_of([slot + 1] * length))
            if state == WORKING:
                rows.work(job_of(branch))
    before = sorted(branch.number for branch in rows.branch if branch is not None)
    for _ in range(1 + passes):
        rows.arrange()
        assert rows.working[: rows.live].all()
        assert sorted(branch.number for branch in rows.branch if branch is not None) == before
        rows.check()
        for slot, branch in enumerate(rows.branch):
            if branch is not None:
                state, length = states[branch.number]
                assert rows.length[slot] == length
                assert rows.working[slot] == (state == WORKING)
                assert (rows.cache.layers[0].keys[slot, 0, :length] == branch.number + 1).all()


@given(st.sets(st.integers(0, 39), max_size=39))
def test_gaps_are_filled_by_the_last_rows_and_nothing_else_moves(gone: set[int]) -> None:
    working = np.array([slot not in gone for slot in range(40)])
    count = 40 - len(gone)
    sources, targets = Order(8).moves(working, working, 100 * working)
    assert sorted(targets) == sorted(slot for slot in gone if slot < count)
    assert all(source >= count for source in sources)


def test_rows_are_sorted_once_columns_read_in_vain_are_worth_the_moves() -> None:
    order, lengths, working = Order(8), np.array([10, 200] * 8), np.ones(16, np.bool_)

    def moved() -> int:
        sources, targets = order.moves(working, working, lengths)
        lengths[targets] = lengths[sources]
        return len(sources)

    in_vain = 8 * (bucketed(201) - bucketed(11))  # a pass, where the short rows stand beside the long ones
    columns = sum(200 for slot, length in enumerate(lengths) if length == 200 and slot >= 8) + 4 * 10
    passes = next(n for n in range(1, 1000) if moved())
    assert passes == MOVE * columns // in_vain + 1
    assert lengths.tolist() == [200] * 8 + [10] * 8
    assert not any(moved() for _ in range(100))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.sampled_from([1, 4, 8]), st.data())
def test_spans_cover_each_row_once_and_like_widths_are_one(lengths: list[int], block: int, data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)))
    slots, columns = np.array(kept), np.array([lengths[slot] for slot in kept])
    spans = feed(slots, slots, columns, [], 0, Shapes(block)).plan.spans
    spans = [span for span in spans if span.first < len(kept)]  # behind them a pass may be filled up
    assert [slot for span in spans for slot in range(span.slot, span.slot + span.rows)] == kept
    for span in spans:
        mine = columns[span.tokens]
        assert span.width == bucketed(int(mine.max()) + 1)
        assert span.width % BUCKET == 0
        edges = sorted({0, *range(-span.slot % block, span.rows, block), span.rows})
        for start, stop in pairwise(edges):  # as wide as each of its blocks would be alone
            assert bucketed(int(mine[start:stop].max()) + 1) == span.width
    for one, two in pairwise(spans):
        assert two.slot != one.slot + one.rows or two.width != one.width


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.data())
def test_where_calls_cost_more_than_columns_all_rows_are_one_span(lengths: list[int], data: st.DataObject) -> None:
    kept = sorted(data.draw(st.sets(st.integers(0, len(lengths) - 1), min_size=1)))
    slots, columns = np.array(kept), np.array([lengths[slot] for slot in kept])
    (span,) = feed(slots, slots, columns, [], 0, Shapes(ALL_ROWS)).plan.spans
    assert span.tokens == slice(0, len(kept))
    assert span.width == bucketed(int(columns.max()) + 1)
    read = range(span.slot, span.slot + span.rows)
    if span.cells is not None:
        assert span.cells.sources[span.cells.places].tolist() == list(range(len(kept)))
        picked = read if span.cells.slots is None else span.cells.slots
        assert [picked[place] for place in span.cells.places] == kept
    else:
        assert list(read) == kept
