"""Passes of a few fixed shapes over fixed addresses: what CUDA graphs need, and what a kernel launch costs nothing in.

A pass in which no row feeds more than two tokens (its branch's, and one of its probe) becomes a grid of rows x queries
with a width, all three rounded up to a size; what is left of the grid writes to a column that nobody reads. Everything
a size needs stands in buffers made once, so on a CUDA device its forward pass is captured once and then replayed. Other
passes (a probe's suffix, prompts) run as they come.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tts_generate.engine.attention import Span
from tts_generate.engine.cache import SlotCache
from tts_generate.engine.plan import MIN_TOKENS, Pass

_ROWS = MIN_TOKENS
_WIDTH = 128
"""The smallest sizes; each further one is twice the last."""


@dataclass(slots=True)
class Inputs:
    """What a forward pass reads, at addresses that stay; N = rows * queries tokens."""

    ids: Tensor
    """(N,) token ids."""
    slots: Tensor
    """(N,) row of each token; never changes."""
    columns: Tensor
    """(N,) where each token is written."""
    hole: Tensor
    """(N,) as in `Pass`."""
    gap: int
    span: Span
    graph: torch.cuda.CUDAGraph | None = None
    logits: Tensor | None = None
    """(N, V), where a graph writes them."""


@dataclass(frozen=True, slots=True)
class Grid:
    """Where the tokens of a pass stand in a grid of rows x queries."""

    cells: np.ndarray
    """(N,) the place of each; what only fills the pass has none."""
    queries: int


def grid_of(plan: Pass) -> Grid | None:
    """The grid of a pass in which no row feeds more than a token of its branch and one of its probe; None of others."""
    count = plan.wanted
    slots, probing = plan.slots[:count], plan.probing[:count]
    per_row = np.bincount(slots)
    queries = int(per_row.max())
    if queries > 2:
        return None
    second = probing & (per_row[slots] == 2)
    if np.bincount(2 * slots + second).max() > 1:  # two tokens of the same probe
        return None
    return Grid(slots * queries + second, queries)


class StaticShapes:
    """Runs passes that fit a size in that size; with a CUDA device, as captured graphs.

    Args:
        cache: the slots.
        forward: the model's forward pass on `Inputs`, (N, V) float32 logits; must not look at values on the host.
        device: of the inputs.
    """

    def __init__(self, cache: SlotCache, forward: Callable[[Inputs], Tensor], device: torch.device) -> None:
        self.cache, self.forward, self.device = cache, forward, device
        self.sizes: dict[tuple[int, int, int], Inputs] = {}
        self._version = cache.version

    def run(self, tokens: Tensor, plan: Pass, grid: Grid) -> Tensor:
        """Feed a pass whose tokens stand in this grid; (K, V) float32 logits of `plan.last`."""
        cells, queries, count = grid.cells, grid.queries, len(grid.cells)
        rows = min(_size(int(plan.slots[:count].max()) + 1, _ROWS), self.cache.rows)
        width = min(_size(int(plan.columns[:count].max()) + 1, _WIDTH), self.cache.capacity)
        inputs = self._inputs(rows, queries, width, plan.gap)
        columns = np.full(rows * queries, self.cache.capacity - 1)  # the last column holds nothing
        hole = columns + 1
        columns[cells], hole[cells] = plan.columns[:count], plan.hole[:count]
        where = torch.from_numpy(cells).to(self.device)
        inputs.ids[where] = tokens[:count]
        inputs.columns.copy_(torch.from_numpy(columns))
        inputs.hole.copy_(torch.from_numpy(hole))
        return self._replayed(inputs).index_select(0, where[torch.from_numpy(plan.last).to(self.device)])

    def _inputs(self, rows: int, queries: int, width: int, gap: int) -> Inputs:
        if self._version != self.cache.version:  # the cache has moved, and with it all that was captured
            self.sizes, self._version = {}, self.cache.version
        size = rows, queries, width
        if size not in self.sizes:
            count = rows * queries
            empty = [torch.zeros(count, dtype=torch.long, device=self.device) for _ in range(3)]
            slots = torch.arange(rows, device=self.device).repeat_interleave(queries)
            span = Span(0, rows, queries, 0, width)
            self.sizes[size] = Inputs(empty[0], slots, empty[1], empty[2], gap, span)
        return self.sizes[size]

    def _replayed(self, inputs: Inputs) -> Tensor:
        if self.device.type != "cuda":
            return self.forward(inputs)
        if inputs.graph is None:
            self._capture(inputs)
        assert inputs.graph is not None
        assert inputs.logits is not None
        inputs.graph.replay()
        return inputs.logits

    def _capture(self, inputs: Inputs) -> None:
        """Run a size twice, so that all that is made lazily is there, and once more to capture it."""
        current, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
        side.wait_stream(current)
        with torch.cuda.stream(side):
            for _ in range(2):
                self.forward(inputs)
        current.wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            inputs.logits = self.forward(inputs)
        inputs.graph = graph


def _size(count: int, least: int) -> int:
    """The smallest size that holds `count`."""
    size = least
    while size < count:
        size *= 2
    return size
