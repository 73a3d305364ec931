"""What a long job says of itself: the bar's text, the switch, and trackio."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from transformers.utils import logging

from tts_generate.errors import UnknownNameError
from tts_generate.runner import Cost
from tts_generate.tracking import Compared, Progress, Recorded, Savings, Searched
from tts_generate.trajectories import Trajectory


def branch(tokens: int, reason: str | None) -> Trajectory:
    return Trajectory("q", 0, 0, 1, tokens, reason, None, (), (), (), (), ())


def test_without_a_baseline_the_saving_is_estimated_from_branches_that_ended() -> None:
    saved = Savings()
    saved.add(Cost(5, 640, 0, 0), [branch(100, "eos"), branch(300, "length"), branch(240, None)])
    assert saved.share == pytest.approx(1 - 640 / (64 * 200))
    assert saved.text == "640 tokens, ~95.0% saved of SC@64"


def test_where_nothing_ended_nothing_is_claimed() -> None:
    saved = Savings()
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


def test_trackio_gets_the_totals_after_every_question(tmp_path: Path) -> None:
    """In a process of its own: trackio keeps its run and its folder in the process."""
    pytest.importorskip("trackio", reason="pip install 'tts-generate[trackio]'")
    script = """
from tts_generate.runner import Cost
from tts_generate.tracking import Progress
with Progress(2, "answering", shown=False, report_to="trackio") as bar:
    for tokens in (300, 100):
        bar.add(Cost(10, tokens, 20, 0), [], baseline=1000)
"""
    environment = {"TRACKIO_DIR": str(tmp_path), "HF_HUB_OFFLINE": "1", "PYTHONPATH": ":".join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment, cwd=tmp_path, check=False
    )
    assert done.returncode == 0, done.stderr
    (database,) = tmp_path.rglob("tts-generate*.db")
    with closing(sqlite3.connect(database)) as connection:
        rows = [json.loads(row[0]) for row in connection.execute("select metrics from metrics order by step")]
    assert [row["tokens"] for row in rows] == [320, 440]
    assert [row["saving"] for row in rows] == [pytest.approx(0.68), pytest.approx(0.78)]


def recorded(tokens: int, probes: tuple[int, ...]) -> Trajectory:
    positions = tuple(32 * (n + 1) for n in range(len(probes)))
    nothing = (None,) * len(probes)
    return Trajectory("q", 0, 0, 1, tokens, "eos", "7", positions, nothing, probes, nothing, ())


def test_a_recording_shows_its_tokens_and_saves_none(capsys: pytest.CaptureFixture[str]) -> None:
    with Recorded(4, initial=1) as bar:
        bar.add(recorded(1000, (6, 8)))
        bar.add(recorded(500, ()))
    said = capsys.readouterr().err
    assert "1,500 tokens and 14 of probes" in said
    assert "3/4" in said
    assert "saved" not in said


def test_a_sweep_shows_the_cheapest_method_that_is_as_accurate_as_the_baseline(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with Compared(4, "tiny") as bar:
        bar.add("SC@64", 60.0, 1000)
        assert bar.text == ""
        for label, accuracy, tokens in (("ASC@64", 60.0, 400), ("cmc β=0", 50.0, 100), ("cmc β=1", 61.0, 300)):
            bar.add(label, accuracy, tokens)
    assert "cmc β=1 saves 70.0% of SC@64" in capsys.readouterr().err
    with Compared(2, "tiny", baseline="SC@64", shown=False) as bar:
        bar.add("SC@4", 50.0, 10)
        assert bar.text == ""
        bar.add("SC@64", 50.0, 1000)
        assert bar.text == "SC@4 saves 99.0% of SC@64"


def test_a_search_shows_its_time_and_what_its_best_saves(capsys: pytest.CaptureFixture[str]) -> None:
    with Searched(0.5) as bar:
        bar.add(12.0, 24, "")
        bar.add(31.5, 48, "saves 70.0% of SC@64 at its accuracy")
    said = capsys.readouterr().err
    assert "48 candidates, saves 70.0% of SC@64 at its accuracy" in said
    assert "100%" in said


@pytest.mark.parametrize(
    "bar", [lambda: Progress(1, "a"), lambda: Recorded(1), lambda: Compared(1, "a"), lambda: Searched(1)]
)
def test_every_bar_follows_the_switch_of_transformers(bar: Any, capsys: pytest.CaptureFixture[str]) -> None:
    logging.disable_progress_bar()
    try:
        with bar() as hidden:
            hidden.tell("done")
    finally:
        logging.enable_progress_bar()
    assert capsys.readouterr().err == ""


@pytest.mark.long
def test_the_library_says_nothing_unless_asked_to() -> None:
    """Its loggers have no handler and no level of their own; a warning goes where Python's last resort puts it."""
    script = """
import logging, tts_generate, tts_generate.evaluate, tts_generate.server.pool, tts_generate.engine
ours = [logging.getLogger(name) for name in logging.root.manager.loggerDict if name.startswith("tts_generate")]
assert ours
print([one.name for one in ours if one.handlers or one.level != logging.NOTSET])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert done.stderr == ""
