"""Answers what clients ask: one kept connection to the servers, one controller that the operator chose."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tts_generate.arguments import whole
from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError, ServerError
from tts_generate.live.rows import suited
from tts_generate.live.settings import MAX_BRANCHES, interval_for
from tts_generate.live.task import Prompt, Task
from tts_generate.loading import held_within, load_controller, set_by_hand
from tts_generate.secret import Secret
from tts_generate.serve.request import ClientRequest
from tts_generate.server import ServerModel
from tts_generate.server.connection import Connection
from tts_generate.server.options import Call
from tts_generate.server.question import Served
from tts_generate.server.requests import ServerLoop


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """What an operator offers to clients, in tokens where nothing else is said."""

    model: ServerModel
    controller: Controller
    options: Mapping[str, Any] = field(default_factory=dict)
    """How the model is asked and sampled, see `ServerOptions`; a client's sampling goes before it."""
    interval_tokens: int | None = None
    """Tokens of one step; an eighth of a client's `max_tokens` where these are fewer."""
    max_new_tokens: int | None = None
    """Of a branch where a client does not say; None for what the servers' context holds."""
    max_branches: int = MAX_BRANCHES
    """Of a question; a client may ask for fewer."""

    def __post_init__(self) -> None:
        whole("max_branches", self.max_branches)


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """What may come in."""

    key: Secret | None = None
    """What clients must send as a bearer token; None lets everybody in."""
    max_body: int = 4 << 20
    """Bytes of a request."""
    body_seconds: float = 60.0
    """Seconds in which a body must have come."""
    max_requests: int = 256
    """Requests in flight."""


@dataclass(slots=True)
class Reply:
    """A request on its way: what it asks, and what answers it."""

    id: str
    asked: ClientRequest
    tasks: Sequence[Task]
    loop: ServerLoop
    on_wave: Callable[[Served], None]
    began: float
    created: int
    """Seconds since 1970."""
    questions: Sequence[Served] = ()


class Responder:
    """Takes what clients ask, and has it answered.

    Args:
        settings: what clients are offered.
        connection: the servers, kept from one request to the next.
    """

    def __init__(self, settings: ProxySettings, connection: Connection) -> None:
        self.settings, self.connection = settings, connection
        self.in_flight = 0
        """Requests."""

    async def look(self) -> str | None:
        """Whether the servers can do what is offered; the name of the model there.

        Raises:
            ServerError: none answers.
            InputError: they cannot.
        """
        asked = ClientRequest((Prompt((1,), "1"),), chat=False, max_tokens=self.settings.max_new_tokens or 1)
        return (await self.take(asked)).loop.wire.model

    async def take(self, asked: ClientRequest, on_wave: Callable[[Served], None] = lambda question: None) -> Reply:
        """A request, checked before anything is sent for it.

        Raises:
            InputError: what the controller or the servers cannot do.
            ServerError: no server answers.
        """
        name, began = uuid.uuid4().hex, time.perf_counter()
        controller = self._controller(asked)
        many = len(asked.prompts)
        tasks = [Task(name if many == 1 else f"{name}-{n}", each, controller) for n, each in enumerate(asked.prompts)]
        loop = await self._loop(asked, tasks, on_wave)
        return Reply(name, asked, tasks, loop, on_wave, began, int(time.time()))

    async def answer(self, reply: Reply) -> Reply:
        """Have a request answered, by servers that have become others too; called off, it ends with what it has.

        Raises:
            ServerError: nothing was decoded for it.
            InputError: what the servers cannot do, now that they are others; or an error of what the client set.
        """
        error = await self._asked(reply)
        if isinstance(error, ServerError) and await self._changed(reply):
            error = await self._asked(reply)
        for question in reply.questions:
            if question.error is not None:
                question.complain(question.error)
        if isinstance(error, ControllerError) and reply.asked.own:
            raise InputError(f"tts_generate: {error}") from error
        if error is not None:
            raise error
        return reply

    async def _asked(self, reply: Reply) -> Exception | None:
        """Ask the servers; the first error, if nothing was decoded."""
        try:
            reply.questions = await reply.loop.run(reply.tasks, lambda question: None)
        except (ArithmeticError, MemoryError, TypeError, ValueError) as error:  # of a controller that cannot begin
            if not reply.asked.own:
                raise
            raise InputError(f"tts_generate: {type(error).__name__}: {error}") from error
        errors = [each.error for each in reply.questions if each.error is not None]
        if any(isinstance(error, ServerError) for error in errors):
            self.connection.forget(reply.loop.session)
        decoded = any(branch.ids for each in reply.questions for branch in each.branches)
        return None if decoded else next(iter(errors), None)

    async def _changed(self, reply: Reply) -> bool:
        """Whether the servers, found out anew, are not what they were when `reply` was taken; it is then for them.

        Raises:
            ServerError: none answers.
            InputError: they cannot do what is asked.
        """
        before = reply.loop
        reply.loop = await self._loop(reply.asked, reply.tasks, reply.on_wave)
        vain, usage = before.pool.usage, reply.loop.pool.usage
        spent = replace(vain, dialect=usage.dialect, discarded_tokens=vain.completion_tokens)
        reply.loop.pool.usage = spent
        return reply.loop.session != before.session

    def _controller(self, asked: ClientRequest) -> Controller:
        """The operator's controller, as the client sets it and as the servers' rows suit it."""
        own, model = asked.own, self.settings.model
        how = {name: own[name] for name in ("beta", "latency") if name in own}
        controller = load_controller(self.settings.controller, **how, **set_by_hand(own.get("controller_kwargs")))
        rows, questions = model.policy.max_in_flight * len(model.urls), max(1, self.in_flight) - 1 + len(asked.prompts)
        return held_within(suited(controller, rows, questions), self._branches(asked))

    def _branches(self, asked: ClientRequest) -> int:
        """Branches of a question at most."""
        most = self.settings.max_branches
        branches = whole("max_branches", asked.own.get("max_branches", most))
        if branches > most:
            raise InputError(f"max_branches must be at most {most} here, got {branches}.")
        return branches

    async def _loop(self, asked: ClientRequest, tasks: Sequence[Task], on_wave: Callable[[Served], None]) -> ServerLoop:
        settings = self.settings
        most = settings.max_new_tokens if asked.max_tokens is None else asked.max_tokens
        step = settings.interval_tokens
        if most is not None and step is not None and step > most:
            step = interval_for(most)
        call = Call(
            seed=asked.seed,
            interval_tokens=step,
            max_new_tokens=most,
            max_branches=self._branches(asked),
            stop_strings=list(asked.stop),
            options={**settings.options, **asked.sampling},  # type: ignore[typeddict-item]
        )
        return await self.connection.loop(tasks, call, on_wave=on_wave, on_error=lambda question, error: None)
