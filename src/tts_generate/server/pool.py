"""Several endpoints as one: bounded requests in flight, earlier questions first, retries with back-off, accounts.

A branch stays with the endpoint that has its prefix in cache, as long as that endpoint answers. One that fails rests
for a while (longer each time, and at least as long as it asks for) and its branches go to the others meanwhile; one
that did not answer in `max_retries` + 1 rests in a row is given up, until it answers again (`late`). One that answers,
if with an error or with nonsense, is not: what ends then are the questions that it answers so.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import random
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import httpx2

from tts_generate.errors import ServerError
from tts_generate.server.failures import PassingError
from tts_generate.server.reply import Completion, Parts
from tts_generate.server.stream import CalledOffError, complete

logger = logging.getLogger(__name__)
_LONGEST_REST = 30.0
"""Seconds of one rest at most, unless the server asks for more (`Policy.longest_wait`)."""

Order = tuple[int, int]
"""Question and branch: of those that wait, the smallest goes first."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How requests are sent."""

    max_in_flight: int = 16
    """Requests in flight at most, at each endpoint."""
    max_retries: int = 5
    """Times that a failed request is sent again; being told to wait (429) does not count."""
    first_rest: float = 0.5
    """Seconds an endpoint rests after its first failure; doubled each time, a random half more or less."""
    look_again: float = 5.0
    """Seconds between two looks whether a server that is not asked has started, or come back."""
    longest_wait: float = 300.0
    """Seconds that it is left alone at most, whatever it asks for; one that said but 429 for so long is given up."""


@dataclass(slots=True)
class ServerUsage:
    """What a call took at the servers; unlike `Cost`, every token counts as often as it was sent."""

    dialect: str = ""
    """How the servers were spoken to, see `tts_generate.server.dialects`: only "tokens" is exact."""
    requests: int = 0
    """Requests sent, those sent again included; one may bring many steps of a branch."""
    retries: int = 0
    """Requests that failed and were sent again; what they decoded is in no count, but for what a branch had taken."""
    cancelled: int = 0
    """Requests called off on their way: the question ended without them. Of those that were streamed by token ids, what
    had come is in the question's cost and in `completion_tokens`; what others had decoded is in no count."""
    sent_tokens: int = 0
    """Tokens of the requests' prompts: a branch's prefix counts again each time that it is continued or probed."""
    cached_tokens: int | None = None
    """Those of them that a prefix cache held; None where no server says so (vLLM: --enable-prompt-tokens-details)."""
    completion_tokens: int = 0
    """Tokens decoded, of branches and probes."""
    discarded_tokens: int = 0
    """Those of them that nobody read: decoded while a controller decided against them, or behind a stop string."""
    most_in_flight: int = 0
    requests_by_url: dict[str, int] = field(default_factory=dict)


class Hearer(Protocol):
    """Who hears a request's answer while it comes, and may let it run on where nobody waits for its room."""

    order: Order

    def begin(self, endpoint: Endpoint, parts: Parts) -> None:
        """It is sent: to whom, and where its answer will be."""

    def heard(self) -> None:
        """More of the answer has come."""

    def stop(self) -> None:
        """Its room is wanted by somebody else."""

    @property
    def again(self) -> bool:
        """Whether it may be sent again as it is."""


