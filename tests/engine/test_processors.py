"""Every logits processor and stopping criterion of transformers: honoured as for the prompt alone, or refused."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from itertools import chain
from typing import Any

import pytest
import torch
from engine_models import QUESTIONS, WORDS, Live
from torch import Tensor
from transformers import (
    EosTokenCriteria,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxLengthCriteria,
    StoppingCriteria,
    StoppingCriteriaList,
    SynthIDTextWatermarkingConfig,
    WatermarkingConfig,
)
from transformers.generation import logits_process, stopping_criteria

from tts_generate.engine.honoured import CRITERIA, FIELDS, PROCESSORS
from tts_generate.engine.noise import gumbel
from tts_generate.engine.own import Own
from tts_generate.errors import InputError, TTSError, UnsupportedError
from tts_generate.live.branch import Branch, branch_key

EOS, A, SEVEN = WORDS["<eos>"], WORDS["a"], WORDS["7"]
TOKENS = 16
SYNTHID = SynthIDTextWatermarkingConfig(ngram_len=3, keys=[654, 400, 836], context_history_size=16)
HONOURED: dict[str, list[dict[str, Any]]] = {
    "temperature": [{"temperature": 0.7}],
    "top_k": [{"top_k": 4}],
    "top_p": [{"top_p": 0.7}],
    "top_h": [{"top_h": 0.5}],
    "min_p": [{"min_p": 0.1}],
    "typical_p": [{"typical_p": 0.6}],
    "epsilon_cutoff": [{"epsilon_cutoff": 0.02}],
    "eta_cutoff": [{"eta_cutoff": 0.02}],
    "repetition_penalty": [{"repetition_penalty": 1.5}],
    "encoder_repetition_penalty": [{"encoder_repetition_penalty": 1.7}],
    "no_repeat_ngram_size": [{"no_repeat_ngram_size": 2}],
    "encoder_no_repeat_ngram_size": [{"encoder_no_repeat_ngram_size": 2}],
    "bad_words_ids": [{"bad_words_ids": [[A], [SEVEN, WORDS["8"]]]}],
    "sequence_bias": [{"sequence_bias": [[[A], 2.0], [[A, SEVEN], -5.0]]}],
    "min_length": [{"min_length": 20, "eos_token_id": [EOS, A, SEVEN]}],
    "min_new_tokens": [{"min_new_tokens": 12, "eos_token_id": [EOS, A, SEVEN]}],
    "forced_bos_token_id": [{"forced_bos_token_id": A}],
    "forced_eos_token_id": [{"forced_eos_token_id": EOS}, {"forced_eos_token_id": [A]}],
    "remove_invalid_values": [{"remove_invalid_values": True}],
    "exponential_decay_length_penalty": [
        {"exponential_decay_length_penalty": (2, 1.3)},
        {"exponential_decay_length_penalty": (10, 1.02), "eos_token_id": [EOS, A]},
    ],
    "suppress_tokens": [{"suppress_tokens": [A, SEVEN]}],
    "begin_suppress_tokens": [{"begin_suppress_tokens": list(range(7, 30))}],
    "renormalize_logits": [{"renormalize_logits": True}],
    "watermarking_config": [
        {"watermarking_config": WatermarkingConfig(bias=2.5)},
        {"watermarking_config": WatermarkingConfig(context_width=9)},
        {"watermarking_config": SYNTHID},
    ],
    "eos_token_id": [{"eos_token_id": [A, SEVEN]}],
}
"""Fields of a generation config that make a processor or criterion, with values that show."""
ELSEWHERE = {
    "max_time": "a Deadline", "stop_strings": "see test_arguments", "max_new_tokens": "counted by the engine",
    "max_length": "see test_max_length", "pad_token_id": "fills rows", "return_dict_in_generate": "honoured",
    "do_sample": "refused if False", "cache_implementation": "static, or refused", "use_cache": "refused if False",
    "compile_config": "refused", "guidance_scale": "refused", "num_return_sequences": "refused",
    "output_scores": "refused", "output_logits": "refused", "output_attentions": "refused",
    "output_hidden_states": "refused",
}  # fmt: skip
MODES = {
    "num_beams": 4, "constraints": [1], "force_words_ids": [[[7]]], "dola_layers": "low", "prompt_lookup_num_tokens": 3,
    "assistant_early_exit": 1,
}  # fmt: skip
"""Fields that ask for another way of decoding."""
NO_EFFECT = {
    "_from_model_config", "transformers_version", "bos_token_id", "decoder_start_token_id",
    # of beams
    "early_stopping", "length_penalty", "num_beam_groups", "diversity_penalty", "low_memory",
    # of contrastive search, which samples nothing
    "penalty_alpha",
    # of an assistant, which is refused
    "assistant_confidence_threshold", "assistant_ensemble_weight", "assistant_lookbehind", "target_lookbehind",
    "num_assistant_tokens", "num_assistant_tokens_schedule", "max_matching_ngram_size",
    "speculation_type",
    # of transformers' own caches and of its compiling, which change no token
    "cache_config", "max_cache_len", "continuous_batching_config", "disable_compile",
}  # fmt: skip


def classes(module: Any, base: type) -> set[type]:
    found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == module.__name__]
    return {kind for kind in found if issubclass(kind, base) and kind is not base}


class TestTheTables:
    """A transformers that has more fails here first: the new one is to be honoured or refused, with a test."""

    def test_every_processor_and_criterion(self) -> None:
        assert set(PROCESSORS) == classes(logits_process, LogitsProcessor)
        assert set(CRITERIA) == classes(stopping_criteria, StoppingCriteria)

    def test_every_field_of_a_generation_config(self) -> None:
        known = set(HONOURED) | set(ELSEWHERE) | set(MODES) | set(FIELDS) | NO_EFFECT
        assert set(vars(GenerationConfig())) == known

    def test_every_honoured_class_is_made_by_a_field(self, qwen: Live) -> None:
        made = {type(thing) for _, case in CASES for things in prepared(qwen, **case) for thing in things}
        honoured = {kind for kind, rule in (PROCESSORS | CRITERIA).items() if not rule.refused}
        assert honoured - made == {stopping_criteria.MaxTimeCriteria, stopping_criteria.StopStringCriteria}

    @pytest.mark.parametrize("kind", [k for k, rule in (PROCESSORS | CRITERIA).items() if rule.refused])
    def test_refused(self, kind: type) -> None:
        with pytest.raises(UnsupportedError, match=f"cannot honour {kind.__name__}: .* Leave it out"):
            Own([object.__new__(kind)])

    def test_one_that_a_new_transformers_adds(self) -> None:
        new = type("NewLogitsProcessor", (LogitsProcessor,), {"__module__": "transformers.generation.logits_process"})
        with pytest.raises(UnsupportedError, match="does not know it"):
            Own([new()])

    @pytest.mark.parametrize("field", FIELDS)
    def test_refused_fields(self, qwen: Live, field: str) -> None:
        with pytest.raises(UnsupportedError, match=field):
            qwen.run(QUESTIONS[0], **{field: 3})
        with pytest.raises(UnsupportedError, match=field):
            qwen.run(QUESTIONS[0], generation_config=GenerationConfig(**{field: 3}))

    @pytest.mark.parametrize("field", MODES)
    def test_other_modes(self, qwen: Live, field: str) -> None:
        with pytest.raises(UnsupportedError, match="samples independent branches and cannot do"):
            qwen.run(QUESTIONS[0], **{field: MODES[field]})


def prepared(live: Live, question: str = QUESTIONS[0], **kwargs: Any) -> tuple[list[Any], list[Any]]:
    """The processors and criteria that transformers makes for a prompt alone."""
    seen = []

    def capture(model: Any, input_ids: Tensor, logits_processor: Any, stopping_criteria: Any, **_: Any) -> Tensor:
        seen.append((list(logits_processor), list(stopping_criteria)))
        return input_ids

    plainly(live, question, custom_generate=capture, **kwargs)
    return seen[0]


def plainly(live: Live, question: str, **kwargs: Any) -> list[int]:
    """The tokens of transformers' own `generate` for a prompt alone."""
    options = {"max_new_tokens": TOKENS, "do_sample": True, "top_k": 0, "pad_token_id": 0}
    inputs = live.inputs(question)
    tokens = type(live.model).generate(live.model, **inputs, **{**options, **kwargs})
    return tokens[0, inputs["input_ids"].shape[1] :].tolist()


