"""What the manifest of a recording says about the model and its sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

from accelerate.utils import align_module_device, has_offloaded_params
from torch import Tensor
from transformers import GenerationConfig, MaxTimeCriteria, PreTrainedModel


def model_card(model: PreTrainedModel) -> dict[str, Any]:
    """Which model it was."""
    return {
        "name_or_path": model.config._name_or_path,
        "revision": getattr(model.config, "_commit_hash", None),
        "class": type(model).__name__,
        "dtype": str(model.dtype).removeprefix("torch."),
        "parameters": model.num_parameters(),
        "weights_sample": _weights_sample(model),
    }


def _weights_sample(model: PreTrainedModel) -> str:
    """A hash of a few numbers of every weight, so that another model at the same path is not taken for this one.

    Weights that accelerate has put away on CPU or disk are fetched, module by module: the hash is the same there. All
    others stay where they are.
    """
    few: dict[str, Tensor] = {}
    for name, module in model.named_modules():
        with align_module_device(module, "cpu") if has_offloaded_params(module) else nullcontext():
            for key, weight in module.state_dict(prefix=f"{name}." if name else "").items():
                if weight.device.type != "meta":
                    few[key] = weight.flatten()[:: max(1, weight.numel() // 16)][:16].float().cpu()
    digest = hashlib.sha256()
    for name in model.state_dict():
        digest.update(name.encode() + few[name].numpy().tobytes())
    return digest.hexdigest()[:16]


_NO_TOKEN = {"transformers_version", "max_time"}
"""Fields of a generation config that change no token of a finished branch."""


def sampling_card(config: GenerationConfig, max_new_tokens: int) -> dict[str, Any]:
    """The settings that shape the distribution of the tokens, defaults left out."""
    given = {
        name: told
        for name, value in config.to_diff_dict().items()
        if not name.startswith("_") and name not in _NO_TOKEN and (told := _told(value)) is not None
    }
    return {**given, "max_new_tokens": max_new_tokens}


def _told(value: Any) -> Any:
    """A setting as JSON has it, a mapping as its pairs; None where it says nothing of itself.

    >>> _told({(5,): 1.0}), _told((10, 1.5)), _told(object())
    ([[[5], 1.0]], [10, 1.5], None)
    """
    if isinstance(value, Mapping):
        return [[_told(key), _told(each)] for key, each in value.items()]
    if isinstance(value, (list, tuple)):
        return [_told(each) for each in value]
    if isinstance(value, (int, float, str)):
        return value
    return value.to_dict() if hasattr(value, "to_dict") else None


def shapers_card(**given: Sequence[Any] | None) -> dict[str, list[str]]:
    """Processors and criteria that a caller made, which shape branches too, by the names of their classes.

    >>> from transformers import MaxTimeCriteria, TopKLogitsWarper
    >>> shapers_card(logits_processor=[TopKLogitsWarper(3)], stopping_criteria=[MaxTimeCriteria(60.0)])
    {'logits_processor': ['transformers.generation.logits_process.TopKLogitsWarper']}
    """
    found = {}
    for name, things in given.items():
        kinds = [each if hasattr(each, "__qualname__") else type(each) for each in things or ()]
        if names := [f"{kind.__module__}.{kind.__qualname__}" for kind in kinds if kind is not MaxTimeCriteria]:
            found[name] = names
    return found
