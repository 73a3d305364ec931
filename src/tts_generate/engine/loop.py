"""The live environment: every branch of every question in one batch, each episode at its own place.

One turn of the loop: admit questions and place jobs into rows, one forward pass, draw a token per row, advance or end
what is due, and let the episodes whose whole wave has arrived decide. Decisions take effect between passes only.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from transformers import StoppingCriteriaList

from tts_generate.answers import AnswerBook
from tts_generate.engine.branch import Branch, Probe, ProbeRecord, Reader
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.noise import branch_key
from tts_generate.engine.question import Running, Task
from tts_generate.engine.rows import Job, Rows
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.errors import TTSError
from tts_generate.runner import Episode, Outcome, Unit
from tts_generate.state import TO_END
from tts_generate.trace import Event
from tts_generate.votes import NO_ANSWER


class Loop:
    """Decodes tasks until each has its answer."""

    def __init__(
        self,
        decoder: Decoder,
        sampler: Sampler,
        reader: Reader,
        settings: Settings,
        stopping_criteria: StoppingCriteriaList | None = None,
        on_branch: Callable[[Task, Branch], None] | None = None,
    ) -> None:
        self.decoder, self.sampler, self.reader, self.settings = decoder, sampler, reader, settings
        self.criteria = stopping_criteria or StoppingCriteriaList()
        self.on_branch = on_branch
        self.rows = Rows()
        self.queue: list[tuple[tuple[int, int], Job]] = []
        self.running: dict[int, Running] = {}
        self.arrived: list[Running] = []

    def run(self, tasks: Sequence[Task]) -> Iterator[Running]:
        """Yield each question as it gets its answer."""
        waiting = deque(enumerate(tasks))
        while waiting or self.running:
            while waiting and self.rows.live + len(self.queue) < self.settings.max_rows:
                self._start(*waiting.popleft())
                yield from self._decide()
            self._place()
            if self.rows.live:
                self._step()
            yield from self._decide()

    def _start(self, index: int, task: Task) -> None:
        """Prefill the question once, and ask its episode for the first branches."""
        events: list[Event] = []
        book = AnswerBook()
        order = task.order
        episode = Episode(
            task.controller,
            max_branches=self.settings.max_branches if order is None else len(order),
            max_depth=-(-self.settings.max_new_tokens // self.settings.interval_tokens),
            interval_tokens=self.settings.interval_tokens,
            max_probe_tokens=self.reader.max_tokens if task.controller.probing != "never" else 0,
            processors=task.processors,
            trace=events,
            text=book.text,
        )
        units = episode.start()
        self.running[index] = Running(index, task, episode, events, *self.decoder.prefill(task.prompt_ids), book=book)
        self._enqueue(self.running[index], units)

    def _enqueue(self, running: Running, units: list[Unit]) -> None:
        task, interval = running.task, self.settings.interval_tokens
        for unit in units:
            while unit.branch >= len(running.branches):
                opened = len(running.branches)
                number = opened if task.order is None else task.order[opened]
                key = branch_key(self.settings.seed, task.prompt_ids, number)
                running.branches.append(Branch(number, key))
            branch = running.branches[unit.branch]
            target = self.settings.max_new_tokens if unit.steps >= TO_END else (unit.start + unit.steps) * interval
            job = Job(running.index, unit, branch, target)
            heapq.heappush(self.queue, (job.order, job))
        running.expected = len(units)
        running.outcomes = []

    def _place(self) -> None:
        """Give queued jobs rows while there are any, then bring the rows at work to the front."""
        placed: list[Job] = []
        fresh: list[Job] = []
        while self.queue and self.rows.live < self.settings.max_rows:
            job = heapq.heappop(self.queue)[1]
            if job.branch.slot is None:
                self._admit(job)
                fresh.append(job)
            self.rows.start(job)
            placed.append(job)
        if fresh:
            self._draw_first(fresh)
        for job in placed:
            self._take_pending(job)
        sources, targets = self.rows.arrange()
        if sources:
            self.decoder.cache.move(sources, targets, int(self.rows.length.max()))

    def _admit(self, job: Job) -> None:
        """Give a new branch a slot that begins with its prompt."""
        running = self.running[job.episode]
        slot = self.rows.admit(job.branch, len(running.task.prompt_ids))
        self.decoder.admit(running.prefix, slot, self.rows.slots)

    def _draw_first(self, jobs: list[Job]) -> None:
        """Draw the first token of new branches from their prompt's logits."""
        logits = torch.stack([self.running[job.episode].logits for job in jobs])
        for job, token, logprob in zip(jobs, *self._draw(logits, jobs), strict=True):
            job.branch.pending = (token, logprob)

    def _draw(self, logits: Tensor, jobs: Sequence[Job]) -> tuple[list[int], list[float]]:
        """A token for each job, and its log-probability under the raw logits: keyed draws, greedy in probes."""
        device = logits.device
        keys = torch.tensor([job.branch.key for job in jobs], device=device)
        positions = torch.tensor([len(job.branch.ids) for job in jobs], device=device)
        tokens = self.sampler(logits, keys, positions, lambda row: self._ids(jobs[row]).to(device))
        probing = torch.tensor([job.probe is not None for job in jobs], device=device)
        tokens = torch.where(probing, logits.argmax(-1), tokens)
        logprobs = logits.gather(1, tokens[:, None])[:, 0] - logits.logsumexp(-1)
        return tokens.tolist(), logprobs.tolist()

    def _ids(self, job: Job) -> Tensor:
        """(1, length) prompt and tokens of a job's branch, as processors and criteria see them."""
        return torch.tensor([[*self.running[job.episode].task.prompt_ids, *job.branch.ids]])

    def _step(self) -> None:
        """One forward pass, one token a row."""
        jobs = self.rows.working()
        logits = self.decoder.step(self.rows.feed[: len(jobs)], self.rows.length)
        self.rows.length[: len(jobs)] += 1
        for row, (job, token, logprob) in enumerate(zip(jobs, *self._draw(logits, jobs), strict=True)):
            if math.isnan(logprob):
                question_id = self.running[job.episode].task.question_id
                raise TTSError(
                    f"the model gave NaN logits for question {question_id!r}, branch {job.branch.number}, after "
                    f"{len(job.branch.ids)} tokens; check its weights and dtype."
                )
            if job.probe is not None:
                self._advance_probe(job, job.probe, token, logprob)
            else:
                job.branch.pending = (token, logprob)
                self._advance(job, logits[row])

    def _advance(self, job: Job, logits: Tensor) -> None:
        """A branch has fed all its tokens and knows its next one: go on, probe, or end the unit."""
        taken = len(job.branch.ids)
        at_step = taken % self.settings.interval_tokens == 0
        if not (at_step and (self.settings.probe_every_step or (job.unit.probe and taken >= job.target))):
            self._go_on(job)
            return
        begun = self.reader.begin_probe(job.branch)
        if isinstance(begun, ProbeRecord):
            self._end_probe(job, begun)
            return
        job.probe = begun
        forced = begun.next_forced()
        if forced is None:  # the branch is in the middle of stating its answer: nothing to force
            token = int(logits.argmax())
            self._advance_probe(job, begun, token, float(logits[token] - logits.logsumexp(-1)))
        else:
            self.rows.feed[job.branch.row] = forced

    def _advance_probe(self, job: Job, probe: Probe, token: int, logprob: float) -> None:
        """Feed the next forced token, or hear one more token of the answer."""
        forced = probe.next_forced()
        if forced is not None:
            self.rows.feed[job.branch.row] = forced
            return
        probe.said.append(token)
        probe.logprob += logprob
        complete, answer = self.reader.probe_answer(probe, token in self.settings.eos_token_ids)
        if complete:
            self._end_probe(job, probe.record(answer))
        else:
            self.rows.feed[job.branch.row] = token

    def _end_probe(self, job: Job, record: ProbeRecord) -> None:
        """Keep the probe's answer, forget its tokens, and go on with the branch."""
        job.branch.probes.append(record)
        job.probe_tokens += record.tokens
        job.probe = None
        prompt_tokens = len(self.running[job.episode].task.prompt_ids)
        self.rows.length[job.branch.row] = prompt_tokens + len(job.branch.ids)
        self._go_on(job)

    def _go_on(self, job: Job) -> None:
        if len(job.branch.ids) >= job.target:
            self._complete(job)
        else:
            self._take_pending(job)

    def _take_pending(self, job: Job) -> None:
        """Take the token drawn last; the branch ends with it or feeds it next."""
        branch = job.branch
        assert branch.pending is not None
        token, logprob = branch.pending
        branch.pending = None
        branch.take(token, logprob, self.settings.interval_tokens)
        job.generated_tokens += 1
        branch.finish_reason = self._finish_reason(job, token)
        if branch.finished:
            self._finish(job)
        else:
            self.rows.feed[branch.row] = token

    def _finish_reason(self, job: Job, token: int) -> str | None:
        if token in self.settings.eos_token_ids:
            return "eos"
        if self.criteria and bool(self.criteria(self._ids(job), None)[0]):
            return "stop"
        return "length" if len(job.branch.ids) >= self.settings.max_new_tokens else None

    def _finish(self, job: Job) -> None:
        """A branch has come to its end: read its answer and free its row."""
        job.branch.close_step(self.settings.interval_tokens)
        job.branch.final_answer = self.reader.final_answer(job.branch)
        self._complete(job)
        self.rows.release(job.branch)
        if self.on_branch is not None:
            self.on_branch(self.running[job.episode].task, job.branch)

    def _complete(self, job: Job) -> None:
        """Report a unit to its episode; the branch waits in its row for what is decided."""
        running, branch = self.running[job.episode], job.branch
        self.rows.jobs[branch.row] = None
        answer = NO_ANSWER
        if branch.finished:
            answer = running.book.id(branch.final_answer)
        elif job.unit.probe:
            answer = running.book.id(branch.probes[-1].answer)
        running.outcomes.append(
            Outcome(
                branch=job.unit.branch,
                depth=branch.depth(self.settings.interval_tokens),
                generated_tokens=job.generated_tokens,
                probe_tokens=job.probe_tokens,
                answer=answer,
                finished=branch.finished,
                logprobs=branch.step_logprobs[job.unit.start :],
            )
        )
        if len(running.outcomes) == running.expected:
            self.arrived.append(running)

    def _decide(self) -> Iterator[Running]:
        """Let every episode whose wave has arrived take its decision; yield those that answered."""
        arrived, self.arrived = self.arrived, []
        for running in arrived:
            units = running.episode.resume(running.outcomes)
            over = running.episode.done
            for branch, pruned in zip(running.branches, running.episode.state.pruned, strict=False):
                if pruned or over:
                    self.rows.release(branch)
            if over:
                running.prefix = []
                del self.running[running.index]
                yield running
            else:
                self._enqueue(running, units)
