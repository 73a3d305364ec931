"""The live environment: every branch of every question in one batch, each episode at its own place.

One turn of the loop: begin questions and place their jobs into rows, run a pass, and let the episodes whose whole wave
has arrived decide. Decisions take effect between passes only.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence

from torch import Tensor

from tts_generate.engine.admission import Admission
from tts_generate.engine.ahead import ahead
from tts_generate.engine.batch import Batch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.memory import out_of_memory
from tts_generate.engine.question import Running
from tts_generate.engine.rows import Job
from tts_generate.engine.settings import Settings
from tts_generate.errors import TTSError
from tts_generate.live.branch import Branch
from tts_generate.live.episode import FinishReason
from tts_generate.live.task import Task


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
        self.at_once = len(tasks)
        """Questions on their way at most: fewer where there was no memory to read the prompt of one more."""
        self._too_long = -1  # the last question for whose prompt there was none
        self._decoded = False
        prompts = [len(task.prompt.ids) for task in tasks]
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
            self.turn()
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            try:
                self.admission.shrink(error)
            except TTSError as refusal:
                begun = any(branch.ids for running in self.running.values() for branch in running.branches)
                if not self.running or not (begun or self._decoded):
                    raise
                for running in list(self.running.values()):
                    self._fail(running, str(refusal))

    def turn(self) -> None:
        """Begin questions, place jobs, run a pass, and let whose wave has arrived decide."""
        batch = self.batch
        for running in [r for r in self.running.values() if r.closing or r.task.processors.expired()]:
            self._expire(running)
        while self.waiting and self.admission.open and len(self.running) < self.at_once:
            if self._start(*self.waiting[0]):
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

    def _start(self, index: int, task: Task) -> bool:
        """Prefill the question once, and ask its episode for the first branches; False if it must wait for memory."""
        running = self._new(index, task)
        if task.processors.expired():
            self._end(running, "deadline")
            return True
        try:
            running.start()
        except Exception as error:
            self._fail_first(running, error)
            return True
        if running.episode.done:
            self._close(running)
            return True
        try:
            running.prefill(self.batch.decoder)
        except TTSError as error:  # it makes nothing of this prompt
            self._fail_first(running, error)
            return True
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return self._put_off(running, error)
        self.admission.measure(running.prefix)
        self.running[index] = running
        self._enqueue(running)
        return True

    def _put_off(self, running: Running, error: BaseException) -> bool:
        """No memory to read a prompt: rows give way, then it waits for other questions, then it fails alone."""
        rows, first, self._too_long = self.batch.rows, self._too_long != running.index, running.index
        if self.running:
            if first and min(rows.slots, self.admission.max_rows) > 1:
                raise error
            self.at_once = len(self.running)
            return False
        if rows.slots:
            rows.drop()
            return False
        self.at_once = len(self.waiting)
        tokens = len(running.task.prompt.ids)
        self._fail_first(running, TTSError(f"out of memory reading a prompt of {tokens} tokens; shorten it. ({error})"))
        return True

    def _new(self, index: int, task: Task) -> Running:
        return Running(index, task, self.settings, self.batch.reader)

    def _prefilled(self, index: int) -> tuple[Prefix, Tensor]:
        running = self.running[index]
        assert running.logits is not None
        return running.prefix, running.logits

    def _enqueue(self, running: Running) -> None:
        """Have the units of a question's wave carried out."""
        for unit in running.wave:
            job = Job(running.index, unit, running.branch(unit), running.target(unit))
            if job.branch.has(job.target, unit.probe):
                self.batch.completed.append(job)
            elif not self.batch.take_over(job):
                self.admission.push(job)

    def _collect(self) -> None:
        """Take the completed jobs to their episodes, and let those whose whole wave has arrived decide."""
        batch = self.batch
        while batch.completed or batch.broken:
            if batch.broken:
                job, why = batch.broken.pop(0)
                if job.episode in self.running:
                    self._fail(self.running[job.episode], why)
                continue
            job = batch.completed.pop(0)
            running = self.running[job.episode]
            batch.discarded_tokens += running.count(job.unit)
            if running.outcomes[-1].finished:
                self.on_branch(running.task, job.branch)
            if not running.in_flight:
                self._decide(running)

    def _decide(self, running: Running) -> None:
        if running.closing or (running.to_close and running.task.processors.expired()):
            return  # see `_expire`
        try:
            running.resume()
        except Exception as error:
            self._fail(running, error)
            return
        if running.episode.done:
            self._close(running)
            return
        for branch, pruned in zip(running.branches, running.episode.state.pruned, strict=False):
            if pruned:
                self.admission.drop(branch)
        self._enqueue(running)

    def _expire(self, running: Running) -> None:
        """Time is up: a question without any answer asks its branches where they stand, and then ends."""
        if running.to_close:
            self._stop(running)
            for job in [job for job in self.batch.rows.jobs() if job.episode == running.index]:
                self.batch.pause(job)
            self.batch.discarded_tokens += running.close()
            running.wave = [unit for unit in running.wave if self.admission.holds(running.branch(unit))]
            for unit in running.wave:
                branch = running.branch(unit)
                self.admission.push(Job(running.index, unit, branch, len(branch.ids)))
        if not (running.closing and running.in_flight):
            self._end(running, "deadline")

    def _stop(self, running: Running) -> None:
        """Have a question's jobs count what their branches have decoded."""
        batch = self.batch
        for job in batch.rows.jobs():
            if job.episode == running.index and not job.ahead:
                batch.cut(job)
        batch.completed = [job for job in batch.completed if job.episode != running.index]
        self.admission.forget(running.index)

    def _fail(self, running: Running, why: Exception | str) -> None:
        """A question that cannot go on answers with the majority so far; the others are not touched."""
        running.complain(why)
        self._end(running, "error")

    def _fail_first(self, running: Running, error: Exception) -> None:
        """A question that cannot even begin; at the first one nothing is decoded yet, and there is nothing to keep."""
        if running.index == 0:
            raise error
        self._fail(running, error)

    def _end_all(self, reason: FinishReason) -> None:
        """End every question, those that have not begun too."""
        for running in list(self.running.values()):
            self._end(running, reason)
        while self.waiting:
            self._end(self._new(*self.waiting.popleft()), reason)

    def _end(self, running: Running, reason: FinishReason) -> None:
        """End a question now, with the majority so far; what its branches have decoded counts."""
        self._stop(running)
        self.batch.discarded_tokens += running.end(reason)
        self._close(running)

    def _close(self, running: Running) -> None:
        """Forget what the question's branches hold, and hand it out."""
        for branch in running.branches:
            self.admission.drop(branch)
            self.batch.discarded_tokens += branch.forget_unread(self.settings.interval_tokens)
        running.release()
        self._decoded |= bool(running.cost.tokens)
        self.running.pop(running.index, None)
        self.ended.append(running)
