"""Whether what we decode is what the model says: tried on a few tokens before a kind of model decodes any.

Rows of different lengths, a probe and prompts that stand once, fed as the engine feeds them, are held against
transformers' own forward pass without a cache. A path that says something else is not taken, and where none agrees the
model is refused. This happens once a process for each class, configuration, dtype and device.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from transformers import PreTrainedModel

from tts_generate.engine.attention import attention_of
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.device import input_device
from tts_generate.engine.trial import Trial, lengths, raise_ours, reach, said
from tts_generate.errors import UnsupportedError, warn

_KNOWN = ("sliding_window", "attention_chunk_size")
"""Lengths that `masks.py` knows."""


@dataclass(frozen=True, slots=True)
class Paths:
    """Which of the faster paths a kind of model takes."""

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
            warn(found.told, stacklevel=2)
    if isinstance(found := _FOUND[kind], str):
        raise UnsupportedError(found)
    for name, length in lengths(decoder.config).items():
        if name not in _KNOWN and reach(model) <= length < tokens:
            raise UnsupportedError(
                f"{type(model).__name__} may read otherwise from {name}={length} tokens on, which strategy='autotts' "
                f"does not know and cannot try on a model of this size; a branch of this call may come to {tokens}. "
                "Shorten the prompt, or pass fewer max_new_tokens."
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


def _try(model: PreTrainedModel, static: bool) -> Paths | str:
    """The paths that a model takes, or why none."""
    name = type(model).__name__
    try:
        trial = Trial(model)
    except Exception as error:
        raise_ours(error)
        return f"{name} cannot be run on token ids alone, as strategy='autotts' does: {said(error)}."
    if trial.noise > trial.most:
        return (
            f"{name} reads tokens that come later (its logits are off by {trial.noise:.2g} of their spread once there "
            "are more): it is no causal language model. Many such are with is_decoder=True in their config."
        )
    found: dict[bool, str] = {}
    for packed in (True, False):
        decoder = Decoder(model, static and packed, packed=packed, sharing=False)
        if decoder.packed is packed and all(found.values()):
            found[packed] = trial.wrong(decoder)
    if all(found.values()):
        fails = all(wrong.startswith("fails (") for wrong in found.values())
        instead = "" if fails else ", or pass self_check=False to decode all the same"
        return (
            f"{name} does not say with the key-value cache of strategy='autotts' what it says without a cache: it "
            f"{'; '.join(dict.fromkeys(found.values()))}. Use transformers' own generate{instead}."
        )
    if static and found[True]:
        return f"cache_implementation='static' cannot be had: {name} {found[True]}; leave it out."
    if found.get(True):
        why = f"{name} {found[True]} where all rows are one sequence: each is one of its own instead, which is slower."
        return Paths(False, False, why)
    usual = Decoder(model, static)
    if usual.can_share and (wrong := trial.wrong(usual, shared=True)):
        why = f"{name} {wrong} where a prompt stands once: each branch has a copy instead, which takes more memory."
        return Paths(True, False, why)
    return Paths()
