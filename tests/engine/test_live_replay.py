"""Live = replay, in both senses: of what a live run decoded, and of a recording made with the same seed."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import CONFIGS, QUESTIONS, Live, make_live
from test_generate import read
from transformers import TopKLogitsWarper

from tts_generate.controller import Controller
from tts_generate.engine import record
from tts_generate.errors import InputError, StoreFormatError, TTSError
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.replay import replay as replayed
from tts_generate.state import TO_END, Decision, State
from tts_generate.trajectories import Question

INTERVAL = 8


class Restless(Controller):
    """Probes some branches only, prunes, bursts and opens late: every verb, on demand."""

    probing = "on_demand"
    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 3 + round(4 * beta)}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width
        do.probe[0] = True

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            do.steps[i] = TO_END if i % 5 == 4 else 1 + (i + state.round) % 3
            do.probe[i] = (i + state.round) % 2 == 0
            do.prune[i] = state.round == 2 and i % 4 == 3

    def review(self, state: State, do: Decision) -> None:
        if state.round < 3:
            do.open, do.open_steps = 1, 2


CONTROLLERS: list[Any] = [
    load_controller("self_consistency", max_samples=6),
    load_controller("asc", max_samples=6),
    "cmc",
    load_controller("esc", max_samples=12, window=4),
    load_controller("parallel_probe", num_chains=6, warm_up=1, patience=2, stability=3),
    load_controller("worth", n_init=3, widen=2, max_branches=9, read_bar=0.2, depth_power=2.0, length_power=1.0),
    Restless.from_beta(0.5),
]


def assert_same(live_output: Any, result: Any) -> None:
    """Answers, costs and traces of a live call equal those of a replay in recorded order, episode by episode."""
    assert [answer or "" for answer in live_output.answers] == result.answers[0].tolist()
    assert [c.generated_tokens for c in live_output.cost] == result.generated_tokens[0].tolist()
    assert [c.probe_tokens for c in live_output.cost] == result.probe_tokens[0].tolist()
    assert [c.wasted_tokens for c in live_output.cost] == result.wasted_tokens[0].tolist()
    assert [c.prompt_tokens for c in live_output.cost] == result.prompt_tokens[0].tolist()
    assert [t.events for t in live_output.trace] == [t.events for t in result.traces]


def written_down(output: Any) -> Recording:
    questions = [Question(str(number), "") for number in range(len(output.answers))]
    rows = [branch for branches in output.branches for branch in branches]
    return Recording.of(questions, rows, INTERVAL, source="live")


def knobs(controller: Any) -> dict[str, Any]:
    return {} if isinstance(controller, Controller) else {"beta": 0.3}


PAIRS = [("qwen3", controller) for controller in CONTROLLERS] + [
    (family, controller) for family in sorted(set(CONFIGS) - {"qwen3"}) for controller in ("cmc", CONTROLLERS[-1])
]
"""Every controller on one family; on every family one that probes all and one that uses every verb."""


@pytest.mark.parametrize(("live", "controller"), PAIRS, ids=str, indirect=["live"])
def test_what_a_live_run_decoded_replays_to_the_same_episode(live: Live, controller: Any) -> None:
    output = live.run(*QUESTIONS, **{"beta": None, "controller": controller, **knobs(controller)})
    result = replayed(written_down(output), controller, shuffles=0, traces=True, **knobs(controller))
    assert_same(output, result)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_it_does_in_half_precision_too(dtype: torch.dtype) -> None:
    output = make_live("qwen3", dtype=dtype).run(*QUESTIONS)
    assert_same(output, replayed(written_down(output), "cmc", beta=0.5, shuffles=0, traces=True))


@pytest.fixture(scope="module")
def recording(qwen: Live, tmp_path_factory: pytest.TempPathFactory) -> Recording:
    """24 branches of each question, recorded with seed 5."""
    questions = [Question(f"q{n}", text, "7") for n, text in enumerate(QUESTIONS)]
    store = record(
        qwen.model,
        qwen.tokenizer,
        questions,
        tmp_path_factory.mktemp("recorded") / "store",
        branches=24,
        seed=5,
        interval_tokens=INTERVAL,
        max_new_tokens=40,
        max_probe_tokens=4,
        temperature=1.0,
        top_k=0,
        progress=False,
    )
    return Recording.from_store(store)


@pytest.mark.parametrize("controller", CONTROLLERS, ids=str)
@pytest.mark.parametrize("max_rows", [1, 5, 64])
def test_a_live_run_from_scratch_takes_the_recorded_branches(
    qwen: Live, recording: Recording, controller: Any, max_rows: int
) -> None:
    """Sense (b): the same seed gives the same branches as far as they are read, so everything equals the replay."""
    result = replayed(recording, controller, shuffles=0, traces=True, **knobs(controller))
    backwards = list(reversed(QUESTIONS))
    options = {"beta": None, "controller": controller, "seed": 5, "max_rows": max_rows, **knobs(controller)}
    output = qwen.run(*backwards, **options)
    for name in ("answers", "cost", "trace"):
        output[name] = list(reversed(output[name]))
    assert_same(output, result)


def test_recorded_branches_hold_a_probe_at_every_step(recording: Recording, qwen: Live) -> None:
    full = qwen.run(*QUESTIONS, controller="self_consistency", seed=5, controller_kwargs={"max_samples": 24})
    for recorded, branches in zip(recording.questions, full.branches, strict=True):
        for mine, branch in zip(recorded.rows.branches, branches, strict=True):
            assert mine.complete
            assert mine.tokens == branch.tokens
            assert mine.interior == (branch.tokens - 1) // INTERVAL
            steps = recorded.rows.steps[mine.first : mine.first + mine.interior + 1]
            assert all(step.answer >= -1 for step in steps)


def test_recording_needs_no_probe_to_give_the_same_tokens(recording: Recording, qwen: Live) -> None:
    """A probe leaves no trace in its branch: probed and unprobed branches are the same tokens."""
    plain = qwen.run(QUESTIONS[2], controller="self_consistency", seed=5, controller_kwargs={"max_samples": 24})
    probed = qwen.run(QUESTIONS[2], controller="cmc", seed=5, beta=1.0)
    for a, b in zip(plain.branches[0], probed.branches[0], strict=False):
        assert replace(a, token_ids=None).branch == b.branch
        assert a.token_ids[: b.tokens] == b.token_ids


def test_a_recording_is_not_gone_on_with_by_another_model(tmp_path: Path) -> None:
    """Same path, same shape, other weights: the store says so instead of mixing two models' branches."""
    live = make_live("llama")
    questions = [Question("q", QUESTIONS[0], "7")]
    options: dict[str, Any] = {"interval_tokens": INTERVAL, "max_new_tokens": 16, "progress": False}
    record(live.model, live.tokenizer, questions, tmp_path / "s", branches=2, **options)
    with torch.no_grad():
        live.model.lm_head.weight.add_(0.5)
    with pytest.raises(StoreFormatError, match=r"other settings \(model"):
        record(live.model, live.tokenizer, questions, tmp_path / "s", branches=2, **options)


