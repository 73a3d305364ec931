"""What a call returns: the winning branch as token ids, or everything that was decoded and what it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from transformers.utils import ModelOutput

from tts_generate.controller import describe
from tts_generate.engine.question import Running
from tts_generate.engine.settings import Settings
from tts_generate.engine.winner import cut, shown_ids, truncated, votes, winner
from tts_generate.runner import Cost
from tts_generate.trace import Trace
from tts_generate.trajectories import Trajectory


@dataclass
class AutoTTSOutput(ModelOutput):
    """Output of `generate(strategy="autotts", return_dict_in_generate=True)`; lists have one entry a question."""

    sequences: torch.Tensor | None = None
    """(questions, length) prompt as it was given + the winning branch, padded on the right."""
    answers: list[str | None] | None = None
    """The answer decided on; None where no branch stated one."""
    votes: list[dict[str, int]] | None = None
    """Votes of the finished branches that were not pruned, by answer, most first."""
    cost: list[Cost] | None = None
    """Tokens decoded, by kind."""
    trace: list[Trace] | None = None
    """What the controller did, round by round."""
    branches: list[list[Trajectory]] | None = None
    """Everything decoded, in opening order; write it to a store, or replay it."""
    winners: list[int] | None = None
    """The branch of `branches` whose tokens are in `sequences`; -1 where none was opened in time."""
    finish_reason: list[str] | None = None
    """"answer" where the controller decided; "deadline", "interrupted" or "error" where it is the majority so far."""
    seed: int | None = None
    """The seed that repeats this call."""
    discarded_tokens: int | None = None
    """Tokens of the whole call decoded ahead of a decision that did not want them; in nobody's cost."""
    questions: list[int] | None = None
    """Which prompts of the call these are: all of them, or with `stream=True` the one that is answered."""
    truncated: list[bool] | None = None
    """Whether `sequences` breaks off: the winner ran into `max_new_tokens` (its `finish_reason` in `branches` is
    "length"), or was left on its way without an answer."""

    @property
    def total_cost(self) -> Cost:
        """Tokens of the whole call."""
        return sum(self.cost or [], Cost())


def collect(
    input_ids: torch.Tensor, done: Sequence[Running], settings: Settings, discarded_tokens: int
) -> AutoTTSOutput:
    """Put finished questions, in the order they were asked, into one output."""
    winners = [winner(running.episode, running.book, running.branches) for running in done]
    asked = input_ids[[running.index for running in done]]
    tails = [
        [] if shown < 0 else shown_ids(running.branches[shown]) for running, shown in zip(done, winners, strict=True)
    ]
    width = max(len(tail) for tail in tails)
    padded = torch.full((len(tails), width), settings.pad_token_id, dtype=input_ids.dtype)
    for row, tail in enumerate(tails):
        padded[row, : len(tail)] = torch.tensor(tail)
    return AutoTTSOutput(
        sequences=torch.cat([asked, padded.to(input_ids.device)], dim=1),
        answers=[running.book.text(running.episode.answer) for running in done],
        votes=[votes(running.episode, running.book) for running in done],
        cost=[running.cost for running in done],
        trace=[
            Trace.of(
                running.task.question_id,
                describe(running.task.controller),
                running.events,
                running.book.text,
                cut(running.branches),
            )
            for running in done
        ],
        branches=[trajectories(running, settings.seed) for running in done],
        winners=winners,
        finish_reason=[running.finish_reason for running in done],
        truncated=[truncated(running.branches, shown) for running, shown in zip(done, winners, strict=True)],
        seed=settings.seed,
        discarded_tokens=discarded_tokens,
        questions=[running.index for running in done],
    )


def trajectories(running: Running, seed: int) -> list[Trajectory]:
    """The branches of a question as rows of a trajectory store, in opening order."""
    task = running.task
    return [branch.trajectory(task.question_id, seed, len(task.prompt_ids)) for branch in running.branches]
