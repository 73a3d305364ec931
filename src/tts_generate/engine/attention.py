"""Attention over the slot cache: each row reads its own columns only, where they are.

A pass feeds N tokens, packed into one sequence. Its `Span`s say whose they are: neighbouring rows of the cache, one or
several queries a row, and how many columns the longest of them reads. On a GPU, where a call costs more than what it
reads, one span takes in rows that lie apart, see `Cells`. The heads that share a key head are folded into the query
axis, so that `repeat_kv`, which copies the whole cache, is never called.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from tts_generate.engine.cache import SlotCache
from tts_generate.engine.device import on_device
from tts_generate.engine.shared import Partial, Readers, over_prompts, partial_of_rows

NAME = "tts_generate_spans"
_UNKNOWN = ("softcap", "position_bias", "s_aux")
"""Arguments of attention functions that change its result and that spans do not know."""


_COPIED = 4
"""Rows are copied together where they are fewer than one in so many."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Where the tokens of a span stand in its grid of rows * queries, if they do not fill it in order."""

    places: Any
    """(n,) int64 cell of each token."""
    sources: Any
    """(rows * queries,) int64 token of the pass in each cell; any token where a cell has none."""
    slots: Any = None
    """(rows,) int64 slots of the rows; None where they are neighbours."""

    def on(self, device: torch.device) -> Cells:
        """The same on a device; numpy arrays before."""
        moved = (None if part is None else on_device(part, device) for part in (self.places, self.sources, self.slots))
        return Cells(*moved)


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `first`, `first + 1`, … of a pass: `queries` of each of the `rows` slots that begin with `slot`."""

    first: int
    rows: int
    queries: int
    slot: int
    width: int
    """Columns read."""
    cells: Cells | None = None
    """Of a span whose tokens do not fill it in order."""

    @property
    def tokens(self) -> slice:
        """Which tokens of the pass they are."""
        count = self.rows * self.queries if self.cells is None else len(self.cells.places)
        return slice(self.first, self.first + count)

    @classmethod
    def over(cls, slots: np.ndarray, first: int, queries: int, width: int) -> Span:
        """The one span of tokens that read any rows: `queries` of each slot, in this order; a slot may come again.

        Rows between them that nobody reads are read in vain; where those are most of them, rows are copied together:
        a copy is read, written and read again.
        """
        rows, place, counts = np.unique(slots, return_inverse=True, return_counts=True)
        several, spread = int(counts.max()), int(rows[-1] - rows[0]) + 1
        if several == 1 and spread == len(slots) and (np.diff(slots) == 1).all():
            return cls(first, spread, queries, int(slots[0]), width)
        picked = None if _COPIED * len(rows) >= spread else rows.astype(np.int64)
        row, count = (slots - rows[0], spread) if picked is None else (place, len(rows))
        order = np.argsort(place, kind="stable")
        turn = np.empty(len(slots), np.int64)
        turn[order] = np.arange(len(slots)) - (np.cumsum(counts) - counts).repeat(counts)
        cells = ((row * several + turn) * queries)[:, None] + np.arange(queries)
        places = cells.astype(np.int64).ravel()
        sources = np.full(count * several * queries, first, np.int64)
        sources[places] = first + np.arange(len(places))
        return cls(first, count, several * queries, int(rows[0]), width, Cells(places, sources, picked))


def attend_span(span: Span, query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Tensor:
    """Attention of one span's queries.

    Args:
        span: whose queries they are.
        query: (N, heads, D), all of the pass.
        key: (slots, H, W, D).
        value: (slots, H, W, D).
        mask: (N, 1, 1, W), 0 where a token reads and the dtype's lowest number where it does not.
        scaling: factor of the scores; None for 1 / sqrt(D).

    Returns:
        (rows * queries, heads, D).
    """
    folded, visible = _folded(span, query, mask, key.shape[1])
    found = torch.nn.functional.scaled_dot_product_attention(
        folded, _read(span, key), _read(span, value), attn_mask=visible, scale=scaling
    )
    return _unfolded(span, found)


def _read(span: Span, buffer: Tensor) -> Tensor:
    """Keys or values (rows, H, width, D) of the rows of a span."""
    if span.cells is None or span.cells.slots is None:
        return buffer[span.slot : span.slot + span.rows, :, : span.width]
    return buffer[:, :, : span.width].index_select(0, span.cells.slots.to(buffer.device))


def _folded(span: Span, query: Tensor, mask: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Queries (rows, H, queries * groups, D) of a span, and their mask."""
    rows, queries = span.rows, span.queries
    groups = query.shape[1] // heads
    if span.cells is None:
        folded, visible = query[span.tokens], mask[span.tokens, ..., : span.width]
    else:
        sources = span.cells.sources.to(query.device)
        folded, visible = query.index_select(0, sources), mask[..., : span.width].index_select(0, sources)
    folded = folded.view(rows, queries, heads, groups, -1).transpose(1, 2)
    if queries > 1:
        visible = visible.view(rows, 1, queries, span.width).repeat_interleave(groups, dim=2)
    return folded.reshape(rows, heads, queries * groups, -1), visible


