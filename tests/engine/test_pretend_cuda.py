"""What a CUDA device would refuse, or wait for: shown on a pretended one. `test_gpu.py` is for a real one."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import dispatch_model
from engine_models import QUESTIONS, Live, make_live, make_model, make_tokenizer, said
from pretend_cuda import CUDA, PretendCuda, pretend_cuda
from test_hybrids import MAIN, make_hybrid
from test_live_replay import assert_same, written_down
from transformers import StoppingCriteria, StoppingCriteriaList

from tts_generate.engine import enable, record, shared
from tts_generate.engine.cards import model_card
from tts_generate.engine.passes import Passes
from tts_generate.errors import UnsupportedError
from tts_generate.replay import replay
from tts_generate.trajectories import Question

pytestmark = [
    pytest.mark.skipif(torch.cuda.is_available(), reason="there is a real CUDA device: see test_gpu.py"),
    pytest.mark.skipif(sys.platform != "linux", reason="pretends in torch's library for Linux"),
]
SHORT = {"max_new_tokens": 20}
WAYS: list[dict[str, Any]] = [
    {},
    {"cache_implementation": "static"},
    {"max_rows": 5, "ahead_rows": 5},
    {"max_rows": 5, "cache_implementation": "static"},
]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendCuda]:
    with pretend_cuda(monkeypatch) as mode:
        yield mode


def on_cuda(live: Live) -> Live:
    live.model.to(CUDA)
    return Live(live.model, live.tokenizer, str(CUDA))


# ---- the pretence itself


def test_operands_on_two_devices_are_refused(cuda: PretendCuda) -> None:
    there, here = torch.ones(3, device=CUDA), torch.ones(3)
    assert there.device == CUDA
    with pytest.raises(AssertionError, match=r"operands on cuda:0 and on the CPU"):
        there + here
    assert (there + here.to(CUDA)).cpu().tolist() == [2.0, 2.0, 2.0]


def test_what_the_host_waits_for_is_counted(cuda: PretendCuda) -> None:
    there = torch.ones(3).to(CUDA, non_blocking=True)
    (there * 2 + torch.arange(3, device=CUDA)).sum()
    assert not cuda.waits
    for number, wait in enumerate((
        lambda: there.cpu(), lambda: torch.ones(3).to(CUDA), lambda: bool(there.sum() > 1), lambda: there[there > 0],
        lambda: there[torch.tensor([0, 1])], lambda: torch.tensor([1.0], device=CUDA),
    ), 1):  # fmt: skip
        wait()
        assert cuda.waits.total() == number


def test_a_graph_runs_again_over_its_addresses(cuda: PretendCuda) -> None:
    asked, graph = torch.zeros(3, device=CUDA), torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        answer = (asked.view(3, 1) + 1).sum(0)
    asked.copy_(torch.tensor([1.0, 2.0, 3.0]).to(CUDA))
    graph.replay()
    assert answer.item() == 9
    with pytest.raises(RuntimeError, match="not permitted when stream is capturing"), torch.cuda.graph(graph):
        answer.item()


# ---- the engine


@pytest.mark.long
@pytest.mark.parametrize(("family", "least"), [("qwen3", 1 << 30), ("qwen3", 1), ("qwen3_mixed", 1 << 30)])
def test_every_way_to_decode_gives_the_tokens_of_the_cpu(
    family: str, least: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prompts in each row, prompts that stand once, and layers with a window beside full ones."""
    monkeypatch.setattr(shared, "LEAST", least)
    usual = make_live(family).run(*QUESTIONS, **SHORT)
    with pretend_cuda(monkeypatch) as mode:
        live = make_live(family, device=str(CUDA))
        for number, options in enumerate(WAYS):
            found = live.run(*QUESTIONS, **SHORT, **options)
            assert said(found) == said(usual), options
            assert found.cost == usual.cost
            assert found.sequences.device == CUDA
            assert bool(mode.graphs) == (number > 0)


