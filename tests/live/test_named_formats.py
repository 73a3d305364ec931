"""Answers as people write them, by name: on a model that boxes them all, `auto` reads what is read without it."""

from __future__ import annotations

import collections
import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from local_servers import OPTIONS, QUESTIONS
from server_checks import of_a_server, of_the_engine
from token_server import TokenServer

from tts_generate import ServerModel, enable
from tts_generate.answers import AnswerFormat
from tts_generate.engine.record import record
from tts_generate.errors import InputError, NoAnswerWarning, StoreFormatError
from tts_generate.live.branch import Branch
from tts_generate.live.reader import Reader
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import Question


@pytest.mark.long
def test_on_the_engine_and_on_servers(tiny: tuple[Any, Any]) -> None:
    """`auto` is what is meant where nothing is said."""
    model, tokenizer = tiny
    inputs = tokenizer(QUESTIONS, return_tensors="pt", padding=True, padding_side="left")
    how = {"strategy": "autotts", "return_dict_in_generate": True, "do_sample": True, "seed": 1, **OPTIONS}
    enable(model, tokenizer=tokenizer)
    plain, auto = (model.generate(**inputs, **how, answer_pattern=pattern) for pattern in ("boxed", None))
    with TokenServer(batch=1) as server:
        served = ServerModel(server.url, tokenizer=tokenizer).generate(QUESTIONS, **OPTIONS, seed=1)
    assert None not in plain.answers
    assert (plain.answer_pattern, auto.answer_pattern, served.answer_pattern) == ("boxed", "auto", "auto")
    assert auto.trace == plain.trace
    assert [trace.to_dict()["answer_pattern"] for trace in (*plain.trace, *auto.trace)] == ["boxed"] * 2 + ["auto"] * 2
    assert (auto.answers, auto.cost) == (plain.answers, plain.cost)
    assert None not in served.answers


