"""Float32 on a CPU: in the shapes that were found by trying, neighbours change no bit of a row's numbers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from engine_models import make_model
from transformers import AutoModelForCausalLM, Qwen3Config

from tts_generate.engine.attention import Span, attend_span
from tts_generate.engine.cache import Prefix
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.plan import feed
from tts_generate.engine.shapes import _QUERIES, BUCKET, FEW, PART, Shapes, _left_out, bucketed, shapes_of
from tts_generate.engine.shared import Shared

CPU = torch.device("cpu")
PROMPT = [5 + place % 20 for place in range(40)]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Several share out the rows of a product, and a share may be too small."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def model_of(hidden_size: int) -> Any:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=600, hidden_size=hidden_size, num_hidden_layers=1, num_attention_heads=8, num_key_value_heads=4,
        head_dim=64, intermediate_size=3 * hidden_size, max_position_embeddings=2048, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    return AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("asked", [1, 3])
@pytest.mark.parametrize("sharing", [1, 2, 4, 8, 24])
@pytest.mark.parametrize("head_dim", [24, 64])
def test_no_width_that_is_read_changes_a_bit(head_dim: int, sharing: int, asked: int) -> None:
    """Columns that a row does not see leave its attention as it is, however many its neighbours make it read."""
    tried = (sharing,) if asked == 1 else tuple(sharing * queries for queries in _QUERIES)
    found = _left_out(tried, head_dim, 1)
    if found is None:
        pytest.skip("on this CPU no widths were found that give the same bits")
    shapes = Shapes(32, one=found, several=found)
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(2 * asked, 2 * sharing, head_dim, generator=generator)
    keys, values = torch.randn(2, 2, 2, 1536, head_dim, generator=generator)
    for columns in (5, 33, 130, 150, 190, 222, 300, 333, 420, 500, 700, 801):
        outputs = []
        for width in sorted({shapes.width(wider, asked) for wider in range(columns, 1280)}):
            mask = torch.zeros(2 * asked, 1, 1, width).masked_fill(torch.arange(width) >= columns, torch.finfo().min)
            outputs.append(attend_span(Span(0, 2, asked, 0, width), query, keys, values, mask, None))
        assert all(each.equal(outputs[0]) for each in outputs)


def found_by_trying(model: Any) -> Shapes:
    shapes = shapes_of(model, CPU)
    if not shapes.exact:
        pytest.skip("on this CPU no shapes were found that give the same bits")
    return shapes


def logits(
    decoder: Decoder, rows: int, columns: int, longest: int, prefix: Prefix | None, every: int = 64
) -> torch.Tensor:
    """(V,) of the first of `rows` rows, which has `columns` columns; the last one has `longest`.

    The first and each `every`-th one after it also read a prompt that stands once, if there is one.
    """
    at = np.full(rows, columns)
    at[-1] = longest if rows > 1 else columns
    plan = feed(np.arange(rows), np.full(rows, 9), at, [], 4, decoder.shapes)
    if prefix is not None:
        plan.plan.offset = len(prefix[0].columns[0][0])
        plan.plan.shared = [Shared(np.flatnonzero(plan.plan.slots % every == 0), prefix)]
    found: torch.Tensor = decoder.run(torch.from_numpy(plan.tokens), plan.plan)[0]
    return found


@pytest.mark.parametrize("prompt", [PROMPT, 5 * PROMPT], ids=["in each row", "once"])
@pytest.mark.parametrize("model", [lambda: make_model("qwen3"), lambda: make_model("llama"), lambda: model_of(512)])
@torch.no_grad()
def test_no_neighbour_changes_a_bit_of_the_logits(model: Any, prompt: list[int]) -> None:
    decoder = Decoder(model())
    found_by_trying(decoder.model)
    prefix, _ = decoder.prefill(prompt)
    sharing = prefix if decoder.shares(len(prompt)) else None
    decoder.cache.resize(96, 1024, 0)
    decoder.cache.admit([layer.first(len(PROMPT)) for layer in prefix], range(96))
    for layer in decoder.cache.layers:
        generator = torch.Generator().manual_seed(1)
        for buffer in (layer.keys, layer.values):
            buffer[:, :, len(PROMPT) :] = torch.randn(buffer[:1, :, len(PROMPT) :].shape, generator=generator)
    for columns in (45, 150, 300, 450, 600):
        expected = logits(decoder, 64, columns, columns, sharing, every=3)
        for rows in (1, 2, 3, 5, 8, 13, 33, 96):
            for longest in (columns, columns + 100, 700):
                assert logits(decoder, rows, columns, longest, sharing).equal(expected), (columns, rows, longest)


def test_what_is_tried_is_tried_once_and_leaves_nothing_changed() -> None:
    model = model_of(128)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    first = shapes_of(model, CPU)
    assert first == shapes_of(model, CPU)
    assert torch.get_rng_state().equal(before)
    assert FEW <= first.min_tokens <= 16


def test_other_devices_and_dtypes_are_not_tried() -> None:
    assert shapes_of(model_of(128), torch.device("cuda:0")) == Shapes(block=1 << 30)
    assert shapes_of(model_of(128).to(torch.bfloat16), CPU) == Shapes(32, FEW)


def test_a_capacity_is_a_width_for_any_queries() -> None:
    shapes = Shapes(32, one=(192, 512), several=(128, 512))
    for columns in range(1, 3 * PART):
        widths = {shapes.width(columns, queries) for queries in (1, 2, 9)}
        assert max(widths) == shapes.capacity(columns)
        assert min(widths) >= bucketed(columns) >= columns
        assert all(width % BUCKET == 0 for width in widths)
        low, high = shapes.several
        assert not low < shapes.width(columns, 2) % PART < high
