"""A cut is told as a cut: in what `generate` and a server return, in both harnesses, in the evaluator and in traces."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest
from datasets import Dataset
from harness_tasks import QUESTIONS, SEED, own_evaluation, task
from test_lm_eval import TASKS, caches, lm, run  # noqa: F401

pytest.importorskip("inspect_ai", reason="pip install 'tts-generate[inspect]'")

from inspect_ai.model import GenerateConfig, get_model

from tts_generate.answers import AnswerBook
from tts_generate.controller import Controller
from tts_generate.engine.given import padded
from tts_generate.harness.asking import Asker, PromptBatch
from tts_generate.harness.evaluators import TTSEvaluator
from tts_generate.harness.inspect_model import _stop_reason
from tts_generate.live.branch import Branch, ProbeRecord
from tts_generate.live.winner import truncated, winner
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.report.lanes import columns
from tts_generate.report.timeline import timeline
from tts_generate.state import Decision, State
from tts_generate.trajectories import Question, Trajectory

pytestmark = pytest.mark.filterwarnings("ignore::tts_generate.errors.NoAnswerWarning")  # three of four have none

CUT = {"controller": "self_consistency", "beta": 0.0, "interval_tokens": 16, "force_answer": False}
LENGTH = 64
"""Tokens in which the first question is answered; the others are still thinking, two with their answer just said."""
ENDED = [True, False, False, False]


class Early(Controller):
    """Stops at the second probe of its only branch."""

    @staticmethod
    def schedule(beta: float) -> dict[str, int]:
        return {}

    def begin(self, state: State, do: Decision) -> None:
        do.open = 1

    def plan(self, state: State, do: Decision) -> None:
        do.steps[0], do.probe[0] = 1, True

    def review(self, state: State, do: Decision) -> None:
        do.stop, do.answer = state.depth[0] == 2, state.answer[0]


@pytest.fixture(scope="module")
def short(tiny: tuple[Any, Any]) -> Any:
    return own_evaluation(*tiny, **CUT, max_new_tokens=LENGTH)


def test_generate_tells_which_sequences_break_off(short: Any) -> None:
    assert short.truncated == [not ended for ended in ENDED]
    reasons = [b[w].finish_reason for b, w in zip(short.branches, short.winners, strict=True)]
    assert reasons == ["eos" if ended else "length" for ended in ENDED]
    assert short.finish_reason == ["answer"] * 4  # the controller did decide, on nothing


def test_a_branch_that_a_probe_closes_does_not_break_off(tiny: tuple[Any, Any]) -> None:
    output = own_evaluation(*tiny, controller=Early(), beta=None, interval_tokens=16)
    assert [b[w].finish_reason for b, w in zip(output.branches, output.winners, strict=True)] == [None] * 4
    assert None not in output.answers
    assert output.truncated == [False] * 4


def test_lm_eval_grades_no_cut_reasoning(tiny: tuple[Any, Any]) -> None:
    """The last number that was thought is the gold answer of two of them; the model never said so."""
    last = {"function": "regex", "regex_pattern": r"(\d)", "group_select": -1}
    found = task(
        generation_kwargs={"max_gen_toks": LENGTH},
        filter_list=[{"name": "last", "filter": [last, {"function": "take_first"}]}],
    )
    thinking = run(lm(tiny, **CUT, think_end_token="</think>"), found, task_manager=TASKS)
    samples = sorted(thinking["samples"]["tiny_digits"], key=lambda sample: sample["doc_id"])
    said = [sample["resps"][0][0] for sample in samples]
    assert [text != "" for text in said] == ENDED
    assert sum(sample["exact_match"] for sample in samples[1:]) == 0
    assert thinking["results"]["tiny_digits"]["tts_truncated,none"] == 0.75
    assert [sample["tts"][0]["truncated"] for sample in samples] == [not ended for ended in ENDED]
    whole = run(lm(tiny, **CUT), found, task_manager=TASKS)  # nobody said that it thinks: the text is all there is
    graded = sorted(whole["samples"]["tiny_digits"], key=lambda sample: sample["doc_id"])
    assert sum(sample["exact_match"] for sample in graded[1:]) > 0
    assert whole["results"]["tiny_digits"]["tts_truncated,none"] == 0.75


def test_one_that_is_asked_where_it_is_cut_is_graded_by_what_it_says(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    asker = Asker(model, tokenizer, "</think>", **{**CUT, "force_answer": True})
    prompts = [list(tokenizer(question.question)["input_ids"]) for question in QUESTIONS]
    found = dict(asker.ask(PromptBatch(*padded(prompts, model.device), LENGTH, SEED, options={"do_sample": True})))
    assert [found[number].truncated for number in range(4)] == [not ended for ended in ENDED]
    assert all(each.answer is not None and f"\\boxed{{ {each.answer} }}" in each.text for each in found.values())


def test_inspect_hears_max_tokens(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    how = {"seed": SEED, "think_end_token": "</think>", **CUT}
    api = get_model("tts/tiny", pretrained=model, tokenizer=tokenizer, memoize=False, **how)
    config = GenerateConfig(max_tokens=LENGTH)

    async def ask() -> list[Any]:
        return await asyncio.gather(*(api.generate(question.question, config=config) for question in QUESTIONS))

    outputs = asyncio.run(ask())
    assert [output.stop_reason for output in outputs] == ["stop" if ended else "max_tokens" for ended in ENDED]
    assert [output.completion != "" for output in outputs] == ENDED


def test_inspect_says_unknown_where_time_ran_out(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    asker = Asker(model, tokenizer, max_time=1e-6, **CUT)
    prompt = list(tokenizer(QUESTIONS[0].question)["input_ids"])
    ((_, found),) = asker.ask(PromptBatch(*padded([prompt], model.device), LENGTH, SEED))
    assert (found.finish_reason, found.truncated, _stop_reason(found)) == ("deadline", True, "unknown")


def test_an_answer_that_was_cut_after_the_prompt_closed_the_thinking_stands(tiny: tuple[Any, Any]) -> None:
    """Where a template writes `</think>` itself, what is cut is no reasoning."""
    model, tokenizer = tiny
    asker = Asker(model, tokenizer, "</think>", **CUT)
    prompts = [list(tokenizer(QUESTIONS[1].question + end)["input_ids"]) for end in ("", " </think> ")]
    texts = [
        next(asker.ask(PromptBatch(*padded([prompt], model.device), 16, SEED, options={"do_sample": True})))[1]
        for prompt in prompts
    ]
    assert (texts[0].text, texts[0].truncated) == ("", True)
    assert texts[1].text != "" or not texts[1].truncated


def test_the_evaluator_tells_the_share(tiny: tuple[Any, Any]) -> None:
    data = Dataset.from_dict(
        {"question": [q.question for q in QUESTIONS], "gold_answer": [q.gold_answer for q in QUESTIONS]}
    )
    told = TTSEvaluator().compute(
        tiny[0], data, tokenizer=tiny[1], seed=SEED, max_new_tokens=LENGTH, progress=False, votes="equal", **CUT
    )
    assert told["truncated"] == 0.75


def test_traces_tell_a_cut_from_an_end_live_and_in_replay(short: Any) -> None:
    rows = [row for branches in short.branches for row in branches]
    names = sorted({row.question_id for row in rows})
    recording = Recording.of([Question(name, "") for name in names], rows, 16, source="live")
    controller = load_controller("self_consistency", beta=0.0)
    for number, live in enumerate(short.trace):
        assert recording.trace(controller, number).events == live.events
        ends = [r for event in live.events for r in event.get("branches", []) if r["finished"]]
        assert len(ends) == len(short.branches[number])
        assert [bool(r.get("cut")) for r in ends] == [
            short.branches[number][r["branch"]].finish_reason == "length" for r in ends
        ]
    assert " END" in "\n".join(timeline(short.trace[0]))
    text = "\n".join(timeline(short.trace[1]))
    assert " CUT" in text
    assert " END" not in text
    for number, ended in enumerate(ENDED):
        assert set(columns(short.trace[number], {})["ended"]) - {0} == {1 if ended else 2}


def test_a_trace_in_another_order_tells_the_same_branches() -> None:
    recording = Recording.of([Question("q", "")], [row(0, "eos", "7"), row(1, "length", None)], 20)
    trace = recording.trace(load_controller("self_consistency", max_samples=2), 0, [1, 0])
    readings = [reading for event in trace.events for reading in event.get("branches", []) if reading["finished"]]
    assert {reading["branch"]: reading.get("cut", False) for reading in readings} == {0: True, 1: False}


def row(number: int, reason: str | None, answer: str | None) -> Trajectory:
    return Trajectory("q", number, 0, 1, 10 + number, reason, answer, (), (), (), (), ())


def test_the_winner_is_one_that_ended_by_itself_if_there_is_one() -> None:
    reasons = ["length", "eos", "length", "stop"]
    recording = Recording.of([Question("q", "")], [row(n, reason, "7") for n, reason in enumerate(reasons)], 5)
    episode = recording.episode(load_controller("self_consistency", max_samples=4), 0)
    branches = [Branch(n, n, (), finish_reason=reason, final_answer="7") for n, reason in enumerate(reasons)]
    book = AnswerBook()
    book.id("7")
    assert winner(episode, book, branches) == 1
    assert np.flatnonzero(episode.state.finish_rank == 0).tolist() == [0]


@pytest.mark.parametrize(
    ("branch", "breaks"),
    [
        (Branch(0, 0, (), finish_reason="eos"), False),
        (Branch(0, 0, (), finish_reason="stop"), False),
        (Branch(0, 0, (), finish_reason="length", final_answer="7"), True),
        (Branch(0, 0, ()), True),
        (Branch(0, 0, (), probes=[ProbeRecord(5, "7", 3, None)]), False),
        (Branch(0, 0, (), probes=[ProbeRecord(5, "7", 3, None), ProbeRecord(9, None, 3, None)]), True),
    ],
)
def test_what_breaks_off(branch: Branch, breaks: bool) -> None:
    assert truncated([branch], 0) is breaks
    assert truncated([branch], -1)
