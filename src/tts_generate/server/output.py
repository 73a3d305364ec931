"""What a call on servers returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tts_generate.live.output import LiveOutput, collected
from tts_generate.live.winner import shown_ids
from tts_generate.server.pool import ServerUsage
from tts_generate.server.question import Served
from tts_generate.server.requests import ServerLoop


@dataclass(kw_only=True)
class ServerOutput(LiveOutput):
    """Output of `ServerModel.generate`; lists have one entry a question, in the order asked."""

    texts: list[str]
    """Text of the winning branch, without the prompt; "" where no branch was opened."""
    usage: ServerUsage
    """What the call took at the servers: requests, retries, tokens sent."""


def collect(done: Sequence[Served], loop: ServerLoop) -> ServerOutput:
    """Put questions, in the order they were asked, into one output."""
    text = loop.reader.text
    return ServerOutput(
        **collected(done, loop.settings.seed),
        texts=["" if each.winner < 0 else text(shown_ids(each.branches[each.winner])) for each in done],
        usage=loop.pool.usage,
    )
