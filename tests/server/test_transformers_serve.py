"""End to end against a real `transformers serve` process with the tiny model."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from local_servers import ASKED, OPTIONS, QUESTIONS, SUFFIX
from server_checks import assert_replays
from token_server import TokenServer
from typer.testing import CliRunner

from tts_generate import ServerModel, TrajectoryStore, tiny
from tts_generate.cli import app
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.loading import load_controller
from tts_generate.processors import Deadline
from tts_generate.trajectories.schema import questions_to_jsonl

TWO = load_controller("self_consistency", max_samples=2)


@pytest.mark.parametrize("controller", ["cmc", "asc"])
def test_what_a_run_decoded_replays_to_the_same_episode(served: str, tokenizer: Any, controller: str) -> None:
    output = ServerModel(served, tokenizer=tokenizer).generate(
        QUESTIONS, controller=controller, beta=0.0, seed=1, **OPTIONS
    )
    assert_replays(output, controller, beta=0.0)
    assert output.usage.dialect == "transformers"
    taken = [branch for branches in output.branches for branch in branches]
    assert output.usage.completion_tokens >= output.total_cost.generated_tokens == sum(b.tokens for b in taken)
    # This tokenizer cuts text as it was decoded, so the ids of the text are those counted.
    assert all(branch.token_ids is None or len(branch.token_ids) == branch.tokens for branch in taken)
    assert sum(branch.token_ids is not None for branch in taken) >= 0.5 * len(taken)
    assert all(text.startswith("a =") for text in output.texts)


def test_without_a_tokenizer_all_is_text_and_counted_by_the_server(served: str, tokenizer: Any) -> None:
    model = ServerModel(served)
    output = model.generate(QUESTIONS, controller="dynasor", seed=1, **OPTIONS)
    assert_replays(output, "dynasor")
    assert [cost.prompt_tokens for cost in output.cost] == [len(tokenizer(text)["input_ids"]) for text in QUESTIONS]
    suffix = len(tokenizer(SUFFIX)["input_ids"])
    assert {t - suffix for row in output.branches[0] for t in row.probe_tokens} <= {1, 2, 3, 4}
    with pytest.raises(InputError, match="chat template"):
        model.generate([{"role": "user", "content": "1"}], **OPTIONS)
    with pytest.raises(InputError, match="pass max_new_tokens"):
        model.generate(QUESTIONS, **{**OPTIONS, "max_new_tokens": None})
    with pytest.raises(UnsupportedError, match="reads log-probabilities"):
        model.generate(QUESTIONS, controller="deepconf", **OPTIONS)


@pytest.mark.long
def test_sampling_options_beyond_openai_reach_the_server(served: str) -> None:
    """With top_k=1 every branch is the greedy one; at a high temperature none is."""
    model = ServerModel(served)
    options = {**OPTIONS, "max_new_tokens": 48, "controller": TWO, "temperature": 50.0}
    greedy = model.generate(QUESTIONS[0], seed=1, top_k=1, **options)
    again = model.generate(QUESTIONS[0], seed=2, top_k=1, **options)
    wild = model.generate(QUESTIONS[0], seed=1, min_p=0.0, top_p=1.0, repetition_penalty=1.0, **options)
    assert greedy.texts == again.texts != wild.texts


def test_a_wrong_model_is_the_servers_word(served: str) -> None:
    with pytest.raises(Exception, match=r"pinned to .*; requested 'Qwen'"):
        ServerModel(served, model="Qwen").generate(QUESTIONS, **OPTIONS)


def test_requests_called_off_free_the_server(served: str) -> None:
    model = ServerModel(served, max_in_flight=24)
    long = max((question.question for question in tiny.questions("test")), key=len)
    start = time.monotonic()
    model.generate([long] * 4, controller=load_controller("self_consistency", max_samples=1), **OPTIONS)
    one = (time.monotonic() - start) / 4
    options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 64}}
    output = model.generate([long, long], seed=1, branch_processors=[Deadline(1.0)], **options)
    assert output.finish_reason == ["deadline", "deadline"]
    assert output.usage.cancelled >= 16
    start = time.monotonic()
    model.generate(QUESTIONS[0], controller=TWO, **{**OPTIONS, "max_new_tokens": 16})
    assert time.monotonic() - start < 8 * one  # the 24 branches in flight, read to their end, would have come first


def test_record_on_the_command_line_goes_on_and_replays(served: str, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(questions_to_jsonl(ASKED))
    options = {**OPTIONS, "interval_tokens": 48}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
    command = ["record", "--server", served, "--questions", str(questions), *arguments, "--tokenizer", "tiny"]
    # A server given twice, under two names, is two endpoints.
    command += ["--server", served.replace("127.0.0.1", "localhost"), "--branches", "3", "--out"]
    assert "6 branches of 2 questions" in invoke(*command, str(tmp_path / "s"))
    store = TrajectoryStore.open(tmp_path / "s")
    rows = store.trajectories()
    assert all(row.finish_reason in ("eos", "length") for row in rows)
    for row in rows:
        assert row.probe_positions == tuple(range(48, row.tokens, 48))
    assert store.manifest.model["served"] == "transformers"
    assert store.manifest.model["name_or_path"] in (None, str(tiny.path()))  # transformers 5.24 tells its name
    assert store.manifest.generation_config == {"temperature": 1.0, "max_new_tokens": 320}
    invoke(*command, str(tmp_path / "s"))
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == rows  # nothing was missing
    assert "asc" in invoke(
        "replay", str(tmp_path / "s"), "--shuffles", "2", *("--controller", "asc", "--set", "max_samples=3")
    )
    assert "leave it out" in invoke(*command, str(tmp_path / "t"), "--dtype", "float32", code=1)
    assert "for --server only" in invoke("record", "tiny", "--out", "x", "--max-in-flight", "3", code=1)
    assert "needs a model" in invoke("record", "--out", "x", code=1)


def test_what_shapes_branches_is_said_on_the_command_line(token_server: TokenServer, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text(questions_to_jsonl(ASKED))
    command = ["record", "--questions", str(questions), "--branches", "2", "--interval-tokens", "64"]
    command += ["--max-new-tokens", "64", "--min-p", "0.05"]
    there = ["--server", token_server.url, "--tokenizer", "tiny", "--wait", "1"]
    there += ["--stop-string", "; c", "--stop-string", "; d", "--extra-body", '{"priority": 3}']
    token_server.requests.clear()
    assert "spoken to as 'tokens'" in invoke(*command, *there, "--out", str(tmp_path / "s"))
    body = token_server.requests[-1]
    assert (body["priority"], "seed" in body) == (3, False)
    assert any((body.get("min_p"), body.get("stop")) == (0.05, ["; c", "; d"]) for body in token_server.requests)
    store = TrajectoryStore.open(tmp_path / "s")
    assert store.manifest.generation_config == {
        "min_p": 0.05, "stop_strings": ["; c", "; d"], "extra_body": {"priority": 3}, "max_new_tokens": 64,
    }  # fmt: skip
    assert {row.finish_reason for row in store.trajectories()} == {"stop"}
    invoke(*command, "tiny", "--out", str(tmp_path / "here"))
    assert TrajectoryStore.open(tmp_path / "here").manifest.generation_config["min_p"] == 0.05
    here = ["--out", str(tmp_path / "x"), "tiny"]
    assert "cannot look for stop_strings" in invoke(*command, *here, "--stop-string", "; c", code=1)  # this tokenizer
    for more, message in (
        (["--extra-body", "{}"], "for --server only"),
        (["--min-p", "2"], "--min-p must be a number from 0 to 1, got 2.0"),
        ([*there, "--extra-body", "[]"], "--extra-body must be a JSON object"),
        ([*there, "--extra-body", '{"n": 4}'], "extra_body cannot set 'n'"),
    ):
        assert message in invoke(*command, *here, *more, code=1)


def invoke(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, list(arguments))
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


@pytest.mark.long
def test_the_example_runs(served: str) -> None:
    example = Path(__file__).resolve().parents[2] / "examples" / "server.py"
    assert len(example.read_text().splitlines()) <= 60
    done = subprocess.run(
        [sys.executable, str(example), served, "--questions", "1"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("right") == 2
