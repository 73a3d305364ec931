"""What others put around a model, adapters, hooks, patched calls, wrappers: honoured, or refused with a reason."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import QUESTIONS, WORDS, Live, make_live, make_model, make_tokenizer, said
from torch import Tensor, nn
from transformers import GenerationConfig, Qwen3ForCausalLM

from tts_generate.engine import enable, record
from tts_generate.errors import InputError, TTSError, UnsupportedError
from tts_generate.loading import load_controller
from tts_generate.trajectories import Question

peft = pytest.importorskip("peft", reason="pip install 'tts-generate[peft]'")

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")  # PEFT's own, of many methods
TARGETS = ["q_proj", "v_proj"]
GREEDY: dict[str, Any] = {
    "controller": load_controller("self_consistency", max_samples=2),
    "beta": None,
    "max_new_tokens": 16,
    "temperature": 1e-6,
}
REFUSED = {
    "PROMPT_TUNING": {"num_virtual_tokens": 4},
    "P_TUNING": {"num_virtual_tokens": 4, "encoder_hidden_size": 16},
    "PREFIX_TUNING": {"num_virtual_tokens": 4},
    "CARTRIDGE": {"num_virtual_tokens": 4},
    "CPT": {"cpt_token_ids": [7, 8, 9], "cpt_mask": [1, 1, 1], "cpt_tokens_type_mask": [1, 2, 3]},
    "MULTITASK_PROMPT_TUNING": {"num_virtual_tokens": 4, "num_tasks": 2},
    "SHADOW": {"target_modules": TARGETS},
    "LILY": {"target_modules": TARGETS},
}
OPTIONS: dict[str, dict[str, Any]] = {
    "ADALORA": {"total_step": 10},
    "ADAPTION_PROMPT": {"adapter_len": 4, "adapter_layers": 1, "target_modules": None},
    "C3A": {"block_size": 16},
    "FOURIERFT": {"n_frequency": 10},
    "IA3": {"target_modules": ["k_proj", "down_proj"], "feedforward_modules": ["down_proj"]},
    "LN_TUNING": {"target_modules": ["input_layernorm"]},
    "ROAD": {"group_size": 16},
    "SHIRA": {"r": 2},
    "TRAINABLE_TOKENS": {"token_indices": [1, 2], "target_modules": None},
    "VBLORA": {"num_vectors": 8, "vector_length": 8},
    "WAVEFT": {"n_frequency": 10},
}
NEEDS_MORE = {"XLORA", "POLY"}
"""Adapters on disk, and a task for each row; see `test_adapters_that_are_mixed_by_row`."""


def adapted(kind: str, options: dict[str, Any]) -> Any:
    """A wrapped tiny model whose adapter says something; PEFT's adaption prompts know Llama only."""
    model = make_model("llama" if kind == "ADAPTION_PROMPT" else "qwen3")
    given = {name: value for name, value in options.items() if value is not None}
    torch.manual_seed(1)
    wrapped = peft.get_peft_model(model, PEFT_TYPE_TO_CONFIG_MAPPING[kind](task_type="CAUSAL_LM", **given)).eval()
    with torch.no_grad():
        for weight in wrapped.parameters():
            if weight.requires_grad and weight.is_floating_point():
                weight.add_(torch.randn_like(weight), alpha=0.5)
    enable(wrapped.get_base_model(), tokenizer=make_tokenizer())
    return wrapped


def stock(live: Live, question: str) -> list[int]:
    """What the wrapper's own greedy `generate` says, to its first end."""
    inputs = live.inputs(question)
    whole = live.model.generate(**inputs, do_sample=False, max_new_tokens=16)
    ids: list[int] = whole[0, inputs["input_ids"].shape[1] :].tolist()
    return ids[: ids.index(WORDS["<eos>"]) + 1] if WORDS["<eos>"] in ids else ids


def assert_stock(live: Live) -> None:
    output = live.run(*QUESTIONS, **GREEDY)
    for question, branches in zip(QUESTIONS, output.branches, strict=True):
        for branch in branches:
            assert list(branch.token_ids) == stock(live, question)


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", sorted({kind.value for kind in PEFT_TYPE_TO_CONFIG_MAPPING} - set(REFUSED) - NEEDS_MORE)
)
def test_an_adapter_that_changes_weights_decodes_what_peft_does(kind: str) -> None:
    live = Live(adapted(kind, {"target_modules": TARGETS, **OPTIONS.get(kind, {})}), make_tokenizer())
    assert_stock(live)
    base = Live(make_model("llama" if kind == "ADAPTION_PROMPT" else "qwen3"), live.tokenizer)
    assert [stock(live, question) for question in QUESTIONS] != [stock(base, question) for question in QUESTIONS]


