"""The command, mostly in a process of its own: upstreams that die, keys in its log, a package that is not there."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from local_servers import OPTIONS, QUESTIONS, free_port
from proxies import MOST, STEP, commanded
from token_server import TokenServer
from typer.testing import CliRunner

from tts_generate.cli import app

HOW = [
    *("--tokenizer", "tiny", "--interval-tokens", str(STEP), "--max-new-tokens", str(MOST), "--temperature", "1"),
    *("--probe-suffix", OPTIONS["probe_suffix"], "--max-probe-tokens", "4", "--controller", "cmc", "--beta", "0"),
]
KEYS = {"TTS_API_KEY": "key-of-the-upstream-0123", "TTS_CLIENT_KEY": "key-of-the-client-4567"}


def asked(url: str, **body: Any) -> tuple[int, Any]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEYS['TTS_CLIENT_KEY']}"}
    request = urllib.request.Request(f"{url}/v1/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.loads(response.read())
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


@pytest.mark.long
def test_upstreams_that_die(tmp_path: Path) -> None:
    """One of two: the other goes on. The last, in the middle: what there is, and why; then a 503, and no raw error."""
    log = tmp_path / "log"
    with contextlib.ExitStack() as stack:
        first, last = (stack.enter_context(TokenServer(pause=0.02)) for _ in range(2))
        with commanded(log, "--upstream", first.url, "--upstream", last.url, *HOW, **KEYS) as url:
            threading.Thread(target=_ended_after, args=(first, 10)).start()
            status, answer = asked(url, prompt=QUESTIONS[0])
            assert (status, answer["tts_generate"]["questions"][0]["finish_reason"]) == (200, "answer")
            assert answer["tts_generate"]["retries"] > 0
            threading.Thread(target=_ended_after, args=(last, 24)).start()
            status, answer = asked(url, prompt=QUESTIONS[0])
            (question,) = answer["tts_generate"]["questions"]
            assert (status, question["finish_reason"]) == (200, "error")
            assert "upstream" in question["error"]
            assert first.url not in question["error"]
            assert last.url not in question["error"]
            status, answer = asked(url, prompt=QUESTIONS[0])
            assert (status, answer["error"]["type"]) == (503, "server_error")
            with pytest.raises(urllib.error.HTTPError, match="503"):
                urllib.request.urlopen(f"{url}/health", timeout=30)
            with TokenServer(int(first.url.rpartition(":")[2].removesuffix("/v1"))):  # it is back
                assert asked(url, prompt=QUESTIONS[0])[0] == 200
    said = log.read_text()
    assert "Traceback" not in said
    for key in KEYS.values():
        assert key not in said


def _ended_after(server: TokenServer, tokens: int) -> None:
    """End a server in the middle of what it decodes for requests that are still to come."""
    before = len(server.requests)
    while len(server.requests) == before:
        time.sleep(0.001)
    begun = server.decoded
    while server.decoded < begun + tokens:
        time.sleep(0.01)
    server.__exit__()


def command(*options: str) -> str:
    done = CliRunner().invoke(app, ["serve", *options])
    assert done.exit_code == 1, done.output
    return done.stderr


def test_one_clear_error_before_anybody_may_come() -> None:
    nobody = f"http://127.0.0.1:{free_port()}"
    assert "cannot be reached" in command("--upstream", nobody, "--port", "0")
    assert "unknown controller 'nothing'" in command("--upstream", nobody, "--controller", "nothing")
    with TokenServer() as server:
        taken = server.url.rpartition(":")[2].removesuffix("/v1")
        assert "in use" in command("--upstream", server.url, "--port", taken)
        assert "context of 512" in command("--upstream", server.url, "--max-new-tokens", "9999", "--port", "0")


def test_without_the_extra_it_says_which() -> None:
    code = "import sys; sys.modules['starlette'] = None; from tts_generate.cli import app; app(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-c", code, "serve", "--upstream", "http://x"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "pip install 'tts-generate[serve]'" in done.stderr.replace("\n", "")
