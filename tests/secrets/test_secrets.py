"""Tokens and keys are in nothing that we say or write, though servers repeat what they were sent; and a candidate in
the sandbox does not reach them, in the environment, in the home folder and in the host's memory.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import pytest
from liar import QUESTION, echo
from local_hub.clients import clients_here
from search_stores import make_store
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.sandbox import Limits, Sandbox, attacks
from tts_generate.search.agent.client import connected

TOKEN = "marker-7d1f0c52a9e84b"


def fails_without_a_word_of_it(folder: Path, capfd: pytest.CaptureFixture[str], caplog: Any, *arguments: object) -> str:
    """A run of a command that must fail; nothing that it said, logged or wrote holds the token."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 1, result.output + repr(result.exception)
    said = [result.output, *capfd.readouterr(), caplog.text, str(result.exception)]
    assert not [text for text in said if TOKEN in text]
    written = [path for path in folder.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]
    assert written == []
    return result.output


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("secrets") / "store", seed=0)


STATUS = pytest.mark.parametrize("status", [0, 400, 401, 403, 404, 422])


@STATUS
def test_the_key_of_a_server(status: int, tmp_path: Path, capfd: Any, caplog: Any) -> None:
    (tmp_path / "q").write_text(QUESTION)
    with echo(status, TOKEN) as (url, told):
        fails_without_a_word_of_it(
            tmp_path, capfd, caplog, "record", "m", "--server", url + "/v1", "--api-key", TOKEN,
            "--questions", tmp_path / "q", "--out", tmp_path / "s", "--interval-tokens", 16, "--max-new-tokens", 32,
        )  # fmt: skip
    assert any(told)


@STATUS
@pytest.mark.parametrize("command", ["store push", "store pull", "pull", "lock", "show", "publish", "replay"])
def test_the_token_of_the_hub(
    command: str, status: int, store: Path, tmp_path: Path, capfd: Any, caplog: Any, monkeypatch: Any
) -> None:
    import tts_generate.hub.commit

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tts_generate.hub.commit, "_TRIES", 1)
    shipped = Path(tts_generate.__file__).resolve().parents[2] / "controllers" / "asc"
    arguments: dict[str, tuple[object, ...]] = {
        "store push": (store, "user/s"),
        "store pull": ("user/s", "--out", tmp_path / "new"),
        "pull": ("user/c", "--out", tmp_path / "new"),
        "lock": ("user/c",),
        "show": ("user/c",),
        "publish": (shipped, "user/c"),
        "replay": (store, "--controller", "user/c"),
    }
    with echo(status, TOKEN) as (url, told), clients_here(url, tmp_path / "home", TOKEN):
        fails_without_a_word_of_it(tmp_path, capfd, caplog, *command.split(), *arguments[command])
    assert any(told)


@STATUS
def test_the_key_of_the_messages_api(
    status: int, store: Path, tmp_path: Path, capfd: Any, caplog: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr("tts_generate.search.agent.way.connected", lambda retries: connected(1))  # no need to wait
    with echo(status, TOKEN) as (url, told):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", TOKEN)
        fails_without_a_word_of_it(
            tmp_path, capfd, caplog, "search", store, "--out", tmp_path / "run", "--proposer", "anthropic",
            "--max-cost-usd", 5, "--rounds", 1, "--share", 0,
        )  # fmt: skip
    assert any(told)
    journal = (tmp_path / "run" / "paid.journal").read_bytes()
    assert b"<secret>" in journal or status == 0


TO_REACH = {
    "the environment": "worked = TOKEN in ' '.join(os.environ.values())",
    "the host's environment": "worked = TOKEN.encode() in open('/proc/{HOST}/environ', 'rb').read()",
    "the home folder": "worked = TOKEN in open({FILE!r}).read()",
    "the host's memory": """
class Part(ctypes.Structure):
    _fields_ = [('base', ctypes.c_void_p), ('length', ctypes.c_size_t)]
found = ctypes.create_string_buffer(len(TOKEN))
here, there = Part(ctypes.addressof(found), len(TOKEN)), Part({ADDRESS}, len(TOKEN))
libc.process_vm_readv({HOST}, ctypes.byref(here), 1, ctypes.byref(there), 1, 0)
worked = found.raw == TOKEN.encode()""",
    "the host's memory as a file": """
with open('/proc/{HOST}/mem', 'rb', buffering=0) as file:
    file.seek({ADDRESS})
    worked = file.read(len(TOKEN)) == TOKEN.encode()""",
}
"""Where a candidate might look for a secret. Its own environment has none, locks or not."""


def test_a_candidate_reaches_none(tmp_path: Path) -> None:
    held = ctypes.create_string_buffer(TOKEN.encode())
    (tmp_path / "token").write_text(TOKEN)
    places = {"HOST": os.getpid(), "FILE": str(tmp_path / "token"), "ADDRESS": ctypes.addressof(held)}
    limits = Limits(seconds=20)
    with Sandbox(limits) as locked, Sandbox(limits, without=tuple(attacks.LOCKS)) as free:
        for name, code in TO_REACH.items():
            source = attacks.machine_attack(f"TOKEN = {TOKEN!r}\n{code}", places)
            stopped, said = attacks.try_attack(locked, source)
            assert stopped, (name, said)
            if not name.startswith(("the environment", "the host's")) and os.getuid() == 0:  # no child has its powers
                assert not attacks.try_attack(free, source)[0], name  # else nothing was tried
