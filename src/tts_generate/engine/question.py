"""A question on its way through the engine: what was asked, what is in flight, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

from torch import Tensor

from tts_generate.answers import AnswerBook
from tts_generate.controller import Controller
from tts_generate.engine.branch import Branch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.noise import branch_key
from tts_generate.processors import BranchProcessorList
from tts_generate.runner import Cost, Episode, Outcome
from tts_generate.trace import Event

FinishReason = Literal["answer", "deadline", "interrupted", "error"]
"""Why a question ended: its controller answered, or it had to do with the majority so far."""


@dataclass(frozen=True, slots=True)
class Task:
    """One question to answer: its prompt, who decides, and the branch numbers to open, in order (0, 1, … if None)."""

    question_id: str
    prompt_ids: Sequence[int]
    controller: Controller
    order: Sequence[int] | None = None
    processors: BranchProcessorList = field(default_factory=BranchProcessorList)


@dataclass(slots=True, eq=False)
class Running:
    """A question in flight, and afterwards what came of it."""

    index: int
    task: Task
    episode: Episode
    events: list[Event]
    book: AnswerBook
    prefix: Prefix = field(default_factory=list)
    logits: Tensor | None = None
    """(V,) float32 logits of the first token."""
    shared: bool = False
    """Whether the prompt stands in `prefix` only, and not in each branch's row."""
    branches: list[Branch] = field(default_factory=list)
    """In opening order; while in flight, behind those of the episode perhaps some that it has not opened yet."""
    outcomes: list[Outcome] = field(default_factory=list)
    expected: int = 0
    finish_reason: FinishReason = "answer"

    def open(self, seed: int) -> Branch:
        """The next branch, with the key of its number."""
        task, opened = self.task, len(self.branches)
        number = opened if task.order is None else task.order[opened]
        key = branch_key(seed, task.prompt_ids, number)
        prefix = self.prefix if self.shared else None
        self.branches.append(Branch(number, key, task.prompt_ids, (self.index, opened), shared_prefix=prefix))
        return self.branches[-1]

    @property
    def cost(self) -> Cost:
        """Tokens spent on this question."""
        return self.episode.cost(len(self.task.prompt_ids) if self.branches else 0)
