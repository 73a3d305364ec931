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
        prefix: the keys and values of one prompt, which show what a column takes, and where.
        max_bytes: bytes of all devices together at most; None: a share of what is free on each of them now.
    """

    def __init__(self, prefix: Prefix, max_bytes: int | None) -> None:
        self.column_bytes: Counter[torch.device] = Counter()
        for keys, values in prefix:
            for states in (keys, values):
                self.column_bytes[states.device] += states.shape[0] * states.shape[2] * states.element_size()
        total = self.column_bytes.total()
        self.bytes = {
            device: free_bytes(device) if max_bytes is None else max_bytes * share // total
            for device, share in self.column_bytes.items()
        }

    def rows(self, columns: int) -> int:
        """Rows of `columns` columns that fit."""
        return min(self.bytes[device] // (columns * share) for device, share in self.column_bytes.items())

    def shrink(self, rows: int, columns: int) -> None:
        """Allow no more than this many rows of this many columns from now on."""
        for device, share in self.column_bytes.items():
            self.bytes[device] = min(self.bytes[device], rows * columns * share)
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