@pytest.mark.parametrize("kind", sorted(REFUSED))
def test_an_adapter_that_learns_a_prompt_is_refused(kind: str, tmp_path: Path) -> None:
    """Its prompt comes in by `prepare_inputs_for_generation`: without a word, the base model would answer."""
    wrapped = adapted(kind, REFUSED[kind])
    live = Live(wrapped, make_tokenizer())
    options: dict[str, Any] = {"task_ids": torch.tensor([1])} if kind == "MULTITASK_PROMPT_TUNING" else {}
    with pytest.raises(UnsupportedError, match="task_ids" if options else "PEFT"):
        live.run(QUESTIONS[0], **GREEDY, **options)
    learns = "the prompt that" if kind not in ("SHADOW", "LILY") else "get_base_model"
    with pytest.raises(InputError, match=learns):
        enable(wrapped, tokenizer=live.tokenizer)
    with pytest.raises(InputError, match=learns):
        record(wrapped, live.tokenizer, [Question("q", QUESTIONS[0])], tmp_path / "store")


def two_adapters(**options: Any) -> Live:
    config = peft.LoraConfig(r=2, target_modules=TARGETS, task_type="CAUSAL_LM", init_lora_weights=False, **options)
    model = make_live("qwen3").model
    wrapped = peft.get_peft_model(model, config).eval()
    wrapped.add_adapter("other", config)
    return Live(wrapped, make_tokenizer())


def test_one_adapter_of_several_or_none() -> None:
    live = two_adapters()
    found = {}
    for name in ("default", "other"):
        live.model.set_adapter(name)
        assert_stock(live)
        found[name] = stock(live, QUESTIONS[0])
    with live.model.disable_adapter():
        assert_stock(live)
        found["none"] = stock(live, QUESTIONS[0])
    assert len(set(map(tuple, found.values()))) == 3
    live.model = live.model.merge_and_unload()
    assert_stock(live)
    assert stock(live, QUESTIONS[0]) == found["other"]


def test_an_adapter_of_transformers_own() -> None:
    live = make_live("qwen3")
    live.model.add_adapter(peft.LoraConfig(r=2, target_modules=TARGETS, init_lora_weights=False))
    assert_stock(live)


def test_adapters_that_are_mixed_by_row(tmp_path: Path) -> None:
    """Branches come and go, and PEFT's hooks know the rows of the prompt batch only."""
    live = two_adapters()
    with pytest.raises(UnsupportedError, match=r"adapter_names.*set_adapter"):
        live.run(*QUESTIONS[:2], **GREEDY, adapter_names=["default", "other"])
    assert_stock(live)  # its hooks are gone
    with pytest.raises(UnsupportedError, match="alora_offsets"):
        two_adapters(alora_invocation_tokens=[3]).run(QUESTIONS[0], **GREEDY)
    poly = Live(adapted("POLY", {"target_modules": TARGETS, "n_tasks": 2}), make_tokenizer())
    with pytest.raises(UnsupportedError, match="PEFT has hooked"):
        poly.run(*QUESTIONS[:2], **GREEDY, task_ids=torch.tensor([0, 1]))
    live.model.save_pretrained(tmp_path)
    mixture = peft.XLoraConfig(
        hidden_size=64, adapters={"0": str(tmp_path), "1": str(tmp_path / "other")}, task_type="CAUSAL_LM"
    )
    model = make_model("qwen3")
    model.config.use_cache = False  # as X-LoRA wants it
    mixed = peft.get_peft_model(model, mixture).eval()
    enable(mixed.get_base_model(), tokenizer=live.tokenizer)
    with pytest.raises(UnsupportedError, match="use_cache"):  # which X-LoRA sets
        Live(mixed, live.tokenizer).run(QUESTIONS[0], **GREEDY)


