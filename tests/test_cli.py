"""The command line over real stores, and the demo from end to end, made small."""

from __future__ import annotations

import csv
import dataclasses
import json
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from forked import Forked
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.loading import load_controller
from tts_generate.trajectories import Trajectory, TrajectoryStore


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


TABLE = [
    {
        "question": f"question {n}",
        "gold_answer": "7",
        "probe_freq": 500,
        "final_answers_trace": [],
        "each_branch": [[["1", "7"][: b % 3], 400 + 300 * b, "7" if (b + n) % 3 else "8"] for b in range(8)],
    }
    for n in range(4)
]


@pytest.fixture
def store(tmp_path: Path) -> Path:
    (tmp_path / "table.json").write_text(json.dumps(TABLE))
    assert "32 branches of 4 questions" in invoke("import", "autotts", tmp_path / "table.json", "--out", tmp_path / "s")
    return tmp_path / "s"


def test_replay_writes_json_and_episodes(store: Path, tmp_path: Path) -> None:
    outputs = ("--json", tmp_path / "r.json", "--episodes", tmp_path / "new" / "e.npz")
    invoke("replay", store, "--controller", "asc", "--shuffles", 5, "--set", "max_samples=4", *outputs)
    row = json.loads((tmp_path / "r.json").read_text())
    with np.load(tmp_path / "new" / "e.npz") as found:
        episodes = dict(found)
    assert row["format"] == "tts-replay/1"
    assert row["knobs"] == {"max_samples": 4, "threshold": 0.95, "criterion": "beta"}
    assert row["accuracy"] == pytest.approx(100 * episodes["correct"].mean())
    assert row["tokens"] == pytest.approx(episodes["cost"].mean())
    assert episodes["answers"].shape == (5, 4)
    few = ("--set", "max_branches=4", "--set", "n_init=4", "--shuffles", 2, "--json", tmp_path / "r.json")
    for latency in ("0", "1"):
        invoke("replay", store, "--controller", "pace", "--latency", latency, *few)
        found = json.loads((tmp_path / "r.json").read_text())["knobs"]
        assert found == load_controller("pace", latency=float(latency), max_branches=4, n_init=4).knobs


def test_sweep_writes_json_csv_and_plot(store: Path, tmp_path: Path) -> None:
    chosen = ("--controllers", "self_consistency, asc,", "--betas", "0, 0.05", "--shuffles", 2)
    files = ("--json", tmp_path / "s.json", "--csv", tmp_path / "s.csv", "--plot", tmp_path / "s.png")
    invoke("sweep", store, *chosen, *files, "--at-k", "1,8")
    result = json.loads((tmp_path / "s.json").read_text())
    assert [row["label"] for row in result["cells"]] == [row["label"] for row in result["average"]]
    assert [row["label"] for row in result["average"]][:2] == ["SC@8", "ASC@8"]
    for name, told in result["frontiers"].items():  # the chain of what is mixed to the baseline's accuracy
        of = [row for row in result["average"] if name in (row["label"], row["controller"])]
        chains = [row["sequential_tokens"] for row in of]
        assert told["chain_at_baseline"] is None or min(chains) <= told["chain_at_baseline"] <= max(chains)
    assert result["frontiers"]["SC@8"]["chain_at_baseline"] == result["average"][0]["sequential_tokens"]
    wanted = {"controller", "beta", "accuracy", "accuracy_ci", "tokens", "sequential_tokens", "rounds"}
    assert all(wanted <= set(row) for row in [*result["cells"], *result["average"]])
    assert result["default"] == "pace"
    assert set(result["at_k"][str(store)]) == {f"{name}@{k}" for name in ("pass", "maj", "avg") for k in (1, 8)}
    found = list(csv.DictReader((tmp_path / "s.csv").read_text().splitlines()))
    assert len(found) == 6
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def test_a_sweep_holds_controllers_to_what_is_recorded(store: Path, tmp_path: Path) -> None:
    """As typed by a newcomer, on a store of few branches: the budgets that allow more say what they got."""
    invoke("sweep", store, "--shuffles", 2, "--json", tmp_path / "s.json")
    rows = {row["label"]: row for row in json.loads((tmp_path / "s.json").read_text())["average"]}
    assert rows["self_consistency β=1, max_samples=8"]["branches"] == 8
    assert rows["cmc β=0.5, max_branches=8"]["knobs"]["max_branches"] == 8
    assert rows["self_consistency β=0"]["branches"] == 4


def test_a_sweep_asks_for_no_more_branches_than_every_question_has(tmp_path: Path) -> None:
    table = [{**row, "each_branch": row["each_branch"][: 8 - n]} for n, row in enumerate(TABLE)]
    (tmp_path / "ragged.json").write_text(json.dumps(table))
    invoke("import", "autotts", tmp_path / "ragged.json", "--out", tmp_path / "r")
    rows = ("SC@5", "ASC@5", "self_consistency β=1, max_samples=5")
    told = invoke("sweep", tmp_path / "r", "--controllers", "self_consistency", "--betas", "1", "--shuffles", 2)
    assert all(row in told for row in rows)


