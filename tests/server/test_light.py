"""Servers are asked without torch: what a model in this process needs is never imported."""

from __future__ import annotations

import subprocess
import sys

from liar import Liar

ASK = """
import sys


class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "transformers", "accelerate"):
            raise ModuleNotFoundError(name)


sys.meta_path.insert(0, Absent())
import tts_generate
from tts_generate.trajectories import Question

model = tts_generate.ServerModel(sys.argv[1])
options = {"interval_tokens": 4, "max_new_tokens": 8, "probe_suffix": "?", "think_end": ""}
output = model.generate("Q", controller="self_consistency", controller_kwargs={"max_samples": 2}, seed=1, **options)
store = model.record([Question("q", "Q")], sys.argv[2], branches=2, progress=False, **options)
print(output.cost[0].generated_tokens, len(store.trajectories()))
"""


def test_importing_the_servers_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, tts_generate.server\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & {'torch', 'transformers', 'accelerate'}))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_generate_and_record_work_where_there_is_no_torch(tmp_path: object) -> None:
    with Liar() as liar:
        command = [sys.executable, "-c", ASK, liar.url, f"{tmp_path}/store"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["16", "2"]
