"""Runs the tests on the oldest and the newest libraries and Pythons that are supported, in environments of their own.

    python tools/test_matrix.py [OUT.json] [--only NAME ...] [--keep]

The environments are made below build/matrix/; `--keep` uses one that is there. The result says for each what was
installed, how many tests passed, failed and were skipped, and which failed; a row whose Python is not on this machine
is written down as not run, with the reason. It ends with exit code 1 if a test failed or an environment cannot be made.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import xml.etree.ElementTree
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from everything import SELECTION
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "benchmarks" / "results" / "test_matrix.json"
BUILD = ROOT / "build" / "matrix"
ABOUT_THE_SOURCE = (
    "tests/house", "tests/docs", "tests/trajectories/test_crashes.py", "tests/search/hostile",
    "tests/report/test_browser.py", "tests/engine/test_endurance.py",
)  # fmt: skip
"""What is about the source, the disk, the kernel or a browser, and not about the libraries: `make test` runs it."""
NEEDS_NEWER = ("tests/harness", "tests/metrics", "tests/test_tracking.py", "src/tts_generate/harness")
"""What the oldest row cannot run: the harnesses and trackio ask for newer libraries than we do."""


@dataclass(frozen=True)
class Row:
    """One environment: a Python, what it pins, and which packages of constraints.txt it leaves open (None: all)."""

    name: str
    python: str
    pinned: tuple[str, ...]
    opened: tuple[str, ...] | None
    extras: str
    left_out: tuple[str, ...] = ()


ROWS = [
    Row("oldest", "3.11", ("torch==2.6.0", "transformers==5.17.0", "huggingface_hub==1.31.0"),
        ("tokenizers", "safetensors", "sympy", "setuptools", "hf-xet", "datasets", "fsspec", "dill", "multiprocess"),
        "dev,report,search,math", NEEDS_NEWER),
    Row("pinned", "3.12", (), (), "dev,report,search,math,lm-eval,inspect,peft,trackio"),
    Row("newest", "3.13", (), None, "dev,report,search,math,lm-eval,inspect,peft,trackio"),
]  # fmt: skip


def interpreter(version: str) -> str | None:
    """A Python of a version on this machine: on the path, or one that pyenv has installed."""
    found = [shutil.which(f"python{version}")]
    found += map(str, sorted(Path("~/.pyenv/versions").expanduser().glob(f"{version}.*/bin/python"), reverse=True))
    for path in filter(None, found):
        asked = [path, "-c", "import sys, venv; print('%d.%d' % sys.version_info[:2])"]
        done = subprocess.run(asked, capture_output=True, text=True, check=False)
        if done.stdout.strip() == version:
            return path
    return None


def constraints(row: Row) -> str:
    """The pins that hold in a row's environment, one a line."""
    if row.opened is None:
        return "".join(f"{pin}\n" for pin in row.pinned)
    free = {canonicalize_name(Requirement(text).name) for text in (*row.opened, *row.pinned)}
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    kept = [line for line in lines if line and canonicalize_name(Requirement(line).name) not in free]
    return "".join(f"{pin}\n" for pin in (*row.pinned, *kept))


