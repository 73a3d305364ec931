"""What test_scheduling.py runs in a process of its own: questions whose branches do not fit into its memory."""

from __future__ import annotations

import ctypes
import gc
import resource
import warnings
from typing import Any

import torch
from engine_models import _SIZES, QUESTIONS, Live, make_tokenizer
from transformers import AutoModelForCausalLM, Qwen3Config

from tts_generate.engine import enable

_MMAP_THRESHOLD = -3
"""M_MMAP_THRESHOLD of malloc.h: bytes from which on memory is the system's own, and not kept for later."""


def run() -> None:
    """Answer, let the address space end 40 MB above what is held, and answer again."""
    ctypes.CDLL("libc.so.6").mallopt(_MMAP_THRESHOLD, 1 << 18)  # what is freed goes back, whatever was there before
    torch.set_num_threads(1)
    torch.manual_seed(0)
    wide = {**_SIZES, "num_hidden_layers": 4, "num_key_value_heads": 4}
    model = AutoModelForCausalLM.from_config(Qwen3Config(head_dim=128, **wide)).eval()
    live = Live(enable(model, tokenizer=make_tokenizer()), make_tokenizer())
    how: dict[str, Any] = {
        "controller": "self_consistency", "controller_kwargs": {"max_samples": 48}, "beta": None
    }  # fmt: skip
    expected = live.run(*QUESTIONS, **how)
    live.run(QUESTIONS[0], max_rows=4, **how)
    gc.collect()  # what hangs in circles would make room later
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + (40 << 20), resource.RLIM_INFINITY))
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = live.run(*QUESTIONS, **how)
    assert found.answers == expected.answers
    assert found.cost == expected.cost
    assert set(found.finish_reason) == {"answer"}
    assert any("out of memory" in str(warning.message) for warning in said), "it went on with fewer rows"
