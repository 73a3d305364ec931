"""What a GPU's passes are made of: few calls, however many rows come and go, probes are under way and prompts stand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from engine_models import QUESTIONS, Live, make_live
from gpu_calls import Calls
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_generate.engine import decoder, record, shared
from tts_generate.engine.attention import Span, attend_shared, attend_span
from tts_generate.engine.cache import LayerPrefix
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.plan import _spans
from tts_generate.engine.shapes import ALL_ROWS, BLOCK, Shapes
from tts_generate.engine.shared import PromptReaders, Shared, Stack, Stacks
from tts_generate.trajectories import Question

CPU = torch.device("cpu")
LONG = ["Q: " + f"b = {n} + 4 ; " * (20 + n) + "b ? <think>" for n in range(1, 9)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Passes as on a GPU, on this CPU; every prompt is long enough to be shared."""
    monkeypatch.setattr(decoder, "shapes_of", lambda model, device: Shapes(block=ALL_ROWS))
    monkeypatch.setattr(Decoder, "in_row", property(lambda self: self.packed))
    monkeypatch.setattr(shared, "LEAST", 1)
    return monkeypatch


@settings(max_examples=80, deadline=None)
@given(
    slots=st.lists(st.integers(0, 40), min_size=1, max_size=24),
    queries=st.integers(1, 3),
    groups=st.integers(1, 3),
    seed=st.integers(0, 1 << 20),
)
def test_one_span_reads_what_a_span_for_each_run_of_neighbours_reads(
    slots: list[int], queries: int, groups: int, seed: int
) -> None:
    """Rows in any order, some of them twice; whether they are copied together or read where they are."""
    generator = torch.Generator().manual_seed(seed)
    heads, width, count = 2, 32, len(slots) * queries
    query = torch.randn(count, heads * groups, 8, generator=generator)
    key, value = (torch.randn(41, heads, width, 8, generator=generator) for _ in range(2))
    hidden = torch.arange(width) >= torch.randint(1, width + 1, (count, 1), generator=generator)
    mask = (hidden.float() * torch.finfo(torch.float32).min)[:, None, None]
    rows, ends = np.array(slots), np.full(len(slots), width - 1)
    one = Span.over(rows, 0, queries, width)
    cut = _spans(rows, ends, queries, 0, Shapes(BLOCK))
    assert one.tokens == slice(0, count)
    one = one if one.cells is None else Span(0, one.rows, one.queries, one.slot, width, one.cells.on(CPU))
    found = attend_span(one, query, key, value, mask, None)
    expected = torch.cat([attend_span(span, query, key, value, mask, None) for span in cut])
    torch.testing.assert_close(found, expected)
    prefix = LayerPrefix((torch.randn(heads, 9, 8, generator=generator), torch.randn(heads, 9, 8, generator=generator)))
    readers = [PromptReaders(torch.arange(0, count, 2), [prefix])]
    found = attend_shared([one], readers, 0, query, key, value, mask, None)
    expected = attend_shared(cut, readers, 0, query, key, value, mask, None)
    torch.testing.assert_close(found, expected)


