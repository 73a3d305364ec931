"""Twenty ways to ask a model that nobody prepared: an answer, or one clear warning, and never None without a word."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from chat_templates import tokenizer_of
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
    pipeline,
)

from tts_generate import AutoTTS, NoAnswerWarning, enable

QUESTION = "A baker fills 7 boxes with 6 rolls each and eats 5. How many are left?"
SHAPE: dict[str, Any] = {
    "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 48, "max_position_embeddings": 512, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES: dict[str, tuple[type[PretrainedConfig], str]] = {
    "qwen2": (Qwen2Config, "plain"),
    "llama": (LlamaConfig, "plain"),
    "gemma3": (Gemma3TextConfig, "gemma4"),
    "phi3": (Phi3Config, "plain"),
    "qwen3": (Qwen3Config, "qwen3"),
}


def loaded(family: str) -> tuple[Any, Any]:
    """Random weights, and a tokenizer with the family's chat template."""
    kind, template = FAMILIES[family]
    tokenizer = tokenizer_of(template)
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|return|>"
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **SHAPE, **ids)).eval()
    return enable(model, tokenizer=tokenizer), tokenizer


def answers(output: Any) -> list[str | None]:
    found: list[str | None] = output.answers
    return found


def text(model: Any, tokenizer: Any) -> list[str | None]:
    inputs = tokenizer([QUESTION, "And 2 more?"], return_tensors="pt", padding=True, padding_side="left")
    return answers(model.generate(**inputs, strategy="autotts", max_new_tokens=48, return_dict_in_generate=True))


def chat(model: Any, tokenizer: Any) -> list[str | None]:
    turns = [{"role": "user", "content": QUESTION}]
    how = {"add_generation_prompt": True, "return_tensors": "pt", "return_dict": True}
    inputs = tokenizer.apply_chat_template(turns, **how)
    return answers(model.generate(**inputs, strategy="autotts", max_new_tokens=48, return_dict_in_generate=True))


def custom(model: Any, tokenizer: Any) -> list[str | None]:
    inputs = tokenizer(QUESTION, return_tensors="pt")
    recipe = AutoTTS(tokenizer=tokenizer)
    return answers(
        model.generate(
            **inputs, custom_generate=recipe, do_sample=True, max_new_tokens=48, return_dict_in_generate=True
        )
    )


def piped(model: Any, tokenizer: Any) -> None:
    """Shows the text of a branch, whatever it says."""
    ask = pipeline("text-generation", model=model, tokenizer=tokenizer)
    turns = [{"role": "user", "content": QUESTION}]
    made = ask(turns, strategy="autotts", do_sample=True, max_new_tokens=48)
    assert made[0]["generated_text"][-1]["role"] == "assistant"


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", [text, chat, custom, piped])
def test_an_answer_or_a_warning(family: str, way: Callable[[Any, Any], list[str | None] | None]) -> None:
    model, tokenizer = loaded(family)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = way(model, tokenizer)
    clear = [warning for warning in told if issubclass(warning.category, NoAnswerWarning)]
    assert len(clear) == (None in found) if found is not None else len(clear) <= 1
    for warning in clear:
        assert all(word in str(warning.message) for word in ("end without an answer", "answer_pattern", "Set "))