class TestCalls:
    """Hooks and calls that take part in every forward pass take part in ours."""

    def test_a_forward_that_was_patched(self) -> None:
        live = make_live("qwen3")
        usual = live.model.forward

        def forward(*args: Any, **kwargs: Any) -> Any:  # names none of its arguments
            output = usual(*args, **kwargs)
            output.logits = -output.logits
            return output

        free = stock(live, QUESTIONS[0])
        live.model.forward = forward
        assert stock(live, QUESTIONS[0]) != free
        assert_stock(live)
        live.model.forward = functools.wraps(usual)(forward)
        assert_stock(live)

    def test_hooks(self) -> None:
        live = make_live("qwen3")
        free = stock(live, QUESTIONS[0])
        steer = torch.randn(64)
        layer = live.model.model.layers[0]
        layer.register_forward_hook(lambda module, args, output: output + steer)
        assert stock(live, QUESTIONS[0]) != free
        assert_stock(live)

    def test_inputs_of_a_models_own(self) -> None:
        """A class, or an object, that feeds itself something else than the prompt's token ids."""
        live = make_live("qwen3")
        usual = live.model.prepare_inputs_for_generation

        class Embeds(Qwen3ForCausalLM):
            def prepare_inputs_for_generation(self, input_ids: Tensor, **kwargs: Any) -> Any:
                made = super().prepare_inputs_for_generation(input_ids, **kwargs)
                return {**made, "input_ids": None, "inputs_embeds": self.get_input_embeddings()(made["input_ids"])}

        def other(input_ids: Tensor, **kwargs: Any) -> Any:
            return usual(input_ids.flip(1), **kwargs)

        def placed(input_ids: Tensor, **kwargs: Any) -> Any:
            return {**usual(input_ids, **kwargs), "position_ids": None}

        for patch, text in ((other, "other token ids"), (placed, "positions of its own")):
            live.model.prepare_inputs_for_generation = patch
            with pytest.raises(UnsupportedError, match=text):
                live.run(QUESTIONS[0], **GREEDY)
        del live.model.prepare_inputs_for_generation
        model = Embeds(live.model.config).eval()
        with pytest.raises(UnsupportedError, match="of Embeds makes inputs_embeds, other token ids of a prompt"):
            Live(enable(model, tokenizer=live.tokenizer), live.tokenizer).run(QUESTIONS[0], **GREEDY)

    def test_positions_are_counted(self) -> None:
        live = make_live("qwen3")
        places = torch.arange(live.inputs(QUESTIONS[0])["input_ids"].shape[1])[None]
        live.run(QUESTIONS[0], **GREEDY, position_ids=places)
        with pytest.raises(UnsupportedError, match="position_ids"):
            live.run(QUESTIONS[0], **GREEDY, position_ids=places + 3)

    @pytest.mark.parametrize(
        ("wrap", "text"),
        [(nn.DataParallel, r"model\.module"), (torch.compile, r"model\._orig_mod")],
        ids=["parallel", "compiled"],
    )
    def test_wrappers_say_what_they_wrap(self, wrap: Any, text: str) -> None:
        with pytest.raises(InputError, match=text):
            enable(wrap(make_model("qwen3")), tokenizer=make_tokenizer())


OWN_WAYS: list[dict[str, Any]] = [
    {"cache_implementation": "hybrid"},
    {"cache_implementation": "offloaded"},
    {"cache_implementation": "static"},
    {"use_cache": False},
    {"num_beams": 4},
    {"do_sample": False, "temperature": None},
    {"num_beams": 3, "num_return_sequences": 3, "output_scores": True, "do_sample": False},
    {"penalty_alpha": 0.6, "top_k": 4},
    {"prompt_lookup_num_tokens": 3},
]


class TestCheckpoints:
    """What a checkpoint's generation config says of how to decode is not what the caller asks for."""

    @pytest.mark.parametrize("ways", OWN_WAYS, ids=str)
    def test_its_ways_to_decode_are_not_ours(self, ways: dict[str, Any], qwen: Live) -> None:
        expected = said(qwen.run(QUESTIONS[0]))
        live = make_live("qwen3")
        for name, value in ways.items():
            setattr(live.model.generation_config, name, value)
        assert said(live.run(QUESTIONS[0])) == expected

    def test_what_the_caller_says_is(self) -> None:
        live = make_live("qwen3")
        live.model.generation_config.num_beams = 4
        asked: list[tuple[dict[str, Any], type[TTSError]]] = [
            ({"num_beams": 4}, UnsupportedError),
            ({"cache_implementation": "offloaded"}, UnsupportedError),
            ({"generation_config": GenerationConfig(num_beams=2)}, UnsupportedError),
            ({"generation_config": GenerationConfig(do_sample=False)}, InputError),
        ]
        for given, error in asked:
            with pytest.raises(error):
                live.run(QUESTIONS[0], **given)

    def test_a_recording_is_made_in_our_way_too(self, tmp_path: Path) -> None:
        live = make_live("qwen3")
        config = live.model.generation_config
        config.num_beams, config.use_cache, config.do_sample = 4, False, False
        options: dict[str, Any] = {"branches": 2, "interval_tokens": 8, "max_new_tokens": 16, "progress": False}
        store = record(live.model, live.tokenizer, [Question("q", QUESTIONS[0])], tmp_path / "store", **options)
        assert len(list(store.trajectories())) == 2
