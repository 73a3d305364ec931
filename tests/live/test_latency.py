"""A controller with schedules for few tokens and for a short chain takes one by the rows of a question, or as told."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from server_checks import assert_replays, of_a_server, of_the_engine

from tts_generate.controller import describe
from tts_generate.errors import ControllerError, InputError
from tts_generate.hub.card import parse_card
from tts_generate.live.rows import latency_for, suited
from tts_generate.loading import builtin_folder, load_controller
from tts_generate.saving import readme
from tts_generate.schedule import Ends, at, between, from_json
from tts_generate.trace import Trace

NAME = "pace"
CARD = json.loads((builtin_folder(NAME) / "controller.json").read_text())
RUNS = [of_the_engine, of_a_server]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("latency", [0.0, 1.0])
def test_either_end_goes_live_as_it_replays(tiny: tuple[Any, Any], run: Any, latency: float) -> None:
    output = run(tiny, controller=NAME, beta=0.3, latency=latency, seed=2)
    assert_replays(output, NAME, beta=0.3, latency=latency)
    told = [trace.controller for trace in output.trace]
    assert told == [describe(load_controller(NAME, beta=0.3, latency=latency))] * 2
    assert [Trace.from_dict(json.loads(json.dumps(trace.to_dict()))) for trace in output.trace] == output.trace


@pytest.mark.parametrize(
    ("run", "options", "latency"),
    [
        (of_the_engine, {}, 1.0),
        (of_the_engine, {"max_rows": 32}, 0.5),
        (of_the_engine, {"max_rows": 8}, 0.0),
        (of_a_server, {}, 0.0),
    ],
)
def test_left_out_it_follows_from_the_rows_of_a_question(
    tiny: tuple[Any, Any], run: Any, options: dict[str, Any], latency: float
) -> None:
    """Two questions, and 256 rows or as many as are given; a server takes 16 requests."""
    output = run(tiny, controller=NAME, beta=0.3, seed=2, **options)
    assert {trace.controller["latency"] for trace in output.trace} == {latency}
    assert_replays(output, NAME, beta=0.3, latency=latency)


def test_one_that_has_no_schedules_for_it_stays_as_it_is(tiny: tuple[Any, Any]) -> None:
    output = of_the_engine(tiny, controller="thrift", beta=0.3, seed=2)
    assert all("latency" not in trace.controller for trace in output.trace)


def test_the_rule() -> None:
    assert [latency_for(rows) for rows in (0, 0.1, 8, 16, 32, 1e6)] == [0.0, 0.0, 0.0, 0.5, 1.0, 1.0]
    chosen = load_controller(NAME, beta=0.3, n_init=7)
    assert suited(chosen, 256, 1).latency == 1.0
    assert suited(chosen, 256, 1).knobs == {**load_controller(NAME, beta=0.3, latency=1).knobs, "n_init": 7}
    told = load_controller(NAME, latency=0.25)
    assert suited(told, 256, 1) is told
    every = type(chosen)(**chosen.knobs)
    assert suited(every, 256, 1) is every


@pytest.mark.parametrize("latency", [-0.1, 1.1, float("nan"), "short", True])
def test_what_is_no_latency(latency: Any) -> None:
    with pytest.raises(InputError, match="latency must be a number from 0 "):
        load_controller(NAME, latency=latency)


@pytest.mark.parametrize("run", RUNS)
def test_a_latency_that_would_change_nothing(tiny: tuple[Any, Any], run: Any) -> None:
    with pytest.raises(InputError, match=r"latency=0\.5 is for a controller with schedules .*thrift has none"):
        run(tiny, controller="thrift", latency=0.5)
    chosen = load_controller(NAME, beta=0.5)
    with pytest.raises(InputError, match="latency would change nothing"):
        load_controller(type(chosen)(**chosen.knobs), latency=0.5)
    with pytest.raises(InputError, match="controller_kwargs sets knobs, and latency is none"):
        run(tiny, controller=NAME, controller_kwargs={"latency": 0.5})


@pytest.mark.parametrize("beta", [0.0, 0.3, 1.0])
def test_the_ends_are_what_the_file_says_and_the_rest_lies_between(beta: float) -> None:
    few, short = (from_json(CARD[field], CARD) for field in ("knobs", "short"))
    at_ends = {latency: load_controller(NAME, beta=beta, latency=latency) for latency in (0.0, 0.4, 1.0)}
    assert at_ends[0.0].knobs == load_controller(NAME, beta=beta).knobs == at(few, beta)
    assert at_ends[1.0].knobs == at({**few, **short}, beta)
    for name, value in at_ends[0.4].knobs.items():
        low, high = sorted((at_ends[0.0].knobs[name], at_ends[1.0].knobs[name]))
        assert low - 1 <= value <= high + 1 if isinstance(value, int) else 0.999 * low <= value <= 1.001 * high
    assert between({"a": 1.0}, {"a": 3.0}, 0.25) == {"a": 1.5}


def test_it_is_copied_pickled_and_saved_as_it_is(tmp_path: Path) -> None:
    chosen = load_controller(NAME, beta=0.3, latency=0.4)
    for again in (copy.deepcopy(chosen), pickle.loads(pickle.dumps(chosen))):
        assert describe(again) == describe(chosen)
    saved = load_controller(chosen.save_pretrained(tmp_path / "fixed"))
    assert (saved.knobs, saved.latency) == (chosen.knobs, None)
    with pytest.raises(InputError, match="has none"):
        load_controller(tmp_path / "fixed", latency=0.5)
    assert "latency 1" in (builtin_readme := readme(CARD))
    assert "latency 1" not in readme({**CARD, "short": {}})
    assert all(f"`{name}`" in builtin_readme.partition("latency 1")[2] for name in CARD["short"])
    both = load_controller(NAME, beta=0.3, n_init=7).save_pretrained(tmp_path / "both")
    assert load_controller(both, latency=0.4).knobs == {**chosen.knobs, "n_init": 7}


@pytest.mark.parametrize("short", [{"nobody": 3}, {"n_init": 3}, {"n_init": {**Ends(3, 4).to_dict()}}])
def test_a_card_with_no_way_between_its_ends(short: dict[str, Any]) -> None:
    with pytest.raises(ControllerError, match=r"controller\.json: knob .* at latency 1, which has no between"):
        parse_card(json.dumps({**CARD, "short": short}).encode(), "controller.json")
