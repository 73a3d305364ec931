"""Layers with a recurrent state (linear attention, state space, convolution), whole or beside keys and values.

A state cannot be cut back as columns can: it is what all tokens so far have made of it. So a slot has one for each
place that something may go on from: where its branch is, where it was a token ago (a probe with nothing to force reads
the last token again), and where its probe is. A pass feeds one token of each place; what was there before is kept until
the pass is `settled`, so that a pass that fails can be run again.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, cache_utils
from transformers.cache_utils import (
    DynamicCache,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
)

from tts_generate.engine.cache import LayerPrefix, SlotCache, SlotLayer
from tts_generate.engine.device import on_device

NOW, BEFORE, PROBE = range(3)
"""Places of a slot: where its branch is, where it was before its last token, and where its probe is."""
PLACES = 3
StateName = tuple[str, int]
"""Attribute of transformers' layer, and which of those: ("conv_states", 0), ("recurrent_states", 0), …"""


class StateLayer(LinearAttentionLayer):
    """The states of one layer, in `banks`: of each, (PLACES, slots, ...)."""

    def __init__(self, cache: SlotCache, number_of_states: int = 1) -> None:
        super().__init__(number_of_states=number_of_states)
        self.cache = cast(SlotCache, weakref.proxy(cache))
        self.home: torch.device | None = None
        """As of a `SlotLayer`; the banks are there."""
        self.banks: dict[StateName, Tensor] = {}
        self._before: list[tuple[tuple[Tensor, ...], dict[StateName, Tensor]]] = []

    def resize(self, length: int) -> None:
        """Take the cache's rows, keeping the states of those that stay."""
        new = {name: bank.new_zeros((PLACES, self.cache.rows, *bank.shape[2:])) for name, bank in self.banks.items()}
        for name, bank in new.items():
            rows = min(self.cache.rows, self.banks[name].shape[1])
            bank[:, :rows] = self.banks[name][:, :rows]
        self.banks = new

    def drop(self) -> None:
        """Give the memory back."""
        self.banks, self._before = {}, []

    def admit(self, prefix: LayerPrefix, slots: Sequence[int]) -> None:
        """Write states into each slot."""
        where = np.array(slots)
        for name, states in prefix.states.items():
            self.home = self.home or states.device
            if name not in self.banks:
                shape = PLACES, self.cache.rows, *states.shape[1:]
                self.banks[name] = states.new_zeros(shape, device=self.home)
            self.banks[name][:, on_device(where, self.home)] = states[:, None].to(self.home)

    def save(self, slot: int, length: int) -> LayerPrefix:
        """The states of a slot, copied to the host's memory."""
        return LayerPrefix(states={name: bank[:, slot].to("cpu", copy=True) for name, bank in self.banks.items()})

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """Copy the states of each source slot to its target, all at once."""
        read, write = self._indices(np.array(sources), np.array(targets))
        for bank in self.banks.values():
            bank[:, write] = bank[:, read]

    # ---- a pass

    def load(self, places: np.ndarray, slots: np.ndarray) -> None:
        """Have the model go on from the states in (N,) places of (N,) slots, one a token."""
        where = self._indices(places, slots)
        self.has_previous_state.update(dict.fromkeys(range(self.number_of_states), True))
        for (kind, number), bank in self.banks.items():
            getattr(self, kind)[number] = bank[where]
            getattr(self, f"is_{kind}_initialized")[number] = True
            if kind == "conv_states":
                self.conv_kernel_size[number] = bank.shape[-1]

    def store(self, places: np.ndarray, slots: np.ndarray) -> None:
        """Keep what the first tokens of the pass have made of their states: of as many as there are places."""
        self._write(places, slots, {name: getattr(self, name[0])[name[1]][: len(slots)] for name in self.banks})

    def keep(self, slots: np.ndarray) -> None:
        """Have BEFORE be what NOW is, for these slots."""
        (chosen,) = self._indices(slots)
        states = {name: bank[NOW, chosen] for name, bank in self.banks.items()}
        self._write(np.full(len(slots), BEFORE), slots, states)

    def _indices(self, *numbers: np.ndarray) -> tuple[Tensor, ...]:
        home = self.home or torch.device("cpu")  # no banks, nothing to index
        return tuple(on_device(each, home) for each in numbers)

    def _write(self, places: np.ndarray, slots: np.ndarray, states: dict[StateName, Tensor]) -> None:
        where = self._indices(places, slots)
        self._before.append((where, {name: bank[where] for name, bank in self.banks.items()}))
        for name, bank in self.banks.items():
            bank[where] = states[name].to(bank.dtype)

    def settle(self, done: bool) -> None:
        """The passes since the last call count; or, if not `done`, never were."""
        while self._before:
            where, states = self._before.pop()
            if not done:
                for name, bank in self.banks.items():
                    bank[where] = states[name]