def alone(live: Live, question: str, key: int | None, **kwargs: Any) -> tuple[int, ...]:
    """The slow twin: transformers' own processors and criteria on one row, and our noise for a key, if any."""
    processors, criteria = prepared(live, question, **kwargs)
    ids = live.inputs(question)["input_ids"]
    count = ids.shape[1]
    while not bool(StoppingCriteriaList(criteria)(ids, None)) or ids.shape[1] == count:
        with torch.no_grad():
            logits = live.model(ids).logits[:, -1].float()
        scores = LogitsProcessorList(processors)(ids, logits).double()
        if key is not None:
            position = torch.tensor([ids.shape[1] - count])
            scores = scores + gumbel(torch.tensor([key]), position, torch.arange(logits.shape[1])[None])
        ids = torch.cat([ids, scores.argmax(-1, keepdim=True)], 1)
    return tuple(ids[0, count:].tolist())


BRANCHES = {"controller": "self_consistency", "controller_kwargs": {"max_samples": 3}, "max_new_tokens": TOKENS}
CASES = [(name, case) for name, cases in HONOURED.items() for case in cases]


@pytest.mark.parametrize("case", [case for _, case in CASES], ids=[name for name, _ in CASES])
class TestHonoured:
    def test_beside_a_longer_prompt_as_in_transformers_alone(self, qwen: Live, case: dict[str, Any]) -> None:
        """Every branch of a batch, whose rows move, is what transformers' processors make of its prompt alone."""
        output = qwen.run(QUESTIONS[0], QUESTIONS[2], **{**BRANCHES, "max_rows": 4, **case})
        for question, branches in zip((QUESTIONS[0], QUESTIONS[2]), output.branches, strict=True):
            prompt = qwen.tokenizer(question)["input_ids"]
            for branch in branches[1:]:
                key = branch_key(0, prompt, branch.branch)
                assert branch.token_ids == alone(qwen, question, key, **{"temperature": 1.0, **case})

    def test_greedy(self, qwen: Live, case: dict[str, Any]) -> None:
        """At a temperature near 0, all branches are what transformers' own `generate` says."""
        cold = {**case, "temperature": 1e-6}
        plain = plainly(qwen, QUESTIONS[0], **cold)
        for questions in ([QUESTIONS[0]], [QUESTIONS[2], QUESTIONS[0]]):
            branches = qwen.run(*questions, **{**BRANCHES, **cold}).branches[-1]
            assert {branch.token_ids for branch in branches} == {tuple(plain)}


