"""Which tokens the next forward pass feeds, and where they go: decoding branches first, then the probes under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tts_generate.engine.attention import Span
from tts_generate.engine.shapes import Shapes, bucketed
from tts_generate.engine.shared import Shared
from tts_generate.engine.states import BEFORE, NOW, PROBE
from tts_generate.live.branch import Probe


@dataclass(slots=True)
class Pass:
    """Tokens to feed in one forward pass; those that read a row together stand together."""

    slots: np.ndarray
    """(N,) the row of each token."""
    columns: np.ndarray
    """(N,) the column each token is written to."""
    hole: np.ndarray
    """(N,) the first column of the hole that each token does not see; behind its own column where there is none."""
    gap: int
    """Columns of a hole."""
    state: np.ndarray
    """(N,) the place whose recurrent state each token goes on from, see `states.py`."""
    spans: list[Span]
    """What is read; tokens behind theirs only fill the pass, and read nothing."""
    last: np.ndarray
    """(K,) the tokens whose logits are wanted."""
    shapes: Shapes
    offset: np.ndarray | int = 0
    """(N,) prompt tokens of each that are not in its row."""
    shared: Sequence[Shared] = ()
    """The prompts that they are in."""

    def part(self, tokens: np.ndarray) -> Pass:
        """A pass of some of the tokens, each of which is wanted; for passes that are not packed."""
        columns = self.columns[tokens]
        every = Span(0, len(tokens), 1, 0, bucketed(int(columns.max()) + 1))
        last = np.arange(len(tokens))
        return Pass(
            self.slots[tokens], columns, self.hole[tokens], self.gap, self.state[tokens], [every], last, self.shapes
        )

    @property
    def reading(self) -> tuple[int, int]:
        """(Rows that it reads, columns of all of them together)."""
        return sum(span.rows for span in self.spans), sum(span.rows * span.width for span in self.spans)

    @property
    def wanted(self) -> int:
        """Tokens that somebody asked for; those behind them only fill the pass."""
        return int(self.last.max()) + 1

    @property
    def turns(self) -> np.ndarray:
        """(N,) how many tokens of the same branch, or the same probe, come before each; they stand together."""
        others = (np.diff(self.slots) != 0) | (np.diff(self.probing) != 0)
        begins = np.flatnonzero(np.append(True, others))
        turns: np.ndarray = np.arange(len(self.slots)) - begins.repeat(np.diff(np.append(begins, len(self.slots))))
        return turns

    @property
    def probing(self) -> np.ndarray:
        """(N,) whether each token is a probe's."""
        probing: np.ndarray = self.hole <= self.columns
        return probing

    @property
    def positions(self) -> np.ndarray:
        """(N,) the place of each token in its sequence."""
        return np.where(self.hole < self.columns, self.columns - self.gap, self.columns) + self.offset


@dataclass(slots=True)
class Feed:
    """A pass, and the tokens on the host that go into it."""

    plan: Pass
    tokens: np.ndarray
    """(N,) int64."""
    slots: np.ndarray
    """(B,) rows whose branch decodes: the first B of `plan.last`."""
    probes: list[tuple[int, Probe]]
    """Rows and probes of the rest of `plan.last`, in order."""

    def moved(self) -> Feed:
        """The pass after this one, for what this one draws: every row's tokens one column on."""
        plan = self.plan
        columns = plan.columns + 1
        hole = np.where(plan.probing, plan.hole, columns + 1)
        state = np.where(plan.probing, PROBE, NOW)
        spans = [
            replace(span, width=plan.shapes.width(int(columns[span.tokens].max()) + 1, span.queries))
            for span in plan.spans
        ]
        return replace(self, plan=replace(plan, columns=columns, hole=hole, state=state, spans=spans))


