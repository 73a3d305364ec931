"""Twenty ways to ask a model that nobody prepared: an answer, or one clear warning, and never None without a word.

Real chat templates are not ours to ship: `TTS_TEMPLATES` is a folder of them, as the package axolotl has one
(`axolotl/utils/chat_templates/templates`), and `TTS_REAL` one with the models of `../shared/real`.
"""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from chat_templates import SPECIAL, tokenizer_of
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
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
    "intermediate_size": 48, "max_position_embeddings": 16384, "initializer_range": 0.3,
}  # fmt: skip
FAMILIES: dict[str, tuple[type[PretrainedConfig], str]] = {
    "qwen2": (Qwen2Config, "plain"),
    "llama": (LlamaConfig, "plain"),
    "gemma3": (Gemma3TextConfig, "gemma4"),
    "phi3": (Phi3Config, "plain"),
    "qwen3": (Qwen3Config, "qwen3"),
}


REAL = {"qwen2": "qwen_25", "llama": "llama3", "gemma3": "gemma3", "phi3": "phi_4", "qwen3": "qwen3"}
"""The families' templates by the names of their files."""


def loaded(family: str, template: str | None = None) -> tuple[Any, Any]:
    """Random weights, and a tokenizer with the family's chat template, or with another."""
    kind, shaped = FAMILIES[family]
    known = sorted(set(re.findall(r"<\|?/?\w+\|?>|\[/?[A-Z]{3,}\]", template or "")) - set(SPECIAL))
    tokenizer = tokenizer_of(template or shaped, SPECIAL + known)
    tokenizer.bos_token = "<bos>"
    tokenizer.eos_token, tokenizer.pad_token = "<|im_end|>", "<|return|>"
    ids = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id, "bos_token_id": None}
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(kind(vocab_size=len(tokenizer), **SHAPE, **ids)).eval()
    return enable(model, tokenizer=tokenizer), tokenizer


Way = Callable[[Any, Any], "list[str | None] | None"]


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


WAYS = [text, chat, custom, piped]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("way", WAYS)
def test_an_answer_or_a_warning(family: str, way: Way) -> None:
    check(*loaded(family), way)


@pytest.mark.parametrize("family", REAL)
@pytest.mark.parametrize("way", WAYS)
def test_with_the_real_template(family: str, way: Way) -> None:
    check(*loaded(family, (folder("TTS_TEMPLATES") / f"{REAL[family]}.jinja").read_text("utf-8")), way)


def test_every_real_template_is_understood() -> None:
    """Whatever a template does: a chat is answered, or one warning says why not."""
    for number, file in enumerate(sorted(folder("TTS_TEMPLATES").glob("*.jinja"))):
        template = file.read_text("utf-8")
        check(*loaded([*FAMILIES][number % len(FAMILIES)], template), chat)


@pytest.mark.long
@pytest.mark.parametrize("name", ["qwen05", "smollm2"])
@pytest.mark.parametrize("way", WAYS)
def test_a_real_model(name: str, way: Way) -> None:
    where = folder("TTS_REAL") / name
    tokenizer = AutoTokenizer.from_pretrained(where)
    check(enable(AutoModelForCausalLM.from_pretrained(where).eval(), tokenizer=tokenizer), tokenizer, way)


def folder(variable: str) -> Path:
    """Where what is not ours to ship is."""
    if variable not in os.environ:
        pytest.skip(f"set {variable}, see the top of this file")
    return Path(os.environ[variable])


def check(model: Any, tokenizer: Any, way: Way) -> None:
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = way(model, tokenizer)
    clear = [warning for warning in told if issubclass(warning.category, NoAnswerWarning)]
    assert len(clear) == (None in found) if found is not None else len(clear) <= 1
    for warning in clear:
        assert all(word in str(warning.message) for word in ("end without an answer", "answer_pattern", "Set "))
