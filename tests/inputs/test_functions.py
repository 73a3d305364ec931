"""Every public function: what fits its signature works or is refused in our words, and what does not is refused.

The functions are found by walking what the public packages export, so that a new one without arguments below fails.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_generate.arguments import fits, hints_of
from tts_generate.errors import TTSError
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.search import read_history
from tts_generate.testing import random_trajectories, recording_of
from tts_generate.trajectories import TrajectoryStore, import_autotts

PACKAGES = ("tts_generate", "loading", "publish", "replay", "search", "sandbox", "testing", "trajectories")
JUNK = [None, True, -1, 0, 10**30, 1.5, float("nan"), float("inf"), "", "nonsense", "a\0b", "../..", b"bytes", [],
        [None], {}, {"a": 1}, object(), lambda: None]  # fmt: skip
"""One of these in the place of one argument; most are of the wrong type."""
RESULTS = {
    "AutoTTSOutput", "CheckedStore", "Candidate", "Confirmation", "Decision", "Difference", "KnobCandidate", "Manifest",
    "Published", "PublishedStore", "RecordedQuestion", "ReplayResult", "Scored", "SearchProgress", "ServerOutput",
    "State", "StoreWriter", "Trajectory", "Verdict",
}  # fmt: skip
"""Classes that we make and users read; `Trajectory` and `Manifest` check themselves, see tests/trajectories."""
EXTENDED = {"BranchProcessor", "BranchProcessorList", "Controller", "Proposer"}
"""Classes that users extend; what an extension gets wrong is in tests/core and tests/engine."""
ENGINE = {"AutoTTS", "enable", "generate_distributed", "record"}
"""Take a model; tests/engine gives them what they must refuse."""


def public() -> Iterator[tuple[str, Any]]:
    """Name and object of every function and class that a public package exports."""
    for package in PACKAGES:
        module = importlib.import_module("tts_generate" if package == "tts_generate" else f"tts_generate.{package}")
        for name in module.__all__:
            thing = getattr(module, name)
            if callable(thing) and not (inspect.isclass(thing) and issubclass(thing, Exception)):
                yield name, thing


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with a store in it."""
    folder = tmp_path_factory.mktemp("inputs")
    row = {"question": "q", "gold_answer": "7", "probe_freq": 500, "final_answers_trace": []}
    (folder / "table.json").write_text(json.dumps([{**row, "each_branch": [[["1"], 700, "7"]]}]))
    import_autotts(folder / "table.json", folder / "store")
    (folder / "questions.jsonl").write_text('{"question_id": "a", "question": "q", "gold_answer": "7"}\n')
    (folder / "here").mkdir()
    with contextlib.chdir(folder / "here"):  # what relative paths stand for
        yield folder


Call = tuple[Callable[..., Any], dict[str, Any]]


