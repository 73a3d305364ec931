"""Servers that start, or come back, while a call is under way: taken up."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

import httpx2

from tts_generate.errors import InputError, ServerError
from tts_generate.server.connect import UNLIKE, Session, Speaker, find
from tts_generate.server.pool import Policy, Pool

logger = logging.getLogger(__name__)


async def take_up(
    client: httpx2.AsyncClient, urls: Sequence[str], pool: Pool, session: Session, policy: Policy, speaker: Speaker
) -> None:
    """Look again and again, until cancelled, whether servers that were left out or given up answer, and ask those too.

    One that turns out to be of another kind is let alone.
    """
    wanted = list(urls)
    while True:
        await asyncio.sleep(policy.look_again)
        for url in [url for url in wanted if not pool.asks(url)]:
            try:
                found = await find(client, url, policy, speaker, wait=0.0)
            except (ServerError, InputError):
                continue
            if session.is_like(found):
                pool.take_up(url)
                logger.warning("%s answers now, and is asked from here on", url)
            else:
                wanted.remove(url)
                logger.warning(UNLIKE, url)