def feed(
    slots: np.ndarray,
    tokens: np.ndarray,
    columns: np.ndarray,
    probes: Sequence[tuple[int, Probe]],
    gap: int,
    shapes: Shapes,
    in_row: bool = False,
) -> Feed:
    """Plan a pass.

    Args:
        slots: (B,) rows whose branch decodes, ascending.
        tokens: (B,) what each of them feeds.
        columns: (B,) where to.
        probes: rows with a probe under way.
        gap: columns of the hole between a branch and its probe.
        shapes: what passes look like on the device.
        in_row: read a row once for its branch and its probe, where most branches have one.
    """
    ordered = sorted(probes, key=lambda item: (len(item[1].feeds()), item[0]))
    count = len(slots)
    table = np.stack([slots, tokens, columns, columns + 1, np.full(count, NOW)]).astype(np.int64)
    queries, starts, last = [1], [0, count], np.arange(count)
    if ordered:
        table, queries, starts, last = _with_probes(table, ordered, gap, in_row and 2 * len(ordered) > count)
    spans: list[Span] = []
    for each, (start, stop) in zip(queries, pairwise(starts), strict=True):
        rows, ends = table[0, start:stop:each], table[2, start + each - 1 : stop : each]
        if shapes.few_calls and stop > start:
            spans.append(Span.over(rows, start, each, shapes.width(int(ends.max()) + 1, each)))
        else:
            spans += _spans(rows, ends, each, start, shapes)
    if starts[-1] < shapes.min_tokens:
        table = np.concatenate([table, _filler(table, shapes.min_tokens - starts[-1])], 1)
    all_slots, all_tokens, all_columns, holes, states = table
    plan = Pass(all_slots, all_columns, holes, gap, states, spans, last, shapes)
    return Feed(plan, all_tokens, slots, ordered)


def _with_probes(
    table: np.ndarray, probes: Sequence[tuple[int, Probe]], gap: int, in_row: bool
) -> tuple[np.ndarray, list[int], list[int], np.ndarray]:
    """Tokens of branches and of probes; those that read a row together stand together, after those that do with fewer.

    Args:
        table: (5, B) row, token, column, hole and state of each branch's token.
        probes: rows with a probe under way.
        gap: columns of a hole.
        in_row: read a row once for its branch and its probe.

    Returns:
        The table (5, N); how many read a row together, in ascending order; where those begin, and N; and where the
        last token of each branch and of each probe stands.
    """
    count = table.shape[1]
    reading = {slot: number for number, slot in enumerate(table[0].tolist())} if in_row else {}
    said = [
        (reading.get(slot, number), slot, token, column, probe.base, _state(probe))
        for number, (slot, probe) in enumerate(probes, count)
        for column, token in enumerate(probe.feeds(), probe.column(gap))
    ]
    together, *fields = np.array(said).T
    together = np.concatenate([np.arange(count), together])
    queries = np.bincount(together)[together]
    order = np.lexsort((together, queries))
    kinds, starts = np.unique(queries[order], return_index=True)
    ends = count - 1 + np.cumsum([len(probe.feeds()) for _, probe in probes])
    last = np.argsort(order)[np.concatenate([np.arange(count), ends])]
    return np.concatenate([table, fields], 1)[:, order], kinds.tolist(), [*starts.tolist(), len(order)], last


def _state(probe: Probe) -> int:
    """The place whose recurrent state a probe goes on from."""
    if probe.said:
        return PROBE
    return NOW if probe.again is None or probe.at_end else BEFORE


def _filler(table: np.ndarray, count: int) -> np.ndarray:
    """Tokens that nobody reads, behind everything that a row at work holds; a table as in `_with_probes`."""
    behind = 1 + table[2].max() + np.arange(count)
    nothing = np.zeros(count, np.int64)
    return np.stack([nothing + table[0, 0], nothing, behind, behind + 1, nothing + NOW])


def _spans(slots: np.ndarray, columns: np.ndarray, queries: int, first: int, shapes: Shapes) -> list[Span]:
    """Cut rows into runs of neighbours: none over a block's end, but where both read as many columns."""
    if not len(slots):
        return []
    breaks = np.flatnonzero((np.diff(slots) != 1) | (np.diff(slots // shapes.block) != 0)) + 1
    edges = [0, *breaks.tolist(), len(slots)]
    spans: list[Span] = []
    for start, stop in pairwise(edges):
        rows, slot = stop - start, int(slots[start])
        width = shapes.width(int(columns[start:stop].max()) + 1, queries)
        if spans and spans[-1].width == width and spans[-1].slot + spans[-1].rows == slot:
            spans[-1] = replace(spans[-1], rows=spans[-1].rows + rows)
        else:
            spans.append(Span(first + start * queries, rows, queries, slot, width))
    return spans
