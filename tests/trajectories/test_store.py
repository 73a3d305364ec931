"""The store: what was acknowledged is there after any crash, and damage is named, never skipped."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_generate.errors import StoreError, StoreFormatError, UnknownNameError
from tts_generate.trajectories import Manifest, Question, StoreWriter, Trajectory, TrajectoryStore, import_autotts
from tts_generate.trajectories.journal import read_journal
from tts_generate.trajectories.parts import read_parts
from tts_generate.trajectories.schema import questions_sha256

QUESTIONS = [Question("a", "1 + 1 ?", "2"), Question("b", "2 + 2 ?", "4")]
MANIFEST = Manifest(
    interval_tokens=10, branches=40, seed=3, model={"name_or_path": "m"}, tokenizer={}, generation_config={"top_k": 0},
    probe={}, versions={"torch": "2"}, source="recorded", questions_sha256=questions_sha256(QUESTIONS),
)  # fmt: skip


def row(question: str, branch: int) -> Trajectory:
    return Trajectory(
        question_id=question, branch=branch, seed=3, prompt_tokens=4, tokens=25, finish_reason="eos",
        final_answer="4", probe_positions=(10, 20), probe_answers=("1", None), probe_tokens=(3, 3),
        probe_logprobs=(-0.5, None), step_logprobs=(-1.0, -2.0, -0.25), token_ids=tuple(range(branch, branch + 25)),
    )  # fmt: skip


ROWS = [row(q, b) for q in "ab" for b in range(40)]

texts = st.one_of(st.none(), st.text(max_size=5).map(lambda s: s.encode("utf-8", "ignore").decode()))
anything = st.builds(
    lambda branch, tokens, probes, finish: Trajectory(
        "a", branch, None, 1, tokens, finish, None, tuple(10 * (k + 1) for k in range(len(probes))),
        tuple(probes), (2,) * len(probes), (None,) * len(probes), (), None,
    ),
    st.integers(0, 39), st.integers(50, 10**6), st.lists(texts, max_size=5), st.sampled_from(["eos", "length", None]),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(rows=st.lists(anything, max_size=20, unique_by=lambda r: r.key), seal=st.booleans())
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[Trajectory], seal: bool) -> None:
    path = tmp_path_factory.mktemp("store") / "s"
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        writer.append(rows)
        if seal:
            writer.seal()
        assert TrajectoryStore.open(path).trajectories() == sorted(rows, key=lambda r: r.branch)
    store = TrajectoryStore.open(path)
    assert store.trajectories() == sorted(rows, key=lambda r: r.branch)
    assert store.questions == tuple(QUESTIONS)
    assert store.manifest == MANIFEST


def _by_datasets(shards: list[str], cache: Path) -> Any:
    import datasets

    return list(datasets.load_dataset("parquet", data_files=shards, split="train", cache_dir=str(cache)))


def _by_pandas(shards: list[str], cache: Path) -> Any:
    return import_module("pandas").read_parquet(shards).to_dict("records")


def _by_pyarrow(shards: list[str], cache: Path) -> Any:
    import pyarrow.dataset

    return pyarrow.dataset.dataset(shards).to_table().to_pylist()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("read", [_by_datasets, _by_pandas, _by_pyarrow])
def test_any_parquet_reader_opens_the_shards(tmp_path: Path, read: Any) -> None:
    """As docs/recording.md says it is done, with everything else that a folder of a store has beside them."""
    for rows in (ROWS[:40], ROWS[40:]):
        with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
            writer.append(rows)
    shards = sorted(map(str, (tmp_path / "s").glob("*.parquet")))
    assert len(shards) == 2
    assert {file.name for file in (tmp_path / "s").iterdir()} > {"LOCK", "journal", "manifest.json", "questions.jsonl"}
    found = read(shards, tmp_path / "cache")
    assert [(row["question_id"], row["branch"]) for row in found] == [row.key for row in ROWS]
    assert list(found[0]["probe_answers"]) == ["1", None]


CHILD = """
import sys, time
sys.path.insert(0, {here!r})
from test_store import MANIFEST, QUESTIONS, ROWS
from tts_generate.trajectories import StoreWriter
with StoreWriter.open({path!r}, MANIFEST, QUESTIONS) as writer:
    for row in ROWS:
        if row.key in writer.done:
            continue
        writer.append([row])
        print("%s %s" % row.key, flush=True)  # one write, also where nothing is buffered
        if row.branch % 7 == 6:
            writer.seal()
