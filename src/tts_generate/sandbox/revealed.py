"""A state of strict mode: what was not revealed cannot be read, and who tries is told so with the line.

Runs in the child: no import of the host's part. It protects nothing (the host never sent what it refuses): it names the
mistake, where compiled code would read what an earlier episode left there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from tts_generate.state import State

_OF_BRANCHES = ("answer", "depth", "tokens", "finished", "pruned", "finish_rank")
_OF_STEPS = ("answers", "logprobs")


class LooksAhead(IndexError):
    """A hook reads what the episode has not shown."""


class _Revealed(np.ndarray):
    """An array of a state; rows and slices of it are bounded as it is, whatever is made from it is a plain array."""

    said: str
    count: Callable[[], int] | None = None
    """How many of its entries are revealed; None: all."""
    rows: np.ndarray[Any, Any] | None = None
    """How many entries of each of its rows are."""

    def __getitem__(self, key: Any) -> Any:
        if self.rows is not None:
            row, *rest = key if isinstance(key, tuple) else (key,)
            if _is_whole(row) and len(rest) < 2:
                shown = int(self.rows[row]) if 0 <= row < len(self.rows) else 0
                found: Any = super().__getitem__(row) if shown else self[:0].ravel()
                found.said, found.count = f"{self.said}[{row}", lambda: shown
                return found[rest[0]] if rest else found
        elif self.count is not None:
            shown = self.count()
            last = key.stop - 1 if isinstance(key, slice) and _is_whole(key.stop) and key.stop > 0 else key
            if _is_whole(last) and not 0 <= last < shown:
                place = f"{self.said}{', ' if '[' in self.said else '['}{last}]"
                raise LooksAhead(
                    f"state.{place} is beyond the {shown} entries that were revealed: never read beyond depth[i] of "
                    "a branch, beyond state.opened or state.pooled. What lies there is looking ahead."
                )
        return super().__getitem__(key)


def reveal_only(state: State) -> None:
    """Have a state refuse to show what lies beyond its branches' depths, its branches and its pool."""
    for name in (*_OF_BRANCHES, "pool", *_OF_STEPS):
        array = getattr(state, name)
        mine = _Revealed(array.shape, array.dtype)  # with a memory of its own, as the array has
        mine[...] = array
        setattr(state, name, mine)
        mine.said = name
        if name not in _OF_STEPS:
            mine.count = (lambda: state.pooled) if name == "pool" else (lambda: state.opened)
    state.answers.rows = state.logprobs.rows = state.depth.view(np.ndarray)  # type: ignore[attr-defined]


def _is_whole(value: object) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
