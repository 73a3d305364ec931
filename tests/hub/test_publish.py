"""Publishing: one commit or nothing, nothing newer overwritten, nothing worse put in its place, and it loads again."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import yaml
from hub_checks import CODE, forget, good, put, read
from local_hub import File, HubServer
from search_stores import make_store, without_answers
from typer.testing import CliRunner

from tts_generate import load_controller
from tts_generate.cli import app
from tts_generate.controller import Decision
from tts_generate.engine import AutoTTS
from tts_generate.errors import ConflictError, ControllerError, HubError, InputError
from tts_generate.hub import commit as committing
from tts_generate.hub.card import identity
from tts_generate.hub.fetch import pull
from tts_generate.hub.source import read_folder
from tts_generate.loading import builtin_folder
from tts_generate.processors import BranchProcessor
from tts_generate.publish import Benchmark, Published, measure, measure_live, publish, publish_run, verify
from tts_generate.publish.live import prompts, replay_of, same_episodes
from tts_generate.replay import Recording, replay
from tts_generate.state import State
from tts_generate.testing import random_trajectories, recording_of
from tts_generate.tiny import questions
from tts_generate.trajectories import StoreWriter, TrajectoryStore

FORMATS = Path(__file__).parent / "formats" / "v1"
QUICK: dict[str, Any] = {"shuffles": 3, "betas": (0.0, 0.5, 1.0)}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "questions", seed=1)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A controller with code of its own."""
    for name, content in good().items():
        (tmp_path / "few").mkdir(exist_ok=True)
        (tmp_path / "few" / name).write_bytes(content)
    return tmp_path / "few"


def weak(folder: Path) -> Path:
    """A controller that reads one branch: cheap, and never as right."""
    return load_controller("self_consistency", max_samples=1).save_pretrained(folder)


def test_what_cannot_be_counted_right_is_not_published(folder: Path, store: Path, tmp_path: Path) -> None:
    """The bug: questions without a right answer counted as answered wrong, on the page as in the results."""
    with pytest.raises(InputError, match=r"has no gold_answer \(2 such questions\)"):
        measure(read_folder(folder), [without_answers(store, tmp_path / "s", 2)], **QUICK)


