"""Rows, memory and time: whatever the budget, the same tokens; whatever goes wrong, nothing is lost or left behind."""

from __future__ import annotations

import gc
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import short_of_memory
import torch
from engine_models import QUESTIONS, WORDS, Live, make_live, make_tokenizer
from forked import Forked
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_decoding import redecode
from test_generate import read
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma3TextConfig,
    GemmaConfig,
    GPTNeoXConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MaxTimeCriteria,
    TextIteratorStreamer,
)

from tts_generate import BranchProcessor, Controller, Deadline, OnRound
from tts_generate.answers import AnswerFormat
from tts_generate.engine import enable
from tts_generate.engine.batch import Batch
from tts_generate.engine.cache import SlotCache
from tts_generate.engine.decoder import cache_argument
from tts_generate.engine.loop import Loop
from tts_generate.errors import InputError, NoAnswerWarning, TTSError
from tts_generate.replay import replay
from tts_generate.state import TO_END, Decision, State

COLUMN_BYTES = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, dimension, float32


class Scripted(Controller):
    """Does what a script of numbers says: opens, holds, continues, reads on, prunes, probes, stops."""

    probing = "on_demand"
    script: tuple[int, ...] = ()
    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 6}

    @property
    def most_branches(self) -> int:
        return 15

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width
        do.probe[: self.width] = [self.number(i) % 2 == 0 for i in range(self.width)]

    def number(self, i: int) -> int:
        return self.script[i % len(self.script)]

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            number = self.number(i + 7 * state.round)
            do.steps[i] = [0, 1, 1, 2, TO_END][number % 5]
            do.prune[i] = number % 11 == 10
            do.probe[i] = number % 3 == 0
        do.steps[state.round % state.opened] = max(1, do.steps[state.round % state.opened])
        live = [i for i in range(state.opened) if not (state.finished[i] or state.pruned[i])]
        if live and not any(do.steps[i] or do.prune[i] for i in live):
            do.steps[live[0]] = 1

    def review(self, state: State, do: Decision) -> None:
        number = self.number(3 * state.round)
        do.open = int(number % 4 == 1 and state.opened < 14) * 2
        do.stop = number % 13 == 12


def scripted(script: list[int]) -> Scripted:
    controller = Scripted.from_beta(0.5)
    controller.script = tuple(script)
    return controller


@pytest.fixture
def loops(monkeypatch: pytest.MonkeyPatch) -> list[Loop]:
    """Every loop made; before each step its rows are checked."""
    made: list[Loop] = []
    real, step = Loop.__init__, Batch.step

    def init(self: Loop, *args: Any, **kwargs: Any) -> None:
        real(self, *args, **kwargs)
        made.append(self)

    def checked(self: Batch) -> None:
        self.rows.check()
        assert self.rows.working[: self.rows.live].all(), "rows at work come first"
        step(self)

    monkeypatch.setattr(Loop, "__init__", init)
    monkeypatch.setattr(Batch, "step", checked)
    return made


def nothing_left(loop: Loop) -> bool:
    batch, admission = loop.batch, loop.admission
    return not (batch.rows.held or admission.evicted or admission.queue or loop.running or loop.waiting)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.integers(0, 60), min_size=5, max_size=40),
    max_rows=st.integers(1, 30),
    budget=st.integers(1, 12),
    ahead=st.booleans(),
    ahead_rows=st.sampled_from([0, 8, 30]),
    unseen=st.sampled_from([1, 3]),
)
def test_any_schedule_gives_the_same_tokens_and_leaves_nothing_behind(
    qwen: Live,
    loops: list[Loop],
    script: list[int],
    max_rows: int,
    budget: int,
    ahead: bool,
    ahead_rows: int,
    unseen: int,
) -> None:
    """A budget of memory for 1 to 12 branches of full length: they leave their rows and come back as they were."""
    expected = qwen.run(*QUESTIONS, controller=scripted(script), beta=None)
    tight = qwen.run(
        *QUESTIONS, controller=scripted(script), beta=None, max_rows=max_rows, decode_ahead=ahead, sync_every=unseen,
        ahead_rows=ahead_rows, max_cache_bytes=budget * 160 * COLUMN_BYTES,
    )  # fmt: skip
    assert tight.answers == expected.answers
    assert tight.cost == expected.cost
    assert [t.events for t in tight.trace] == [t.events for t in expected.trace]
    for found, wanted in zip(tight.branches, expected.branches, strict=True):
        assert [b.token_ids for b in found] == [b.token_ids for b in wanted]
        assert [b.probe_answers for b in found] == [b.probe_answers for b in wanted]
    assert all(nothing_left(loop) for loop in loops)


