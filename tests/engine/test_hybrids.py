"""Models with recurrent states beside attention: branches, probes and eviction, held against stock cached decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from engine_models import _SIZES, QUESTIONS, Live, make_tokenizer, said
from test_live_replay import CONTROLLERS, assert_same, knobs, written_down
from transformers import AutoConfig, AutoModelForCausalLM, DynamicCache, LogitsProcessor, LogitsProcessorList

from tts_generate.engine import enable
from tts_generate.engine.decoder import Decoder, cache_argument
from tts_generate.engine.plan import feed
from tts_generate.errors import UnsupportedError
from tts_generate.live.branch import Probe
from tts_generate.replay import replay

_DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
_STATE_SPACE = {"mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 1, "mamba_d_state": 16}
HYBRIDS: dict[str, dict[str, Any]] = {
    "qwen3_next": {
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 32,
        "shared_expert_intermediate_size": 32,
        **_DELTA,
    },
    "qwen3_5_text": {"head_dim": 16, **_DELTA},
    "olmo_hybrid": _DELTA,
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "falcon_h1": {**_STATE_SPACE, "head_dim": 16, "mamba_d_ssm": 64, "mamba_n_heads": 4},
    "bamba": {**_STATE_SPACE, "attn_layer_indices": [1]},
    "jamba": {"attn_layer_offset": 1, "attn_layer_period": 2, "num_experts": 2, "mamba_d_state": 8},
    "granitemoehybrid": {
        **_STATE_SPACE,
        "layer_types": ["mamba", "attention"],
        "shared_intermediate_size": 64,
        "num_local_experts": 0,
    },
    "nemotron_h": {
        "num_hidden_layers": 3,
        "layers_block_type": ["mamba", "attention", "mlp"],
        "mamba_num_heads": 8,
        "mamba_head_dim": 16,
        "n_groups": 1,
        "ssm_state_size": 16,
        "head_dim": 16,
    },
}
MAIN = ("qwen3_next", "falcon_h1")
"""One with states in some layers, one with states and attention in each."""


def make_hybrid(family: str) -> Live:
    torch.manual_seed(0)
    config = AutoConfig.for_model(family, **{**_SIZES, **HYBRIDS[family]})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    tokenizer = make_tokenizer()
    return Live(enable(model, tokenizer=tokenizer), tokenizer)


@pytest.fixture(scope="module", params=MAIN)
def hybrid(request: pytest.FixtureRequest) -> Live:
    return make_hybrid(request.param)


@pytest.fixture(scope="module")
def alone(hybrid: Live) -> list[Any]:
    """Each question answered by itself."""
    return [hybrid.run(question, controller=CONTROLLERS[-1], beta=None) for question in QUESTIONS]


@pytest.fixture(scope="module")
def usual(hybrid: Live) -> Any:
    return hybrid.run(*QUESTIONS, beta=0.3)


def stock_logprobs(live: Live, question: str, ids: tuple[int, ...]) -> list[float]:
    """Log-probabilities of a branch's tokens, decoded one by one with transformers' own cache."""
    prompt, cache = live.inputs(question)["input_ids"], DynamicCache(config=live.model.config)
    found, fed, place = [], prompt, torch.arange(prompt.shape[1])[None]
    with torch.no_grad():
        for token in ids:
            output = live.model(
                input_ids=fed, position_ids=place, use_cache=True, **{cache_argument(live.model): cache}
            )
            found.append(float(output.logits[0, -1].log_softmax(-1)[token]))
            fed, place = torch.tensor([[token]]), place[:, -1:] + 1
    return found


@pytest.mark.parametrize("family", sorted(HYBRIDS))
def test_branches_are_what_stock_decoding_says(family: str) -> None:
    live = make_hybrid(family)
    output = live.run(*QUESTIONS, beta=0.2)
    assert sum(len(branch.probe_positions) for branches in output.branches for branch in branches) > 3
    for question, branches in zip(QUESTIONS, output.branches, strict=True):
        for branch in branches[:2]:
            want = stock_logprobs(live, question, branch.token_ids)
            for step, mean in enumerate(branch.step_logprobs):
                part = want[8 * step : 8 * step + 8]
                assert mean == pytest.approx(sum(part) / len(part), abs=2e-4)


@pytest.mark.parametrize("controller", CONTROLLERS, ids=str)
def test_live_is_replay(hybrid: Live, controller: Any) -> None:
    output = hybrid.run(*QUESTIONS, **{"controller": controller, "beta": None, **knobs(controller)})
    options = {**knobs(controller), "shuffles": 0, "traces": True}
    assert_same(output, replay(written_down(output), controller, **options))


@pytest.mark.long
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_rows": 3},
        {"decode_ahead": False},
        {"ahead_rows": 24},
        {"max_rows": 4, "max_cache_bytes": 400_000, "sync_every": 3},
    ],
    ids=str,
)
def test_any_schedule_gives_the_same_tokens(hybrid: Live, alone: list[Any], options: dict[str, Any]) -> None:
    other = hybrid.run(*QUESTIONS, controller=CONTROLLERS[-1], beta=None, **options)
    assert said(other) == [said(one)[0] for one in alone]
    assert other.cost == [one.cost[0] for one in alone]


def test_a_probe_leaves_no_trace_in_the_state(hybrid: Live) -> None:
    plain = hybrid.run(QUESTIONS[2], controller="self_consistency", controller_kwargs={"max_samples": 12})
    probed = hybrid.run(QUESTIONS[2], controller="cmc", beta=1.0)
    for a, b in zip(plain.branches[0], probed.branches[0], strict=False):
        assert a.token_ids[: b.tokens] == b.token_ids


@pytest.mark.parametrize("gap", [0, 5])
def test_a_probe_with_nothing_to_force_reads_the_last_token_again(hybrid: Live, gap: int) -> None:
    """It goes on from the state before that token, and the branch from its own, whatever the probe does."""
    decoder, prompt = Decoder(hybrid.model), hybrid.inputs(QUESTIONS[0])["input_ids"][0].tolist()
    prefix, _ = decoder.prefill(prompt)
    decoder.cache.resize(4, 64, 0)
    decoder.cache.admit(prefix, [2])
    slot, length = np.array([2]), len(prompt)

    def fed(token: int | None, column: int, probe: Probe | None = None) -> torch.Tensor:
        slots = slot if token is not None else slot[:0]
        plan = feed(
            slots, np.array([token] * len(slots)), np.array([column] * len(slots)), _with(probe), gap, decoder.shapes
        )
        found = decoder.run(torch.from_numpy(plan.tokens), plan.plan)
        decoder.settle(True)
        return found

    def _with(probe: Probe | None) -> list[tuple[int, Probe]]:
        return [] if probe is None else [(2, probe)]

    fed(9, length)
    last = fed(11, length + 1)
    probe = Probe(2, [], "", length + 1, again=11)
    torch.testing.assert_close(fed(None, 0, probe), last, atol=1e-5, rtol=1e-4)
    probe.said.append(13)
    more = fed(None, 0, probe)
    torch.testing.assert_close(fed(13, length + 2), more, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("fails", [3, 9])
def test_a_pass_that_fails_is_run_again_from_the_states_before_it(hybrid: Live, usual: Any, fails: int) -> None:
    """Out of memory in the sampler, when the states have gone on already: they are taken back, nothing is lost."""
    calls = 0

    class Failing(LogitsProcessor):  # type: ignore[misc]
        def __call__(self, input_ids: Any, scores: torch.Tensor) -> torch.Tensor:
            nonlocal calls
            calls += 1
            if calls == fails:
                raise torch.OutOfMemoryError("no more of it")
            return scores

    with pytest.warns(RuntimeWarning, match="out of memory"):
        output = hybrid.run(*QUESTIONS, beta=0.3, logits_processor=LogitsProcessorList([Failing()]))
    assert calls > fails
    assert said(output) == said(usual)


def test_a_model_with_nothing_but_a_state_is_refused() -> None:
    config = AutoConfig.for_model("mamba2", **{**_SIZES, "num_heads": 8, "head_dim": 16, "n_groups": 1})
    model = AutoModelForCausalLM.from_config(config)
    with pytest.raises(UnsupportedError, match="keys and values in no layer"):
        enable(model, tokenizer=make_tokenizer())
