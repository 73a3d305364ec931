"""Autocast, and models that accelerate has prepared: types come from what the layers make, not from the weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from engine_models import QUESTIONS, Live, make_model, make_tokenizer, said
from test_hybrids import MAIN, make_hybrid, stock_logprobs
from test_live_replay import assert_same, written_down

from tts_generate.engine import enable
from tts_generate.engine.shapes import shapes_of
from tts_generate.replay import replay

LONG = "Q: " + "a = 3 ; b = a + 5 ; " * 14 + "b ? <think>"


def halved() -> AbstractContextManager[Any]:
    return torch.autocast("cpu", torch.bfloat16)


@contextmanager
def accelerated(live: Live) -> Iterator[Live]:
    """The model as `Accelerator.prepare` leaves it: its forward runs under autocast, its outputs are float32."""
    AcceleratorState._reset_state(reset_partial_state=True)  # a harness may have had one of its own in this process
    accelerator = Accelerator(mixed_precision="bf16", cpu=True)
    try:
        model = accelerator.unwrap_model(accelerator.prepare(live.model))
        yield Live(enable(model, tokenizer=live.tokenizer), live.tokenizer)
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


def roomy(name: str, **kwargs: Any) -> Live:
    """Room for a prompt that stands once."""
    model = make_model(name, **kwargs)
    model.config.max_position_embeddings = 512
    tokenizer = make_tokenizer()
    return Live(enable(model, tokenizer=tokenizer), tokenizer)


CASES: dict[str, tuple[Callable[[], Live], dict[str, Any]]] = {
    "qwen3": (lambda: roomy("qwen3"), {}),
    "phi3": (lambda: roomy("phi3"), {}),
    "mistral_windowed": (lambda: roomy("mistral_windowed"), {}),
    "eager": (lambda: roomy("llama", attention="eager"), {}),
    "static": (lambda: roomy("llama"), {"cache_implementation": "static"}),
    "bfloat16": (lambda: roomy("llama", dtype=torch.bfloat16), {}),
    **{family: (lambda family=family: make_hybrid(family), {}) for family in MAIN},
}


@pytest.mark.parametrize("case", CASES)
def test_live_is_replay_under_autocast(case: str) -> None:
    make, options = CASES[case]
    live = make()
    questions = QUESTIONS[:2] if case in MAIN else [LONG, QUESTIONS[0]]
    with halved():
        output = live.run(*questions, **options)
    assert_same(output, replay(written_down(output), "cmc", beta=0.5, shuffles=0, traces=True))
    with halved():
        for question, branches in zip(questions, output.branches, strict=True):
            want = stock_logprobs(live, question, branches[0].token_ids)
            for step, mean in enumerate(branches[0].step_logprobs):
                part = want[8 * step : 8 * step + 8]
                assert mean == pytest.approx(sum(part) / len(part), abs=0.1)


@pytest.mark.filterwarnings("ignore")  # accelerate's own
def test_a_model_that_accelerate_has_prepared() -> None:
    with halved():
        expected = roomy("qwen3").run(LONG, QUESTIONS[0])
    with accelerated(roomy("qwen3")) as live:
        output = live.run(LONG, QUESTIONS[0])
    assert said(output) == said(expected)
    assert_same(output, replay(written_down(output), "cmc", beta=0.5, shuffles=0, traces=True))


def test_what_is_tried_under_autocast_is_not_kept_for_later() -> None:
    """Trials of shapes are remembered by process: none may have been run in half precision."""
    model = make_model("llama")
    before = shapes_of(model, torch.device("cpu"))
    with halved():
        assert not shapes_of(model, torch.device("cpu")).exact
    assert shapes_of(model, torch.device("cpu")) == before
