"""What a long job says of itself: the bar's text, the switch, and trackio."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from tts_generate.errors import InputError, UnknownNameError
from tts_generate.runner import Cost
from tts_generate.tracking import Progress, Saved
from tts_generate.trajectories import Trajectory


def branch(tokens: int, reason: str | None) -> Trajectory:
    return Trajectory("q", 0, 0, 1, tokens, reason, None, (), (), (), (), ())


def test_without_a_baseline_the_saving_is_estimated_from_branches_that_ended() -> None:
    saved = Saved()
    saved.add(Cost(5, 640, 0, 0), [branch(100, "eos"), branch(300, "length"), branch(240, None)])
    assert saved.share == pytest.approx(1 - 640 / (64 * 200))
    assert saved.text == "640 tokens, ~95.0% saved of SC@64"


def test_where_nothing_ended_nothing_is_claimed() -> None:
    saved = Saved()
    saved.add(Cost(5, 64, 0, 0), [branch(64, None)])
    assert saved.share is None
    assert saved.text == "64 tokens"
    assert saved.to_dict() == {
        "questions": 1, "tokens": 64, "prompt_tokens": 5, "generated_tokens": 64, "probe_tokens": 0, "wasted_tokens": 0,
    }  # fmt: skip


def test_the_bar_can_be_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress(1, "answering", shown=False) as progress:
        progress.add(Cost(1, 2), [])
    assert capsys.readouterr().err == ""


def test_only_trackio_is_known() -> None:
    with pytest.raises(UnknownNameError, match="Known: 'trackio'"):
        Progress(1, "answering", shown=False, report_to="wandb")
    with pytest.raises(InputError, match="project"):
        Progress(1, "answering", shown=False, report_to="trackio", project="")


def test_trackio_gets_the_totals_after_every_question(tmp_path: Path) -> None:
    """In a process of its own: trackio keeps its run and its folder in the process."""
    pytest.importorskip("trackio", reason="pip install 'tts-generate[trackio]'")
    script = """
from tts_generate.runner import Cost
from tts_generate.tracking import Progress
with Progress(2, "answering", shown=False, report_to="trackio", project="tiny", name="cmc") as bar:
    for tokens in (300, 100):
        bar.add(Cost(10, tokens, 20, 0), [], baseline=1000)
"""
    environment = {"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    (database,) = tmp_path.rglob("tiny*.db")
    with sqlite3.connect(database) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("select metrics from metrics order by step")]
    assert [row["tokens"] for row in rows] == [320, 440]
    assert [row["saving"] for row in rows] == [pytest.approx(0.68), pytest.approx(0.78)]
