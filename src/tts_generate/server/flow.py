"""The rest of a branch as one request, heard while it is decoded: no new one where the branch simply goes on.

A controller asks for a step at a time. Asked of a server so, each step sends the branch again; here the server decodes
on while the controller decides, and is called off where the branch is pruned or its question answered. What had come
by then, and nobody took, is `ServerUsage.discarded_tokens`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from tts_generate.errors import ServerError
from tts_generate.server.failures import PassingError
from tts_generate.server.pool import Endpoint, Order, Pool
from tts_generate.server.reply import Completion, Parts
from tts_generate.server.stream import CalledOffError

_AHEAD = 64
"""Tokens at most that are decoded beyond what was asked for: what a probe and a decision take, and not much more."""


class Flow:
    """A request under way for one branch, of which tokens are taken as they are asked for."""

    def __init__(self, pool: Pool, body: Mapping[str, Any], order: Order, home: Endpoint | None) -> None:
        self.order = order
        self.home = home
        self._parts = Parts(0, 0)
        self._taken = self._wanted = 0
        self._news = asyncio.Event()
        self._task = asyncio.ensure_future(self._run(pool, body))
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())  # told by `take`, if at all

    async def _run(self, pool: Pool, body: Mapping[str, Any]) -> None:
        try:
            await pool.complete(body, self.order, self.home, self)
        except CalledOffError:  # by `stop`
            pass
        except (ServerError, asyncio.CancelledError):
            pool.count_part(body, self._come)  # which can still be taken
            raise
        finally:
            self._keep()
            self._news.set()

    # ---- what the pool tells

    def begin(self, endpoint: Endpoint, parts: Parts) -> None:
        """It is sent: to whom, and where its answer will be."""
        self.home, self._parts = endpoint, parts

    @property
    def again(self) -> bool:
        """Whether it may be sent again as it is: none of its tokens has been taken."""
        return self._taken == 0

    def heard(self) -> None:
        """More of the answer has come."""
        ahead = self._come - self._wanted
        if ahead < 0 or not self.runs:
            return
        self._news.set()
        if ahead >= _AHEAD:
            self.stop()
        elif self.home is not None:
            self.home.slots.lend(self)

    # ---- what the branch asks

    @property
    def runs(self) -> bool:
        """Whether the server is at it."""
        return not self._task.done()

    @property
    def broken(self) -> bool:
        """Whether it ended before the branch or its limit did: it failed, or was called off."""
        return not self.runs and self._parts.finish_reason is None

    @property
    def untaken(self) -> int:
        """Tokens that have come and that nobody has taken."""
        return self._come - self._taken

    @property
    def _come(self) -> int:
        return len(self._parts.ids or ())

    async def take(self, count: int) -> Completion:
        """The next `count` tokens, or fewer if the request ends before.

        Raises:
            ServerError: it failed, and there are none.
            CalledOffError: the task that waits for them was cancelled; with those that are there.
        """
        self._wanted = self._taken + count
        self._keep()
        try:
            while self.runs and self._come < self._wanted:
                self._news.clear()
                await self._news.wait()
        except asyncio.CancelledError:
            raise CalledOffError(self._piece(count)) from None
        failed = self._task.exception() if self._task.done() and not self._task.cancelled() else None
        if failed is not None and self.untaken == 0 and not (self._taken and isinstance(failed, PassingError)):
            raise failed
        self.heard()
        return self._piece(count)

    def _piece(self, count: int) -> Completion:
        parts, start = self._parts, self._taken
        self._taken = min(start + count, self._come)
        ids, logprobs = tuple((parts.ids or ())[start : self._taken]), tuple(parts.logprobs[start : self._taken])
        ended = parts.finish_reason is not None and self.untaken == 0
        reason, why = (parts.finish_reason or "length", parts.stop_reason) if ended else ("length", None)
        return Completion("", reason, why, ids, logprobs, None, None, None)

    def stop(self) -> None:
        """Call it off; what has come can still be taken."""
        self._keep()
        self._task.cancel()

    def _keep(self) -> None:
        if self.home is not None:
            self.home.slots.take_back(self)

    async def close(self) -> int:
        """Call it off and wait until it is gone; how many tokens nobody took."""
        self.stop()
        await asyncio.gather(self._task, return_exceptions=True)
        return self.untaken
