"""Compiled and interpreted replay are the same, for every controller, on anything that can be recorded."""

from __future__ import annotations

import math
import random
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from replay_stores import recordings

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError, StoreError
from tts_generate.loading import builtin_controllers, load_controller
from tts_generate.recorded.compiled import CompileWarning
from tts_generate.recorded.episodes import Columns
from tts_generate.replay import Recording, ReplayResult, replay
from tts_generate.state import Decision, State
from tts_generate.trajectories import Question, Trajectory

pytest.importorskip("numba")

FEW = {  # knobs by which each controller does all it can on few branches; what is not named follows from beta
    "self_consistency": {"max_samples": (1, 9)},
    "asc": {"max_samples": (1, 9), "threshold": (0.5, 0.99)},
    "esc": {"max_samples": (2, 9), "window": (1, 3)},
    "parallel_probe": {"num_chains": (1, 9), "stability": (1, 4), "patience": (1, 3), "warm_up": (0, 3)},
    "cmc": {
        "n_init": (1, 4), "max_branches": (4, 9), "warm_up": (0, 3), "patience": (1, 3), "ema_window": (1, 4),
        "burst_aligned": (1, 3), "widen_burst": (1, 3), "min_complete": (1, 3), "conf_thresh": (0.5, 0.99),
    },
    "short_m_at_k": {"num_chains": (1, 9), "votes": (1, 5)},
    "first_finished": {"num_chains": (1, 9)},
    "dynasor": {"agree": (1, 4), "warm_up": (0, 3)},
    "answer_stability": {"num_chains": (1, 9), "stability": (1, 4)},
    "deepconf": {
        "max_samples": (2, 9), "warm_up": (1, 4), "keep": (0.1, 1.0), "window": (1, 4), "consensus": (0.5, 1.0),
    },
    "worth": {
        "n_init": (1, 5), "widen": (1, 3), "max_branches": (1, 9), "read_bar": (0.0, 0.5), "wave_bar": (0.0, 0.5),
        "depth_power": (0.0, 4.0), "relative_power": (0.0, 4.0), "open_power": (0.0, 2.0), "share_power": (0.0, 2.0),
        "wave_share_power": (0.0, 2.0), "price": (0.0, 2.0), "length_power": (0.0, 3.0),
    },
}  # fmt: skip
FEW["thrift"] = FEW["pace"] = FEW["worth"]  # the same hooks, other schedules
NAMES = {
    "asc": ("criterion", ["beta", "dirichlet", "entropy", "majority"]),
    "deepconf": ("confidence", ["mean", "tail", "bottom_window", "min_window"]),
}


def test_every_controller_is_here() -> None:
    assert set(FEW) == set(builtin_controllers())


def knobs(draw: st.DrawFn, name: str) -> dict[str, Any]:
    drawn: dict[str, Any] = {}
    for knob, (low, high) in FEW[name].items():
        drawn[knob] = draw(st.floats(low, high) if isinstance(low, float) else st.integers(low, high))
    if name in NAMES:
        knob, values = NAMES[name]
        drawn[knob] = draw(st.sampled_from(values))
    return drawn


def assert_same(one: ReplayResult, other: ReplayResult) -> None:
    for column in Columns._fields:
        assert (getattr(one, column) == getattr(other, column)).all(), column


@pytest.mark.long
@pytest.mark.parametrize("name", sorted(FEW))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(recording=recordings(min_branches=9), data=st.data())
def test_compiled_is_interpreted(name: str, recording: Recording, data: st.DataObject) -> None:
    chosen = data.draw(st.composite(knobs)(name))
    shuffles = data.draw(st.integers(0, 3))
    slow = replay(recording, name, shuffles=shuffles, compiled=False, **chosen)
    fast = replay(recording, name, shuffles=shuffles, compiled=True, threads=data.draw(st.integers(1, 3)), **chosen)
    assert slow.compile_seconds is None
    assert fast.compile_seconds is not None
    assert_same(fast, slow)


@settings(max_examples=30, deadline=None)
@given(recording=recordings(max_branches=4), shuffles=st.integers(0, 1))
def test_what_cannot_be_carried_out_raises_the_same(recording: Recording, shuffles: int) -> None:
    """A controller that wants more branches than there are: the message of the interpreted run."""
    said = []
    for compiled in (False, True):
        try:
            said.append(replay(recording, "self_consistency", shuffles=shuffles, compiled=compiled, max_samples=3).cost)
        except ControllerError as error:
            said.append(str(error))
    if isinstance(said[0], str):
        assert said[0] == said[1]
        assert "wants 3 branches" in said[0]
    else:
        assert (said[0] == said[1]).all()


