"""The live environment on servers: every question at its own place, each branch a chain of requests.

A unit of work (branch, target) is one request for the tokens up to its target, behind the branch's tokens so far, and,
if the controller reads it, a probe: a greedy request with the suffix behind them. The units of a wave run side by side;
how many requests are in flight, and where, is the pool's business.
"""

from __future__ import annotations

import asyncio
import bisect
import hashlib
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any

from tts_generate.errors import ServerError
from tts_generate.live.branch import Branch, Probe, ProbeRecord
from tts_generate.live.reader import Reader
from tts_generate.live.settings import EpisodeSettings
from tts_generate.live.task import Task
from tts_generate.runner import Unit
from tts_generate.server.dialects import Piece, Wire
from tts_generate.server.pool import Pool
from tts_generate.server.question import Served
from tts_generate.server.stream import CalledOffError

_LOOK = 0.05
"""Seconds between two looks at whether a processor has expired."""


_CLOSING = 5.0
"""Seconds at most that branches are asked for their answers after their time."""


class _ExpiredError(Exception):
    """A processor says that the question must end."""


class ServerLoop:
    """Decodes questions until each has its answer, or has to do without.

    Every branch is ended by the texts in `stop`, and told to `on_branch` as it comes to its end.
    """

    def __init__(
        self,
        pool: Pool,
        wire: Wire,
        reader: Reader,
        settings: EpisodeSettings,
        stop: Sequence[str] = (),
        on_branch: Callable[[Served, Branch], None] = lambda question, branch: None,
    ) -> None:
        self.pool, self.wire, self.reader, self.settings = pool, wire, reader, settings
        self.stop, self.on_branch = stop, on_branch
        # A brace may end a probe, which goes on if it closed an inner pair only. Ids show it; text often lacks what
        # stopped it, and `transformers serve` fails on stop strings with some tokenizers.
        self.probe_stop = ("}",) if wire.exact and reader.format.answer_pattern in ("auto", "boxed") else ()

    async def run(self, tasks: Sequence[Task], done: Callable[[Served], None]) -> list[Served]:
        """Hand out every question as it ends, and all of them; called off, what is in flight ends with what it has."""
        room = asyncio.Semaphore(self.pool.capacity)
        ended: dict[int, Served] = {}

        async def answered(index: int, task: Task) -> None:
            async with room:
                ended[index] = self._question(index, task)
                try:
                    await self._answer(ended[index])
                finally:
                    done(ended[index])

        with suppress(asyncio.CancelledError):
            await _all([answered(index, task) for index, task in enumerate(tasks)])
        for index in [index for index in range(len(tasks)) if index not in ended]:  # called off before their turn
            ended[index] = self._question(index, tasks[index])
            ended[index].end("interrupted")
        return [ended[index] for index in range(len(tasks))]

    def _question(self, index: int, task: Task) -> Served:
        return Served(index, task, self.settings, self.reader, self.wire)

    async def _answer(self, question: Served) -> None:
        """Run the episode of one question, whatever happens to it."""
        try:
            try:
                await self._waves(question)
            except _ExpiredError:
                with suppress(ServerError, TimeoutError):
                    await asyncio.wait_for(self._close(question), _CLOSING)
                question.end("deadline")
        except asyncio.CancelledError:
            question.end("interrupted")
            raise
        except Exception as error:
            question.error = error
            question.end("error")
            question.complain(error)

    async def _waves(self, question: Served) -> None:
        """Run the episode until its controller has answered."""
        if question.task.processors.expired():
            raise _ExpiredError
        question.start()
        while question.wave:
            await self._wave(question)
            if question.to_close and question.task.processors.expired():
                raise _ExpiredError
            question.resume()

    async def _wave(self, question: Served) -> None:
        """Carry out the units of a wave side by side, looking now and then whether the question must end."""
        processors = question.task.processors
        units = [asyncio.ensure_future(self._carry_out(question, unit)) for unit in question.wave]
        whole = asyncio.gather(*units)
        look = _LOOK if processors else None
        try:
            while not whole.done():
                if processors.expired():
                    raise _ExpiredError
                await asyncio.wait([whole], timeout=look)
            await whole
        finally:
            await _call_off([whole, *units])

    async def _close(self, question: Served) -> None:
        """Time is up: a question without any answer asks those of its branches that have begun."""
        if question.to_close:
            question.close()
            branches = [question.branch(unit) for unit in question.wave]
            await _all([self._probe(question, branch, len(branch.ids)) for branch in branches])

    async def _carry_out(self, question: Served, unit: Unit) -> None:
        """Continue a branch to where its unit ends, and probe it where that was asked for."""
        branch, target = question.branch(unit), question.target(unit)
        interval, every = self.settings.interval_tokens, self.settings.probe_every_step
        probes: list[asyncio.Future[None]] = []
        try:
            while not branch.finished and len(branch.ids) < target:
                steps = len(branch.ids) // interval
                # Ids can be cut at any step afterwards; text cannot, so a recording asks for one step at a time.
                stepwise = every and not self.wire.exact
                await self._continue(question, branch, min(target, (steps + 1) * interval) if stepwise else target)
                last = len(branch.ids) - branch.finished
                for position in range((steps + 1) * interval, last + 1, interval) if every else ():
                    probes.append(asyncio.ensure_future(self._probe(question, branch, position)))
            if unit.probe and not every and not branch.finished:
                probes.append(asyncio.ensure_future(self._probe(question, branch, len(branch.ids))))
            await asyncio.gather(*probes)
            await self._force(question, branch)
        finally:
            await _call_off(probes)
        question.count(unit)
        if branch.finished:
            self.on_branch(question, branch)

    async def _continue(self, question: Served, branch: Branch, upto: int) -> None:
        """One request for the tokens of a branch up to `upto`; it may bring fewer."""
        try:
            piece = await self._request(question, branch, branch.ids, upto - len(branch.ids), self.stop)
        except CalledOffError as error:
            if self.wire.exact:  # how many tokens a text has is not known before its end
                heard = self.wire.read(error.heard, upto, question.task.prompt, branch.ids, self.stop)
                branch.take(heard.ids, heard.logprobs, self.settings.interval_tokens)
            raise
        branch.take(piece.ids, piece.logprobs, self.settings.interval_tokens)
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

    async def _probe(self, question: Served, branch: Branch, position: int) -> None:
        """Ask a branch for its answer after `position` tokens; the branch itself stays as it is."""
        probe = self.reader.begin_probe(branch, position)
        record = await self._hear(question, branch, probe) if isinstance(probe, Probe) else probe
        bisect.insort(branch.heard, record, key=lambda record: record.position)

    async def _force(self, question: Served, branch: Branch) -> None:
        """Ask a branch that was cut without an answer; one that the server cut has no room for that."""
        probe = self.reader.at_end(branch) if len(branch.ids) >= self.settings.max_new_tokens else None
        if probe is not None:
            record = await self._hear(question, branch, probe)
            branch.heard.append(record)
            branch.final_answer = record.answer

    async def _hear(self, question: Served, branch: Branch, probe: Probe) -> ProbeRecord:
        """What a probe says, and what that took."""
        before = branch.ids[: probe.position]
        complete, answer = False, None
        while not complete:
            ids = [*before, *probe.forced, *probe.said]
            left = self.reader.max_probe_tokens - len(probe.said)
            piece = await self._request(question, branch, ids, left, self.probe_stop, greedy=True)
            probe.said += piece.ids
            probe.logprob += sum(piece.logprobs)
            complete, answer = self.reader.probe_answer(probe, piece.end == "eos" or not piece.ids)
        return self.wire.probe(probe.record(answer))

    async def _request(
        self,
        question: Served,
        branch: Branch,
        ids: Sequence[int],
        max_tokens: int,
        stop: Sequence[str],
        *,
        greedy: bool = False,
    ) -> Piece:
        """Send one request of a branch to the endpoint that knows it."""
        prompt = question.task.prompt
        seed = None if greedy or self.settings.seed is None else _request_seed(branch.key, len(ids))
        body = self.wire.body(prompt, ids, max_tokens, stop, greedy=greedy, seed=seed)
        completion, home = await self.pool.complete(body, branch.order, question.homes.get(branch.number))
        question.homes[branch.number] = home
        if not ids and not prompt.ids and completion.prompt_tokens is not None:
            question.prompt_tokens = completion.prompt_tokens
        return self.wire.read(completion, max_tokens, prompt, ids, stop)


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
