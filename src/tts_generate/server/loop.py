"""The live environment on servers: every question at its own place, each branch a chain of requests.

A unit of work (branch, target) is one request for the tokens up to its target, behind the branch's tokens so far, and,
if the controller reads it, a probe: a greedy request with the suffix behind them. The units of a wave run side by side;
how many requests are in flight, and where, is the pool's business.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from tts_generate.engine.branch import Branch, Probe, ProbeRecord, Reader
from tts_generate.engine.noise import branch_key
from tts_generate.engine.settings import Settings
from tts_generate.errors import ServerError, warn
from tts_generate.runner import Episode, Outcome, Unit
from tts_generate.server.asked import Asked, Job
from tts_generate.server.pool import Pool
from tts_generate.server.wire import Piece, Wire
from tts_generate.state import TO_END

_LOOK = 0.05
"""Seconds between two looks at whether a processor has expired."""


class _ExpiredError(Exception):
    """A processor says that the question must end."""


class ServerLoop:
    """Decodes questions until each has its answer, or has to do without."""

    def __init__(
        self,
        pool: Pool,
        wire: Wire,
        reader: Reader,
        settings: Settings,
        stop: Sequence[str] = (),
        on_branch: Callable[[Asked, Branch], None] | None = None,
    ) -> None:
        self.pool, self.wire, self.reader, self.settings = pool, wire, reader, settings
        self.stop = stop
        self.on_branch = on_branch
        # A brace may end a probe, which goes on if it closed an inner pair only. Ids show it; text often lacks what
        # stopped it, and `transformers serve` fails on stop strings with some tokenizers.
        self.probe_stop = ("}",) if wire.exact and reader.format.answer_pattern is None else ()

    async def run(self, asked: Sequence[Asked], done: Callable[[Asked], object]) -> None:
        """Answer every question; cancelled, it calls off what is in flight and leaves each with what it has."""
        room = asyncio.Semaphore(self.pool.capacity)

        async def answered(one: Asked) -> None:
            async with room:
                await self._answer(one)
            done(one)

        await _all([answered(one) for one in asked])

    async def _answer(self, asked: Asked) -> None:
        """Run the episode of one question, whatever happens to it."""
        interval = self.settings.interval_tokens
        try:
            asked.episode = self._episode(asked)
            units = asked.episode.start()
            while units:
                outcomes = await self._wave(asked, units)
                asked.jobs = []
                units = asked.episode.resume(outcomes)
            asked.finish_reason = "deadline" if asked.processors.expired() else "answer"
        except asyncio.CancelledError:
            asked.fall_back("interrupted", interval)
            raise
        except _ExpiredError:
            asked.fall_back("deadline", interval)
        except Exception as error:
            asked.error = error
            asked.fall_back("error", interval)
            warn(
                f"question {asked.question_id!r} ends with the majority so far: {type(error).__name__}: {error}",
                RuntimeWarning,
                stacklevel=2,
            )

    def _episode(self, asked: Asked) -> Episode:
        settings, controller = self.settings, asked.controller
        return Episode(
            controller,
            max_branches=settings.max_branches if asked.order is None else len(asked.order),
            max_depth=-(-settings.max_new_tokens // settings.interval_tokens),
            interval_tokens=settings.interval_tokens,
            max_probe_tokens=self.reader.max_tokens if controller.probing != "never" else 0,
            processors=asked.processors,
            trace=asked.events,
            text=asked.book.text,
        )

    async def _wave(self, asked: Asked, units: Sequence[Unit]) -> list[Outcome]:
        """Carry out units side by side, looking now and then whether the question must end."""
        asked.jobs = [self._job(asked, unit) for unit in units]
        tasks = [asyncio.ensure_future(self._carry_out(asked, job)) for job in asked.jobs]
        whole = asyncio.gather(*tasks)
        look = _LOOK if asked.processors else None
        try:
            while not whole.done():
                if asked.processors.expired():
                    raise _ExpiredError
                await asyncio.wait([whole], timeout=look)
            await whole
        finally:
            await _call_off([whole, *tasks])
        interval, logprobs = self.settings.interval_tokens, self.wire.logprobs
        return [job.outcome(asked.book, interval, logprobs) for job in asked.jobs]

    def _job(self, asked: Asked, unit: Unit) -> Job:
        """The work of a unit; a branch is made when its first unit comes."""
        settings = self.settings
        while unit.branch >= len(asked.branches):
            opened = len(asked.branches)
            number = opened if asked.order is None else asked.order[opened]
            key = branch_key(settings.seed, asked.prompt.text.encode(), number)
            thought = self.reader.format.thought(asked.prompt.text)
            asked.branches.append(Branch(number, key, asked.prompt.ids or (), thought=thought))
        reached = (
            settings.max_new_tokens if unit.steps >= TO_END else (unit.start + unit.steps) * settings.interval_tokens
        )
        return Job(unit, asked.branches[unit.branch], min(reached, settings.max_new_tokens))

    async def _carry_out(self, asked: Asked, job: Job) -> None:
        """Continue a branch to its target, and probe it where that was asked for."""
        branch, interval, every = job.branch, self.settings.interval_tokens, self.settings.probe_every_step
        probes: list[asyncio.Future[ProbeRecord]] = []
        probed = len(branch.ids)
        try:
            while not branch.finished and len(branch.ids) < job.target:
                # Ids can be cut at any step afterwards; text cannot, so a recording asks for one step at a time.
                stepwise = every and not self.wire.exact
                upto = min(job.target, (len(branch.ids) // interval + 1) * interval) if stepwise else job.target
                await self._continue(asked, job, upto)
                last = len(branch.ids) - branch.finished
                for position in range(probed // interval * interval + interval, last + 1, interval) if every else ():
                    probes.append(asyncio.ensure_future(self._probe(asked, job, position)))
                probed = len(branch.ids)
            if job.unit.probe and not every and not branch.finished:
                probes.append(asyncio.ensure_future(self._probe(asked, job, len(branch.ids))))
            branch.probes += await asyncio.gather(*probes)
        finally:
            await _call_off(probes)
        if branch.finished and self.on_branch is not None:
            self.on_branch(asked, branch)

    async def _continue(self, asked: Asked, job: Job, upto: int) -> None:
        """One request for the tokens of a branch up to `upto`; it may bring fewer."""
        branch = job.branch
        seed = _request_seed(branch.key, len(branch.ids))
        piece = await self._request(asked, branch, branch.ids, upto - len(branch.ids), seed, self.stop)
        branch.take(piece.ids, piece.logprobs, self.settings.interval_tokens)
        branch.read = len(branch.ids)  # a server decodes nothing ahead of what it is asked for
        job.generated_tokens += len(piece.ids)
        branch.finish_reason = piece.end
        if branch.finish_reason is None and len(branch.ids) >= self.settings.max_new_tokens:
            branch.finish_reason = "length"
        if branch.finished:
            branch.close_step(self.settings.interval_tokens)
            branch.final_answer = self.reader.final_answer(branch)
        elif not piece.ids:
            raise ServerError(
                f"the server adds nothing to branch {branch.number} after {len(branch.ids)} tokens, for its length: "
                "its context is full. Pass a smaller max_new_tokens."
            )

    async def _probe(self, asked: Asked, job: Job, position: int) -> ProbeRecord:
        """Ask a branch for its answer after `position` tokens; the branch itself stays as it is."""
        branch = job.branch
        ids, thought = branch.ids[:position], branch.thought
        prefix = Branch(branch.number, branch.key, branch.prompt_ids, ids=ids, thought=thought)
        probe = self.reader.begin_probe(prefix)
        if isinstance(probe, Probe):
            complete, answer = False, None
            while not complete:
                ids = [*prefix.ids, *probe.forced, *probe.said]
                left = self.reader.max_probe_tokens - len(probe.said)
                piece = await self._request(asked, branch, ids, left, None, self.probe_stop)
                probe.said += piece.ids
                probe.logprob += sum(piece.logprobs)
                complete, answer = self.reader.probe_answer(probe, piece.end == "eos" or not piece.ids)
            probe_record = self.wire.probe(probe.record(answer))
        else:
            probe_record = probe
        job.probe_tokens += probe_record.tokens
        return probe_record

    async def _request(
        self, asked: Asked, branch: Branch, ids: Sequence[int], max_tokens: int, seed: int | None, stop: Sequence[str]
    ) -> Piece:
        """Send one request of a branch to the endpoint that knows it."""
        body = self.wire.body(asked.prompt, ids, max_tokens, seed, stop)
        order = asked.index, branch.number
        completion, home = await self.pool.complete(body, order, asked.homes.get(branch.number))
        asked.homes[branch.number] = home
        if not ids and asked.prompt.ids is None and completion.prompt_tokens is not None:
            asked.prompt_tokens = completion.prompt_tokens
        return self.wire.read(completion, max_tokens, stop)


def _request_seed(key: int, position: int) -> int:
    """A seed of 31 bits for the request that continues a branch at `position`."""
    digest = hashlib.blake2b(f"{key}|{position}".encode(), digest_size=4).digest()
    return int.from_bytes(digest, "little") & 0x7FFFFFFF


async def _all(work: Sequence[Coroutine[Any, Any, None]]) -> None:
    """Wait for all; the first error, or being cancelled, calls the others off."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        await _call_off(tasks)


async def _call_off(tasks: Any) -> None:
    """Cancel what still runs and wait until it is gone."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
