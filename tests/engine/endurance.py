"""Many calls in one process, and what they leave behind; the same in their thousand: `benchmarks/reliability.py`."""

from __future__ import annotations

import gc
import random
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from engine_models import QUESTIONS, Live
from torch import nn
from transformers import LogitsProcessor, LogitsProcessorList

from tts_generate.engine.cache import SlotCache

SHORT = {"max_new_tokens": 16, "interval_tokens": 8}


def held() -> dict[str, int]:
    """What this process holds: resident bytes, open descriptors, threads, live caches and their rows."""
    gc.collect()
    process = psutil.Process()
    caches = [thing for thing in gc.get_objects() if type(thing) is SlotCache]
    return {
        "resident_bytes": process.memory_info().rss,
        "descriptors": process.num_fds(),
        "threads": process.num_threads(),
        "caches": len(caches),
    }


def many_calls(live: Live, calls: int) -> dict[str, Any]:
    """What is held after a tenth of the calls, when everything is warm, and after all of them."""
    first: dict[str, int] = {}
    for number in range(calls):
        live.run(QUESTIONS[number % len(QUESTIONS)], seed=number, **SHORT)
        if number == calls // 10:
            first = held()
    last = held()
    grown = {name: last[name] - first[name] for name in last}
    return {
        "calls": calls,
        "warm": calls // 10,
        "first": first,
        "last": last,
        "grown": grown,
        "grown_mb": grown["resident_bytes"] / 1e6,
    }


def two_threads(live: Live, other: Live, calls: int) -> dict[str, int]:
    """Two threads, each with a model of its own: how many answers differ from those of one thread."""

    def answers(model: Live) -> list[Any]:
        return [model.run(*QUESTIONS, seed=seed, **SHORT) for seed in range(calls)]

    alone = answers(live) + answers(other)
    with ThreadPoolExecutor(2) as pool:
        together = [output for part in pool.map(answers, (live, other)) for output in part]
    different = sum(
        not torch.equal(a.sequences, b.sequences) or a.cost != b.cost for a, b in zip(alone, together, strict=True)
    )
    return {"calls": 2 * calls, "different": different}


class Raises(LogitsProcessor):
    """Somebody's processor with a bug that shows at its `at`-th call."""

    def __init__(self, at: int) -> None:
        self.at, self.calls = at, 0

    def for_branch(self) -> Raises:
        return self  # it counts calls, and nothing about a branch

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> torch.FloatTensor:
        self.calls += 1
        if self.calls == self.at:
            raise RuntimeError("a bug of somebody's processor")
        return scores


def settings(live: Live) -> Mapping[str, Any]:
    """Everything of the caller's that a call must leave as it is."""
    modules = list(live.model.modules())
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks")
    return {
        "generation_config": live.model.generation_config.to_dict(),
        "config": live.model.config.to_dict(),
        "hooks": [len(getattr(module, kind)) for module in modules for kind in kinds],
        "own attributes": [sorted(vars(module)) for module in modules if isinstance(module, nn.Module)],
        "training": [module.training for module in modules],
        "padding_side": live.tokenizer.padding_side,
        "torch_rng": torch.get_rng_state().tolist(),
        "numpy_rng": str(np.random.get_state()),
        "python_rng": random.getstate(),
        "gradients": torch.is_grad_enabled(),
        "default_dtype": torch.get_default_dtype(),
    }


def interrupted_calls(live: Live, points: int) -> dict[str, int]:
    """Calls that end by an exception at their first, second, … step: how many left something changed behind."""
    live.run(QUESTIONS[0], **SHORT)
    before, caches = settings(live), held()["caches"]
    found = {"calls": 0, "changed": 0}
    for at in range(1, points + 1):
        with pytest.raises(RuntimeError, match="somebody's processor"):
            live.run(*QUESTIONS, logits_processor=LogitsProcessorList([Raises(at)]), **SHORT)
        found["calls"] += 1
        found["changed"] += settings(live) != before
    found["caches_left"] = held()["caches"] - caches
    return found
