"""A branch that is cut without an answer is asked once, at its end: here, at servers, recorded and replayed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from local_servers import OPTIONS, QUESTIONS
from server_checks import assert_replays, of_a_server, of_the_engine
from token_server import TokenServer

from tts_generate import NoAnswerWarning, ServerModel
from tts_generate.engine.record import record
from tts_generate.loading import load_controller
from tts_generate.replay import Recording, replay
from tts_generate.report.timeline import timeline
from tts_generate.rules import count_outcome, open_branches
from tts_generate.state import State, leading_answer
from tts_generate.trajectories import Question
from tts_generate.trajectories.health import check

CUT = 24
"""Tokens at which the tiny model has not come to its answer, in the middle of a step of 16."""
ASKED: dict[str, Any] = {"max_new_tokens": CUT, "seed": 1}
CONTROLLERS = ["self_consistency", "asc", "cmc", "thrift"]


@pytest.mark.parametrize("run", [of_the_engine, of_a_server])
@pytest.mark.parametrize("controller", CONTROLLERS)
def test_it_answers_and_replays(tiny: tuple[Any, Any], run: Any, controller: str) -> None:
    output = run(tiny, **ASKED, controller=controller, beta=0.2)
    assert None not in output.answers
    assert output.truncated == [True, True]
    assert_replays(output, controller, beta=0.2)
    rows = [branch for branches in output.branches for branch in branches if branch.tokens == CUT]
    assert rows
    assert all(row.forced and row.probe_answers[-1] == row.final_answer for row in rows)
    readings = [reading for trace in output.trace for event in trace.events for reading in event.get("branches", ())]
    assert sum("forced" in reading for reading in readings) == len(rows)
    assert all(reading["cut"] for reading in readings if "forced" in reading)
    texts = output.texts if run is of_a_server else tiny[1].batch_decode(output.sequences)
    for answer, text in zip(output.answers, texts, strict=True):
        assert f"\\boxed{{ {answer} }}" in text


@pytest.mark.parametrize("run", [of_the_engine, of_a_server])
def test_it_can_be_left_out(tiny: tuple[Any, Any], run: Any) -> None:
    with pytest.warns(NoAnswerWarning, match="was cut after 24 tokens"):
        output = run(tiny, **ASKED, controller=load_controller("asc", max_samples=6), force_answer=False)
    assert output.answers == [None, None]
    assert output.total_cost.probe_tokens == 0
    assert not any(branch.forced for branches in output.branches for branch in branches)


def test_rows_that_come_and_go_change_nothing(tiny: tuple[Any, Any]) -> None:
    whole = of_the_engine(tiny, **ASKED, controller="cmc", beta=0.3)
    for few in ({"max_rows": 2}, {"ahead_rows": 16}, {"decode_ahead": False}, {"sync_every": 8}):
        output = of_the_engine(tiny, **ASKED, controller="cmc", beta=0.3, **few)
        assert (output.answers, output.cost, output.trace) == (whole.answers, whole.cost, whole.trace), few
        assert output.branches == whole.branches


def test_a_recording_holds_it_and_replays_as_it_goes_live(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    questions = [Question(str(number), text, "1") for number, text in enumerate(QUESTIONS)]
    how = {"branches": 32, "seed": 1, "max_new_tokens": CUT, "progress": False}
    store = record(*tiny, questions, tmp_path / "here", **how)
    with TokenServer(batch=1) as server:
        model = ServerModel(server.url, tokenizer=tiny[1])
        there = model.record(questions, tmp_path / "there", **{**OPTIONS, **how, "branches": 2})
    for each in (store, there):
        assert check(each.path).sound
        assert each.manifest.probe["format"]["force_answer"] is True
        assert all(row.forced for row in each.trajectories())
        assert all(row.probe_positions == (16, CUT) for row in each.trajectories())
    recording = Recording.from_store(store)
    for controller in CONTROLLERS:
        live = of_the_engine(tiny, **ASKED, controller=controller, beta=0.2)
        result = replay(recording, controller, beta=0.2, shuffles=0, traces=True)
        assert live.answers == result.answers[0].tolist()
        assert [cost.probe_tokens for cost in live.cost] == result.probe_tokens[0].tolist()
        assert [trace.events for trace in live.trace] == [trace.events for trace in result.traces]
        fast, slow = (replay(recording, controller, beta=0.2, shuffles=3, compiled=way) for way in (True, False))
        assert (fast.answers == slow.answers).all()
        assert (fast.cost == slow.cost).all()
    assert " CUT, ASKED" in "".join(timeline(recording.trace(load_controller("asc"), 0)))
    row = store.trajectories()[0]
    assert store.manifest.misfit(replace(row, finish_reason="eos")) != ""


@pytest.mark.parametrize(("probe_tokens", "answer"), [(9, 3), (0, -1)])
def test_one_that_is_asked_and_does_not_say_keeps_what_it_showed(probe_tokens: int, answer: int) -> None:
    """One that nobody asked takes it back, as in published tables."""
    state = State(2, 4, 10, 9)
    open_branches(state, 1)
    count_outcome(state, 0, 1, 10, 9, 3, False)
    count_outcome(state, 0, 2, 4, probe_tokens, -1, True)
    assert (state.pooled, state.answer[0], leading_answer(state)) == (0, answer, answer)