@pytest.mark.parametrize(
    ("first", "then"),
    [
        ({"exponential_decay_length_penalty": (4, 1.5)}, {"exponential_decay_length_penalty": (4, 3.0)}),
        ({"sequence_bias": {(9,): 1.0}}, {"sequence_bias": {(9,): -9.0}}),
        ({"suppress_tokens": (9,)}, {"suppress_tokens": (10,)}),
        ({"logits_processor": [TopKLogitsWarper(3)]}, {}),
        ({}, {"stopping_criteria": [lambda ids, scores: ids[:, 0] < 0]}),
    ],
    ids=["tuple", "mapping", "tuple_of_tokens", "processor", "criterion"],
)
def test_what_shapes_branches_is_in_the_manifest(tmp_path: Path, first: dict[str, Any], then: dict[str, Any]) -> None:
    """Whatever a setting's type: gone on with by another, the store would hold branches of two distributions."""
    live = make_live("llama")
    questions = [Question("q", QUESTIONS[0], "7")]
    options: dict[str, Any] = {"interval_tokens": INTERVAL, "max_new_tokens": 16, "progress": False, "branches": 2}
    store = record(live.model, live.tokenizer, questions, tmp_path / "s", **options, **first)
    assert first.keys() <= store.manifest.generation_config.keys()
    record(live.model, live.tokenizer, questions, tmp_path / "s", **options, **first)
    with pytest.raises(StoreFormatError, match=r"other settings \(generation_config"):
        record(live.model, live.tokenizer, questions, tmp_path / "s", **options, **then)


