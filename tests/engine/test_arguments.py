"""Every argument of the doors that take a model: right, or one clear error before anything is decoded."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_models import QUESTIONS, Live, make_model, make_tokenizer
from tokenizers import decoders
from transformers import GenerationConfig

from tts_generate import AutoTTS, Question, ServerModel, enable, record
from tts_generate.arguments import fits, hints_of
from tts_generate.engine import generate_distributed
from tts_generate.engine.record import RECORDED
from tts_generate.errors import InputError, TTSError, UnsupportedError
from tts_generate.loading import builtin_folder
from tts_generate.processors import MaxBranches
from tts_generate.recipe import answer

SHORT = {"controller": "self_consistency", "beta": 0.0, "interval_tokens": 8, "max_new_tokens": 8, "seed": 0}
HUGE = 10**30
JUNK = [True, -1, 0, HUGE, 1.5, float("nan"), float("inf"), "", "nonsense", "a\0b", b"bytes", [], [1], [None], {},
        {1: 2}, {"a": 1}, object(), lambda: None, torch.zeros(2)]  # fmt: skip
MAY_BE_LARGE = {"max_rows", "max_cache_bytes", "ahead_rows", "sync_every"}
"""Bounds: 10**30 bounds nothing."""


@pytest.fixture(scope="module")
def plain() -> Any:
    """A stock model."""
    return make_model("qwen3")


class TestJunk:
    """In the place of one argument: an error of ours that names it, or a value that its hint allows."""

    @pytest.mark.parametrize("name", sorted(hints_of(AutoTTS.__init__)))
    def test_of_a_recipe(self, qwen: Live, name: str) -> None:
        hint = hints_of(AutoTTS.__init__)[name]
        for junk in JUNK:
            options = {**SHORT, "progress": False, name: junk}
            try:
                output = qwen.model.generate(**qwen.inputs(QUESTIONS[0]), strategy="autotts", **options)
                for _ in output if name == "stream" else []:
                    pass
            except TTSError:
                continue
            assert fits(junk, hint), f"{name}={junk!r} was taken without a word"
            assert junk is not HUGE or name in MAY_BE_LARGE | {"seed"}

    @pytest.mark.parametrize("name", sorted({*hints_of(record), *RECORDED} - {"model"}))
    def test_of_a_recording(
        self, qwen: Live, plain: Any, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        good = {"questions": [Question("a", QUESTIONS[0], "3")], "tokenizer": qwen.tokenizer, "branches": 1,
                "interval_tokens": 8, "max_new_tokens": 8, "progress": False}  # fmt: skip
        hint = {**hints_of(AutoTTS.__init__), **hints_of(record)}[name]
        for number, junk in enumerate(JUNK):
            if name == "branches" and junk is HUGE:
                continue  # as many as were asked for
            try:
                record(plain, **{**good, "out": tmp_path / str(number), name: junk})
            except TTSError:
                continue
            assert fits(junk, hint), f"{name}={junk!r} was taken without a word"

    @pytest.mark.parametrize("name", ["tokenizer", "model"])
    def test_of_enable(self, plain: Any, name: str) -> None:
        for junk in JUNK:
            with pytest.raises(InputError, match=name):
                enable(**{"model": plain, "tokenizer": make_tokenizer(), name: junk})


WRONG: list[tuple[dict[str, Any], type[TTSError], str]] = [
    ({"controller_kwargs": [1]}, InputError, "controller_kwargs must be a mapping"),
    ({"controller_kwargs": {1: 2}}, InputError, "controller_kwargs must be a mapping"),
    ({"controller_kwargs": {"beta": 0.3}}, InputError, "pass beta= itself"),
    ({"controller_kwargs": {"controller": "cmc"}}, InputError, "pass controller= itself"),
    ({"probe_suffix": 3}, InputError, "probe_suffix must be a text"),
    ({"max_probe_tokens": 1.5}, InputError, "max_probe_tokens must be a whole number"),
    ({"branch_processors": MaxBranches(3)}, InputError, "branch_processors must be a sequence of BranchProcessor"),
    ({"seed": True}, InputError, "seed must be a whole number"),
    ({"streamer": object()}, InputError, "put and end"),
    ({"tokenizer": "gpt2"}, InputError, "got 'gpt2'"),
    ({"stop_strings": 3}, InputError, "stop_strings must be"),
    ({"stop_strings": ["a", ""]}, InputError, "one character or more"),
    ({"stop_strings": "a"}, InputError, "cannot look for stop_strings in the vocabulary"),
    ({"max_branches": HUGE}, InputError, "max_branches must be 100,000 at most"),
    ({"seed": 1 << 63}, InputError, "seed must be a whole number of 64 bits"),
    ({"negative_prompt_ids": torch.tensor([[1]])}, UnsupportedError, "negative_prompt_ids"),
    ({"synced_gpus": True}, UnsupportedError, "synced_gpus"),
    ({"assistant_model": make_model}, UnsupportedError, "assistant_model"),
    ({"inputs_embeds": torch.zeros(1, 4, 64)}, TTSError, "token ids only"),
]  # fmt: skip


@pytest.mark.parametrize(("wrong", "error", "text"), WRONG, ids=[next(iter(case[0])) for case in WRONG])
def test_wrong_options(qwen: Live, wrong: dict[str, Any], error: type[TTSError], text: str) -> None:
    inputs = {} if "inputs_embeds" in wrong else qwen.inputs(QUESTIONS[0])
    with pytest.raises(error, match=text):
        qwen.model.generate(**inputs, strategy="autotts", **{**SHORT, **wrong})


@pytest.mark.parametrize("name", ["probe_suffix", "think_end", "answer_pattern", "max_probe_tokens", "interval_tokens"])
def test_wrong_options_in_a_generation_config(qwen: Live, name: str) -> None:
    fields = {"max_new_tokens": 8, "interval_tokens": 8, "eos_token_id": 2, "pad_token_id": 0, "do_sample": True}
    config = GenerationConfig(**{**fields, name: [3]})
    with pytest.raises(InputError, match=rf"{name} must be .*, got \[3\]"):
        qwen.model.generate(**qwen.inputs(QUESTIONS[0]), generation_config=config, strategy="autotts")


def test_a_generation_config_by_its_place(qwen: Live) -> None:
    """As transformers' generate takes one: second, behind the prompts."""
    ids = qwen.inputs(QUESTIONS[0])["input_ids"]
    fields = {"max_new_tokens": 16, "interval_tokens": 8, "eos_token_id": 2, "pad_token_id": 0, "controller": "asc"}
    sampled = GenerationConfig(**fields, do_sample=True, strategy="autotts", return_dict_in_generate=True)
    by_place, by_name = (qwen.model.generate(ids, *args, **how, seed=0) for args, how in (
        ((sampled,), {}), ((), {"generation_config": sampled})
    ))  # fmt: skip
    assert by_place.branches == by_name.branches
    assert by_place.trace[0].controller == by_name.trace[0].controller
    fewer = GenerationConfig(**fields, do_sample=True, strategy="autotts", max_branches=2)  # it was ignored
    with pytest.raises(InputError, match="says max_branches, which only a call can"):
        qwen.model.generate(ids, fewer)
    qwen.model.generate(ids, fewer, max_branches=64)
    greedy = GenerationConfig(**fields, do_sample=False)
    with pytest.raises(InputError, match="do_sample=False"):
        qwen.model.generate(ids, greedy, strategy="autotts")
    stopped = GenerationConfig(**fields, do_sample=True, stop_strings=["7"])
    with pytest.raises(InputError, match="look for stop_strings"):  # by us, who have its tokenizer
        qwen.model.generate(ids, stopped, strategy="autotts")
    with pytest.raises(TypeError, match="inputs"):
        qwen.model.generate(ids, inputs=ids, strategy="autotts")