def calls(place: Path) -> dict[str, Call]:
    """Good arguments for each public function; methods that make an object of a class are under its name."""
    import tts_generate as tts
    from tts_generate import loading, publish, replay, sandbox, search, testing, trajectories

    rows = random_trajectories(random.Random(1), 4)
    recording = recording_of(rows)
    source = loading.find_source("asc")
    asc, new = load_controller("asc"), place / "new"
    return {
        "Deadline": (tts.Deadline, {"seconds": 1.0}),
        "MaxBranches": (tts.MaxBranches, {"max_branches": 2}),
        "OnRound": (tts.OnRound, {"callback": lambda *_: None}),
        "TokenBudget": (tts.TokenBudget, {"max_tokens": 100}),
        "Question": (tts.Question, {"question_id": "a", "question": "b", "gold_answer": "c"}),
        "Recording": (Recording.from_store, {"store": place / "store", "votes": "equal"}),
        "TrajectoryStore": (TrajectoryStore.open, {"path": place / "store"}),
        "ServerModel": (tts.ServerModel, {
            "base_urls": "http://127.0.0.1:9/v1", "model": "m", "api_key": "k", "max_in_flight": 1, "max_retries": 0,
            "timeout": 1.0, "connect_timeout": 1.0, "extra_body": {},
        }),
        "load_controller": (loading.load_controller, {
            "controller": "asc", "revision": None, "beta": 0.5, "trust_remote_code": False, "sandbox": False,
        }),
        "load_questions": (tts.load_questions, {
            "source": place / "questions.jsonl", "split": "train", "question_column": "question",
            "answer_column": "gold_answer", "id_column": "question_id", "prompt_template": "{question}", "limit": 1,
        }),
        "budget_of": (loading.budget_of, {"source": source, "beta": 0.5}),
        "builtin_controllers": (loading.builtin_controllers, {}),
        "builtin_folder": (loading.builtin_folder, {"name": "asc"}),
        "class_of": (loading.class_of, {"source": source}),
        "find_source": (loading.find_source, {"controller": "asc", "revision": None}),
        "is_shipped": (loading.is_shipped, {"source": source}),
        "load_class": (loading.load_class, {"folder": loading.builtin_folder("asc")}),
        "source_of": (loading.source_of, {"kind": type(asc)}),
        "Benchmark": (publish.Benchmark, {"dataset_id": "a/b", "task_id": "default", "revision": None}),
        "evaluation_of": (publish.evaluation_of, {"source": source}),
        "is_run": (publish.is_run, {"folder": place}),
        "measure": (publish.measure, {
            "source": source, "stores": [place / "store"], "betas": [0.5], "shuffles": 1, "trust_remote_code": False,
            "threads": 1,
        }),
        "measure_live": (publish.measure_live, {
            "model": None, "tokenizer": None, "questions": [], "controllers": [asc], "dataset": "d", "seed": 1,
        }),
        "publish": (publish.publish, {
            "folder": place, "repo_id": "a/b", "stores": [], "live": [], "benchmarks": {}, "betas": [0.5],
            "shuffles": 1, "threads": 1, "trust_remote_code": False, "replace": False, "private": None,
            "licence": None, "message": None,
        }),
        "publish_run": (publish.publish_run, {"run": place, "repo_id": "a/b", "stores": []}),
        "publish_store": (publish.publish_store, {
            "store": place / "nothing", "repo_id": "a/b", "tag": None, "private": None, "replace": False,
            "licence": None, "description": None, "message": None,
        }),
        "push_controller": (publish.push_controller, {
            "controller": asc, "repo_id": "not a repo", "name": None, "description": None,
        }),
        "verify": (publish.verify, {"controller": "asc", "entries": {}}),
        "replay": (replay.replay, {
            "recording": recording, "controller": "asc", "beta": 0.1, "shuffles": 1, "first_shuffle": 0,
            "processors": None, "traces": False, "compiled": False, "threads": 1, "trust_remote_code": False,
        }),
        "shuffled_orders": (replay.shuffled_orders, {"shuffles": 2, "branches": 3, "first": 0}),
        "Fidelity": (search.Fidelity, {"betas": (0.5,), "shuffles": 1, "first_shuffle": 0}),
        "Setup": (search.Setup, {
            "stores": (place / "store",), "controller": "worth", "knobs": None, "reference": "cmc", "seed": 0,
            "objective": "tokens", "share": 0.3, "weights": None, "trust_remote_code": False,
        }),
        "Search": (search.Search, {"setup": search.Setup((place / "store",)), "agent": None, "box": None}),
        "best_of": (search.best_of, {"evaluations": [], "count": 3}),
        "read_history": (read_history, {"folder": place}),
        "write_controller": (search.write_controller, {
            "folder": new, "base": "asc", "schedule": {}, "name": "x", "description": "d", "provenance": {},
        }),
        "write_report": (search.write_report, {"out": place}),
        "Limits": (sandbox.Limits, {"seconds": 1.0, "cpu_seconds": 1.0, "memory_mb": 10.0, "reply_bytes": 100}),
        "Sandbox": (sandbox.Sandbox, {"without": ["nonsense"], "bubblewrap": None, "prefix": [], "python": None}),
        "check_compiled": (testing.check_compiled, {"controller": asc, "rows": rows}),
        "check_controller": (testing.check_controller, {"controller": "nonsense", "branches": 4, "seed": 0}),
        "check_independent": (testing.check_independent, {"controller": asc, "rows": rows}),
        "check_knobs": (testing.check_knobs, {"kind": type(asc)}),
        "check_monotone": (testing.check_monotone, {"name": "x", "betas": [0.0, 1.0], "rows": [{"a": 1}, {"a": 2}]}),
        "check_no_future": (testing.check_no_future, {"controller": asc, "rows": rows, "rng": random.Random(1)}),
        "random_trajectories": (testing.random_trajectories, {"rng": random.Random(1), "branches": 4}),
        "recording_of": (testing.recording_of, {"rows": rows}),
        "check": (trajectories.check, {"path": place / "store"}),
        "import_autotts": (trajectories.import_autotts, {
            "json_file": place / "table.json", "out": place / "store", "model": None,
        }),
        "pull": (trajectories.pull, {"repo_id": "not a repo", "out": new, "revision": None}),
        "repair": (trajectories.repair, {"path": place / "store"}),
    }  # fmt: skip