def test_a_budget_below_one_branch_is_refused_with_numbers(qwen: Live) -> None:
    with pytest.raises(InputError, match=r"columns of key-value cache.*raise max_cache_bytes"):
        qwen.run(*QUESTIONS, max_cache_bytes=20 * COLUMN_BYTES)


def test_rows_and_memory_stay_flat_while_questions_grow(qwen: Live, loops: list[Loop]) -> None:
    for count in (1, 4, 12):
        qwen.run(*QUESTIONS[:1] * count, controller="self_consistency", beta=0.3, max_rows=16)
    rows = [loop.batch.decoder.cache.rows for loop in loops]
    assert max(rows) <= 16
    assert len({loop.batch.decoder.cache.capacity for loop in loops}) == 1, "and no wider"


def test_the_cache_goes_with_the_call(qwen: Live) -> None:
    """Its memory is free for the next one at once, and not when the collector comes by."""
    gc.collect()
    gc.disable()
    try:
        before = sum(isinstance(each, SlotCache) for each in gc.get_objects())
        qwen.run(*QUESTIONS)
        assert sum(isinstance(each, SlotCache) for each in gc.get_objects()) == before
    finally:
        gc.enable()


def test_out_of_memory_goes_on_with_fewer_rows() -> None:
    """A real failed allocation, in a process whose address space ends 40 MB above what it has: same answers."""
    child = Forked(short_of_memory.run)
    _, complaints = child.communicate(timeout=200)
    assert child.returncode == 0, complaints[-2000:]


class Skips(BranchProcessor):
    """Ends one question as it begins; its time is up then if it is `late`."""

    over = False

    def __init__(self, skipped: str, late: bool, question_id: str = "") -> None:
        self.skipped, self.late, self.question_id = skipped, late, question_id

    def begin(self, question_id: str) -> BranchProcessor:
        return Skips(self.skipped, self.late, question_id)

    def __call__(self, state: State, do: Decision) -> None:
        if self.question_id == self.skipped:
            do.open, do.stop, self.over = 0, True, self.late

    def expired(self) -> bool:
        return self.over


class TestTime:
    def test_deadline_ends_a_question_with_the_majority_so_far(self, qwen: Live, loops: list[Loop]) -> None:
        output = qwen.run(
            *QUESTIONS, controller="self_consistency", beta=1.0, max_rows=4, branch_processors=[Deadline(0.15)]
        )
        assert "deadline" in output.finish_reason
        for reason, votes, answer in zip(output.finish_reason, output.votes, output.answers, strict=True):
            assert reason == "answer" or answer == next(iter(votes), answer)
        assert all(
            c.generated_tokens == sum(b.tokens for b in bs) for c, bs in zip(output.cost, output.branches, strict=True)
        )
        assert nothing_left(loops[-1])

    def test_a_deadline_that_is_over_opens_nothing(self, qwen: Live) -> None:
        output = qwen.run(*QUESTIONS, branch_processors=[Deadline(1e-9)])
        assert output.finish_reason == ["deadline"] * 3
        assert output.answers == [None] * 3
        assert output.winners == [-1] * 3
        assert output.total_cost.total_tokens == 0
        assert torch.equal(output.sequences, qwen.inputs(*QUESTIONS)["input_ids"])

    @pytest.mark.parametrize("late", [False, True])
    def test_a_processor_may_end_a_question_as_it_begins(self, qwen: Live, late: bool) -> None:
        """As a `Deadline` does that passes meanwhile: it was taken for the controller's error, and ended the call."""
        expected = qwen.run(*QUESTIONS)
        output = qwen.run(*QUESTIONS, branch_processors=[Skips("0", late)])
        assert output.finish_reason == ["deadline" if late else "answer", "answer", "answer"]
        assert output.branches == [[], *expected.branches[1:]]
        assert output.answers == [None, *expected.answers[1:]]
        assert [event["verb"] for event in output.trace[0].events] == ["answer"]

    def test_max_time_is_a_deadline(self, qwen: Live) -> None:
        assert qwen.run(QUESTIONS[0], max_time=1e-9).finish_reason == ["deadline"]
        began = MaxTimeCriteria(60.0, initial_timestamp=time.time() - 61)  # its time runs since it was made
        assert qwen.run(QUESTIONS[0], stopping_criteria=[began]).finish_reason == ["deadline"]
        with pytest.raises(InputError, match="more than 0 seconds"):
            qwen.run(QUESTIONS[0], max_time=0)

    @pytest.mark.long
    def test_replay_has_no_clock(self, tiny_recording: Any) -> None:
        from tts_generate.processors import BranchProcessorList

        with pytest.raises(InputError, match="live run"):
            replay(tiny_recording, "asc", shuffles=0, processors=BranchProcessorList([Deadline(1)]))

    @pytest.mark.parametrize("seconds", [0, -1, float("nan")])
    def test_deadlines_lie_ahead(self, seconds: float) -> None:
        with pytest.raises(InputError, match=r"more than 0 seconds|seconds must be a number"):
            Deadline(seconds)


