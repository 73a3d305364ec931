"""The live environment: every branch of every question in one batch, each episode at its own place.

One turn of the loop: begin questions and place their jobs into rows, run a pass, and let the episodes whose whole wave
has arrived decide. Decisions take effect between passes only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from tts_generate.answers import AnswerBook
from tts_generate.engine.admission import Admission
from tts_generate.engine.ahead import ahead
from tts_generate.engine.batch import Batch
from tts_generate.engine.branch import Branch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.memory import out_of_memory
from tts_generate.engine.question import FinishReason, Running, Task
from tts_generate.engine.rows import Job
from tts_generate.engine.settings import Settings
from tts_generate.errors import TTSError, warn
from tts_generate.runner import Episode, Outcome, Unit
from tts_generate.state import TO_END
from tts_generate.trace import Event
from tts_generate.votes import NO_ANSWER


class Loop:
    """Decodes tasks until each has its answer; made for one call.

    Args:
        batch: the rows.
        tasks: what to answer.
        settings: numbers of the call.
        on_branch: told of every branch that has come to its end, as it does.
        before_step: called before the model is run; what it raises ends the call.
    """

    def __init__(
        self,
        batch: Batch,
        tasks: Sequence[Task],
        settings: Settings,
        on_branch: Callable[[Task, Branch], None] = lambda task, branch: None,
        before_step: Callable[[], None] = lambda: None,
    ) -> None:
        self.batch, self.settings = batch, settings
        self.on_branch, self.before_step = on_branch, before_step
        self.waiting = deque(enumerate(tasks))
        self.running: dict[int, Running] = {}
        self.ended: list[Running] = []
        prompts = [len(task.prompt_ids) for task in tasks]
        longest = max(0 if batch.decoder.shares(tokens) else tokens for tokens in prompts)
        columns = longest + settings.max_new_tokens + batch.spread
        self.admission = Admission(batch, settings, longest, columns)

    def run(self, partial: bool = False) -> Iterator[Running]:
        """Yield each question as it gets its answer.

        Args:
            partial: at Ctrl-C, yield what is unanswered with the majority so far instead of raising.
        """
        try:
            while self.waiting or self.running:
                self._guarded()
                yield from self._answered()
        except KeyboardInterrupt:
            if not partial:
                raise
            self._end_all("interrupted")
            yield from self._answered()

    def _answered(self) -> Iterator[Running]:
        ended, self.ended = self.ended, []
        yield from ended

    def _guarded(self) -> None:
        """One turn; out of memory, it is taken again with fewer rows."""
        try:
            self._turn()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            try:
                self.admission.shrink(error)
            except TTSError as refusal:
                if not any(branch.ids for running in self.running.values() for branch in running.branches):
                    raise
                for running in list(self.running.values()):
                    self._fail(running, str(refusal))

    def _turn(self) -> None:
        batch = self.batch
        for running in [r for r in self.running.values() if r.task.processors.expired()]:
            self._end(running, "deadline")
        while self.waiting and self.admission.open:
            self._start(*self.waiting[0])
            self.waiting.popleft()
        self.admission.place(self._prefilled)
        self._collect()
        self.admission.look_ahead(ahead(self.running.values(), batch.rows, self.settings), self._prefilled)
        if batch.rows.live:
            self.before_step()
            self.admission.widen()
            batch.rows.arrange()
            batch.step()
            self._collect()

    # ---- episodes

    def _start(self, index: int, task: Task) -> None:
        """Prefill the question once, and ask its episode for the first branches."""
        running = self._new(index, task)
        if task.processors.expired():
            self._end(running, "deadline")
            return
        try:
            units = running.episode.start()
        except Exception as error:
            if index == 0:  # nothing is decoded yet: there is nothing to keep
                raise
            self._fail(running, f"{type(error).__name__}: {error}")
            return
        running.prefix, running.logits = self.batch.decoder.prefill(task.prompt_ids)
        running.shared = self.batch.decoder.shares(len(task.prompt_ids))
        if bool(running.logits.isnan().any()):
            raise TTSError(
                f"the model gave NaN logits for the prompt of question {task.question_id!r}; check its weights and "
                "dtype."
            )
        self.admission.measure(running.prefix)
        self.running[index] = running
        self._enqueue(running, units)

    def _new(self, index: int, task: Task) -> Running:
        events: list[Event] = []
        book = AnswerBook()
        settings = self.settings
        episode = Episode(
            task.controller,
            max_branches=settings.max_branches if task.order is None else len(task.order),
            max_depth=-(-settings.max_new_tokens // settings.interval_tokens),
            interval_tokens=settings.interval_tokens,
            max_probe_tokens=self.batch.reader.max_tokens if task.controller.probing != "never" else 0,
            processors=task.processors,
            trace=events,
            text=book.text,
        )
        return Running(index, task, episode, events, book)

    def _prefilled(self, index: int) -> tuple[Prefix, Tensor]:
        running = self.running[index]
        assert running.logits is not None
        return running.prefix, running.logits

    def _enqueue(self, running: Running, units: list[Unit]) -> None:
        interval = self.settings.interval_tokens
        for unit in units:
            while unit.branch >= len(running.branches):
                running.open(self.settings.seed)
            branch = running.branches[unit.branch]
            target = self.settings.max_new_tokens if unit.steps >= TO_END else (unit.start + unit.steps) * interval
            job = Job(running.index, unit, branch, min(target, self.settings.max_new_tokens))
            if branch.has(job.target, unit.probe):
                self.batch.completed.append(job)
            elif not self.batch.take_over(job):
                self.admission.push(job)
        running.expected = len(units)
        running.outcomes = []

    def _collect(self) -> None:
        """Take the completed jobs to their episodes, and let those whose whole wave has arrived decide."""
        batch = self.batch
        while batch.completed or batch.broken:
            if batch.broken:
                job = batch.broken.pop(0)
                if job.episode in self.running:
                    self._fail(self.running[job.episode], f"the model gave NaN logits in branch {job.branch.number}")
                continue
            job = batch.completed.pop(0)
            running = self.running[job.episode]
            running.outcomes.append(self._outcome(running, job))
            if running.outcomes[-1].finished:
                self.on_branch(running.task, job.branch)
            if len(running.outcomes) == running.expected:
                self._decide(running)

    def _outcome(self, running: Running, job: Job) -> Outcome:
        branch, unit, before = job.branch, job.unit, job.branch.read
        every = self.settings.probe_every_step
        probes, others = branch.ask(job.target, lambda probe: every or (unit.probe and probe.position == job.target))
        self.batch.discarded_tokens += others
        finished = branch.finished and branch.read == len(branch.ids)
        answer = NO_ANSWER
        if finished:
            answer = running.book.id(branch.final_answer)
        elif unit.probe and probes and probes[-1].position == job.target:
            answer = running.book.id(probes[-1].answer)
        depth = branch.depth(self.settings.interval_tokens)
        return Outcome(
            branch=unit.branch,
            depth=depth,
            generated_tokens=branch.read - before,
            probe_tokens=sum(probe.tokens for probe in probes),
            answer=answer,
            finished=finished,
            logprobs=branch.step_logprobs[unit.start : depth],
        )

    def _decide(self, running: Running) -> None:
        outcomes, running.outcomes = running.outcomes, []
        try:
            units = running.episode.resume(outcomes)
        except Exception as error:
            self._fail(running, f"{type(error).__name__}: {error}")
            return
        if running.episode.done:
            if running.task.processors.expired():
                running.finish_reason = "deadline"
            self._close(running)
            return
        for branch, pruned in zip(running.branches, running.episode.state.pruned, strict=False):
            if pruned:
                self.admission.drop(branch)
        self._enqueue(running, units)

    def _fail(self, running: Running, why: str) -> None:
        """A question that cannot go on answers with the majority so far; the others are not touched."""
        warn(
            f"question {running.task.question_id!r} ends with the majority so far: {why}", RuntimeWarning, stacklevel=2
        )
        self._end(running, "error")

    def _end_all(self, reason: FinishReason) -> None:
        """End every question, those that have not begun too."""
        for running in list(self.running.values()):
            self._end(running, reason)
        while self.waiting:
            self._end(self._new(*self.waiting.popleft()), reason)

    def _end(self, running: Running, reason: FinishReason) -> None:
        """End a question now, with the majority so far; what its branches have decoded counts."""
        running.finish_reason = reason
        for job in self.batch.rows.jobs():
            if job.episode == running.index and not job.ahead:
                self.batch.cut(job)
                self.batch.completed.append(job)
        for job in [job for job in self.batch.completed if job.episode == running.index]:
            self.batch.completed.remove(job)
            running.outcomes.append(self._outcome(running, job))
        self.admission.forget(running.index)
        running.episode.abandon([o for o in running.outcomes if o.generated_tokens or o.finished])
        self._close(running)

    def _close(self, running: Running) -> None:
        """Forget what the question's branches hold, and hand it out."""
        for branch in running.branches:
            self.admission.drop(branch)
            self.batch.discarded_tokens += branch.forget_unread(self.settings.interval_tokens)
            branch.shared_prefix = None
        del running.branches[running.episode.state.opened :]
        running.prefix, running.logits = [], None
        self.running.pop(running.index, None)
        self.ended.append(running)
