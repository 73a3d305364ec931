"""A question on its way through the servers: its episode, and where its branches are at home."""

from __future__ import annotations

import asyncio

from tts_generate.live.branch import Branch
from tts_generate.live.episode import LiveEpisode
from tts_generate.live.reader import Reader
from tts_generate.live.settings import EpisodeSettings
from tts_generate.live.task import Task
from tts_generate.server.dialects import Wire
from tts_generate.server.flow import Flow
from tts_generate.server.pool import Endpoint
from tts_generate.trajectories import Trajectory


class Served(LiveEpisode[Branch]):
    """An episode whose branches are decoded by servers, spoken to through `wire`."""

    def __init__(self, index: int, task: Task, settings: EpisodeSettings, reader: Reader, wire: Wire) -> None:
        super().__init__(index, task, settings, reader, logprobs=wire.logprobs)
        self.wire = wire
        self.homes: dict[int, Endpoint] = {}
        """Who has a branch in its prefix cache, by the branch's number."""
        self.flows: dict[int, Flow] = {}
        """Requests that bring a branch's tokens as they are asked for, by the branch's number."""
        self.error: Exception | None = None

    def new_branch(self, number: int, key: int, order: tuple[int, int]) -> Branch:
        """A branch that no server has heard of."""
        return Branch(number, key, self.task.prompt.ids, order, self.thought)

    async def close_flows(self, *, unwanted: bool = False) -> int:
        """Call off the flows, or those of branches that are pruned or at their end; how many tokens nobody took."""
        state = self.episode.state
        gone = [
            branch.number
            for place, branch in enumerate(self.branches)
            if branch.number in self.flows and (not unwanted or branch.finished or state.pruned[place])
        ]
        return sum(await asyncio.gather(*[self.flows.pop(number).close() for number in gone]))

    def row(self, branch: Branch) -> Trajectory:
        """A branch as a row of a trajectory store, as far as the server's dialect tells."""
        return self.wire.trajectory(branch, self.task.question_id, self.settings.seed, self.prompt_tokens)
