"""What a call returns of its questions, wherever their branches were decoded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from tts_generate.live.episode import FinishReason, LiveEpisode
from tts_generate.live.winner import truncated, votes
from tts_generate.runner import Cost
from tts_generate.trace import Trace
from tts_generate.trajectories import Trajectory

_GIVEN: Any = None
"""The default that `ModelOutput` asks of every field; all are given."""


@dataclass
class LiveOutput:
    """What came of the questions of a call; lists have one entry a question, in the order asked."""

    answers: list[str | None] = _GIVEN
    """The answer decided on; None where no branch stated one."""
    votes: list[dict[str, int]] = _GIVEN
    """Votes of the finished branches that were not pruned, by answer, most first."""
    cost: list[Cost] = _GIVEN
    """Tokens decoded, by kind; the prompt counts once."""
    trace: list[Trace] = _GIVEN
    """What the controller did, round by round."""
    branches: list[list[Trajectory]] = _GIVEN
    """Everything decoded, in opening order; write it to a store, or replay it."""
    winners: list[int] = _GIVEN
    """The branch of `branches` that speaks for the question; -1 where none was opened in time."""
    finish_reason: list[FinishReason] = _GIVEN
    """"answer" where the controller decided; "deadline", "interrupted" (Ctrl-C) or "error" where it is the majority so
    far."""
    truncated: list[bool] = _GIVEN
    """Whether what is shown breaks off: the winner ran into `max_new_tokens` (its `finish_reason` in `branches` is
    "length"), or was left on its way without an answer."""
    answer_pattern: str = _GIVEN
    """How answers were looked for, see `AnswerFormat`."""
    seed: int | None = _GIVEN
    """The seed that repeats this call; at servers, as far as they honour seeds, and None where they were sent none."""

    @property
    def total_cost(self) -> Cost:
        """Tokens of the whole call."""
        return sum(self.cost, Cost())

    def whole(self) -> Self:
        """This output, no question of which Ctrl-C cut short: for whoever counts answers as a controller's.

        Raises:
            KeyboardInterrupt: it did, or SIGTERM did in a command; what was decided so far is no measurement.

        >>> LiveOutput(finish_reason=["answer", "deadline"]).whole().finish_reason
        ['answer', 'deadline']
        """
        if "interrupted" in self.finish_reason:
            raise KeyboardInterrupt
        return self


def collected(done: Sequence[LiveEpisode[Any]], seed: int | None) -> dict[str, Any]:
    """The fields of `LiveOutput`, of questions in the order they were asked."""
    return {
        "answers": [each.answer for each in done],
        "votes": [votes(each.episode, each.book) for each in done],
        "cost": [each.cost for each in done],
        "trace": [each.trace for each in done],
        "branches": [each.rows for each in done],
        "winners": [each.winner for each in done],
        "finish_reason": [each.finish_reason for each in done],
        "truncated": [truncated(each.branches, each.winner) for each in done],
        "answer_pattern": done[0].format.pattern_name,
        "seed": seed,
    }