@pytest.mark.parametrize("knobs", [[1], {1: 2}, {"beta": 0.3}, {"nonsense": 1}])
def test_knobs_at_the_door_of_a_repo(qwen: Live, plain: Any, knobs: Any) -> None:
    card = (builtin_folder("cmc") / "controller.json").read_text()
    code = builtin_folder("cmc") / "controller.py"
    with pytest.raises(InputError, match=r"controller_kwargs|unknown knob"):
        answer(
            plain, card, code, {**qwen.inputs(QUESTIONS[0]), "tokenizer": qwen.tokenizer, "controller_kwargs": knobs}
        )


@pytest.mark.parametrize("knobs", [[1], {1: 2}, {"beta": 0.3}, {"nonsense": 1}])
def test_knobs_of_a_server(knobs: Any) -> None:
    with pytest.raises(InputError, match=r"controller_kwargs|unknown knob"):
        ServerModel("http://127.0.0.1:9/v1", model="m", api_key="k").generate("q", controller_kwargs=knobs)


def test_numbers_of_numpy_are_numbers(qwen: Live) -> None:
    numbers = {"seed": 3, "interval_tokens": 8, "max_rows": 4, "ahead_rows": 4, "max_probe_tokens": 4, "sync_every": 2}
    options = {**SHORT, "beta": 0.5, "max_new_tokens": 16, "strategy": "autotts", "return_dict_in_generate": True}
    inputs = qwen.inputs(QUESTIONS[0])
    ours = qwen.model.generate(**inputs, **{**options, **numbers})
    theirs = qwen.model.generate(**inputs, **{**options, **{name: np.int64(n) for name, n in numbers.items()}})
    assert ours.branches == theirs.branches
    assert type(theirs.seed) is int