class TestLengths:
    def test_max_length_counts_the_prompt(self, qwen: Live) -> None:
        """Prompts of one length, padded or not, leave each branch as many tokens; others would differ by branch."""
        length = len(qwen.tokenizer(QUESTIONS[0])["input_ids"])
        options = {**BRANCHES, "max_new_tokens": None, "max_length": length + 16, "temperature": 1e-6}
        expected = plainly(qwen, QUESTIONS[0], max_length=length + 16, max_new_tokens=None, temperature=1e-6)
        assert {b.token_ids for b in qwen.run(QUESTIONS[0], **options).branches[0]} == {tuple(expected)}
        inputs = {name: torch.nn.functional.pad(ids, (5, 0)) for name, ids in qwen.inputs(QUESTIONS[0]).items()}
        ours = {"strategy": "autotts", "interval_tokens": 8, "top_k": 0, "return_dict_in_generate": True}
        output = qwen.model.generate(**inputs, **options, **ours)
        assert {b.token_ids for b in output.branches[0]} == {tuple(expected)}
        with pytest.raises(InputError, match=r"max_length=24 counts the prompt.*pass max_new_tokens"):
            qwen.run(*QUESTIONS, **{**options, "max_length": 24})

    def test_the_default_of_transformers_is_20_tokens(self, qwen: Live) -> None:
        with pytest.warns(UserWarning, match="max_length"):
            output = qwen.run(*QUESTIONS, **{**BRANCHES, "max_new_tokens": None, "min_new_tokens": 20})
        assert {b.tokens for branches in output.branches for b in branches} == {20}

    def test_a_penalty_that_skips_the_prompt(self, qwen: Live) -> None:
        """Told by its caller how much to skip, in tokens of the padded prompts as transformers counts them."""
        padded = qwen.inputs(*QUESTIONS)["input_ids"].shape[1]
        length = len(qwen.tokenizer(QUESTIONS[0])["input_ids"])

        def skipping(tokens: Any) -> Any:
            return LogitsProcessorList([logits_process.RepetitionPenaltyLogitsProcessor(2.0, tokens)])

        output = qwen.run(*QUESTIONS, **BRANCHES, logits_processor=skipping(padded))
        single = qwen.run(QUESTIONS[0], **BRANCHES, logits_processor=skipping(length))
        assert [b.token_ids for b in output.branches[0]] == [b.token_ids for b in single.branches[0]]
        for columns, tokens in ((padded, length), (padded + 4, length + 4), (3, 3), (padded - 1, length)):
            batch = qwen.tokenizer(QUESTIONS, return_tensors="pt", padding=True, padding_side="right")
            right = qwen.model.generate(
                batch["input_ids"],
                attention_mask=batch["attention_mask"],
                strategy="autotts",
                **{**BRANCHES, "interval_tokens": 8, "top_k": 0, "seed": 0, "return_dict_in_generate": True},
                logits_processor=skipping(columns),
            )
            single = qwen.run(QUESTIONS[0], **BRANCHES, logits_processor=skipping(tokens))
            assert [b.token_ids for b in right.branches[0]] == [b.token_ids for b in single.branches[0]]
        whole = qwen.run(QUESTIONS[0], **BRANCHES, repetition_penalty=2.0)
        assert [b.token_ids for b in output.branches[0]] != [b.token_ids for b in whole.branches[0]]
        with pytest.raises(UnsupportedError, match="for each row"):
            qwen.run(QUESTIONS[0], **BRANCHES, logits_processor=skipping(torch.tensor([length])))

    @pytest.mark.parametrize(
        ("criterion", "advice"),
        [(MaxLengthCriteria(9), "say max_new_tokens"), (EosTokenCriteria(SEVEN), "say eos_token_id")],
    )
    def test_what_the_engine_counts_is_said_in_the_config(self, qwen: Live, criterion: Any, advice: str) -> None:
        with pytest.raises(UnsupportedError, match=advice):
            qwen.run(QUESTIONS[0], stopping_criteria=StoppingCriteriaList([criterion]))


