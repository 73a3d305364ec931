"""Several real processes (gloo, on the CPU): one store, one list of answers, and what happens when one of them ends."""

from __future__ import annotations

import copy
import json
import os
import pickle
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import distributed_worker as worker
import pyarrow.parquet as pq
import pytest
import torch
from accelerate import PartialState
from engine_models import QUESTIONS, Live
from forked import Forked, job_of, script
from test_generate import read
from transformers import GenerationConfig

from tts_generate import tiny
from tts_generate.engine import distributed
from tts_generate.engine.distributed import generate_distributed
from tts_generate.engine.processes import Processes, launched, own_device
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.trajectories import Trajectory, TrajectoryStore

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = {
    **os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1",
    "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(Path(__file__).parent)]),
}  # fmt: skip
# --cpu starts one process only, however many are asked for; on a machine without GPUs, --multi_gpu starts them on CPU.
LAUNCH = [
    sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2", "--num_machines", "1",
    "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0",
]  # fmt: skip


def launch(*command: object) -> subprocess.CompletedProcess[str]:
    arguments = [*LAUNCH, *map(str, command)]
    with tempfile.TemporaryDirectory() as folder:  # torch's launcher leaves its logs there
        environment = {**ENVIRONMENT, "TMPDIR": folder}
        return subprocess.run(arguments, env=environment, capture_output=True, text=True, timeout=120, check=False)


def start(count: int, mode: str, folder: Path) -> list[Forked]:
    return job_of(count, worker.work, mode, folder)


def tokens(rows: list[Trajectory]) -> list[Any]:
    """What was decoded; the last bits of log-probabilities depend on the rows beside a branch."""
    return [(row.key, row.seed, row.prompt_tokens, *read([row])) for row in rows]


def shards(store: Path) -> list[set[tuple[str, int]]]:
    tables = [pq.read_table(part) for part in sorted(store.glob("part-*.parquet"))]
    return [set(zip(*(table[name].to_pylist() for name in ("question_id", "branch")), strict=True)) for table in tables]


