"""A question on its way: what was asked, what is in flight, what came of it; the same wherever branches are decoded."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import Generic, Literal, TypeVar

from tts_generate.controller import describe
from tts_generate.errors import warn
from tts_generate.live.branch import Branch, branch_key
from tts_generate.live.reader import Reader
from tts_generate.live.settings import EpisodeSettings
from tts_generate.live.task import Task
from tts_generate.live.winner import cut, winner
from tts_generate.runner import Cost, Episode, Outcome, Unit
from tts_generate.state import TO_END, leading_answer
from tts_generate.trace import Event, Trace
from tts_generate.trajectories import Trajectory
from tts_generate.votes import NO_ANSWER

FinishReason = Literal["answer", "deadline", "interrupted", "error"]
"""Why a question ended: its controller answered, or it had to do with the majority so far."""
B = TypeVar("B", bound=Branch)


class LiveEpisode(ABC, Generic[B]):
    """The episode of one question in flight, and afterwards what came of it."""

    def __init__(
        self, index: int, task: Task, settings: EpisodeSettings, reader: Reader, *, logprobs: bool = True
    ) -> None:
        self.index, self.task, self.settings, self.logprobs = index, task, settings, logprobs
        self.format = reader.format
        self.thought = reader.thought(task.prompt)
        self.prompt_tokens = len(task.prompt.ids)
        self.book = self.format.book()
        self.events: list[Event] = []
        self.branches: list[B] = []
        """In opening order; while in flight, behind those of the episode perhaps some that it has not opened yet."""
        self.wave: list[Unit] = []
        """The units that are being carried out."""
        self.outcomes: list[Outcome] = []
        """What came of those of them that are done, in the order in which they were; their answers have no ids yet."""
        self.shown: dict[int, str | None] = {}
        """Their answers, by branch."""
        self.finish_reason: FinishReason = "answer"
        self.closing = False
        """Whether its time is up, and its branches are asked for their answers where they stand."""
        self.episode = Episode(
            task.controller,
            max_branches=settings.max_branches if task.order is None else len(task.order),
            max_depth=-(-settings.max_new_tokens // settings.interval_tokens),
            interval_tokens=settings.interval_tokens,
            max_probe_tokens=reader.max_tokens if self.format.force_answer or task.controller.probing != "never" else 0,
            processors=task.processors,
            trace=self.events,
            text=self.book.text,
        )

    # ---- in flight

    def start(self) -> list[Unit]:
        """Ask the controller for the first wave; [] where a processor ends the question before there is one."""
        return self._decided(self.episode.start())

    def resume(self) -> list[Unit]:
        """Have the controller decide on a whole wave; the next one, [] where it has answered."""
        return self._decided(self.episode.resume(self._arrived(self.outcomes)))

    def _decided(self, wave: list[Unit]) -> list[Unit]:
        self.wave = wave
        if self.episode.done and self.task.processors.expired():
            self.finish_reason = "deadline"
        return self.wave

    @property
    def in_flight(self) -> list[Unit]:
        """The units of the wave that have no outcome yet."""
        done = {outcome.branch for outcome in self.outcomes}
        return [unit for unit in self.wave if unit.branch not in done]

    def open(self) -> B:
        """The next branch, with the key of its number."""
        opened = len(self.branches)
        number = opened if self.task.order is None else self.task.order[opened]
        key = branch_key(self.settings.seed, self.task.prompt.identity, number)
        self.branches.append(self.new_branch(number, key, (self.index, opened)))
        return self.branches[-1]

    @abstractmethod
    def new_branch(self, number: int, key: int, order: tuple[int, int]) -> B:
        """A branch of the kind that is decoded here."""

    def branch(self, unit: Unit) -> B:
        """The branch that a unit advances; opened if need be."""
        while unit.branch >= len(self.branches):
            self.open()
        return self.branches[unit.branch]

    def target(self, unit: Unit) -> int:
        """Tokens of the branch at which a unit ends."""
        most = self.settings.max_new_tokens
        return most if unit.steps >= TO_END else min((unit.start + unit.steps) * self.settings.interval_tokens, most)

    def count(self, unit: Unit) -> int:
        """Count what was decoded of a unit, whole or cut short; the tokens fed for probes that nobody asked for."""
        branch, target, every = self.branch(unit), self.target(unit), self.settings.probe_every_step
        before, target = branch.read, min(target, len(branch.ids))
        probes, discarded = branch.ask(
            target, lambda probe: every or (unit.probe and probe.position == target) or branch.ends_with(probe)
        )
        finished = branch.finished and branch.read == len(branch.ids)
        probed = probes[-1].answer if unit.probe and probes and probes[-1].position == branch.read else None
        self.shown[unit.branch] = branch.final_answer if finished else probed
        depth = branch.depth(self.settings.interval_tokens)
        self.outcomes.append(
            Outcome(
                branch=unit.branch,
                depth=depth,
                generated_tokens=branch.read - before,
                probe_tokens=sum(probe.tokens for probe in probes),
                answer=NO_ANSWER,
                finished=finished,
                logprobs=branch.step_logprobs[unit.start : depth] if self.logprobs else (),
            )
        )
        return discarded

    @property
    def to_close(self) -> bool:
        """Whether its branches are to be asked once its time is up: none has shown an answer.

        A recording asks none: it takes what has come to its end.
        """
        none = leading_answer(self.episode.state) == NO_ANSWER and all(answer is None for answer in self.shown.values())
        asks = self.format.force_answer and not self.settings.probe_every_step
        return asks and not self.closing and none

    def close(self) -> int:
        """Have what is in flight count as far as it got, and a last wave ask every branch that could go on.

        One that was asked where it stands would say the same again.
        """
        came, discarded = self._settle()
        self.episode.count(came)
        state, self.closing = self.episode.state, True
        asked = [number for number in range(state.opened) if not (state.finished[number] or state.pruned[number])]
        silent = [number for number in asked if self.branches[number].ids and not self.branches[number].asked_here]
        self.wave = [Unit(number, int(state.depth[number]), 0, True) for number in silent]
        return discarded

    def end(self, reason: FinishReason) -> int:
        """End with the majority so far; as `count` tells, what was fed in vain."""
        came, discarded = self._settle()
        self.finish_reason = reason
        self.episode.abandon(came)
        return discarded

    def _settle(self) -> tuple[list[Outcome], int]:
        """End a wave here: what came of it, in its order, and what was fed in vain.

        Units in flight count as far as they got; those that took no token say nothing.
        """
        discarded = 0
        for unit in self.in_flight:
            self.branch(unit).close_step(self.settings.interval_tokens)
            discarded += self.count(unit)
        came = [outcome for outcome in self.outcomes if outcome.generated_tokens + outcome.probe_tokens]
        return self._arrived(came), discarded

    def _arrived(self, outcomes: Sequence[Outcome]) -> list[Outcome]:
        """Outcomes of the wave, which is over, in its order.

        So their answers get their ids: of answers that vote as one, the first gives the name, whatever was done first.
        """
        came, shown = {outcome.branch: outcome for outcome in outcomes}, self.shown
        branches = [unit.branch for unit in self.wave if unit.branch in came]
        self.wave, self.outcomes, self.shown = [], [], {}
        return [came[branch]._replace(answer=self.book.id(shown[branch])) for branch in branches]

    def complain(self, why: Exception | str) -> None:
        """Warn that the question cannot go on."""
        told = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
        warn(f"question {self.task.question_id!r} ends with the majority so far: {told}", RuntimeWarning, stacklevel=3)

    # ---- what came of it

    @property
    def cost(self) -> Cost:
        """Tokens spent on this question."""
        return self.episode.cost(self.prompt_tokens if self.branches else 0)

    @property
    def answer(self) -> str | None:
        """The answer decided on."""
        return self.book.text(self.episode.answer)

    @cached_property
    def winner(self) -> int:
        """The branch to show; -1 where there is none."""
        return winner(self.episode, self.book, self.branches)

    @cached_property
    def rows(self) -> list[Trajectory]:
        """Its branches as rows of a trajectory store, in opening order."""
        return [self.row(branch) for branch in self.branches]

    def row(self, branch: B) -> Trajectory:
        """A branch as a row of a trajectory store."""
        return branch.trajectory(self.task.question_id, self.settings.seed, self.prompt_tokens)

    @property
    def trace(self) -> Trace:
        """What the controller did, round by round."""
        task, ends = self.task, cut(self.branches)
        told = task.question_id, describe(task.controller), self.events, self.book.text
        return Trace.of(*told, ends, self.format.pattern_name)
