"""Where a model wants its tensors, and how a host's numbers get there without its waiting for the device."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel


def input_device(model: PreTrainedModel) -> torch.device:
    """Where a model wants its token ids: with its embedding, also where accelerate has put that away on CPU or disk."""
    hook = getattr(model.get_input_embeddings(), "_hf_hook", None)
    device = getattr(hook, "execution_device", None)
    return model.device if device is None else torch.device(device)


def on_device(numbers: np.ndarray, device: torch.device) -> Tensor:
    """A host's array on a device; a GPU may still be busy with what it was given before.

    CUDA has copied ordinary memory by the time that it returns, so the array may be changed at once.
    """
    return torch.from_numpy(numbers).to(device, non_blocking=device.type == "cuda")
