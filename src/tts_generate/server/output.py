"""What a call on servers returns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tts_generate.controller import describe
from tts_generate.engine.branch import Reader
from tts_generate.engine.question import FinishReason
from tts_generate.engine.winner import cut, shown_ids, truncated, votes, winner
from tts_generate.runner import Cost
from tts_generate.server.asked import Asked
from tts_generate.server.pool import ServerUsage
from tts_generate.server.wire import Wire
from tts_generate.trace import Trace
from tts_generate.trajectories import Trajectory


@dataclass(frozen=True, slots=True)
class ServerOutput:
    """Output of `ServerModel.generate`; lists have one entry a question, in the order asked."""

    texts: list[str]
    """Text of the winning branch, without the prompt; "" where no branch was opened."""
    answers: list[str | None]
    """The answer decided on; None where no branch stated one."""
    votes: list[dict[str, int]]
    """Votes of the finished branches that were not pruned, by answer, most first."""
    cost: list[Cost]
    """Tokens decoded, by kind; the prompt counts once. What was sent again and again is in `usage`."""
    trace: list[Trace]
    """What the controller did, round by round."""
    branches: list[list[Trajectory]]
    """Everything decoded, in opening order; write it to a store, or replay it."""
    winners: list[int]
    """The branch of `branches` whose text is in `texts`; -1 where no branch was opened."""
    finish_reason: list[FinishReason]
    """ "answer": the controller's; "deadline", "interrupted" (Ctrl-C) or "error": the majority so far."""
    truncated: list[bool]
    """Whether the text breaks off: the winner ran into `max_new_tokens` (its `finish_reason` in `branches` is
    "length"), or was left on its way without an answer."""
    seed: int
    """The seed that repeats this call, as far as the server honours seeds."""
    usage: ServerUsage
    """What the call took at the servers: requests, retries, tokens sent."""

    @property
    def total_cost(self) -> Cost:
        """Tokens of the whole call."""
        return sum(self.cost, Cost())


def collect(asked: Sequence[Asked], wire: Wire, reader: Reader, seed: int, usage: ServerUsage) -> ServerOutput:
    """Put questions, in the order they were asked, into one output."""
    winners = [-1 if each.episode is None else winner(each.episode, each.book, each.branches) for each in asked]
    return ServerOutput(
        texts=[
            "" if number < 0 else reader.text(shown_ids(each.branches[number]))
            for each, number in zip(asked, winners, strict=True)
        ],
        answers=[each.answer for each in asked],
        votes=[{} if each.episode is None else votes(each.episode, each.book) for each in asked],
        cost=[each.cost for each in asked],
        trace=[
            Trace.of(each.question_id, describe(each.controller), each.events, each.book.text, cut(each.branches))
            for each in asked
        ],
        branches=[
            [wire.trajectory(branch, each.question_id, seed, each.prompt_tokens) for branch in each.branches]
            for each in asked
        ],
        winners=winners,
        finish_reason=[each.finish_reason for each in asked],
        truncated=[truncated(each.branches, number) for each, number in zip(asked, winners, strict=True)],
        seed=seed,
        usage=usage,
    )