IDS = torch.tensor([[7, 8, 9], [8, 9, 10]])
MASK = torch.tensor([[0, 1, 1], [1, 1, 1]])
PROMPTS: list[tuple[Any, Any, str]] = [
    (IDS.float(), None, "whole numbers"),
    (IDS.bool(), None, "whole numbers"),
    (IDS[0], None, "whole numbers in a tensor"),
    (IDS[None], None, "whole numbers in a tensor"),
    (IDS.tolist(), None, "whole numbers in a tensor"),
    (IDS.numpy(), None, "whole numbers in a tensor"),
    ({"input_ids": IDS}, None, "whole numbers in a tensor"),
    ("Q: a = 3", None, "whole numbers in a tensor"),
    (IDS[:0], None, "holds no question"),
    (IDS[:, :0], None, "empty"),
    (IDS, torch.zeros_like(IDS), "prompt 0 is empty"),
    (IDS, MASK * 2, "1 for tokens and 0 for padding"),
    (IDS, -MASK, "1 for tokens and 0 for padding"),
    (IDS, MASK * 0.5, "1 for tokens and 0 for padding"),
    (IDS, MASK.float().masked_fill(MASK == 0, torch.nan), "1 for tokens and 0 for padding"),
    (IDS, MASK[:, 1:], "attention_mask must be"),
    (IDS, torch.ones(2, 5, dtype=torch.long), "attention_mask must be"),
    (IDS, MASK[:1], "attention_mask must be"),
    (IDS, MASK[0], "attention_mask must be"),
    (IDS, MASK.tolist(), "attention_mask must be"),
    (IDS, "mask", "attention_mask must be"),
    (IDS + 30, None, "the model knows 0 to 34"),
    (torch.tensor([[7, -1, 9]]), None, "token id -1"),
]


