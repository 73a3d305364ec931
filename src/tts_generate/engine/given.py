"""What a caller hands in beside numbers, looked at before anything else: prompts, tokenizer, streamer, knobs, texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel, StopStringCriteria

from tts_generate.errors import InputError


def check_tokenizer(tokenizer: Any) -> None:
    """Refuse what cannot force probes and read answers.

    Raises:
        InputError: no tokenizer.
    """
    if not callable(tokenizer) or not hasattr(tokenizer, "decode"):
        raise InputError(
            "strategy='autotts' needs the model's tokenizer to read answers: tts_generate.enable(model, "
            f"tokenizer=tokenizer), or AutoTTS(..., tokenizer=tokenizer); got {tokenizer!r:.60}."
        )


def check_streamer(streamer: Any) -> None:
    """Refuse a streamer that takes no tokens.

    Raises:
        InputError: it has no `put` or `end`.
    """
    if streamer is not None and not all(callable(getattr(streamer, name, None)) for name in ("put", "end")):
        raise InputError(f"streamer must have the methods put and end of BaseStreamer, got {streamer!r:.60}.")


def drawn_seed(seed: int | None) -> int:
    """The seed as given, else one of torch's global generator."""
    return int(torch.randint(2**62, ())) if seed is None else int(seed)


def stop_criterion(tokenizer: Any, texts: list[str]) -> StopStringCriteria:
    """Transformers' criterion for stop strings.

    Raises:
        InputError: it cannot read this tokenizer's vocabulary.
    """
    try:
        return StopStringCriteria(tokenizer, texts)
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"transformers cannot look for stop_strings in the vocabulary of this {type(tokenizer).__name__}: {error}. "
            "Leave them out, or pass a stopping criterion of your own."
        ) from error


def stop_strings(model: PreTrainedModel, kwargs: dict[str, Any]) -> Any:
    """Take the stop strings out of a call: its own, else those of the generation config that it uses."""
    configs = (kwargs.get("generation_config"), model.generation_config)
    kept = [strings for config in configs if (strings := getattr(config, "stop_strings", None)) is not None]
    found = kwargs.pop("stop_strings", None) if "stop_strings" in kwargs else next(iter(kept), None)
    if kept:
        kwargs["stop_strings"] = None
    return found


def check_inputs(input_ids: Any, attention_mask: Any) -> None:
    """Refuse prompts and masks that are no token ids and no mask of them.

    Raises:
        InputError: saying what they must be.
    """
    if not isinstance(input_ids, Tensor) or input_ids.ndim != 2 or not _whole(input_ids):
        raise InputError(f"input_ids must be whole numbers in a tensor (questions, length), got {told(input_ids)}.")
    if not len(input_ids):
        raise InputError("input_ids holds no question; give at least one.")
    if not input_ids.shape[1]:
        raise InputError("prompt 0 is empty; give every question at least one token.")
    if attention_mask is None:
        return
    if not isinstance(attention_mask, Tensor) or attention_mask.shape != input_ids.shape:
        raise InputError(
            f"attention_mask must be a tensor of the shape of input_ids, {tuple(input_ids.shape)}, got "
            f"{told(attention_mask)}."
        )
    if not bool(((attention_mask == 0) | (attention_mask == 1)).all()):
        raise InputError("attention_mask must hold 1 for tokens and 0 for padding, and nothing else.")


def _whole(ids: Tensor) -> bool:
    return not (ids.is_floating_point() or ids.is_complex() or ids.dtype == torch.bool)


def told(value: Any) -> str:
    """What came, in few words."""
    if isinstance(value, Tensor):
        return f"a {str(value.dtype).removeprefix('torch.')} tensor of shape {tuple(value.shape)}"
    return f"{value!r:.60}"


def _vocabulary(model: PreTrainedModel) -> int | None:
    """Token ids that a model has embeddings for, as far as it says."""
    try:
        return getattr(model.get_input_embeddings(), "num_embeddings", None)
    except NotImplementedError:
        return None


def prompts(
    model: PreTrainedModel, config: GenerationConfig, input_ids: Tensor, attention_mask: Tensor | None
) -> list[tuple[int, list[int]]]:
    """Of each question the columns of padding before it, and its token ids; padding may be on either side.

    Args:
        model: whose vocabulary they must be of.
        config: that of the call, in which transformers notes the width of a mask of ones, which it drops.
        input_ids: (questions, length) int64.
        attention_mask: the same shape, 0 on padding; None if there is none.

    Raises:
        InputError: an empty prompt, padding inside of one, ids that the model does not know.
    """
    check_inputs(input_ids, attention_mask)
    width = getattr(config, "_mask_length", None)
    if attention_mask is None:
        attention_mask = torch.ones_like(input_ids)
        if width not in (None, input_ids.shape[1]):
            raise InputError(
                f"attention_mask must be as wide as input_ids, {input_ids.shape[1]} tokens, and is {width} wide."
            )
    known = _vocabulary(model)
    found = []
    for number, (ids, mask) in enumerate(zip(input_ids.tolist(), attention_mask.bool().tolist(), strict=True)):
        prompt = [token for token, real in zip(ids, mask, strict=True) if real]
        if not prompt:
            raise InputError(f"prompt {number} is empty; give every question at least one token.")
        start = mask.index(True)
        if not all(mask[start : start + len(prompt)]):
            raise InputError(
                f"prompt {number} has padding between its tokens, by its attention_mask; pad on the left or the right."
            )
        strange = [token for token in prompt if token < 0 or (known is not None and token >= known)]
        if strange:
            raise InputError(
                f"prompt {number} holds the token id {strange[0]}, and the model knows 0 to "
                f"{'…' if known is None else known - 1}; is this its tokenizer?"
            )
        found.append((start, prompt))
    return found


def padded(prompts: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
    """Token ids and mask of prompts, (questions, length), padded on the left; no pad token is needed.

    >>> padded([[5, 6], [7]], torch.device("cpu"))
    (tensor([[5, 6],
            [0, 7]]), tensor([[1, 1],
            [0, 1]]))
    """
    width = max(map(len, prompts), default=0)
    ids = torch.zeros((len(prompts), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, dtype=torch.long)
        mask[row, width - len(prompt) :] = 1
    return ids.to(device), mask.to(device)