def prepared(row: Row, python: str, keep: bool) -> Path:
    """Make a row's environment, and give its Python.

    Raises:
        RuntimeError: pip cannot install it, with the end of what it said.
    """
    place = BUILD / row.name
    inside = place / "bin" / "python"
    if keep and (place / "done").exists():
        return inside
    shutil.rmtree(place, ignore_errors=True)
    subprocess.run([python, "-m", "venv", str(place)], check=True)
    (place / "constraints.txt").write_text(constraints(row), "utf-8")
    told = ["--quiet", "--constraint", str(place / "constraints.txt"), "--editable", f".[{row.extras}]"]
    for arguments in (["--quiet", "--upgrade", "pip"], told):
        done = subprocess.run(
            [str(inside), "-m", "pip", "install", *arguments], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{row.name}: pip cannot install it.\n{done.stderr[-3000:]}")
    (place / "done").touch()
    return inside


def versions(python: Path) -> dict[str, str]:
    """What is installed, of the packages that matter."""
    names = "torch", "transformers", "huggingface_hub", "tokenizers", "numpy", "pyarrow", "numba", "pydantic", "typer"
    code = (
        "import json, platform, sys; from importlib.metadata import version\n"
        "print(json.dumps({'python': platform.python_version()} | {name: version(name) for name in sys.argv[1:]}))"
    )
    done = subprocess.run([str(python), "-c", code, *names], capture_output=True, text=True, check=True)
    read: dict[str, str] = json.loads(done.stdout)
    return read


def tested(row: Row, python: Path) -> dict[str, Any]:
    """Run the tests in a row's environment.

    Raises:
        RuntimeError: pytest did not get to the end.
    """
    report = BUILD / f"{row.name}.xml"
    report.unlink(missing_ok=True)
    quiet = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment = {**os.environ, **quiet, "PATH": f"{python.parent}:{os.environ['PATH']}"}
    environment.pop("PYTHONPATH", None)
    command = [
        str(python),
        "-m",
        "pytest",
        "-q",
        "-n",
        "1",
        "-p",
        "no:cacheprovider",
        f"--junitxml={report}",
        *SELECTION,
    ]
    command += [f"--ignore={path}" for path in (*ABOUT_THE_SOURCE, *row.left_out)]
    with (BUILD / f"{row.name}.log").open("w") as log:
        done = subprocess.run(command, cwd=ROOT, env=environment, stdout=log, stderr=log, check=False)
    if done.returncode not in (0, 1) or not report.exists():
        raise RuntimeError(f"{row.name}: the tests did not run to the end; see {BUILD / row.name}.log.")
    suite = xml.etree.ElementTree.parse(report).getroot()[0]
    count = {key: int(suite.attrib[key]) for key in ("tests", "failures", "errors", "skipped")}
    bad = [case for case in suite.iter("testcase") if {"failure", "error"} & {child.tag for child in case}]
    failed = count["failures"] + count["errors"]
    return {
        "passed": count["tests"] - failed - count["skipped"],
        "failed": failed,
        "skipped": count["skipped"],
        "which_failed": sorted({f"{case.get('classname')}::{case.get('name')}" for case in bad}),
        "left_out": [*ABOUT_THE_SOURCE, *row.left_out],
    }


def run(row: Row, keep: bool) -> dict[str, Any]:
    """What became of one row."""
    python = interpreter(row.python)
    if python is None:
        return {"name": row.name, "ran": False, "why": f"Python {row.python} is not on this machine"}
    try:
        inside = prepared(row, python, keep)
        return {"name": row.name, "ran": True, "commit": _commit(), "versions": versions(inside), **tested(row, inside)}
    except RuntimeError as error:
        return {"name": row.name, "ran": False, "why": str(error)}


def _commit() -> str:
    told = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(told, cwd=ROOT, capture_output=True, text=True, check=False).stdout.strip()


def main(arguments: list[str]) -> int:
    """Run the rows, print a line for each, and write one JSON file; rows not run this time stay as they were."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", nargs="?", type=Path, default=OUT)
    parser.add_argument("--only", nargs="*", default=[row.name for row in ROWS], choices=[row.name for row in ROWS])
    parser.add_argument("--keep", action="store_true")
    chosen = parser.parse_args(arguments)
    BUILD.mkdir(parents=True, exist_ok=True)
    earlier = json.loads(chosen.out.read_text("utf-8"))["rows"] if chosen.out.exists() else {}
    found: dict[str, Any] = {}
    for row in ROWS:
        if row.name in chosen.only:
            found[row.name] = run(row, chosen.keep)
            print(json.dumps(found[row.name]), flush=True)
        elif row.name in earlier:
            found[row.name] = earlier[row.name]
    chosen.out.write_text(json.dumps({"format": "tts-benchmark/1", "rows": found}, indent=1) + "\n", "utf-8")
    now = [found[name] for name in chosen.only]
    return int(any(not row["ran"] or row["failed"] for row in now))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
