"""The examples of this area run as they stand, and the page's blocks too."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from tts_generate.harness.evaluators import ControllerSuite

ROOT = Path(__file__).resolve().parents[2]
SAID = {
    "with_lm_eval": ("lm_eval", ["|tiny_digits|", "tts_saving", "tts_tokens", "exact_match"]),
    "evaluation_suite": ("math_verify", ["self_consistency", "cmc β=0.5", "saved"]),
    "with_inspect": ("inspect_ai", ["accuracy", "probe_tokens"]),
}


def run(command: list[str], folder: Path) -> str:
    """In a child process, with its home in a folder of its own."""
    environment = {**os.environ, "HF_HOME": str(folder / "hf"), "XDG_DATA_HOME": str(folder / "data")}
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("name", sorted(SAID))
def test_example(name: str, tmp_path: Path) -> None:
    needs, expected = SAID[name]
    pytest.importorskip(needs)
    file = ROOT / "examples" / f"{name}.py"
    assert len(file.read_text("utf-8").splitlines()) <= 60
    said = run([sys.executable, str(file), "--questions", "2"], tmp_path)
    for text in expected:
        assert text in said, said


def test_the_suite_is_loaded_by_its_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.config.HF_EVALUATE_CACHE", str(tmp_path))
    suite = evaluate.EvaluationSuite.load(str(ROOT / "examples" / "evaluation_suite.py"))
    assert isinstance(suite, ControllerSuite)
    assert len(suite.suite) == 5


BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", (ROOT / "docs" / "harnesses.md").read_text("utf-8"), re.DOTALL)


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_block_of_the_page(number: int, tmp_path: Path) -> None:
    for needed in ("lm_eval", "inspect_ai", "peft", "math_verify"):
        pytest.importorskip(needed)
    language, block = BLOCKS[number]
    if language == "python":
        run([sys.executable, "-c", block], tmp_path)
    else:
        tools = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        run(["env", f"PATH={tools}", "bash", "-euo", "pipefail", "-c", block], tmp_path)
