"""Trajectory stores as datasets of the local Hub: pushed, pulled, loaded by the real `datasets`, and spoiled."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from local_hub import HubServer, Repository
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.errors import ConflictError, ControllerError, HubError, InputError, StoreError, StoreFormatError
from tts_generate.publish import publish_store
from tts_generate.publish.store_summary import summarise
from tts_generate.replay import Recording
from tts_generate.trajectories import Manifest, Question, StoreWriter, Trajectory, TrajectoryStore, pull
from tts_generate.trajectories.schema import questions_sha256

QUESTIONS = [Question(f"q{n}", f"what is {n} + 4?", str(n + 4)) for n in range(5)]
BRANCHES = 8


def manifest(**changed: Any) -> Manifest:
    settings: dict[str, Any] = {
        "interval_tokens": 10,
        "branches": BRANCHES,
        "seed": 0,
        "model": {"name_or_path": "/home/somebody/models/tiny", "revision": None, "weights_sample": "abc"},
        "tokenizer": {"class": "Tokenizer"},
        "generation_config": {"temperature": 0.7, "max_new_tokens": 100},
        "probe": {"probe_suffix": "\n</think>\\boxed{"},
        "versions": {"torch": "2"},
        "source": "recorded",
        "questions_sha256": questions_sha256(QUESTIONS),
    }
    return Manifest(**{**settings, **changed})


def row(question: int, branch: int, tokens: int | None = None) -> Trajectory:
    length = 25 + 3 * branch if tokens is None else tokens
    probes = length // 10
    return Trajectory(
        question_id=f"q{question}",
        branch=branch,
        seed=branch,
        prompt_tokens=7,
        tokens=length,
        finish_reason="eos" if branch else "length",
        final_answer=str(question + 4 if branch % (question + 2) == 1 else 0) if branch else None,
        probe_positions=tuple(10 * (k + 1) for k in range(probes)),
        probe_answers=tuple(None if k == 0 else str(question) for k in range(probes)),
        probe_tokens=(4,) * probes,
        probe_logprobs=(-0.5,) * probes,
        step_logprobs=(-0.25,) * (probes + 1),
        token_ids=tuple(range(length)),
    )


ROWS = [row(question, branch) for question in range(5) for branch in range(BRANCHES)]


def make(path: Path, rows: list[Trajectory], **changed: Any) -> TrajectoryStore:
    with StoreWriter.open(path, manifest(**changed), QUESTIONS) as writer:
        writer.append(rows)
    return TrajectoryStore.open(path)


@pytest.fixture
def store(tmp_path: Path) -> TrajectoryStore:
    """Half of a recording, in two shards."""
    make(tmp_path / "s", ROWS[:10])
    return make(tmp_path / "s", ROWS[10:20])


def dataset(hub: HubServer) -> Repository:
    return hub.repo("user/store", "dataset")


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def test_push_and_back(hub: HubServer, store: TrajectoryStore, tmp_path: Path) -> None:
    made = store.push_to_hub("user/store", tag="v1")
    repo = dataset(hub)
    assert made.commit == repo.head == repo.refs["refs/tags/v1"]
    assert [commit.title for _, commit in repo.history()] == ["20 branches, with tts-generate", "initial commit"]
    found = TrajectoryStore.from_hub("user/store", revision="v1")
    assert found.trajectories() == ROWS[:20]
    assert found.questions == tuple(QUESTIONS)
    assert found.origin == f"user/store@{made.commit}"
    assert TrajectoryStore.open(Path("user/store@v1")).trajectories() == ROWS[:20]
    recording = Recording.from_store(f"user/store@{made.commit}")
    assert (recording.name, recording.questions[0].branches) == ("store", BRANCHES)
    copy = pull("user/store", tmp_path / "copy")
    assert copy.trajectories() == ROWS[:20]
    assert sorted(path.name for path in copy.path.iterdir()) == sorted(
        name for name in repo.commits[repo.head].files if re.match("manifest|questions|part", name)
    )
    with pytest.raises(StoreError, match="is not empty"):
        pull("user/store", tmp_path / "copy")
    (tmp_path / "here").mkdir()
    with contextlib.chdir(tmp_path / "here"), pytest.raises(StoreError, match="the folder that you stand in"):
        pull("user/store", ".")  # a ValueError: it has no name


def test_a_pulled_store_is_gone_on_with_where_the_model_is_in_another_folder(
    hub: HubServer, store: TrajectoryStore, tmp_path: Path
) -> None:
    store.push_to_hub("user/store")
    pull("user/store", tmp_path / "copy")
    elsewhere = {**manifest().model, "name_or_path": "/opt/tiny"}
    copy = make(tmp_path / "copy", ROWS[20:], model=elsewhere)
    assert copy.push_to_hub("user/store").branches == 40
    assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS
    with pytest.raises(StoreFormatError, match="other settings"):
        make(tmp_path / "copy", [], model={**elsewhere, "weights_sample": "other"})
    with pytest.raises(ConflictError, match="holds 20 branches that this store has not"):
        store.push_to_hub("user/store")


def test_any_text_that_a_store_holds_goes_to_the_hub_and_back(hub: HubServer, tmp_path: Path) -> None:
    ends = "\u2028 \u2029 \x85 \x0b \x0c \x1c \r\n \r \n \x1b[31m \u202e \x7f \ufeff | ` <b> \U0001f600"
    questions = [Question(f"q{n}{text}", f"1{text}+", text) for n, text in enumerate([ends, *ends.split(" ")])]
    told = manifest(branches=1, questions_sha256=questions_sha256(questions), probe={"probe_suffix": ends})
    rows = [
        dataclasses.replace(row(0, 0), question_id=q.question_id, finish_reason="eos", final_answer=f"{ends}\0\ud800")
        for q in questions
    ]
    with StoreWriter.open(tmp_path / "s", told, questions) as writer:
        writer.append(rows[1:])
        writer.seal()
        writer.append(rows[:1])
        TrajectoryStore.open(tmp_path / "s").push_to_hub("user/store", description=ends)
    found = TrajectoryStore.from_hub("user/store")
    assert (found.questions, found.trajectories()) == (tuple(questions), rows)
    assert pull("user/store", tmp_path / "copy").trajectories() == rows
    assert Recording.from_store("user/store").questions[0].book.text(0) == rows[0].final_answer == f"{ends}\0\ufffd"


@pytest.mark.parametrize("name", ["manifest.json", "questions.jsonl", "part"])
def test_a_store_of_somebody_else_that_lies(hub: HubServer, store: TrajectoryStore, name: str) -> None:
    """Its hashes are right, and it is not what it says."""
    store.push_to_hub("user/store")
    repo = dataset(hub)
    lies = {
        "manifest.json": manifest(interval_tokens=7).to_json().encode(),
        "questions.jsonl": repo.read("questions.jsonl").replace(b'"4"', b'"5"'),
        "part": repo.read("manifest.json"),
    }
    files = json.loads(repo.read("files.json"))["files"]
    file = next(part for part in files if part.startswith(name))
    files[file] = hashlib.sha256(lies[name]).hexdigest()
    index = json.dumps({"format": "tts-store-files/1", "files": files}).encode()
    hub.commit("user/store", {file: lies[name], "files.json": index}, "dataset")
    with pytest.raises(StoreFormatError, match=r"elsewhere than at the ends|questions_sha256 differs|cannot be read"):
        Recording.from_store("user/store")


def test_load_dataset_in_a_clean_process(hub: HubServer, store: TrajectoryStore, tmp_path: Path) -> None:
    store.push_to_hub("user/store")
    code = """
