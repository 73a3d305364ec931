"""What a real language model wrote: recordings of Qwen2.5-Coder-0.5B-Instruct, without its texts and weights.

Their card is `README.md` beside this file; `benchmarks/real_model.py` regenerates the folder from nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from tts_generate.errors import UnknownNameError

if TYPE_CHECKING:
    from tts_generate.trajectories.schema import Question

TASKS = ("gsm_symbolic", "simple_equations")
"""Families of questions of `reasoning-gym`: word problems of the kind of GSM8K, and linear equations."""


def path(task: str) -> Path:
    """The trajectory store of a task: 32 branches of each question, asked for its answer every 32 tokens.

    >>> (path("gsm_symbolic") / "manifest.json").is_file()
    True

    Raises:
        UnknownNameError: no such task.
    """
    if task not in TASKS:
        raise UnknownNameError.of("task", task, TASKS)
    return Path(__file__).parent / task


def kept_aside(task: str) -> list[Question]:
    """Questions of a task that were not recorded, to be answered live: the first n are a fair sample of them.

    >>> kept_aside("simple_equations")[0].gold_answer is not None
    True

    Raises:
        UnknownNameError: no such task.
    """
    from tts_generate.trajectories.schema import questions_from_jsonl

    file = path(task).with_suffix(".jsonl")
    return list(questions_from_jsonl(file.read_text(encoding="utf-8"), file))