def test_a_recording_says_the_name(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    questions = [Question("a", QUESTIONS[0], "1")]
    how = {"branches": 2, "interval_tokens": 20, "max_new_tokens": 60}
    with pytest.warns(NoAnswerWarning):
        record(*tiny, questions, tmp_path / "s", **how, answer_pattern="hashes")
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    assert manifest["probe"]["format"]["answer_pattern"] == "hashes"


def test_a_recording_goes_on_in_its_format_only(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """One that was made before formats had names says none: it read boxes."""
    questions, how = [Question("a", QUESTIONS[0], "1")], {"branches": 1, "interval_tokens": 20, "max_new_tokens": 60}
    store = record(*tiny, questions, tmp_path / "s", **how, answer_pattern="boxed")
    said = store.manifest.to_json().replace('"answer_pattern": "boxed"', '"answer_pattern": null')
    assert said != store.manifest.to_json()
    (tmp_path / "s" / "manifest.json").write_text(said)
    with pytest.raises(StoreFormatError, match=r"'answer_pattern': None.* here, .*'answer_pattern': 'auto'"):
        record(*tiny, questions, tmp_path / "s", **how)
    again = record(*tiny, questions, tmp_path / "s", **how, answer_pattern="boxed")
    assert again.trajectories() == store.trajectories()
    (trace,) = replay(again, "asc", shuffles=0, max_samples=1, traces=True).traces
    assert trace.answer_pattern == "boxed"
    assert record(*tiny, questions, tmp_path / "t", **how).manifest.answer_pattern == "auto"


@pytest.mark.parametrize(("reason", "answer"), [("eos", "67"), ("stop", "67"), ("length", None)])
def test_the_last_number_of_a_branch_that_ended_by_itself(
    tiny: tuple[Any, Any], reason: str, answer: str | None
) -> None:
    class Texts:
        def decode(self, ids: list[int], **how: Any) -> str:
            return "They have 67 of them, so all of them are there"

    branch = Branch(0, 0, [1], (0, 0))
    branch.ids, branch.finish_reason = [1, 2], reason
    assert Reader(Texts(), AnswerFormat(answer_pattern="auto")).final_answer(branch) == answer


def test_texts_vote_without_a_format(tiny: tuple[Any, Any]) -> None:
    """What most branches say word for word is the answer, here and at servers."""
    how: dict[str, Any] = {"controller": "self_consistency", "controller_kwargs": {"max_samples": 12}, "seed": 1}
    for run in (of_the_engine, of_a_server):
        output = run(tiny, **how, answer_pattern="text", temperature=0.3)
        for answer, branches, votes in zip(output.answers, output.branches, output.votes, strict=True):
            said = [branch.final_answer for branch in branches]
            assert None not in said
            assert votes == dict(collections.Counter(said))
            assert votes[answer] == max(votes.values()) > 1
            assert answer.startswith("\\boxed{")  # not only what it holds


@pytest.mark.long
def test_a_step_fits_short_branches(tiny: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody says how long a step is, and 200 tokens are no step of 500."""
    model, tokenizer = tiny
    monkeypatch.delattr(model.generation_config, "interval_tokens")
    inputs = tokenizer(QUESTIONS, return_tensors="pt", padding=True, padding_side="left")
    how = {"strategy": "autotts", "return_dict_in_generate": True, "do_sample": True}
    how |= {**OPTIONS, "controller": "cmc", "beta": 0.0, "seed": 1, "max_new_tokens": 200}
    del how["interval_tokens"]
    enable(model, tokenizer=tokenizer)
    output, as_said = (model.generate(**inputs, **how, **step) for step in ({}, {"interval_tokens": 25}))
    assert output.cost == as_said.cost
    left = {name: value for name, value in OPTIONS.items() if name not in ("interval_tokens", "max_new_tokens")}
    with TokenServer(batch=1) as server:
        served = ServerModel(server.url, tokenizer=tokenizer)
        short, same = (
            served.generate(QUESTIONS, **left, controller="cmc", beta=0.0, max_new_tokens=200, **step, seed=1)
            for step in ({}, {"interval_tokens": 25})
        )
    assert short.cost == same.cost


def last_word(text: str) -> str | None:
    return text.removesuffix("<eos>").split()[-1].strip("}{") if "boxed" in text else None


def test_a_function_reads(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    for run in (of_the_engine, of_a_server):
        usual = run(tiny, controller="cmc", seed=1)
        output = run(tiny, controller="cmc", seed=1, answer_pattern=lambda text: AnswerFormat().find(text))
        assert (output.answers, output.votes) == (usual.answers, usual.votes)
        assert output.answer_pattern == f"function {__name__}.test_a_function_reads.<locals>.<lambda>"
    questions = [Question("0", QUESTIONS[0], "1")]
    how: dict[str, Any] = {"branches": 2, "seed": 1, "max_new_tokens": 64, "progress": False}
    store = record(*tiny, questions, tmp_path / "s", answer_pattern=last_word, **how)
    assert store.manifest.answer_pattern == f"function {__name__}.last_word"
    with pytest.raises(StoreFormatError, match="other settings"):
        record(*tiny, questions, tmp_path / "s", **how)


def test_a_function_that_gives_no_text() -> None:
    read: Any = lambda text: 7  # noqa: E731
    with pytest.raises(InputError, match="must give text or None, gave 7"):
        AnswerFormat(answer_pattern=read).find("7")


@pytest.mark.long
def test_votes_by_mathematics(tiny: tuple[Any, Any]) -> None:
    """Here and at servers, and in the stop rule: ways to write one number are one answer."""
    ways = itertools.cycle(("%s", "%s.0", r"\frac{%s}{1}", "%s/1"))

    def read(text: str) -> str | None:
        found = AnswerFormat().find(text)
        return None if found is None else next(ways) % found

    how: dict[str, Any] = {"controller": "asc", "controller_kwargs": {"max_samples": 12}, "seed": 1}
    for run in (of_the_engine, of_a_server):
        usual = run(tiny, **how)
        texts = run(tiny, **how, answer_pattern=read)
        output = run(tiny, **how, answer_pattern=read, votes="math")
        assert [cost.total_tokens for cost in output.cost] == [cost.total_tokens for cost in usual.cost]
        assert [list(votes.values()) for votes in output.votes] == [list(votes.values()) for votes in usual.votes]
        assert texts.total_cost.total_tokens > usual.total_cost.total_tokens
        assert output.winners == usual.winners
        questions = [Question(str(number), "") for number in range(len(output.answers))]
        rows = [branch for branches in output.branches for branch in branches]
        recording = Recording.of(questions, rows, OPTIONS["interval_tokens"], source="live", votes="math")
        result = replay(recording, "asc", max_samples=12, shuffles=0)
        assert [cost.generated_tokens for cost in output.cost] == result.generated_tokens[0].tolist()
    with pytest.raises(InputError, match="votes must be 'equal' or 'math'"):
        of_the_engine(tiny, votes="maths")