import json
from datasets import load_dataset
branches = load_dataset("user/store", split="train")
questions = load_dataset("user/store", data_files="questions.jsonl", split="train")
print(json.dumps([branches.to_list(), questions.to_list()]))
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **hub.environ(tmp_path / "home")},
    )
    assert done.returncode == 0, done.stderr
    branches, questions = json.loads(done.stdout.splitlines()[-1])
    assert sorted(map(Trajectory.from_row, branches), key=lambda found: found.key) == ROWS[:20]
    assert [Question(**found) for found in questions] == QUESTIONS


def test_what_is_not_sealed_is_pushed_while_the_recording_goes_on(hub: HubServer, tmp_path: Path) -> None:
    make(tmp_path / "s", ROWS[:5])
    with StoreWriter.open(tmp_path / "s", manifest(), QUESTIONS) as writer:
        writer.append(ROWS[5:8])
        assert TrajectoryStore.open(tmp_path / "s").push_to_hub("user/store").branches == 8
        assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS[:8]
        writer.append(ROWS[8:12])
    TrajectoryStore.open(tmp_path / "s").push_to_hub("user/store")
    assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS[:12]
    parts = [name for name in dataset(hub).commits[dataset(hub).head].files if name.startswith("part-")]
    assert len(parts) == 2  # the shard made for the first push has gone with it


