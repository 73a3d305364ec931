"""The model behind the loop: prefill a prompt once, then passes over the slot cache of any tokens of any rows.

A pass is packed: it feeds exactly the tokens asked for, one of each decoding branch and those of probes under way. A
probe's tokens stand in its branch's row behind a *hole* of columns, into which the branch itself goes on writing; what
a token sees are the columns up to its own, the hole left out. So neither sees the other, and nothing is copied.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from tts_generate.engine import shared
from tts_generate.engine.attention import Span, attending, attention_of, knows_spans
from tts_generate.engine.cache import Prefix
from tts_generate.engine.device import input_device, on_device
from tts_generate.engine.masks import EVERYTHING, masks, reaches_of
from tts_generate.engine.plan import Pass
from tts_generate.engine.shapes import shapes_of
from tts_generate.engine.states import (
    NOW,
    PROBE,
    SLOTTED,
    StateLayer,
    held,
    layers_of,
    sequence_layers,
    slot_layers,
)
from tts_generate.engine.static import Inputs, StaticShapes, grid_of
from tts_generate.errors import UnsupportedError


class Decoder:
    """Runs `model` on rows of the slot cache; the only place that knows widths and positions.

    Args:
        model: decodes.
        static: run passes in a few fixed shapes, captured as graphs on a CUDA device; see `static.py`.
        packed: whether the tokens of a pass may come as one sequence; what a model can do is found out in any case.
        sharing: whether a prompt may stand once for all its branches.
    """

    def __init__(
        self, model: PreTrainedModel, static: bool = False, *, packed: bool = True, sharing: bool = True
    ) -> None:
        check_model(model)
        if model.training and any(getattr(module, "gradient_checkpointing", False) for module in model.modules()):
            raise UnsupportedError(
                "transformers keeps no key-value cache while a model trains with gradient checkpointing; call "
                "model.eval() or model.gradient_checkpointing_disable() around generate."
            )
        self.model = model
        self.cache_argument = cache_argument(model) or "past_key_values"
        config = model.config.get_text_config(decoder=True)
        self.config = config
        self.cache = slot_layers(config)
        self.states = [layer for layer in self.cache.layers if isinstance(layer, StateLayer) and layer.number_of_states]
        self.packed = packed and knows_spans(model) and not self.states
        self.sharing = sharing
        self.reaches = reaches_of(config)
        self.device = input_device(model)
        self.shapes = shapes_of(model, self.device)
        self.stacks = shared.Stacks()
        self.static: StaticShapes | None = None
        if static:
            self._check_static()
            self.static = StaticShapes(self.cache, self._run_grid, self.device, self.shapes)

    def _check_static(self) -> None:
        devices = set((getattr(self.model, "hf_device_map", None) or {"": self.device}).values())
        if not self.packed or len(devices) > 1:
            why = "is spread over several devices" if self.packed else "cannot run all rows as one sequence"
            raise UnsupportedError(
                f"cache_implementation='static' cannot be had: {type(self.model).__name__} {why}; leave it out."
            )

    @property
    def in_row(self) -> bool:
        """Whether a branch and its probe may read their row together: on CPU, one more query changes last bits."""
        return self.packed and self.device.type != "cpu"

    def shares(self, prompt_tokens: int) -> bool:
        """Whether a prompt of this length stands once for all its branches, and not in each one's row."""
        return prompt_tokens >= shared.LEAST and self.can_share

    @property
    def can_share(self) -> bool:
        """Whether prompts may stand once at all."""
        return self.sharing and self.packed and self.static is None and set(self.reaches.values()) == {EVERYTHING}

    @torch.no_grad()
    def prefill(self, prompt_ids: Sequence[int]) -> tuple[Prefix, Tensor]:
        """Keys and values of a prompt, and the logits (V,) float32 of the token after it.

        Each prompt is run alone, so that its numbers do not depend on the other questions of the call.
        """
        ids = on_device(np.array([prompt_ids], np.int64), self.device)
        cache = Cache(layers=sequence_layers(self.config))
        places = torch.arange(ids.shape[1], device=ids.device)[None]
        logits = self._forward(ids, cache, None, places, 1)
        return [held(layer) for layer in cache.layers], logits[0, -1]

    @torch.no_grad()
    def run(self, tokens: Tensor, plan: Pass) -> Tensor:
        """Feed a pass.

        Args:
            tokens: (N,) int64 token ids, on the model's device.
            plan: where they go.

        Returns:
            (K, V) float32 logits of the tokens after `plan.last`.
        """
        if self.states:
            return self._run_in_turns(tokens, plan)
        if self.static is not None and (grid := grid_of(plan)) is not None:
            return self.static.run(tokens, plan, grid)
        if not self.packed:
            return self._run_apart(tokens, plan).index_select(0, on_device(plan.last, tokens.device))
        wanted = len(plan.last)
        more = max(0, self.shapes.min_tokens - wanted)  # what is too few for the layers is so for the head
        last = on_device(np.pad(plan.last, (0, more), mode="edge"), tokens.device)
        mask, positions = self._prepare(plan, tokens.device)
        with attending(self.model, self._spans(plan), self.cache, self._readers(plan)):
            return self._forward(tokens[None], self.cache, mask, positions[None], last)[0, :wanted]

    def _spans(self, plan: Pass) -> list[Span]:
        return [span if span.cells is None else replace(span, cells=span.cells.on(self.device)) for span in plan.spans]

    def _readers(self, plan: Pass) -> Sequence[shared.Readers]:
        """Who reads prompts that stand once: one by one, in calls whose bits are known, or all of them in few."""
        if self.shapes.few_calls:
            return self.stacks.readers(plan.shared, self.device)
        return [shared.PromptReaders(on_device(each.tokens, self.device), each.prefix) for each in plan.shared]

    def settle(self, done: bool) -> None:
        """The passes since the last call count; or, if not `done`, never were: they can be run again."""
        for layer in self.states:
            layer.settle(done)

    def _run_apart(self, tokens: Tensor, plan: Pass) -> Tensor:
        """(N, V) float32 logits: each token as a sequence of its own, its row gathered."""
        mask, positions = self._prepare(plan, tokens.device)
        return self._forward(tokens[:, None], self.cache, mask, positions[:, None], 1)[:, 0]

    def _run_in_turns(self, tokens: Tensor, plan: Pass) -> Tensor:
        """A pass of a model with recurrent states: one token of each branch and of each probe after the other.

        What only fills a pass would change a state; instead, a turn with few tokens repeats its first one.
        """
        count = plan.wanted
        turns, logits = plan.turns[:count], []
        for number in range(int(turns.max()) + 1):
            chosen = np.flatnonzero(turns == number)
            slots, probing = plan.slots[chosen], plan.probing[chosen]
            places = np.where(probing, PROBE, NOW)
            filled = np.concatenate([chosen, np.repeat(chosen[:1], max(0, self.shapes.min_tokens - len(chosen)))])
            for layer in self.states:
                layer.load(np.where(number == 0, plan.state, PROBE * plan.probing)[filled], plan.slots[filled])
            found = self._run_apart(tokens[on_device(filled, tokens.device)], plan.part(filled))
            for layer in self.states:
                layer.keep(slots[~probing])
                layer.store(places, slots)
            logits.append(found[: len(chosen)])
        order = np.argsort(np.argsort(turns, kind="stable"), kind="stable")
        return torch.cat(logits)[on_device(order[plan.last], tokens.device)]

    def _prepare(self, plan: Pass, device: torch.device) -> tuple[Any, Tensor]:
        """Tell the cache where a pass writes; the mask, and the tokens' positions (N,)."""
        cache = self.cache
        cache.width = max(span.width for span in plan.spans)
        cache.packed = self.packed
        cache.dense = bool((plan.slots == np.arange(len(plan.slots))).all())
        cache.slots = on_device(plan.slots, device)
        cache.columns = on_device(plan.columns, device)
        hole = on_device(plan.hole, device)
        holed = bool((plan.hole < plan.columns).any())
        mask = self._mask(cache.columns, hole, plan.gap if holed else 0)
        return mask, on_device(plan.positions, device)

    def _run_grid(self, inputs: Inputs) -> Tensor:
        """(N, V) float32 logits of a pass of a fixed shape; nothing is looked at on the host."""
        cache = self.cache
        cache.width, cache.packed = inputs.span.width, True
        cache.slots, cache.columns = inputs.slots, inputs.columns
        mask = self._mask(inputs.columns, inputs.hole, inputs.gap)
        holed = inputs.hole < inputs.columns
        positions = torch.where(holed, inputs.columns - inputs.gap, inputs.columns)
        with attending(self.model, [inputs.span]):
            return self._forward(inputs.ids[None], cache, mask, positions[None], 0)[0]

    def _mask(self, columns: Tensor, hole: Tensor, gap: int) -> Any:
        """What the tokens of a pass read, see `masks`."""
        dtype = self.cache.dtype or self.model.dtype
        return masks(self.reaches, columns, hole, gap, self.cache.width, dtype)

    def _forward(self, ids: Tensor, cache: Any, mask: Any, positions: Tensor, keep: int | Tensor) -> Tensor:
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=keep,
            **{self.cache_argument: cache},
        )
        logits: Tensor = output.logits.float()
        return logits


