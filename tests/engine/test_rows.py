"""Rows are kept dense, nothing moves that need not, and like lengths come together once that pays."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.plan import feed
from tts_generate.engine.rows import MOVE, Rows
from tts_generate.engine.shapes import BUCKET, Shapes, bucketed

EMPTY, WAITING, WORKING = range(3)


def held(states: list[tuple[int, int]]) -> Rows:
    """Rows whose slots are empty, wait or work, with branches of these lengths."""
    rows = Rows()
    rows.resize(len(states))
    for slot, (state, length) in enumerate(states):
        if state != EMPTY:
            rows.admit(CachedBranch(slot, slot, [5]), slot)
            rows.length[slot] = length
            rows.working[slot] = state == WORKING
    return rows


def follow(cache: np.ndarray, moves: tuple[np.ndarray, np.ndarray]) -> int:
    """Move what a cache holds as the engine's cache does; how many rows moved."""
    sources, targets = moves
    cache[targets] = cache[sources]
    return len(sources)


@given(
    st.lists(st.tuples(st.sampled_from([EMPTY, WAITING, WORKING]), st.integers(1, 400)), min_size=1, max_size=40),
    st.sampled_from([1, 4, 8, 1 << 30]),
    st.integers(0, 30),
)
def test_rows_at_work_come_first_with_their_cache(states: list[tuple[int, int]], block: int, passes: int) -> None:
    rows = held(states)
    cache = np.array([0 if state == EMPTY else length for state, length in states])
    before = sorted(branch.number for branch in rows.branches if branch is not None)
    for _ in range(1 + passes):
        follow(cache, rows.arrange(block))
        assert rows.working[: rows.live].all()
        assert sorted(branch.number for branch in rows.branches if branch is not None) == before
        for slot, branch in enumerate(rows.branches):
            if branch is not None:
                assert branch.slot == slot
                assert rows.key[slot] == branch.key
                assert rows.length[slot] == cache[slot] == states[branch.number][1]
                assert rows.working[slot] == (states[branch.number][0] == WORKING)
            else:
                assert rows.length[slot] == 0
                assert not rows.working[slot]


@given(st.sets(st.integers(0, 39), max_size=39))
def test_gaps_are_filled_by_the_last_rows_and_nothing_else_moves(gone: set[int]) -> None:
    rows = held([(WORKING, 100)] * 40)
    for slot in gone:
        rows.release(rows.branches[slot])
    count = rows.live
    sources, targets = rows.arrange(8)
    assert sorted(targets) == sorted(slot for slot in gone if slot < count)
    assert all(source >= count for source in sources)


def test_rows_are_sorted_once_columns_read_in_vain_are_worth_the_moves() -> None:
    lengths = [10, 200] * 8
    rows = held([(WORKING, length) for length in lengths])
    cache = np.array(lengths)
    in_vain = 8 * (bucketed(201) - bucketed(11))  # a pass, where the short rows stand beside the long ones
    moved = sum(200 for slot, length in enumerate(lengths) if length == 200 and slot >= 8) + 4 * 10
    passes = next(n for n in range(1, 1000) if follow(cache, rows.arrange(8)))
    assert passes == MOVE * moved // in_vain + 1
    assert rows.length.tolist() == cache.tolist() == [200] * 8 + [10] * 8
    assert not any(len(rows.arrange(8)[0]) for _ in range(100))


@given(st.lists(st.integers(1, 300), min_size=1, max_size=40), st.sampled_from([1, 4, 8, 1 << 30]), st.data())
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
