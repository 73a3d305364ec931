"""The runner over random recordings and random controllers: conservation, order, and what it refuses."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError, StoreError, UnknownNameError
from tts_generate.loading import builtin_controllers, held_within, load_controller
from tts_generate.processors import BranchProcessor, BranchProcessorList, MaxBranches, TokenBudget
from tts_generate.replay import Recording, replay
from tts_generate.runner import Episode, Unit
from tts_generate.state import TO_END, Decision, State
from tts_generate.trace import Event
from tts_generate.trajectories import Question, Trajectory

INTERVAL = 10


def trajectory(branch: int, tokens: int, answers: list[str | None], final: str | None, probe: int = 3) -> Trajectory:
    count = max(0, -(-tokens // INTERVAL) - 1)
    return Trajectory(
        question_id="q",
        branch=branch,
        seed=0,
        prompt_tokens=5,
        tokens=tokens,
        finish_reason="eos",
        final_answer=final,
        probe_positions=tuple(INTERVAL * (k + 1) for k in range(count)),
        probe_answers=tuple(answers[k % len(answers)] for k in range(count)),
        probe_tokens=(probe,) * count,
        probe_logprobs=(None,) * count,
        step_logprobs=(),
    )


answer = st.one_of(st.none(), st.sampled_from(["1", "2", "3"]))
recordings = st.lists(
    st.tuples(st.integers(1, 75), st.lists(answer, min_size=1, max_size=7), answer), min_size=3, max_size=12
).map(
    lambda rows: Recording.of(
        [Question("q", "", "1")], [trajectory(i, *row) for i, row in enumerate(rows)], INTERVAL, source="recorded"
    )
)


class Scripted(Controller):
    """Takes every decision from a random stream, whatever the state."""

    probing = "on_demand"
    seed: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"seed": round(100 * beta)}

    def memory(self, max_branches: int) -> None:
        self.random = random.Random(self.seed)

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.random.randint(1, state.max_branches)
        do.open_steps = self.random.choice([1, 2, TO_END])
        do.probe[:] = self.random.random() < 0.5

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            do.steps[i] = self.random.choice([0, 1, 1, 2, 5, TO_END])
            do.prune[i] = self.random.random() < 0.1
            do.probe[i] = self.random.random() < 0.5
        do.steps[self.random.randrange(state.opened)] = 1
        live = [i for i in range(state.opened) if not (state.finished[i] or state.pruned[i])]
        if live and not do.steps[live].any():
            do.steps[live] = 1
        do.stop = self.random.random() < 0.03

    def review(self, state: State, do: Decision) -> None:
        if self.random.random() < 0.3:
            do.open = self.random.randint(0, state.max_branches - state.opened)


def story(events: list[Event]) -> dict[int, dict[str, Any]]:
    """What a trace says of each branch: the independent slow count."""
    told: dict[int, dict[str, Any]] = {}
    for event in events:
        for i in event.pruned:
            assert not told[i]["over"], "a branch that was over was pruned"
            told[i] |= {"over": True, "pruned": True}
        for reading in event.readings:
            branch = told.setdefault(reading.branch, {"over": False, "pruned": False, "tokens": 0, "depth": 0})
            assert not branch["over"], "a branch moved after its end"
            assert reading.depth > branch["depth"] or reading.depth == 0
            branch |= {"tokens": reading.tokens, "depth": reading.depth, "over": reading.finished}
    return told


@settings(max_examples=150, deadline=None)
@given(recording=recordings, seed=st.integers(0, 10_000))
def test_an_episode_keeps_its_books(recording: Recording, seed: int) -> None:
    events: list[Event] = []
    episode = recording.episode(Scripted(seed=seed), 0, events=events)
    state, told = episode.state, story(events)
    assert sorted(told) == list(range(state.opened))
    cost = episode.cost(5)
    assert cost.generated_tokens == sum(branch["tokens"] for branch in told.values()) == state.tokens.sum()
    assert cost.wasted_tokens == sum(branch["tokens"] for branch in told.values() if branch["pruned"])
    assert cost.total_tokens == 5 + cost.generated_tokens + cost.probe_tokens
    recorded = recording.table.branches["tokens"]
    for i, branch in told.items():
        assert branch["tokens"] == min(recorded[i], branch["depth"] * INTERVAL)
        assert state.finished[i] == (branch["tokens"] == recorded[i])
    assert state.live == state.opened - state.finished.sum() - state.pruned.sum()
    finished = [r for event in events for r in event.readings if r.finished]
    assert state.pool[: state.pooled].tolist() == [r.answer for r in finished if r.answer >= 0]
    assert [int(state.finish_rank[r.branch]) for r in finished] == list(range(len(finished)))
    for event in events:
        before = [told_depth(events, event, r.branch) for r in event.readings]
        if event.verb == "continue":
            assert before == sorted(before, reverse=True), "the deepest branch comes first"


def told_depth(events: list[Event], until: Event, branch: int) -> int:
    depth = 0
    for event in events:
        if event is until:
            return depth
        for reading in event.readings:
            if reading.branch == branch:
                depth = reading.depth
    return depth


class StepByStep(Controller):
    """Reads one branch, a step at a time, and probes at each."""

    @staticmethod
    def schedule(beta: float) -> dict[str, Any]:
        return {}

    def begin(self, state: State, do: Decision) -> None:
        do.open = 1

    def plan(self, state: State, do: Decision) -> None:
        do.steps[0] = 1


def test_every_probe_is_paid_for() -> None:
    row = Trajectory("q", 0, 0, 0, 12, "eos", "7", (4, 8), ("1", "2"), (3, 5), (None, None), ())
    recording = Recording.of([Question("q", "", "7")], [row], 4)
    cost = recording.episode(StepByStep.from_beta(), 0).cost(0)
    assert (cost.generated_tokens, cost.probe_tokens, cost.total_tokens) == (12, 8, 20)


@settings(max_examples=60, deadline=None)
@given(recording=recordings, seed=st.integers(0, 10_000), shuffle=st.randoms(use_true_random=False))
def test_outcomes_may_arrive_in_any_order(recording: Recording, seed: int, shuffle: random.Random) -> None:
    straight: list[Event] = []
    recording.episode(Scripted(seed=seed), 0, events=straight)
    shuffled: list[Event] = []
    question = recording.questions[0]
    episode = Episode(Scripted(seed=seed), question.branches, recording.max_depth, INTERVAL, trace=shuffled)
    units = episode.start()
    while units:
        outcomes = [question.advance(unit, unit.branch, INTERVAL) for unit in units]
        shuffle.shuffle(outcomes)
        units = episode.resume(outcomes)
    assert shuffled == straight


@settings(max_examples=80, deadline=None)
@given(recording=recordings, seed=st.integers(0, 10_000), budget=st.integers(13, 400))
def test_a_token_budget_holds(recording: Recording, seed: int, budget: int) -> None:
    limits = BranchProcessorList([TokenBudget(budget)])
    cost = recording.episode(Scripted(seed=seed), 0, processors=limits).cost()
    assert cost.generated_tokens + cost.probe_tokens <= budget


@settings(max_examples=40, deadline=None)
@given(recording=recordings, seed=st.integers(0, 10_000), limit=st.integers(1, 5))
def test_max_branches_holds(recording: Recording, seed: int, limit: int) -> None:
    episode = recording.episode(Scripted(seed=seed), 0, processors=BranchProcessorList([MaxBranches(limit)]))
    assert episode.state.opened <= limit


@pytest.mark.parametrize("controller", builtin_controllers())
@pytest.mark.parametrize("limit", [TokenBudget(13), TokenBudget(40), TokenBudget(150), MaxBranches(1), MaxBranches(3)])
def test_a_limit_makes_no_controller_fail(controller: str, limit: BranchProcessor) -> None:
    """One that counts on what a limit has cut, such as branches read to their end, answers with what it has."""
    rows = [trajectory(i, 25 + 5 * i, ["1", "2"], "1") for i in range(12)]
    rows = [replace(row, step_logprobs=(-0.5,) * (-(-row.tokens // INTERVAL))) for row in rows]
    recording = Recording.of([Question("q", "", "1")], rows, INTERVAL)
    decides = held_within(load_controller(controller), len(rows))
    cost = recording.episode(decides, 0, processors=BranchProcessorList([limit])).cost()
    assert 0 < cost.tokens <= getattr(limit, "max_tokens", cost.tokens)


class Gives(BranchProcessor):
    """Gives the first branch up."""

    def __call__(self, state: State, do: Decision) -> None:
        do.prune[0] = state.round == 1


LIMITS = (TokenBudget(13), TokenBudget(60), TokenBudget(150), MaxBranches(1), MaxBranches(3), Gives())


@pytest.mark.parametrize("controller", builtin_controllers())
@pytest.mark.parametrize("branches", [1, 2, 4, 7])
def test_few_branches_and_a_limit_leave_what_was_shown(controller: str, branches: int) -> None:
    """ESC wanted a whole window of fewer; Parallel-Probe forgot what it saw; worth waited for one given up."""
    rows = [trajectory(i, 25 + 5 * i, ["1", "2"], "12"[i % 2]) for i in range(branches)]
    rows = [replace(row, step_logprobs=(-0.5,) * (-(-row.tokens // INTERVAL))) for row in rows]
    recording = Recording.of([Question("q", "", "1")], rows, INTERVAL)
    decides = held_within(load_controller(controller), branches)
    for limit in ([], *([each] for each in LIMITS)):
        episode = recording.episode(decides, 0, processors=BranchProcessorList(limit))
        state = episode.state
        shown = [i for i in range(state.opened) if state.answer[i] >= 0 and not state.pruned[i]]
        assert episode.answer >= 0 or not shown, limit


@pytest.mark.parametrize(
    ("controller", "knobs"),
    [
        ("deepconf", {"keep": 0.0}), ("deepconf", {"keep": 1.0}), ("deepconf", {"window": 0}),
        ("cmc", {"ema_window": 0}),
        ("cmc", {"ema_alpha": 0.0}), ("esc", {"window": 1}), ("asc", {"threshold": 0.0}), ("dynasor", {"agree": 0}),
    ],
    ids=str,
)  # fmt: skip
def test_a_knob_at_its_end_is_the_same_compiled(controller: str, knobs: dict[str, Any]) -> None:
    """`keep=0` was an IndexError, compiled a look beyond the array; `ema_window=0` ended the process."""
    rows = [trajectory(i, 25 + 7 * (i % 7), ["1", "2"], "12"[i % 2]) for i in range(12)]
    rows = [replace(row, step_logprobs=(-0.5 - row.branch / 20,) * (-(-row.tokens // INTERVAL))) for row in rows]
    recording = Recording.of([Question("q", "", "1")], rows, INTERVAL)
    decides = held_within(load_controller(controller, beta=0.5, **knobs), 12)
    slow, fast = (replay(recording, decides, shuffles=4, compiled=compiled) for compiled in (False, True))
    assert (slow.answer_ids == fast.answer_ids).all()
    assert (slow.cost == fast.cost).all()


def test_a_share_of_ten_branches_is_nine_of_them() -> None:
    """0.1 * 10 is a little less than 1 in floats: the bar let all ten of the warm-up through."""
    kind = load_controller("deepconf", keep=0.9)
    assert [kind._kept(count) for count in (1, 9, 10, 20)] == [1, 9, 9, 18]  # type: ignore[attr-defined]
    assert load_controller("deepconf", keep=0.0)._kept(10) == 1  # type: ignore[attr-defined]


def test_a_token_budget_opens_fewer_branches_rather_than_none_that_ends() -> None:
    """Of self-consistency of 12, a budget of twice the longest branch lets two vote, not 12 that never end."""
    rows = [trajectory(i, 25 + 5 * i, ["1", "2"], "1") for i in range(12)]
    recording = Recording.of([Question("q", "", "1")], rows, INTERVAL)
    decides = held_within(load_controller("self_consistency", beta=1.0), len(rows))
    longest = recording.max_depth * (INTERVAL + recording.max_probe_tokens)
    episode = recording.episode(decides, 0, processors=BranchProcessorList([TokenBudget(2 * longest)]))
    assert (episode.state.opened, episode.state.pooled) == (2, 2)


def test_limits_that_make_no_sense() -> None:
    for make in (lambda: TokenBudget(0), lambda: MaxBranches(0), lambda: BranchProcessorList([print])):  # type: ignore[list-item]
        with pytest.raises(InputError):
            make()


class Once(Controller):
    """One hook given by the test, the others quiet."""

    probing = "never"

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {}

    def begin(self, state: State, do: Decision) -> None:
        do.open = 1


RECORDING = Recording.of([Question("q", "", "1")], [trajectory(i, 35, ["1"], "1") for i in range(3)], INTERVAL)


@pytest.mark.parametrize(
    ("hooks", "text"),
    [
        ({}, "stalls in round 0"),
        ({"begin": lambda self, state, do: None}, "opened no branch"),
        ({"begin": lambda self, state, do: setattr(do, "open", 4)}, "wants 4 branches but this episode has 3"),
        ({"begin": lambda self, state, do: (setattr(do, "open", 1), setattr(do, "open_steps", 0))}, "open_steps=0"),
    ],
)
def test_decisions_that_cannot_be_carried_out(hooks: dict[str, Any], text: str) -> None:
    kind = type("Once", (Once,), hooks)
    with pytest.raises(ControllerError, match=text):
        RECORDING.episode(kind(), 0)


def test_a_budget_below_one_step_is_refused() -> None:
    with pytest.raises(InputError, match="does not cover one step"):
        RECORDING.episode(Scripted(seed=1), 0, processors=BranchProcessorList([TokenBudget(5)]))


class TestRecordedRules:
    """The rules page, section "The replay rules"."""

    def question(self, tokens: int, probes: int) -> Any:
        row = Trajectory(
            question_id="q", branch=0, seed=None, prompt_tokens=0, tokens=tokens, finish_reason="eos", final_answer="f",
            probe_positions=tuple(500 * (k + 1) for k in range(probes)), probe_answers=("p",) * probes,
            probe_tokens=(0,) * probes, probe_logprobs=(None,) * probes, step_logprobs=(),
        )  # fmt: skip
        return Recording.of([Question("q", "", "f")], [row], 500, source="autotts").questions[0]

    def test_a_fresh_branch_read_whole_costs_its_tokens(self) -> None:
        question = self.question(2300, 5)  # fewer tokens than interval * probes: published tables have such rows
        whole = question.advance(Unit(0, 0, TO_END, False), 0, 500)
        assert (whole.generated_tokens, whole.finished, whole.depth) == (2300, True, 6)

    def test_steps_cost_the_interval_and_the_last_what_is_left(self) -> None:
        question = self.question(1700, 3)
        steps = [question.advance(Unit(0, k, 1, True), 0, 500) for k in range(4)]
        assert [s.generated_tokens for s in steps] == [500, 500, 500, 200]
        assert [s.finished for s in steps] == [False, False, False, True]
        short = [self.question(2300, 5).advance(Unit(0, k, 1, True), 0, 500).generated_tokens for k in range(6)]
        assert short == [500] * 5 + [0]

    def test_what_was_not_recorded_cannot_be_read(self) -> None:
        row = Trajectory("q", 0, 0, 0, 20, None, None, (20,), ("1",), (3,), (None,), ())
        question = Recording.of([Question("q", "")], [row], INTERVAL, source="live").questions[0]
        assert question.advance(Unit(0, 0, 2, True), 0, INTERVAL).answer == 0
        with pytest.raises(StoreError, match="not probed at depth 1"):
            question.advance(Unit(0, 0, 1, True), 0, INTERVAL)
        with pytest.raises(StoreError, match="not recorded beyond depth 2"):
            question.advance(Unit(0, 0, 3, True), 0, INTERVAL)

    def test_branches_are_numbered_without_gaps(self) -> None:
        with pytest.raises(StoreError, match="numbered from 0 without gaps"):
            Recording.of([Question("q", "")], [trajectory(1, 20, ["1"], "1")], INTERVAL)
        with pytest.raises(StoreError, match="no recorded branch"):
            Recording.of([Question("q", "")], [], INTERVAL)

    @pytest.mark.parametrize("name", ["\u00b2", "9" * 5000, "none"])
    def test_a_question_that_is_not_there(self, name: str) -> None:
        """A small ² is a digit to Python, and no number: a ValueError; and so are very many digits."""
        with pytest.raises(UnknownNameError, match="unknown question"):
            RECORDING.numbers(name)


def test_replay_refuses_negative_shuffles_and_writes_episodes(tmp_path: Any) -> None:
    with pytest.raises(InputError, match="shuffles"):
        replay(RECORDING, "asc", shuffles=-1)
    result = replay(RECORDING, "asc", shuffles=4, max_samples=3)
    result.save_episodes(tmp_path / "e.npz")
    with np.load(tmp_path / "e.npz") as found:
        saved = dict(found)
    assert saved["correct"].shape == saved["cost"].shape == saved["answers"].shape == (4, 1)
    assert saved["correct"].dtype == np.bool_
    assert saved["cost"].dtype == np.int64