@pytest.mark.long
@pytest.mark.parametrize("family", MAIN)
def test_states_stay_on_the_device(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = make_hybrid(family).run(*QUESTIONS, **SHORT)
    with pretend_cuda(monkeypatch):
        live = on_cuda(make_hybrid(family))
        for options in ({}, {"max_rows": 5}):
            assert said(live.run(*QUESTIONS, **SHORT, **options)) == said(usual)


@pytest.mark.parametrize(
    ("dtype", "least", "options"), [(torch.bfloat16, 1, WAYS[0]), (torch.float16, 1 << 30, WAYS[1])]
)
def test_a_run_in_half_precision_replays(
    cuda: PretendCuda, dtype: torch.dtype, least: int, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "LEAST", least)
    output = make_live("qwen3", dtype=dtype, device=str(CUDA)).run(*QUESTIONS, **options)
    assert_same(output, replay(written_down(output), "cmc", beta=0.5, shuffles=0, traces=True))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_a_product_that_widens_is_the_float32_one(cuda: PretendCuda, dtype: torch.dtype) -> None:
    """In a cache's row, which is not contiguous; the same as on the CPU but for the weights' rounding."""
    query, cache = torch.randn(2, 3, 4, 16).to(dtype), torch.randn(2, 2, 3, 64, 16).to(dtype)
    parts = []
    for device in ("cpu", CUDA):
        key, value = cache.to(device)[..., :40, :]
        found = shared.partial(query.to(device), key, value, None, None)
        parts.append(found.found.cpu() / found.total.cpu())
        assert found.found.dtype == torch.float32
    torch.testing.assert_close(*parts, rtol=0, atol=0.01 if dtype != torch.float32 else 1e-6)


@pytest.mark.parametrize(
    "options",
    [{"top_k": 5, "top_p": 0.9}, {"cache_implementation": "static"}, {"min_p": 0.1, "min_new_tokens": 4}],
    ids=str,
)
def test_the_host_waits_once_for_several_passes(
    cuda: PretendCuda, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between two looks at what was drawn, nothing is: sampling, plans and masks leave the device's queue alone."""
    live, looks, run = make_live("qwen3", device=str(CUDA)), [], Passes.run

    def counted(self: Passes, plan: Any, passes: int) -> Any:
        before = cuda.waits.copy()
        found = run(self, plan, passes)
        looks.append((passes, cuda.waits - before))
        return found

    monkeypatch.setattr(Passes, "run", counted)
    live.run(QUESTIONS[0], controller="self_consistency", beta=None, **options)
    assert max(passes for passes, _ in looks) == 8
    drawn = {"aten._to_copy.default": 4}  # tokens and log-probabilities, of branches and of probes
    assert all(waits == drawn for _, waits in looks)


class EndsAt(StoppingCriteria):
    """Ends a branch at a token; its numbers are on the model's device, as a user's may be."""

    def __init__(self, token: int, device: Any) -> None:
        self.token = torch.tensor([token]).to(device)

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return torch.isin(input_ids[:, -1], self.token)


def test_criteria_see_ids_on_the_models_device(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = make_live("qwen3").run(*QUESTIONS, stopping_criteria=StoppingCriteriaList([EndsAt(10, "cpu")]))
    with pretend_cuda(monkeypatch):
        ends = StoppingCriteriaList([EndsAt(10, CUDA)])
        assert said(make_live("qwen3", device=str(CUDA)).run(*QUESTIONS, stopping_criteria=ends)) == said(usual)


@pytest.mark.long
@pytest.mark.parametrize("family", ["qwen3", *MAIN])
def test_out_of_memory_the_rows_come_back_on_the_device(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What they held went to the host's memory; nothing is lost."""
    make = make_hybrid if family in MAIN else make_live
    usual = make(family).run(*QUESTIONS, **SHORT)

    def no_more_than_8(module: Any, args: Any, output: Any) -> None:
        if output.logits.shape[:2].numel() > 8:
            raise torch.OutOfMemoryError("no more than that fits (a test)")

    with pretend_cuda(monkeypatch):
        live = on_cuda(make(family))
        live.model.register_forward_hook(no_more_than_8)
        with pytest.warns(RuntimeWarning, match="going on with"):
            found = live.run(*QUESTIONS, **SHORT, self_check=False)
    assert said(found) == said(usual)
    assert found.cost == usual.cost


def test_a_model_that_cannot_be_captured_says_so(cuda: PretendCuda) -> None:
    def look(module: Any, args: Any) -> None:
        args[0].sum().item()

    live = make_live("qwen3", device=str(CUDA))
    live.model.model.layers[0].register_forward_pre_hook(look)
    live.run(QUESTIONS[0])
    with pytest.raises(UnsupportedError, match="cannot be captured as a CUDA graph"):
        live.run(QUESTIONS[0], cache_implementation="static")


def test_graphs_write_their_logits_into_one_buffer(cuda: PretendCuda, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs of all sizes work in one memory pool, which the largest of them fills."""
    pools, captured = [], torch.cuda.graph

    def graph(found: Any, pool: Any = None, **kwargs: Any) -> Any:
        pools.append(pool)
        return captured(found, pool=pool, **kwargs)

    monkeypatch.setattr(torch.cuda, "graph", graph)
    make_live("qwen3", device=str(CUDA)).run(*QUESTIONS[:2], cache_implementation="static")
    assert len(pools) > 2
    assert len(set(pools)) == 1
    assert None not in pools, "each would have a pool of its own"


def test_a_layer_on_the_gpu_and_one_on_the_cpu(cuda: PretendCuda) -> None:
    """Each layer's keys and values stay where the layer is."""
    model = make_model("qwen3")
    on_cpu = ("model.layers.1", "model.norm")
    parts = ["model.embed_tokens", "model.layers.0", *on_cpu, "model.rotary_emb", "lm_head"]
    places = {name: "cpu" if name in on_cpu else str(CUDA) for name in parts}
    model = dispatch_model(model, places, main_device="cpu", force_hooks=True)
    assert {weight.device.type for weight in model.parameters()} == {"cpu", "cuda"}
    live = Live(enable(model, tokenizer=make_tokenizer()), make_tokenizer(), str(CUDA))
    assert said(live.run(*QUESTIONS)) == said(make_live("qwen3").run(*QUESTIONS))


def test_recording_moves_no_weight(cuda: PretendCuda, tmp_path: Path) -> None:
    """The sample that a manifest holds of the weights is taken where they are, and is the one of the CPU."""
    live = make_live("qwen3", device=str(CUDA))
    before = dict(live.model.named_parameters())
    store = record(
        live.model, live.tokenizer, [Question("q", QUESTIONS[0])], tmp_path / "store", branches=3, interval_tokens=8,
        max_new_tokens=24, progress=False,
    )  # fmt: skip
    assert all(weight is before[name] for name, weight in live.model.named_parameters())
    assert store.manifest.model == model_card(make_model("qwen3"))