def assert_tidy(store: Path) -> None:
    """Every branch once, and nothing of the processes left."""
    parts = shards(store)
    assert sum(map(len, parts)) == len(set().union(*parts)) == len(TrajectoryStore.open(store).trajectories())
    assert {path.name for path in store.iterdir()} - {"LOCK", "journal", "manifest.json", "questions.jsonl"} == {
        path.name for path in store.glob("part-*.parquet")
    }
    assert (store / "journal").stat().st_size == 0


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes recorded and answered."""
    folder = tmp_path_factory.mktemp("job")
    for child in start(2, "both", folder):
        _, complaints = child.communicate(timeout=120)
        assert child.returncode == 0, complaints
    return folder


def found(job: Path, index: int) -> dict[str, Any]:
    result: dict[str, Any] = pickle.loads((job / f"found-{index}.pickle").read_bytes())
    return result


@pytest.mark.long
def test_two_processes_record_what_one_does(job: Path, qwen: Live, tmp_path: Path) -> None:
    alone = worker.record_all(qwen, tmp_path / "alone")
    assert tokens(found(job, 0)["rows"]) == tokens(found(job, 1)["rows"]) == tokens(alone.trajectories())
    assert alone.manifest == TrajectoryStore.open(job / "store").manifest
    parts = shards(job / "store")
    assert len(parts) == 2
    assert not parts[0] & parts[1]
    assert abs(len(parts[0]) - len(parts[1])) <= 1
    assert all({key[0] for key in part} == {"q0", "q1", "q2"} for part in parts)  # each a part of every question
    assert_tidy(job / "store")
    worker.record_all(qwen, job / "store")  # there is nothing left to do
    assert shards(job / "store") == parts


def test_two_processes_answer_what_one_does(job: Path, qwen: Live) -> None:
    calls: list[tuple[list[str], dict[str, Any]]] = [(QUESTIONS, {}), (QUESTIONS[:1], {}), (QUESTIONS, {})]
    for number, (questions, changes) in enumerate([*calls, (QUESTIONS, worker.PACED)]):
        ours, theirs = (found(job, index)["answers"][number] for index in (0, 1))
        alone = worker.answer_all(qwen, *questions, seed=ours.seed, **changes)
        for output in (ours, theirs):
            assert output.sequences.tolist() == alone.sequences.tolist()
            for name in ("answers", "votes", "cost", "winners", "seed", "trace", "questions", "finish_reason"):
                assert output[name] == alone[name], name
            assert output.discarded_tokens == alone.discarded_tokens
            assert list(map(tokens, output.branches)) == list(map(tokens, alone.branches))
    assert {trace.controller["latency"] for trace in ours.trace} == {0.5}


def wait_for_journals(store: Path, children: list[Forked]) -> None:
    deadline = time.monotonic() + 60
    journals = [store / "journal", store / "journal-1"]
    while not all(path.is_file() and path.stat().st_size for path in journals):
        assert all(child.poll() is None for child in children), [child.communicate() for child in children]
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.long
@pytest.mark.parametrize(("victim", "processes"), [(1, 1), (0, 2)])
def test_a_killed_process_ends_the_others_and_nothing_is_lost(tmp_path: Path, victim: int, processes: int) -> None:
    """SIGKILL of one process of two, then the same recording with one, or with two."""
    store = tmp_path / "s"
    children = start(2, "slowly", store)
    wait_for_journals(store, children)
    children[victim].send_signal(signal.SIGKILL)
    killed = time.monotonic()
    _, complaints = children[1 - victim].communicate(timeout=30)
    children[victim].communicate()
    assert time.monotonic() - killed < 10
    assert f"ProcessError: process {victim} of 2 ended early: it was killed. What was recorded is kept" in complaints
    assert [child.returncode for child in children] == ([1, -9] if victim else [-9, 1])
    kept = TrajectoryStore.open(store).trajectories()
    assert 0 < len(kept) < 6 * 24
    sealed = shards(store)
    if processes == 1:
        worker.record_tiny(store, 64)
    for child in start(processes, "fast", store) if processes > 1 else []:
        _, complaints = child.communicate(timeout=120)
        assert child.returncode == 0, complaints
    rows = TrajectoryStore.open(store).trajectories()
    assert len(rows) == 6 * 24
    assert set(kept) <= set(rows)  # as they were, to the last bit: not recorded again
    assert all(part in shards(store) for part in sealed)
    assert_tidy(store)


def test_where_one_process_fails_all_do(tmp_path: Path) -> None:
    """One raises and lives on: the other ends at once with its error, in recording and in answering; then it dies."""
    children = start(2, "raising", tmp_path)
    (said, complaints), (theirs, _) = (child.communicate(timeout=90) for child in children)
    assert children[0].returncode == 0, complaints
    expected = [
        "0 ProcessError process 1 of 2 ended early: RuntimeError: broken processor. What was recorded is kept",
        "1 ProcessError process 1 of 2 failed: StoreFormatError: ",
        "2 ProcessError process 1 of 2 failed: RuntimeError: broken processor",
        "3 ProcessError the processes were given different seed; give all",
        "4 ProcessError the processes were given different beta, controller_kwargs; give all",
        "5 UnsupportedError this model's weights are spread over the processes",
        "6 ProcessError another process of this job ended early",
    ]
    for line, start_of_it in zip(said.splitlines(), expected, strict=True):
        assert line.startswith(start_of_it)
    assert "other settings (seed: 5 here, 6 asked for)" in said
    assert children[1].returncode == 9
    kinds = [line.split()[1] for line in theirs.splitlines()]
    assert kinds == [
        "RuntimeError",
        "StoreFormatError",
        "RuntimeError",
        "ProcessError",
        "ProcessError",
        "UnsupportedError",
    ]


@pytest.mark.long
def test_the_command_line_under_accelerate_launch(tmp_path: Path) -> None:
    questions = tmp_path / "q.jsonl"
    rows = [(q.question_id, q.question, q.gold_answer) for q in tiny.questions("record")[:3]]
    names = ("question_id", "question", "gold_answer")
    questions.write_text("".join(json.dumps(dict(zip(names, row, strict=True))) + "\n" for row in rows))
    command = ["record", "tiny", "--questions", questions, "--branches", 4, "--out", tmp_path / "s"]
    done = launch("-m", "tts_generate.cli", *command)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("12 branches of 3 questions") == 1
    assert len(shards(tmp_path / "s")) == 2
    assert_tidy(tmp_path / "s")


@pytest.mark.long
def test_the_example(tmp_path: Path) -> None:
    said = ""
    for child in job_of(2, script, str(ROOT), str(ROOT / "examples" / "record_distributed.py"), [str(tmp_path / "s")]):
        out, complaints = child.communicate(timeout=120)
        assert child.returncode == 0, complaints
        said += out
    assert said.count("32 branches of 4 questions by 2 processes") == 1
    assert said.count(" of 4 right") == 1
    assert_tidy(tmp_path / "s")


def test_a_lone_process_needs_nothing_of_this(qwen: Live) -> None:
    before = dict(PartialState._shared_state)
    assert launched() == Processes(0, 1)
    assert own_device("cuda") == "cuda"
    assert PartialState._shared_state == before  # a later Accelerator() is free to choose
    plain = qwen.run(*QUESTIONS, seed=3)
    assert worker.answer_all(qwen, *QUESTIONS).branches == plain.branches


def test_rows_are_padded_as_in_one_process(qwen: Live) -> None:
    """What a generation config does not say the model's own does: 0 was put behind what ended with the pad token."""
    own = copy.copy(qwen.model.generation_config)
    own.pad_token_id, given = None, {"generation_config": GenerationConfig(max_new_tokens=40)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(qwen.model, "generation_config", own)
        assert distributed._pad_id(qwen.model, given) == own.eos_token_id
        assert distributed._pad_id(qwen.model, {**given, "pad_token_id": 7}) == 7


def test_what_cannot_be_shared_out_is_refused(qwen: Live, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnsupportedError, match="streamer"):
        generate_distributed(qwen.model, **qwen.inputs(QUESTIONS[0]), streamer=object())
    wrapped = torch.nn.DataParallel(qwen.model)
    with pytest.raises(InputError, match=r"got DataParallel.*unwrap_model"):
        worker.record(wrapped, qwen.tokenizer, worker.RECORDED, "nowhere")  # type: ignore[arg-type]
    try:
        PartialState()
        monkeypatch.setenv("WORLD_SIZE", "2")  # as it is when PartialState() comes first on a machine without GPUs
        with pytest.raises(InputError, match=r"2 processes were launched.*cpu=True"):
            launched()
    finally:
        PartialState._reset_state()
