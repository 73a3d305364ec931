"""Every example runs as its first lines say, and is short; those with servers and processes run in their own areas."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from forked import Forked, script

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODEL = {"tiny_task.py", "train_tiny.py"}  # how the tiny model was made: no example of use


def run(name: str, *arguments: object) -> str:
    done = Forked(script, str(ROOT), str(EXAMPLES / name), [str(argument) for argument in arguments])
    out, err = done.communicate(timeout=240)
    assert done.returncode == 0, err
    return out


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("examples") / "store"
    assert "128 branches of 8 questions" in run("record.py", path)
    return path


@pytest.mark.long
def test_sweep(store: Path) -> None:
    lines = run("sweep.py", store).splitlines()
    assert [line.split()[0] for line in lines] == ["SC@16", "ASC@16", "short_m_at_k", "short_m_at_k", "esc", "cmc"]
    assert "0.0% fewer than SC@16" in lines[0]


def test_write_a_controller(store: Path) -> None:
    output = run("write_a_controller.py", store)
    assert output.count("replay β=") == 3
    assert "live β=0.5: answers" in output


@pytest.mark.long
def test_search(store: Path, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    pytest.importorskip("optuna")
    assert str(tmp_path / "run" / "report.html") in run("search.py", store, tmp_path / "run")
    assert (tmp_path / "run" / "best" / "controller.json").is_file()


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.name)
def test_an_example_is_short_and_somebody_runs_it(path: Path) -> None:
    if path.name in MODEL:
        return
    assert len(path.read_text("utf-8").splitlines()) <= 60
    tests = [test.read_text("utf-8") for test in (ROOT / "tests").rglob("test_*.py")]
    assert any(f'"{path.name}"' in text or f'"{path.stem}"' in text for text in tests), f"no test runs {path.name}"


@pytest.mark.long
def test_the_notebook_runs(tmp_path: Path) -> None:
    """Every cell, in a kernel of its own; what is stored with the notebook is what such a run printed."""
    pytest.importorskip("nbclient", reason="needs nbclient and ipykernel: pip install 'tts-generate[dev]'")
    import nbclient
    import nbformat

    stored = nbformat.read(EXAMPLES / "quickstart.ipynb", as_version=4)
    client = nbclient.NotebookClient(nbformat.from_dict(stored), timeout=300, kernel_name="python3")
    ran = asyncio.run(client.async_execute(env={**os.environ, "TMPDIR": str(tmp_path)}))

    def printed(notebook: nbformat.NotebookNode) -> list[str]:
        outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
        return [output.text for output in outputs if output.get("name") == "stdout"]

    assert printed(ran) == printed(stored)
    assert any("%" in text for text in printed(ran))
