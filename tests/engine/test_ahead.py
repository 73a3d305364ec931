"""Rows that would be idle decode ahead: the same answers and costs in fewer passes, and nothing is left of the rest."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from engine_models import QUESTIONS, Live
from test_scheduling import loops, nothing_left  # noqa: F401 - a fixture

from tts_generate import Controller, MaxBranches, OnRound
from tts_generate.engine.batch import Batch
from tts_generate.engine.loop import Loop
from tts_generate.errors import InputError
from tts_generate.profile import Profile
from tts_generate.state import TO_END, Decision, State


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows at work in each pass."""
    counted: list[int] = []
    step = Batch.step

    def counting(self: Batch) -> None:
        counted.append(self.rows.live)
        step(self)

    monkeypatch.setattr(Batch, "step", counting)
    return counted


def said(output: Any) -> list[list[tuple[Any, ...]]]:
    return [
        [(b.branch, b.token_ids, b.finish_reason, b.final_answer, b.probe_answers) for b in bs]
        for bs in output.branches
    ]


@pytest.mark.parametrize("controller", ["cmc", "asc", "esc", "dynasor", "thrift", "deepconf", "self_consistency"])
def test_fewer_passes_and_the_same_of_everything_else(qwen: Live, passes: list[int], controller: str) -> None:
    plain = qwen.run(*QUESTIONS, controller=controller, beta=0.1)
    usual = len(passes)
    ahead = qwen.run(*QUESTIONS, controller=controller, beta=0.1, ahead_rows=48)
    assert said(ahead) == said(plain)
    assert ahead.cost == plain.cost
    assert [t.events for t in ahead.trace] == [t.events for t in plain.trace]
    assert bool((ahead.sequences == plain.sequences).all())
    assert len(passes) - usual <= usual


FLAT = Profile((1, 16), (0.01, 0.0108), (1e-7, 1e-7), (16,), (0.02,))
STEEP = Profile((1, 16), (0.01, 0.16), (1e-7, 1e-7), (16,), (0.02,))


def test_a_profile_says_which_rows_are_free(qwen: Live, passes: list[int]) -> None:
    """By itself, once there is a profile: where rows cost nothing they work ahead, where each costs time none does."""
    counts, answers = [], []
    for how in ({}, {"profile": STEEP}, {"profile": FLAT}, {"profile": FLAT, "ahead_rows": 0}):
        del passes[:]
        output = qwen.run(*QUESTIONS, controller="cmc", beta=0.1, **how)
        counts.append(len(passes))
        answers.append((said(output), output.cost))
    plain, steep, flat, switched_off = counts
    assert steep == plain == switched_off > flat
    assert all(each == answers[0] for each in answers)


def test_free_rows_are_fewer_behind_a_long_context() -> None:
    assert [FLAT.free_rows(4, columns, 64) for columns in (0, 1_000, 100_000)] == [23, 10, 4]
    assert [FLAT.free_rows(rows, 0, 8) for rows in (1, 8, 12)] == [8, 8, 12]


def test_a_profile_is_read_from_its_file(qwen: Live, tmp_path: Path, passes: list[int]) -> None:
    FLAT.save(tmp_path / "profile.json")
    qwen.run(QUESTIONS[0], controller="cmc", beta=0.1, profile=FLAT)
    once = list(passes)
    qwen.run(QUESTIONS[0], controller="cmc", beta=0.1, profile=tmp_path / "profile.json")
    assert passes == once * 2
    (tmp_path / "other.json").write_text("{}", "utf-8")
    with pytest.raises(InputError, match="no profile of a device"):
        qwen.run(QUESTIONS[0], profile=tmp_path / "other.json")
    with pytest.raises(InputError, match="profile must be"):
        qwen.run(QUESTIONS[0], profile=3)


class Widens(Controller):
    """Reads one branch after the other to its end, six in all; what many published methods do."""

    max_samples: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"max_samples": 6}

    def begin(self, state: State, do: Decision) -> None:
        do.open, do.open_steps = 1, TO_END

    def review(self, state: State, do: Decision) -> None:
        do.open, do.open_steps = int(state.opened < self.max_samples), TO_END
        do.stop = state.opened == self.max_samples


def test_branches_wait_for_the_controller_and_not_the_other_way_round(qwen: Live, passes: list[int]) -> None:
    controller = Widens.from_beta(0.5)
    plain = qwen.run(QUESTIONS[0], controller=controller, beta=None)
    alone = len(passes)
    ahead = qwen.run(QUESTIONS[0], controller=controller, beta=None, ahead_rows=6)
    assert said(ahead) == said(plain)
    assert len(passes) - alone < 0.6 * alone
    assert ahead.discarded_tokens > 0, "probes that a controller reading to the end does not ask for"