class Slots:
    """Room for `limit` requests; who waits is served in order."""

    def __init__(self, limit: int) -> None:
        self.free = limit
        self.taken = 0
        self._waiting: list[tuple[Order, int, asyncio.Future[None]]] = []
        self._ticket = itertools.count()
        self._lent: list[Hearer] = []
        """Requests that run on without being asked to."""

    @property
    def load(self) -> int:
        """Requests in flight and waiting."""
        return self.taken + len(self._waiting)

    @asynccontextmanager
    async def held(self, order: Order, count: int = 1) -> AsyncIterator[None]:
        """Wait for room and keep it; for several at once, as much as there is of it, so that none waits for another."""
        if self.free == 0:
            later = [each for each in self._lent if each.order[0] >= order[0]]
            if later:
                max(later, key=lambda each: each.order).stop()
            turn = asyncio.get_running_loop().create_future()
            heapq.heappush(self._waiting, (order, next(self._ticket), turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self._pass_on()
                raise
        else:
            self.free -= 1
        more = min(count - 1, self.free)
        self.free -= more
        self.taken += 1 + more
        try:
            yield
        finally:
            self.taken -= 1 + more
            for _ in range(1 + more):
                self._pass_on()

    def lend(self, hearer: Hearer) -> None:
        """Let a request keep its room until one of its own question or of an earlier one wants it."""
        if self._waiting and self._waiting[0][0][0] <= hearer.order[0]:
            hearer.stop()
        elif hearer not in self._lent:
            self._lent.append(hearer)

    def take_back(self, hearer: Hearer) -> None:
        """It is asked for its tokens again, or is gone."""
        if hearer in self._lent:
            self._lent.remove(hearer)

    def _pass_on(self) -> None:
        """Give the room to the first of those that still wait."""
        while self._waiting:
            turn = heapq.heappop(self._waiting)[2]
            if not turn.done():
                turn.set_result(None)
                return
        self.free += 1


class Endpoint:
    """One server, and how it has been doing."""

    def __init__(self, url: str, max_in_flight: int) -> None:
        self.url = url
        self.slots = Slots(max_in_flight)
        self.failures = 0
        """Rests in a row for which it did not answer."""
        self.failing_since = 0.0
        self.awake_at = 0.0
        self.given_up: str | None = None
        """Why it is not asked any more."""

    @property
    def rest(self) -> float:
        """Seconds until it may be asked again."""
        return max(0.0, self.awake_at - time.monotonic())

    def failed(self, error: PassingError, policy: Policy) -> None:
        """Let it rest; a failure while it rests already is the same trouble."""
        now = time.monotonic()
        if now >= self.awake_at:
            self.failures = 0 if error.answered else self.failures + 1
            self.failing_since = now if self.failures < 2 else self.failing_since
            pause = min(_LONGEST_REST, policy.first_rest * 2.0 ** min(self.failures - 1, 60)) * random.uniform(0.5, 1.5)
            self.awake_at = now + pause
        self.awake_at = max(self.awake_at, now + min(error.retry_after, policy.longest_wait))
        waited = not error.limited or now - self.failing_since >= policy.longest_wait
        if self.failures > policy.max_retries and waited and self.given_up is None:
            self.given_up = str(error)
            logger.warning("%s is given up after %d failures in a row; the last: %s", self.url, self.failures, error)

    def answers(self) -> None:
        """It is there, or there again."""
        self.failures, self.awake_at, self.given_up = 0, 0.0, None


class Pool:
    """The endpoints of one call, over one HTTP client.

    Args:
        client: what speaks to them.
        urls: their addresses.
        policy: how requests are sent.
        dialect: how they are spoken to, for the accounts.
        known: endpoints of other pools by address, to share their room and their health with; new ones are added.
    """

    def __init__(
        self,
        client: httpx2.AsyncClient,
        urls: Sequence[str],
        policy: Policy,
        dialect: str = "",
        known: dict[str, Endpoint] | None = None,
    ) -> None:
        self.client, self.policy = client, policy
        self._known = {} if known is None else known
        self.endpoints: list[Endpoint] = []
        self.usage = ServerUsage(dialect)
        self._hint = ""
        for url in urls:
            self.take_up(url)

    def of_a_call(self) -> Pool:
        """The same endpoints, those taken up later too, with accounts of their own."""
        pool = Pool(self.client, (), self.policy, self.usage.dialect, self._known)
        pool.endpoints = self.endpoints
        return pool

    def asks(self, url: str) -> bool:
        """Whether a server is among those that are asked."""
        return any(endpoint.url == url and endpoint.given_up is None for endpoint in self.endpoints)

    def take_up(self, url: str) -> None:
        """Ask a server from now on."""
        endpoint = self._known.setdefault(url, Endpoint(url, self.policy.max_in_flight))
        endpoint.answers()
        if endpoint not in self.endpoints:
            self.endpoints.append(endpoint)

    @property
    def free(self) -> int:
        """Requests that one of them has room for."""
        return max((each.slots.free for each in self.endpoints if each.given_up is None and each.rest == 0), default=0)

    @property
    def capacity(self) -> int:
        """Requests in flight at most."""
        return self.policy.max_in_flight * len(self.endpoints)

    async def complete(
        self,
        body: Mapping[str, Any],
        order: Order = (0, 0),
        home: Endpoint | None = None,
        hearer: Hearer | None = None,
        *,
        beside: bool = False,
    ) -> tuple[Completion, Endpoint]:
        """Have a request answered, by `home` if it is well; returns the answer and who gave it.

        Args:
            body: the request.
            order: whose it is.
            home: who is to answer it.
            hearer: who hears the answer while it comes.
            beside: whether it goes beside one of the same branch that is under way, and takes no room of its own.

        Raises:
            ServerError: no endpoint is left, or this request failed too often.
            RefusedError: the server will not do it.
        """
        failures = 0
        endpoint = self._choose(home)
        while True:
            room: AbstractAsyncContextManager[None] = (
                nullcontext() if beside else endpoint.slots.held(order, body.get("n", 1))
            )
            async with room:
                chosen = self._choose(endpoint)
                if chosen is endpoint:
                    if endpoint.rest > 0:  # they all rest
                        await asyncio.sleep(endpoint.rest)
                    try:
                        return await self._ask(endpoint, body, hearer), endpoint
                    except PassingError as error:
                        endpoint.failed(error, self.policy)
                        failures += not error.limited
                        if hearer is not None and not hearer.again:
                            self.usage.retries += 1
                            raise
                        if failures > self.policy.max_retries:
                            hint = "" if error.answered else self._hint
                            raise ServerError(
                                f"{endpoint.url}: {failures} times in a row, the last: {error}.{hint}"
                            ) from error
                        self.usage.retries += 1
                    chosen = self._choose(endpoint)
            endpoint = chosen

    async def _ask(self, endpoint: Endpoint, body: Mapping[str, Any], hearer: Hearer | None) -> Completion:
        """Send one request and keep the accounts."""
        usage = self.usage
        usage.requests += 1
        if body.get("seed") is not None:
            self._hint = " vLLM on a CPU may die of a seed: leave seed= out."
        usage.requests_by_url[endpoint.url] = usage.requests_by_url.get(endpoint.url, 0) + 1
        usage.most_in_flight = max(usage.most_in_flight, sum(each.slots.taken for each in self.endpoints))
        try:
            if hearer is None:
                completion = await complete(self.client, endpoint.url, body)
            else:
                begin = partial(hearer.begin, endpoint)
                completion = await complete(self.client, endpoint.url, body, begin, hearer.heard)
        except CalledOffError as error:
            usage.cancelled += hearer is None
            heard = error.heard.each or (error.heard,)
            self.count_part(body, sum(len(each.token_ids or ()) for each in heard))
            raise
        endpoint.failures = 0
        sent, decoded, prompt = completion.prompt_tokens, completion.completion_tokens, body["prompt"]
        if sent is None and isinstance(prompt, list):  # it does not count them
            sent = len(prompt)
        if decoded is None:
            decoded = sum(len(each.token_ids or ()) for each in completion.each or (completion,))
        usage.sent_tokens += sent or 0
        if completion.cached_tokens is not None:
            usage.cached_tokens = (usage.cached_tokens or 0) + completion.cached_tokens
        usage.completion_tokens += decoded
        return completion

    def count_part(self, body: Mapping[str, Any], come: int) -> None:
        """Keep the accounts of a request that did not come to its end, as far as its tokens were told."""
        if come:
            self.usage.completion_tokens += come
            self.usage.sent_tokens += len(body["prompt"]) if isinstance(body["prompt"], list) else 0

    def _choose(self, home: Endpoint | None) -> Endpoint:
        """`home` while it is well, else the least busy of those that are; of resting ones, the first to wake."""
        there = [endpoint for endpoint in self.endpoints if endpoint.given_up is None]
        if not there:
            reasons = "; ".join(f"{endpoint.url}: {endpoint.given_up}" for endpoint in self.endpoints)
            raise ServerError(
                f"no server answers any more ({reasons}). Start it again, and run the same call again.{self._hint}"
            )
        awake = [endpoint for endpoint in there if endpoint.rest == 0]
        if home is not None and home in (awake or there):
            return home
        return min(awake or there, key=lambda endpoint: (endpoint.rest, endpoint.slots.load))
