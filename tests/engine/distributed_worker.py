"""What each process of a job runs in test_distributed.py."""

from __future__ import annotations

import os
import pickle
from pathlib import Path
from typing import Any

import torch
from engine_models import QUESTIONS, Live, make_live
from torch.distributed.tensor import distribute_tensor, init_device_mesh
from transformers import LogitsProcessor, LogitsProcessorList

from tts_generate import tiny
from tts_generate.engine import record
from tts_generate.engine.distributed import generate_distributed
from tts_generate.errors import TTSError
from tts_generate.trajectories import Question, TrajectoryStore

RECORDED = [Question(f"q{n}", text, "7") for n, text in enumerate(QUESTIONS)]
OPTIONS: dict[str, Any] = {
    "branches": 9, "seed": 5, "interval_tokens": 8, "max_new_tokens": 40, "max_probe_tokens": 4, "temperature": 1.0,
    "top_k": 0, "progress": False,
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "controller": "cmc", "beta": 0.5, "seed": 3, "interval_tokens": 8, "max_new_tokens": 40, "max_probe_tokens": 4,
    "temperature": 1.0, "top_k": 0,
}  # fmt: skip
PACED: dict[str, Any] = {"controller": "pace", "max_rows": 48}
"""Decides by the rows of a question: 16 in one process, and not what a process with fewer questions would think."""


class Broken(LogitsProcessor):
    """Raises, or ends its process, at its third call, if it `breaks`."""

    def __init__(self, breaks: bool, dies: bool = False) -> None:
        self.dies, self.calls = dies, 0 if breaks else 1 << 30

    def for_branch(self) -> Broken:
        return self  # it counts calls, and nothing about a branch

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls == 3 and self.dies:
            os._exit(9)
        if self.calls == 3:
            raise RuntimeError("broken processor")
        return scores


def record_all(live: Live, out: Path, **changes: Any) -> TrajectoryStore:
    return record(live.model, live.tokenizer, RECORDED, out, **{**OPTIONS, **changes})


def record_tiny(out: Path, max_rows: int) -> TrajectoryStore:
    """Few rows make it long enough to be killed half-way: a journal is written every second."""
    return record(*tiny.load(), tiny.questions("record")[:6], out, branches=24, max_rows=max_rows, progress=False)


def answer_all(live: Live, *questions: str, **changes: Any) -> Any:
    return generate_distributed(live.model, **live.inputs(*questions), **{**ANSWER, **changes})


def both(out: Path) -> None:
    """Record and answer, also with fewer questions than processes and with a seed drawn by the main one."""
    live = make_live("qwen3")
    store = record_all(live, out / "store")
    answers = [answer_all(live, *QUESTIONS), answer_all(live, QUESTIONS[0]), answer_all(live, *QUESTIONS, seed=None)]
    answers.append(answer_all(live, *QUESTIONS, **PACED))
    found = {"rows": store.trajectories(), "answers": answers}
    (out / f"found-{os.environ['RANK']}.pickle").write_bytes(pickle.dumps(found))


def spread_out() -> Live:
    """A model of which every process has a part."""
    live = make_live("qwen3")
    mesh = init_device_mesh("cpu", (int(os.environ["WORLD_SIZE"]),))
    live.model.lm_head.weight = torch.nn.Parameter(distribute_tensor(live.model.lm_head.weight.data, mesh))
    return live


def raising(out: Path) -> None:
    """The last process raises while it records, asks for other things than the others, and at last dies."""
    live, last = make_live("qwen3"), int(os.environ["RANK"]) == int(os.environ["WORLD_SIZE"]) - 1
    attempts = [
        lambda: record_all(live, out / "store", max_rows=1, **broken()),
        lambda: record_all(live, out / "other", seed=6 if last else 5),
        lambda: answer_all(live, *QUESTIONS, **broken()),
        lambda: answer_all(live, *QUESTIONS, seed=4 if last else 3),
        lambda: answer_all(live, *QUESTIONS, beta=0.1 if last else 0.5, controller_kwargs={"n_init": 2 + last}),
        lambda: record_all(spread_out(), out / "store"),
        lambda: answer_all(live, *QUESTIONS, **broken(dies=True)),
    ]

    def broken(dies: bool = False) -> dict[str, Any]:
        return {"logits_processor": LogitsProcessorList([Broken(last, dies)])}

    for number, attempt in enumerate(attempts):
        try:
            attempt()
        except (RuntimeError, TTSError) as error:
            print(number, type(error).__name__, error, flush=True)


def work(mode: str, folder: Path) -> None:
    torch.set_num_threads(1)
    modes = {
        "both": both,
        "raising": raising,
        "slowly": lambda folder: record_tiny(folder, 2),
        "fast": lambda folder: record_tiny(folder, 64),
    }
    modes[mode](folder)