def test_one_sweep_has_one_step(store: Path, tmp_path: Path) -> None:
    table = [{**question, "probe_freq": 250} for question in TABLE]
    (tmp_path / "other.json").write_text(json.dumps(table))
    invoke("import", "autotts", tmp_path / "other.json", "--out", tmp_path / "o")
    output = invoke("sweep", store, tmp_path / "o", "--controllers", "asc", "--betas", "0", code=1)
    assert "must have one step" in output


def test_sweep_over_two_stores_averages_them(store: Path, tmp_path: Path) -> None:
    (tmp_path / "again.json").write_text(json.dumps(TABLE))
    invoke("import", "autotts", tmp_path / "again.json", "--out", tmp_path / "o")
    chosen = ("--controllers", "asc", "--betas", "0,0.05", "--shuffles", 2, "--json", tmp_path / "s.json")
    output = invoke("sweep", store, tmp_path / "o", *chosen)
    assert "average of 2 stores" in output
    result = json.loads((tmp_path / "s.json").read_text())
    for n, row in enumerate(result["average"]):
        cells = [cell for cell in result["cells"] if cell["label"] == row["label"]]
        assert len(cells) == 2
        assert row["tokens"] == pytest.approx(np.mean([cell["tokens"] for cell in cells])), n
    assert result["frontiers"]["asc"]["tokens_at_baseline"] is None or result["frontiers"]["asc"]["points"]


def test_pictures_and_orders_that_cannot_be(store: Path, tmp_path: Path) -> None:
    """The bugs: matplotlib's ValueError after the sweep; and every order up to the one asked for was made."""
    assert "PNG or SVG" in invoke(
        "sweep", store, "--betas", "0", "--shuffles", "2", "--plot", tmp_path / "p.xyz", code=1
    )
    assert (
        "asc at beta 0"
        in invoke(
            "trace", store, "--controller", "asc", "--beta", "0", "--question", "0", "--shuffle", "99999999"
        ).lower()
    )


def test_trace_prints_and_writes(store: Path, tmp_path: Path) -> None:
    chosen = ("--controller", "asc", "--set", "max_samples=4")
    output = invoke("trace", store, *chosen, "--question", "0", "--shuffle", "3")
    assert "opens #0" in output
    assert "answers" in output
    assert "tokens" in output
    assert "4 traces" in invoke("trace", store, *chosen, "--jsonl", tmp_path / "t.jsonl")
    first = json.loads((tmp_path / "t.jsonl").read_text().splitlines()[0])
    assert first["format"] == "tts-trace/2"
    again = invoke("trace", tmp_path / "t.jsonl", "--question", first["question_id"])
    assert again == invoke("trace", store, *chosen, "--question", first["question_id"])
    for options in (["--beta", "0.2"], ["--shuffle", "1"], ["--set", "n_init=2"], ["--controller", "cmc"]):
        refused = invoke("trace", tmp_path / "t.jsonl", *options, code=1)
        assert f"{options[0]} is for a store to be run on" in refused  # it was taken and ignored
    assert "holds no trace of question 'none such'" in invoke(
        "trace", tmp_path / "t.jsonl", "--question", "none such", code=1
    )
    assert "unknown question of s" in invoke("trace", store, "--question", "none such", code=1)
    (tmp_path / "t.jsonl").write_text('{"format": "tts-trace/1"}\n')
    assert "tts-trace/2" in invoke("trace", tmp_path / "t.jsonl", code=1)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--controller", "acs"), "did you mean 'asc'"),
        (("--controller", "asc", "--set", "max_sample=4"), "did you mean 'max_samples'"),
        (("--controller", "asc", "--set", "max_samples"), "--set takes name=value"),
        (("--beta", "2"), "beta must be a number from 0"),
        (("--shuffles", "-1"), "shuffles"),
        (("--controller", "self_consistency", "--beta", "1"), "wants 64 branches but this episode has 8"),
    ],
)
def test_bad_input_is_one_line(store: Path, arguments: tuple[str, ...], text: str) -> None:
    output = invoke("replay", store, *arguments, code=1)
    assert text in output
    assert output.startswith("error:")
    assert "Traceback" not in output


def test_no_store_no_questions_no_such_option(tmp_path: Path) -> None:
    assert "not a trajectory store" in invoke("replay", tmp_path / "none", code=1)
    assert "--questions is needed" in invoke("record", "some/model", "--out", tmp_path / "s", code=1)
    assert "is not a file" in invoke("record", "tiny", "--questions", tmp_path / "q", "--out", tmp_path / "s", code=1)
    assert "--dtype" in invoke("record", "tiny", "--dtype", "float99", "--out", tmp_path / "s", code=1)
    invoke("replay", tmp_path, "--betta", "0.5", code=2)
    (tmp_path / "q.jsonl").write_text('{"question_id": "1", "qestion": "x"}\n')
    assert "line 1" in invoke("record", "tiny", "--questions", tmp_path / "q.jsonl", "--out", tmp_path / "s", code=1)


