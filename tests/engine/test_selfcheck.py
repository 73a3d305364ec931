"""The first look at a kind of model: once, on every path, without a trace in the model."""

from __future__ import annotations

import warnings
from typing import Any

import families
import pytest
import torch
from engine_models import QUESTIONS, Live, make_live, make_tokenizer, said
from transformers import AutoModelForCausalLM, BertConfig

from tts_generate.engine import enable, selfcheck
from tts_generate.engine.selfcheck import Paths, checked
from tts_generate.errors import InputError, UnsupportedError


@pytest.fixture(autouse=True)
def nothing_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a new process."""
    monkeypatch.setattr(selfcheck, "_FOUND", {})


def passes(live: Live, **options: Any) -> int:
    """How often a call runs the model."""
    count = 0

    def counted(*_: Any) -> None:
        nonlocal count
        count += 1

    hook = live.model.register_forward_pre_hook(counted)
    try:
        live.run(QUESTIONS[0], **options)
    finally:
        hook.remove()
    return count


def test_once_for_a_configuration_and_not_at_all_if_so_wished() -> None:
    live = make_live("qwen3")
    unchecked = passes(live, self_check=False)
    assert passes(live) > unchecked
    assert passes(live) == unchecked
    checked(make_live("qwen3").model, static=False, tokens=60)
    assert list(selfcheck._FOUND.values()) == [Paths()]
    checked(make_live("llama").model, static=False, tokens=60)
    assert list(selfcheck._FOUND.values()) == [Paths(), Paths()]
    with pytest.raises(InputError, match="self_check must be True or False"):
        live.run(QUESTIONS[0], self_check="no")


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", ["qwen3", "qwen3_mixed"])
def test_rounding_is_no_disagreement(family: str, dtype: torch.dtype, attention: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        checked(make_live(family, dtype=dtype, attention=attention).model, static=False, tokens=60)
        checked(make_live(family, dtype=torch.float32).model, static=True, tokens=60)


def test_dropout_is_left_out_of_it_and_stays_as_it_was() -> None:
    live = make_live("qwen3")
    live.model.config.attention_dropout = 0.5
    live.model.train()
    live.model.model.layers[1].eval()
    before = [module.training for module in live.model.modules()]
    checked(live.model, static=False, tokens=60)
    assert [module.training for module in live.model.modules()] == before


def test_a_path_that_differs_is_named_and_not_taken() -> None:
    """DiffLlama cuts values in halves behind the cache, where a prompt that stands once is not."""
    model = families.make_model("diffllama")
    with pytest.warns(RuntimeWarning, match=r"DiffLlamaForCausalLM is off by .* each branch has a copy instead"):
        assert not checked(model, static=False, tokens=60).shares(200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not checked(model, static=False, tokens=60).shares(200), "told once"


def test_a_model_that_reads_ahead_is_refused_and_one_that_does_not_is_right() -> None:
    sizes = {"vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
    for causal in (False, True):
        config = BertConfig(intermediate_size=64, is_decoder=causal, **sizes)
        live = Live(
            enable(families.trained_scale(AutoModelForCausalLM.from_config(config)), tokenizer=make_tokenizer()),
            make_tokenizer(),
        )
        if causal:
            assert live.run(QUESTIONS[0]).branches
        else:
            with pytest.raises(UnsupportedError, match="reads tokens that come later"):
                live.run(QUESTIONS[0])


def test_what_cannot_be_reached_is_refused_where_a_call_gets_there() -> None:
    """Beyond so many blocks it reads a few of them only, which a short look does not show."""
    config = families.make_config("minimax_m3_vl_text")
    config.index_block_size, config.index_topk_blocks = 128, 16
    model = families.trained_scale(AutoModelForCausalLM.from_config(config))
    checked(model, static=False, tokens=2048)
    with pytest.raises(UnsupportedError, match="may read otherwise from index_topk_blocks=2048 tokens on"):
        checked(model, static=False, tokens=2049)


def test_switched_off_the_model_is_on_its_own() -> None:
    live = Live(enable(families.make_model("bart"), tokenizer=make_tokenizer()), make_tokenizer())
    with pytest.raises(UnsupportedError, match=r"does not say with the key-value cache .* pass self_check=False"):
        live.run(QUESTIONS[0])
    assert live.run(QUESTIONS[0], self_check=False).branches


def test_the_tokens_are_the_same_with_and_without() -> None:
    live = make_live("qwen3_mixed")
    assert said(live.run(*QUESTIONS)) == said(live.run(*QUESTIONS, self_check=False))