def test_a_push_of_what_is_there_sends_nothing(hub: HubServer, store: TrajectoryStore) -> None:
    first = store.push_to_hub("user/store", description="By *hand*.", licence="mit")
    hub.forget_requests()
    again = store.push_to_hub("user/store", tag="v1")
    assert (again.commit, again.changed, again.tag) == (first.commit, False, "v1")
    assert hub.requests("*/preupload/*") == hub.requests("*/commit/*") == hub.requests(method="PUT") == []
    assert "as it was, tagged v1" in str(again)
    assert store.push_to_hub("user/store", tag="v1").commit == first.commit
    make(store.path, ROWS[20:])
    with pytest.raises(InputError, match="has a tag 'v1' already"):
        store.push_to_hub("user/store", tag="v1")
    assert dataset(hub).head == first.commit
    publish_store(store.path, "user/store")
    card = dataset(hub).read("README.md").decode()
    assert "By *hand*." in card  # nobody took it back
    assert "license: mit" in card


def test_the_card_has_what_was_counted(hub: HubServer, tmp_path: Path) -> None:
    store = make(tmp_path / "s", ROWS[:39])
    store.push_to_hub("user/store", licence="mit")
    card = dataset(hub).read("README.md").decode()
    assert card.startswith("---\nlicense: mit\n")
    assert "size_categories:\n- n<1K" in card
    table = dict(re.findall(r"^\| (.+?) \| (.*) \|$", card, re.MULTILINE))
    assert table["branches"] == "39, 7 to 8 a question"
    assert table["complete"].startswith("no: 8")
    assert table["ended by `eos`"] == "34"
    assert table["tokens"] == f"{sum(found.tokens for found in ROWS[:39]):,}"
    probes = sum(len(found.probe_answers) for found in ROWS[:39])
    assert table["probes"] == f"{probes}, {4 * probes} tokens"
    votes = [[r.final_answer for r in ROWS[:39] if r.question_id == f"q{q}" and r.final_answer] for q in range(5)]
    winners = [Counter(answers).most_common(1)[0][0] for answers in votes]
    voted = 20 * sum(winner == str(q + 4) for q, winner in enumerate(winners))
    assert 0 < voted < 100
    right = [
        [found.final_answer == str(q + 4) for found in ROWS[:39] if found.question_id == f"q{q}"] for q in range(5)
    ]
    assert table["a branch is right"].startswith(f"{100 * np.mean([np.mean(answers) for answers in right]):.1f} % (")
    assert table["the majority is right"].startswith(f"{voted}.0 % (")
    assert (table["temperature"], table["model: name_or_path"]) == ("`0.7`", "`tiny`")
    assert table["probe: probe_suffix"] == r"`\n</think>\\boxed{`"
    assert "somebody" not in card + dataset(hub).read("manifest.json").decode()


def test_counts_of_a_store_without_right_answers() -> None:
    questions = [dataclasses.replace(question, gold_answer=None) for question in QUESTIONS]
    summary = summarise(manifest(), questions, ROWS)
    assert summary["complete"]
    assert summary["accuracy"] is None


def test_what_is_there_is_not_overwritten(hub: HubServer, store: TrajectoryStore, tmp_path: Path) -> None:
    store.push_to_hub("user/store")
    head = dataset(hub).head
    other = make(tmp_path / "o", ROWS[:3], seed=9)
    with pytest.raises(ConflictError, match=r"other settings \(seed: 0 here, 9 asked for"):
        other.push_to_hub("user/store")
    changed = make(tmp_path / "c", [row(0, 0, tokens=90), *ROWS[1:20]])
    with pytest.raises(ConflictError, match=r"holds 1 branches .*\(first branch 0 of 'q0'\)"):
        changed.push_to_hub("user/store")
    hub.create("user/other", "dataset", files={"train.csv": b"a,b\n"})
    with pytest.raises(ConflictError, match=r"something else than a trajectory store \(train.csv\)"):
        store.push_to_hub("user/other", replace=True)
    assert dataset(hub).head == head
    other.push_to_hub("user/store", replace=True)
    assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS[:3]
    assert TrajectoryStore.from_hub("user/store", revision=head).trajectories() == ROWS[:20]