def test_no_more_rows_than_said_and_no_branch_beyond_the_controllers_own(qwen: Live, passes: list[int]) -> None:
    output = qwen.run(*QUESTIONS, controller="cmc", beta=0.0, ahead_rows=9)
    first = passes.index(max(passes))
    assert max(passes) >= 9, "the first branches alone may be more"
    assert all(count <= 9 for count in passes[first + 40 :])
    assert all(len(branches) <= 4 for branches in output.branches), "cmc opens four at beta 0"


def test_whoever_asks_gets_the_row(qwen: Live, passes: list[int]) -> None:
    """With all rows at work ahead, those of the next question are given up for it."""
    plain = qwen.run(*QUESTIONS, controller="cmc", max_rows=6)
    ahead = qwen.run(*QUESTIONS, controller="cmc", max_rows=6, ahead_rows=6)
    assert said(ahead) == said(plain)
    assert max(passes) <= 6


def test_nan_in_a_branch_that_nobody_asks_for_is_nobodys(qwen: Live) -> None:
    """Branches go wrong that a limit keeps the controller from opening: a call that decodes them ahead is not told."""
    asked: dict[str, Any] = {"controller": "asc", "branch_processors": [MaxBranches(4)]}
    plain = qwen.run(QUESTIONS[0], **asked)
    opened, length = len(plain.branches[0]), len(qwen.tokenizer(QUESTIONS[0])["input_ids"])
    seen: list[int] = []
    loop_of: list[Loop] = []
    look = Loop.turn

    def turn(self: Loop) -> None:
        loop_of[:] = [self]
        look(self)

    def poison(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        if isinstance(kwargs["logits_to_keep"], torch.Tensor):
            rows = loop_of[0].batch.rows
            for place, slot in enumerate(rows.decoding.nonzero()[0]):
                if rows.branch[slot].order[1] >= opened and rows.length[slot] > length + 3:
                    output.logits[0, place] = float("nan")
                    seen.append(int(slot))
        return output

    hook = qwen.model.register_forward_hook(poison, with_kwargs=True)
    try:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            patch.setattr(Loop, "turn", turn)
            warnings.simplefilter("error")
            ahead = qwen.run(QUESTIONS[0], **asked, ahead_rows=16)
    finally:
        hook.remove()
    assert seen, "a branch beyond the last was decoded"
    assert said(ahead) == said(plain)


def test_interrupted_ahead_leaves_nothing(qwen: Live, loops: list[Loop]) -> None:  # noqa: F811
    def interrupt(question_id: str, state: State) -> None:
        if state.round == 2:
            raise KeyboardInterrupt

    output = qwen.run(*QUESTIONS, branch_processors=[OnRound(interrupt)], ahead_rows=40)
    assert "interrupted" in output.finish_reason
    for cost, branches in zip(output.cost, output.branches, strict=True):
        assert cost.generated_tokens == sum(branch.tokens for branch in branches)
        assert cost.probe_tokens == sum(sum(branch.probe_tokens) for branch in branches)
    assert nothing_left(loops[-1])


@pytest.mark.parametrize("rows", [-1, 1.5, True, "many", None])
def test_ahead_rows_are_counted(qwen: Live, rows: Any) -> None:
    with pytest.raises(InputError, match="ahead_rows must be a whole number"):
        qwen.run(QUESTIONS[0], ahead_rows=rows)


class Returns(Controller):
    """Holds its second branch while others come, one by one and then many at once, and only then goes on with it."""

    most_branches = 16
    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 2}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        do.steps[: state.opened] = 1
        do.steps[1] = int(state.round > 3)

    def review(self, state: State, do: Decision) -> None:
        do.open = [1, 1, 1, 10][state.round] if state.round < 4 else 0


def test_a_branch_that_came_to_its_limit_ahead_is_asked_there_once(qwen: Live) -> None:
    """Given up while it was asked at its end, it is asked for what comes before: it was probed there as it stood."""
    asked: dict[str, Any] = {"controller": Returns.from_beta(0.5), "beta": None, "eos_token_id": None}
    for tokens in (24, 32, 40):
        plain = qwen.run(QUESTIONS[0], **asked, max_new_tokens=tokens)
        for rows in (4, 6, 8):
            ahead = qwen.run(QUESTIONS[0], **asked, max_new_tokens=tokens, max_rows=rows, ahead_rows=rows)
            assert said(ahead) == said(plain)
            assert ahead.cost == plain.cost
