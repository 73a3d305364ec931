"""How many rows of the key-value cache fit into the memory there is, and what an allocation that failed looks like."""

from __future__ import annotations

from collections import Counter

import psutil
import torch

from tts_generate.engine.cache import Prefix

_SHARE = {"cpu": 0.5}
"""Of the free memory of a device, how much the cache may take; 0.8 where nothing else is said."""


class Room:
    """A budget of bytes for the cache, on every device that holds some of its layers.

    Args:
        prefix: what the layers hold of one prompt, which shows what a column and a state take, and where.
        max_bytes: bytes of all devices together at most; None: a share of what is free on each of them now.
    """

    def __init__(self, prefix: Prefix, max_bytes: int | None) -> None:
        self.column_bytes: Counter[torch.device] = Counter()
        self.state_bytes: Counter[torch.device] = Counter()
        for layer in prefix:
            for states in layer.columns:
                self.column_bytes[states.device] += states.shape[0] * states.shape[2] * states.element_size()
            for states in layer.states.values():
                self.state_bytes[states.device] += states.numel() * states.element_size()
        whole = Counter(self._row(prefix[0].columns[0].shape[1] if prefix[0].columns else 1))
        self.bytes = {
            device: free_bytes(device) if max_bytes is None else max_bytes * share // whole.total()
            for device, share in whole.items()
        }

    def row_bytes(self, columns: int) -> int:
        """Bytes of a row of `columns` columns on all devices together."""
        return sum(self._row(columns).values())

    def _row(self, columns: int) -> dict[torch.device, int]:
        devices = {*self.column_bytes, *self.state_bytes}
        return {device: columns * self.column_bytes[device] + self.state_bytes[device] for device in devices}

    def rows(self, columns: int) -> int:
        """Rows of `columns` columns that fit."""
        return min(self.bytes[device] // share for device, share in self._row(columns).items())

    def shrink(self, rows: int, columns: int) -> None:
        """Allow no more than this many rows of this many columns from now on."""
        for device, share in self._row(columns).items():
            self.bytes[device] = min(self.bytes[device], rows * share)
            if device.type == "cuda":
                torch.cuda.empty_cache()


def free_bytes(device: torch.device) -> int:
    """Bytes of a device that the cache may take."""
    if device.type == "cuda":
        free = torch.cuda.mem_get_info(device)[0]
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    else:
        free = psutil.virtual_memory().available
    return int(free * _SHARE.get(device.type, 0.8))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on whichever device."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)
