"""What each part of `worth` does to one episode, and that what was found with it does as its report says."""

from __future__ import annotations

from typing import Any

import pytest

from tts_generate.loading import load_controller
from tts_generate.replay import Recording, ReplayResult, replay
from tts_generate.schedule import ranges_of
from tts_generate.testing import check_controller
from tts_generate.trajectories import Question, Trajectory

STEP = 10
OFF = {
    "n_init": 4, "widen": 2, "max_branches": 4, "read_bar": 0.3, "wave_bar": 0.3, "depth_power": 0.0,
    "relative_power": 0.0, "open_power": 0.0, "share_power": 0.0, "wave_share_power": 0.0, "price": 0.0,
    "length_power": 0.0,
}  # fmt: skip


def run(answers: str, lengths: list[int], **knobs: Any) -> ReplayResult:
    """One episode in recorded order; branches of `lengths` tokens that end with one letter each, of which `.` is none."""
    rows = [
        Trajectory(
            question_id="q", branch=n, seed=0, prompt_tokens=1, tokens=tokens, finish_reason="eos",
            final_answer=None if answer == "." else answer,
            probe_positions=(), probe_answers=(), probe_tokens=(), probe_logprobs=(), step_logprobs=(),
        )
        for n, (answer, tokens) in enumerate(zip(answers, lengths, strict=True))
    ]  # fmt: skip
    recording = Recording.of([Question("q", "", "a")], rows, STEP)
    return replay(recording, load_controller("worth", beta=0.0, **{**OFF, **knobs}), shuffles=0)


def test_eight_branches_without_an_answer_are_enough() -> None:
    """Whatever the budget; one answer among them, and it goes on."""
    waves = {"n_init": 4, "widen": 2, "max_branches": 30, "wave_bar": 0.0}
    assert run("." * 30, [20] * 30, **waves).opened[0, 0] == 8
    assert run("." * 30, [20] * 30, **waves).answers[0, 0] == ""
    assert run("." * 7 + "a" + "." * 22, [20] * 30, **waves).opened[0, 0] == 30
    assert run("." * 30, [20] * 30, **{**waves, "n_init": 16}).opened[0, 0] == 16  # a wave ends as a whole
    silent = run("." * 30, [20] * 30, **waves)
    assert silent.generated_tokens[0, 0] == 8 * 20


def test_it_asks_for_no_probe() -> None:
    assert load_controller("worth").probing == "never"
    assert run("aabb", [20, 50, 80, 90]).probe_tokens[0, 0] == 0


def test_of_equals_the_one_that_finished_first_leads() -> None:
    assert run("abab", [90, 50, 80, 60], read_bar=0.0).answers[0, 0] == "b"


def test_branches_that_end_without_an_answer_take_no_vote_from_others() -> None:
    """As many of the last votes were left out as had ended in silence; lengths were shared out over the others."""
    all_of_it = {"n_init": 4, "read_bar": 0.0}
    assert run(".baa", [10, 20, 30, 40], **all_of_it).answers[0, 0] == "a"
    assert run("..baa", [10, 10, 20, 30, 40], **{**all_of_it, "n_init": 5}).answers[0, 0] == "a"
    waves = {"n_init": 3, "widen": 1, "max_branches": 4, "read_bar": 0.0, "wave_bar": 0.4, "price": 1.0}
    assert run("a.bb", [200] * 4, **waves).opened[0, 0] == run("acbb", [200] * 4, **waves).opened[0, 0] == 4


def test_a_clear_vote_ends_early_and_a_tie_is_read_on() -> None:
    clear, tie = run("aaab", [20, 20, 20, 90]), run("abab", [20, 20, 60, 90])
    assert clear.generated_tokens[0, 0] < 4 * 30
    assert tie.generated_tokens[0, 0] == 20 + 20 + 60 + 60  # until a third one breaks it


@pytest.mark.parametrize(
    ("part", "value"), [("depth_power", 4.0), ("relative_power", 2.0), ("open_power", 3.0), ("share_power", 4.0)]
)
def test_each_part_ends_reading_sooner_where_it_speaks_for_that(part: str, value: float) -> None:
    """Three different answers, and one branch that goes on for long: deep, late, alone, and nothing leads."""
    answers, lengths = "abca", [100, 100, 100, 900]
    without, with_it = run(answers, lengths), run(answers, lengths, **{part: value})
    assert with_it.generated_tokens[0, 0] < without.generated_tokens[0, 0] == sum(lengths)


@pytest.mark.parametrize(("part", "tokens"), [("price", 400), ("wave_share_power", 20)])
def test_a_wave_that_costs_much_or_decides_little_is_not_opened(part: str, tokens: int) -> None:
    waves = {"n_init": 3, "max_branches": 5, "wave_bar": 0.3}
    assert run("abcaa", [tokens] * 5, **waves).opened[0, 0] == 5
    assert run("abcaa", [tokens] * 5, **waves, **{part: 2.0}).opened[0, 0] == 3


def test_short_branches_weigh_more() -> None:
    assert run("abbb", [10, 90, 90, 90], read_bar=0.0).answers[0, 0] == "b"
    assert run("abbb", [10, 90, 90, 90], read_bar=0.0, length_power=2.0).answers[0, 0] == "a"


def test_every_power_can_be_switched_off() -> None:
    """Each power has an off value, and the family's own schedule leaves all of them off."""
    kind = type(load_controller("worth"))
    powers = {name for name in kind.schedule(0.5) if name.endswith("_power") or name == "price"}
    assert powers == {name for name, room in ranges_of(kind).items() if room.off == 0.0}
    assert all(kind.schedule(beta)[name] == 0.0 for beta in (0.0, 1.0) for name in powers)


@pytest.mark.parametrize("name", ["worth", "thrift"])
def test_it_keeps_what_controllers_promise(name: str) -> None:
    check_controller(name, recordings=1)
