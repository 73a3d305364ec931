"""The doors, what they honour, and what they refuse."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from engine_models import QUESTIONS, WORDS, Live, make_live, make_model, make_tokenizer
from tokenizers import decoders
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MambaConfig,
    MambaForCausalLM,
    StoppingCriteria,
    StoppingCriteriaList,
    T5Config,
    T5ForConditionalGeneration,
    pipeline,
)
from transformers.generation.streamers import BaseStreamer

import tts_generate
from tts_generate.engine import AutoTTS, enable
from tts_generate.engine.generate import EnabledGenerate
from tts_generate.errors import ControllerError, InputError, TTSError, UnknownNameError, UnsupportedError
from tts_generate.loading import DEFAULT_CONTROLLER
from tts_generate.processors import MaxBranches, TokenBudget
from tts_generate.trajectories import Trajectory


class TestDoors:
    def test_plain_return_is_prompt_and_winning_branch(self, qwen: Live) -> None:
        output = qwen.run(*QUESTIONS)
        sequences = qwen.run(*QUESTIONS, return_dict_in_generate=False)
        assert torch.equal(sequences, output.sequences)
        inputs = qwen.inputs(*QUESTIONS)["input_ids"]
        assert torch.equal(sequences[:, : inputs.shape[1]], inputs)
        for row, winner, branches in zip(sequences, output.winners, output.branches, strict=True):
            shown = row[inputs.shape[1] :].tolist()
            ids = list(branches[winner].token_ids)
            assert shown[: len(ids)] == ids

    def test_custom_generate_is_the_second_door(self, qwen: Live) -> None:
        stock = make_model("qwen3")
        options = {"seed": 0, "interval_tokens": 8, "max_probe_tokens": 4, "tokenizer": qwen.tokenizer}
        sampling = {"max_new_tokens": 40, "do_sample": True, "top_k": 0, "return_dict_in_generate": True}
        recipe = AutoTTS("cmc", beta=0.5, **options)
        output = stock.generate(**qwen.inputs(*QUESTIONS), custom_generate=recipe, **sampling)
        expected = qwen.run(*QUESTIONS)
        assert output.branches == expected.branches
        assert output.cost == expected.cost

    def test_without_strategy_generate_is_the_models_own(self, qwen: Live) -> None:
        inputs = qwen.inputs(QUESTIONS[0])
        expected = make_model("qwen3").generate(**inputs, max_new_tokens=8, do_sample=False)
        assert torch.equal(qwen.model.generate(**inputs, max_new_tokens=8, do_sample=False), expected)
        assert torch.equal(qwen.model.generate(inputs["input_ids"], max_new_tokens=8, do_sample=False), expected)

    def test_controller_and_beta_may_stand_there_too(self, qwen: Live) -> None:
        kept = {"strategy": "autotts", "controller": "asc", "beta": 0.2, "controller_kwargs": {"max_samples": 6}}
        sampling = {"max_new_tokens": 40, "top_k": 0, "interval_tokens": 8, "return_dict_in_generate": True}
        config = GenerationConfig(**sampling, **kept, eos_token_id=WORDS["<eos>"], pad_token_id=0)
        output = qwen.model.generate(**qwen.inputs(QUESTIONS[0]), generation_config=config, seed=0)
        assert output.trace[0].controller["controller"] == "ASC"
        assert len(output.branches[0]) <= 6
        config.controller = "nope"
        with pytest.raises(UnknownNameError, match="nope"):
            qwen.model.generate(**qwen.inputs(QUESTIONS[0]), generation_config=config, seed=0)
        given = qwen.model.generate(
            **qwen.inputs(QUESTIONS[0]), generation_config=config, seed=0, controller="cmc", controller_kwargs={}
        )
        assert given.trace[0].controller["controller"] == "CMC"

    def test_survives_pickle_and_deepcopy(self, qwen: Live) -> None:
        expected = qwen.run(QUESTIONS[1])
        for twin in (copy.deepcopy(qwen.model), pickle.loads(pickle.dumps(qwen.model))):
            assert isinstance(twin.generate, EnabledGenerate)
            assert twin.generate.model is twin
            assert Live(twin, qwen.tokenizer).run(QUESTIONS[1]).branches == expected.branches

    def test_enable_twice_is_enable_once(self) -> None:
        model, tokenizer = make_model("llama"), make_tokenizer()
        assert enable(enable(model, tokenizer=tokenizer), tokenizer=tokenizer) is model
        assert model.generate.plain is None

    def test_nothing_global_is_touched(self, qwen: Live) -> None:
        other = make_model("qwen3")
        with pytest.raises(ValueError, match="strategy"):
            other.generate(**qwen.inputs(QUESTIONS[0]), strategy="autotts", max_new_tokens=40)

    def test_strategy_may_stand_in_the_generation_config(self, qwen: Live) -> None:
        config = GenerationConfig(
            strategy="autotts", interval_tokens=8, max_new_tokens=40, do_sample=True, top_k=0, max_probe_tokens=4,
            eos_token_id=2, pad_token_id=0, return_dict_in_generate=True,
        )  # fmt: skip
        output = qwen.model.generate(**qwen.inputs(*QUESTIONS), generation_config=config, beta=0.5, seed=0)
        assert output.branches == qwen.run(*QUESTIONS, controller=DEFAULT_CONTROLLER).branches

    def test_pipeline(self, qwen: Live) -> None:
        generate = pipeline("text-generation", model=qwen.model, tokenizer=qwen.tokenizer)
        options = {"controller": "cmc", "beta": 0.2, "seed": 0, "interval_tokens": 8, "max_new_tokens": 40}
        (row,) = generate(QUESTIONS[0], strategy="autotts", do_sample=True, **options)
        assert row["generated_text"]

    def test_lazy_names_reach_the_engine(self) -> None:
        assert tts_generate.enable is enable
        assert tts_generate.AutoTTS is AutoTTS

    def test_an_exception_leaves_the_model_as_it_was(self, qwen: Live) -> None:
        class Broken(LogitsProcessor):
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                raise RuntimeError("broken processor")

        before = qwen.run(QUESTIONS[0])
        with pytest.raises(RuntimeError, match="broken processor"):
            qwen.run(QUESTIONS[0], logits_processor=LogitsProcessorList([Broken()]))
        assert qwen.run(QUESTIONS[0]).branches == before.branches


class Ban(LogitsProcessor):
    """Forbids a token; sees the branch's own ids only."""

    def __init__(self, token: int, prompts: list[list[int]]) -> None:
        self.token, self.prompts = token, prompts

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        assert any(row[: len(p)] == p for row in input_ids.tolist() for p in self.prompts)
        return scores.index_fill(1, torch.tensor([self.token]), -torch.inf)