class TestStreams:
    def test_questions_come_as_they_are_answered(self, qwen: Live) -> None:
        expected = qwen.run(*QUESTIONS)
        parts = list(qwen.run(*QUESTIONS, stream=True))
        assert sorted(part.questions[0] for part in parts) == [0, 1, 2]
        for part in parts:
            assert part.branches[0] == expected.branches[part.questions[0]]
            assert part.answers[0] == expected.answers[part.questions[0]]

    def test_a_stream_left_early_leaves_the_model_as_it_was(self, qwen: Live) -> None:
        expected = qwen.run(*QUESTIONS)
        stream = qwen.run(*QUESTIONS, stream=True)
        next(stream)
        stream.close()
        assert qwen.model.config._attn_implementation == "sdpa"
        assert qwen.run(*QUESTIONS).branches == expected.branches

    def test_transformers_streamer(self, qwen: Live) -> None:
        streamer = TextIteratorStreamer(qwen.tokenizer, skip_prompt=True)
        output = qwen.run(QUESTIONS[0], streamer=streamer)
        shown = output.sequences[0, qwen.inputs(QUESTIONS[0])["input_ids"].shape[1] :]
        assert "".join(streamer) == qwen.tokenizer.decode(shown)

    def test_on_round_sees_every_question(self, qwen: Live) -> None:
        seen: dict[str, int] = {}
        output = qwen.run(*QUESTIONS, branch_processors=[OnRound(lambda q, state: seen.update({q: state.round}))])
        assert {q: t.events[-1]["round"] for q, t in zip("012", output.trace, strict=True)} == seen


class Breaks(Controller):
    """Raises in its third round, on the second question only."""

    probing = "every_step"
    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 4}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        do.steps[: state.opened] = 1

    def review(self, state: State, do: Decision) -> None:
        if state.round == 1 and state.tokens[0] > 0 and state.answer[0] == self.trigger:
            raise ZeroDivisionError("a bug of the controller")

    trigger = 0


class Stalls(Breaks):
    """Never advances anything after its branches are open, and never stops."""

    def plan(self, state: State, do: Decision) -> None:
        do.steps.fill(0)


