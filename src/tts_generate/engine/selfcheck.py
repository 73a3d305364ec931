"""Whether what we decode is what the model says: tried on a few tokens before a kind of model decodes any.

Rows of different lengths, a probe and prompts that stand once, fed as the engine feeds them, are held against
transformers' own forward pass without a cache. A path that says something else is not taken, and where none agrees the
model is refused. This happens once a process for each class, configuration, dtype and device.
"""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedConfig, PreTrainedModel

from tts_generate.engine.attention import attention_of
from tts_generate.engine.branch import Probe
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.device import input_device, on_device
from tts_generate.engine.memory import out_of_memory
from tts_generate.engine.plan import feed
from tts_generate.engine.shared import Shared
from tts_generate.errors import TTSError, UnsupportedError

_WORK = {"cpu": 1e10}
"""Multiplications that a sequence may take on a device, and 1e13 elsewhere: how far windows can be looked behind."""
_FINE = (torch.float32, torch.float64)
_TOLERANCE, _COARSE = 0.02, 0.15
"""Of the spread of a token's logits, how far ours may be off; the second where numbers are rounded to half precision."""
_GAP = 4
_KNOWN = ("sliding_window", "attention_chunk_size")
"""Lengths that `masks.py` knows."""
_LENGTHS = re.compile(r"attention_chunk_size|index_topk|block_size|local_attention|(\w+_)?window(_size)?")


@dataclass(frozen=True, slots=True)
class Paths:
    """Which of the faster paths a kind of model takes, and how far it was looked at."""

    packed: bool = True
    sharing: bool = True
    told: str = ""
    """Why it takes no other."""


_FOUND: dict[tuple[str, ...], Paths | str] = {}
"""Of each kind of model; a text says why it is refused."""


def checked(model: PreTrainedModel, static: bool, tokens: int) -> Decoder:
    """A decoder for this model on paths that say what the model says.

    Args:
        model: decodes.
        static: as of `Decoder`.
        tokens: that a sequence of the call may come to.

    Raises:
        UnsupportedError: no path does, or it cannot be known of sequences as long as this.
    """
    decoder, kind = Decoder(model, static), _kind(model, static)
    if kind not in _FOUND:
        with _evaluating(model):
            _FOUND[kind] = _try(model, static)
        if isinstance(found := _FOUND[kind], Paths) and found.told:
            warnings.warn(found.told, RuntimeWarning, stacklevel=2)
    found = _FOUND[kind]
    if isinstance(found, str):
        raise UnsupportedError(found)
    unseen = [(name, length) for name, length in _lengths(decoder.config).items() if name not in _KNOWN]
    for name, length in unseen:
        if _reach(model) < length < tokens:
            raise UnsupportedError(
                f"{type(model).__name__} reads tokens otherwise from {name}={length} on, which strategy='autotts' does "
                f"not know and could not try on so large a model; stay below with a shorter prompt or max_new_tokens "
                f"(this call may come to {tokens} tokens)."
            )
    if found.packed and found.sharing:
        return decoder
    return Decoder(model, static, packed=found.packed, sharing=found.sharing)


def _kind(model: PreTrainedModel, static: bool) -> tuple[str, ...]:
    config = model.config.get_text_config(decoder=True)
    text = json.dumps(config.to_dict(), default=repr, sort_keys=True)
    kind = type(model)
    device = input_device(model).type
    return f"{kind.__module__}.{kind.__qualname__}", text, attention_of(config), str(model.dtype), device, str(static)


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Without dropout, which would be drawn anew each time."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module in training:
            module.training = True


def _lengths(config: PreTrainedConfig) -> dict[str, int]:
    """Numbers of tokens in a config beyond which its layers may read otherwise."""
    found = {
        name: value
        for name in config.to_dict()
        if _LENGTHS.fullmatch(name) and isinstance(value := getattr(config, name), int) and value > 1
    }
    blocks = getattr(config, "index_topk_blocks", None)
    if blocks:
        found["index_topk_blocks"] = blocks * config.index_block_size
    window = found.get("sliding_window")
    return {name: length for name, length in found.items() if name == "sliding_window" or length != window}


def _reach(model: PreTrainedModel) -> int:
    """Tokens of the longest sequence that is tried."""
    count = sum(parameter.numel() for parameter in model.parameters())
    return int(min(1000, _WORK.get(input_device(model).type, 1e13) / max(1, count)))


def _try(model: PreTrainedModel, static: bool) -> Paths | str:
    """What a model can take, or why nothing."""
    name = type(model).__name__
    off = "pass self_check=False to decode all the same."
    try:
        case = _Case(model)
    except Exception as error:
        _raise_ours(error)
        return f"{name} cannot be run on token ids alone, as strategy='autotts' does: {_said(error)}."
    if case.noise > case.tolerance:
        return (
            f"{name} reads tokens that come later (logits are off by {case.noise:.2g} of their spread once there are "
            "more): it is no causal language model. Many are with is_decoder=True in their config."
        )
    tried: list[str] = []
    for packed in (True, False):
        decoder = Decoder(model, static and packed, packed=packed, sharing=False)
        if decoder.packed is not packed:
            continue
        wrong = case.wrong(decoder)
        if wrong and static:
            return f"cache_implementation='static' cannot be had: {name} {wrong}; leave it out."
        if not wrong:
            break
        tried.append(wrong)
    else:
        return (
            f"{name} does not say with the key-value cache of strategy='autotts' what it says without one: it "
            f"{'; '.join(dict.fromkeys(tried))}. Use transformers' own generate; or {off}"
        )
    if tried:
        return Paths(False, False, f"{name} {tried[0]} where all rows are one sequence: each is one of its own instead, which is slower.")
    if Decoder(model, static).can_share and (wrong := case.wrong(Decoder(model, static), shared=True)):
        return Paths(True, False, f"{name} {wrong} where a prompt stands once: each branch has a copy of it instead, which takes more memory.")
    return Paths()