def test_a_time_limit_ends_a_recording_and_loses_nothing(tmp_path: Path) -> None:
    """`max_time` is the same in record() as in generate(): it ends questions, and cuts no branch short."""
    live = make_live("llama")
    questions = [Question(f"q{n}", text) for n, text in enumerate(QUESTIONS)]
    options: dict[str, Any] = {"interval_tokens": INTERVAL, "max_new_tokens": 40, "progress": False, "branches": 8}
    whole = record(live.model, live.tokenizer, questions, tmp_path / "whole", **options).trajectories()
    limited = record(live.model, live.tokenizer, questions, tmp_path / "s", max_time=0.08, **options).trajectories()
    assert len(limited) < len(whole)
    assert all(row in read(whole) for row in read(limited))
    again = record(live.model, live.tokenizer, questions, tmp_path / "s", **options).trajectories()
    assert read(again) == read(whole)


def test_a_recording_that_is_not_whole_says_so(tmp_path: Path) -> None:
    """As one at servers does: NaN logits in one branch end its question."""
    live = make_live("qwen3")
    questions = [Question(f"q{n}", text) for n, text in enumerate(QUESTIONS)]
    options: dict[str, Any] = {"interval_tokens": INTERVAL, "max_new_tokens": 40, "progress": False, "branches": 6}
    passes: list[int] = []

    def poison(module: Any, args: Any, output: Any) -> None:
        passes.append(1)
        if len(passes) == 12:
            output.logits[0, 0] = float("nan")

    hook = live.model.register_forward_hook(poison)
    with pytest.warns(RuntimeWarning, match="NaN"), pytest.raises(TTSError, match="1 of 3 questions could not be rec"):
        record(live.model, live.tokenizer, questions, tmp_path / "s", **options)
    hook.remove()
    assert len(record(live.model, live.tokenizer, questions, tmp_path / "s", **options).trajectories()) == 18


def test_nothing_to_record() -> None:
    live = make_live("llama")
    with pytest.raises(InputError, match="no question"):
        record(live.model, live.tokenizer, [], "nowhere")
    with pytest.raises(InputError, match="branches"):
        record(live.model, live.tokenizer, [Question("q", QUESTIONS[0])], "nowhere", branches=0)
    with pytest.raises(InputError, match="votes is of replay"):
        record(live.model, live.tokenizer, [Question("q", QUESTIONS[0])], "nowhere", votes="equal")


def test_recording_needs_no_pad_token_and_can_wrap_questions_into_a_chat(tmp_path: Path) -> None:
    """Llama-like tokenizers come without a pad token; a chat template makes another prompt, and so another store."""
    live = make_live("llama")
    questions = [Question(f"q{n}", text) for n, text in enumerate(QUESTIONS)]
    options: dict[str, Any] = {"interval_tokens": INTERVAL, "max_new_tokens": 16, "progress": False, "branches": 2}
    padded = record(live.model, live.tokenizer, questions, tmp_path / "padded", **options).trajectories()
    live.tokenizer.pad_token = None
    assert record(live.model, live.tokenizer, questions, tmp_path / "unpadded", **options).trajectories() == padded
    with pytest.raises(InputError, match="no chat template"):
        record(live.model, live.tokenizer, questions, tmp_path / "chat", chat=True, **options)
    live.tokenizer.chat_template = "{% for m in messages %}Q: {{ m['content'] }}{% endfor %}"
    chatted = record(live.model, live.tokenizer, questions, tmp_path / "chat", chat=True, **options).trajectories()
    assert chatted[0].prompt_tokens == padded[0].prompt_tokens + 1
    with pytest.raises(StoreFormatError, match="other settings"):
        record(live.model, live.tokenizer, questions, tmp_path / "padded", chat=True, **options)
    with pytest.raises(InputError, match="'q' is empty"):
        record(live.model, live.tokenizer, [Question("q", "")], tmp_path / "empty", **options)
    live.tokenizer.chat_template += " "  # which tells it from the one that the store was begun with
    with pytest.raises(StoreFormatError, match=r"other settings .*chat_template"):
        record(live.model, live.tokenizer, questions, tmp_path / "chat", chat=True, **options)
    old = json.loads((tmp_path / "chat" / "manifest.json").read_text())
    del old["tokenizer"]["chat_template"]  # as recordings had it until now
    (tmp_path / "chat" / "manifest.json").write_text(json.dumps(old))
    assert (
        record(live.model, live.tokenizer, questions, tmp_path / "chat", chat=True, **options).trajectories() == chatted
    )
