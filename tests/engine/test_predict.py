"""Seconds read off a recording: the engine's own loop on a clock, held against the engine itself pass by pass."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from tts_generate import tiny
from tts_generate.cli import app
from tts_generate.controller import Controller
from tts_generate.engine import enable, record
from tts_generate.engine.cache import Prefix, SlotCache
from tts_generate.engine.decoder import Decoder
from tts_generate.engine.plan import Pass
from tts_generate.engine.predict import predict
from tts_generate.engine.profiling import _processors, measure
from tts_generate.errors import InputError, StoreError
from tts_generate.live.reader import Reader
from tts_generate.live.thinking import asked_of
from tts_generate.loading import held_within, load_controller
from tts_generate.profile import Profile
from tts_generate.publish.live import prompts
from tts_generate.trajectories import StoreWriter, TrajectoryStore

STEP, BRANCHES, QUESTIONS, MOST = 16, 8, 5, 96
A_SECOND_A_PASS = Profile((1, 4), (1.0, 1.0), (0.0, 0.0), (1,), (0.0,), block=32, min_tokens=4)


@pytest.fixture(scope="module")
def at_hand(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, TrajectoryStore]:
    model, tokenizer = tiny.load()
    enable(model, tokenizer=tokenizer)
    store = record(
        model, tokenizer, tiny.questions("record")[:QUESTIONS], tmp_path_factory.mktemp("store") / "store",
        branches=BRANCHES, seed=3, interval_tokens=STEP, max_new_tokens=MOST, progress=False,
    )  # fmt: skip
    return model, tokenizer, store


def held(name: str, **knobs: Any) -> Controller:
    return held_within(load_controller(name, **knobs), BRANCHES)


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *((name, {}) for name in ("self_consistency", "asc", "cmc", "thrift", "short_m_at_k", "parallel_probe")),
        *((name, {"max_rows": 6}) for name in ("self_consistency", "cmc")),
        *((name, {"ahead_rows": 12}) for name in ("asc", "cmc")),
        *((name, {"ahead_rows": "auto"}) for name in ("asc", "cmc")),
        ("cmc", {"decode_ahead": False}),
    ],
    ids=str,
)
def test_passes_are_those_of_the_engine(
    at_hand: tuple[Any, Any, TrajectoryStore], monkeypatch: pytest.MonkeyPatch, name: str, how: dict[str, Any]
) -> None:
    """Every pass of a live call, its tokens, spans, columns that it reads or copies, are in the prediction."""
    model, tokenizer, store = at_hand
    controller, fed, copied = held(name), [], []
    run, of_cache = Decoder.run, {name: getattr(SlotCache, name) for name in ("admit", "move", "resize")}

    def counted(self: Decoder, tokens: Any, plan: Pass) -> Any:
        fed.append((len(plan.slots), len(plan.spans), plan.reading[1]))
        return run(self, tokens, plan)

    def admitted(self: SlotCache, prefix: Prefix, slots: Sequence[int]) -> None:
        copied.append(len(slots) * prefix[0].columns[0].shape[1])
        of_cache["admit"](self, prefix, slots)

    def moved(self: SlotCache, sources: Sequence[int], targets: Sequence[int], length: int) -> None:
        copied.append(len(sources) * length)
        of_cache["move"](self, sources, targets, length)

    def resized(self: SlotCache, rows: int, capacity: int, length: int) -> None:
        copied.append(min(rows, self.rows) * length * ((rows, capacity) != (self.rows, self.capacity)))
        of_cache["resize"](self, rows, capacity, length)

    shapes, suffix = Decoder(model).shapes, Reader(tokenizer, asked_of(tokenizer))
    forced = len(suffix.suffix_ids(suffix.format.probe_suffix))
    a_column = 0.0 if "auto" in how.values() else 2**-10  # else rows that are free change from pass to pass
    counts = dataclasses.replace(
        A_SECOND_A_PASS, block=shapes.block, min_tokens=shapes.min_tokens, suffix_tokens=forced, span=0.25,
        column=(a_column, a_column), copied_column=2**-20,
    )  # fmt: skip
    for of, ways in ((Decoder, {"run": counted}), (SlotCache, {"admit": admitted, "move": moved, "resize": resized})):
        for way, ours in ways.items():
            monkeypatch.setattr(of, way, ours)
    model.generate(
        **prompts(model, tokenizer, store.questions), strategy="autotts", controller=controller, seed=3,
        interval_tokens=STEP, max_new_tokens=MOST, self_check=False, profile=counts, **({"ahead_rows": 0} | how),
    )  # fmt: skip
    tokens, spans, read = (sum(each) for each in zip(*fed, strict=True))
    seconds = len(fed) + (spans - len(fed)) / 4 + read * a_column + sum(copied) / 2**20
    found = predict(store, controller, counts, prompts=QUESTIONS, first_shuffle=None, **how)
    assert (found.passes, found.tokens) == (len(fed), tokens)
    # the longest probe is not recorded, so a probe's columns may be others; with "auto", turns that open rows are fewer
    assert found.calls[0] == pytest.approx(seconds, rel=2e-3 if a_column else 0.1)


def test_questions_are_answered_one_by_one(at_hand: tuple[Any, Any, TrajectoryStore]) -> None:
    """With one prompt a call, an answer takes as long as its longest chain; with all in one, no longer together."""
    store = at_hand[2]
    alone, together = (predict(store, held("asc"), A_SECOND_A_PASS, prompts=n) for n in (1, QUESTIONS))
    assert alone.calls.shape == (QUESTIONS,)
    assert np.array_equal(alone.calls, alone.seconds)
    assert together.calls.sum() < alone.calls.sum()
    assert together.seconds.max() == together.calls[0]
    assert together.to_dict()["seconds_a_question"] == together.calls[0] / QUESTIONS


def test_calls_are_filled_up_with_other_orders(at_hand: tuple[Any, Any, TrajectoryStore]) -> None:
    found = predict(at_hand[2], held("cmc"), A_SECOND_A_PASS, prompts=QUESTIONS + 3)
    assert (len(found.calls), len(found.seconds)) == (1, QUESTIONS + 3)


def test_a_branch_that_was_not_read_to_its_end(at_hand: tuple[Any, Any, TrajectoryStore], tmp_path: Path) -> None:
    from tts_generate.trajectories import StoreWriter

    store = at_hand[2]
    rows = [dataclasses.replace(row, finish_reason=None, final_answer=None) for row in store.trajectories()]
    with StoreWriter.open(tmp_path / "s", store.manifest, store.questions) as writer:
        writer.append(rows)
    with pytest.raises(StoreError, match="not recorded to its end"):
        predict(TrajectoryStore.open(tmp_path / "s"), held("asc"), A_SECOND_A_PASS)


@pytest.mark.parametrize("asked", [[], ["nobody's"]])
def test_questions_that_there_are_not(at_hand: tuple[Any, Any, TrajectoryStore], asked: list[str]) -> None:
    flat = Profile((1, 64), (0.01, 0.011), (1e-7, 1e-7), (16,), (0.02,))
    with pytest.raises(StoreError, match="nothing to predict"):
        predict(at_hand[2], load_controller("self_consistency", max_samples=2), flat, questions=asked)


def test_a_controller_that_fails_on_its_way_has_no_seconds(at_hand: tuple[Any, Any, TrajectoryStore]) -> None:
    """It was warned of, and the seconds were those up to there."""

    class Fails(Controller):
        probing = "never"

        @staticmethod
        def schedule(beta: float) -> dict[str, float]:
            return {}

        def begin(self, state: Any, do: Any) -> None:
            do.open = 2

        def plan(self, state: Any, do: Any) -> None:
            raise ValueError("not on a recording")

    with pytest.raises(ValueError, match="not on a recording"):
        predict(at_hand[2], Fails(), A_SECOND_A_PASS)


def test_stop_strings_of_a_checkpoint_are_no_matter(at_hand: tuple[Any, Any, TrajectoryStore]) -> None:
    """transformers wants the tokenizer for them, and they change nothing of what a pass takes."""
    model = at_hand[0]
    model.generation_config.stop_strings = ["Question:"]
    try:
        assert len(_processors(model, {"do_sample": True, "top_p": 0.9})) == 1
    finally:
        model.generation_config.stop_strings = None


def test_a_profile_is_measured_and_read_again(at_hand: tuple[Any, Any, TrajectoryStore], tmp_path: Path) -> None:
    profile = measure(*at_hand[:2], max_rows=32, passes=2, do_sample=True, top_p=0.9)
    assert profile.tokens == tuple(sorted({*profile.tokens}))
    assert (profile.tokens[0], profile.tokens[-1]) == (1, 32)
    assert profile.column_bytes == 1152  # float32 keys and values of the tiny model's layers and heads
    assert float(profile.passes(16, 0)) > 0
    assert profile.prefill(200) > 0
    assert profile.copied_column > 0
    assert set(profile.error) == {"median", "worst"}
    profile.save(tmp_path / "p.json")
    assert Profile.load(tmp_path / "p.json") == profile


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_profile_of_few_rows(at_hand: tuple[Any, Any, TrajectoryStore], rows: int) -> None:
    profile = measure(*at_hand[:2], max_rows=rows, passes=1)
    assert profile.tokens == tuple(range(1, rows + 1))
    assert profile.copied_column > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [("[]", "is no profile"), ('{"format": "tts-profile/1", "tokens": [1]}', "is no profile"),
     ('{"format": "tts-demo/1"}', "format is not")],
)  # fmt: skip
def test_what_is_no_profile(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "p.json").write_text(text)
    with pytest.raises(InputError, match=said):
        Profile.load(tmp_path / "p.json")


@pytest.mark.parametrize("tokens", [(), (0, 4), (4, 4), (8, 4)])
def test_figures_that_no_device_has(tokens: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="ascending numbers of tokens"):
        Profile(tokens, (1.0,) * len(tokens), (0.0,) * len(tokens), (1,), (0.0,))
    with pytest.raises(InputError, match="finite and not below 0"):
        Profile((1,), (-1.0,), (0.0,), (1,), (0.0,))


def test_seconds_go_by_the_votes_of_the_sweep(at_hand: tuple[Any, Any, TrajectoryStore], tmp_path: Path) -> None:
    """Branches that all say a half, each in its own way: by mathematics adaptive consistency has read enough soon."""
    pytest.importorskip("math_verify")
    halves, store = ("0.5", r"\frac{1}{2}", "1/2", "0.50"), at_hand[2]
    with StoreWriter.open(tmp_path / "store", store.manifest, store.questions) as writer:
        for row in store.trajectories():
            half = halves[row.branch % len(halves)]
            said = tuple(half for _ in row.probe_answers)
            writer.append([dataclasses.replace(row, final_answer=half, probe_answers=said)])
    A_SECOND_A_PASS.save(tmp_path / "p.json")
    told = {}
    for votes in ("equal", "math"):
        command = ["sweep", str(tmp_path / "store"), "--controllers", "asc", "--betas", "0.5", "--shuffles", "2"]
        more = ["--profile", str(tmp_path / "p.json"), "--prompts", "1", "--max-rows", "1", "--votes", votes]
        done = CliRunner().invoke(app, [*command, *more, "--json", str(tmp_path / "s.json")])
        assert done.exit_code == 0, done.output
        found = json.loads((tmp_path / "s.json").read_text())["seconds"][str(tmp_path / "store")]
        told[votes] = {label: rows[0]["seconds"] for label, rows in found.items()}
    assert told["math"]["SC@8"] == told["equal"]["SC@8"]
    assert told["math"]["ASC@8"] < told["equal"]["ASC@8"]


def test_on_the_command_line(at_hand: tuple[Any, Any, TrajectoryStore], tmp_path: Path) -> None:
    """`profile` writes what `sweep --profile` reads."""
    run = CliRunner()
    done = run.invoke(
        app, ["profile", "tiny", "--out", str(tmp_path / "new" / "p.json"), "--max-rows", "8", "--passes", "1"]
    )
    assert done.exit_code == 0, done.output
    command = ["sweep", str(at_hand[2].path), "--controllers", "asc", "--betas", "0.5", "--shuffles", "2"]
    more = ["--profile", str(tmp_path / "new" / "p.json"), "--prompts", "1,4", "--json", str(tmp_path / "s.json")]
    done = run.invoke(app, [*command, *more])
    assert done.exit_code == 0, done.output
    assert "predicted seconds" in done.output
    done = run.invoke(app, [*command, "--prompts", "4"])
    assert done.exit_code == 1
    assert "--prompts needs --profile" in done.output
    for counts in (",", "0", "4,-1"):
        done = run.invoke(app, [*command, "--profile", str(tmp_path / "new" / "p.json"), "--prompts", counts])
        assert done.exit_code == 1
        assert "--prompts takes whole numbers from 1 on" in done.output
    told = json.loads((tmp_path / "s.json").read_text())["seconds"][str(at_hand[2].path)]
    assert [each["prompts"] for each in told["SC@8"]] == [1, 4]
    assert all(each["p95"] >= each["p50"] > 0 for rows in told.values() for each in rows)