class Budget(LogitsProcessor):
    """Ends a branch after a number of tokens, which it counts itself: written for rows that stay."""

    def __init__(self, tokens: int) -> None:
        self.tokens, self.seen = tokens, 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.seen += 1
        if self.seen > self.tokens:
            scores = torch.full_like(scores, -torch.inf).index_fill(1, torch.tensor([EOS]), 0.0)
        return scores


class BudgetOfBranch(Budget):
    def for_branch(self) -> BudgetOfBranch:
        return BudgetOfBranch(self.tokens)


class Counts(Budget):
    """Keeps something that is about no branch."""

    def for_branch(self) -> Counts:
        return self


class Nested(LogitsProcessor):
    """Keeps what it has seen of each row in something that it holds."""

    def __init__(self) -> None:
        self.rows: dict[str, list[int]] = {"seen": []}

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        self.rows["seen"].append(len(input_ids))
        return scores


class Repeats(StoppingCriteria):
    """Ends a branch at the third time that it says a token, which it remembers."""

    def __init__(self, token: int) -> None:
        self.token, self.times = token, 0

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self.times += int(input_ids[0, -1] == self.token)
        return torch.tensor([self.times == 3])


class RepeatsInBranch(Repeats):
    def for_branch(self) -> RepeatsInBranch:
        return RepeatsInBranch(self.token)


