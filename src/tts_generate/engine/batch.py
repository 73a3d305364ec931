"""The branches at work: one pass feeds them all, draws, and ends what is due; probes ride along.

A branch whose probe is under way decodes on: its tokens depend on its key only, so they are the right ones whatever is
decided. They count when the branch is continued; those that never do are `discarded_tokens`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from torch import Tensor
from transformers import StoppingCriteriaList

from tts_generate.engine.branch import CachedBranch
from tts_generate.engine.cache import Prefix
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.passes import Passes
from tts_generate.engine.plan import Feed, feed
from tts_generate.engine.rows import BROKEN, EOS, GOES_ON, LENGTH, STOP, Job, Rows
from tts_generate.engine.sample import Sampler
from tts_generate.engine.settings import Settings
from tts_generate.engine.shared import Shared
from tts_generate.errors import TTSError
from tts_generate.live.branch import Probe
from tts_generate.live.reader import Reader

_REASONS = {EOS: "eos", STOP: "stop", LENGTH: "length"}


class Batch:
    """Decodes jobs in the rows of a decoder's cache.

    `completed` collects the jobs that are done, `broken` those that cannot go on, and why; the loop empties both.
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
        gap = reader.max_probe_tokens + 1 if settings.decode_ahead else 0
        self.rows = Rows(decoder.cache, decoder.shapes, gap)
        self.passes = Passes(self.rows, decoder, sampler, settings, criteria or StoppingCriteriaList())
        self.completed: list[Job] = []
        self.broken: list[tuple[Job, TTSError | str]] = []
        self.discarded_tokens = 0

    # ---- rows

    def admit(self, branches: Sequence[CachedBranch], slots: Sequence[int], prefix: Prefix, logits: Tensor) -> None:
        """Begin branches of one prompt in empty rows, each with a first token drawn from the prompt's logits (V,)."""
        self.rows.admit(branches, slots, prefix)
        try:
            self.passes.begin(np.array(slots), logits)
        except BaseException:  # a row without a first token is no row
            for branch in branches:
                self.rows.release(branch)
            raise

    def start(self, job: Job) -> None:
        """Set a job to work in its branch's row, or on with it; it may be complete at once, from tokens drawn ahead."""
        begun = self.rows.job[job.branch.row] is job
        self.rows.work(job)
        if not begun:
            with self._alone(job):
                self._progress(job)

    def take_over(self, job: Job) -> bool:
        """Have a job go on where one that nobody had asked for is at work on its branch; False if none is."""
        slot = job.branch.slot
        if slot is None or self.rows.job[slot] is None:
            return False
        self.rows.work(job)
        return True

    def pause(self, job: Job) -> None:
        """Give up a job that nobody has asked for; its branch keeps its row, and what was decoded."""
        self._drop_probe(job.branch)
        self.rows.wait(job.branch)

    def cut(self, job: Job) -> None:
        """Have a job's branch count what it has decoded so far; a probe under way is dropped."""
        self._drop_probe(job.branch)
        branch, interval = job.branch, self.settings.interval_tokens
        if branch.asking:
            branch.asking, branch.finish_reason = False, "length"
            return
        self.rows.take(branch, min(job.target, int(self.rows.fed(branch.row))), interval)
        branch.close_step(interval)

    def release(self, branch: CachedBranch) -> None:
        """Empty the row of a branch; what it decoded ahead and nobody took is discarded."""
        self.discarded_tokens += self.rows.release(branch)

    def _drop_probe(self, branch: CachedBranch) -> None:
        probe = self.rows.probe[branch.row]
        if probe is not None:
            self.discarded_tokens += probe.fed
            self.rows.probe[branch.row] = None

    @property
    def spread(self) -> int:
        """Columns that a row may take beyond its branch: a hole, a probe, and what passes write behind."""
        return self.rows.gap + self.reader.max_tokens + 1 + self._behind

    @property
    def _behind(self) -> int:
        """Columns behind the longest row: passes before the host looks, and what fills them; if static, one more."""
        return self.passes.unseen + self.decoder.shapes.min_tokens + self.settings.static

    @property
    def columns_needed(self) -> int:
        """Columns that the next call of `step` may write."""
        return self.rows.columns + self._behind

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
            if self.rows.probe[slot] is None:
                with self._alone(self.rows.job[slot]):
                    self._progress(self.rows.job[slot])
        for column, (slot, probe) in enumerate(plan.probes):
            with self._alone(self.rows.job[slot]):
                self._hear(self.rows.job[slot], probe, said[:, column].tolist(), doubts[:, column].tolist())

    def _plan(self) -> Feed:
        rows = self.rows
        slots = np.flatnonzero(rows.decoding)
        tokens = rows.ids[slots, rows.fed(slots)]
        how = self.decoder.shapes, self.decoder.in_row
        found = feed(slots, tokens, rows.length[slots], rows.probes(), rows.gap, *how)
        if rows.offset.any():
            found.plan.offset = rows.offset[found.plan.slots]
            found.plan.shared = self._shared(found.plan.slots[: found.plan.wanted])
        return found

    def _shared(self, slots: np.ndarray) -> list[Shared]:
        """Which tokens read which prompt that is not in their row."""
        readers: dict[int, list[int]] = {}
        prefixes: dict[int, Prefix] = {}
        for token, slot in enumerate(slots.tolist()):
            branch = self.rows.branch[slot]
            if branch.shared_prefix is not None:
                readers.setdefault(branch.order[0], []).append(token)
                prefixes[branch.order[0]] = branch.shared_prefix
        return [Shared(np.array(tokens), prefixes[question]) for question, tokens in readers.items()]

    # ---- what becomes of a job

    def _progress(self, job: Job) -> None:
        """With no probe under way: take what was drawn up to the next stop, and probe, finish, complete or go on."""
        rows, branch, interval = self.rows, job.branch, self.settings.interval_tokens
        while True:
            fed, stop = int(rows.fed(branch.row)), job.target
            if self.settings.probe_every_step:
                stop = min(stop, (len(branch.ids) // interval + 1) * interval)
            if fed < stop and rows.end[branch.row] != GOES_ON:
                self._finish(job, fed + 1)
                return
            if fed < stop:
                rows.decode(branch, stop)
                return
            rows.take(branch, stop, interval)
            if self.settings.probe_every_step or job.unit.probe:
                begun = self.reader.begin_probe(branch)
                if isinstance(begun, Probe):
                    self._begin(branch, begun)
                    return
                branch.heard.append(begun)
            if stop >= job.target:
                self._complete(job)
                return

    def _begin(self, branch: CachedBranch, probe: Probe) -> None:
        """Send a probe on its way; the branch decodes on meanwhile, one step and one probe's length at most."""
        self.rows.probe[branch.row] = probe
        ahead = min(self.settings.interval_tokens, self.reader.max_probe_tokens) if self.settings.decode_ahead else 0
        self.rows.decode(branch, len(branch.ids) + ahead)

    def _hear(self, job: Job, probe: Probe, tokens: list[int], logprobs: list[float]) -> None:
        """Take what a probe said; with its answer complete, keep that, and go on with the branch."""
        for number, (token, logprob) in enumerate(zip(tokens, logprobs, strict=True), 1):
            if math.isnan(logprob):
                self._break(job, f"the model gave NaN logits in branch {job.branch.number}")
                return
            probe.said.append(token)
            probe.logprob += logprob
            complete, answer = self.reader.probe_answer(probe, token in self.settings.eos_token_ids)
            if complete:
                self.discarded_tokens += len(tokens) - number + (probe.again is not None)
                job.branch.heard.append(probe.record(answer))
                self.rows.probe[job.branch.row] = None
                if probe.at_end:
                    job.branch.asking, job.branch.finish_reason, job.branch.final_answer = False, "length", answer
                    self._end(job)
                elif len(job.branch.ids) >= job.target:
                    self._complete(job)
                else:
                    self._progress(job)
                return

    def _finish(self, job: Job, count: int) -> None:
        """A branch has come to its end: take its last tokens and read its answer, or ask for it."""
        branch, end, interval = job.branch, int(self.rows.end[job.branch.row]), self.settings.interval_tokens
        if end == BROKEN:
            self._break(job, f"the model gave NaN logits in branch {job.branch.number}")
            return
        self.rows.take(branch, count, interval)
        branch.finish_reason = _REASONS[end]
        branch.close_step(interval)
        branch.final_answer = self.reader.final_answer(branch)
        probe = self.reader.at_end(branch)
        if probe is None:
            self._end(job)
        else:
            branch.asking, branch.finish_reason = True, None
            self.rows.probe[branch.row] = probe

    @contextmanager
    def _alone(self, job: Job) -> Iterator[None]:
        """What a branch says cannot be read, as by a pattern that takes too long: that costs its question only."""
        try:
            yield
        except TTSError as error:
            self._break(job, error)

    def _break(self, job: Job, why: TTSError | str) -> None:
        """A branch, or its probe, cannot go on; of what nobody has asked for, that is told once one does."""
        if job.ahead:
            job.branch.finish_reason = None
            self.pause(job)
        else:
            self.broken.append((job, why))

    def _end(self, job: Job) -> None:
        """A branch has ended, and leaves its row."""
        self._complete(job)
        self.rows.release(job.branch)

    def _complete(self, job: Job) -> None:
        """The branch waits in its row for what is decided."""
        self.rows.wait(job.branch)
        if not job.ahead:
            self.completed.append(job)