RECORD = ["record", "tiny", "--branches", "8"]
SLOWLY = ["--max-rows", "1"]
"""Long enough to be interrupted half-way; how many rows there are is no setting of a recording."""


def questions_file(folder: Path, count: int = 6) -> Path:
    from tts_generate import tiny

    path = folder / "questions.jsonl"
    rows = [
        {"question_id": q.question_id, "question": q.question, "gold_answer": q.gold_answer}
        for q in tiny.questions("record")
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[:count]))
    return path


def assert_same_rows(one: Path, other: Path) -> None:
    """The branches of two stores; the last bits of log-probabilities depend on the rows beside a branch."""

    def without(row: Trajectory) -> Trajectory:
        nothing = (None,) * len(row.probe_logprobs)
        return dataclasses.replace(row, step_logprobs=(), probe_logprobs=nothing)

    ours, theirs = (TrajectoryStore.open(path).trajectories() for path in (one, other))
    assert [without(row) for row in ours] == [without(row) for row in theirs]
    for mine, twin in zip(ours, theirs, strict=True):
        assert mine.step_logprobs == pytest.approx(twin.step_logprobs, abs=1e-4)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The questions, and a recording of them."""
    folder = tmp_path_factory.mktemp("uninterrupted")
    questions = questions_file(folder)
    invoke(*RECORD, "--questions", questions, "--out", folder / "whole")
    return questions, folder / "whole"


@pytest.mark.long
@pytest.mark.parametrize(
    ("blow", "code"), [(signal.SIGKILL, -signal.SIGKILL), (signal.SIGINT, 130), (signal.SIGTERM, 143)]
)
def test_an_interrupted_recording_goes_on_and_ends_with_the_same_rows(
    uninterrupted: tuple[Path, Path], tmp_path: Path, blow: signal.Signals, code: int
) -> None:
    """A real SIGKILL, or Ctrl-C, of a real recording with the tiny model, then the same command again."""
    questions, whole = uninterrupted
    asked = [*RECORD, "--questions", str(questions), "--out", str(tmp_path / "s")]
    child = Forked(app, [*asked, *SLOWLY])
    journal = tmp_path / "s" / "journal"
    deadline = time.monotonic() + 120
    while not (journal.is_file() and journal.stat().st_size) and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    child.send_signal(blow)
    child.communicate()
    assert child.returncode == code
    kept = len(TrajectoryStore.open(tmp_path / "s").trajectories())
    assert 0 < kept < 48
    assert "48 branches" in invoke(*asked)
    assert_same_rows(tmp_path / "s", whole)
    other = invoke(*asked, "--seed", "9", code=1)
    assert "other settings (seed" in other.replace("\n", " ")


@pytest.mark.long
def test_a_demo_that_is_told_to_end_counts_no_question_that_was_cut(tmp_path: Path) -> None:
    sizes = ["--recorded", "3", "--live", "8", "--branches", "12", "--minutes", "0.001"]
    child = Forked(app, ["demo", "--out", str(tmp_path), *sizes])
    deadline = time.monotonic() + 240
    while "5. live" not in child.written() and child.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # a method is answering, or has just answered
    child.send_signal(signal.SIGTERM)
    _, complaint = child.communicate(60)
    assert child.returncode == 143, complaint
    assert "run the same command again" in complaint
    assert not (tmp_path / "demo.json").exists()


@pytest.mark.long
def test_demo_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = invoke("demo", "--out", tmp_path, "--recorded", 3, "--live", 4, "--branches", 12, "--minutes", 0.001)
    assert "15 of 15 episodes" in output
    result: dict[str, Any] = json.loads((tmp_path / "demo.json").read_text())
    assert set(result["live"]) == {
        "self_consistency",
        "self_consistency_16",
        "self_consistency_8",
        "asc",
        "cmc",
        "thrift",
        "found",
    }
    fields = {"accuracy", "accuracy_ci", "generated_tokens", "probe_tokens", "wasted_tokens", "seconds"}
    assert all(fields <= set(row) for row in result["live"].values())
    assert result["live_equals_replay"] == {"episodes": 15, "equal": 15}
    assert result["search"]["tried"] >= 20
    assert load_controller(tmp_path / "search" / "best").beta == 0.5
    baseline, ours = result["live"]["self_consistency"], result["live"]["cmc"]
    spent = (ours["generated_tokens"] + ours["probe_tokens"]) / baseline["generated_tokens"]
    assert result["token_saving"] == pytest.approx(1 - spent)
    assert (tmp_path / "frontier.png").read_bytes().startswith(b"\x89PNG")