class Lazy(LogitsProcessor):
    """Makes what it needs in its first call."""

    def __init__(self) -> None:
        self.mask: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self.mask is None:
            self.mask = torch.arange(scores.shape[1]) == A
        return scores.masked_fill(self.mask, -torch.inf)


class TestThoseThatRemember:
    """What is kept about a row would be another branch's a token later: refused, or each branch has its own."""

    @pytest.mark.parametrize("kept", [{"logits_processor": [Budget(9)]}, {"logits_processor": [Nested()]},
                                      {"stopping_criteria": [Repeats(A)]}])  # fmt: skip
    def test_refused_at_the_second_call(self, qwen: Live, kept: dict[str, Any]) -> None:
        lists = {"logits_processor": LogitsProcessorList, "stopping_criteria": StoppingCriteriaList}
        forwards: list[int] = []
        hook = qwen.model.register_forward_pre_hook(lambda module, args: forwards.append(1))
        with pytest.raises(UnsupportedError, match=r"keeps something from call to call.*for_branch"):
            qwen.run(*QUESTIONS, eos_token_id=None, **{name: lists[name](given) for name, given in kept.items()})
        hook.remove()
        assert len(forwards) <= len(QUESTIONS) + 1 + TOKENS * ("stopping_criteria" in kept)

    @pytest.mark.parametrize("rows", [256, 2])
    def test_each_branch_has_its_own(self, qwen: Live, rows: int) -> None:
        budget = LogitsProcessorList([BudgetOfBranch(9)])
        output = qwen.run(*QUESTIONS, logits_processor=budget, eos_token_id=EOS, max_rows=rows, ahead_rows=rows)
        ended = [b for branches in output.branches for b in branches if b.finish_reason == "eos"]
        assert {b.tokens for b in ended if EOS not in b.token_ids[:-1] and b.tokens >= 10} == {10}

    @pytest.mark.parametrize("rows", [256, 2])
    def test_a_criterion_of_each_branch(self, qwen: Live, rows: int) -> None:
        stops = StoppingCriteriaList([RepeatsInBranch(A)])
        output = qwen.run(*QUESTIONS, **BRANCHES, stopping_criteria=stops, max_rows=rows)
        plain = qwen.run(*QUESTIONS, **BRANCHES)
        assert any(b.finish_reason == "stop" for branches in output.branches for b in branches)
        for ours, theirs in zip(chain(*output.branches), chain(*plain.branches), strict=True):
            thrice = [n for n, token in enumerate(theirs.token_ids, 1) if token == A][2:3] or [theirs.tokens]
            assert ours.token_ids == theirs.token_ids[: thrice[0]]

    def test_one_that_keeps_nothing_about_a_branch_says_so(self, qwen: Live) -> None:
        counting = Counts(10**9)
        output = qwen.run(*QUESTIONS, logits_processor=LogitsProcessorList([counting]))
        assert counting.seen > 9
        assert output.branches == qwen.run(*QUESTIONS).branches

    def test_what_the_first_call_makes_may_stay(self, qwen: Live) -> None:
        output = qwen.run(*QUESTIONS, logits_processor=LogitsProcessorList([Lazy()]))
        assert not any(A in b.token_ids for branches in output.branches for b in branches)

    def test_a_token_is_never_shown_twice(self) -> None:
        branch = Branch(0, 0, [5, 6])
        own = Own([BudgetOfBranch(9)])
        for tokens in (0, 0, 1, 2):  # a first token may be drawn again: the branch has nothing yet
            own.of(branch, torch.zeros(1, 2 + tokens, dtype=torch.long))
        with pytest.raises(TTSError, match="smaller max_rows"):
            own.of(branch, torch.zeros(1, 4, dtype=torch.long))


