"""Measures a device: the engine's own passes over made-up prompts, timed by tokens and columns."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
import transformers
from torch import Tensor
from transformers import LogitsProcessorList, PreTrainedModel

from tts_generate.arguments import checked, whole
from tts_generate.engine.batch import Batch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.cards import model_card
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.device import on_device
from tts_generate.engine.loop import Loop
from tts_generate.engine.memory import Room
from tts_generate.engine.plan import feed
from tts_generate.engine.request import answer_format
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.engine.shared import LEAST
from tts_generate.live.branch import Probe
from tts_generate.live.reader import Reader
from tts_generate.live.task import Prompt, Task
from tts_generate.loading import load_controller
from tts_generate.profile import Profile, doubling
from tts_generate.trajectories.schema import public_model

_PROMPTS = (16, 64, 256)
_SHORT, _LONG, _PASSES = 16, 384, 5
_BURST = 3
"""Passes of a kind in a row; then others come: a device's speed comes and goes while it is measured."""
_CACHE_BYTES = 2**30
_CHECKED = (3, 11, 23, 47, 93, 181)
"""Rows between those that are measured."""


@checked
def measure(
    model: PreTrainedModel, tokenizer: Any, *, max_rows: int = 64, passes: int = _PASSES, **generate: Any
) -> Profile:
    """Time passes of 1, 2, 4, … `max_rows` rows behind a short prompt and a long one, and prompts.

    Args:
        model: a causal language model, on the device where it is to decode.
        tokenizer: its tokenizer.
        max_rows: rows of a pass at most.
        passes: of each kind at least.
        **generate: arguments of `generate` that change what is drawn, such as `temperature` and `top_p`.

    Returns:
        The profile, with its error on numbers of rows in between.
    """
    passes, max_rows = whole("passes", passes), whole("max_rows", max_rows)
    bench = _Bench(model, tokenizer, _processors(model, generate), passes)
    least = bench.decoder.shapes.min_tokens
    grid = doubling(max_rows)
    points = [(rows, prompt) for rows in grid for prompt in (_SHORT, bench.longest(rows))]
    between = [rows for rows in _CHECKED if rows < grid[-1]]
    others = [(rows, prompt) for rows in between for prompt in (_SHORT, bench.longest(rows) // 2)]
    shared = bench.shared_points(grid[-1])
    taken = bench.by_turns([(*point, False) for point in (*points, *others)] + shared)
    shared_column, of_any = _of_shared(shared, [seconds for seconds, _ in taken[len(taken) - len(shared) :]])
    fixed, column = [], []
    for (short, few), (long, many) in zip(taken[: len(points) : 2], taken[1 : len(points) : 2], strict=True):
        slope = max(0.0, (long - short) / max(1, many - few))
        column.append(slope)
        fixed.append(max(0.0, short - slope * few))
    lengths = [length for length in _PROMPTS if length < bench.most]
    profile = Profile(
        tuple(grid),
        tuple(fixed),
        tuple(column),
        tuple(lengths),
        tuple(bench.prefill(length) for length in lengths),
        shared_column=shared_column,
        shared=of_any,
        span=bench.span(max(least, 2)),
        copied_column=bench.copied_column(grid[-1]),
        column_bytes=bench.column_bytes,
        block=bench.decoder.shapes.block,
        min_tokens=least,
        shares_from=LEAST if bench.sharing.can_share else 0,
        suffix_tokens=len(bench.reader.suffix_ids(bench.reader.format.probe_suffix)),
        about=_about(model, generate),
    )
    measured = taken[len(points) : len(points) + len(others)]
    said = [float(profile.passes(rows, read)) for (rows, _), (_, read) in zip(others, measured, strict=True)]
    return profile.checked_by([seconds for seconds, _ in measured], said)


class _Reading(Decoder):
    """A decoder that is given what others have read of the bench's prompts, by their length."""

    def __init__(self, model: PreTrainedModel, done: dict[int, tuple[Prefix, Tensor]], **options: bool) -> None:
        super().__init__(model, **options)
        self.done = done

    def prefill(self, prompt_ids: Sequence[int]) -> tuple[Prefix, Tensor]:
        """Read a prompt that none has read yet."""
        length = len(prompt_ids)
        if length not in self.done:
            self.done[length] = super().prefill(prompt_ids)
        return self.done[length]


@dataclass
class _Bench:
    """A model whose passes are timed."""

    model: PreTrainedModel
    tokenizer: Any
    processors: LogitsProcessorList
    count: int

    def __post_init__(self) -> None:
        self.done: dict[int, tuple[Prefix, Tensor]] = {}
        self.decoder, self.sharing = Decoder(self.model, sharing=False), Decoder(self.model)
        most = getattr(self.decoder.config, "max_position_embeddings", None)
        self.most = most or 1 << 20
        self.long = min(_LONG, self.most - 2 * _BURST - 16)
        prefix, _ = self.decoder.prefill(self._prompt(_SHORT))
        asked = answer_format(self.tokenizer, {"force_answer": False}, self.model.generation_config)
        self.reader = Reader(self.tokenizer, asked)
        self.column_bytes = sum(Room(prefix, None).column_bytes.values())

    def _prompt(self, length: int) -> list[int]:
        words = max(2, min(self.decoder.config.vocab_size, 1000))
        return [1 + number * 7 % (words - 1) for number in range(length)]

    def longest(self, rows: int) -> int:
        """Tokens of the long prompt that so many rows have memory for."""
        fits = _CACHE_BYTES // max(1, rows * self.column_bytes)
        return max(2 * _SHORT, min(fits, self.long))

    def shared_points(self, most: int) -> list[tuple[int, int, bool]]:
        """Rows behind a short prompt, and behind two that stand once; none where none does."""
        rows = max(most // 2, self.decoder.shapes.min_tokens)
        lengths = (LEAST, self.long) if self.sharing.shares(LEAST) and self.long > LEAST else ()
        return [(rows, _SHORT, False), *((rows, length, True) for length in lengths)] if lengths else []

    def by_turns(self, points: Sequence[tuple[int, int, bool]]) -> list[list[float]]:
        """(Seconds, columns read) for rows, length of their prompt, and whether it stands once: means over bursts."""
        rounds = [[self.passes(*point) for point in points] for _ in range(-(-self.count // _BURST))]
        means: list[list[float]] = np.mean(rounds, axis=0).tolist()
        return means

    def passes(self, rows: int, prompt: int, shared: bool = False) -> tuple[float, float]:
        """(Seconds of a turn with one pass of so many rows behind a prompt, columns that they read), means."""
        decoder = _Reading(self.model, self.done, sharing=shared)
        most = _BURST + 4
        settings = Settings(
            seed=0, interval_tokens=most, max_new_tokens=most, max_branches=rows, eos_token_ids=(-1,), pad_token_id=0,
            max_rows=rows,
        )  # fmt: skip
        batch = Batch(decoder, Sampler(self.processors), self.reader, settings)
        task = Task("", Prompt(self._prompt(prompt)), load_controller("self_consistency", max_samples=rows))
        loop = Loop(batch, [task], settings)
        loop.turn()  # warms up
        seconds, read = [], []
        for _ in range(_BURST):
            read.append(batch._plan().plan.reading[1])
            seconds.append(_timed(loop.turn, decoder.device))
        return float(np.mean(seconds)), float(np.mean(read))

    def span(self, rows: int) -> float:
        """Seconds that a pass takes longer for reading one row apart, as that of a probe."""
        decoder, at = Decoder(self.model, sharing=False), np.arange(rows)
        prefix, _ = decoder.prefill(self._prompt(_SHORT))
        decoder.cache.resize(rows, decoder.shapes.capacity(2 * _SHORT + decoder.shapes.min_tokens), 0)
        decoder.cache.admit(prefix, at.tolist())
        taken: dict[int, list[float]] = {1: [], 0: []}
        for _ in range(self.count + 1):
            for probes, seconds in taken.items():
                fed = at[: rows - probes]
                probe = [(0, Probe(0, [1], "", _SHORT))][:probes]
                plan = feed(fed, fed, fed * 0 + _SHORT, probe, 1, decoder.shapes, decoder.in_row)
                tokens = on_device(plan.tokens * 0 + 1, decoder.device)
                seconds.append(_timed(partial(decoder.run, tokens, plan.plan), decoder.device))
                decoder.settle(True)
        apart, together = (float(np.median(seconds[1:])) for seconds in taken.values())
        return max(0.0, apart - together)

    def copied_column(self, rows: int) -> float:
        """Seconds in which a column of a row is copied."""
        cache, half, length = self.decoder.cache, max(1, rows // 2), self.longest(rows)
        prefix, _ = self.decoder.prefill(self._prompt(length))
        cache.resize(2 * half, self.decoder.shapes.capacity(length), 0)
        cache.admit(prefix, [0])
        moves = list(range(half)), list(range(half, 2 * half))
        seconds = [_timed(lambda: cache.move(*moves, length), self.decoder.device) for _ in range(self.count + 1)]
        cache.drop()
        return float(np.median(seconds[1:])) / (half * length)

    def prefill(self, length: int) -> float:
        """Seconds in which a prompt is read."""
        ids = self._prompt(length)
        return float(np.median([_timed(lambda: self.decoder.prefill(ids), self.decoder.device) for _ in range(3)]))


def _of_shared(points: Sequence[tuple[int, int, bool]], seconds: Sequence[float]) -> tuple[float, float]:
    """What prompts that stand once add to a pass: for each token and column of theirs, and for there being any."""
    if not points:
        return 0.0, 0.0
    (rows, _, _), (_, short, _), (_, long, _) = points
    without, few, many = seconds
    column = max(0.0, many - few) / (rows * (long - short))
    return column, max(0.0, few - without - column * rows * short)


def _timed(work: Callable[[], object], device: torch.device) -> float:
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def _processors(model: PreTrainedModel, generate: dict[str, Any]) -> LogitsProcessorList:
    """What transformers makes of the sampling arguments."""
    found: list[LogitsProcessorList] = []

    def capture(model: Any, input_ids: Any, logits_processor: Any = None, **rest: Any) -> Any:
        found.append(logits_processor or LogitsProcessorList())
        return input_ids

    ids = torch.ones((1, 2), dtype=torch.long, device=next(model.parameters()).device)
    asked = {"stop_strings": None, **generate}  # those of a checkpoint need its tokenizer, and shape no distribution
    type(model).generate(model, ids, attention_mask=torch.ones_like(ids), custom_generate=capture, **asked)
    return found[0]


def _about(model: PreTrainedModel, generate: dict[str, Any]) -> dict[str, Any]:
    device = next(model.parameters()).device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    return {
        "model": public_model(model_card(model)),
        "device": name,
        "threads": torch.get_num_threads(),
        "generate": {key: str(value) for key, value in generate.items()},
        "torch": torch.__version__,
        "transformers": transformers.__version__,
    }
