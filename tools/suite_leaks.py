"""Runs the test suite and counts what it leaves behind: processes, descriptors, temporary files.

    python tools/suite_leaks.py [PYTEST ARGUMENTS ...]

Every process of the suite has a mark in its environment, by which those that outlive it are found, and its temporary
files go to a folder that must be empty in the end. The descriptors are counted by tests/conftest.py, before the first
test and after the last: `$TTS_LEFT_BEHIND` is where it writes them. `benchmarks/reliability.py --suite` puts the
result into its JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil
from everything import SELECTION

ROOT = Path(__file__).resolve().parent.parent
MARK = "TTS_SUITE_RUN"
PATIENCE = 5.0
"""Seconds in which a process that was told to end may do so."""


def run(arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Run pytest, and count.

    Returns:
        `tests` collected by its own count; `exit_code`; `processes`, `descriptors` and `temporary_files` left; `names`
        of these.
    """
    with tempfile.TemporaryDirectory() as folder:
        temporary, told = Path(folder) / "tmp", Path(folder) / "descriptors.json"
        temporary.mkdir()
        mark = uuid.uuid4().hex
        environment = {**os.environ, "TMPDIR": str(temporary), "TTS_LEFT_BEHIND": str(told), MARK: mark}
        environment["TORCHINDUCTOR_CACHE_DIR"] = f"{folder}/torch"  # torch makes it when it is imported
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--basetemp", f"{folder}/base"]
        command += SELECTION
        code = subprocess.run([*command, *arguments], cwd=ROOT, env=environment, check=False).returncode
        found = json.loads(told.read_text()) if told.is_file() else {"tests": 0, "descriptors": ["no count"]}
        processes = _left(mark)
        files = sorted(str(path.relative_to(temporary)) for path in temporary.rglob("*"))
    names = [*processes, *found["descriptors"], *files]
    return {
        "tests": found["tests"],
        "exit_code": code,
        "processes": len(processes),
        "descriptors": len(found["descriptors"]),
        "temporary_files": len(files),
        "names": names[:50],
    }


def _left(mark: str) -> list[str]:
    """Processes of the run that are still there after a while."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = [" ".join(process.cmdline()) for process in psutil.process_iter() if _marked(process, mark)]
        if not found or time.monotonic() > deadline:
            return found
        time.sleep(0.1)


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except psutil.Error:
        return False


if __name__ == "__main__":
    result = run(sys.argv[1:])
    print(json.dumps(result, indent=1))
    sys.exit(int(any(result[name] for name in ("exit_code", "processes", "descriptors", "temporary_files"))))