class Plain(Controller):
    """Opens two branches and reads on; each test breaks one hook."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 2}

    width: int

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            do.steps[i] = 1


class Stalls(Plain):
    def plan(self, state: State, do: Decision) -> None:
        pass


class NamesABranch(Plain):
    probing = "never"
    said: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 2, "said": 100}

    def answer(self, state: State) -> int:
        return self.said


class UsesRandom(Plain):
    def review(self, state: State, do: Decision) -> None:
        do.stop = random.Random(state.round).random() > 2


class KeepsAList(Plain):
    def memory(self, max_branches: int) -> None:
        self.seen: list[int] = []


class Divides(Plain):
    def review(self, state: State, do: Decision) -> None:
        do.stop = state.round / (state.round - state.round) > 1


class Inherits(Plain):
    def helper(self, state: State) -> int:
        return state.opened

    def review(self, state: State, do: Decision) -> None:
        do.stop = self.helper(state) + self.constant() > 100

    @staticmethod
    def constant() -> int:
        return limit()


def limit() -> int:
    return 7


@pytest.fixture
def recording(tiny_recording: Recording) -> Recording:
    return tiny_recording


def test_a_controller_that_stalls(recording: Recording) -> None:
    for compiled in (False, True):
        with pytest.raises(ControllerError, match="stalls in round 0"):
            replay(recording, Stalls.from_beta(0.5), shuffles=2, compiled=compiled)


@pytest.mark.parametrize("said", [100, 1, -2, -9])
def test_an_answer_that_no_branch_has_shown(said: int) -> None:
    """Numbers of branches look like ids of answers, and would be counted without a word."""
    branches = [Trajectory("q", n, 0, 1, 30, "eos", "1", (), (), (), (), ()) for n in range(3)]
    one = Recording.of([Question("q", "", "1")], branches, 10, name="one")
    for compiled in (False, True):
        with pytest.raises(ControllerError, match=f"answers with id {said}, and no branch has shown"):
            replay(one, NamesABranch.from_beta(0.5, said=said), shuffles=2, compiled=compiled)


def test_an_error_in_a_hook_is_the_same_error(recording: Recording) -> None:
    for compiled in (False, True):
        with pytest.raises(ZeroDivisionError):
            replay(recording, Divides.from_beta(0.5), shuffles=2, compiled=compiled)


def test_methods_functions_and_static_methods_compile(recording: Recording) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fast = replay(recording, Inherits.from_beta(0.5), shuffles=2, compiled=True)
    assert fast.compile_seconds is not None
    assert_same(fast, replay(recording, Inherits.from_beta(0.5), shuffles=2, compiled=False))


def test_what_does_not_compile_says_which_line_and_runs(recording: Recording) -> None:
    line = UsesRandom.review.__code__.co_firstlineno + 1
    with pytest.warns(CompileWarning, match=rf"UsesRandom runs interpreted.*test_compiled\.py, line {line}: "):
        found = replay(recording, UsesRandom.from_beta(0.5), shuffles=2, compiled=True)
    assert found.compile_seconds is None
    assert_same(found, replay(recording, UsesRandom.from_beta(0.5), shuffles=2, compiled=False))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        replay(recording, UsesRandom.from_beta(0.5), shuffles=2, compiled=True)  # said once
    with pytest.warns(CompileWarning, match="its seen is a list; numba compiles numbers, names and numpy arrays"):
        replay(recording, KeepsAList.from_beta(0.5), shuffles=2, compiled=True)


def test_knobs_do_not_compile_again(recording: Recording) -> None:
    replay(recording, "asc", shuffles=2, compiled=True, max_samples=3)
    again = replay(recording, "asc", shuffles=2, compiled=True, max_samples=5)
    assert again.compile_seconds is not None
    assert again.compile_seconds < 0.05


def test_log_probabilities_are_asked_for_by_name(recording: Recording) -> None:
    bare = Recording.of(
        [q.question for q in recording.questions],
        [dataclass_without_logprobs(n, q) for q in recording.questions for n in range(3)],
        10,
        name="bare",
    )
    for compiled in (False, True):
        with pytest.raises(StoreError, match=r"DeepConf reads log-probabilities, and bare has none.*step_logprobs"):
            replay(bare, "deepconf", shuffles=0, compiled=compiled)


def dataclass_without_logprobs(branch: int, question: Any) -> Any:
    return Trajectory(question.question.question_id, branch, 0, 1, 5, "eos", "1", (), (), (), (), ())


def test_results_do_not_depend_on_threads(recording: Recording) -> None:
    one = replay(recording, "cmc", beta=0.3, shuffles=20, compiled=True, threads=1)
    many = replay(recording, "cmc", beta=0.3, shuffles=20, compiled=True, threads=7)
    assert_same(one, many)


def test_the_full_tiny_recording(recording: Recording) -> None:
    rng = random.Random(0)
    for name in builtin_controllers():
        controller = load_controller(name, beta=rng.random())
        fast = replay(recording, controller, shuffles=1, compiled=True)
        assert_same(fast, replay(recording, controller, shuffles=1, compiled=False))
        assert np.isfinite(fast.tokens)
        assert fast.sequential_tokens.max() <= fast.cost.max()
        assert math.isclose(fast.tokens, float(fast.cost.mean()))


def test_a_branch_read_whole_waits_for_nobody(recording: Recording) -> None:
    """Sequential tokens: of branches read together the longest, of branches read in turn the sum."""
    together = replay(recording, "self_consistency", shuffles=0, max_samples=4)
    tokens = recording.table.branches["tokens"]
    for q, question in enumerate(recording.questions):
        assert together.sequential_tokens[0, q] == tokens[question.offset : question.offset + 4].max()
    alone = replay(recording, "asc", shuffles=0, max_samples=4)
    assert (alone.sequential_tokens == alone.cost).all()


@pytest.mark.parametrize(("shuffles", "text"), [(-1, "0 .recorded order. or more"), (3, "2 branches have 2 orders")])
def test_shuffles_that_cannot_be(shuffles: int, text: str) -> None:
    rows = [dataclass_without_logprobs(n, Asked) for n in range(2)]
    few = Recording.of([Asked.question], rows, 10)
    assert replay(few, "asc", shuffles=2, max_samples=2).cost.shape == (2, 1)
    with pytest.raises(InputError, match=text):
        replay(few, "asc", shuffles=shuffles, max_samples=2)


class Asked:
    question = Question("q", "", "1")
