"""The blocks of docs/hub.md run, in their order, against a Hub on this machine."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest
from local_hub import HubServer
from search_stores import make_store
from test_publish import FORMATS
from typer.testing import CliRunner

from tts_generate.cli import app

PAGE = Path(__file__).resolve().parents[2] / "docs" / "hub.md"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore::tts_generate.hub.pin.MovingRevisionWarning")
def test_the_page(hub: HubServer) -> None:
    make_store(Path("stores/questions"), seed=1)
    shutil.copytree(FORMATS / "code", "my_controller")
    names: dict[str, object] = {}
    blocks = re.findall(r"```(python|bash)\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) >= 7
    for language, block in blocks:
        if "user/mine" in [name for _, name in hub.repos]:
            names["tag_commit"] = hub.repo("user/mine").head
        if language == "python":
            exec(block, names)
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            assert program == "tts-generate"
            done = CliRunner().invoke(app, arguments)
            assert done.exit_code == 0, done.output
    assert os.path.exists("tts-controllers.lock")
