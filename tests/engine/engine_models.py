"""Random tiny models of several families, with one small tokenizer: nothing here is Qwen3 only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from tts_generate.engine import enable

SPECIAL = ["<pad>", "<unk>", "<eos>", "<think>", "</think>", "\\boxed{", "}"]
WORDS = {token: i for i, token in enumerate([*SPECIAL, *"0123456789abcdefghij=+-*;.?", "Q:"])}
QUESTIONS = [
    "Q: a = 3 ; a ? <think>",
    "Q: a = 4 ; b = a + 5 ; b ? <think>",
    "Q: a = 9 ; b = a * 7 ; c = b - 2 ; c ? <think>",
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel(WORDS, unk_token="<unk>"))
    pattern = Regex(r"<[/a-z]+>|\\boxed\{|Q:|\S")
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Split(pattern, "isolated")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="<eos>", padding_side="left"
    )


_SIZES: dict[str, Any] = {
    "vocab_size": len(WORDS),
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "max_position_embeddings": 256,
    "eos_token_id": WORDS["<eos>"],
    "pad_token_id": WORDS["<pad>"],
    "bos_token_id": None,
    "initializer_range": 0.2,
}
CONFIGS = {
    "qwen3": lambda: Qwen3Config(head_dim=16, **_SIZES),
    "llama": lambda: LlamaConfig(**_SIZES),
    "mistral": lambda: MistralConfig(sliding_window=None, **_SIZES),
    "mistral_windowed": lambda: MistralConfig(sliding_window=24, **_SIZES),
    "qwen3_mixed": lambda: Qwen3Config(
        head_dim=16,
        use_sliding_window=True,
        sliding_window=24,
        layer_types=["full_attention", "sliding_attention"],
        **_SIZES,
    ),
    "phi3": lambda: Phi3Config(**_SIZES),
}


REFUSED_BEYOND_64 = {
    "llama_dynamic": lambda: LlamaConfig(
        rope_parameters={
            "rope_type": "dynamic",
            "rope_theta": 10000.0,
            "factor": 4.0,
            "original_max_position_embeddings": 64,
        },
        **_SIZES,
    )
}


def make_model(name: str, attention: str = "sdpa", dtype: torch.dtype = torch.float32, device: str = "cpu") -> Any:
    torch.manual_seed(0)
    config = {**CONFIGS, **REFUSED_BEYOND_64}[name]()
    return AutoModelForCausalLM.from_config(config, attn_implementation=attention, dtype=dtype).eval().to(device)


@dataclass
class Live:
    """An enabled model with its inputs."""

    model: Any
    tokenizer: Any
    device: str = "cpu"

    def inputs(self, *questions: str) -> dict[str, torch.Tensor]:
        batch = self.tokenizer(list(questions), return_tensors="pt", padding=True)
        return {name: batch[name].to(self.device) for name in ("input_ids", "attention_mask")}

    def run(self, *questions: str, **kwargs: Any) -> Any:
        options: dict[str, Any] = {
            "controller": "cmc",
            "beta": 0.5,
            "seed": 0,
            "interval_tokens": 8,
            "max_new_tokens": 40,
            "max_probe_tokens": 4,
            "temperature": 1.0,
            "top_k": 0,
            "return_dict_in_generate": True,
        }
        return self.model.generate(**self.inputs(*questions), strategy="autotts", **{**options, **kwargs})


def make_live(name: str, **kwargs: Any) -> Live:
    tokenizer = make_tokenizer()
    model = enable(make_model(name, **kwargs), tokenizer=tokenizer)
    return Live(model, tokenizer, kwargs.get("device", "cpu"))


def said(output: Any) -> list[list[tuple[Any, ...]]]:
    """Tokens and probes; states are multiplied in batches, so that log-probabilities may differ in their last bits."""
    return [[(r.branch, r.token_ids, r.probe_answers, r.probe_tokens) for r in rows] for rows in output.branches]