@settings(max_examples=40, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 70), min_size=1, max_size=6),
    size_of_values=st.sampled_from([8, 5]),
    scaling=st.sampled_from([None, 0.3]),
    seed=st.integers(0, 1 << 20),
)
def test_stacked_prompts_are_read_like_each_alone(
    lengths: list[int], size_of_values: int, scaling: float | None, seed: int
) -> None:
    """And what they held becomes views of the stack, with the same values."""
    generator = torch.Generator().manual_seed(seed)
    numbers = np.random.default_rng(seed)
    heads, groups = 2, 3
    query = torch.randn(40, heads * groups, 8, generator=generator)
    owners = numbers.integers(0, len(lengths) + 1, 40)  # the last one reads no prompt
    prefixes = [
        [LayerPrefix(tuple(torch.randn(heads, n, d, generator=generator) for d in (8, size_of_values)))]
        for n in lengths
    ]
    before = [prefix[0].columns for prefix in prefixes]
    asked = [Shared(np.flatnonzero(owners == n), prefix) for n, prefix in enumerate(prefixes)]
    asked = [each for each in asked if len(each.tokens)]

    def own() -> shared.Partial:
        drawn = torch.Generator().manual_seed(seed)
        found, top = (torch.randn(40, heads * groups, d, generator=drawn) for d in (size_of_values, 1))
        return shared.Partial(found, top, torch.rand(40, heads * groups, 1, generator=drawn) + 0.5)

    alone = [PromptReaders(torch.from_numpy(each.tokens), each.prefix) for each in asked]
    expected = shared.over_prompts(own(), query, alone, 0, scaling)
    stacks = Stacks()
    readers = stacks.readers(asked, CPU)
    found = shared.over_prompts(own(), query, readers, 0, scaling)
    torch.testing.assert_close(found, expected)
    for each in asked:
        n = next(place for place, prefix in enumerate(prefixes) if prefix is each.prefix)
        for now, then in zip(each.prefix[0].columns, before[n], strict=True):
            assert now.equal(then)
            assert now.untyped_storage().data_ptr() in {
                part.untyped_storage().data_ptr() for stack in stacks.kept.values() for part in stack.columns(0)[:2]
            }


def test_a_stack_stays_as_long_as_half_of_it_is_read() -> None:
    prefixes = [[LayerPrefix((torch.zeros(1, 3, 2), torch.zeros(1, 3, 2)))] for _ in range(5)]
    stack = Stack(prefixes[:4])
    assert stack.holds(prefixes[:4])
    assert stack.holds(prefixes[1:3])
    assert not stack.holds(prefixes[:1]), "three in four would be read in vain"
    assert not stack.holds(prefixes[3:]), "one is not in it"
    stacks = Stacks()
    stacks.readers([Shared(np.array([0]), prefixes[0])], CPU)
    assert stacks.readers([], CPU) == []
    assert not stacks.kept, "nothing is held for nobody"


@pytest.mark.long
@pytest.mark.parametrize(
    ("family", "controller"),
    [("qwen3", "self_consistency"), *((family, "cmc") for family in ("qwen3", "llama", "mistral_windowed", "phi3"))],
)
def test_the_same_tokens_and_costs_as_in_passes_of_a_cpu(family: str, controller: str, few: pytest.MonkeyPatch) -> None:
    live = make_live(family)
    options: list[dict[str, Any]] = [{}, {"max_rows": 5}, {"ahead_rows": 12}, {"sync_every": 3}]
    asked = (QUESTIONS[0], LONG[0], QUESTIONS[2])
    found = [live.run(*asked, controller=controller, beta=0.3, **each) for each in options]
    few.undo()
    usual = live.run(*asked, controller=controller, beta=0.3)
    for output in found:
        assert output.cost == usual.cost
        for ours, theirs in zip(output.branches, usual.branches, strict=True):
            assert [b.token_ids for b in ours] == [b.token_ids for b in theirs]
            assert [b.probe_answers for b in ours] == [b.probe_answers for b in theirs]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Calls:
    counted = Calls()
    monkeypatch.setattr(Decoder, "run", counted.of(Decoder.run))
    return counted


@pytest.mark.long
def test_a_pass_takes_as_many_calls_for_many_rows_and_prompts_as_for_few(
    few: pytest.MonkeyPatch, calls: Calls, tmp_path: Path
) -> None:
    """A recording, whose rows probe and end out of step: on an H100 nearly all of its time was calls."""
    live: Live = make_live("qwen3")
    most = {}
    for count, branches in ((1, 4), (8, 16)):
        calls.passes.clear()
        asked = [Question(str(n), text, "1") for n, text in enumerate(LONG[:count])]
        how: dict[str, Any] = {"interval_tokens": 4, "max_new_tokens": 40, "temperature": 1.0, "top_k": 0}
        record(live.model, live.tokenizer, asked, tmp_path / str(count), branches=branches, progress=False, **how)
        most[count] = np.quantile(calls.passes, 0.9)
    assert most[8] <= 1.6 * most[1]
