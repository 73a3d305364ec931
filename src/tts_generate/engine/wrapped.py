"""What others have put around a model (adapters, hooks, wrappers): honoured, or refused before anything is decoded.

The engine calls the model as transformers does, so a patched `forward` and plain hooks take part in every pass. What
only transformers' own loop would see is what `prepare_inputs_for_generation` makes of a prompt, and what is meant for
the rows of the prompt batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from tts_generate.errors import UnsupportedError

_CACHES = ("cache", "past_key_values")
"""Transformers' word from 5.24 on, and before."""
_PREPARED = {
    "input_ids", "attention_mask", "position_ids", "use_cache", "logits_to_keep", "cache_position", "return_dict",
    "is_first_iteration",
}  # fmt: skip
_ACROSS = "peft.tuners.lily"
"""Layers that take the tokens of a pass together."""
_INSIDE = {
    "get_base_model": "model.get_base_model(), and call the wrapper's generate",
    "module": "model.module, or accelerator.unwrap_model(model)",
    "_orig_mod": "model._orig_mod",
}
"""Where PEFT, distributed training and torch.compile keep the model that they wrap."""


def check_inputs(model: PreTrainedModel, inputs: Mapping[str, Any]) -> None:
    """Refuse inputs of a call that decoding from token ids would ignore: images, embeddings, types, a filled cache.

    What a library adds where there is nothing to say is none: an empty dictionary, the type of text beside images.

    Raises:
        UnsupportedError: naming them.
    """
    if names := _beside_ids(model, inputs):
        raise UnsupportedError(
            f"strategy='autotts' decodes from token ids only, each prompt from its first, and would ignore "
            f"{', '.join(map(repr, names))}; leave it out and ask with text alone."
        )


def check_wrapping(model: PreTrainedModel, input_ids: Tensor, inputs: Mapping[str, Any]) -> None:
    """Refuse a call whose prompts are not their token ids alone, whoever has put something else in.

    Args:
        model: as it is within `generate`, where adapters have put their hooks in.
        input_ids: (questions, length) int64.
        inputs: the other model inputs that transformers has prepared.

    Raises:
        UnsupportedError: other inputs, adapters that learn a prompt or are chosen by row, a model with its own ways.
    """
    check_inputs(model, inputs)
    _check_hooks(model)
    _check_positions(input_ids, inputs)
    others = {name: value for name, value in inputs.items() if name not in _CACHES}
    made = model.prepare_inputs_for_generation(input_ids, is_first_iteration=True, **others)
    names = _beside_ids(model, made)
    ids = made.get("input_ids")
    if not isinstance(ids, Tensor) or not torch.equal(ids.to(input_ids.device), input_ids):
        names.append("other token ids")
    if inputs.get("position_ids") is not None and made.get("position_ids") is None:
        names.append("positions of its own")
    if names:
        owner = getattr(model.prepare_inputs_for_generation, "__self__", model)
        how = "" if owner is model else ", as PEFT does for adapters that learn one (prompt, prefix and P-tuning)"
        what = "" if owner is model else "; use an adapter that changes weights, such as LoRA, or none"
        raise UnsupportedError(
            f"prepare_inputs_for_generation of {type(owner).__name__} makes {', '.join(names)} of a prompt{how}. "
            f"strategy='autotts' feeds a prompt's token ids at their places, nothing else{what}."
        )


def _beside_ids(model: PreTrainedModel, inputs: Mapping[str, Any]) -> list[str]:
    """Names of what a model is to be fed beside token ids, their mask and their places."""
    types = {"mm_token_type_ids", "moe_mm_token_type_ids"}
    if tuple(getattr(model, "input_modalities", "text")) != ("text",):
        types.add("token_type_ids")
    others = {name: value for name, value in inputs.items() if name not in _PREPARED}
    return sorted(name for name, value in others.items() if not (_empty(value) or (name in types and not value.any())))


def _empty(value: Any) -> bool:
    if value is None or isinstance(value, Cache):
        return value is None or int(value.get_seq_length()) == 0
    if isinstance(value, Mapping):
        return all(map(_empty, value.values()))
    return value.numel() == 0 if isinstance(value, Tensor) else isinstance(value, list | tuple) and not value


def _check_hooks(model: nn.Module) -> None:
    """Refuse hooks by which PEFT tells an adapter about the rows of a call, or runs the model twice."""
    for module in model.modules():
        if type(module).__module__.startswith(_ACROSS):
            raise UnsupportedError(
                f"{type(module).__name__} of PEFT weighs its experts over all tokens of a pass, so a branch would "
                "depend on its neighbours; use an adapter that takes each token by itself, such as LoRA."
            )
        for _, hook, plain in _hooks_of_peft(module):
            _unhook(model)
            said = ", ".join(hook.keywords) if isinstance(hook, partial) else plain.__name__
            raise UnsupportedError(
                f"PEFT has hooked {type(module).__name__} for the rows of the prompt batch ({said}), and branches "
                "come and go in a batch of their own. Leave adapter_names (or what else is chosen by row) out, and "
                "choose one adapter that changes weights for the whole call: set_adapter(name)."
            )


def _hooks_of_peft(module: nn.Module) -> list[tuple[int, Any, Any]]:
    """PEFT's forward pre-hooks of a module: key, hook, and the function without what it is told."""
    hooks = module._forward_pre_hooks.items()
    plain = [(key, hook, hook.func if isinstance(hook, partial) else hook) for key, hook in hooks]
    return [each for each in plain if str(getattr(each[2], "__module__", "")).startswith("peft.")]


def _unhook(model: nn.Module) -> None:
    """Take out what PEFT has put in for a call that is refused: it does so itself only where nothing raises."""
    for module in model.modules():
        for key, _, plain in _hooks_of_peft(module):
            if not hasattr(plain, "__self__"):
                del module._forward_pre_hooks[key]
                module._forward_pre_hooks_with_kwargs.pop(key, None)


def _check_positions(input_ids: Tensor, inputs: Mapping[str, Any]) -> None:
    """Refuse positions other than 0, 1, 2, … of each prompt's tokens, on every axis that the model has."""
    given, mask = inputs.get("position_ids"), inputs.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    if given is None or mask.shape != input_ids.shape or given.shape[-1] != input_ids.shape[1]:
        return
    if ((given.to(mask.device) != mask.long().cumsum(-1) - 1) & mask.bool()).any():
        raise UnsupportedError(
            "strategy='autotts' counts positions itself, from each prompt's first token; leave out position_ids."
        )


def inside(wrapper: Any) -> str:
    """What to pass instead of a wrapper around a model; "" where it does not look like one.

    >>> inside(nn.DataParallel(nn.Linear(1, 1)))
    ' Pass what it wraps: model.module, or accelerator.unwrap_model(model).'
    """
    if not isinstance(wrapper, nn.Module):
        return ""
    adapter = getattr(wrapper, "active_peft_config", None)
    if adapter is not None and adapter.is_prompt_learning:
        return f" strategy='autotts' cannot feed the prompt that {adapter.peft_type.value} learns."
    for name, said in _INSIDE.items():
        if hasattr(wrapper, name):
            return f" Pass what it wraps: {said}."
    return ""
