"""A question whose time is up without any answer asks its branches where they stand: here and at servers."""

from __future__ import annotations

import time
from typing import Any

import pytest
from local_servers import OPTIONS
from server_checks import of_a_server, of_the_engine

from tts_generate import BranchProcessor
from tts_generate.state import Decision, State

EARLY: dict[str, Any] = {"max_new_tokens": 160, "seed": 1}


class After(BranchProcessor):
    """Expires when it has been looked at so many times: at the engine once a pass."""

    def __init__(self, looks: int) -> None:
        self.left = looks

    def __call__(self, state: State, do: Decision) -> None: ...

    def begin(self, question_id: str) -> BranchProcessor:
        return After(self.left)

    def expired(self) -> bool:
        self.left -= 1
        return self.left < 0


def accounted(output: Any) -> None:
    for cost, branches in zip(output.cost, output.branches, strict=True):
        assert cost.generated_tokens == sum(branch.tokens for branch in branches)
        assert cost.probe_tokens == sum(sum(branch.probe_tokens) for branch in branches)


@pytest.mark.parametrize("controller", ["self_consistency", "cmc", "thrift", "pace"])
@pytest.mark.parametrize("options", [{}, {"max_rows": 3}, {"ahead_rows": 16}, {"sync_every": 2}])
def test_the_engine_asks_where_branches_stand(tiny: tuple[Any, Any], controller: str, options: dict[str, Any]) -> None:
    looks = 12 // options.get("sync_every", 1)
    output = of_the_engine(tiny, **EARLY, controller=controller, branch_processors=[After(looks)], **options)
    assert output.finish_reason == ["deadline", "deadline"]
    assert None not in output.answers
    accounted(output)
    for answer, branches in zip(output.answers, output.branches, strict=True):
        asked = [branch for branch in branches if branch.finish_reason is None and branch.probe_positions]
        assert answer in {branch.probe_answers[-1] for branch in asked}
        assert all(branch.probe_positions[-1] <= branch.tokens < 40 for branch in asked)
    for answer, text in zip(output.answers, tiny[1].batch_decode(output.sequences), strict=True):
        assert f"\\boxed{{ {answer} }}" in text


def test_it_ends_though_the_time_is_said_to_be_up_once_only(tiny: tuple[Any, Any]) -> None:
    """Its branches are asked, and it waited for a second word for ever."""

    class Once(After):
        def begin(self, question_id: str) -> BranchProcessor:
            return Once(self.left)

        def expired(self) -> bool:
            self.left -= 1
            return self.left == 0

    output = of_the_engine(tiny, **EARLY, controller="self_consistency", branch_processors=[Once(12)])
    assert output.finish_reason == ["deadline", "deadline"]
    assert None not in output.answers


def test_an_answer_that_is_there_is_taken_at_once(tiny: tuple[Any, Any]) -> None:
    output = of_the_engine(tiny, **EARLY, controller="cmc", branch_processors=[After(120)])
    assert output.finish_reason[0] == "deadline"
    assert None not in output.answers
    step = OPTIONS["interval_tokens"]
    assert all(position % step == 0 for rows in output.branches for row in rows for position in row.probe_positions)
    accounted(output)


def test_it_can_be_left_out(tiny: tuple[Any, Any]) -> None:
    asked: dict[str, Any] = {**EARLY, "controller": "self_consistency", "branch_processors": [After(12)]}
    output = of_the_engine(tiny, **asked, force_answer=False)
    assert output.answers == [None, None]
    assert output.total_cost.probe_tokens == 0
    accounted(output)


class InRound(BranchProcessor):
    """Expires when a controller decides on its second round: all of its branches have just been asked."""

    over = False

    def __call__(self, state: State, do: Decision) -> None:
        self.over |= state.round == 1

    def begin(self, question_id: str) -> BranchProcessor:
        return InRound()

    def expired(self) -> bool:
        return self.over


@pytest.mark.filterwarnings("ignore::tts_generate.NoAnswerWarning")
@pytest.mark.parametrize("run", [of_the_engine, of_a_server])
def test_who_was_just_asked_is_not_asked_again(tiny: tuple[Any, Any], run: Any) -> None:
    """It would say the same, and a row with two probes at one place is none: the call was lost."""
    how: dict[str, Any] = {"controller": "cmc", "beta": 0.1, "answer_pattern": "nothing like this"}
    output = run(tiny, **EARLY, **how, branch_processors=[InRound()])
    assert output.finish_reason == ["deadline", "deadline"]
    assert output.answers == [None, None]
    accounted(output)
    for row in (row for branches in output.branches for row in branches if row.finish_reason is None):
        assert len(set(row.probe_positions)) == len(row.probe_positions) == 2


def test_no_token_no_answer(tiny: tuple[Any, Any]) -> None:
    output = of_the_engine(tiny, **EARLY, controller="self_consistency", branch_processors=[After(0)])
    assert output.answers == [None, None]
    assert output.total_cost.total_tokens == 0


def test_at_a_server(tiny: tuple[Any, Any]) -> None:
    output = of_a_server(tiny, **EARLY, controller="self_consistency", branch_processors=[After(4)])
    assert output.finish_reason == ["deadline", "deadline"]
    accounted(output)
    for answer, branches in zip(output.answers, output.branches, strict=True):
        assert (answer is not None) == any(branch.tokens for branch in branches)


def test_a_clock(tiny: tuple[Any, Any]) -> None:
    start = time.monotonic()
    output = of_the_engine(tiny, controller="self_consistency", max_time=0.03, max_new_tokens=480, seed=1)
    assert time.monotonic() - start < 60
    for answer, branches in zip(output.answers, output.branches, strict=True):
        assert (answer is not None) == any(branch.tokens for branch in branches)