class TestFaults:
    def test_a_controller_that_raises_costs_its_question_only(self, qwen: Live, loops: list[Loop]) -> None:
        bug = pytest.warns(RuntimeWarning, match="ZeroDivisionError: a bug of the controller")
        with pytest.warns(NoAnswerWarning, match="1 of 3"), bug:
            output = qwen.run(*QUESTIONS, controller=Breaks.from_beta(0.5), beta=None, answer_pattern="boxed")
        assert "error" in output.finish_reason
        assert all(len(branches) == 4 for branches in output.branches)
        assert nothing_left(loops[-1])

    def test_a_controller_that_stalls_falls_back(self, qwen: Live) -> None:
        with pytest.warns(RuntimeWarning, match="stalls in round 0"):
            output = qwen.run(QUESTIONS[0], controller=Stalls.from_beta(0.5), beta=None)
        assert output.finish_reason == ["error"]

    def test_nan_in_the_middle_costs_its_question_only(self, qwen: Live) -> None:
        expected = qwen.run(*QUESTIONS)
        length = len(qwen.tokenizer(QUESTIONS[1])["input_ids"])
        hit = []

        def poison(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            if isinstance(kwargs["logits_to_keep"], torch.Tensor) and not hit:  # a pass, not a prefill
                found = (kwargs["position_ids"][0, kwargs["logits_to_keep"]] == length + 10).nonzero()
                if len(found):
                    hit.append(True)
                    output.logits[0, int(found[0])] = float("nan")
            return output

        hook = qwen.model.register_forward_hook(poison, with_kwargs=True)
        try:
            with pytest.warns(RuntimeWarning, match="NaN logits in branch"):
                output = qwen.run(*QUESTIONS)
        finally:
            hook.remove()
        assert output.finish_reason.count("error") == 1
        spared = [n for n, reason in enumerate(output.finish_reason) if reason == "answer"]
        assert all(read(output.branches[n]) == read(expected.branches[n]) for n in spared)

    @pytest.mark.parametrize("questions", [QUESTIONS, QUESTIONS[::-1], [QUESTIONS[0], QUESTIONS[2], QUESTIONS[1]]])
    def test_a_prompt_for_which_there_is_no_memory_costs_its_question_only(
        self, qwen: Live, loops: list[Loop], questions: list[str]
    ) -> None:
        """The device refuses the longest prompt, whatever is given back: others were lost, and the call with them."""
        expected, longest = qwen.run(*questions), qwen.inputs(*QUESTIONS)["input_ids"].shape[1]

        def refuse(module: Any, args: Any, kwargs: Any) -> None:
            if not isinstance(kwargs["logits_to_keep"], torch.Tensor) and kwargs["input_ids"].shape[1] == longest:
                raise torch.OutOfMemoryError("CUDA out of memory")

        hook = qwen.model.register_forward_pre_hook(refuse, with_kwargs=True)
        try:
            if questions[0] == QUESTIONS[2]:  # nothing is decoded yet
                with pytest.raises(TTSError, match="out of memory reading a prompt of"):
                    qwen.run(*questions)
                return
            with pytest.warns(RuntimeWarning, match="out of memory"):
                output = qwen.run(*questions)
        finally:
            hook.remove()
        spared = [n for n, question in enumerate(questions) if question != QUESTIONS[2]]
        assert all(output.finish_reason[n] == ("answer" if n in spared else "error") for n in range(3))
        assert all(read(output.branches[n]) == read(expected.branches[n]) for n in spared)
        assert nothing_left(loops[-1])

    @pytest.mark.parametrize("ahead_rows", [0, 30])
    def test_a_text_that_cannot_be_read_costs_its_question_only(self, qwen: Live, ahead_rows: int) -> None:
        """As at a server; a pattern that took too long ended the call, whatever it had answered."""
        told = AnswerFormat(answer_pattern="boxed", think_end="</think>").find

        expected = qwen.run(*QUESTIONS, answer_pattern=told)
        begins = qwen.tokenizer.decode(expected.branches[1][0].token_ids[:6])

        def reads(text: str) -> Any:
            return 7 if text.startswith(begins) else told(text)

        with pytest.warns(RuntimeWarning, match="InputError: .* must give text or None, gave 7"):
            output = qwen.run(*QUESTIONS, answer_pattern=reads, ahead_rows=ahead_rows)
        assert output.finish_reason == ["answer", "error", "answer"]
        for number in (0, 2):
            assert read(output.branches[number]) == read(expected.branches[number])

    def test_ctrl_c_returns_what_there_is(self, qwen: Live, loops: list[Loop]) -> None:
        def interrupt(question_id: str, state: State) -> None:
            if state.round == 2:
                raise KeyboardInterrupt

        output = qwen.run(*QUESTIONS, branch_processors=[OnRound(interrupt)])
        assert "interrupted" in output.finish_reason
        assert all(
            c.generated_tokens == sum(b.tokens for b in bs) for c, bs in zip(output.cost, output.branches, strict=True)
        )
        assert nothing_left(loops[-1])
        with pytest.raises(KeyboardInterrupt):  # token ids alone could not say that they are partial
            qwen.run(*QUESTIONS, branch_processors=[OnRound(interrupt)], return_dict_in_generate=False)
        assert qwen.model.config._attn_implementation == "sdpa"

    def test_a_raising_processor_is_the_callers_and_leaves_nothing_behind(self, qwen: Live) -> None:
        class Broken(LogitsProcessor):
            def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
                if input_ids.shape[1] > 20:
                    raise RuntimeError("broken processor")
                return scores

        expected = qwen.run(*QUESTIONS)
        with pytest.raises(RuntimeError, match="broken processor"):
            qwen.run(*QUESTIONS, logits_processor=LogitsProcessorList([Broken()]))
        assert qwen.model.config._attn_implementation == "sdpa"
        assert qwen.run(*QUESTIONS).branches == expected.branches


FAMILIES: dict[str, Any] = {
    "gemma": lambda sizes: GemmaConfig(head_dim=16, **sizes),
    "gemma2": lambda sizes: Gemma2Config(head_dim=16, sliding_window=24, query_pre_attn_scalar=16, **sizes),
    "gemma3": lambda sizes: Gemma3TextConfig(
        head_dim=16, sliding_window=24, query_pre_attn_scalar=16,
        layer_types=["sliding_attention", "full_attention"], **sizes,
    ),
    "gpt_neox": lambda sizes: GPTNeoXConfig(**{k: v for k, v in sizes.items() if k != "num_key_value_heads"}),
}  # fmt: skip


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_other_families_decode_what_a_plain_forward_pass_says(family: str) -> None:
    """Soft-capped (eager), sliding and full layers mixed, partial rotary: probes, decoding ahead and all."""
    from engine_models import _SIZES

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(FAMILIES[family](_SIZES), dtype=torch.float32).eval()
    live = Live(enable(model, tokenizer=make_tokenizer()), make_tokenizer())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        output = live.run(*QUESTIONS, beta=0.2, eos_token_id=WORDS["<eos>"])
    count = 0
    for question, branches in zip(QUESTIONS, output.branches, strict=True):
        for branch in branches:
            assert redecode(live, question, branch.branch, branch.token_ids) == list(branch.token_ids)
            count += len(branch.probe_positions)
    assert count > 3


def test_prompts_are_prefilled_once_each(qwen: Live) -> None:
    lengths: list[int] = []
    hook = qwen.model.register_forward_pre_hook(
        lambda module, args, kwargs: (
            lengths.append(kwargs["input_ids"].shape[1])
            if kwargs[cache_argument(qwen.model)].get_seq_length() == 0
            else None
        ),
        with_kwargs=True,
    )
    try:
        qwen.run(*QUESTIONS, controller="asc", controller_kwargs={"max_samples": 6}, max_rows=7)
    finally:
        hook.remove()
    assert lengths == [len(qwen.tokenizer(question)["input_ids"]) for question in QUESTIONS]


def test_two_models_attentions_do_not_meet() -> None:
    """A model of another family beside ours, by turns: the spans of one pass are never seen by another."""
    first, second = make_live("qwen3"), make_live("llama")
    one, other = first.run(QUESTIONS[0], stream=True), second.run(QUESTIONS[1], stream=True)
    assert next(one).branches == first.run(QUESTIONS[0]).branches
    assert next(other).branches == second.run(QUESTIONS[1]).branches


def test_out_of_memory_while_first_tokens_are_drawn(qwen: Live) -> None:
    """A row that never got its first token is emptied, not put aside with whatever stood there."""
    calls = 0

    class Failing(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == 3:
                raise torch.OutOfMemoryError("no more of it")
            return scores

    usual = qwen.run(*QUESTIONS, beta=0.3)
    with pytest.warns(RuntimeWarning, match="out of memory"):
        output = qwen.run(*QUESTIONS, beta=0.3, logits_processor=LogitsProcessorList([Failing()]))
    assert calls > 3
    for mine, theirs in zip(output.branches, usual.branches, strict=True):
        assert [(a.token_ids, a.probe_answers) for a in mine] == [(b.token_ids, b.probe_answers) for b in theirs]


def test_one_model_in_several_threads() -> None:
    """Calls take turns with the model; each gives what it gives alone."""
    live = make_live("qwen3")
    alone = [live.run(question, beta=0.2).branches for question in QUESTIONS]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(3):
            found = list(pool.map(lambda question: live.run(question, beta=0.2).branches, QUESTIONS))
            assert found == alone
