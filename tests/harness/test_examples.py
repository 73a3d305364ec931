"""The examples of this area run as they stand, and the page's blocks too."""

from __future__ import annotations

import gc
import importlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import evaluate
import pytest
from harness_tasks import expected

from tts_generate.harness.evaluators import ControllerSuite

ROOT = Path(__file__).resolve().parents[2]
SAID = {
    "with_lm_eval": ("lm_eval", ["|tiny_digits|", "tts_saving", "tts_tokens", "exact_match"]),
    "evaluation_suite": ("evaluate", ["self_consistency", "cmc β=0.05", "saved"]),
    "with_inspect": ("inspect_ai", ["accuracy", "probe_tokens"]),
}


@pytest.fixture(autouse=True)
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything that an example writes goes to a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "datasets")
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.setenv("INSPECT_LOG_DIR", str(tmp_path / "logs"))
    yield
    gc.collect()


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # streams Inspect leaves open
@pytest.mark.parametrize("name", sorted(SAID))
def test_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    needs, texts = SAID[name]
    pytest.importorskip(needs)
    file = ROOT / "examples" / f"{name}.py"
    assert len(file.read_text("utf-8").splitlines()) <= 60
    importlib.import_module(name).main(questions=1)
    said = capsys.readouterr().out
    for text in texts:
        assert text in said, said


def test_the_suite_is_loaded_by_its_path() -> None:
    suite = evaluate.EvaluationSuite.load(str(ROOT / "examples" / "evaluation_suite.py"))
    assert isinstance(suite, ControllerSuite)
    assert len(suite.suite) == 5


PAGE = (ROOT / "docs" / "harnesses.md").read_text("utf-8")
PYTHON, SHELL = (re.findall(f"```{language}\n(.*?)```", PAGE, re.DOTALL) for language in ("python", "bash"))


def shell(block: str, folder: Path) -> str:
    """What a block prints, run as it stands in a folder, with this Python first."""
    tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {
        **os.environ,
        "PATH": tools,
        "HF_HOME": str(folder / "hf"),
        "XDG_DATA_HOME": str(folder),
        "TMPDIR": str(folder),
    }
    command = ["bash", "-euo", "pipefail", "-c", block]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=folder, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.long
@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_python_block_of_the_page(number: int) -> None:
    for needed in ("lm_eval", "peft"):
        pytest.importorskip(needed)
    exec(compile(PYTHON[number], "docs/harnesses.md", "exec"), {"__name__": "__main__"})


@pytest.mark.long
def test_command_line_of_lm_eval(tmp_path: Path) -> None:
    """The page's block, end to end: table, results and samples say what our own evaluation says."""
    pytest.importorskip("lm_eval")
    said = shell(SHELL[0], tmp_path)
    table = [line for line in said.splitlines() if line.startswith("|")]
    for metric in ("exact_match", "tts_tokens", "tts_probe_tokens", "tts_wasted_tokens", "tts_seconds"):
        assert any(metric in line for line in table), said
    known = expected(beta=0.5, seed=0, max_new_tokens=320)
    tokens = [cost.generated_tokens + cost.probe_tokens for cost in (known.cost or [])[:3]]
    (file,) = (tmp_path / "results").rglob("results_*.json")
    written = json.loads(file.read_text("utf-8"))
    rows = written["config"]["tts"]["tasks"]["tiny_digits"]["by_question"]
    assert [row["answer"] for row in sorted(rows, key=lambda row: row["doc_id"])] == (known.answers or [])[:3]
    assert written["results"]["tiny_digits"]["tts_tokens,none"] == pytest.approx(sum(tokens) / 3)
    (samples,) = (tmp_path / "results").rglob("samples_*.jsonl")
    lines = [json.loads(line) for line in samples.read_text("utf-8").splitlines()]
    found = {sample["doc_id"]: sample["tts"][0]["tokens"] for sample in lines}
    assert found == dict(enumerate(tokens))


@pytest.mark.long
def test_command_line_of_inspect(tmp_path: Path) -> None:
    pytest.importorskip("inspect_ai")
    said = shell(SHELL[1], tmp_path)
    for metric in ("accuracy", "probe_tokens", "wasted_tokens"):
        assert metric in said