class HybridLayer(StateLayer, SlotLayer):
    """A layer with attention and a recurrent state, side by side."""

    def __init__(self, cache: SlotCache, number_of_states: int = 1) -> None:
        SlotLayer.__init__(self, cache)
        StateLayer.__init__(self, cache, number_of_states)

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Allocate keys and values, as for `SlotLayer`, or a state, as for `StateLayer`."""
        kind = SlotLayer if len(args) == 2 else StateLayer
        kind.lazy_initialization(self, *args, **kwargs)

    def resize(self, length: int) -> None:
        """As both."""
        SlotLayer.resize(self, length)
        StateLayer.resize(self, length)

    def drop(self) -> None:
        """As both."""
        SlotLayer.drop(self)
        StateLayer.drop(self)

    def admit(self, prefix: LayerPrefix, slots: Sequence[int]) -> None:
        """As both."""
        SlotLayer.admit(self, prefix, slots)
        StateLayer.admit(self, prefix, slots)

    def save(self, slot: int, length: int) -> LayerPrefix:
        """As both."""
        return LayerPrefix(SlotLayer.save(self, slot, length).columns, StateLayer.save(self, slot, length).states)

    def move(self, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        """As both."""
        SlotLayer.move(self, sources, targets, length)
        StateLayer.move(self, sources, targets, length)


SLOTTED: dict[type, type] = {
    DynamicLayer: SlotLayer,
    DynamicSlidingWindowLayer: SlotLayer,
    LinearAttentionLayer: StateLayer,
    LinearAttentionAndFullAttentionLayer: HybridLayer,
}
"""Of transformers' layers of one sequence, those that slots can hold, and how."""
if hasattr(cache_utils, "DummyLayer"):  # of a layer that keeps nothing; a LinearAttentionLayer in transformers 5.17
    SLOTTED[cache_utils.DummyLayer] = StateLayer


def layers_of(config: PreTrainedConfig) -> list[Any]:
    """The layers that transformers keeps of one sequence for a text model's config, empty."""
    return list(DynamicCache(config=config).layers)


def sequence_layers(config: PreTrainedConfig) -> list[Any]:
    """Layers to prefill one prompt with; those with a window keep all columns, as slots do."""
    layers = layers_of(config)
    return [DynamicLayer() if type(layer) is DynamicSlidingWindowLayer else layer for layer in layers]


def slot_layers(config: PreTrainedConfig) -> SlotCache:
    """A cache of slots for a text model's config, empty."""

    def make(layer: Any, cache: SlotCache) -> Any:
        kind: Any = SLOTTED[type(layer)]
        return kind(cache, getattr(layer, "number_of_states", 0)) if issubclass(kind, StateLayer) else kind(cache)

    return SlotCache([partial(make, layer) for layer in layers_of(config)])


def held(layer: Any) -> LayerPrefix:
    """What one of `sequence_layers` holds of its sequence; a state, the same in every place."""
    columns: tuple[Tensor, ...] = ()
    if isinstance(layer, DynamicLayer) and layer.is_initialized:
        columns = (layer.keys[0], layer.values[0])
    states = {
        (kind, number): getattr(layer, kind)[number].expand(PLACES, *getattr(layer, kind)[number].shape[1:])
        for kind in ("conv_states", "recurrent_states")
        for number in range(getattr(layer, "number_of_states", 0))
        if getattr(layer, f"is_{kind}_initialized")[number]
    }
    return LayerPrefix(columns, states)
