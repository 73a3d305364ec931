"""What the manifest of a recording says about the model and its sampling."""

from __future__ import annotations

import hashlib
from contextlib import nullcontext
from typing import Any

from accelerate.utils import align_module_device, has_offloaded_params
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel


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
        name: value
        for name, value in config.to_diff_dict().items()
        if not name.startswith("_") and name not in _NO_TOKEN and isinstance(value, (int, float, str, list))
    }
    return {**given, "max_new_tokens": max_new_tokens}
