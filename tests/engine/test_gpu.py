"""On a GPU: every dtype decodes, the ledger holds, and what a live run decoded replays to the same episodes."""

from __future__ import annotations

import pytest
import torch
from engine_models import CONFIGS, QUESTIONS, make_live
from test_live_replay import assert_same, written_down

from tts_generate.engine import shared
from tts_generate.engine.shapes import Shapes
from tts_generate.replay import replay

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("family", sorted(CONFIGS))
@pytest.mark.parametrize("controller", ["self_consistency", "asc", "cmc"])
def test_live_run_replays_to_the_same_episode(family: str, dtype: torch.dtype, controller: str) -> None:
    live = make_live(family, dtype=dtype, device="cuda")
    output = live.run(*QUESTIONS, controller=controller, beta=0.3)
    assert output.sequences.device.type == "cuda"
    assert_same(output, replay(written_down(output), controller, beta=0.3, shuffles=0, traces=True))


@pytest.mark.parametrize("family", ["qwen3", "qwen3_mixed"])
@pytest.mark.parametrize("controller", ["self_consistency", "cmc"])
def test_captured_graphs_decode_what_plain_passes_do(family: str, controller: str) -> None:
    """Float32: the same tokens, also when rows run out and the cache is given back and captured anew."""
    live = make_live(family, device="cuda")
    options = {"controller": controller, "beta": 0.3}
    plain = live.run(*QUESTIONS, **options)
    for more in ({}, {"max_rows": 5}, {"sync_every": 1}):
        static = live.run(*QUESTIONS, **options, **more, cache_implementation="static")
        assert [[b.token_ids for b in rows] for rows in static.branches] == [
            [b.token_ids for b in rows] for rows in plain.branches
        ]


@pytest.mark.parametrize("options", [{"ahead_rows": 40}, {"max_rows": 5, "ahead_rows": 5}], ids=str)
def test_shared_prompts_and_rows_that_decode_ahead_change_no_token(
    options: dict[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32: prompts that stand once, and idle rows at work, against a copy in every row and none."""
    live = make_live("qwen3", device="cuda")
    plain = live.run(*QUESTIONS)
    monkeypatch.setattr(shared, "LEAST", 1)
    other = live.run(*QUESTIONS, **options)
    assert other.cost == plain.cost
    for ours, theirs in zip(other.branches, plain.branches, strict=True):
        assert [b.token_ids for b in ours] == [b.token_ids for b in theirs]


def test_same_seed_same_call_same_tokens() -> None:
    live = make_live("qwen3", device="cuda")
    assert live.run(*QUESTIONS).branches == live.run(*QUESTIONS).branches


def test_cpu_and_gpu_draw_the_same_noise() -> None:
    """Keyed noise is integer arithmetic: the float32 tokens of a short branch agree across devices."""
    cpu = make_live("qwen3").run(QUESTIONS[0], controller="self_consistency", beta=0.0)
    gpu = make_live("qwen3", device="cuda").run(QUESTIONS[0], controller="self_consistency", beta=0.0)
    same = sum(a.token_ids[:4] == b.token_ids[:4] for a, b in zip(cpu.branches[0], gpu.branches[0], strict=True))
    assert same >= 3


@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}], ids=str)
def test_a_gpu_that_is_nearly_full_decodes_the_same_tokens(options: dict[str, str]) -> None:
    """Float32: what another program left must do, or the call says so; nothing is decoded otherwise for it."""
    live = make_live("qwen3", device="cuda")
    roomy = live.run(*QUESTIONS, controller="self_consistency", beta=0.3, **options)
    torch.cuda.empty_cache()
    free = torch.cuda.mem_get_info()[0]
    other = torch.empty(free - 300 * 2**20, dtype=torch.uint8, device="cuda")
    try:
        tight = live.run(*QUESTIONS, controller="self_consistency", beta=0.3, **options)
    finally:
        del other
        torch.cuda.empty_cache()
    assert [[b.token_ids for b in rows] for rows in tight.branches] == [
        [b.token_ids for b in rows] for rows in roomy.branches
    ]


@pytest.mark.parametrize("controller", ["self_consistency", "cmc", "dynasor"])
def test_few_calls_of_many_rows_decode_what_many_calls_of_few_do(
    controller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Float32: rows that probe and end out of step, and a prompt of each question that stands once."""
    live = make_live("qwen3", device="cuda")
    monkeypatch.setattr(shared, "LEAST", 1)
    few = live.run(*QUESTIONS, controller=controller, beta=0.3)
    monkeypatch.setattr(Shapes, "few_calls", False)
    many = live.run(*QUESTIONS, controller=controller, beta=0.3)
    assert few.cost == many.cost
    assert [[b.token_ids for b in rows] for rows in few.branches] == [
        [b.token_ids for b in rows] for rows in many.branches
    ]
