"""What a token of a row reads, for each kind of layer: all before it, a window of them, or those of its own chunk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedConfig


@dataclass(frozen=True, slots=True)
class Reach:
    """How far back a layer reads.

    >>> Reach(window=24) == Reach()
    False
    """

    window: int | None = None
    """The last tokens, a token's own included."""
    chunk: int | None = None
    """Tokens of a chunk; those of a token's own are read."""


EVERYTHING = Reach()
_NO_ATTENTION = ("linear_attention", "conv", "mamba", "moe", "mlp")
"""Kinds of layers that read no columns."""


def reaches_of(config: PreTrainedConfig) -> Mapping[str, Reach | None]:
    """How far each kind of layer of a text model reads, by transformers' names; one without a name where all do alike.

    >>> from transformers import MistralConfig, Qwen3Config
    >>> reaches_of(MistralConfig(sliding_window=24)), reaches_of(Qwen3Config())
    ({'': Reach(window=24, chunk=None)}, {'': Reach(window=None, chunk=None)})
    """
    kinds = getattr(config, "layer_types", None)
    window = Reach(window=getattr(config, "sliding_window", None))
    chunk = Reach(chunk=getattr(config, "attention_chunk_size", None))
    if kinds is None:
        return {"": window if window != EVERYTHING else chunk}
    known = {"full_attention": EVERYTHING, "sliding_attention": window, "chunked_attention": chunk}
    if all(known.get(kind, EVERYTHING) == EVERYTHING for kind in kinds):
        return {"": EVERYTHING}
    given = {kind: None if kind in _NO_ATTENTION else known.get(kind, EVERYTHING) for kind in kinds}
    return {"full_attention": EVERYTHING, **given}


def masks(
    reaches: Mapping[str, Reach | None], columns: Tensor, hole: Tensor, gap: int, width: int, dtype: torch.dtype
) -> Any:
    """Additive masks (N, 1, 1, width), 0 where a token reads: one, or one for each kind of layer where they differ.

    Args:
        reaches: as of `reaches_of`.
        columns: (N,) of each token.
        hole: (N,) as in `Pass`.
        gap: columns of a hole; 0 where no token of the pass has one.
        width: columns read.
        dtype: of the masks.
    """
    places = torch.arange(width, device=columns.device)
    own, hole = columns[:, None], hole[:, None]
    full = places <= own
    here = own
    if gap:
        full &= (places < hole) | (places >= hole + gap)
        holed = hole < own
        places, here = torch.where(holed & (places >= hole), places - gap, places), torch.where(holed, own - gap, own)
    read, not_read = (torch.full((), value, dtype=dtype, device=own.device) for value in (0.0, torch.finfo(dtype).min))

    def additive(reach: Reach) -> Tensor:
        visible = full
        if reach.window is not None:
            visible = full & (places > here - reach.window)
        elif reach.chunk is not None:
            visible = full & (places // reach.chunk == here // reach.chunk)
        return torch.where(visible, read, not_read)[:, None, None]

    found = {kind: None if reach is None else additive(reach) for kind, reach in reaches.items()}
    return found.get("", found)
