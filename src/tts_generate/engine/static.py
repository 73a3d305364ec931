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
from tts_generate.engine.device import on_device
from tts_generate.engine.memory import out_of_memory
from tts_generate.engine.plan import Pass
from tts_generate.engine.shapes import Shapes
from tts_generate.errors import UnsupportedError

_ROWS = 4
_WIDTH = 128
"""The smallest sizes; each further one is twice the last."""
_WIDE = 512
"""Beyond this width there is a size between each two: what is read in vain takes longer than capturing one more."""


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
    """(N, V), where the graph writes them; the next graph that is replayed writes there too."""


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
        shapes: what else passes look like there.
    """

    def __init__(
        self, cache: SlotCache, forward: Callable[[Inputs], Tensor], device: torch.device, shapes: Shapes
    ) -> None:
        self.cache, self.forward, self.device, self.shapes = cache, forward, device, shapes
        self.sizes: dict[tuple[int, int, int], Inputs] = {}
        self._version = cache.version
        self._captures: Captures | None = None

    def run(self, tokens: Tensor, plan: Pass, grid: Grid) -> Tensor:
        """Feed a pass whose tokens stand in this grid; (K, V) float32 logits of `plan.last`."""
        cells, queries, count = grid.cells, grid.queries, len(grid.cells)
        rows = min(_size(int(plan.slots[:count].max()) + 1, max(_ROWS, self.shapes.min_tokens)), self.cache.rows)
        width = self.shapes.width(_width(int(plan.columns[:count].max()) + 1), queries)
        width = min(width, self.cache.capacity)
        inputs = self._inputs(rows, queries, width, plan.gap)
        columns = np.full(rows * queries, self.cache.capacity - 1)  # the last column holds nothing
        hole = columns + 1
        columns[cells], hole[cells] = plan.columns[:count], plan.hole[:count]
        where = on_device(cells, self.device)
        inputs.ids[where] = tokens[:count]
        inputs.columns.copy_(on_device(columns, self.device))
        inputs.hole.copy_(on_device(hole, self.device))
        return self._replayed(inputs).index_select(0, where[on_device(plan.last, self.device)])

    def _inputs(self, rows: int, queries: int, width: int, gap: int) -> Inputs:
        if self._version != self.cache.version:  # the cache has moved, and with it all that was captured
            self.sizes, self._version, self._captures = {}, self.cache.version, None
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
            if self._captures is None:
                self._captures = Captures(self.device)
            inputs.graph, inputs.logits = self._captures.capture(lambda: self.forward(inputs))
        assert inputs.logits is not None
        inputs.graph.replay()
        return inputs.logits


class Captures:
    """Captures graphs that run one at a time, and so can work in the same memory.

    Each would otherwise keep what its pass needs on the way, and its logits: with a vocabulary of 150,000, tens of
    megabytes a size.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()
        self._found = torch.empty(0, device=device)

    def capture(self, run: Callable[[], Tensor]) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """Run a pass twice, so that all that is made lazily is there, and once more to capture it.

        Returns:
            The graph, and where it writes what `run` returns: until the next one is replayed.

        Raises:
            UnsupportedError: the host looks at what the pass computes.
        """
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                run()
                found = run()
            current.wait_stream(self._stream)
            if found.numel() > self._found.numel():
                self._found = found.new_empty(found.numel())
            target = self._found[: found.numel()].view_as(found)
            del found
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    target.copy_(run())
            except RuntimeError as error:
                if out_of_memory(error):
                    raise
                raise UnsupportedError(
                    f"cache_implementation='static' cannot be had: the model's pass cannot be captured as a CUDA graph "
                    f"({str(error).splitlines()[0]}); leave it out."
                ) from error
        return graph, target


def _size(count: int, least: int) -> int:
    """The smallest size that holds `count`."""
    size = least
    while size < count:
        size *= 2
    return size


def _width(columns: int) -> int:
    """The smallest width that holds `columns`.

    >>> [_width(columns) for columns in (1, 200, 513, 800, 1025)]
    [128, 256, 768, 1024, 1536]
    """
    doubled = _size(columns, _WIDTH)
    return min(doubled, _size(columns, _WIDE * 3 // 2)) if doubled > _WIDE else doubled