"""


def start(path: Path) -> subprocess.Popen[str]:
    code = CHILD.format(here=str(Path(__file__).parent), path=str(path))
    heed = functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # ignored where the suite runs in background
    command = [sys.executable, "-c", code]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed)


@pytest.mark.long
def test_killed_at_random_times_it_ends_like_an_uninterrupted_run(tmp_path: Path) -> None:
    """SIGKILL, nine times over: every acknowledged branch is there, and the finished store has the same rows."""
    rng, kills = random.Random(1), 0
    path = tmp_path / "s"
    for _ in range(9):
        with start(path) as child:
            assert child.stdout is not None
            acknowledged = [child.stdout.readline() for _ in range(rng.randint(1, 9))]  # then somewhere in what follows
            time.sleep(rng.uniform(0, 0.004))
            child.send_signal(signal.SIGKILL)
            acknowledged += child.stdout.read().splitlines()
        kills += child.returncode == -signal.SIGKILL
        if (path / "manifest.json").is_file():
            there = {r.key for r in TrajectoryStore.open(path).trajectories()}
            for line in filter(str.strip, acknowledged):
                question, branch = line.split()
                assert (question, int(branch)) in there
    assert kills >= 3
    done = start(path)
    _, complaints = done.communicate(timeout=60)
    assert done.returncode == 0, complaints
    assert TrajectoryStore.open(path).trajectories() == ROWS
    assert not list(path.glob("*.tmp"))


def test_ctrl_c_seals_what_was_recorded(tmp_path: Path) -> None:
    child = start(tmp_path / "s")
    assert child.stdout is not None
    for _ in range(3):
        child.stdout.readline()
    child.send_signal(signal.SIGINT)
    child.communicate(timeout=60)
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        assert len(writer.done) >= 3
        assert list(read_journal(tmp_path / "s" / "journal")) == []


def journalled(path: Path) -> bytes:
    """A store of six branches whose writer was killed before it sealed them."""
    writer = StoreWriter.open(path, MANIFEST, QUESTIONS)
    for one in ROWS[:6]:
        writer.append([one])
    data = (path / "journal").read_bytes()
    writer.close()
    for part in path.glob("part-*"):
        part.unlink()
    return data


def test_a_journal_cut_anywhere_keeps_its_whole_records(tmp_path: Path) -> None:
    path = tmp_path / "s"
    data = journalled(path)
    ends = [0]
    (path / "journal").write_bytes(data)
    ends += [end for _, _, end in read_journal(path / "journal")]
    for cut in range(0, len(data), 7):
        (path / "journal").write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends) - 1
        assert TrajectoryStore.open(path).trajectories() == ROWS[:whole]


@pytest.mark.parametrize("where", [0.0, 0.3, 0.5, 0.7, 0.99])
def test_a_flipped_bit_in_the_journal_costs_one_record(
    tmp_path: Path, where: float, caplog: pytest.LogCaptureFixture
) -> None:
    """Reader and writer keep every record that is whole, those behind the damage too, and the damaged file stays."""
    path = tmp_path / "s"
    data = bytearray(journalled(path))
    data[int(len(data) * where)] ^= 1
    (path / "journal").write_bytes(data)
    with pytest.warns(RuntimeWarning, match="are damaged: the branches in them are missing, 5 whole records are read"):
        there = TrajectoryStore.open(path).trajectories()
    assert len(there) == 5
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        assert writer.done == {row.key for row in there}
        writer.append(ROWS[:6])
    assert TrajectoryStore.open(path).trajectories() == ROWS[:6]
    assert (path / "journal.damaged-0").read_bytes() == data
    assert "was damaged; 5 whole records were kept" in caplog.text


def test_a_journal_that_ends_in_zeros(tmp_path: Path) -> None:
    """As a file system leaves a file whose length, not its contents, reached the disk before the power went."""
    path = tmp_path / "s"
    data = journalled(path)
    (path / "journal").write_bytes(data + bytes(100))
    assert TrajectoryStore.open(path).trajectories() == ROWS[:6]
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        assert len(writer.done) == 6


def test_killed_between_shard_and_journal_nothing_is_sealed_twice(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS[:6])
        journal = (path / "journal").read_bytes()
    (path / "journal").write_bytes(journal)
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS[6:8])
    assert len(read_parts(path)) == 8
    assert TrajectoryStore.open(path).trajectories() == ROWS[:8]


@pytest.mark.parametrize("name", ["questions.jsonl", "notes.txt"])
def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(StoreError, match=f"not empty and not a store.*{name}"):
        StoreWriter.open(tmp_path, MANIFEST, QUESTIONS)
    assert (tmp_path / name).read_text() == "mine"
    assert not (tmp_path / "manifest.json").exists()


def test_killed_before_the_manifest_was_written(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS):
        pass
    (tmp_path / "s" / "manifest.json").unlink()
    (tmp_path / "s" / "journal").unlink()
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS)


def test_another_table_is_not_imported_over_one(tmp_path: Path) -> None:
    """It was left out without a word: the store, and what was printed of it, were those of the first."""
    table = tmp_path / "t.json"
    entry = {"question": "q", "gold_answer": "7", "probe_freq": 10, "each_branch": [[["7"], [15, "7"]]]}
    table.write_text(json.dumps([entry]))
    for _ in range(2):
        assert len(import_autotts(table, tmp_path / "s").trajectories()) == 1
    table.write_text(json.dumps([{**entry, "each_branch": [[["8"], [15, "8"]]]}]))
    with pytest.raises(StoreFormatError, match="holds another import: branch 0 of 't/0000'"):
        import_autotts(table, tmp_path / "s")


@pytest.mark.parametrize("wrong", [{"branch": 2**31}, {"seed": 2**63}, {"final_answer": 4}, {"probe_tokens": (3, 3.5)}])
def test_what_cannot_be_sealed_is_not_acknowledged(tmp_path: Path, wrong: dict[str, Any]) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS[:2])
        with pytest.raises(StoreFormatError, match="does not fit a store"):
            writer.append([ROWS[2], dataclasses.replace(ROWS[3], **wrong)])
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[:2]


@pytest.mark.parametrize("damage", ["truncated", "empty", "text"])
def test_a_damaged_shard_is_named(tmp_path: Path, damage: str) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS)
    (part,) = (tmp_path / "s").glob("part-*.parquet")
    data = part.read_bytes()
    part.write_bytes({"truncated": data[: len(data) // 2], "empty": b"", "text": b"not parquet"}[damage])
    for attempt in (
        TrajectoryStore.open(tmp_path / "s").trajectories,
        lambda: StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS),
    ):
        with pytest.raises(StoreFormatError, match=r"part-00000.*record again"):
            attempt()
    part.unlink()  # as the message says
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        assert writer.done == set()


def test_other_settings_are_refused_by_name(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS[:2])
    for changed in ({"model": {"name_or_path": "other"}}, {"seed": 4}, {"interval_tokens": 20}):
        (name,) = changed
        with pytest.raises(StoreFormatError, match=f"other settings.*{name}"):
            StoreWriter.open(tmp_path / "s", dataclasses.replace(MANIFEST, **changed), QUESTIONS)
    newer = dataclasses.replace(MANIFEST, versions={"torch": "3"})  # an upgrade between two sittings is no reason
    with StoreWriter.open(tmp_path / "s", newer, QUESTIONS) as writer:
        assert len(writer.done) == 2


@pytest.mark.parametrize(
    ("fields", "error", "text"),
    [
        ({"format": "tts-store/99"}, StoreFormatError, "tts-store/99"),
        ({"sed": 3}, UnknownNameError, "did you mean 'seed'"),
        ({"seed": "DROP"}, StoreFormatError, "lacks seed"),
    ],
)
def test_manifests_of_another_kind(tmp_path: Path, fields: dict[str, Any], error: type[Exception], text: str) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS):
        pass
    path = tmp_path / "s" / "manifest.json"
    card = {**json.loads(path.read_text()), **fields}
    path.write_text(json.dumps({k: v for k, v in card.items() if v != "DROP"}))
    with pytest.raises(error, match=text):
        TrajectoryStore.open(tmp_path / "s")


def test_the_folder_that_one_stands_in_has_a_name(tmp_path: Path) -> None:
    """The bug: it was called "", and so was it in results, which go by names."""
    with StoreWriter.open(tmp_path / "mine", MANIFEST, QUESTIONS):
        pass
    with contextlib.chdir(tmp_path / "mine"):
        assert TrajectoryStore.open(".").name == "mine"


def test_not_a_store(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a trajectory store"):
        TrajectoryStore.open(tmp_path)
    (tmp_path / "manifest.json").write_text("{")
    with pytest.raises(StoreFormatError, match="not JSON"):
        TrajectoryStore.open(tmp_path)


def test_one_writer_at_a_time(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS), pytest.raises(StoreError, match="another process"):
        StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS)
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS):
        pass


def test_a_branch_recorded_twice(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS[:3])
        writer.append(ROWS[:3])  # again, the same: kept once
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[:3]
    with StoreWriter.open(tmp_path / "other", MANIFEST, QUESTIONS) as writer:
        writer.append([dataclasses.replace(ROWS[0], final_answer="5")])
    (part,) = (tmp_path / "other").glob("part-*")
    part.rename(tmp_path / "s" / "part-00001-other.parquet")
    with pytest.raises(StoreFormatError, match="stands twice"):
        TrajectoryStore.open(tmp_path / "s").trajectories()


FULL = """
import resource, signal, sys
sys.path.insert(0, {here!r})
from test_store import MANIFEST, QUESTIONS, ROWS
from tts_generate.errors import StoreError
from tts_generate.trajectories import StoreWriter
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
writer = StoreWriter.open({path!r}, MANIFEST, QUESTIONS)
resource.setrlimit(resource.RLIMIT_FSIZE, (6000, 6000))
try:
    with writer:
        for row in ROWS:
            writer.append([row])
            print("%s %s" % row.key, flush=True)  # one write, also where nothing is buffered
