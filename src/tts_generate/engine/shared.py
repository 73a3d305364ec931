"""Prompts that stand once for all branches of a question: a row holds its branch's own tokens, and attends to both.

The softmax over a prompt's columns and a row's is taken in two parts that are put together by their sums. Over the
prompt, the queries of all its branches are one matrix product, so its keys and values are read once a pass.

Source: Juravsky et al., "Hydragen: high-throughput LLM inference with shared prefixes" (arXiv 2402.05099).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
import torch
from packaging.version import Version
from torch import Tensor

from tts_generate.engine.cache import LayerPrefix, Prefix
from tts_generate.engine.device import on_device

LEAST = 128
"""Tokens of a prompt from which on it is shared: each pass then takes a few operations more a layer."""


@dataclass(frozen=True, slots=True)
class Shared:
    """A prompt, and the tokens of a pass that read it."""

    tokens: np.ndarray
    """(n,) places in the pass."""
    prefix: Prefix


@dataclass(slots=True)
class Partial:
    """Attention over some of the columns: what is missing is to be divided by `total`."""

    found: Tensor
    """(N, heads, D) float32."""
    top: Tensor
    """(N, heads, 1) float32, the highest score."""
    total: Tensor
    """(N, heads, 1) float32, the sum of exp(score - top)."""

    def of_row(self, row: int) -> Partial:
        """What is found for one of the rows."""
        return Partial(self.found[row], self.top[row], self.total[row])

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


def partial_of_rows(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scaling: float | None) -> Partial:
    """What `partial` gives, for (rows, …): on CPU by sdpa's own kernel, whose bits `Shapes` knows."""
    if query.device.type != "cpu" or key.shape[-1] != value.shape[-1]:  # the kernel takes heads of one size
        return partial(query, key, value, mask, scaling)
    visible = None if mask is None else mask.to(query.dtype)
    found, top = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key.to(query.dtype), value.to(query.dtype), attn_mask=visible, scale=scaling
    )
    return Partial(found.float(), top[..., None], torch.ones_like(top)[..., None])


_LEAST_QUERIES = 16
"""Queries that a prompt is read for at least, of each head: products of fewer rows may take another path."""


class Readers(Protocol):
    """Prompts that stand once, and who reads them."""

    def read(self, own: Partial, query: Tensor, layer: int, scaling: float | None) -> None:
        """Take in the columns that a layer holds of them; query: (N, heads, D)."""


def over_prompts(own: Partial, query: Tensor, readers: Sequence[Readers], layer: int, scaling: float | None) -> Tensor:
    """Attention over the rows' own columns and, for those who share one, the prompt's; (N, heads, D) float32.

    Args:
        own: over the rows' columns.
        query: (N, heads, D).
        readers: the prompts of the pass.
        layer: whose columns are read.
        scaling: factor of the scores; None for 1 / sqrt(D).
    """
    for reader in readers:
        reader.read(own, query, layer, scaling)
    return own.found / own.total


@dataclass(frozen=True, slots=True)
class PromptReaders:
    """A prompt, and who reads it."""

    tokens: Tensor
    """(n,) int64, places in the pass."""
    prefix: Prefix

    def read(self, own: Partial, query: Tensor, layer: int, scaling: float | None) -> None:
        """Take the prompt's columns in."""
        tokens = self.tokens.to(query.device)
        keys, values = self.prefix[layer].columns
        count, heads = len(tokens), keys.shape[0]
        asked = query[tokens].view(count, heads, -1, query.shape[-1]).transpose(0, 1)
        groups = asked.shape[2]
        queries = count * groups
        filled = torch.nn.functional.pad(asked.reshape(heads, queries, -1), (0, 0, 0, max(0, _LEAST_QUERIES - queries)))
        if filled.dtype == torch.float32:  # a product's bits do not depend on how many queries there are
            found = partial(filled, keys, values, None, scaling)
        else:  # not widened to float32 in each pass
            found = partial_of_rows(filled[None], keys[None], values[None], None, scaling).of_row(0)
        parts = (
            part[:, :queries].reshape(heads, count, groups, -1).transpose(0, 1).reshape(count, heads * groups, -1)
            for part in (found.found, found.top, found.total)
        )
        own.add(tokens, Partial(*parts))