def names() -> list[str]:
    return sorted({name for name, _ in public()} - RESULTS - EXTENDED - ENGINE)


def outcome(function: Callable[..., Any], arguments: dict[str, Any]) -> TTSError | None:
    """The error of ours that a call ends with; any other goes through."""
    try:
        made = function(**arguments)
    except TTSError as error:
        return error
    if hasattr(made, "close"):
        made.close()
    return None


def test_every_public_function_is_tried(place: Path) -> None:
    assert set(names()) == set(calls(place))


@pytest.mark.parametrize("name", names())
def test_junk_in_the_place_of_an_argument(name: str, place: Path) -> None:
    function, good = calls(place)[name]
    unwrapped = function.__init__ if inspect.isclass(function) else function  # type: ignore[misc]
    hints = hints_of(inspect.unwrap(getattr(unwrapped, "__func__", unwrapped)))
    for argument in good:
        for junk in JUNK:
            if junk == 10**30 and argument in ("shuffles", "branches", "count"):
                continue  # as many as were asked for: a long wait is no error
            try:
                error = outcome(function, {**good, argument: junk})
            except Exception as wrong:
                pytest.fail(f"{name}({argument}={junk!r}): {type(wrong).__name__}: {wrong}")
            assert error is None or len(str(error)) > 20
            if error is None and argument in hints:
                assert fits(junk, hints[argument]), f"{name}({argument}={junk!r}) was taken without a word"


@pytest.mark.parametrize("name", names())
def test_a_path_is_taken_as_text_too(name: str, place: Path) -> None:
    function = calls(place)[name][0]
    unwrapped = function.__init__ if inspect.isclass(function) else function
    for argument, hint in hints_of(inspect.unwrap(getattr(unwrapped, "__func__", unwrapped))).items():
        for wrapped in (lambda value: value, lambda value: [value], lambda value: (value,)):
            if hint is not Any and fits(wrapped(Path("x")), hint):
                assert fits(wrapped("x"), hint), f"{name}({argument}=): a Path and no text"


@settings(max_examples=20, deadline=None)
@given(text=st.text(max_size=40))
def test_any_text(text: str, place: Path) -> None:
    for name, argument in (
        ("load_controller", "controller"), ("builtin_folder", "name"), ("ServerModel", "base_urls"),
        ("TrajectoryStore", "path"), ("check", "path"), ("verify", "controller"),
    ):  # fmt: skip
        function, good = calls(place)[name]
        outcome(function, {**good, argument: text})
