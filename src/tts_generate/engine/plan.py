"""Which tokens the next forward pass feeds, and where they go: decoding branches first, then the probes under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tts_generate.engine.attention import Span
from tts_generate.engine.branch import Probe
from tts_generate.engine.shared import Shared
from tts_generate.engine.states import BEFORE, NOW, PROBE

BUCKET = 32
"""Widths are multiples of this: on CPU, float32 results are then the same at every width."""
HALVES, PART = (192, 384), 512
"""… but where four or more queries read a row's keys (four heads that share them, or a probe). torch's CPU attention
goes through them in parts of 512, and its products add up a part of more than 192 and fewer than 384 in two halves:
there, no part is left that long."""
MIN_TOKENS = 4
"""Passes feed at least this many tokens: below, CPU matrix products take another path and round differently."""
BLOCK = 32
"""On CPU, neighbouring rows that read the same number of columns; on other devices all rows do."""


@dataclass(slots=True)
class Pass:
    """Tokens to feed in one forward pass: `queries` of each of `slots`, then the same for those of probes."""

    slots: np.ndarray
    """(N,) the row of each token; the tokens of one row stand together."""
    columns: np.ndarray
    """(N,) the column each token is written to."""
    hole: np.ndarray
    """(N,) the first column of the hole that each token does not see; behind its own column where there is none."""
    gap: int
    """Columns of a hole."""
    state: np.ndarray
    """(N,) the place whose recurrent state each token goes on from, see `states.py`."""
    spans: list[Span]
    last: np.ndarray
    """(K,) the tokens whose logits are wanted."""
    offset: np.ndarray | int = 0
    """(N,) prompt tokens of each that are not in its row."""
    shared: Sequence[Shared] = ()
    """The prompts that they are in."""
    sharing: int = 0
    """Heads that share a key head, where that matters for widths."""

    def part(self, tokens: np.ndarray) -> Pass:
        """A pass of some of the tokens, each of which is wanted; for passes that are not packed."""
        columns = self.columns[tokens]
        every = Span(0, len(tokens), 1, 0, bucketed(int(columns.max()) + 1))
        last = np.arange(len(tokens))
        return Pass(self.slots[tokens], columns, self.hole[tokens], self.gap, self.state[tokens], [every], last)

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


def bucketed(columns: int, queries: int = 1) -> int:
    """The width that reads `columns` columns for `queries` queries of one row and key head.

    >>> [bucketed(columns) for columns in (1, 32, 33, 200, 300)]
    [32, 32, 64, 224, 320]
    >>> [bucketed(columns, queries=4) for columns in (192, 193, 300, 385, 705)]
    [192, 384, 384, 416, 896]
    """
    width = -(-columns // BUCKET) * BUCKET
    part = width % PART
    return width + HALVES[1] - part if queries >= 4 and HALVES[0] < part < HALVES[1] else width


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
            replace(span, width=bucketed(int(columns[span.tokens].max()) + 1, span.queries * plan.sharing))
            for span in plan.spans
        ]
        return replace(self, plan=replace(plan, columns=columns, hole=hole, state=state, spans=spans))

    @property
    def filler(self) -> int:
        """Tokens that only fill the pass."""
        return len(self.tokens) - int(self.plan.last[-1]) - 1


def feed(
    slots: np.ndarray,
    tokens: np.ndarray,
    columns: np.ndarray,
    probes: Sequence[tuple[int, Probe]],
    gap: int,
    block: int,
    sharing: int = 0,
) -> Feed:
    """Plan a pass.

    Args:
        slots: (B,) rows whose branch decodes, ascending.
        tokens: (B,) what each of them feeds.
        columns: (B,) where to.
        probes: rows with a probe under way.
        gap: columns of the hole between a branch and its probe.
        block: rows that read the same number of columns at most.
        sharing: heads that share a key head; 0 where that does not matter for widths.
    """
    ordered = sorted(probes, key=lambda item: (len(item[1].feeds()), item[0]))
    parts: list[tuple[np.ndarray, ...]] = [(slots, tokens, columns, columns + 1, np.full(len(slots), NOW))]
    spans = _spans(slots, columns, 1, 0, block, sharing)
    last = [np.arange(len(slots))]
    first = len(slots)
    for queries in sorted({len(probe.feeds()) for _, probe in ordered}):
        group = [(slot, probe) for slot, probe in ordered if len(probe.feeds()) == queries]
        rows = np.array([slot for slot, _ in group])
        starts = np.array([probe.column(gap) for _, probe in group])
        spread = (starts[:, None] + np.arange(queries)).ravel()
        fed = np.array([probe.feeds() for _, probe in group]).ravel()
        holes, states = np.array([(probe.base, _state(probe)) for _, probe in group]).repeat(queries, 0).T
        parts.append((rows.repeat(queries), fed, spread, holes, states))
        spans += _spans(rows, starts + queries - 1, queries, first, block, sharing)
        last.append(first + queries * np.arange(1, len(group) + 1) - 1)
        first += queries * len(group)
    if first < MIN_TOKENS:
        parts.append(_filler(parts, MIN_TOKENS - first))
        spans += [Span(first, 1, MIN_TOKENS - first, int(parts[-1][0][0]), bucketed(int(parts[-1][2].max()) + 1))]
    all_slots, all_tokens, all_columns, holes, states = (
        np.concatenate(column).astype(np.int64) for column in zip(*parts, strict=True)
    )
    plan = Pass(all_slots, all_columns, holes, gap, states, spans, np.concatenate(last), sharing=sharing)
    return Feed(plan, all_tokens, slots, ordered)


def _state(probe: Probe) -> int:
    """The place whose recurrent state a probe goes on from."""
    if probe.said:
        return PROBE
    return NOW if probe.again is None else BEFORE


def _filler(parts: Sequence[tuple[np.ndarray, ...]], count: int) -> tuple[np.ndarray, ...]:
    """Tokens that nobody reads, behind everything that a row at work holds."""
    slot = next(int(part[0][0]) for part in parts if len(part[0]))
    behind = 1 + max(int(part[2].max()) for part in parts if len(part[0])) + np.arange(count)
    return np.full(count, slot), np.zeros(count, np.int64), behind, behind + 1, np.full(count, NOW)


def _spans(slots: np.ndarray, columns: np.ndarray, queries: int, first: int, block: int, sharing: int) -> list[Span]:
    """Cut rows into runs of neighbours: none over a block's end, but where both read as many columns."""
    if not len(slots):
        return []
    breaks = np.flatnonzero((np.diff(slots) != 1) | (np.diff(slots // block) != 0)) + 1
    edges = [0, *breaks.tolist(), len(slots)]
    spans: list[Span] = []
    for start, stop in pairwise(edges):
        rows, slot = stop - start, int(slots[start])
        width = bucketed(int(columns[start:stop].max()) + 1, queries * sharing)
        if spans and spans[-1].width == width and spans[-1].slot + spans[-1].rows == slot:
            spans[-1] = replace(spans[-1], rows=spans[-1].rows + rows)
        else:
            spans.append(Span(first + start * queries, rows, queries, slot, width))
    return spans