class TestPrompts:
    @pytest.mark.parametrize(("ids", "mask", "text"), PROMPTS)
    def test_at_the_door(self, qwen: Live, ids: Any, mask: Any, text: str) -> None:
        for given in ((ids,), ()):
            named = {} if given else {"input_ids": ids}
            with pytest.raises(InputError, match=text):
                qwen.model.generate(*given, **named, attention_mask=mask, strategy="autotts", **SHORT)

    @pytest.mark.parametrize(("ids", "mask", "text"), PROMPTS)
    def test_a_recipe_takes_none_of_them_either(self, qwen: Live, plain: Any, ids: Any, mask: Any, text: str) -> None:
        """transformers looks at prompts and masks first, and in some cases says so itself."""
        own = {name: value for name, value in SHORT.items() if name != "max_new_tokens"}
        recipe = AutoTTS(tokenizer=qwen.tokenizer, **own)
        with pytest.raises((ValueError, IndexError, RuntimeError, TypeError, AttributeError)):
            plain.generate(ids, attention_mask=mask, custom_generate=recipe, max_new_tokens=8, do_sample=True)

    def test_other_whole_numbers_and_masks_are_taken(self, qwen: Live) -> None:
        options = {"strategy": "autotts", "return_dict_in_generate": True, **SHORT}
        expected = qwen.model.generate(IDS, attention_mask=MASK, **options)
        for dtype in (torch.int32, torch.int64):
            for kind in (torch.bool, torch.float32, torch.int32):
                found = qwen.model.generate(IDS.to(dtype), attention_mask=MASK.to(kind), **options)
                assert found.branches == expected.branches

    @pytest.mark.parametrize("way", ["strategy", "recipe", "stream"])
    def test_padding_may_be_on_either_side(self, qwen: Live, plain: Any, way: str) -> None:
        """The mask says what is prompt; processors that count from the padded prompt count alike, too."""
        more = {"min_new_tokens": 12, "repetition_penalty": 1.2, "no_repeat_ngram_size": 4, "temperature": 0.9}
        more |= {"max_new_tokens": 24, "return_dict_in_generate": True}
        own = {name: value for name, value in SHORT.items() if name != "max_new_tokens"} | {"seed": 3}
        found = {}
        for side in ("left", "right"):
            batch = qwen.tokenizer(QUESTIONS, return_tensors="pt", padding=True, padding_side=side)
            inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
            if way == "recipe":
                recipe = AutoTTS(tokenizer=qwen.tokenizer, **own)
                outputs = [plain.generate(**inputs, custom_generate=recipe, do_sample=True, **more)]
            else:
                given = {**own, **more, "stream": way == "stream"}
                output = qwen.model.generate(**inputs, strategy="autotts", **given)
                outputs = [*output] if way == "stream" else [output]
            width = inputs["input_ids"].shape[1]
            for each in outputs:
                assert torch.equal(each.sequences[:, :width], inputs["input_ids"][each.questions]), "as they were given"
            found[side] = [(each.questions, each.answers, each.branches, each.cost) for each in outputs]
            found[side] += [each.sequences[:, width:].tolist() for each in outputs]
        assert found["left"] == found["right"]

    def test_padding_on_both_sides(self, qwen: Live) -> None:
        options = {"strategy": "autotts", "return_dict_in_generate": True, **SHORT}
        ids, mask = torch.tensor([[0, 7, 8, 0], [9, 8, 7, 10]]), torch.tensor([[0, 1, 1, 0], [1, 1, 1, 1]])
        found = qwen.model.generate(ids, attention_mask=mask, **options)
        left = qwen.model.generate(ids[:, [0, 3, 1, 2]], attention_mask=mask[:, [0, 3, 1, 2]], **options)
        assert found.branches[0] == left.branches[0]

    def test_padding_may_be_any_number(self, qwen: Live) -> None:
        options = {"attention_mask": MASK, "strategy": "autotts", "return_dict_in_generate": True, **SHORT}
        expected = qwen.model.generate(IDS, **options)
        assert qwen.model.generate(IDS.masked_fill(MASK == 0, -100), **options).branches == expected.branches

    @pytest.mark.parametrize(("ids", "mask", "text"), PROMPTS)
    def test_shared_out(self, qwen: Live, ids: Any, mask: Any, text: str) -> None:
        with pytest.raises(InputError, match=text):
            generate_distributed(qwen.model, input_ids=ids, attention_mask=mask, **SHORT)


OPTIONS = {**SHORT, "beta": 0.5, "max_new_tokens": 40}
ASK = {"do_sample": True, "top_k": 0, "return_dict_in_generate": True}


