"""An episode that is cut short counts by one rule, whoever decodes its branches."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Sequence
from typing import Any

import pytest
from server_checks import of_a_server, of_the_engine

from tts_generate import BranchProcessor, Controller
from tts_generate.answers import AnswerFormat
from tts_generate.live.branch import Branch, ProbeRecord
from tts_generate.live.episode import LiveEpisode
from tts_generate.live.output import collected
from tts_generate.live.reader import Reader
from tts_generate.live.settings import EpisodeSettings
from tts_generate.live.task import Prompt, Task
from tts_generate.report.lanes import spent
from tts_generate.server.dialects import Pieces
from tts_generate.state import Decision, State
from tts_generate.trace import Trace
from tts_generate.votes import NO_ANSWER


class Steps(Controller):
    """Opens four branches and advances all of them, for ever."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {}

    def begin(self, state: State, do: Decision) -> None:
        do.open = 4

    def plan(self, state: State, do: Decision) -> None:
        do.steps[:] = 1


class Told(LiveEpisode[Branch]):
    """An episode whose branches are told what they decode."""

    def new_branch(self, number: int, key: int, order: tuple[int, int]) -> Branch:
        return Branch(number, key, self.task.prompt.ids, order, self.thought)

    def decode(self, number: int, count: int, end: str | None = None, probed: str | None = None) -> None:
        branch = self.branch(self.wave[number])
        branch.take([5] * count, [-0.5] * count, self.settings.interval_tokens)
        if end is not None:
            branch.finish_reason, branch.final_answer = "eos", end
        if probed is not None:
            branch.heard.append(ProbeRecord(len(branch.ids), probed, 2, -0.1, (6, 5)))


@pytest.fixture
def told() -> Told:
    """After a whole first wave: four branches of four tokens, each probed to "7"."""
    reader = Reader(Pieces({AnswerFormat().probe_suffix: 3}), AnswerFormat())
    settings = EpisodeSettings(seed=0, interval_tokens=4, max_new_tokens=16)
    episode = Told(0, Task("q", Prompt((1, 2), "a"), Steps.from_beta(0.5)), settings, reader)
    for unit in episode.start():
        episode.decode(unit.branch, 4, probed="7")
        episode.count(unit)
    assert [unit.branch for unit in episode.resume()] == [0, 1, 2, 3]
    return episode


def test_what_has_come_counts_in_the_order_of_its_wave(told: Told) -> None:
    told.decode(3, 4, end="9")
    told.count(told.wave[3])  # the last of the wave comes first
    told.decode(1, 4, end="8")
    told.decode(0, 2)
    assert [unit.branch for unit in told.in_flight] == [0, 1, 2]
    told.end("deadline")
    state = told.episode.state
    assert state.tokens[:4].tolist() == [6, 8, 4, 8]
    assert [told.book.text(answer) for answer in state.pool[: state.pooled].tolist()] == ["8", "9"]
    assert (told.answer, told.winner, told.finish_reason) == ("8", 1, "deadline")
    noted = spent(Trace.from_dict(told.trace.to_dict()))  # its trace was refused where more had voted than were read
    assert (noted["generated_tokens"], noted["probe_tokens"]) == (26, 8)
    assert told.cost.generated_tokens == sum(len(branch.ids) for branch in told.branches) == 26
    assert told.cost.probe_tokens == sum(probe.tokens for branch in told.branches for probe in branch.probes) == 8
    assert told.cost.prompt_tokens == 2


@pytest.mark.parametrize("order", itertools.permutations(range(3)))
def test_answers_that_vote_as_one_are_named_in_the_order_of_their_wave(order: Sequence[int]) -> None:
    """Whatever comes first, which rows and neighbours decide: names are part of the answer, and 50% is 50, or 0.5."""
    reader = Reader(Pieces({AnswerFormat().probe_suffix: 3}), AnswerFormat(votes="math"))
    settings = EpisodeSettings(seed=0, interval_tokens=4, max_new_tokens=16)
    episode = Told(0, Task("q", Prompt((1, 2), "a"), Steps.from_beta(0.5)), settings, reader)
    episode.start()
    for number in order:
        episode.decode(number, 3, end=("0.5", r"50\%", "50")[number])
        episode.count(episode.wave[number])
    episode.end("deadline")
    assert collected([episode], 0)["votes"] == [{"0.5": 2, "50": 1}]


def test_a_unit_of_no_token_says_nothing(told: Told) -> None:
    """Its branch keeps what it showed before."""
    before = told.episode.state.answers[:4, 0].tolist()
    told.end("interrupted")
    state = told.episode.state
    assert state.answers[:4, 0].tolist() == before == [0] * 4
    assert state.answers[:4, 1].tolist() == [NO_ANSWER] * 4
    assert state.depth[:4].tolist() == [1] * 4
    assert told.trace.events[-1]["verb"] == "answer"
    assert len(told.trace.events) == 2


def test_a_probe_that_had_come_counts_and_shows_its_answer(told: Told) -> None:
    told.decode(2, 4, probed="8")
    told.end("error")
    assert told.episode.state.answer[:4].tolist() == [0, 0, told.book.id("8"), 0]
    assert told.cost.probe_tokens == 10


def test_one_that_never_began_cost_nothing() -> None:
    reader = Reader(Pieces({AnswerFormat().probe_suffix: 3}), AnswerFormat())
    settings = EpisodeSettings(seed=0, interval_tokens=4, max_new_tokens=16)
    episode = Told(0, Task("q", Prompt((1, 2), "a"), Steps.from_beta(0.5)), settings, reader)
    episode.end("interrupted")
    assert (episode.cost.total_tokens, episode.answer, episode.winner, episode.rows) == (0, None, -1, [])


class Rings(BranchProcessor):
    """Expires at the given round of its first question; the second one is over before it begins."""

    def __init__(self, question_id: str = "") -> None:
        self.question_id = question_id
        self.over = question_id == "1"

    def begin(self, question_id: str) -> BranchProcessor:
        return Rings(question_id)

    def __call__(self, state: State, do: Decision) -> None:
        self.over |= state.round >= 1

    def expired(self) -> bool:
        return self.over


@pytest.mark.parametrize("run", [of_the_engine, of_a_server])
@pytest.mark.parametrize("controller", ["cmc", "asc"])
def test_engine_and_servers_keep_to_it(tiny: tuple[Any, Any], run: Any, controller: str) -> None:
    output = run(tiny, controller=controller, beta=0.0, seed=1, branch_processors=[Rings()])
    assert output.finish_reason == ["deadline", "deadline"]
    for cost, branches, votes in zip(output.cost, output.branches, output.votes, strict=True):
        assert cost.generated_tokens == sum(branch.tokens for branch in branches)
        assert cost.probe_tokens == sum(sum(branch.probe_tokens) for branch in branches)
        assert votes == Counter(branch.final_answer for branch in branches if branch.final_answer is not None)
    assert output.cost[0].generated_tokens > 0
    for cost, trace in zip(output.cost, output.trace, strict=True):
        told = spent(Trace.from_dict(trace.to_dict()))
        assert (told["generated_tokens"], told["probe_tokens"]) == (cost.generated_tokens, cost.probe_tokens)
        assert told["wasted_tokens"] == cost.wasted_tokens
    assert (output.cost[1].total_tokens, output.winners[1], output.branches[1]) == (0, -1, [])
    assert [trace.events[-1]["verb"] for trace in output.trace] == ["answer", "answer"]
    assert len(output.trace[1].events) == 1
