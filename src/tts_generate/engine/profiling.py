"""Measures a device: the engine's own passes over made-up prompts, timed by tokens and columns."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers
from transformers import LogitsProcessorList, PreTrainedModel

from tts_generate.answers import AnswerFormat
from tts_generate.arguments import checked, whole
from tts_generate.engine.batch import Batch
from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.cards import model_card
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.memory import Room
from tts_generate.engine.request import answer_format
from tts_generate.engine.rows import Job
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.engine.shared import LEAST
from tts_generate.live.reader import Reader
from tts_generate.profile import Profile, doubling
from tts_generate.runner import Unit
from tts_generate.state import TO_END
from tts_generate.trajectories.schema import public_model

_PROMPTS = (16, 64, 256)
_SHORT, _LONG, _PASSES = 16, 384, 5
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
        passes: of each kind; the median counts.
        **generate: arguments of `generate` that change what is drawn, such as `temperature` and `top_p`.

    Returns:
        The profile, with its error on numbers of rows in between.
    """
    passes = whole("passes", passes)
    bench = _Bench(model, _processors(model, generate), passes)
    least = bench.decoder.shapes.min_tokens
    grid = doubling(max_rows, least)
    fixed, column = [], []
    for rows in grid:
        short, few = bench.passes(rows, _SHORT)
        long, many = bench.passes(rows, bench.longest(rows))
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
        shared_column=bench.shared(grid[-1] // 2 or 1, fixed, grid),
        column_bytes=bench.column_bytes,
        block=bench.decoder.shapes.block,
        min_tokens=least,
        shares_from=LEAST if bench.sharing.can_share else 0,
        suffix_tokens=_suffix_tokens(model, tokenizer),
        about=_about(model, generate),
    )
    return bench.checked(profile, [rows for rows in _CHECKED if least < rows < grid[-1]])


@dataclass
class _Bench:
    """A model whose passes are timed."""

    model: PreTrainedModel
    processors: LogitsProcessorList
    count: int

    def __post_init__(self) -> None:
        self.decoder, self.sharing = Decoder(self.model, sharing=False), Decoder(self.model)
        most = getattr(self.decoder.config, "max_position_embeddings", None)
        self.most = most or 1 << 20
        prefix, _ = self.decoder.prefill(self._prompt(_SHORT))
        self.column_bytes = sum(Room(prefix, None).column_bytes.values())

    def _prompt(self, length: int) -> list[int]:
        words = max(2, min(self.decoder.config.vocab_size, 1000))
        return [1 + number * 7 % (words - 1) for number in range(length)]

    def longest(self, rows: int) -> int:
        """Tokens of the long prompt that so many rows have memory for."""
        fits = _CACHE_BYTES // max(1, rows * self.column_bytes)
        return max(2 * _SHORT, min(_LONG, fits, self.most - 2 * self.count - 8))

    def passes(self, rows: int, prompt: int, shared: bool = False) -> tuple[float, float]:
        """(Seconds of a pass of so many rows behind a prompt, columns that it reads of the rows), medians."""
        decoder = Decoder(self.model) if shared else Decoder(self.model, sharing=False)
        most = self.count + 4
        settings = Settings(
            seed=0, interval_tokens=most, max_new_tokens=most, max_branches=rows, eos_token_ids=(-1,), pad_token_id=0,
            max_rows=rows,
        )  # fmt: skip
        batch = Batch(decoder, Sampler(self.processors), Reader(None, AnswerFormat(force_answer=False)), settings)
        ids = self._prompt(prompt)
        prefix, logits = decoder.prefill(ids)
        kept = prefix if shared else None
        branches = [CachedBranch(n, n, ids, (0, n), shared_prefix=kept) for n in range(rows)]
        columns = branches[0].prompt_columns + most + decoder.shapes.min_tokens + 1
        batch.rows.resize(rows, decoder.shapes.capacity(columns))
        batch.admit(branches, range(rows), prefix, logits)
        for branch in branches:
            batch.start(Job(0, Unit(branch.number, 0, TO_END, False), branch, most))
        seconds, read = [], []
        for _ in range(self.count + 1):  # the first one warms up
            read.append(batch._plan().plan.reading[1])
            seconds.append(_timed(batch.step, decoder.device))
        return float(np.median(seconds[1:])), float(np.median(read[1:]))

    def shared(self, rows: int, fixed: Sequence[float], grid: Sequence[int]) -> float:
        """Seconds for each token and column of a prompt that stands once."""
        length = min(_LONG, self.most - 2 * self.count - 8)
        if not self.sharing.shares(length):
            return 0.0
        rows = max(rows, self.decoder.shapes.min_tokens)
        seconds, _ = self.passes(rows, length, shared=True)
        return max(0.0, seconds - float(np.interp(rows, grid, fixed))) / (rows * length)

    def prefill(self, length: int) -> float:
        """Seconds in which a prompt is read."""
        ids = self._prompt(length)
        return float(np.median([_timed(lambda: self.decoder.prefill(ids), self.decoder.device) for _ in range(3)]))

    def checked(self, profile: Profile, rows: Sequence[int]) -> Profile:
        """The profile with its relative error where it was not measured."""
        measured, said = [], []
        for count in rows:
            for prompt in (_SHORT, self.longest(count) // 2):
                seconds, read = self.passes(count, prompt)
                measured.append(seconds)
                said.append(float(profile.passes(count, read)))
        return profile.checked_by(measured, said)


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
    type(model).generate(model, ids, attention_mask=torch.ones_like(ids), custom_generate=capture, **generate)
    return found[0]


def _suffix_tokens(model: PreTrainedModel, tokenizer: Any) -> int:
    """Tokens that a probe of this model forces, where nothing is said of how to ask it."""
    asked = answer_format(tokenizer, {}, model.generation_config)
    return len(Reader(tokenizer, asked).suffix_ids(asked.probe_suffix))


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