def _unfolded(span: Span, found: Tensor) -> Tensor:
    """(rows, H, queries * groups, D) as (tokens, heads, D)."""
    rows, heads = found.shape[:2]
    found = found.view(rows, heads, span.queries, -1, found.shape[-1]).transpose(1, 2)
    found = found.reshape(rows * span.queries, -1, found.shape[-1])
    return found if span.cells is None else found.index_select(0, span.cells.places.to(found.device))


def attend_shared(
    spans: Sequence[Span],
    readers: Sequence[Readers],
    layer: int,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float | None,
) -> Tensor:
    """Attention where some tokens also read a prompt that is not in their row; arguments as in `attend_span`."""
    parts = []
    for span in spans:
        folded, visible = _folded(span, query, mask, key.shape[1])
        own = partial_of_rows(folded, _read(span, key), _read(span, value), visible, scaling)
        parts.append([_unfolded(span, part) for part in (own.found, own.top, own.total)])
    found, top, total = zip(*parts, strict=True)
    count = len(query)
    whole = Partial(_joined(found, 0.0, count), _joined(top, 0.0, count), _joined(total, 1.0, count))
    return over_prompts(whole, query, readers, layer, scaling).to(query.dtype)


def _joined(parts: Sequence[Tensor], nothing: float, count: int) -> Tensor:
    """One part after the other, and `nothing` for each of the `count` tokens behind them, which only fill the pass."""
    missing = count - sum(map(len, parts))
    if missing:
        parts = [*parts, parts[0].new_full((missing, *parts[0].shape[1:]), nothing)]
    return parts[0] if len(parts) == 1 else torch.cat(list(parts))


class _Pass(threading.local):
    """The spans of the forward pass that this thread is in, and the prompts that stand once."""

    spans: Sequence[Span] = ()
    shared: Sequence[Readers] = ()
    cache: SlotCache | None = None


_PASS = _Pass()


def attend(
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, **kwargs: Any
) -> tuple[Tensor, None]:
    """The attention function that transformers calls, over spans; outside a pass of ours it is its own sdpa.

    Args:
        module: the attention layer.
        query: (1, heads, N, D).
        key: (slots, H, W, D).
        value: (slots, H, W, D).
        attention_mask: (N, 1, 1, W).
        **kwargs: `scaling` is used.

    Returns:
        (1, N, heads, D), and no weights.
    """
    spans = _PASS.spans
    if not spans or attention_mask is None:
        return sdpa_attention_forward(module, query, key, value, attention_mask, **kwargs)  # type: ignore[no-any-return]
    if any(kwargs.get(name) is not None for name in _UNKNOWN):
        raise NotImplementedError(f"{type(module).__name__} passes one of {_UNKNOWN}, which spans do not know")
    packed = query[0].transpose(0, 1)
    if _PASS.shared:
        layer = _PASS.cache.latest  # type: ignore[union-attr]
        with torch.autocast(query.device.type, enabled=False):  # its products are in float32
            found = attend_shared(spans, _PASS.shared, layer, packed, key, value, attention_mask, kwargs.get("scaling"))
        return found[None], None
    parts = [attend_span(span, packed, key, value, attention_mask, kwargs.get("scaling")) for span in spans]
    return _joined(parts, 0.0, len(packed))[None], None


_LOCKS: WeakKeyDictionary[PreTrainedModel, threading.Lock] = WeakKeyDictionary()


def attention_of(config: PreTrainedConfig) -> str:
    """The attention that a text model's config asks for, also while another thread's pass has put ours in."""
    asked = str(config._attn_implementation)
    return "sdpa" if asked == NAME else asked


def knows_spans(model: PreTrainedModel) -> bool:
    """Whether the model's layers call whatever attention its config names, and now call sdpa.

    Makes `attend` known to transformers by its name; no model uses it outside `attending`.
    """
    config = model.config.get_text_config(decoder=True)
    AttentionInterface.register(NAME, attend)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    capped = getattr(config, "attn_logit_softcapping", None) is not None  # spans do not know it, see `_UNKNOWN`
    return bool(model._supports_attention_backend) and attention_of(config) == "sdpa" and not capped


@contextmanager
def attending(
    model: PreTrainedModel,
    spans: Sequence[Span],
    cache: SlotCache | None = None,
    shared: Sequence[Readers] = (),
) -> Iterator[None]:
    """Have the model's layers attend over `spans` within this block; one thread at a time for each model.

    Args:
        model: whose layers.
        spans: whose tokens a pass feeds.
        cache: the rows.
        shared: tokens that read a prompt which is not in their row.
    """
    config = model.config.get_text_config(decoder=True)
    with _LOCKS.setdefault(model, threading.Lock()):
        usual = config._attn_implementation
        config._attn_implementation_internal = NAME
        _PASS.spans, _PASS.shared, _PASS.cache = spans, shared, cache
        try:
            yield
        finally:
            config._attn_implementation_internal = usual
            _PASS.spans, _PASS.shared, _PASS.cache = (), (), None
