"""The live environment on servers: every question at its own place, each branch a chain of requests.

A unit of work (branch, target) is the tokens up to its target, taken from a `Flow` or asked for by a request behind the
branch's tokens so far, and, if the controller reads it, a probe: a greedy request with the suffix behind them. The
units of a wave run side by side; how many requests are in flight, and where, is the pool's business.
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
from tts_generate.server.connect import Session
from tts_generate.server.dialects import Piece, Wire
from tts_generate.server.flow import Flow
from tts_generate.server.pool import Pool
from tts_generate.server.question import Served
from tts_generate.server.reply import Completion
from tts_generate.server.stream import CalledOffError

_LOOK = 0.05
"""Seconds between two looks at whether a processor has expired."""


_CLOSING = 5.0
"""Seconds at most that branches are asked for their answers after their time."""


class _ExpiredError(Exception):
    """A processor says that the question must end."""


class ServerLoop:
    """Decodes questions until each has its answer, or has to do without.

    Every branch is ended by the texts in `stop`, and told to `on_branch` as it comes to its end, a question to
    `on_wave` whenever its controller has decided, and to `on_error` where it cannot go on. In the pool, its questions
    stand in the line from place `first` on. What was found out of the servers is `session`.
    """

    def __init__(
        self,
        pool: Pool,
        wire: Wire,
        reader: Reader,
        settings: EpisodeSettings,
        stop: Sequence[str] = (),
        on_branch: Callable[[Served, Branch], None] = lambda question, branch: None,
        on_wave: Callable[[Served], None] = lambda question: None,
        first: int = 0,
        session: Session | None = None,
        on_error: Callable[[Served, Exception], None] = Served.complain,
    ) -> None:
        self.pool, self.wire, self.reader, self.settings = pool, wire, reader, settings
        self.stop, self.on_branch, self.on_wave, self.first = stop, on_branch, on_wave, first
        self.session, self.on_error = session, on_error
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
        return Served(self.first + index, task, self.settings, self.reader, self.wire)

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
            self.on_error(question, error)
        finally:
            await self._call_off_flows(question)

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
            self.on_wave(question)
            await self._call_off_flows(question, unwanted=True)

    async def _call_off_flows(self, question: Served, *, unwanted: bool = False) -> None:
        untaken = await question.close_flows(unwanted=unwanted)  # other questions count meanwhile
        self.pool.usage.discarded_tokens += untaken

    async def _wave(self, question: Served) -> None:
        """Carry out the units of a wave side by side, looking now and then whether the question must end."""
        processors = question.task.processors
        fresh = self._alike(question)
        units = [asyncio.ensure_future(self._carry_out(question, u)) for u in question.wave if u not in fresh]
        if fresh:
            units.append(asyncio.ensure_future(self._together(question, fresh)))
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

    def _alike(self, question: Served) -> list[Unit]:
        """The units that one request can carry out: those of new branches that are read to their end, if all have room.

        Not where requests have seeds, of which each branch has its own.
        """
        settings = self.settings
        if not self.wire.exact or settings.seed is not None or settings.probe_every_step:
            return []
        fresh = [u for u in question.wave if u.start == 0 and question.target(u) == settings.max_new_tokens]
        return fresh if 1 < len(fresh) <= self.pool.free else []

    async def _together(self, question: Served, units: Sequence[Unit]) -> None:
        """One request for several branches from their beginning to their end."""
        branches, most = [question.branch(unit) for unit in units], self.settings.max_new_tokens
        body = {**self.wire.body(question.task.prompt, [], most, self.stop), "n": len(units)}
        try:
            completion, home = await self.pool.complete(body, branches[0].order)
        except CalledOffError as error:
            for branch, heard in zip(branches, error.heard.each, strict=True):
                self._take_what_came(question, branch, heard)
            raise
        for branch, each in zip(branches, completion.each, strict=True):
            question.homes[branch.number] = home
            self._add(question, branch, each, most)
        await _all([self._carry_out(question, unit) for unit in units])

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
        """Take the tokens of a branch up to `upto`, of a flow or by a request of their own; there may come fewer."""
        count, flow = upto - len(branch.ids), self._flow(question, branch, upto)
        try:
            if flow is None:
                completion = await self._request(question, branch, branch.ids, count, self.stop)
            else:
                completion = await flow.take(count)
                if flow.home is not None:
                    question.homes[branch.number] = flow.home
        except CalledOffError as error:
            self._take_what_came(question, branch, error.heard)
            raise
        piece = self._add(question, branch, completion, count)
        if not (piece.ids or branch.finished or (flow is not None and flow.broken)):
            raise ServerError(
                f"the server adds nothing to branch {branch.number} after {len(branch.ids)} tokens, for its length: "
                "its context is full. Pass a smaller max_new_tokens."
            )

    def _add(self, question: Served, branch: Branch, completion: Completion, count: int) -> Piece:
        """Put what came behind a branch, and see whether it has come to its end."""
        piece = self.wire.read(completion, count, question.task.prompt, branch.ids, self.stop)
        if self.wire.exact:
            self.pool.usage.discarded_tokens += max(0, len(completion.token_ids or ()) - len(piece.ids))
        branch.take(piece.ids, piece.logprobs, self.settings.interval_tokens)
        branch.finish_reason = piece.end
        if branch.finish_reason is None and len(branch.ids) >= self.settings.max_new_tokens:
            branch.finish_reason = "length"
        if branch.finished:
            branch.close_step(self.settings.interval_tokens)
            branch.final_answer = self.reader.final_answer(branch)
        return piece

    def _take_what_came(self, question: Served, branch: Branch, heard: Completion) -> None:
        """Of a request that was called off; how many tokens a text has is not known before its end."""
        if self.wire.exact:
            most, prompt = self.settings.max_new_tokens, question.task.prompt
            came = self.wire.read(heard, most, prompt, branch.ids, self.stop)
            branch.take(came.ids, came.logprobs, self.settings.interval_tokens)

    def _flow(self, question: Served, branch: Branch, upto: int) -> Flow | None:
        """What brings the tokens of a branch: none where all that is left of it is asked for at once anyway.

        Nor where requests have seeds: a flow's draws would depend on where it was called off.
        """
        flow, most = question.flows.get(branch.number), self.settings.max_new_tokens
        if flow is not None and (flow.runs or flow.untaken):
            return flow
        question.flows.pop(branch.number, None)
        if upto == most or not self.wire.exact or self.settings.seed is not None:
            return None
        left = most - len(branch.ids)
        body = self.wire.body(question.task.prompt, branch.ids, left, self.stop, stream=True)
        flow = question.flows[branch.number] = Flow(self.pool, body, branch.order, question.homes.get(branch.number))
        return flow

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
            completion = await self._request(question, branch, ids, left, self.probe_stop, greedy=True)
            piece = self.wire.read(completion, left, question.task.prompt, ids, self.probe_stop)
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
    ) -> Completion:
        """Send one request of a branch to the endpoint that knows it."""
        prompt = question.task.prompt
        seed = None if greedy or self.settings.seed is None else _request_seed(branch.key, len(ids))
        body = self.wire.body(prompt, ids, max_tokens, stop, greedy=greedy, seed=seed)
        flow = question.flows.get(branch.number)
        completion, home = await self.pool.complete(
            body, branch.order, question.homes.get(branch.number), beside=flow is not None and flow.runs
        )
        question.homes[branch.number] = home
        if not self.wire.exact and self.wire.tokenizer is not None:
            self._count_uncounted(body["prompt"], completion)
        if not ids and not prompt.ids and completion.prompt_tokens is not None:
            question.prompt_tokens = completion.prompt_tokens
        return completion

    def _count_uncounted(self, sent: str, completion: Completion) -> None:
        """Keep the accounts of texts that the server has not counted."""
        if completion.prompt_tokens is None:
            self.pool.usage.sent_tokens += self.wire.count(sent)
        if completion.completion_tokens is None:
            self.pool.usage.completion_tokens += self.wire.count(completion.text)


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