except StoreError as error:
    print("ERROR", error)
"""


def test_a_full_disk_loses_nothing(tmp_path: Path) -> None:
    """RLIMIT_FSIZE as the disk: the error names the path, what was acknowledged stays, and recording goes on later."""
    code = FULL.format(here=str(Path(__file__).parent), path=str(tmp_path / "s"))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    *acknowledged, last = done.stdout.splitlines()
    assert last.startswith("ERROR cannot write")
    assert "journal" in last
    assert "bytes free" in last
    assert len(acknowledged) > 3
    there = TrajectoryStore.open(tmp_path / "s").trajectories()
    assert len(there) == len(acknowledged)
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as writer:
        writer.append(ROWS)
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot write to"):
        StoreWriter.open(tmp_path / "file" / "s", MANIFEST, QUESTIONS)


@pytest.mark.parametrize(
    "wrong",
    [
        {"tokens": -1}, {"branch": -2}, {"probe_positions": (20, 10)}, {"probe_answers": ("1",)},
        {"probe_logprobs": (float("nan"), None)}, {"finish_reason": "tired"}, {"finish_reason": None},
        {"token_ids": (1, 2)},
    ],
    ids=str,
)  # fmt: skip
def test_rows_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(StoreFormatError, match="of question 'a'"):
        dataclasses.replace(ROWS[0], **wrong)


NO_BRANCH = {"question": "x", "gold_answer": "1", "probe_freq": 5, "each_branch": [[]]}


@pytest.mark.parametrize("content", ["[", "{}", "[]", '[{"question": "x"}]', json.dumps([NO_BRANCH])])
def test_tables_that_are_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "t.json").write_text(content)
    with pytest.raises(StoreFormatError, match=r"t\.json"):
        import_autotts(tmp_path / "t.json", tmp_path / "s")
    assert not os.path.exists(tmp_path / "s" / "manifest.json")
