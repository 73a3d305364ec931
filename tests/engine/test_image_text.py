"""Models that can also read images, asked with text alone: their own greedy tokens, or one clear error."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_models import QUESTIONS, WORDS, Live, make_tokenizer
from transformers import CONFIG_MAPPING, AutoModelForCausalLM, AutoModelForImageTextToText, PreTrainedConfig

from tts_generate.engine import enable
from tts_generate.errors import UnsupportedError
from tts_generate.loading import load_controller

pytestmark = pytest.mark.filterwarnings("ignore")  # about configurations that nobody would train
TOKENS = 16
_VOCABULARY = 64
_SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "dim", "embed_dim", "projection_dim", "out_hidden_size"), 64),
    **dict.fromkeys(("intermediate_size", "intermediate_size_mlp", "ffn_dim", "mlp_dim"), 96),
    **dict.fromkeys(("num_hidden_layers", "num_layers", "depth", "num_key_value_heads", "encoder_layers"), 2),
    **dict.fromkeys(("num_attention_heads", "num_heads", "n_heads", "num_local_experts", "num_experts"), 4),
    **dict.fromkeys(("linear_num_key_heads", "num_experts_per_tok"), 2),
    **dict.fromkeys(("head_dim", "linear_key_head_dim", "linear_value_head_dim"), 16),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "image_size", "window_size"), 32),
    "vocab_size": _VOCABULARY,
    "linear_num_value_heads": 4,
    "patch_size": 8,
    "max_position_embeddings": 256,
    "num_global_layers": 1,
    "max_num_tiles": 1,
    "supported_aspect_ratios": [[1, 1]],
    "cross_attention_layers": [1],
    "intermediate_layers_indices": [0],
    "deepstack_visual_indexes": [0],
    "fullatt_block_indexes": [0],
    "vision_output_dim": 64,
    "vision_feature_layer": -1,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "pad_token_id": WORDS["<pad>"],
    "eos_token_id": WORDS["<eos>"],
}
_IDS = {"image_token_id": 50, "image_token_index": 50, "video_token_id": 51, "video_token_index": 51}


def shrunk(config: PreTrainedConfig, rope_sections: bool) -> PreTrainedConfig:
    """A configuration with the sizes of a tiny model, and that of each of its parts."""
    for part in [part for part in vars(config).values() if isinstance(part, PreTrainedConfig)]:
        shrunk(part, rope_sections)
    for name, value in {**_SIZES, **_IDS}.items():
        if name in vars(config) and not isinstance(getattr(config, name), PreTrainedConfig):
            setattr(config, name, value)
    if kinds := list(dict.fromkeys(getattr(config, "layer_types", None) or [])):
        config.layer_types = [kinds[0], "full_attention"]
    if getattr(config, "sliding_window", None):
        config.sliding_window = 24
    if rope_sections and isinstance(getattr(config, "rope_parameters", None), dict):
        config.rope_parameters["mrope_section"] = [4, 2, 2]
    return config


def make(kind: str, auto: Any = AutoModelForImageTextToText) -> Live:
    """A random tiny model, its weights of the scale of trained ones."""
    torch.manual_seed(0)
    model = auto.from_config(shrunk(CONFIG_MAPPING[kind](), kind.startswith(("qwen2_vl", "qwen2_5_vl")))).eval()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "vision" not in name:
                weight.normal_(std=0.25)
    tokenizer = make_tokenizer()
    return Live(enable(model, tokenizer=tokenizer), tokenizer)


def decoded(live: Live, *questions: str, **options: Any) -> list[list[list[int]]]:
    output = live.run(
        *questions,
        controller=load_controller("self_consistency", max_samples=2),
        beta=None,
        max_new_tokens=TOKENS,
        temperature=1e-6,
        pad_token_id=0,
        eos_token_id=2,
        **options,
    )
    return [[list(branch.token_ids) for branch in branches] for branches in output.branches]


def stock(live: Live, question: str, **options: Any) -> list[int]:
    inputs = live.inputs(question)
    plain = {"do_sample": False, "max_new_tokens": TOKENS, "pad_token_id": 0, "eos_token_id": 2, **options}
    ids: list[int] = live.model.generate(**inputs, **plain)[0, inputs["input_ids"].shape[1] :].tolist()
    return ids[: ids.index(2) + 1] if 2 in ids else ids


KINDS = [
    "gemma3", "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_5", "llava", "llava_onevision", "mllama",
    "idefics3", "smolvlm", "mistral3", "aya_vision", "lfm2_vl", "ovis2", "video_llama_3",
]  # fmt: skip
CAUSAL = ["mllama", "qwen3_5", "llama4"]
"""Those whose text model has a class of its own."""


@pytest.mark.parametrize(
    ("kind", "auto"),
    [*((kind, AutoModelForImageTextToText) for kind in KINDS), *((kind, AutoModelForCausalLM) for kind in CAUSAL)],
    ids=lambda value: value if isinstance(value, str) else value.__name__,
)
def test_with_text_alone_they_decode_what_transformers_does(kind: str, auto: Any) -> None:
    live = make(kind, auto)
    for question, branches in zip(QUESTIONS, decoded(live, *QUESTIONS), strict=True):
        assert branches == [stock(live, question)] * 2


def test_a_prompt_that_is_read_both_ways_is_refused_unless_the_first_look_is_left_out() -> None:
    live = make("paligemma")
    with pytest.raises(UnsupportedError, match="reads tokens that come later"):
        decoded(live, QUESTIONS[0])
    assert decoded(live, QUESTIONS[0], self_check=False) == [[stock(live, QUESTIONS[0])] * 2]


@pytest.mark.parametrize("kind", ["gemma3", "qwen2_vl"])
def test_what_processors_add_to_a_text_says_nothing_and_images_say_something(kind: str) -> None:
    """A processor marks which tokens are of an image, and none are."""
    live = make(kind)
    types = "mm_token_type_ids" if kind == "qwen2_vl" else "token_type_ids"
    none = torch.zeros_like(live.inputs(QUESTIONS[0])["input_ids"])
    expected = stock(live, QUESTIONS[0], **{types: none})
    assert decoded(live, QUESTIONS[0], **{types: none}) == [[expected] * 2]
    for name, value in ((types, none + 1), ("pixel_values", torch.zeros(1, 3, 32, 32))):
        with pytest.raises(UnsupportedError, match=f"would ignore '{name}'.*text alone"):
            decoded(live, QUESTIONS[0], **{name: value})


def test_a_model_that_counts_its_own_positions_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="positions of its own"):
        decoded(make("kosmos-2.5"), QUESTIONS[0])