class TestRepo:
    def test_everything_is_there_and_made_from_what_was_measured(
        self, hub: HubServer, folder: Path, store: Path, capfd: pytest.CaptureFixture[str]
    ) -> None:
        done = publish(folder, "user/few", stores=[store], benchmarks={"questions": Benchmark("me/aime24")}, **QUICK)
        assert (done.tag, done.commit) == ("v1", hub.repo("user/few").head)
        assert "RAN" not in capfd.readouterr().out  # nobody vouched for it: it was measured in the sandbox
        files = set(hub.repo("user/few").commits[done.commit].files) - {".gitattributes"}
        assert files == {
            "README.md", "controller.json", "controller.py", "custom_generate/controller.py",
            "custom_generate/generate.py", "custom_generate/requirements.txt", "evaluation/curves.csv",
            "evaluation/frontier.png", "evaluation/frontier.svg", "evaluation/summary.json",
            ".eval_results/questions.yaml",
        }  # fmt: skip
        told = json.loads(hub.repo("user/few").read("evaluation/summary.json"))
        recording = Recording.from_store(store)
        for row in told["stores"][0]["rows"][-3:]:
            found = replay(recording, folder, beta=row["beta"], shuffles=3, trust_remote_code=True)
            assert row["accuracy"] == pytest.approx(100 * found.accuracy)
            assert row["tokens"] == pytest.approx(found.tokens)
        rows = list(csv.DictReader(io.StringIO(hub.repo("user/few").read("evaluation/curves.csv").decode())))
        assert [row["method"] for row in rows[-3:]] == ["few β=0", "few β=0.5", "few β=1"]
        results = yaml.safe_load(hub.repo("user/few").read(".eval_results/questions.yaml"))
        assert results[0]["dataset"] == {"id": "me/aime24", "task_id": "default"}
        assert results[-1]["value"] == pytest.approx(float(rows[-1]["accuracy"]), abs=0.01)
        assert hub.repo("user/few").read("evaluation/frontier.png").startswith(b"\x89PNG")

    def test_its_page(self, hub: HubServer, folder: Path, store: Path, tmp_path: Path) -> None:
        (folder / "README.md").write_text("---\nlicense: mit\n---\nWhat I think of it.\n")
        publish(folder, "user/few", stores=[store, make_store(tmp_path / "more", seed=3)], **QUICK)
        page = hub.repo("user/few").read("README.md").decode()
        head = yaml.safe_load(page.split("---")[1])
        assert head["license"] == "mit"
        assert head["library_name"] == "tts_generate"
        assert head["tags"] == ["tts-controller", "test-time-scaling", "custom_generate"]
        for words in ("What I think of it.", "SC@24", "ASC@24", "CMC β=0.5", "few β=1", "against SC@24", "## Limits",
                      'controller="user/few"', 'custom_generate="user/few"', "Average of 2 stores"):  # fmt: skip
            assert words in page, words
        told = json.loads(hub.repo("user/few").read("evaluation/summary.json"))
        shown = {f"{value:.1f}" for part in (told["average"], *(s["rows"] for s in told["stores"])) for row in part
                 for value in (row["accuracy"], *row["accuracy_ci"])}  # fmt: skip
        cells = re.findall(r"\| ([\d.]+) \(([\d.]+) to ([\d.]+)\) \|", page)
        assert len(cells) == 3 * len(told["average"])
        assert {number for cell in cells for number in cell} <= shown
        assert "evaluation/frontier-more.svg" in hub.repo("user/few").commits[hub.repo("user/few").head].files

    def test_live_rows_are_shown_beside_replay(
        self, hub: HubServer, store: Path, tiny: tuple[Any, Any], folder: Path
    ) -> None:
        rows = measure_live(
            *tiny, questions("test")[:2], [load_controller("self_consistency", max_samples=2)], dataset="kept aside",
            max_new_tokens=40,
        )  # fmt: skip
        publish(folder, "user/few", stores=[store], live=rows, **QUICK)
        page = hub.repo("user/few").read("README.md").decode()
        assert "### Live" in page
        assert "| kept aside | 2 |" in page
        assert "live,tiny,kept aside" in hub.repo("user/few").read("evaluation/curves.csv").decode()

    def test_live_answers_are_graded_as_they_vote(self, tiny: tuple[Any, Any]) -> None:
        """The bug: what votes="math" counts as one answer was compared with the gold one as text."""
        model, tokenizer = tiny
        one, asked = load_controller("self_consistency", max_samples=1), questions("test")[:2]
        how: dict[str, Any] = {"max_new_tokens": 160, "votes": "math"}
        recipe = AutoTTS(one, tokenizer=tokenizer, seed=1, votes="math")
        output = model.generate(
            **prompts(model, tokenizer, asked), custom_generate=recipe, max_new_tokens=160, return_dict_in_generate=True
        )
        assert all(output.answers)
        golds = [replace(q, gold_answer=f"{answer}.0") for q, answer in zip(asked, output.answers, strict=True)]
        (row,) = measure_live(model, tokenizer, golds, [one], dataset="kept aside", **how)
        assert row["accuracy"] == 100.0

    def test_live_rows_say_at_which_latency(
        self, tiny: tuple[Any, Any], hub: HubServer, store: Path, folder: Path
    ) -> None:
        """The bug: rows of one budget at either latency were told by one name; and of neither, by knobs never used."""
        pace = [load_controller("pace", beta=0.0, latency=latency) for latency in (0.0, 1.0)]
        how: dict[str, Any] = {"dataset": "kept aside", "max_new_tokens": 40}
        rows = measure_live(*tiny, questions("test")[:1], [*pace, load_controller("pace", beta=0.0)], **how)
        assert [row["latency"] for row in rows] == [0.0, 1.0, rows[2]["latency"]]
        assert rows[2]["knobs"] == load_controller("pace", beta=0.0, latency=rows[2]["latency"]).knobs
        publish(folder, "user/few", stores=[store], live=rows, **QUICK)
        page = hub.repo("user/few").read("README.md").decode()
        assert all(f"| Pace β=0.0 latency {latency} |" in page for latency in (0.0, 1.0))
        told = csv.DictReader(io.StringIO(hub.repo("user/few").read("evaluation/curves.csv").decode()))
        assert {"Pace latency 0", "Pace latency 1"} <= {row["method"] for row in told}

    def test_a_live_call_is_held_against_its_replay(self, tiny: tuple[Any, Any]) -> None:
        model, tokenizer = tiny
        two, one = (load_controller("self_consistency", max_samples=count) for count in (2, 1))
        recipe = AutoTTS(two, tokenizer=tokenizer, seed=1, interval_tokens=8)
        output = model.generate(
            **prompts(model, tokenizer, questions("test")[:2]), custom_generate=recipe, max_new_tokens=40,
            return_dict_in_generate=True,
        )  # fmt: skip
        assert same_episodes(output, replay_of(output, two, 8)) == [True, True]
        assert same_episodes(output, replay_of(output, one, 8)) == [False, False]

    def test_ctrl_c_leaves_no_row_of_questions_that_were_cut(self, tiny: tuple[Any, Any]) -> None:
        class Interrupts(BranchProcessor):
            def __call__(self, state: State, do: Decision) -> None:
                os.kill(os.getpid(), signal.SIGINT)

        before = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with pytest.raises(KeyboardInterrupt):
                measure_live(
                    *tiny, questions("test")[:2], [load_controller("self_consistency", max_samples=2)],
                    dataset="kept aside", max_new_tokens=40, branch_processors=[Interrupts()],
                )  # fmt: skip
        finally:
            signal.signal(signal.SIGINT, before)

    def test_stores_of_the_hub_are_cited_by_their_commit(self, hub: HubServer, folder: Path, store: Path) -> None:
        sent = TrajectoryStore.open(store).push_to_hub("user/sums", tag="v1")
        publish(folder, "user/few", stores=["user/sums@v1"], **QUICK)
        (told,) = json.loads(hub.repo("user/few").read("evaluation/summary.json"))["stores"]
        assert (told["name"], told["origin"]) == ("sums", f"user/sums@{sent.commit}")
        page = hub.repo("user/few").read("README.md").decode()
        assert yaml.safe_load(page.split("---")[1])["datasets"] == ["user/sums"]
        assert f"/datasets/user/sums/tree/{sent.commit}" in page

    def test_the_same_again_is_no_commit(self, hub: HubServer, folder: Path, store: Path) -> None:
        first = publish(folder, "user/few", stores=[store], **QUICK)
        assert publish(folder, "user/few", stores=[store], **QUICK) == Published(
            "user/few", first.commit, None, first.url
        )

    def test_what_was_measured_before_is_taken_over(self, hub: HubServer, folder: Path, store: Path) -> None:
        publish(folder, "user/few", stores=[store], **QUICK)
        for path, content in {**read_repo(hub, "user/few")}.items():
            (folder / path).parent.mkdir(exist_ok=True)
            (folder / path).write_bytes(content)
        assert publish(folder, "user/few").tag is None
        card = json.loads((folder / "controller.json").read_text())
        (folder / "controller.json").write_text(json.dumps({**card, "knobs": {"width": 2}}))
        with pytest.raises(ControllerError, match=r"summary\.json was measured with other code or other knobs"):
            publish(folder, "user/few")

    def test_a_copy_that_was_pulled_goes_up_as_it_was(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        """The bugs: its author's words were gone from the page, and the licence was not in the copy."""
        (folder / "README.md").write_text("\ufeff---\nlicense: mit\n---\nMine.\n\n## Measured\n\nBy hand.\n", "utf-8")
        (folder / "LICENSE").write_text("MIT")
        first = publish(folder, "user/few")
        page = hub.repo("user/few").read("README.md").decode()
        assert "license: mit" in page
        pull(f"user/few@{first.commit}", None, tmp_path / "copy")
        assert publish(tmp_path / "copy", "user/few").commit == first.commit
        publish(tmp_path / "copy", "user/again")
        assert hub.repo("user/again").read("README.md").decode() == page.replace("user/few", "user/again")
        assert hub.repo("user/again").read("LICENSE") == b"MIT"

    def test_numbers_of_numpy(self, hub: HubServer, folder: Path, store: Path, tiny: tuple[Any, Any]) -> None:
        """The bugs: a ValueError of numpy, and a TypeError of json."""
        one, how = load_controller("self_consistency", max_samples=1), {"dataset": "kept aside", "max_new_tokens": 40}
        rows = measure_live(*tiny, questions("test")[:1], [one], seed=np.int64(1), **how)
        numbers: dict[str, Any] = {"shuffles": np.int64(2), "betas": np.array([0.0, 1.0], np.float32)}
        assert publish(folder, "user/few", stores=[store], live=rows, **numbers).tag == "v1"

    def test_an_object_goes_up_and_comes_back(self, hub: HubServer) -> None:
        mine = load_controller("asc", beta=0.3, threshold=0.8)
        done = mine.push_to_hub("user/asc", name="surer", description="Surer than most.")
        again = load_controller("user/asc", revision=done.commit)
        assert again.knobs == mine.knobs
        assert again.beta == 0.3
        assert verify(f"user/asc@{done.commit}").card["description"] == "Surer than most."

    def test_a_private_repo(self, hub: HubServer, folder: Path, store: Path) -> None:
        """The bug: of a repo that was there and public, `private` was taken and ignored."""
        publish(folder, "user/few", private=True)
        assert hub.repo("user/few").private
        publish(folder, "user/few", private=True, replace=True, licence="mit")
        publish(folder, "user/open")
        with pytest.raises(InputError, match="user/open is there and public"):
            publish(folder, "user/open", private=True, replace=True, licence="mit")
        TrajectoryStore.open(store).push_to_hub("user/data", private=True)
        assert TrajectoryStore.open(store).push_to_hub("user/data", private=True).changed is False
        TrajectoryStore.open(store).push_to_hub("user/open_data")
        with pytest.raises(InputError, match="user/open_data is there and public"):
            TrajectoryStore.open(store).push_to_hub("user/open_data", private=True, licence="mit")

    def test_a_baseline_of_its_name_is_none_of_its_results(self, hub: HubServer, store: Path, tmp_path: Path) -> None:
        load_controller("asc", beta=1.0, threshold=0.9, max_samples=12).save_pretrained(tmp_path / "c")
        publish(tmp_path / "c", "user/asc", stores=[store], benchmarks={"questions": Benchmark("me/sums")}, **QUICK)
        told = yaml.safe_load(hub.repo("user/asc").read(".eval_results/questions.yaml"))
        assert [row["notes"].partition(",")[0] for row in told] == [f"tts-generate asc β={b:g}" for b in QUICK["betas"]]


def read_repo(hub: HubServer, repo_id: str) -> dict[str, bytes]:
    repo = hub.repo(repo_id)
    return {path: repo.read(path) for path in repo.commits[repo.head].files if path != ".gitattributes"}


class TestRefused:
    @pytest.mark.parametrize(
        ("file", "content", "reason"),
        [
            ("model.safetensors", b"x", r"few/model\.safetensors: a controller's repo holds no weights"),
            ("old/state.pkl", b"x", r"few/old/state\.pkl: a controller's repo holds no weights"),
            ("fast.so", b"x", r"few/fast\.so"),
            ("notes.txt", b"x", r"few/notes\.txt is no part of a controller's repo"),
            ("helper.py", b"x = 1", r"few/helper\.py is no part of a controller's repo"),
            ("README.md", b"---\na: [\n---\n", r"README\.md: its head is no YAML"),
            ("README.md", b"caf\xe9", r"README\.md is no UTF-8 text"),
            (
                "README.md",
                b'{"at": "D:\\\\Users\\\\me"}',
                r"README\.md, line \d+: looks like the path of a home folder",
            ),
            ("README.md", b"my token is hf_" + b"a" * 32, r"README\.md, line \d+: looks like a Hugging Face token"),
            ("README.md", b"sk-ant-" + b"a" * 32, r"README\.md, line \d+: looks like an API key"),
            ("README.md", b"see /home/alice/notes", r"README\.md, line \d+: looks like the path of a home folder"),
            ("controller.py", b"import os\n" + CODE, r"controller\.py: it does not match"),
        ],
    )
    def test_what_must_not_go_up(self, hub: HubServer, folder: Path, file: str, content: bytes, reason: str) -> None:
        (folder / file).parent.mkdir(exist_ok=True)
        (folder / file).write_bytes(content)
        with pytest.raises(ControllerError, match=reason) as caught:
            publish(folder, "user/few")
        assert b"a" * 32 not in str(caught.value).encode()
        assert not hub.repos

    def test_what_cannot_be_measured(self, hub: HubServer, folder: Path, store: Path, tmp_path: Path) -> None:
        """The bugs: a page without a row of its own; options of a measurement that was not made; names that collide."""
        card = json.loads((folder / "controller.json").read_text())
        card["beta"] = {"default": 0.5, "range": [0.4, 0.6]}
        (folder / "controller.json").write_text(json.dumps(card))
        with pytest.raises(InputError, match=r"for beta from 0.4 to 0.6, and none of \[0.0, 1.0\] is"):
            publish(folder, "user/few", stores=[store], betas=[0.0, 1.0], shuffles=3)
        with pytest.raises(InputError, match="betas, shuffles: for measuring, and there is no store"):
            publish(folder, "user/few", betas=[0.5], shuffles=3)
        told = CliRunner().invoke(app, ["publish", str(folder), "user/few", "--shuffles", "3"])
        assert (told.exit_code, "shuffles: for measuring" in told.output) == (1, True)
        other = make_store(tmp_path / "questions", seed=8)
        with pytest.raises(InputError, match="2 stores are called 'questions'"):
            publish(folder, "user/few", stores=[store, other], betas=[0.5], shuffles=3)
        assert "user/few" not in {name for _, name in hub.repos}

    def test_an_evaluation_of_other_questions_is_there(self, hub: HubServer, folder: Path, store: Path) -> None:
        """The bug: the arrays did not fit, which was numpy's ValueError."""
        publish(folder, "user/few", stores=[store], **QUICK)
        told = json.loads(hub.repo("user/few").read("evaluation/summary.json"))
        (there,) = told["stores"]
        there["questions"] -= 1
        there["by_question"] = {name: [row[:-1] for row in rows] for name, rows in there["by_question"].items()}
        put(hub, "user/few", {"evaluation/summary.json": json.dumps(told).encode()})
        with pytest.raises(ConflictError, match=r"cannot be compared with: .* it is the same store"):
            publish(folder, "user/few", stores=[store], **QUICK)

    def test_a_licence_that_is_not_one(self, hub: HubServer, folder: Path) -> None:
        (folder / "README.md").write_text("---\nlicense: [mit, gpl-3.0]\n---\nMine.")
        with pytest.raises(ControllerError, match=r"its license is .* one identifier"):
            publish(folder, "user/few")  # as apache-2.0, it was
        publish(folder, "user/few", licence="mit")
        assert "license: mit" in hub.repo("user/few").read("README.md").decode()

    def test_branches_of_a_card_are_those_that_there_are(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        store = TrajectoryStore.open(make_store(tmp_path / "whole", questions=3))
        with StoreWriter.open(tmp_path / "part", store.manifest, store.questions) as writer:
            writer.append(row for row in store.trajectories() if row.question_id != "q1" or row.branch < 20)
        publish(folder, "user/few", stores=[tmp_path / "part"], **QUICK)
        assert "3 questions, 20 to 24 branches each" in hub.repo("user/few").read("README.md").decode()

    def test_a_link_out_of_the_folder(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        (tmp_path / "secret").write_text("x")
        (folder / "notes").symlink_to(tmp_path / "secret")
        with pytest.raises(ControllerError, match="notes leads out of its folder"):
            publish(folder, "user/few")

    @pytest.mark.long
    def test_no_worse_one_takes_the_place(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        store = make_store(tmp_path / "majorities", seed=1, right=0.6)
        first = publish(builtin_folder("asc"), "user/best", stores=[store], **QUICK)
        with pytest.raises(ConflictError, match=r"does not beat user/best at .*points at equal cost \(95 % interval"):
            publish(weak(tmp_path / "weak"), "user/best", stores=[store], **QUICK)
        with pytest.raises(ConflictError, match="not measured on a common store"):
            publish(folder, "user/best", stores=[make_store(tmp_path / "other", seed=5)], **QUICK)
        with pytest.raises(ConflictError, match="not measured on a common store"):
            publish(folder, "user/best")
        assert hub.repo("user/best").head == first.commit
        told = publish(weak(tmp_path / "weak"), "user/best", stores=[store], replace=True, **QUICK)
        assert told.verdict is not None
        assert told.verdict.gain < 0
        assert "controller.py" not in hub.repo("user/best").commits[told.commit].files  # of the one before
        better = publish(builtin_folder("asc"), "user/best", stores=[store], **QUICK)
        assert (better.tag, better.verdict is not None and better.verdict.better) == ("v3", True)

    def test_something_else_is_there(self, hub: HubServer, folder: Path) -> None:
        put(hub, "user/model", {"model.safetensors": b"x", "config.json": b"{}"})
        with pytest.raises(ConflictError, match=r"something else than a controller \(it holds config\.json\)"):
            publish(folder, "user/model")

    def test_a_damaged_evaluation_is_there(self, hub: HubServer, folder: Path, store: Path) -> None:
        put(hub, "user/few", {**good(), "evaluation/summary.json": b'{"format": "tts-evaluation/1", "stores": [{}]}'})
        with pytest.raises(ConflictError, match=r"cannot be compared with: .*controller is not in it"):
            publish(folder, "user/few", stores=[store], **QUICK)

    @pytest.mark.parametrize("name", ["few", "a/b/c", "user/../x", ""])
    def test_names(self, hub: HubServer, folder: Path, name: str) -> None:
        with pytest.raises(InputError, match="is no repo of the Hub"):
            publish(folder, name)

    def test_nobody_is_logged_in(self, hub: HubServer, folder: Path) -> None:
        hub.revoke(hub.token)
        with pytest.raises(HubError, match="does not take the login") as caught:
            publish(folder, "user/few")
        assert hub.token not in str(caught.value)

    def test_somebody_elses_repo(self, hub: HubServer, folder: Path) -> None:
        hub.create("other/few", files=good())
        with pytest.raises((HubError, ConflictError)):
            publish(folder, "other/few", replace=True)


@pytest.fixture
def fast(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Retries that do not wait; how long they would have."""
    waited: list[float] = []
    monkeypatch.setattr(committing, "time", SimpleNamespace(sleep=waited.append))
    return waited


class TestFaults:
    def test_somebody_commits_meanwhile(self, hub: HubServer, folder: Path) -> None:
        repo = hub.create("user/few", files={"README.md": b"x"})

        def meanwhile() -> None:
            hub.commit("user/few", {"README.md": b"theirs"})

        hub.fault("*/commit/*", before=meanwhile)
        with pytest.raises(ConflictError, match=r"somebody committed .* to user/few since .* was looked at"):
            publish(folder, "user/few")
        assert repo.read("README.md") == b"theirs"
        assert not [ref for ref in repo.refs if "tags" in ref]

    def test_two_publishers_at_once(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        repo = hub.create("user/few", files={"README.md": b"x"})
        other = load_controller("asc", beta=0.3).save_pretrained(tmp_path / "asc")
        held = hub.fault("*/commit/*", hold=True)
        ends: dict[str, object] = {}

        def run(name: str, path: Path) -> None:
            try:
                ends[name] = publish(path, "user/few")
            except ConflictError as error:
                ends[name] = error

        first = threading.Thread(target=run, args=("first", folder))
        first.start()
        assert held.arrived.wait(30)
        run("second", other)
        held.released.set()
        first.join(30)
        assert isinstance(ends["second"], Published)
        assert isinstance(ends["first"], ConflictError)
        assert repo.head == ends["second"].commit

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_a_commit_that_fails_at_first(self, hub: HubServer, folder: Path, status: int, fast: list[float]) -> None:
        hub.fault("*/commit/*", status=status, retry_after=7 if status == 429 else None)
        done = publish(folder, "user/few")
        assert hub.repo("user/few").head == done.commit
        assert len(fast) == 1
        assert fast[0] >= (7 if status == 429 else 1)

    def test_a_commit_whose_reply_is_lost_is_not_made_twice(
        self, hub: HubServer, folder: Path, fast: list[float]
    ) -> None:
        hub.fault("*/commit/*", lose_reply=True)
        done = publish(folder, "user/few")
        assert done.commit == hub.repo("user/few").head
        assert len(hub.requests("*/commit/*")) == 1
        assert not fast

    def test_a_commit_that_keeps_failing(self, hub: HubServer, folder: Path, fast: list[float]) -> None:
        repo = hub.create("user/few", files={"README.md": b"x"})
        head = repo.head
        hub.fault("*/commit/*", status=503, times=None)
        with pytest.raises(HubError, match=f"nothing was published: .*its main is still at {head}"):
            publish(folder, "user/few")
        assert repo.head == head
        assert len(hub.requests("*/commit/*")) == 5

    def test_a_tag_that_is_refused(self, hub: HubServer, folder: Path) -> None:
        hub.fault("*/tag/*", status=403)
        with pytest.raises(HubError, match=r"user/few is published at commit .* could not be tagged"):
            publish(folder, "user/few")
        done = publish(folder, "user/few")  # the bug: "as it was", and never tagged
        assert (done.tag, hub.repo("user/few").refs["refs/tags/v1"]) == ("v1", done.commit)
        assert publish(folder, "user/few").tag is None

    @pytest.mark.parametrize("status", [401, 403])
    def test_a_commit_that_is_refused(self, hub: HubServer, folder: Path, status: int) -> None:
        repo = hub.create("user/few", files={"README.md": b"x"})
        hub.fault("*/commit/*", status=status)
        with pytest.raises(HubError):
            publish(folder, "user/few")
        assert repo.read("README.md") == b"x"
        assert len(hub.requests("*/commit/*")) == 1

    def test_killed_in_the_middle(self, hub: HubServer, folder: Path, tmp_path: Path) -> None:
        repo = hub.create("user/few", files={"README.md": b"x"})
        head = repo.head
        held = hub.fault("*/commit/*", hold=True)
        code = f"from tts_generate.publish import publish; publish({str(folder)!r}, 'user/few')"
        environment = {**os.environ, **hub.environ(tmp_path / "home2")}
        with subprocess.Popen([sys.executable, "-c", code], env=environment) as child:
            assert held.arrived.wait(60)
            child.kill()
        assert repo.head == head
        assert repo.read("README.md") == b"x"
        assert publish(folder, "user/few").tag == "v1"

    def test_what_was_sent_is_looked_at_again(self, hub: HubServer, folder: Path) -> None:
        repo = hub.create("user/few", files={"README.md": b"x"})

        def spoil() -> None:
            if "controller.py" in repo.commits[repo.head].files:
                repo.commits[repo.head].files["controller.py"] = File.of(b"something else")

        hub.fault("*/tree/*", times=None, before=spoil)
        with pytest.raises(HubError, match=r"does not hold what was sent \(controller\.py\)"):
            publish(folder, "user/few")
        assert not [ref for ref in repo.refs if "tags" in ref]


class TestSearch:
    @pytest.fixture
    def run(self, tmp_path: Path) -> Path:
        """A finished search, kept with the stored formats, and its store beside it."""
        shutil.copytree(FORMATS / "store", tmp_path / "questions")
        return Path(shutil.copytree(FORMATS / "run", tmp_path / "run"))

    def test_what_was_found_goes_up_with_how(self, hub: HubServer, run: Path) -> None:
        done = publish_run(run, "user/found", **QUICK)
        card = json.loads(hub.repo("user/found").read("controller.json"))
        result = json.loads((run / "result.json").read_text())
        told = card["provenance"]
        assert told["command"] == result["command"]
        assert told["seed"] == 0
        assert told["tried"] == result["tried"]
        assert told["stores"] == result["settings"]["stores"]
        page = hub.repo("user/found").read("README.md").decode()
        for name in ("tried", "seed", "command", "seconds", "stores"):
            assert f"| {name} |" in page
        found = load_controller("user/found", revision=done.commit, beta=0.5)  # data: no trust
        assert found.knobs == load_controller(run / "best", beta=0.5).knobs

    def test_the_command(self, hub: HubServer, run: Path) -> None:
        arguments = ["--betas", "0,1", "--shuffles", "2"]
        done = CliRunner().invoke(app, ["publish", str(run), "user/found", *arguments])
        assert done.exit_code == 0, done.output
        assert hub.repo("user/found").head in done.output
        head = hub.repo("user/found").head
        weaker = str(weak(run.parent / "weak"))
        again = CliRunner().invoke(app, ["publish", weaker, "user/found", "--store", "questions", *arguments])
        assert again.exit_code == 1
        assert hub.repo("user/found").head == head
        shown = CliRunner().invoke(app, ["show", f"user/found@{head}"]).output
        assert "loads without trust" in shown
        assert "SC@24" in shown

    def test_stores_that_were_moved(self, hub: HubServer, run: Path, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"was searched on questions .* none of .* holds its branches"):
            publish_run(run, "user/found", stores=[make_store(tmp_path / "other", seed=7)])

    def test_a_search_that_was_killed_while_it_wrote(self, hub: HubServer, run: Path) -> None:
        """The bug: the controller of before went up with the numbers of the new choice, or a FileNotFoundError came."""
        told = json.loads((run / "result.json").read_text())
        told["candidate"]["name"] = "another"
        (run / "result.json").write_text(json.dumps(told))
        with pytest.raises(InputError, match=r"best is of candidate 40df8b11ec, and .* of another"):
            publish_run(run, "user/found", **QUICK)
        shutil.rmtree(run / "best")
        with pytest.raises(ControllerError, match=r"controller\.json is not a file"):
            publish_run(run, "user/found", **QUICK)

    def test_a_search_that_may_not_publish(self, hub: HubServer, store: Path, tmp_path: Path) -> None:
        command = ["search", str(store), "--out", str(tmp_path / "run"), "--rounds", "1", "--minutes", "1",
                   "--threads", "1", "--knobs", "threshold"]  # fmt: skip
        unnamed = CliRunner().invoke(app, [*command, "--push-to", "found"])
        assert "'found' is no repo of the Hub" in unnamed.output
        hub.revoke(hub.token)
        refused = CliRunner().invoke(app, [*command, "--push-to", "user/found"])
        assert (unnamed.exit_code, refused.exit_code) == (1, 1)
        assert not (tmp_path / "run").exists()  # said before the search, not after it


def test_another_controller_at_latency_1_is_another() -> None:
    """The bug: a page told of live answers that another schedule had given, and one took the other's place untried."""
    card = {"sha256": "0" * 64, "builtin": "worth", "knobs": {"n_init": 4}}
    short = [{**card, "short": {"n_init": count}} for count in (8, 9)]
    assert len({identity(one) for one in (card, *short)}) == 3
    assert identity({**card, "name": "other", "short": {}}) == identity(card)


def test_a_reloaded_controller_decides_the_same(hub: HubServer, folder: Path) -> None:
    done = publish(folder, "user/few")
    forget()
    ours = load_controller(folder, trust_remote_code=True, beta=0.7)
    theirs = load_controller("user/few", revision=done.commit, trust_remote_code=["user/few"], beta=0.7)
    assert type(ours) is not type(theirs)
    for seed in range(5):
        recording = recording_of(random_trajectories(random.Random(seed), 12))
        one, two = (replay(recording, chosen, shuffles=20) for chosen in (ours, theirs))
        for name in ("answer_ids", "generated_tokens", "probe_tokens", "opened", "rounds"):
            assert np.array_equal(getattr(one, name), getattr(two, name))


def test_saving(tmp_path: Path) -> None:
    assert read(weak(tmp_path / "w")).keys() == {
        "README.md", "controller.json", "custom_generate/generate.py", "custom_generate/requirements.txt",
    }  # fmt: skip
    local = type("Local", (type(load_controller("asc")),), {"__module__": "of_no_file"})
    with pytest.raises(ControllerError, match="cannot be saved"):
        local.from_beta(0.5).save_pretrained(tmp_path / "l")
    with pytest.raises(ControllerError, match="cannot be saved"):
        load_controller(write_few(tmp_path / "f"), sandbox=True).save_pretrained(tmp_path / "s")
    for name in ("thrift", "cmc", "pace", "worth"):
        controller = load_controller(name, beta=0.3)
        again = load_controller(controller.save_pretrained(tmp_path / name))
        assert (again.knobs, again.beta) == (controller.knobs, 0.3)
        verify(str(tmp_path / name))
    (tmp_path / "cmc" / "custom_generate" / "generate.py").write_text("def generate(model, **k): ...\n")
    with pytest.raises(ControllerError, match=r"generate\.py is not what follows"):
        verify(str(tmp_path / "cmc"))


def test_saving_loses_no_code(tmp_path: Path) -> None:
    folder = write_few(tmp_path / "few")
    few = load_controller(folder, trust_remote_code=True)
    few.save_pretrained(folder, name="again")  # its own code
    with pytest.raises(InputError, match=r"controller\.py would be lost: it is the code of another controller"):
        load_controller("asc").save_pretrained(folder)
    mine = b"# mine, saved by nobody\n"
    (folder / "controller.py").write_bytes(mine)
    with pytest.raises(InputError, match=r"would be lost: it is no code that was saved\. Save into another folder"):
        few.save_pretrained(folder)
    assert (folder / "controller.py").read_bytes() == mine
    (folder / "controller.py").unlink()
    load_controller("asc").save_pretrained(folder)
    assert not (folder / "custom_generate" / "controller.py").exists()


def test_a_save_that_the_disk_cut_off_leaves_what_was_there(tmp_path: Path) -> None:
    """The bug: the card was written first, so the folder loaded no more, and took no save either."""
    first = load_controller(write_few(tmp_path / "one"), trust_remote_code=True)
    folder = first.save_pretrained(tmp_path / "saved")
    longer = write_few(tmp_path / "two")
    code = (longer / "controller.py").read_bytes() + b"# more\n" * 2000
    card = json.loads((longer / "controller.json").read_text())
    (longer / "controller.json").write_text(json.dumps({**card, "sha256": hashlib.sha256(code).hexdigest()}))
    (longer / "controller.py").write_bytes(code)
    second = load_controller(longer, trust_remote_code=True)
    limits, before = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, limits[1]))
    try:
        with pytest.raises(InputError, match="cannot write"):
            second.save_pretrained(folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    assert load_controller(folder, trust_remote_code=True).knobs == first.knobs
    assert (second.save_pretrained(folder) / "controller.py").read_bytes() == code


def write_few(folder: Path) -> Path:
    folder.mkdir()
    for name, content in good().items():
        (folder / name).write_bytes(content)
    return folder
