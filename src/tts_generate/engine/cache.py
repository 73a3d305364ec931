"""A KV cache of slots: one row a branch, written at its own length, read as a view; nothing is ever re-padded.

The model sees an ordinary transformers `Cache`. Before a forward pass the engine says which column each row writes
(`columns`) and how many columns are read (`width`); the layers hand back the first rows and columns of their buffers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

Prefix = list[tuple[Tensor, Tensor]]
"""Keys and values of one prompt, per layer, each (H, P, D)."""


class SlotLayer(CacheLayerMixin):
    """Keys and values of one layer: (slots, H, capacity, D)."""

    def __init__(self, cache: SlotCache) -> None:
        super().__init__()
        self.cache = cache

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers with the model's dtype, device and head shape."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = self._buffer(key_states)
        self.values = self._buffer(value_states)
        self.is_initialized = True

    def _buffer(self, states: Tensor) -> Tensor:
        shape = (self.cache.slots, states.shape[1], self.cache.capacity, states.shape[3])
        return torch.zeros(shape, dtype=self.dtype, device=self.device)

    def grow(self) -> None:
        """Enlarge the buffers to the cache's slots and capacity, keeping what they hold."""
        if self.is_initialized:
            for name in ("keys", "values"):
                old = getattr(self, name)
                new = self._buffer(old)
                new[: old.shape[0], :, : old.shape[2]] = old
                setattr(self, name, new)

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Write one new column per row, each at its own place; return the rows and columns in use, (B, H, W, D)."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        count = key_states.shape[0]
        rows = torch.arange(count, device=self.device)
        columns = self.cache.columns.to(self.device)
        self.keys[rows, :, columns] = key_states[:, :, 0]
        self.values[rows, :, columns] = value_states[:, :, 0]
        width = self.cache.width
        return self.keys[:count, :, :width], self.values[:count, :, :width]

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
    """`slots` rows of `capacity` columns for each of `num_layers` layers; grows, never shrinks."""

    def __init__(self, num_layers: int, slots: int, capacity: int) -> None:
        self.slots, self.capacity = slots, capacity
        self.columns = torch.zeros(0, dtype=torch.long)
        self.width = 0
        super().__init__(layers=[SlotLayer(self) for _ in range(num_layers)])

    def reserve(self, slots: int, capacity: int) -> None:
        """Make room for at least `slots` rows of `capacity` columns."""
        if slots > self.slots or capacity > self.capacity:
            self.slots = max(slots, self.slots)
            self.capacity = max(capacity, self.capacity)
            for layer in self.layers:
                layer.grow()

    def admit(self, prefix: Prefix, slot: int) -> None:
        """Write a prompt's keys and values into the first columns of a slot."""
        for layer, (keys, values) in zip(self.layers, prefix, strict=True):
            if not layer.is_initialized:
                layer.lazy_initialization(keys[None], values[None])
            length = keys.shape[1]
            layer.keys[slot, :, :length] = keys
            layer.values[slot, :, :length] = values

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the first `length` columns of each source row to its target, all at once (swaps are safe)."""
        for layer in self.layers:
            read = torch.tensor(sources, device=layer.keys.device)
            write = torch.tensor(targets, device=layer.keys.device)
            layer.keys[write, :, :length] = layer.keys[read, :, :length]
            layer.values[write, :, :length] = layer.values[read, :, :length]