def _raise_ours(error: Exception) -> None:
    """Raise what is not the model's fault."""
    if isinstance(error, TTSError) or out_of_memory(error):
        raise error


def _said(error: Exception) -> str:
    text = str(error).strip().split("\n", 1)[0]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


class _Case:
    """A few tokens in two rows and a probe, and what the model says of them by itself."""

    def __init__(self, model: PreTrainedModel) -> None:
        config = model.config.get_text_config(decoder=True)
        reach = _reach(model)
        lengths = [length for length in _lengths(config).values() if length < reach]
        first = max(lengths, default=4) + 5
        ids = _ids(model, first + 40)
        self.prompts = [ids[:first], ids[first : first + 5]]
        self.rows = [ids[first + 5 : first + 8], ids[first + 8 : first + 11]]
        self.forced, self.said = ids[first + 11 : first + 14], ids[first + 14]
        self.model = model
        probing = [*self.prompts[0], self.rows[0][0], *self.forced, self.said]
        self.want = [self._plain([*prompt, *row]) for prompt, row in zip(self.prompts, self.rows, strict=True)]
        self.want.append(self._plain(probing))
        self.tolerance = _TOLERANCE if model.dtype in _FINE else _COARSE
        self.noise = max(_off(one, two) for one, two in zip(self.want[0][: first + 1], self.want[2], strict=False))
        if model.dtype not in _FINE:
            self.tolerance = min(max(self.tolerance, 4 * self.noise), 0.5)

    def _plain(self, ids: Sequence[int]) -> Tensor:
        """(length, V) logits without a cache."""
        fed = on_device(np.array([ids], np.int64), input_device(self.model))
        logits: Tensor = self.model(input_ids=fed, use_cache=False).logits[0].float()
        return logits

    def wrong(self, decoder: Decoder, shared: bool = False) -> str:
        """What is wrong with a path; nothing if nothing is."""
        try:
            worst = max(_off(got, want) for got, want in self._heard(decoder, shared))
        except Exception as error:
            _raise_ours(error)
            return f"fails ({_said(error)})"
        return f"is off by {worst:.2g} of the spread of its logits" if worst > self.tolerance else ""

    def _heard(self, decoder: Decoder, shared: bool) -> Iterator[tuple[Tensor, Tensor]]:
        """Logits (V,) as decoded, and as the model says."""
        lengths = np.array([len(prompt) for prompt in self.prompts])
        prefixes = []
        for prompt, want in zip(self.prompts, self.want, strict=False):
            prefix, logits = decoder.prefill(prompt)
            yield logits, want[len(prompt) - 1]
            prefixes.append(prefix)
        columns = np.zeros_like(lengths) if shared else lengths
        behind = 3 + _GAP + 5 + decoder.shapes.min_tokens + 1
        cache = decoder.cache
        cache.resize(2, decoder.shapes.capacity(int(columns.max()) + behind), 0)
        for slot, prefix in enumerate(prefixes):
            cache.admit([layer.first(0) for layer in prefix] if shared else prefix, [slot])
        probe = Probe(1, list(self.forced), "", int(columns[0]) + 1)
        for step in range(3):
            probes = [(0, probe)] if step else []
            tokens = np.array([row[step] for row in self.rows])
            plan = feed(np.arange(2), tokens, columns + step, probes, _GAP, decoder.shapes, decoder.in_row)
            if shared:
                slots = plan.plan.slots
                plan.plan.offset = lengths[slots]
                plan.plan.shared = [Shared(np.flatnonzero(slots == slot), prefix) for slot, prefix in enumerate(prefixes)]
            logits = decoder.run(on_device(plan.tokens, decoder.device), plan.plan)
            decoder.settle(True)
            for slot in range(2):
                yield logits[slot], self.want[slot][lengths[slot] + step]
            if step:
                yield logits[2], self.want[2][len(self.want[2]) - 3 + step]
                probe.said.append(self.said)


def _ids(model: PreTrainedModel, count: int) -> list[int]:
    """Token ids here and there in the vocabulary, none that the configs name."""
    configs = (model.config, model.config.get_text_config(decoder=True))
    special = set()
    for config in configs:
        named = [value for name, value in config.to_dict().items() if "token" in name]
        special |= {each for value in named for each in (value if isinstance(value, list) else [value]) if isinstance(each, int)}
    size = int(configs[1].vocab_size)
    usable = np.array([i for i in range(size) if i not in special])
    return usable[np.random.default_rng(0).permutation(len(usable))[np.arange(count) % len(usable)]].tolist()


def _off(got: Tensor, want: Tensor) -> float:
    """How far logits (V,) are off, as a share of their spread; those that a model rules out are not looked at."""
    used = want.abs() < 1e4
    want, got = want[used].cpu(), got[used].cpu()
    difference = got - want
    return float((difference - difference.mean()).square().mean().sqrt() / want.std().clamp(min=1e-9))
