"""The rule by which a controller that has schedules for either end takes one: the rows that each question can have."""

from __future__ import annotations

import math
from collections.abc import Sequence

from tts_generate.controller import Controller
from tts_generate.live.task import Prompt, Task
from tts_generate.loading import has_latency, load_controller, source_of
from tts_generate.processors import BranchProcessorList

SCARCE, FREE = 8, 32
"""Rows of a question up to which tokens count alone, and from which on its branches do not wait for one another."""


def latency_for(rows: float) -> float:
    """How far to go from few tokens (0) to a short chain (1), by the rows that each question can have.

    >>> [latency_for(256 / prompts) for prompts in (1, 8, 16, 32, 96)]
    [1.0, 1.0, 0.5, 0.0, 0.0]
    """
    return min(1.0, math.log(max(rows, SCARCE) / SCARCE) / math.log(FREE / SCARCE))


def suited(controller: Controller, rows: int, questions: int) -> Controller:
    """The controller as those rows and questions suit it, if nobody said how, and it knows either end."""
    if controller.latency is not None or controller.beta is None or not has_latency(source_of(type(controller))):
        return controller
    return load_controller(controller, latency=latency_for(rows / questions))


def tasks_of(
    prompts: Sequence[Prompt], controller: Controller, rows: int, processors: BranchProcessorList
) -> list[Task]:
    """One task a prompt of a call, called by its number, each with the controller as `rows` in all suit it."""
    chosen = suited(controller, rows, len(prompts))
    return [
        Task(str(number), prompt, chosen, processors=processors.begin(str(number)))
        for number, prompt in enumerate(prompts)
    ]