def cache_argument(model: PreTrainedModel) -> str | None:
    """What a model calls its key-value cache: `cache` from transformers 5.24 on, `past_key_values` before."""
    names = {*inspect.signature(model.forward).parameters, *inspect.signature(type(model).forward).parameters}
    return next((name for name in ("cache", "past_key_values") if name in names), None)


def check_model(model: PreTrainedModel) -> None:
    """Refuse a model whose cache cannot be kept in slots, before anything is decoded.

    Raises:
        UnsupportedError: encoder-decoder models, layers whose cache is not known, models that take no key-value cache
            at all; attention without masks.
    """
    config = model.config.get_text_config(decoder=True)
    name = type(model).__name__
    if model.config.is_encoder_decoder:
        raise UnsupportedError(f"{name} is an encoder-decoder model; strategy='autotts' decodes causal models only.")
    try:
        layers = layers_of(config)
    except (AttributeError, KeyError) as error:
        raise UnsupportedError(
            f"{name}: transformers knows no cache layers for its config ({error}), which strategy='autotts' needs."
        ) from error
    if cache_argument(model) is None or all(SLOTTED.get(type(layer)) is StateLayer for layer in layers):
        raise UnsupportedError(
            f"{name} keeps states, and keys and values in no layer. strategy='autotts' needs attention in some "
            "layers; hybrids are fine."
        )
    unknown = {type(layer).__name__ for layer in layers if type(layer) not in SLOTTED}
    if unknown:
        raise UnsupportedError(
            f"{name} has layers with a {', '.join(sorted(unknown))}, whose branches cannot be kept apart. strategy="
            "'autotts' knows full, sliding-window and linear attention, state-space and convolution layers."
        )
    attention = attention_of(config)
    if attention not in ("sdpa", "eager"):
        raise UnsupportedError(
            f"{name} uses {attention!r} attention, which takes no mask per row; load it with "
            "attn_implementation='sdpa' (or call model.set_attn_implementation('sdpa'))."
        )