class TestStopStrings:
    """transformers makes a criterion of them before it calls a recipe, and keeps the tokenizer for itself."""

    @pytest.fixture(scope="class")
    def fused(self) -> Any:
        tokenizer = make_tokenizer()
        tokenizer.backend_tokenizer.decoder = decoders.Fuse()  # transformers' criterion wants text without spaces
        return tokenizer

    def check(self, output: Any, fused: Any) -> None:
        ended = [b for q in output.branches for b in q if b.finish_reason == "stop"]
        assert ended
        assert all(fused.decode(b.token_ids).endswith(("+", "7")) for b in ended)

    def recipe(self, fused: Any, **more: Any) -> AutoTTS:
        return AutoTTS(tokenizer=fused, **{k: v for k, v in OPTIONS.items() if k != "max_new_tokens"}, **more)

    @pytest.mark.parametrize("where", ["model", "config", "call", "recipe"])
    @pytest.mark.parametrize("door", ["strategy", "custom_generate"])
    def test_of_an_enabled_model(self, fused: Any, where: str, door: str) -> None:
        live = Live(enable(make_model("qwen3"), tokenizer=fused), fused)
        more: dict[str, Any] = {}
        if where == "model":
            live.model.generation_config.stop_strings = ["+", "7"]
        if where == "config":
            more["generation_config"] = GenerationConfig(
                stop_strings=["+", "7"], max_new_tokens=40, eos_token_id=2, pad_token_id=0, **ASK
            )
        if where == "call":
            more["stop_strings"] = ["+", "7"]
        if where == "recipe" and door == "strategy":
            more["stop_strings"] = ("+", "7")
        if door == "strategy":
            options = {"strategy": "autotts", **OPTIONS}
        else:
            strings = ["+", "7"] if where == "recipe" else None
            options = {"custom_generate": self.recipe(fused, stop_strings=strings), "tokenizer": fused}
            options["max_new_tokens"] = 40
        if where == "config":
            options.pop("max_new_tokens")
        self.check(live.model.generate(**live.inputs(*QUESTIONS), **{**ASK, **options, **more}), fused)

    def test_of_a_stock_model(self, qwen: Live, plain: Any, fused: Any) -> None:
        recipe = self.recipe(fused, stop_strings=["+", "7"])
        output = plain.generate(**qwen.inputs(*QUESTIONS), custom_generate=recipe, max_new_tokens=40, **ASK)
        self.check(output, fused)
        stopping = copy.deepcopy(plain)
        stopping.generation_config.stop_strings = "b"
        output = stopping.generate(
            **qwen.inputs(*QUESTIONS), custom_generate=recipe, max_new_tokens=40, stop_strings=None, **ASK
        )
        self.check(output, fused)

    def test_none_turns_those_of_the_model_off(self, qwen: Live, fused: Any) -> None:
        live = Live(enable(make_model("qwen3"), tokenizer=fused), fused)
        live.model.generation_config.stop_strings = ["+", "7"]
        options = {"controller": "self_consistency", "beta": 0.0}
        found, expected = (each.run(*QUESTIONS, **options, stop_strings=None) for each in (live, qwen))
        ids = [[[b.token_ids for b in branches] for branches in each.branches] for each in (found, expected)]
        assert ids[0] == ids[1]
        assert live.model.generation_config.stop_strings == ["+", "7"]

    def test_those_of_the_call_come_before_the_recipes_and_those_before_the_models(self, fused: Any) -> None:
        live = Live(enable(make_model("qwen3"), tokenizer=fused), fused)
        live.model.generation_config.stop_strings = ["b"]
        options = {"strategy": "autotts", **OPTIONS, **ASK}
        self.check(live.model.generate(**live.inputs(*QUESTIONS), **options, stop_strings=["+", "7"]), fused)
        recipe = self.recipe(fused, stop_strings=["+", "7"])
        self.check(
            live.model.generate(**live.inputs(*QUESTIONS), custom_generate=recipe, max_new_tokens=40, **ASK), fused
        )

    def test_of_a_recording(self, plain: Any, fused: Any, tmp_path: Path) -> None:
        """They shape its branches, so that it does not go on with others."""
        asked = [Question(str(n), question, "1") for n, question in enumerate(QUESTIONS)]
        options = {"branches": 3, "interval_tokens": 8, "max_new_tokens": 40, "top_k": 0, "progress": False}
        stopping = copy.deepcopy(plain)
        stopping.generation_config.stop_strings = ["+", "7"]
        store = record(stopping, fused, asked, tmp_path / "kept", **options)
        assert store.manifest.generation_config["stop_strings"] == ["+", "7"]
        given = record(plain, fused, asked, tmp_path / "given", stop_strings=["+", "7"], **options)
        rows = [each.trajectories() for each in (store, given)]
        assert rows[0] == rows[1]
        assert any(row.finish_reason == "stop" for row in rows[0])
        with pytest.raises(TTSError, match="stop_strings"):
            record(plain, fused, asked, tmp_path / "kept", **options)
