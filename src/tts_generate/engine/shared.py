"""Prompts that stand once for all branches of a question: a row holds its branch's own tokens, and attends to both.

The softmax over a prompt's columns and a row's is taken in two parts that are put together by their sums. Over the
prompt, the queries of all its branches are one matrix product, so its keys and values are read once a pass.

Source: Juravsky et al., "Hydragen: high-throughput LLM inference with shared prefixes" (arXiv 2402.05099).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor

from tts_generate.engine.cache import LayerPrefix, Prefix

LEAST = 128
"""Tokens of a prompt from which on it is shared: each pass then takes a few operations more a layer."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A prompt, and the tokens of a pass that read it."""

    tokens: np.ndarray
    """(n,) places in the pass."""
    prefix: Prefix


@dataclass(frozen=True, slots=True)
class PromptReaders:
    """A prompt and who reads it, as one layer's attention needs them."""

    tokens: Tensor
    """(n,) int64, on the layer's device."""
    prefix: LayerPrefix


@dataclass(slots=True)
class Partial:
    """Attention over some of the columns: what is missing is to be divided by `total`."""

    found: Tensor
    """(N, heads, D) float32."""
    top: Tensor
    """(N, heads, 1) float32, the highest score."""
    total: Tensor
    """(N, heads, 1) float32, the sum of exp(score - top)."""

    def add(self, where: Tensor, other: Partial) -> None:
        """Take in the columns that the tokens `where` read beside their own."""
        mine = self.top[where]
        top = torch.maximum(mine, other.top)
        kept, added = (mine - top).exp(), (other.top - top).exp()
        self.found[where] = self.found[where] * kept + other.found * added
        self.total[where] = self.total[where] * kept + other.total * added
        self.top[where] = top


def partial(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Partial:
    """Attention of (…, Q, D) queries over (…, W, D) keys and values, before its division by the sum; mask additive.

    In float32: scores rounded to half precision would be off by more than the kernels of sdpa are.
    """
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = _product(query, key.transpose(-1, -2)) * scale
    if mask is not None:
        scores = scores + mask
    top = scores.amax(-1, keepdim=True)
    weights = (scores - top).exp()
    return Partial(_product(weights, value), top, weights.sum(-1, keepdim=True))


_WIDENS = Version(torch.__version__) >= Version("2.8")
"""Whether a product of tensors in half precision can come out in float32."""


def _product(left: Tensor, right: Tensor) -> Tensor:
    """The float32 product of (…, Q, D) and (…, D, W); on CUDA, the cache in half precision is not copied for it."""
    if left.device.type != "cuda" or right.dtype == torch.float32 or not _WIDENS:
        return torch.matmul(left.float(), right.float())
    flat = torch.bmm(left.to(right.dtype).flatten(0, -3), right.flatten(0, -3), out_dtype=torch.float32)
    return flat.view(*left.shape[:-1], right.shape[-1])


def partial_of_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None) -> Partial:
    """What `partial` gives, for rows of the cache: on CPU by sdpa's own kernel, whose bits `Shapes` knows."""
    if query.device.type != "cpu" or key.shape[-1] != value.shape[-1]:  # the kernel takes heads of one size
        return partial(query, key, value, mask, scaling)
    found, top = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key.to(query.dtype), value.to(query.dtype), attn_mask=mask.to(query.dtype), scale=scaling
    )
    return Partial(found.float(), top[..., None], torch.ones_like(top)[..., None])


_LEAST_QUERIES = 16
"""Queries that a prompt is read for at least, of each head: products of fewer rows may take another path."""


def over_prompts(own: Partial, query: Tensor, readers: Sequence[PromptReaders], scaling: float | None) -> Tensor:
    """Attention over the rows' own columns and, for those who share one, the prompt's; (N, heads, D) float32.

    Args:
        own: over the rows' columns.
        query: (N, heads, D).
        readers: the prompts of the pass.
        scaling: factor of the scores; None for 1 / sqrt(D).
    """
    for reader in readers:
        keys, values = reader.prefix.columns
        count, heads = len(reader.tokens), keys.shape[0]
        asked = query[reader.tokens].view(count, heads, -1, query.shape[-1]).transpose(0, 1)
        groups = asked.shape[2]
        queries = count * groups
        filled = torch.nn.functional.pad(asked.reshape(heads, queries, -1), (0, 0, 0, max(0, _LEAST_QUERIES - queries)))
        found = partial(filled, keys, values, None, scaling)
        parts = (
            part[:, :queries].reshape(heads, count, groups, -1).transpose(0, 1).reshape(count, heads * groups, -1)
            for part in (found.found, found.top, found.total)
        )
        own.add(reader.tokens, Partial(*parts))
    return own.found / own.total