class EndsOn(StoppingCriteria):
    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return input_ids[:, -1] == self.token


def read(branches: list[Trajectory]) -> list[Any]:
    """What was decoded; log-probabilities of one branch differ in the last bits with the rows beside it."""
    return [(b.token_ids, b.probe_answers, b.probe_tokens, b.final_answer, b.finish_reason) for b in branches]


class TestHonoured:
    def test_users_logits_processor_sees_each_branch(self, qwen: Live) -> None:
        token = WORDS["a"]
        assert any(token in b.token_ids for q in qwen.run(*QUESTIONS).branches for b in q)
        prompts = [list(qwen.tokenizer(question)["input_ids"]) for question in QUESTIONS]
        output = qwen.run(*QUESTIONS, logits_processor=LogitsProcessorList([Ban(token, prompts)]))
        assert not any(token in b.token_ids for q in output.branches for b in q)

    def test_stopping_criteria_end_a_branch_alone(self, qwen: Live) -> None:
        token = WORDS["7"]
        output = qwen.run(*QUESTIONS, stopping_criteria=StoppingCriteriaList([EndsOn(token)]))
        ended = [b for q in output.branches for b in q if b.finish_reason == "stop"]
        assert ended
        assert all(b.token_ids[-1] == token and token not in b.token_ids[:-1] for b in ended)
        free = qwen.run(*QUESTIONS).branches
        assert all(a.token_ids == b.token_ids[: a.tokens] for p, q in zip(output.branches, free, strict=True)
                   for a, b in zip(p, q, strict=False) if b.tokens >= a.tokens)  # fmt: skip

    def test_stop_strings(self, qwen: Live) -> None:
        fused = make_tokenizer()
        fused.backend_tokenizer.decoder = decoders.Fuse()  # transformers' criterion wants text without spaces put in
        output = qwen.run(*QUESTIONS, stop_strings=["+5"], tokenizer=fused, controller="self_consistency", beta=1.0)
        ended = [b for q in output.branches for b in q if b.finish_reason == "stop"]
        assert ended
        assert all(fused.decode(b.token_ids).endswith("+5") for b in ended)

    def test_min_new_tokens_counts_no_padding(self, qwen: Live) -> None:
        output = qwen.run(*QUESTIONS, min_new_tokens=20, controller="self_consistency")
        assert min(b.tokens for q in output.branches for b in q) >= 20
        alone = qwen.run(QUESTIONS[0], min_new_tokens=20, controller="self_consistency")
        assert read(alone.branches[0]) == read(output.branches[0])  # though it is the shortest of the prompts

    def test_repetition_penalty_changes_a_branch_as_a_plain_pass_would(self, qwen: Live) -> None:
        alone = qwen.run(QUESTIONS[0], repetition_penalty=3.0)
        batched = qwen.run(*QUESTIONS, repetition_penalty=3.0)
        assert read(alone.branches[0]) == read(batched.branches[0])
        assert read(alone.branches[0]) != read(qwen.run(QUESTIONS[0]).branches[0])

    @pytest.mark.parametrize("kind", [list, tuple, torch.tensor])
    def test_several_eos_ids(self, qwen: Live, kind: Any) -> None:
        ends = [WORDS["<eos>"], WORDS["5"]]
        output = qwen.run(*QUESTIONS, eos_token_id=kind(ends))
        last = {b.token_ids[-1] for q in output.branches for b in q if b.finish_reason == "eos"}
        assert last == set(ends)

    @pytest.mark.parametrize("sampling", [{"top_k": 5}, {"top_k": 5, "top_p": 0.8}, {"top_p": 0.7}, {"min_p": 0.2}])
    def test_only_allowed_tokens_are_drawn(self, qwen: Live, sampling: dict[str, Any]) -> None:
        free = qwen.run(*QUESTIONS, controller="self_consistency").branches
        tight = qwen.run(*QUESTIONS, controller="self_consistency", **sampling).branches
        assert mean_logprob(tight) > mean_logprob(free)

    def test_greedy_temperature_limit(self, qwen: Live) -> None:
        """At a temperature near 0 all branches are the greedy one."""
        output = qwen.run(QUESTIONS[0], temperature=1e-6, controller="self_consistency", beta=0.0)
        plain = qwen.model.generate(**qwen.inputs(QUESTIONS[0]), do_sample=False, max_new_tokens=40)
        length = qwen.inputs(QUESTIONS[0])["input_ids"].shape[1]
        assert {b.token_ids for b in output.branches[0]} == {tuple(plain[0, length:].tolist())}

    def test_branch_processors(self, qwen: Live) -> None:
        output = qwen.run(*QUESTIONS, controller="self_consistency", branch_processors=[MaxBranches(3)])
        assert {len(branches) for branches in output.branches} == {3}
        output = qwen.run(*QUESTIONS, branch_processors=[TokenBudget(200)])
        assert all(c.generated_tokens + c.probe_tokens <= 200 for c in output.cost)


