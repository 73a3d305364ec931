"""The sampler draws from the distribution that transformers' processors leave, and the noise is what it claims."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from transformers import LogitsProcessorList
from transformers.generation.logits_process import (
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from tts_generate.engine.noise import gumbel
from tts_generate.engine.sample import Sampler
from tts_generate.live.branch import branch_key

VOCABULARY = 50
WARPERS = {
    "temperature": [TemperatureLogitsWarper(0.7)],
    "top_k": [TemperatureLogitsWarper(0.6), TopKLogitsWarper(8)],
    "top_k_top_p": [TemperatureLogitsWarper(0.6), TopKLogitsWarper(20), TopPLogitsWarper(0.8)],
    "top_p_min_p": [TopPLogitsWarper(0.9), MinPLogitsWarper(0.05)],
}


def no_ids(row: int) -> torch.Tensor:
    raise AssertionError("row-wise processors need no token ids")


@pytest.mark.parametrize("name", WARPERS)
def test_draws_follow_the_processed_distribution(name: str) -> None:
    """20,000 keyed draws from one row of logits, chi-square against the softmax of transformers' scores."""
    processors = LogitsProcessorList(WARPERS[name])
    logits = torch.randn(1, VOCABULARY, generator=torch.Generator().manual_seed(1)) * 2
    expected = processors(torch.zeros((1, 1), dtype=torch.long), logits.clone()).double().softmax(-1)[0].numpy()
    count = 20_000
    keys = torch.tensor([branch_key(0, [1, 2], branch) for branch in range(count)])
    drawn = Sampler(processors)(logits.expand(count, -1), keys, torch.zeros(count, dtype=torch.long), no_ids)
    found = np.bincount(drawn.numpy(), minlength=VOCABULARY)
    assert found[expected == 0].sum() == 0
    likely = expected * count >= 5
    observed = np.append(found[likely], found[~likely].sum())
    wanted = np.append(expected[likely], expected[~likely].sum()) * count
    kept = wanted > 0
    assert stats.chisquare(observed[kept], wanted[kept] * observed[kept].sum() / wanted[kept].sum()).pvalue > 1e-4


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(["top_k", "top_k_top_p"]))
def test_the_fused_path_draws_the_same_tokens_as_the_whole_vocabulary(seed: int, name: str) -> None:
    """Noise is keyed by token, so cutting the vocabulary to its top k first changes no draw."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(16, VOCABULARY, generator=generator) * 3
    keys = torch.arange(16) * 7919 + seed
    fused, whole = Sampler(LogitsProcessorList(WARPERS[name])), Sampler(LogitsProcessorList(WARPERS[name]))
    assert fused.top_k is not None
    whole.top_k = None
    positions = torch.arange(16)
    assert fused(logits, keys, positions, no_ids).equal(whole(logits, keys, positions, no_ids))


NUCLEI = {
    "top_p": [TopPLogitsWarper(0.9)],
    "temperature_top_p": [TemperatureLogitsWarper(0.6), TopPLogitsWarper(0.95)],
    "min_p": [TemperatureLogitsWarper(1.2), MinPLogitsWarper(0.05)],
    "all": [TemperatureLogitsWarper(0.8), TopPLogitsWarper(0.9), MinPLogitsWarper(0.02)],
}


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**31), st.sampled_from(sorted(NUCLEI)), st.floats(0.5, 12), st.sampled_from([3000, 9000]))
def test_a_nucleus_among_few_tokens_is_that_of_the_whole_vocabulary(
    seed: int, name: str, spread: float, vocabulary: int
) -> None:
    """Flat rows, whose nucleus is larger, are left to transformers' processors; either way the draw is the same.

    Where probabilities add up to `top_p` but for rounding, the two sums may differ by the token on the edge.
    """
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, vocabulary, generator=generator) * spread
    keys, positions = torch.arange(8) * 7919 + seed, torch.arange(8)
    quick, whole = Sampler(LogitsProcessorList(NUCLEI[name])), Sampler(LogitsProcessorList(NUCLEI[name]))
    assert quick.nucleus is not None
    whole.nucleus = None
    assert quick(logits, keys, positions, no_ids).equal(whole(logits, keys, positions, no_ids))
    few = quick.nucleus.few(logits)
    if few is not None:
        scores, tokens = few
        for processor in NUCLEI[name]:
            logits = processor(None, logits)
        left = torch.zeros_like(logits, dtype=torch.bool).scatter(1, tokens, ~scores.isneginf())
        assert int((left == logits.isneginf()).sum(1).max()) <= 1


def test_a_nucleus_is_not_taken_for_what_it_is_not() -> None:
    for processors in ([MinPLogitsWarper(0.1), TopPLogitsWarper(0.9)], [TemperatureLogitsWarper(2.0)], []):
        assert Sampler(LogitsProcessorList(processors)).nucleus is None
    kept = TopPLogitsWarper(0.9, min_tokens_to_keep=3)
    assert Sampler(LogitsProcessorList([TemperatureLogitsWarper(2.0), kept])).nucleus is None


def test_noise_is_standard_gumbel_and_independent_of_the_batch() -> None:
    keys = torch.tensor([branch_key(3, [5], branch) for branch in range(400)])
    positions = torch.arange(400) % 7
    tokens = torch.arange(50)[None]
    noise = gumbel(keys, positions, tokens)
    assert stats.kstest(noise.flatten().numpy(), stats.gumbel_r.cdf).pvalue > 1e-4
    assert noise[17:18].equal(gumbel(keys[17:18], positions[17:18], tokens))
    assert abs(np.corrcoef(noise[:-1].flatten(), noise[1:].flatten())[0, 1]) < 0.02
    assert abs(np.corrcoef(noise[:, :-1].flatten(), noise[:, 1:].flatten())[0, 1]) < 0.02


def test_streams_differ_by_seed_question_and_branch() -> None:
    keys = {branch_key(seed, ids, branch) for seed in (0, 1) for ids in ([1], [1, 2], [12]) for branch in range(50)}
    assert len(keys) == 2 * 3 * 50
