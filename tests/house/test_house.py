"""The rules of the house that a machine can check: sizes, light imports, docstrings, numbers, the wheel."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from forked import Forked, script

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "tts_generate"
sys.path.insert(0, str(ROOT / "tools"))
import numbers_check as numbers  # noqa: E402


def modules() -> list[Path]:
    return sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize(
    "path",
    [*modules(), *sorted((ROOT / "controllers").rglob("*.py")), *sorted((ROOT / "examples").glob("*.py"))],
    ids=lambda p: str(p.relative_to(ROOT)),
)
def test_sizes_docstrings_and_manners(path: Path) -> None:
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    assert len(text.splitlines()) <= 400, "a module of over 400 lines has become two"
    assert ast.get_docstring(tree), "the module says what it is for"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            body = (node.end_lineno or 0) - node.body[0].lineno + 1
            doc = ast.get_docstring(node) or ""
            assert body - len(doc.splitlines()) <= 60, f"{node.name} does not fit a screen"
        if isinstance(node, ast.ExceptHandler):
            assert node.type is not None, "a bare except"
            broad = isinstance(node.type, ast.Name) and node.type.id in ("Exception", "BaseException")
            reraised = any(isinstance(inner, ast.Raise) for inner in ast.walk(node))
            used = {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}
            handed_on = node.name is not None and node.name in used  # to another thread or process
            assert not broad or reraised or handed_on, "a broad except that swallows"


SHOWN_BY = {
    "print": set(), "input": set(), "echo": set(), "secho": set(), "rich_print": set(), "from_markup": set(),
    "Console": set(), "PlainConsole": {"cli/base.py"}, "warn": {"errors.py", "sandbox/candidate.py"},
    "tqdm": {"tracking.py"}, "stdout.write": {"equivalence.py"}, "stderr.write": {"sandbox/keeper.py"},
    "console.log": set(), "console.out": set(), "basicConfig": set(),
}  # fmt: skip
"""What may show text, and the files in which it may be called: what candidates and workers write goes to their host."""


@pytest.mark.parametrize("path", modules(), ids=lambda p: str(p.relative_to(SOURCE)))
def test_text_is_shown_inert(path: Path) -> None:
    """By the one console of the command line, `errors.warn`, an error, or a bar of `tracking`: each calls `inert`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call):
            words = ast.unparse(node.func).split(".")
            for name in (words[-1], ".".join(words[-2:])):
                ours = name == "print" and words[0] in ("console", "complaints", "super()")
                ours |= name == "warn" and len(words) == 1  # `errors.warn`
                where = path.relative_to(SOURCE).as_posix()
                assert ours or where in SHOWN_BY.get(name, {where}), f"{name} in line {node.lineno}"


def test_import_is_light() -> None:
    heavy = ["torch", "transformers", "datasets", "numba", "pyarrow", "anthropic", "scipy", "numpy"]
    code = f"import sys, tts_generate; print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lazy_names_are_all_there() -> None:
    import tts_generate

    for name in tts_generate.__all__:
        assert getattr(tts_generate, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        tts_generate.no_such_name  # noqa: B018


def test_numbers_in_documents_are_the_measured_ones() -> None:
    assert numbers.differences(ROOT, ROOT / "benchmarks" / "results", write=False) == []


def test_a_wrong_number_is_caught_and_mended(tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "speed.json").write_text(json.dumps({"rows": [{"ratio": 2.5}]}))
    page = tmp_path / "page.md"
    page.write_text("It is <!--=speed.rows.0.ratio|.1f-->9.9<!--=--> times as fast.")
    (line,) = numbers.differences(tmp_path, tmp_path / "results", write=True)
    assert "is 2.5, the text says 9.9" in line
    assert numbers.differences(tmp_path, tmp_path / "results", write=False) == []
    assert "-->2.5<!--" in page.read_text()


@pytest.mark.parametrize("stands", ["\n| ratio |\n|---|\n| 9.9 |\n\n", "", "\n"], ids=["wrong", "nothing", "a line"])
def test_a_table_is_made_whole(tmp_path: Path, stands: str) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "rows.json").write_text(json.dumps({"rows": [{"ratio": 2.5}]}))
    (tmp_path / "tables").mkdir()
    (tmp_path / "tables" / "speed.md").write_text("| ratio |\n|---|\n| {rows.rows.0.ratio|.1f} |\n")
    page = tmp_path / "page.md"
    page.write_text(f"<!--table speed-->\n{stands}<!--/table-->\nText.\n<!--table speed-->\n{stands}<!--/table-->\n")
    lines = numbers.differences(tmp_path, tmp_path / "results", write=True)
    assert lines == 2 * ["page.md: the table speed is not what its source makes"]
    assert numbers.differences(tmp_path, tmp_path / "results", write=False) == []
    assert page.read_text().count("| 2.5 |") == 2
    assert "Text." in page.read_text()


def python_blocks(path: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", path.read_text("utf-8"), re.DOTALL)


def test_quick_start_runs_and_is_short(tmp_path: Path) -> None:
    block = python_blocks(ROOT / "README.md")[0]
    assert len([line for line in block.splitlines() if line.strip()]) <= 10
    (tmp_path / "quick_start.py").write_text(block)
    done = Forked(script, str(tmp_path), str(tmp_path / "quick_start.py"), [])
    out, err = done.communicate(timeout=240)
    assert done.returncode == 0, err
    assert "boxed" in out


def test_controller_of_the_contributing_page_works() -> None:
    from tts_generate.controller import Controller

    names: dict[str, object] = {}
    exec(python_blocks(ROOT / "CONTRIBUTING.md")[0], names)
    kind = names["EarlyMajority"]
    assert isinstance(kind, type)
    assert issubclass(kind, Controller)
    assert kind.from_beta(0.5).knobs == {"width": 18, "share": 0.7}


def test_wheel_holds_controllers_and_model(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "--no-deps",
        "--no-build-isolation",
        "-q",
        "-w",
        str(tmp_path),
        ".",
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ("self_consistency", "asc", "esc", "parallel_probe", "cmc"):
        for file in ("controller.py", "controller.json", "README.md"):
            assert f"tts_generate/controllers/{name}/{file}" in names
    agent = "tts_generate/search/agent"
    assert {f"{agent}/prices.json", f"{agent}/prompts/system.md", f"{agent}/prompts/interface.md"} <= names
    assert {"tts_generate/py.typed", "tts_generate/tiny/model.safetensors", "tts_generate/tiny/test.jsonl"} <= names
    with zipfile.ZipFile(wheel) as files:
        files.extractall(tmp_path / "site")
    code = "from tts_generate import loading as l; l.load_controller('thrift'); print(l.builtin_folder('cmc'))"
    installed = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    done = subprocess.run([sys.executable, "-c", code], env=installed, capture_output=True, text=True, check=True)
    assert Path(done.stdout.strip()) == tmp_path / "site" / "tts_generate" / "controllers" / "cmc"


@pytest.mark.long
def test_quick_start_example_runs() -> None:
    done = Forked(script, str(ROOT), str(ROOT / "examples" / "quickstart.py"), [])
    out, err = done.communicate(timeout=240)
    assert done.returncode == 0, err
    assert out.count("of 4 right") == 3