@dataclass(slots=True)
class Stack:
    """Prompts of about one length, padded to the longest: a layer reads all of them in one product.

    What they held becomes a part of the stack, so that nothing is held twice.
    """

    prefixes: Sequence[Prefix]
    layers: dict[int, tuple[Tensor, Tensor, Tensor | None]] = field(default_factory=dict)
    """Keys and values (P, H, L, D), and the mask (P, 1, 1, L) of those that are shorter."""

    def holds(self, prefixes: Sequence[Prefix]) -> bool:
        """Whether these are in it, and not many others beside them."""
        mine = {id(prefix) for prefix in self.prefixes}
        return all(id(prefix) in mine for prefix in prefixes) and len(self.prefixes) <= 2 * len(prefixes)

    def columns(self, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Of one layer, stacked when it is first asked for."""
        if layer not in self.layers:
            self.layers[layer] = self._stacked(layer)
        return self.layers[layer]

    def _stacked(self, layer: int) -> tuple[Tensor, Tensor, Tensor | None]:
        held = [prefix[layer] for prefix in self.prefixes]
        lengths = [each.columns[0].shape[1] for each in held]
        most = max(lengths)
        keys, values = (
            torch.stack([torch.nn.functional.pad(part, (0, 0, 0, most - part.shape[1])) for part in parts])
            for parts in zip(*(each.columns for each in held), strict=True)
        )
        for place, (prefix, each, length) in enumerate(zip(self.prefixes, held, lengths, strict=True)):
            prefix[layer] = LayerPrefix((keys[place, :, :length], values[place, :, :length]), each.states)
        if min(lengths) == most:
            return keys, values, None
        seen = torch.arange(most, device=keys.device) < on_device(np.array(lengths), keys.device)[:, None]
        mask = torch.zeros(seen.shape, device=keys.device).masked_fill(~seen, torch.finfo(torch.float32).min)
        return keys, values, mask[:, None, None]


@dataclass(frozen=True, slots=True)
class StackReaders:
    """A stack of prompts and who reads them, as a grid of P prompts with as many tokens each."""

    stack: Stack
    tokens: Tensor
    """(n,) int64, places in the pass."""
    places: Tensor
    """(n,) int64, where they are in the grid."""
    sources: Tensor
    """(P * tokens of a prompt,) int64, token of the pass in each cell; any token where a cell has none."""

    def read(self, own: Partial, query: Tensor, layer: int, scaling: float | None) -> None:
        """Take the columns of all prompts of the stack in."""
        keys, values, mask = self.stack.columns(layer)
        tokens, places, sources = (each.to(query.device) for each in (self.tokens, self.places, self.sources))
        prompts, heads, size = keys.shape[0], keys.shape[1], query.shape[-1]
        groups = query.shape[1] // heads
        asked = query.index_select(0, sources).view(prompts, -1, heads, groups, size).transpose(1, 2)
        count = asked.shape[2]
        found = partial(asked.reshape(prompts, heads, count * groups, size), keys, values, mask, scaling)
        parts = (
            part.view(prompts, heads, count, groups, -1)
            .transpose(1, 2)
            .reshape(prompts * count, heads * groups, -1)
            .index_select(0, places)
            for part in (found.found, found.top, found.total)
        )
        own.add(tokens, Partial(*parts))


class Stacks:
    """Puts the prompts of a pass into stacks by their length, and keeps these as long as the prompts stay."""

    def __init__(self) -> None:
        self.kept: dict[int, Stack] = {}
        """By the bits of their longest prompt's length: at most half of a stack is padding."""

    def readers(self, shared: Sequence[Shared], device: torch.device) -> list[StackReaders]:
        """Stacks of a pass, and who reads them."""
        groups: dict[int, list[Shared]] = {}
        for each in shared:
            length = max(part.columns[0].shape[1] for part in each.prefix if part.columns)
            groups.setdefault((length - 1).bit_length(), []).append(each)
        self.kept = {size: self._stack(size, [each.prefix for each in group]) for size, group in groups.items()}
        return [_grid(self.kept[size], group, device) for size, group in groups.items()]

    def _stack(self, size: int, prefixes: Sequence[Prefix]) -> Stack:
        kept = self.kept.get(size)
        return kept if kept is not None and kept.holds(prefixes) else Stack(prefixes)


def _grid(stack: Stack, shared: Sequence[Shared], device: torch.device) -> StackReaders:
    """Who reads a stack, in a grid that is as wide as the prompt with the most tokens."""
    most = max(_LEAST_QUERIES, max(len(each.tokens) for each in shared))
    number = {id(prefix): place for place, prefix in enumerate(stack.prefixes)}
    tokens = np.concatenate([each.tokens for each in shared])
    places = np.concatenate([number[id(each.prefix)] * most + np.arange(len(each.tokens)) for each in shared])
    sources = np.full(len(stack.prefixes) * most, tokens[0], np.int64)
    sources[places] = tokens
    return StackReaders(stack, *(on_device(part, device) for part in (tokens, places, sources)))