def test_somebody_else_is_faster(hub: HubServer, store: TrajectoryStore) -> None:
    store.push_to_hub("user/store")
    make(store.path, ROWS[20:])
    fault = hub.fault("*/commit/*", before=lambda: hub.commit("user/store", {"LICENSE": b"MIT"}, "dataset"))
    with pytest.raises(ConflictError, match="somebody committed"):
        store.push_to_hub("user/store")
    assert fault.times == 0
    assert dataset(hub).read("LICENSE") == b"MIT"
    assert len(TrajectoryStore.from_hub("user/store").trajectories()) == 20
    store.push_to_hub("user/store")  # having looked again
    assert dataset(hub).read("LICENSE") == b"MIT"
    assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS


def test_a_push_that_is_killed_leaves_main_as_it_was(hub: HubServer, store: TrajectoryStore, tmp_path: Path) -> None:
    store.push_to_hub("user/store")
    head = dataset(hub).head
    make(store.path, ROWS[20:])
    fault = hub.fault("*/commit/*", hold=True)
    command = [sys.executable, "-c", "from tts_generate.cli import app; app()", "store", "push", str(store.path)]
    environment = {**os.environ, **hub.environ(tmp_path / "home"), "TMPDIR": str(tmp_path)}  # it cannot clean up
    with subprocess.Popen([*command, "user/store"], env=environment) as child:
        assert fault.arrived.wait(60)
        child.kill()
    assert dataset(hub).head == head
    assert len(TrajectoryStore.from_hub("user/store").trajectories()) == 20
    hub.forget_requests()
    store.push_to_hub("user/store")
    assert hub.requests(method="PUT") == []  # the shard had arrived
    assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS


def test_an_unclear_commit_is_made_once(hub: HubServer, store: TrajectoryStore) -> None:
    hub.fault("*/commit/*", lose_reply=True)
    made = store.push_to_hub("user/store")
    assert made.commit == dataset(hub).head
    assert len(dataset(hub).commits) == 2
    make(store.path, ROWS[20:])
    hub.fault("*/commit/*", status=503)
    assert store.push_to_hub("user/store").changed
    assert len(dataset(hub).commits) == 3


def test_an_upload_that_is_refused(hub: HubServer, store: TrajectoryStore) -> None:
    store.push_to_hub("user/store")
    head = dataset(hub).head
    make(store.path, ROWS[20:])
    hub.fault("/????????????????????????????????*", method="PUT", status=403)
    with pytest.raises(HubError, match="nothing was published"):
        store.push_to_hub("user/store")
    assert dataset(hub).head == head


def test_logins(hub: HubServer, store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_token("hf_reader", "user", role="read")
    for token, text in (("hf_gone", "does not take the login"), ("hf_reader", "may not")):
        monkeypatch.setenv("HF_TOKEN", token)
        with pytest.raises(HubError, match=text) as error:
            store.push_to_hub("user/store")
        assert token not in str(error.value)
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HubError, match="nobody is logged in"):
        store.push_to_hub("user/store")
    assert hub.repos == {}


def test_a_shard_of_another_name_is_not_published(hub: HubServer, store: TrajectoryStore) -> None:
    """The bug: it went up, and no one could load it from there."""
    first = sorted(store.path.glob("part-*"))[0]
    first.rename(first.with_name("part-00000-abc (1).parquet"))
    with pytest.raises(StoreError, match=r"part-00000-abc \(1\)\.parquet in .* is called as no shard is"):
        store.push_to_hub("user/store")
    assert not hub.repos


def test_a_page_there_that_is_no_text(hub: HubServer, store: TrajectoryStore) -> None:
    """The bug: a UnicodeDecodeError."""
    hub.create("user/store", "dataset", files={"README.md": b"caf\xe9"})
    with pytest.raises(ControllerError, match=r"user/store/README\.md is no UTF-8 text"):
        store.push_to_hub("user/store")


def test_a_report_of_a_store_and_of_a_sweep_there(hub: HubServer, tmp_path: Path) -> None:
    """The bug: neither took its name, nor found it by the name in the sweep's file."""
    make(tmp_path / "s", ROWS).push_to_hub("user/store", tag="v1")
    few = ("--controllers", "asc", "--betas", "0", "--shuffles", 1)
    invoke("report", "user/store@v1", *few, "--watch", "asc@0", "--out", tmp_path / "p.html")
    assert 'id="watch-data"' in (tmp_path / "p.html").read_text("utf-8")
    invoke("sweep", "user/store@v1", *few, "--json", tmp_path / "s.json")
    invoke("report", tmp_path / "s.json", "--out", tmp_path / "p.html")
    assert 'id="watch-data"' in (tmp_path / "p.html").read_text("utf-8")
    assert "there is no repo" in invoke("report", "user/none", *few, "--out", tmp_path / "p.html", code=1)
    assert "no trajectory store" in invoke("report", "runs/none.json", "--out", tmp_path / "p.html", code=1)