class Returns(LogitsProcessor):
    def __init__(self, change: Callable[[Tensor], Any]) -> None:
        self.change = change

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Any:
        return self.change(scores)


class Says(StoppingCriteria):
    def __init__(self, said: Any) -> None:
        self.said = said

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Any:
        return self.said


class TestWhatTheyReturn:
    @pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
    def test_scores_of_another_precision(self, qwen: Live, dtype: torch.dtype) -> None:
        output = qwen.run(*QUESTIONS, logits_processor=LogitsProcessorList([Returns(lambda scores: scores.to(dtype))]))
        if dtype is torch.float64:
            assert output.branches == qwen.run(*QUESTIONS).branches
        assert all(output.branches)

    @pytest.mark.parametrize("change", [
        lambda scores: None, lambda scores: scores[:, :4], lambda scores: scores[0], lambda scores: scores > 0,
        lambda scores: scores.long(), lambda scores: scores.numpy(), lambda scores: torch.cat([scores, scores]),
    ])  # fmt: skip
    def test_what_is_no_scores(self, qwen: Live, change: Callable[[Tensor], Any]) -> None:
        with pytest.raises(InputError, match="Returns must return scores of the shape"):
            qwen.run(*QUESTIONS, logits_processor=LogitsProcessorList([Returns(change)]))

    @pytest.mark.parametrize("value", [-torch.inf, torch.nan])
    def test_nothing_left_to_draw(self, qwen: Live, value: float) -> None:
        with pytest.raises(InputError, match=r"leave no token to draw.*Returns"):
            qwen.run(QUESTIONS[0], logits_processor=LogitsProcessorList([Returns(lambda s: torch.full_like(s, value))]))
        with pytest.raises(InputError, match=r"leave no token to draw.*SuppressTokensLogitsProcessor"):
            qwen.run(QUESTIONS[0], suppress_tokens=list(range(len(WORDS))))

    @pytest.mark.parametrize("said", [True, torch.tensor([True]), torch.tensor(True)])
    def test_a_criterion_that_is_met(self, qwen: Live, said: Any) -> None:
        output = qwen.run(*QUESTIONS, stopping_criteria=StoppingCriteriaList([Says(said)]))
        assert {b.tokens for branches in output.branches for b in branches} == {1}

    @pytest.mark.parametrize("said", [
        None, 1, "yes", torch.tensor([True, False]), torch.tensor([], dtype=torch.bool), torch.tensor([1.0]),
        torch.tensor([1]), torch.tensor([[True]]), [True],
    ])  # fmt: skip
    def test_what_a_criterion_must_not_return(self, qwen: Live, said: Any) -> None:
        with pytest.raises(InputError, match="Says must return a bool tensor"):
            qwen.run(*QUESTIONS, stopping_criteria=StoppingCriteriaList([Says(said)]))

    @pytest.mark.parametrize("thing", [3, "x", lambda ids: ids, lambda ids, scores, beams: scores])
    def test_what_cannot_be_called(self, qwen: Live, thing: Any) -> None:
        for name, kind in (("logits_processor", LogitsProcessorList), ("stopping_criteria", StoppingCriteriaList)):
            with pytest.raises(InputError, match="called with"):
                qwen.run(QUESTIONS[0], **{name: kind([thing])})
