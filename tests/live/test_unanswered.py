"""A call whose questions end without an answer says so once: what was looked for, where, and what to set."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
from local_servers import OPTIONS, QUESTIONS
from token_server import TokenServer
from typer.testing import CliRunner

from tts_generate import NoAnswerWarning, ServerModel, TrajectoryStore, enable
from tts_generate.answers import AnswerFormat
from tts_generate.cli import app
from tts_generate.engine.record import record
from tts_generate.live.branch import Branch
from tts_generate.live.episode import LiveEpisode
from tts_generate.live.reader import Reader
from tts_generate.live.settings import EpisodeSettings
from tts_generate.live.task import Prompt, Task
from tts_generate.live.unanswered import Unanswered
from tts_generate.loading import load_controller
from tts_generate.server.dialects import Pieces
from tts_generate.trajectories import Question

ASKED: dict[str, Any] = {**OPTIONS, "seed": 1, "answer_pattern": "hashes"}
SHORT: dict[str, Any] = {**ASKED, "controller": "asc", "controller_kwargs": {"max_samples": 2}}
ALL = [Question(str(number), text, "1") for number, text in enumerate(QUESTIONS)]


class Told(LiveEpisode[Branch]):
    """An episode whose branches are told what they decode."""

    def new_branch(self, number: int, key: int, order: tuple[int, int]) -> Branch:
        return Branch(number, key, self.task.prompt.ids, order, self.thought)


def told(caught: Any) -> str:
    """The one warning."""
    (warning,) = caught
    return str(warning.message)


def test_on_the_engine_once_a_call(tiny: tuple[Any, Any]) -> None:
    model, tokenizer = tiny
    inputs = tokenizer(QUESTIONS, return_tensors="pt", padding=True, padding_side="left")
    how = {"strategy": "autotts", "return_dict_in_generate": True, "do_sample": True, **SHORT}
    generate = enable(model, tokenizer=tokenizer).generate
    with pytest.warns(NoAnswerWarning) as caught:
        output = generate(**inputs, **how)
    assert output.answers == [None, None]
    text = told(caught)
    assert text.startswith(
        "2 of 2 questions end without an answer: no branch ended with what answer_pattern='hashes' looks for, #### 42."
    )
    assert "Question '0': branch 0 ended after" in text
    assert "\\boxed{" in text
    assert "Set answer_pattern=" in text
    with pytest.warns(NoAnswerWarning) as caught:
        assert [each.answers for each in generate(**inputs, **how, stream=True)] == [[None], [None]]
    assert told(caught) == text


def test_the_default_soon_stops_asking_in_vain(tiny: tuple[Any, Any]) -> None:
    """Three waves of up to 37 branches, of which two are opened: more than eight have ended without an answer."""
    model, tokenizer = tiny
    inputs = tokenizer(QUESTIONS[0], return_tensors="pt")
    how = {**ASKED, "controller": "thrift", "beta": 0.75, "strategy": "autotts", "return_dict_in_generate": True}
    with pytest.warns(NoAnswerWarning):
        output = enable(model, tokenizer=tokenizer).generate(**inputs, **how)
    assert 8 <= len(output.branches[0]) < 20


def test_on_servers(tiny: tuple[Any, Any]) -> None:
    with TokenServer(batch=1) as server, pytest.warns(NoAnswerWarning, match="2 of 2 questions") as caught:
        ServerModel(server.url, tokenizer=tiny[1]).generate(QUESTIONS, **SHORT)
    assert "answer_pattern='hashes'" in told(caught)


@pytest.mark.parametrize("where", ["engine", "server"])
def test_a_recording_is_whole_when_the_warning_is_an_error(tiny: tuple[Any, Any], tmp_path: Path, where: str) -> None:
    out, how = tmp_path / "s", {**ASKED, "branches": 2, "progress": False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if where == "engine":
            with pytest.raises(NoAnswerWarning, match="2 of 2 questions"):
                record(*tiny, ALL, out, **how)
        else:
            with TokenServer(batch=1) as server, pytest.raises(NoAnswerWarning, match="2 of 2 questions"):
                ServerModel(server.url, tokenizer=tiny[1]).record(ALL, out, **how)
    assert len(TrajectoryStore.open(out).trajectories()) == 4
    assert [path.name for path in out.glob("part-*")]


def test_the_command_says_it(tmp_path: Path) -> None:
    asked = ["record", "tiny", "--out", str(tmp_path / "s"), "--branches", "1", "--max-new-tokens", "16"]
    with pytest.warns(NoAnswerWarning, match="64 of 64 questions"):
        done = CliRunner().invoke(app, [*asked, "--answer-pattern", "hashes"])
    assert done.exit_code == 0, done.output


def test_a_branch_that_was_cut_and_text_that_acts() -> None:
    pieces = Pieces({AnswerFormat().probe_suffix: 3})
    reader = Reader(pieces, AnswerFormat())
    settings = EpisodeSettings(seed=0, interval_tokens=4, max_new_tokens=8)

    question = Told(
        0, Task("q", Prompt((1, 2), "a"), load_controller("self_consistency", max_samples=1)), settings, reader
    )
    (unit,) = question.start()
    branch = question.branch(unit)
    branch.take(pieces.add("so\x1b[31m\nred", 8), [-0.5] * 8, 4)
    branch.finish_reason = "length"
    question.count(unit)
    assert question.resume() == []
    with pytest.warns(NoAnswerWarning) as caught:
        Unanswered(reader, [question]).tell()
    text = told(caught)
    assert "branch 0 was cut after 8 tokens with «so\\x1b[31m\\nred»" in text
    assert "Set a larger max_new_tokens (now 8), or" in text
    assert "answer_pattern='auto' looks for, \\boxed{42}, #### 42, <answer>42</answer> or" in text
    question.finish_reason = "deadline"  # which the output says
    Unanswered(reader, [question]).tell()
