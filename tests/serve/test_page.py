"""The blocks of docs/proxy.md run: the command, curl and the openai client."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from local_servers import end, free_port
from token_server import TokenServer

PAGE = Path(__file__).resolve().parents[2] / "docs" / "proxy.md"


@pytest.mark.long
@pytest.mark.skipif(shutil.which("curl") is None, reason="no curl here")
def test_the_page(upstream: TokenServer, capsys: pytest.CaptureFixture[str]) -> None:
    port = str(free_port())
    text = PAGE.read_text("utf-8").replace("http://127.0.0.1:8000/v1", upstream.url).replace("8010", port)
    serve, curl = re.findall(r"```bash\n(.*?)```", text, re.DOTALL)
    (client,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    command = f"exec {serve.strip()} --port {port}"
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    with subprocess.Popen(["bash", "-c", command], stdout=subprocess.PIPE, env=environment) as process:
        try:
            assert process.stdout is not None
            assert b"is served at" in process.stdout.readline()
            done = subprocess.run(["bash", "-c", curl], capture_output=True, check=True)
            assert json.loads(done.stdout)["choices"][0]["message"]["content"]
            exec(client, {})
            assert "boxed" in capsys.readouterr().out
        finally:
            end(process, 10)
