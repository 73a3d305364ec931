"""A KV cache of slots: one row a branch, written at its own length, read as a view; nothing is ever re-padded.

The model sees an ordinary transformers `Cache`. Before a forward pass the decoder says into which slot and column each
token writes (`slots`, `columns`) and how many columns are read (`width`). Layers with a recurrent state are in
`states.py`.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from tts_generate.engine.device import on_device


@dataclass(frozen=True, slots=True)
class LayerPrefix:
    """What one layer holds of a prompt, or of a branch that left its row."""

    columns: tuple[Tensor, ...] = ()
    """Keys and values, each (H, columns, D)."""
    states: Mapping[tuple[str, int], Tensor] = field(default_factory=dict)
    """Recurrent states, each (places, ...); see `states.py`."""

    def first(self, columns: int) -> LayerPrefix:
        """The first columns of it."""
        return LayerPrefix(tuple(states[:, :columns] for states in self.columns), self.states)


Prefix = list[LayerPrefix]
"""Of every layer."""


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: (slots, H, capacity, D)."""

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self.cache = cast(SlotCache, weakref.proxy(cache))  # in no circle: its memory goes when the call ends
        self.home: torch.device | None = None
        """Where the layer is, also while its memory is given back and what it held is on the host."""

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers, each with its states' dtype and head shape: autocast has keys and values differ."""
        self.home = self.home or key_states.device
        self.dtype, self.device = key_states.dtype, self.home
        self.keys = self._buffer(key_states)
        self.values = self._buffer(value_states)
        self.is_initialized = True

    def _buffer(self, states: Tensor) -> Tensor:
        shape = (self.cache.rows, states.shape[1], self.cache.capacity, states.shape[3])
        return torch.zeros(shape, dtype=states.dtype, device=self.device)

    def resize(self, length: int) -> None:
        """Take the cache's rows and capacity, keeping the first `length` columns of the rows that stay."""
        shape = (self.cache.rows, self.cache.capacity)
        for name in ("keys", "values") if self.is_initialized else ():
            old = getattr(self, name)
            if (old.shape[0], old.shape[2]) != shape:
                new, rows = self._buffer(old), min(old.shape[0], self.cache.rows)
                new[:rows, :, :length] = old[:rows, :, :length]
                setattr(self, name, new)

    def drop(self) -> None:
        """Give the memory back."""
        self.is_initialized = False
        self.keys = self.values = torch.empty(0)

    def admit(self, prefix: LayerPrefix, slots: Sequence[int]) -> None:
        """Write a prefix into the first columns of each slot; a layer that reads images, and had none, has none."""
        if not prefix.columns:
            return
        keys, values = prefix.columns
        if not self.is_initialized:
            self.lazy_initialization(keys[None], values[None])
        where = slots[0] if len(slots) == 1 else on_device(np.array(slots), self.device)
        self.keys[where, :, : keys.shape[1]] = keys.to(self.device)
        self.values[where, :, : values.shape[1]] = values.to(self.device)

    def save(self, slot: int, length: int) -> LayerPrefix:
        """The first `length` columns of a slot, copied to the host's memory."""
        if not self.is_initialized:
            return LayerPrefix()
        columns = (buffer[slot, :, :length].to("cpu", copy=True) for buffer in (self.keys, self.values))
        return LayerPrefix(tuple(columns))

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the first `length` columns of each source slot to its target, all at once."""
        if not self.is_initialized:
            return
        read, write = (on_device(np.array(slots), self.device) for slots in (sources, targets))
        self.keys[write, :, :length] = self.keys[read, :, :length]
        self.values[write, :, :length] = self.values[read, :, :length]

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one new column per token, each at its own place; return what the pass may read.

        Args:
            key_states: (1, H, N, D) where the pass is packed, else (N, H, 1, D).
            value_states: the same shape.
            *args: not used.
            **kwargs: not used.

        Returns:
            Keys and values (rows, H, width, D) of every row where packed; else of the row of each token.
        """
        cache = self.cache
        slots, columns = cache.slots.to(self.device), cache.columns.to(self.device)
        for buffer, states in ((self.keys, key_states), (self.values, value_states)):
            written = states[0].transpose(0, 1) if cache.packed else states[:, :, 0]
            buffer[slots, :, columns] = written.to(buffer.dtype)
        if cache.packed:
            return self.keys[:, :, : cache.width], self.values[:, :, : cache.width]
        if cache.dense:
            count = len(slots)
            return self.keys[:count, :, : cache.width], self.values[:count, :, : cache.width]
        return self.keys[slots, :, : cache.width], self.values[slots, :, : cache.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Columns read, and their offset."""
        return self.cache.width, 0

    def get_seq_length(self) -> int:
        """Columns read: the longest row, rounded up."""
        return self.cache.width

    def get_max_length(self) -> int:
        """Columns allocated."""
        return self.cache.capacity


class SlotCache(Cache):
    """`rows` slots of `capacity` columns; layers that hold something else beside columns, or instead, come ready made.

    Args:
        layers: of each layer, a function that makes it for this cache.
    """

    def __init__(self, layers: Sequence[Callable[[SlotCache], Any]]) -> None:
        self.rows = self.capacity = 0
        self.version = 0
        """Counts how often the buffers have moved."""
        self.slots = self.columns = torch.zeros(0, dtype=torch.long)
        self.width = 0
        self.packed = False
        """Whether the tokens of a pass come as one sequence, or as a batch of sequences of one."""
        self.dense = False
        """Whether token i of a pass writes into slot i."""
        self.latest = 0
        """The layer that was written last: a module that runs several times in a pass writes another one each time."""
        super().__init__(layers=[layer(self) for layer in layers])

    def update(self, key_states: Tensor, value_states: Tensor, layer_idx: int, *args: Any, **kwargs: Any) -> Any:
        """As of a layer, for the one of this number."""
        self.latest = layer_idx
        return super().update(key_states, value_states, layer_idx, *args, **kwargs)

    @property
    def dtype(self) -> torch.dtype | None:
        """That of the keys, as the layers have made them; None as long as there are none."""
        return next(
            (layer.dtype for layer in self.layers if isinstance(layer, SlotLayer) and layer.is_initialized), None
        )

    def resize(self, rows: int, capacity: int, length: int) -> None:
        """Have exactly `rows` slots of `capacity` columns, keeping the first `length` columns of those that stay.

        Out of memory on the way, the sizes stay what they were and nothing that was held is lost.
        """
        before = self.rows, self.capacity
        self.version += 1
        self.rows, self.capacity = rows, capacity
        try:
            for layer in self.layers:
                layer.resize(length)
        except RuntimeError:
            self.rows, self.capacity = min(rows, before[0]), min(capacity, before[1])
            raise

    def drop(self) -> None:
        """Give all memory back; there are no rows and columns then."""
        self.rows = self.capacity = 0
        self.version += 1
        for layer in self.layers:
            layer.drop()

    def admit(self, prefix: Prefix, slots: Sequence[int]) -> None:
        """Write what was held of a prompt, or of a branch, into each slot."""
        for layer, part in zip(self.layers, prefix, strict=True):
            layer.admit(part, slots)

    def save(self, slot: int, length: int) -> Prefix:
        """What a slot holds in its first `length` columns, copied to the host's memory; `admit` takes it back."""
        return [layer.save(slot, length) for layer in self.layers]

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the first `length` columns of each source row to its target, all at once (swaps are safe)."""
        for layer in self.layers:
            layer.move(sources, targets, length)
