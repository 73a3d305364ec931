"""The model behind the loop: prefill a prompt once, then passes over the slot cache of any tokens of any rows.

A pass is packed: it feeds exactly the tokens asked for, one of each decoding branch and those of probes under way. A
probe's tokens stand in its branch's row behind a *hole* of columns, into which the branch itself goes on writing; what
a token sees are the columns up to its own, the hole left out. So neither sees the other, and nothing is copied.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel

from tts_generate.engine.attention import Span, attending, knows_spans
from tts_generate.engine.cache import Prefix, SlotCache
from tts_generate.engine.processes import input_device
from tts_generate.errors import UnsupportedError

BUCKET = 32
"""Widths are multiples of this: on CPU, float32 results are then the same at every width."""
MIN_TOKENS = 4
"""Passes feed at least this many tokens: below, CPU matrix products take another path and round differently."""
BLOCK = 32
"""On CPU, neighbouring rows that read the same number of columns; on other devices all rows do."""
_ATTENTION = {"full_attention", "sliding_attention"}


@dataclass(slots=True)
class Pass:
    """Tokens to feed in one forward pass: `queries` of each of `slots`, then the same for those of probes."""

    slots: np.ndarray
    """(N,) the row of each token; the tokens of one row stand together."""
    columns: np.ndarray
    """(N,) the column each token is written to."""
    hole: np.ndarray
    """(N,) the first column of the hole that each token does not see; behind its own column where there is none."""
    gap: int
    """Columns of a hole."""
    spans: list[Span]
    last: np.ndarray
    """(K,) the tokens whose logits are wanted."""

    @property
    def positions(self) -> np.ndarray:
        """(N,) the place of each token in its sequence."""
        return np.where(self.hole < self.columns, self.columns - self.gap, self.columns)


def bucketed(columns: int) -> int:
    """The width that reads `columns` columns."""
    return -(-columns // BUCKET) * BUCKET


class Decoder:
    """Runs `model` on rows of the slot cache; the only place that knows masks, widths and positions."""

    def __init__(self, model: PreTrainedModel) -> None:
        check_model(model)
        self.model = model
        config = model.config.get_text_config(decoder=True)
        self.cache = SlotCache(config.num_hidden_layers, 0, 0)
        self.packed = knows_spans(model)
        kinds = getattr(config, "layer_types", None)
        window = getattr(config, "sliding_window", None)
        uses_window = kinds is None or "sliding_attention" in kinds
        self.window: int | None = window if uses_window else None
        self.mixed = kinds is not None and self.window is not None
        self.device = input_device(model)
        self.block = BLOCK if self.device.type == "cpu" else 1 << 30

    @torch.no_grad()
    def prefill(self, prompt_ids: Sequence[int]) -> tuple[Prefix, Tensor]:
        """Keys and values of a prompt, and the logits (V,) float32 of the token after it.

        Each prompt is run alone, so that its numbers do not depend on the other questions of the call.
        """
        ids = torch.tensor([list(prompt_ids)], device=self.device)
        cache = DynamicCache()  # without a config every layer keeps all columns, also where attention is windowed
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        logits = self._forward(ids, cache, None, places, 1)
        prefix = [(layer.keys[0], layer.values[0]) for layer in cache.layers]
        return prefix, logits[0, -1]

    @torch.no_grad()
    def run(self, tokens: Tensor, plan: Pass) -> Tensor:
        """Feed a pass.

        Args:
            tokens: (N,) int64 token ids, on the model's device.
            plan: where they go.

        Returns:
            (K, V) float32 logits of the tokens after `plan.last`.
        """
        device, cache, count = tokens.device, self.cache, len(plan.slots)
        cache.width = max(span.width for span in plan.spans)
        cache.packed = self.packed
        cache.dense = bool((plan.slots == np.arange(count)).all())
        cache.slots = torch.from_numpy(plan.slots).to(device)
        cache.columns = torch.from_numpy(plan.columns).to(device)
        mask = self._mask(plan, device)
        positions = torch.from_numpy(plan.positions).to(device)
        last = torch.from_numpy(plan.last).to(device)
        if self.packed:
            with attending(self.model, plan.spans):
                return self._forward(tokens[None], cache, mask, positions[None], last)[0]
        return self._forward(tokens[:, None], cache, mask, positions[:, None], 1)[:, 0].index_select(0, last)

    def _mask(self, plan: Pass, device: torch.device) -> Any:
        """(N, 1, 1, W), 0 where a token reads; one for each kind of layer where there are two."""
        width = self.cache.width
        places = torch.arange(width, device=device)
        own, hole = self.cache.columns[:, None], torch.from_numpy(plan.hole).to(device)[:, None]
        full = places <= own
        holed = bool((plan.hole < plan.columns).any())
        if holed:
            full &= (places < hole) | (places >= hole + plan.gap)
        if self.window is None:
            return self._additive(full)
        positions = torch.from_numpy(plan.positions).to(device)[:, None]
        place = torch.where(places < hole, places, places - plan.gap) if holed else places
        near = full & (torch.where(hole < own, place, places) > positions - self.window)
        if not self.mixed:
            return self._additive(near)
        return {"full_attention": self._additive(full), "sliding_attention": self._additive(near)}

    def _additive(self, visible: Tensor) -> Tensor:
        dtype = self.model.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        return mask.masked_fill_(~visible, torch.finfo(dtype).min)[:, None, None]

    def _forward(self, ids: Tensor, cache: Any, mask: Any, positions: Tensor, keep: int | Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            past_key_values=cache,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
        )
        logits: Tensor = output.logits.float()
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
