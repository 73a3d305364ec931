"""A prompt that stands once for all its branches: the same tokens as with a copy in every row, and far less memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from engine_models import CONFIGS, QUESTIONS, Live
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_scheduling import loops, nothing_left, scripted  # noqa: F401 - a fixture

from tts_generate.engine import shared
from tts_generate.engine.attention import Span, attend_shared, attend_span
from tts_generate.engine.cache import LayerPrefix
from tts_generate.engine.loop import Loop
from tts_generate.engine.shared import PromptReaders
from tts_generate.loading import load_controller

LONG = "Q: " + "b = 3 + 4 ; " * 24 + "b ? <think>"
CONTROLLERS = [load_controller("self_consistency", max_samples=8), "cmc", scripted([3, 1, 4, 1, 5, 9, 2, 6])]


def said(output: Any) -> list[list[tuple[Any, ...]]]:
    return [[(b.branch, b.token_ids, b.finish_reason, b.probe_answers) for b in bs] for bs in output.branches]


@pytest.fixture
def copied(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """No prompt is long enough to be shared."""
    monkeypatch.setattr(shared, "LEAST", 1 << 30)
    return monkeypatch


PAIRS = [("qwen3", controller) for controller in CONTROLLERS] + [
    (family, controller) for family in sorted(set(CONFIGS) - {"qwen3"}) for controller in CONTROLLERS[:2]
]
"""Every controller on one family; on every family one that probes and one that does not."""


@pytest.mark.long
@pytest.mark.parametrize(("live", "controller"), PAIRS, ids=str, indirect=["live"])
def test_the_same_tokens_as_with_a_copy_in_every_row(live: Live, controller: Any, copied: pytest.MonkeyPatch) -> None:
    """Questions of any length side by side; a windowed family copies, and is here to say so."""
    asked = (QUESTIONS[0], LONG, QUESTIONS[2])
    chosen = {"controller": controller, "beta": None}
    usual = live.run(*asked, **chosen)
    for least in (1, 100):  # all of them are shared, or the long one only
        copied.setattr(shared, "LEAST", least)
        once = live.run(*asked, **chosen)
        assert said(once) == said(usual)
        assert once.cost == usual.cost
        assert [t.events for t in once.trace] == [t.events for t in usual.trace]


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    script=st.lists(st.integers(0, 60), min_size=5, max_size=40),
    max_rows=st.integers(1, 30),
    budget=st.integers(1, 6),
    options=st.sampled_from([{}, {"sync_every": 3}, {"ahead_rows": 12}, {"decode_ahead": False}]),
)
def test_any_schedule_leaves_nothing_behind(
    qwen: Live,
    loops: list[Loop],  # noqa: F811
    script: list[int],
    max_rows: int,
    budget: int,
    options: dict[str, Any],
) -> None:
    asked, chosen = (QUESTIONS[1], LONG), {"controller": scripted(script), "beta": None}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared, "LEAST", 1 << 30)
        expected = qwen.run(*asked, **chosen)
        patch.setattr(shared, "LEAST", 1)
        tight = qwen.run(*asked, **chosen, max_rows=max_rows, max_cache_bytes=budget * 96 * 512, **options)
    assert said(tight) == said(expected)
    assert tight.cost == expected.cost
    assert all(nothing_left(loop) for loop in loops)
    assert all(branch.shared_prefix is None for loop in loops for branch in loop.batch.rows.branch if branch)


def test_rows_hold_no_prompt(qwen: Live, loops: list[Loop], copied: pytest.MonkeyPatch) -> None:  # noqa: F811
    chosen: dict[str, Any] = {"controller": "self_consistency", "controller_kwargs": {"max_samples": 32}}
    usual = qwen.run(LONG, **chosen)
    copied.setattr(shared, "LEAST", 128)
    once = qwen.run(LONG, **chosen)
    assert said(once) == said(usual)
    capacities = [loop.batch.decoder.cache.capacity for loop in loops]
    prompt = len(qwen.tokenizer(LONG)["input_ids"])
    assert prompt >= shared.LEAST
    assert capacities[1] <= capacities[0] - prompt + 32, "a width is a multiple of 32"


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 5),
    queries=st.integers(1, 3),
    groups=st.integers(1, 3),
    prompt=st.integers(1, 40),
    width=st.integers(1, 24),
    scaling=st.sampled_from([None, 0.3]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
    size_of_values=st.sampled_from([8, 5]),
    seed=st.integers(0, 1 << 20),
)
def test_two_parts_are_the_softmax_over_both(
    rows: int,
    queries: int,
    groups: int,
    prompt: int,
    width: int,
    scaling: float | None,
    dtype: torch.dtype,
    size_of_values: int,
    seed: int,
) -> None:
    """Against one call over the prompt's columns and the row's behind them, with every row's own mask."""
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return (2 * torch.randn(shape, generator=generator)).to(dtype)

    heads, size, span = 2, 8, Span(0, rows, queries, 0, width)
    query = draw(rows * queries, heads * groups, size)
    prefix, key, value = (
        LayerPrefix((draw(heads, prompt, size), draw(heads, prompt, size_of_values))),
        *(draw(rows, heads, width, each) for each in (size, size_of_values)),
    )
    seen = torch.randint(1, width + 1, (rows * queries, 1), generator=generator)
    hidden = (torch.arange(width) >= seen).to(dtype) * torch.finfo(dtype).min
    mask = hidden[:, None, None]
    readers = [PromptReaders(torch.arange(rows * queries), [prefix])]
    found = attend_shared([span], readers, 0, query, key, value, mask, scaling)
    whole = [
        torch.cat([p.expand(rows, -1, -1, -1), own], 2) for p, own in zip(prefix.columns, (key, value), strict=True)
    ]
    open_mask = torch.cat([torch.zeros(rows * queries, 1, 1, prompt, dtype=dtype), mask], -1)
    expected = attend_span(Span(0, rows, queries, 0, prompt + width), query, *whole, open_mask, scaling)
    torch.testing.assert_close(found, expected, atol=2e-6 if dtype == torch.float32 else 4e-2, rtol=2e-2)