def mean_logprob(branches: list[list[Any]]) -> float:
    rows = [b for question in branches for b in question]
    steps = [(v, b) for b in rows for v in b.step_logprobs]
    return float(sum(v for v, _ in steps) / len(steps))


REFUSED: list[tuple[dict[str, Any], type[TTSError], str]] = [
    ({"controller": "cmcc"}, UnknownNameError, "did you mean 'cmc'"),
    ({"controller": "/nowhere"}, UnknownNameError, "controller.json"),
    ({"strategy": "autots"}, UnknownNameError, "did you mean 'autotts'"),
    ({"betta": 0.5}, UnknownNameError, "did you mean 'beta'"),
    ({"beta": 1.5}, InputError, "from 0"),
    ({"beta": -0.1}, InputError, "from 0"),
    ({"beta": float("nan")}, InputError, "beta must be a number"),
    ({"beta": "much"}, InputError, "beta must be a number"),
    ({"controller_kwargs": {"n_inti": 3}}, UnknownNameError, "did you mean 'n_init'"),
    ({"controller_kwargs": {"n_init": 2.5}}, InputError, "whole number"),
    ({"seed": 1.5}, InputError, "seed"),
    ({"tokenizer": None}, InputError, "tokenizer"),
    ({"interval_tokens": 0}, InputError, "interval_tokens"),
    ({"interval_tokens": 41}, InputError, "max_new_tokens=40 is less than one step"),
    ({"max_rows": 0}, InputError, "max_rows"),
    (
        {"max_new_tokens": 250},
        InputError,
        r"context of 256\. Shorten the prompt or pass max_new_tokens=[12]\d\d or less\.$",
    ),
    ({"do_sample": False}, InputError, "do_sample=True"),
    ({"num_beams": 4}, UnsupportedError, "beam"),
    ({"num_return_sequences": 4}, UnsupportedError, "max_samples"),
    ({"output_scores": True}, UnsupportedError, "output_scores"),
    ({"output_hidden_states": True}, UnsupportedError, "output_hidden_states"),
    ({"use_cache": False}, UnsupportedError, "use_cache"),
    ({"cache_implementation": "offloaded"}, UnsupportedError, "cache_implementation"),
    ({"guidance_scale": 2.0}, UnsupportedError, "guidance_scale"),
    ({"prefix_allowed_tokens_fn": lambda batch, ids: [1]}, UnsupportedError, "prefix_allowed_tokens_fn"),
    ({"prompt_lookup_num_tokens": 3}, UnsupportedError, "assisted"),
    ({"streamer": BaseStreamer()}, InputError, "one question"),
    ({"stream": 1}, InputError, "stream"),
    ({"max_cache_bytes": 0}, InputError, "max_cache_bytes"),
    ({"sync_every": 0}, InputError, "sync_every"),
    ({"custom_generate": lambda *a: None}, UnsupportedError, "custom_generate"),
    ({"answer_pattern": "("}, InputError, "regular expression"),
    ({"branch_processors": ["x"]}, InputError, "BranchProcessor"),
    ({"controller": "self_consistency", "beta": 1.0, "max_branches": 8}, ControllerError, "max_branches"),
]


