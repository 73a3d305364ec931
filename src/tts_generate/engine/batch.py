"""The branches at work: one pass feeds them all, draws, and ends what is due; probes ride along.

A branch whose probe is under way decodes on: its tokens depend on its key only, so they are the right ones whatever is
decided. They count when the branch is continued; those that never do are `discarded_tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor
from transformers import StoppingCriteriaList

from tts_generate.engine.branch import CachedBranch as Branch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.passes import Passes
from tts_generate.engine.plan import Feed, feed
from tts_generate.engine.rows import Job, Rows
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.engine.shared import Shared
from tts_generate.live.branch import Probe, ProbeRecord
from tts_generate.live.reader import Reader


@dataclass(frozen=True, slots=True)
class Saved:
    """A branch that had to leave its row: its columns, and what was drawn and not taken yet."""

    prefix: Prefix
    length: int
    ids: np.ndarray
    logprobs: np.ndarray
    stop: int
    feeding: bool
    ended: bool
    criterion: bool


class Batch:
    """Decodes jobs in the rows of a decoder's cache.

    `completed` collects the jobs that are done, `finished` the branches that came to their end, `broken` the jobs whose
    logits were NaN; the loop empties them.
    """

    def __init__(
        self,
        decoder: Decoder,
        sampler: Sampler,
        reader: Reader,
        settings: Settings,
        criteria: StoppingCriteriaList | None = None,
    ) -> None:
        self.decoder, self.reader, self.settings = decoder, reader, settings
        self.rows = Rows()
        self.passes = Passes(self.rows, decoder, sampler, settings, criteria or StoppingCriteriaList())
        self.probing: list[Job] = []
        self.completed: list[Job] = []
        self.broken: list[Job] = []
        self.discarded_tokens = 0
        self._gap = reader.max_probe_tokens + 1 if settings.decode_ahead else 0

    # ---- rows

    def admit(self, branches: Sequence[Branch], slots: Sequence[int], prefix: Prefix, logits: Tensor) -> None:
        """Begin branches of one prompt in empty slots, each with a first token drawn from the prompt's logits (V,)."""
        shared = branches[0].shared_prefix is not None
        self.decoder.cache.admit([layer.first(0) for layer in prefix] if shared else prefix, slots)
        for branch, slot in zip(branches, slots, strict=True):
            self.rows.admit(branch, slot)
        try:
            self.passes.begin(np.array(slots), logits)
        except BaseException:  # a row without a first token is no row
            for branch in branches:
                self.rows.release(branch)
            raise

    def start(self, job: Job) -> None:
        """Set a job to work in its branch's row; it may be complete at once, from tokens drawn ahead."""
        slot = job.branch.row
        self.rows.jobs[slot] = job
        self.rows.working[slot] = True
        if job.probe is not None:
            self.probing.append(job)
        if not job.begun:
            job.begun = True
            self._progress(job)

    def take_over(self, job: Job) -> bool:
        """Have a job go on where one that nobody had asked for is at work on its branch; False if none is."""
        slot = job.branch.slot
        other = None if slot is None else self.rows.jobs[slot]
        if other is None:
            return False
        job.begun, job.probe = True, other.probe
        self.rows.jobs[slot] = job
        self.probing = [job if each is other else each for each in self.probing]
        return True

    def pause(self, job: Job) -> None:
        """Give up a job that nobody has asked for; its branch keeps its row, and what was decoded."""
        self._drop_probe(job)
        self._wait(job.branch.row)

    def save(self, branch: Branch) -> Saved:
        """Take a branch out of its row with everything that `restore` needs to go on."""
        rows, slot = self.rows, branch.row
        job = rows.jobs[slot]
        length, count = int(rows.length[slot]), int(rows.length[slot] - rows.prompt[slot]) + 1
        used = length
        if job is not None and job.probe is not None:
            self.probing.remove(job)
            used = max(used, job.probe.column(self._gap) + len(job.probe.feeds()))
        saved = Saved(
            prefix=self.decoder.cache.save(slot, used),
            length=length,
            ids=rows.ids[slot, :count].copy(),
            logprobs=rows.logprobs[slot, :count].copy(),
            stop=int(rows.stop[slot]),
            feeding=bool(rows.feeding[slot]),
            ended=bool(rows.ended[slot]),
            criterion=bool(rows.criterion[slot]),
        )
        rows.release(branch)
        return saved

    def restore(self, branch: Branch, slot: int, saved: Saved) -> None:
        """Put a saved branch into an empty slot."""
        rows = self.rows
        self.decoder.cache.admit(saved.prefix, [slot])
        rows.admit(branch, slot)
        count = len(saved.ids)
        rows.widen(count)
        rows.length[slot], rows.stop[slot] = saved.length, saved.stop
        rows.feeding[slot], rows.ended[slot], rows.criterion[slot] = saved.feeding, saved.ended, saved.criterion
        rows.ids[slot, :count], rows.logprobs[slot, :count] = saved.ids, saved.logprobs

    def cut(self, job: Job) -> None:
        """Have a job's branch count what it has decoded so far; a probe under way is dropped."""
        self._drop_probe(job)
        slot = job.branch.row
        fed = int(self.rows.length[slot] - self.rows.prompt[slot])
        self._take(job, max(len(job.branch.ids), min(job.target, fed)))
        job.branch.close_step(self.settings.interval_tokens)

    def release(self, branch: Branch) -> None:
        """Empty the row of a branch; what it decoded ahead and nobody took is discarded."""
        if branch.slot is None:
            return
        job = self.rows.jobs[branch.slot]
        if job is not None:
            self._drop_probe(job)
        fed = int(self.rows.length[branch.slot] - self.rows.prompt[branch.slot])
        self.discarded_tokens += max(0, fed - len(branch.ids))
        self.rows.release(branch)

    def _drop_probe(self, job: Job) -> None:
        if job.probe is not None:
            self.discarded_tokens += job.probe.fed
            self.probing.remove(job)
            job.probe = None

    def arrange(self) -> None:
        """Bring the rows at work to the front."""
        sources, targets = self.rows.arrange(self.decoder.shapes.block)
        self._follow(sources, targets)

    def pack(self) -> None:
        """Bring all branches to the first slots."""
        sources, targets = self.rows.pack()
        self._follow(sources, targets)

    def _follow(self, sources: np.ndarray, targets: np.ndarray) -> None:
        if len(sources):
            self.decoder.cache.move(sources.tolist(), targets.tolist(), self.columns)

    @property
    def columns(self) -> int:
        """Columns that any row holds, its probe's included."""
        probes = [job.probe.column(self._gap) + len(job.probe.feeds()) for job in self.probing if job.probe]
        return max([int(self.rows.length.max(initial=0)), *probes])

    @property
    def spread(self) -> int:
        """Columns that a row may take beyond its branch: a hole, a probe, and what passes write behind."""
        return self._gap + self.reader.max_tokens + 1 + self._behind

    @property
    def _behind(self) -> int:
        """Columns behind the longest row: passes before the host looks, and what fills them; if static, one more."""
        return self.passes.unseen + self.decoder.shapes.min_tokens + self.settings.static

    @property
    def columns_needed(self) -> int:
        """Columns that the next call of `step` may write."""
        return self.columns + self._behind

    # ---- passes

    def step(self) -> None:
        """Feed every decoding branch and probe, and carry on with what they drew.

        Nothing is changed before the passes have been carried out: after an error it can be called again.
        """
        plan = self._plan()
        passes = self.passes.until_due(plan, self.reader.max_probe_tokens)
        tokens, logprobs, said, doubts = self.passes.run(plan, passes)
        due, discarded = self.passes.record(plan.slots, tokens, logprobs)
        self.discarded_tokens += discarded
        for slot in due:
            job = self.rows.jobs[slot]
            if job.probe is not None:
                self.rows.feeding[slot] = False
            else:
                self._progress(job)
        for column, (slot, _) in enumerate(plan.probes):
            job = self.rows.jobs[slot]
            if job is not None:
                self._hear(job, said[:, column].tolist(), doubts[:, column].tolist())

    def _plan(self) -> Feed:
        rows = self.rows
        slots = np.flatnonzero(rows.feeding)
        probes = [(job.branch.row, job.probe) for job in self.probing if job.probe is not None]
        tokens = rows.ids[slots, rows.counts(slots)]
        how = self.decoder.shapes, self.decoder.in_row
        found = feed(slots, tokens, rows.length[slots], probes, self._gap, *how)
        if rows.offset.any():
            found.plan.offset = rows.offset[found.plan.slots]
            found.plan.shared = self._shared(found.plan.slots)
        return found

    def _shared(self, slots: np.ndarray) -> list[Shared]:
        """Which tokens read which prompt that is not in their row."""
        readers: dict[int, list[int]] = {}
        prefixes: dict[int, Prefix] = {}
        for token, slot in enumerate(slots.tolist()):
            branch = self.rows.branches[slot]
            if branch.shared_prefix is not None:
                readers.setdefault(branch.order[0], []).append(token)
                prefixes[branch.order[0]] = branch.shared_prefix
        return [Shared(np.array(tokens), prefixes[question]) for question, tokens in readers.items()]

    # ---- what becomes of a job

    def _progress(self, job: Job) -> None:
        """With no probe under way: take what was drawn up to the next stop, and probe, finish, complete or go on."""
        rows, slot = self.rows, job.branch.row
        while True:
            taken, fed = len(job.branch.ids), int(rows.length[slot] - rows.prompt[slot])
            stop = job.target
            if self.settings.probe_every_step:
                stop = min(stop, (taken // self.settings.interval_tokens + 1) * self.settings.interval_tokens)
            if fed < stop and rows.ended[slot]:
                self._finish(job, fed + 1)
                return
            if fed < stop:
                rows.stop[slot], rows.feeding[slot] = stop, True
                return
            self._take(job, stop)
            if self.settings.probe_every_step or job.unit.probe:
                begun = self.reader.begin_probe(job.branch)
                if isinstance(begun, Probe):
                    self._begin(job, begun)
                    return
                job.branch.heard.append(begun)
            if stop >= job.target:
                self._complete(job)
                return

    def _begin(self, job: Job, probe: Probe) -> None:
        """Send a probe on its way; the branch decodes on meanwhile, one step and one probe's length at most."""
        rows, slot = self.rows, job.branch.row
        job.probe = probe
        self.probing.append(job)
        ahead = min(self.settings.interval_tokens, self.reader.max_probe_tokens) if self.settings.decode_ahead else 0
        rows.stop[slot] = len(job.branch.ids) + ahead
        rows.feeding[slot] = ahead > 0 and not rows.ended[slot]

    def _hear(self, job: Job, tokens: list[int], logprobs: list[float]) -> None:
        """Take what a probe said until its answer is complete."""
        probe = job.probe
        assert probe is not None
        for number, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True), 1):
            probe.said.append(token)
            probe.logprob += logprob
            complete, answer = self.reader.probe_answer(probe, token in self.settings.eos_token_ids)
            if complete:
                self.discarded_tokens += len(tokens) - number + (probe.again is not None)
                self._end_probe(job, probe.record(answer))
                return

    def _end_probe(self, job: Job, record: ProbeRecord) -> None:
        """Keep the probe's answer, forget its tokens, and go on with the branch."""
        job.branch.heard.append(record)
        job.probe = None
        self.probing.remove(job)
        if len(job.branch.ids) >= job.target:
            self._complete(job)
        else:
            self._progress(job)

    def _take(self, job: Job, upto: int) -> None:
        branch, rows = job.branch, self.rows
        fresh = slice(len(branch.ids), upto)
        tokens, logprobs = rows.ids[branch.row, fresh].tolist(), rows.logprobs[branch.row, fresh].tolist()
        branch.take(tokens, logprobs, self.settings.interval_tokens)

    def _finish(self, job: Job, count: int) -> None:
        """A branch has come to its end: take its last tokens and read its answer."""
        branch, rows = job.branch, self.rows
        if math.isnan(rows.logprobs[branch.row, count - 1]):
            if job.ahead:  # it is told once it is asked for
                self._wait(branch.row)
            else:
                self.broken.append(job)
            return
        self._take(job, count)
        if branch.ids[-1] in self.settings.eos_token_ids:
            branch.finish_reason = "eos"
        else:
            branch.finish_reason = "stop" if rows.criterion[branch.row] else "length"
        branch.close_step(self.settings.interval_tokens)
        branch.final_answer = self.reader.final_answer(branch)
        self._complete(job)
        self.rows.release(branch)

    def _complete(self, job: Job) -> None:
        """The branch waits in its row for what is decided."""
        self._wait(job.branch.row)
        if not job.ahead:
            self.completed.append(job)

    def _wait(self, slot: int) -> None:
        self.rows.jobs[slot] = None
        self.rows.working[slot] = self.rows.feeding[slot] = False
