"""The model behind the loop: prefill a prompt once, then one token per row and forward pass over the slot cache."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tts_generate.engine.cache import Prefix, SlotCache
from tts_generate.errors import UnsupportedError

_BUCKET = 32
"""Widths are multiples of this: on CPU, float32 results are then the same at every width."""
_MIN_ROWS = 4
"""Batches have at least this many rows: below, CPU matrix products take another path and round differently."""
_ATTENTION = {"full_attention", "sliding_attention"}


class Decoder:
    """Runs `model` on rows of the slot cache; the only place that knows masks, widths and positions."""

    def __init__(self, model: PreTrainedModel, rows: int) -> None:
        self.model = model
        config = model.config.get_text_config(decoder=True)
        check_model(model)
        self.cache = SlotCache(config.num_hidden_layers, max(rows, _MIN_ROWS), 4 * _BUCKET)
        self.vocab_size = config.vocab_size
        kinds = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        uses_window = kinds is None or "sliding_attention" in kinds
        self.window: int | None = window if uses_window else None
        self.mixed = kinds is not None and self.window is not None
        self.bool_mask = config._attn_implementation != "eager"

    @torch.no_grad()
    def prefill(self, prompt_ids: Sequence[int]) -> tuple[Prefix, Tensor]:
        """Keys and values of a prompt, and the logits (V,) float32 of the token after it.

        Each prompt is run alone, so that its numbers do not depend on the other questions of the call.
        """
        ids = torch.tensor([list(prompt_ids)], device=self.model.device)
        cache = DynamicCache()  # without a config every layer keeps all columns, also where attention is windowed
        logits = self._forward(ids, cache, None, torch.arange(ids.shape[1], device=ids.device)[None])
        prefix = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        return prefix, logits[0]

    def admit(self, prefix: Prefix, slot: int, slots: int) -> None:
        """Begin the row of a new branch with its prompt; there are `slots` rows in all."""
        self.cache.reserve(slots, self._capacity(prefix[0][0].shape[1] + 1))
        self.cache.admit(prefix, slot)

    @torch.no_grad()
    def step(self, tokens: np.ndarray, lengths: np.ndarray) -> Tensor:
        """Feed one token to each of the first B slots.

        Args:
            tokens: (B,) int64, the token each row feeds.
            lengths: (slots,) int64, columns each row holds already; the token is written behind them.

        Returns:
            (B, V) float32 logits of the token after it.
        """
        count = len(tokens)
        rows = max(count, _MIN_ROWS)
        # Rows beyond `count` only fill the batch: what they write lies behind their own length, to be overwritten.
        longest = int(lengths[:rows].max()) + 1
        self.cache.reserve(max(rows, len(lengths)), self._capacity(longest))
        columns = torch.zeros(rows, dtype=torch.long)
        columns[: len(lengths)] = torch.from_numpy(lengths[:rows])
        ids = torch.zeros((rows, 1), dtype=torch.long)
        ids[:count, 0] = torch.from_numpy(tokens)
        self.cache.columns = columns.to(self.model.device)
        self.cache.width = -(-longest // _BUCKET) * _BUCKET
        ids = ids.to(self.model.device)
        logits = self._forward(ids, self.cache, self._mask(self.cache.columns), self.cache.columns[:, None])
        return logits[:count]

    def _capacity(self, longest: int) -> int:
        """Columns to allocate: doubled when outgrown, so that a long branch moves the buffer a few times only."""
        if longest <= self.cache.capacity:
            return self.cache.capacity
        return max(2 * self.cache.capacity, -(-longest // _BUCKET) * _BUCKET)

    def _mask(self, columns: Tensor) -> Any:
        places = torch.arange(self.cache.width, device=columns.device)
        full = (places <= columns[:, None])[:, None, None]
        if self.window is None:
            return self._as_mask(full)
        windowed = full & (places > columns[:, None] - self.window)[:, None, None]
        if not self.mixed:
            return self._as_mask(windowed)
        return {"full_attention": self._as_mask(full), "sliding_attention": self._as_mask(windowed)}

    def _as_mask(self, visible: Tensor) -> Tensor:
        """A bool mask for sdpa; for eager attention the additive one it expects."""
        if self.bool_mask:
            return visible
        zero = torch.zeros((), dtype=self.model.dtype, device=visible.device)
        return torch.where(visible, zero, torch.finfo(self.model.dtype).min)

    def _forward(self, ids: Tensor, cache: Any, mask: Any, positions: Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            past_key_values=cache,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
        )
        logits: Tensor = output.logits[:, -1].float()
        return logits


def check_model(model: PreTrainedModel) -> None:
    """Refuse a model whose cache cannot be kept in slots, before anything is decoded.

    Raises:
        UnsupportedError: encoder-decoder, stateful, linear-attention or hybrid models; attention without masks.
    """
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise UnsupportedError(f"{name} is an encoder-decoder model; strategy='autotts' decodes causal models only.")
    unknown = set(getattr(config, "layer_types", None) or ()) - _ATTENTION
    if unknown or getattr(model, "_is_stateful", False):
        kinds = ", ".join(sorted(unknown)) or "a recurrent state"
        raise UnsupportedError(
            f"{name} has {kinds}: its branches cannot be kept apart in a key-value cache. "
            "strategy='autotts' needs full or sliding-window attention in every layer."
        )
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise UnsupportedError(
            f"{name} uses {attention!r} attention, which takes no mask per row; load it with "
            "attn_implementation='sdpa' (or call model.set_attn_implementation('sdpa'))."
        )
