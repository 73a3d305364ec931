"""A question on its way through the servers: what was asked, what is in flight, what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tts_generate.answers import AnswerBook
from tts_generate.controller import Controller
from tts_generate.engine.branch import Branch
from tts_generate.engine.question import FinishReason
from tts_generate.processors import BranchProcessorList
from tts_generate.runner import Cost, Episode, Outcome, Unit
from tts_generate.server.pool import Endpoint
from tts_generate.server.wire import Prompt
from tts_generate.trace import Event
from tts_generate.trajectories import Trajectory
from tts_generate.votes import NO_ANSWER


@dataclass(slots=True, eq=False)
class Job:
    """A unit being carried out, and what it took so far."""

    unit: Unit
    branch: Branch
    target: int
    """Tokens of the branch at which the unit ends."""
    generated_tokens: int = 0
    probe_tokens: int = 0

    def outcome(self, book: AnswerBook, interval_tokens: int, logprobs: bool) -> Outcome:
        """What came of it, whole or cut short; answers are shown by ends and by the probe that the unit asks for."""
        branch, answer = self.branch, NO_ANSWER
        if branch.finished:
            answer = book.id(branch.final_answer)
        elif self.unit.probe and branch.probes and branch.probes[-1].position == len(branch.ids):
            answer = book.id(branch.probes[-1].answer)
        return Outcome(
            branch=self.unit.branch,
            depth=branch.depth(interval_tokens),
            generated_tokens=self.generated_tokens,
            probe_tokens=self.probe_tokens,
            answer=answer,
            finished=branch.finished,
            logprobs=branch.step_logprobs[self.unit.start :] if logprobs else (),
        )


@dataclass(slots=True, eq=False)
class Asked:
    """One question: its prompt, who decides, and the branch numbers to open, in order (0, 1, … if None)."""

    index: int
    question_id: str
    prompt: Prompt
    controller: Controller
    processors: BranchProcessorList
    order: Sequence[int] | None = None
    prompt_tokens: int = 0
    episode: Episode | None = None
    events: list[Event] = field(default_factory=list)
    book: AnswerBook = field(default_factory=AnswerBook)
    branches: list[Branch] = field(default_factory=list)
    """In opening order."""
    homes: dict[int, Endpoint] = field(default_factory=dict)
    """Who has a branch in its prefix cache, by the branch's number."""
    jobs: list[Job] = field(default_factory=list)
    """The wave in flight."""
    finish_reason: FinishReason = "interrupted"
    """As long as nothing better has come of it."""
    error: Exception | None = None

    @property
    def cost(self) -> Cost:
        """Tokens spent on this question."""
        return Cost() if self.episode is None else self.episode.cost(self.prompt_tokens)

    def read(self, seed: int) -> list[Trajectory]:
        """Its branches as far as they were read, without their token ids."""
        return [each.trajectory(self.question_id, seed, self.prompt_tokens, with_ids=False) for each in self.branches]

    @property
    def answer(self) -> str | None:
        """The answer decided on."""
        return None if self.episode is None else self.book.text(self.episode.answer)

    def fall_back(self, reason: FinishReason, interval_tokens: int) -> None:
        """End with the majority so far; what the wave in flight has decoded is counted first."""
        self.finish_reason = reason
        if self.episode is None:
            return
        cut = [job.outcome(self.book, interval_tokens, False) for job in self.jobs]
        self.jobs = []
        self.episode.abandon([outcome for outcome in cut if outcome.generated_tokens or outcome.probe_tokens])