class TestRefused:
    @pytest.mark.parametrize(("wrong", "error", "text"), REFUSED, ids=[",".join(case[0]) for case in REFUSED])
    def test_one_clear_error_before_anything_is_decoded(
        self, qwen: Live, wrong: dict[str, Any], error: type[TTSError], text: str
    ) -> None:
        calls: list[int] = []
        hook = qwen.model.register_forward_pre_hook(lambda module, args: calls.append(1))
        strategy = wrong.get("strategy", "autotts")
        options = {
            "max_new_tokens": 40,
            "interval_tokens": 8,
            "seed": 0,
            **{k: v for k, v in wrong.items() if k != "strategy"},
        }
        try:
            with pytest.raises(error, match=text):
                qwen.model.generate(**qwen.inputs(*QUESTIONS), strategy=strategy, **options)
        finally:
            hook.remove()
        assert not calls

    def test_controller_without_strategy(self, qwen: Live) -> None:
        with pytest.raises(InputError, match="strategy='autotts'"):
            qwen.model.generate(**qwen.inputs(QUESTIONS[0]), controller="cmc")

    def test_prompts(self, qwen: Live) -> None:
        empty = torch.zeros((1, 3), dtype=torch.long)
        options = {"strategy": "autotts", "max_new_tokens": 40, "interval_tokens": 8}
        with pytest.raises(InputError, match="empty"):
            qwen.model.generate(empty, attention_mask=torch.zeros_like(empty), **options)
        hole = {"input_ids": torch.tensor([[7, 8, 9], [7, 0, 9]]), "attention_mask": torch.tensor([[1] * 3, [1, 0, 1]])}
        with pytest.raises(InputError, match="prompt 1 has padding between its tokens"):
            qwen.model.generate(**hole, **options)
        with pytest.raises(InputError, match=r"context of 256\. Shorten the prompt\.$"):
            qwen.model.generate(torch.full((1, 250), 8), **options)

    def test_models(self) -> None:
        tokenizer = make_tokenizer()
        t5 = T5ForConditionalGeneration(T5Config(vocab_size=40, d_model=16, d_ff=16, d_kv=8, num_layers=1, num_heads=2))
        with pytest.raises(UnsupportedError, match="encoder-decoder"):
            enable(t5, tokenizer=tokenizer)
        mamba = MambaForCausalLM(MambaConfig(vocab_size=40, hidden_size=16, num_hidden_layers=1))
        with pytest.raises(UnsupportedError, match="keys and values in no layer"):
            enable(mamba, tokenizer=tokenizer)
        with pytest.raises(InputError, match="tokenizer"):
            enable(make_model("llama"), tokenizer=None)
        with pytest.raises(InputError, match="AutoModelForCausalLM"):
            enable("gpt2", tokenizer=tokenizer)  # type: ignore[arg-type]

    def test_rope_that_depends_on_the_batch(self) -> None:
        """Dynamic rope rescales every row by the longest one: refused where a branch could get there, allowed below."""
        live = make_live("llama_dynamic")
        with pytest.raises(UnsupportedError, match="dynamic rope"):
            live.run(QUESTIONS[0], max_new_tokens=90)
        assert live.run(QUESTIONS[0], max_new_tokens=16).answers

    def test_nan_logits_name_the_branch(self) -> None:
        live = make_live("qwen3")
        with torch.no_grad():
            live.model.lm_head.weight.fill_(float("nan"))
        with pytest.raises(TTSError, match="NaN logits"):
            live.run(QUESTIONS[0])

    @pytest.mark.parametrize("ahead_rows", [0, 30])
    def test_nan_logits_of_a_probe_name_its_branch(self, ahead_rows: int) -> None:
        """They are no reason to lose the call: its rows hold finite numbers only."""
        live = make_live("qwen3")
        with torch.no_grad():
            live.model.get_input_embeddings().weight[WORDS["\\boxed{"]].fill_(float("nan"))
        with pytest.warns(RuntimeWarning, match="NaN logits in branch"):
            output = live.run(*QUESTIONS, suppress_tokens=[WORDS["\\boxed{"]], ahead_rows=ahead_rows)
        assert output.finish_reason == ["error"] * 3
        assert all(cost.generated_tokens for cost in output.cost)

    def test_a_token_that_the_model_rules_out_can_be_forced(self) -> None:
        live = make_live("qwen3")

        def ruled_out(module: Any, args: Any, output: Any) -> Any:
            output.logits[..., WORDS["d"]] = -torch.inf
            return output

        class Forced(LogitsProcessor):
            def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
                return torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor(WORDS["d"]), 0.0)

        live.model.register_forward_hook(ruled_out)
        output = live.run(*QUESTIONS, logits_processor=LogitsProcessorList([Forced()]))
        assert {token for row in output.branches[0] for token in row.token_ids} == {WORDS["d"]}

    def test_nan_logits_of_a_prompt_are_that_questions(self) -> None:
        """As half precision makes them of a long one: the others are answered as they would have been."""
        live = make_live("qwen3")
        unsaid = {"suppress_tokens": [WORDS["c"]], "max_probe_tokens": 1, "force_answer": False}
        expected = live.run(*QUESTIONS[:2], **unsaid)
        with torch.no_grad():
            live.model.get_input_embeddings().weight[WORDS["c"]].fill_(float("nan"))  # in the last prompt alone
        with pytest.warns(RuntimeWarning, match=r"question '2' ends.*NaN logits for the prompt"):
            output = live.run(*QUESTIONS, **unsaid)
        assert output.finish_reason[2] == "error"
        assert (output.answers[:2], output.cost[:2]) == (expected.answers, expected.cost)
        assert not output.cost[2].tokens