def test_secrets_and_empty_stores_and_bad_names(hub: HubServer, store: TrajectoryStore, tmp_path: Path) -> None:
    questions = [Question("q0", "use hf_" + "a" * 30, "1")]
    with StoreWriter.open(tmp_path / "x", manifest(questions_sha256=questions_sha256(questions)), questions) as writer:
        writer.append([ROWS[0]])
    with pytest.raises(StoreError, match=r"questions\.jsonl, line 1: looks like a Hugging Face token"):
        TrajectoryStore.open(tmp_path / "x").push_to_hub("user/secret")
    with pytest.raises(StoreError, match="nothing is recorded"):
        make(tmp_path / "empty", []).push_to_hub("user/empty")
    with pytest.raises(InputError, match="expected is 'user/name'"):
        store.push_to_hub("just-a-name")
    assert all(len(repo.commits) == 1 for repo in hub.repos.values())


def test_cached_and_pinned_it_asks_nobody(
    hub: HubServer, store: TrajectoryStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = store.push_to_hub("user/store")
    TrajectoryStore.from_hub("user/store")
    hub.forget_requests()
    assert TrajectoryStore.from_hub("user/store", revision=made.commit).trajectories() == ROWS[:20]
    assert hub.requests() == []
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert TrajectoryStore.from_hub("user/store").origin == f"user/store@{made.commit}"
    with pytest.raises(HubError, match="HF_HUB_OFFLINE is set"):
        TrajectoryStore.from_hub("user/none")
    assert hub.requests() == []


def test_a_download_that_was_changed_is_fetched_again(hub: HubServer, store: TrajectoryStore) -> None:
    store.push_to_hub("user/store")
    part = next(name for name in dataset(hub).commits[dataset(hub).head].files if name.startswith("part-"))
    sha256 = dataset(hub).file(dataset(hub).head, part).sha256
    hub.fault(f"/{sha256}", method="GET", corrupt=True)
    assert TrajectoryStore.from_hub("user/store").trajectories() == ROWS[:20]
    assert len(hub.requests(f"/{sha256}", "GET")) == 2


def test_a_cached_file_that_was_damaged_is_fetched_again(hub: HubServer, store: TrajectoryStore) -> None:
    store.push_to_hub("user/store")
    folder = TrajectoryStore.from_hub("user/store").path
    blob = (folder / "questions.jsonl").resolve()
    blob.write_bytes(blob.read_bytes()[:-5])
    assert TrajectoryStore.from_hub("user/store").questions == tuple(QUESTIONS)


@pytest.mark.parametrize("name", ["manifest.json", "questions.jsonl", "part"])
def test_a_file_that_is_not_what_the_index_says(hub: HubServer, store: TrajectoryStore, name: str) -> None:
    store.push_to_hub("user/store")
    repo = dataset(hub)
    path = next(found for found in repo.commits[repo.head].files if found.startswith(name))
    content = repo.read(path)
    hub.commit("user/store", {path: content[:-1] + bytes([content[-1] ^ 1])}, "dataset")
    with pytest.raises(StoreFormatError, match=f"{path} of datasets/user/store at commit {repo.head} is not what"):
        TrajectoryStore.from_hub("user/store")


def test_a_shard_that_the_index_does_not_name(hub: HubServer, store: TrajectoryStore) -> None:
    first = store.push_to_hub("user/store").commit
    hub.commit("user/store", {"part-00009-stray.parquet": b"PAR1"}, "dataset")
    with pytest.raises(StoreFormatError, match=r"has shards that its files.json does not name: part-00009-stray"):
        TrajectoryStore.from_hub("user/store")
    folder = TrajectoryStore.from_hub("user/store", revision=first).path
    (folder / "part-00009-stray.parquet").write_bytes(b"PAR1")
    with pytest.raises(StoreFormatError, match="does not name"):
        TrajectoryStore.from_hub("user/store", revision=first)


def index(**files: str) -> bytes:
    whole = {"manifest.json": "0" * 64, "questions.jsonl": "0" * 64, **files}
    return json.dumps({"format": "tts-store-files/1", "files": whole}).encode()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "is not JSON"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xff{}", "cannot be read"),
        (index()[:-1] + b', "format": "x"}', "'format' is in it twice"),
        (b"[]", "has format 'list'"),
        (b'{"format": "tts-store-files/7"}', "has format 'tts-store-files/7'"),
        (index(**{"../../evil.py": "0" * 64}), "must hold the SHA-256"),
        (index(**{"/etc/passwd": "0" * 64}), "must hold the SHA-256"),
        (index(**{"part-0.py": "0" * 64}), "must hold the SHA-256"),
        (index(**{"part-0.parquet": "short"}), "must hold the SHA-256"),
        (b'{"format": "tts-store-files/1", "files": {}}', "must hold the SHA-256"),
        (index()[:-1] + b', "code": "x.py"}', "must hold the SHA-256"),
        (b" " * (17 << 20), "bytes; at most"),
    ],
)
def test_a_malformed_index_is_refused(hub: HubServer, content: bytes, text: str) -> None:
    hub.create("user/store", "dataset", files={"files.json": content})
    with pytest.raises(StoreFormatError, match=f"files.json.* {re.escape(text)}"):
        TrajectoryStore.from_hub("user/store")


