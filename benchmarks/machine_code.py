"""Times a controller's first replay in a process: machine code compiled, or found where a process before left it.

    python benchmarks/machine_code.py [OUT.json]      # about 3 minutes

Each controller is replayed in a process of its own with an empty folder, and again with the folder as that one left it,
one after the other, three times; what is told is the median.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

CONTROLLERS = ("cmc", "thrift", "asc")
TIMES = 3
CODE = """
import random, sys
from tts_generate.replay import replay
from tts_generate.testing import random_trajectories, recording_of
recording = recording_of(random_trajectories(random.Random(0), 64))
print(replay(recording, sys.argv[1], shuffles=1, compiled=True).compile_seconds)
"""


def first_use(controller: str, folder: str) -> float:
    """Seconds until a controller can run compiled in a new process, with machine code kept in `folder`."""
    environment = {**os.environ, "NUMBA_CACHE_DIR": folder}
    command = [sys.executable, "-c", CODE, controller]
    return float(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)


def main(out: Path) -> None:
    """Measure, and write one JSON file."""
    told = {}
    for controller in CONTROLLERS:
        compiled, loaded = [], []
        for _ in range(TIMES):
            with tempfile.TemporaryDirectory() as folder:
                compiled.append(first_use(controller, folder))
                loaded.append(first_use(controller, folder))
        told[controller] = {
            "compile_s": statistics.median(compiled),
            "load_s": statistics.median(loaded),
            "times_faster": statistics.median(c / n for c, n in zip(compiled, loaded, strict=True)),
        }
    least = min(each["times_faster"] for each in told.values())
    found = {"format": "tts-benchmark/1", "controllers": told, "least_times_faster": least}
    out.write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    sys.stdout.write(out.read_text("utf-8"))


if __name__ == "__main__":
    results = Path(__file__).resolve().parent / "results"
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else results / "machine_code.json")
