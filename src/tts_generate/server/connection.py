"""What is known of the servers of a `ServerModel`, kept from one call to the next, and the loops that run its calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import httpx2

from tts_generate.answers import AnswerFormat, AnswerOptions
from tts_generate.arguments import part, whole
from tts_generate.live.reader import Reader
from tts_generate.live.settings import INTERVAL_TOKENS, stop_texts
from tts_generate.live.task import Task
from tts_generate.live.thinking import asked_of
from tts_generate.server.connect import Session, Speaker, connect
from tts_generate.server.dialects import OPENAI
from tts_generate.server.late import take_up
from tts_generate.server.options import Call, check_controllers, check_sampling, fitting
from tts_generate.server.pool import Endpoint, Pool
from tts_generate.server.requests import ServerLoop

if TYPE_CHECKING:
    from tts_generate.server.model import ServerModel

_Asking = tuple[frozenset[str], bool, AnswerFormat]
"""What the servers are found out for: options beyond OpenAI's, whether log-probabilities are read, and the probes."""


class _Known(NamedTuple):
    session: Session
    pool: Pool
    looks: asyncio.Future[None]
    """Looks for servers that start, or come back."""


class Connection:
    """The servers of a model while a client is open; calls share their room, their health and what was found out.

    Args:
        model: the servers, and how they are asked.
        http: the open client.
    """

    def __init__(self, model: ServerModel, http: httpx2.AsyncClient) -> None:
        self._model, self._http = model, http
        self._known: dict[_Asking, _Known] = {}
        self._before: dict[_Asking, Session] = {}
        self._endpoints: dict[str, Endpoint] = {}
        self._finding = asyncio.Lock()
        self._wait = model.wait
        self._asked = 0

    async def loop(self, tasks: Sequence[Task], call: Call, **hooks: Callable[..., None]) -> ServerLoop:
        """What runs tasks as it is asked to, checked before anything is sent, and against what the servers say.

        Args:
            tasks: questions to answer.
            call: how.
            **hooks: `on_branch`, `on_wave` and `on_error` of `ServerLoop`.
        """
        usual, most = call.interval_tokens or INTERVAL_TOKENS, call.max_new_tokens
        seed = call.settings(usual if most is None else whole("max_new_tokens", most)).seed
        asked = asked_of(self._model.tokenizer, **part(call.options, AnswerOptions))
        stop, sampling = stop_texts(call.stop_strings), check_sampling(call.options)
        told = call.probe_every_step or any(task.reads_logprobs for task in tasks)  # a recording is for any of them
        speaker = Speaker(self._model.model, self._model.tokenizer, sampling, self._model.extra_body, seed, told)
        session, pool, _ = await self._find(speaker, asked)
        wire = session.wire(speaker)
        reader = Reader(wire.codec, asked)
        settings = fitting(call, session, tasks, reader.max_tokens)
        check_controllers(wire, tasks)
        first, self._asked = self._asked, self._asked + len(tasks)
        how: dict[str, Any] = {**hooks, "first": first, "session": session}
        return ServerLoop(pool.of_a_call(), wire, reader, settings, stop, **how)

    async def _find(self, speaker: Speaker, asked: AnswerFormat) -> _Known:
        """What is known of the servers for such calls; found out by the first of them, for which the others wait."""
        asking = (frozenset(speaker.sampling) - set(OPENAI), speaker.logprobs, asked)
        async with self._finding:
            if asking not in self._known:
                model, http = self._model, self._http
                before = self._before.get(asking)
                session = await connect(http, model.urls, model.policy, speaker, asked, self._wait, before)
                self._wait, self._before[asking] = 0.0, session  # they have started
                pool = Pool(http, session.urls, model.policy, session.dialect, self._endpoints)
                looks = take_up(http, model.urls, pool, session, model.policy, speaker)
                self._known[asking] = _Known(session, pool, asyncio.ensure_future(looks))
            return self._known[asking]

    @property
    def answering(self) -> int:
        """Servers that answered when they were last asked."""
        return sum(endpoint.given_up is None and not endpoint.failures for endpoint in self._endpoints.values())

    def forget(self, session: Session | None = None) -> list[asyncio.Future[None]]:
        """Find out anew with the next call, unless that was done since `session`; what runs goes on."""
        if session is not None and all(known.session is not session for known in self._known.values()):
            return []
        looks = [known.looks for known in self._known.values()]
        self._known.clear()
        for each in looks:
            each.cancel()
        return looks

    async def close(self) -> None:
        """Look for no more servers."""
        await asyncio.gather(*self.forget(), return_exceptions=True)
