"""A newcomer's path, timed: from `git clone` to the first saving that is shown, with what is typed and what goes wrong.

    python tools/newcomer.py [benchmarks/results/newcomer.json]

Clones this repository, as committed, into an empty folder and types the two commands of the README there, with no
virtual environment at hand. Package downloads come from the index that pip is set up with, so their time belongs to it.
"""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SAVING = re.compile(r"against SC@64: ([\d.]+)% fewer tokens")
WRONG = re.compile(r"^(Traceback|error:|ERROR|make: \*\*\*)", re.MULTILINE)
FIRST_STEP = re.compile(r"1\. record")


def typed(command: str, folder: Path, environment: dict[str, str]) -> tuple[int, str, list[tuple[float, str]]]:
    """Run a command as a shell would; its exit code, all it said, and each line with the seconds since the start."""
    start = time.monotonic()
    child = subprocess.Popen(
        ["bash", "-c", command],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    assert child.stdout is not None
    lines = [(time.monotonic() - start, line) for line in child.stdout]
    return child.wait(), "".join(line for _, line in lines), lines


def plain() -> dict[str, str]:
    """The environment of somebody who has not been here: no virtual environment, no variables of this project."""
    ours = {"VIRTUAL_ENV", "PYTHONPATH", "PYTHONHOME", "OMP_NUM_THREADS", "HF_HUB_OFFLINE", "TOKENIZERS_PARALLELISM"}
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    kept["PATH"] = os.pathsep.join(p for p in kept["PATH"].split(os.pathsep) if ".venv" not in p)
    return kept


def first(lines: list[tuple[float, str]], pattern: re.Pattern[str]) -> tuple[float, str]:
    """When a line that matches was first said, and what it says."""
    for seconds, line in lines:
        found = pattern.search(line)
        if found:
            return seconds, found[found.lastindex or 0]
    raise SystemExit(
        f"nothing said {pattern.pattern!r}; the last lines were: {''.join(line for _, line in lines[-20:])}"
    )


def walk(folder: Path) -> dict[str, Any]:
    """The commands of the README's first section, one after the other."""
    commands = [f"git clone --quiet {ROOT} tts-generate", "cd tts-generate && make demo"]
    environment = plain()
    clone_code, cloned, _ = typed(commands[0], folder, environment)
    start = time.monotonic()
    demo_code, said, lines = typed(commands[1], folder, environment)
    began, _ = first(lines, FIRST_STEP)
    seconds, share = first(lines, SAVING)
    return {
        "typed": ["git clone …", commands[1]],
        "commands": len(commands),
        "errors": len(WRONG.findall(cloned + said)) + (clone_code != 0) + (demo_code != 0),
        "install_s": began,
        "first_saving_s": seconds,
        "saving_percent": float(share),
        "whole_demo_s": time.monotonic() - start,
    }


def main(out: Path) -> None:
    """Walk, and write what happened."""
    with tempfile.TemporaryDirectory() as folder:
        result = {
            "format": "tts-newcomer/1",
            **walk(Path(folder)),
            "python": platform.python_version(),
            "cores": os.cpu_count(),
            "load_before": os.getloadavg()[0],
        }
    out.write_text(json.dumps(result, indent=2, ensure_ascii=False) + "\n", "utf-8")
    print(json.dumps(result, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "newcomer.json")
