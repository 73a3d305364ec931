"""Passes of fixed shapes: the same tokens, a few sizes, addresses that stay, and nothing looked at on the host."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from engine_models import QUESTIONS, Live, make_live, said
from test_hybrids import make_hybrid
from test_live_replay import CONTROLLERS
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tts_generate.engine.decoder import Decoder, cache_argument
from tts_generate.engine.plan import feed
from tts_generate.engine.static import Inputs
from tts_generate.errors import UnsupportedError

CHOSEN = [CONTROLLERS[0], "cmc", CONTROLLERS[-1]]


@pytest.fixture(scope="module", params=["qwen3", "qwen3_mixed", "mistral_windowed"])
def live(request: pytest.FixtureRequest) -> Live:
    return make_live(request.param)


@pytest.fixture(scope="module")
def plain(live: Live) -> dict[str, Any]:
    """By controller, what passes of any shape say, whatever the schedule (`test_scheduling.py`)."""
    return {str(controller): live.run(*QUESTIONS, controller=controller, beta=None) for controller in CHOSEN}


@pytest.mark.parametrize("controller", CHOSEN, ids=str)
@pytest.mark.parametrize(
    "options", [{}, {"max_rows": 5, "sync_every": 3}, {"decode_ahead": False}, {"ahead_rows": 30}], ids=str
)
def test_fixed_shapes_give_the_same_tokens(
    live: Live, plain: dict[str, Any], controller: Any, options: dict[str, Any]
) -> None:
    usual = plain[str(controller)]
    static = live.run(*QUESTIONS, controller=controller, beta=None, **options, cache_implementation="static")
    assert said(static) == said(usual)
    assert static.cost == usual.cost


def test_a_size_keeps_its_shapes_and_addresses() -> None:
    live, seen = make_live("qwen3"), defaultdict(set)
    shapes = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        cache, ids = kwargs[cache_argument(live.model)], kwargs["input_ids"]
        shapes.append(tuple(ids.shape))
        if getattr(cache, "width", 0) and isinstance(kwargs["logits_to_keep"], int):
            addresses = (ids.data_ptr(), cache.slots.data_ptr(), cache.columns.data_ptr())
            buffers = tuple(layer.keys.data_ptr() for layer in cache.layers)
            mask = tuple(kwargs["attention_mask"].shape)
            seen[cache.version, tuple(cache.slots.tolist()), cache.width].add((addresses, buffers, mask))

    hook = live.model.register_forward_pre_hook(look, with_kwargs=True)
    try:
        live.run(*QUESTIONS, cache_implementation="static", max_rows=24, self_check=False)
    finally:
        hook.remove()
    grids = sum(1 for shape in shapes if any(shape[1] == len(slots) for _, slots, _ in seen))
    assert grids > len(shapes) / 2, "most passes are of a fixed shape"
    assert all(len(found) == 1 for found in seen.values())
    assert len(seen) <= 8
    assert len({version for version, _, _ in seen}) == 1, "the cache never moves"


def test_nothing_of_a_fixed_shape_is_looked_at_on_the_host() -> None:
    """Fake tensors have no values: whatever asks for one, which a captured graph could not answer, raises."""
    live = make_live("qwen3_mixed")
    decoder = Decoder(live.model, static=True)
    prefix, _ = decoder.prefill([5, 6, 7])
    decoder.cache.resize(8, 256, 0)
    decoder.cache.admit(prefix, range(8))
    asked: list[Inputs] = []

    def forward(inputs: Inputs) -> torch.Tensor:
        asked.append(inputs)
        with FakeTensorMode(allow_non_fake_inputs=True), torch.no_grad():
            fake = decoder._run_grid(inputs)
        with pytest.raises(DataDependentOutputException), FakeTensorMode(allow_non_fake_inputs=True):
            bool((fake + torch.zeros(1)).sum() > 0)
        return decoder._run_grid(inputs)

    assert decoder.static is not None
    decoder.static.forward = forward
    plan = feed(np.arange(8), np.full(8, 9), np.full(8, 3), [], 4, decoder.shapes)
    with torch.no_grad():
        logits = decoder.run(torch.from_numpy(plan.tokens), plan.plan)
    assert len(asked) == 1
    torch.testing.assert_close(logits[0], logits[7])


def test_what_cannot_be_static_says_so() -> None:
    with pytest.raises(UnsupportedError, match="cannot run all rows as one sequence"):
        make_hybrid("lfm2").run(QUESTIONS[0], cache_implementation="static")
    with pytest.raises(UnsupportedError, match="unless it is 'static'"):
        make_live("qwen3").run(QUESTIONS[0], cache_implementation="offloaded")
