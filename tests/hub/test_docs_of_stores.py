"""Every block of the page about stores on the Hub, run in order as a reader would, against the local Hub."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from local_hub import HubServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "stores-on-the-hub.md"
COMMAND = f'tts-generate() {{ "{sys.executable}" -c "from tts_generate.cli import app; app()" "$@"; }}\nset -e\n'


@pytest.mark.long
def test_the_page(hub: HubServer, tmp_path: Path) -> None:
    blocks = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    outputs = []
    for language, code in blocks:
        command = [sys.executable, "-c", code] if language == "python" else ["bash", "-c", COMMAND + code]
        environment = {**os.environ, **hub.environ(tmp_path / "hf")}
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, env=environment)
        assert done.returncode == 0, code + done.stderr
        outputs.append(done.stdout)
    head = hub.repo("user/sums", "dataset").head
    assert len(outputs) == 3
    assert outputs[0].endswith(f"18 branches in user/sums at commit {head}, tagged v1\n")
    assert "as it was" in outputs[1]
    assert outputs[2].splitlines()[0] == f"user/sums@{head}"
