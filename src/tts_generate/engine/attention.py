"""Attention over the slot cache: each row reads its own columns only, and no key or value is ever copied.

A pass feeds N tokens, packed into one sequence. Its `Span`s say whose they are: neighbouring rows of the cache, one or
several queries a row, and how many columns the longest of them reads. The heads that share a key head are folded into
the query axis, so that `repeat_kv`, which copies the whole cache, is never called.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from tts_generate.engine.cache import Prefix, SlotCache
from tts_generate.engine.shared import Partial, PromptReaders, over_prompts, partial_of_rows

NAME = "tts_generate_spans"
_UNKNOWN = ("softcap", "position_bias", "s_aux")
"""Arguments of attention functions that change its result and that spans do not know."""


@dataclass(frozen=True, slots=True)
class Span:
    """Tokens `first`, `first + 1`, … of a pass: `queries` of each of the `rows` slots that begin with `slot`."""

    first: int
    rows: int
    queries: int
    slot: int
    width: int
    """Columns read."""

    @property
    def tokens(self) -> slice:
        """Which tokens of the pass they are."""
        return slice(self.first, self.first + self.rows * self.queries)


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
    folded, slots, visible = _folded(span, query, mask, key.shape[1])
    found = torch.nn.functional.scaled_dot_product_attention(
        folded, key[slots, :, : span.width], value[slots, :, : span.width], attn_mask=visible, scale=scaling
    )
    return _unfolded(span, found)


def _folded(span: Span, query: Tensor, mask: Tensor, heads: int) -> tuple[Tensor, slice, Tensor]:
    """Queries (rows, H, queries * groups, D) of a span, the slots they read, and their mask."""
    rows, queries = span.rows, span.queries
    groups = query.shape[1] // heads
    folded = query[span.tokens].view(rows, queries, heads, groups, -1).transpose(1, 2)
    visible = mask[span.tokens, ..., : span.width]
    if queries > 1:
        visible = visible.view(rows, 1, queries, span.width).repeat_interleave(groups, dim=2)
    return folded.reshape(rows, heads, queries * groups, -1), slice(span.slot, span.slot + rows), visible


def _unfolded(span: Span, found: Tensor) -> Tensor:
    """(rows, H, queries * groups, D) as (rows * queries, heads, D)."""
    rows, heads = found.shape[:2]
    found = found.view(rows, heads, span.queries, -1, found.shape[-1]).transpose(1, 2)
    return found.reshape(rows * span.queries, -1, found.shape[-1])


def attend_shared(
    spans: Sequence[Span],
    readers: Sequence[PromptReaders],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: Tensor,
    scaling: float | None,
) -> Tensor:
    """Attention where some tokens also read a prompt that is not in their row; arguments as in `attend_span`."""
    parts = []
    for span in spans:
        folded, slots, visible = _folded(span, query, mask, key.shape[1])
        own = partial_of_rows(folded, key[slots, :, : span.width], value[slots, :, : span.width], visible, scaling)
        parts.append([_unfolded(span, part) for part in (own.found, own.top, own.total)])
    whole = Partial(*(torch.cat(columns) for columns in zip(*parts, strict=True)))
    return over_prompts(whole, query, readers, scaling).to(query.dtype)


class _Pass(threading.local):
    """The spans of the forward pass that this thread is in, and the prompts that stand once."""

    spans: Sequence[Span] = ()
    shared: Sequence[tuple[Tensor, Prefix]] = ()
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
        readers = [PromptReaders(tokens.to(query.device), prefix[layer]) for tokens, prefix in _PASS.shared]
        with torch.autocast(query.device.type, enabled=False):  # its products are in float32
            found = attend_shared(spans, readers, packed, key, value, attention_mask, kwargs.get("scaling"))
        return found[None], None
    parts = [attend_span(span, packed, key, value, attention_mask, kwargs.get("scaling")) for span in spans]
    return (parts[0] if len(parts) == 1 else torch.cat(parts))[None], None


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
    shared: Sequence[tuple[Tensor, Prefix]] = (),
) -> Iterator[None]:
    """Have the model's layers attend over `spans` within this block; one thread at a time for each model.

    Args:
        model: whose layers.
        spans: whose tokens a pass feeds.
        cache: the rows.
        shared: tokens (n,) that read a prompt which is not in their row, and that prompt.
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