def test_what_is_no_store_or_not_there(hub: HubServer, tmp_path: Path) -> None:
    hub.create("user/other", "dataset", files={"train.csv": b"a,b\n"})
    with pytest.raises(StoreError, match=r"not a trajectory store: it has no files.json; it has .*train.csv"):
        TrajectoryStore.from_hub("user/other")
    with pytest.raises(HubError, match="there is no repo datasets/user/none"):
        TrajectoryStore.open("user/none")
    hub.create("user/controller")
    with pytest.raises(HubError, match="there is a model of that name, which may be a controller"):
        TrajectoryStore.open("user/controller")
    assert "which may be a store: tts-generate store pull" in invoke(
        "pull", "user/other", "--out", tmp_path / "x", code=1
    )
    with pytest.raises(HubError, match="no revision 'v9'"):
        pull("user/other", tmp_path / "x", revision="v9")
    assert not (tmp_path / "x").exists()
    with pytest.raises(StoreError, match="is not a trajectory store"):
        TrajectoryStore.open(tmp_path / "none")


def test_on_the_command_line(hub: HubServer, store: TrajectoryStore, tmp_path: Path) -> None:
    (tmp_path / "words.md").write_text("Sums of small numbers.")
    output = invoke("store", "push", store.path, "user/store", "--tag", "v1", "--private", "--licence", "mit",
                    "--description", tmp_path / "words.md", "--message", "first")  # fmt: skip
    assert f"20 branches in user/store at commit {dataset(hub).head}, tagged v1" in output
    assert dataset(hub).private
    assert next(dataset(hub).history())[1].title == "first"
    assert "Sums of small numbers." in dataset(hub).read("README.md").decode()
    assert "20 branches of 5 questions" in invoke("store", "pull", "user/store@v1", "--out", tmp_path / "copy")
    assert TrajectoryStore.open(tmp_path / "copy").trajectories() == ROWS[:20]
    assert "is no dataset" in invoke("store", "pull", "copy", "--out", tmp_path / "x", code=1)
    assert "is not a file" in invoke("store", "push", store.path, "user/store", "--description", "none", code=1)
    options = ("--controller", "self_consistency", "--set", "width=4", "--shuffles", 1, "--json", tmp_path / "r.json")
    knobs = Recording.from_store("user/store@v1")
    assert knobs.questions[0].branches == BRANCHES
    assert "there is no repo" in invoke("replay", "user/none", *options, code=1)
    few = ("--controllers", "asc", "--betas", "0", "--shuffles", 1)
    invoke("report", "user/store@v1", *few, "--watch", "asc@0", "--out", tmp_path / "r.html")
    invoke("sweep", "user/store@v1", *few, "--json", tmp_path / "s.json")
    invoke("report", tmp_path / "s.json", "--out", tmp_path / "s.html")
    for page in ("r.html", "s.html"):  # a store of the Hub was refused, or not where the sweep found it
        assert "Question by question" in (tmp_path / page).read_text("utf-8")


@pytest.mark.long
def test_the_engine_imports_without_datasets(tmp_path: Path) -> None:
    code = """
import sys
sys.modules["datasets"] = None
import tts_generate.engine, tts_generate.server, tts_generate.publish, tts_generate.trajectories
from tts_generate.trajectories import TrajectoryStore
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_hashes_of_the_index(hub: HubServer, store: TrajectoryStore) -> None:
    store.push_to_hub("user/store")
    told = json.loads(dataset(hub).read("files.json"))
    assert told["files"] == {name: hashlib.sha256(dataset(hub).read(name)).hexdigest() for name in told["files"]}
