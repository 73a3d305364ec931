"""Servers are timed from outside: a profile that replay reads as it reads a device's."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from local_servers import free_port
from token_server import TokenServer
from typer.testing import CliRunner

from tts_generate import ServerModel, tiny
from tts_generate.cli import app
from tts_generate.errors import InputError, ServerError, UnknownNameError
from tts_generate.profile import Profile
from tts_generate.server.profiling import measure


def test_a_profile_of_a_server(token_server: TokenServer) -> None:
    token_server.requests.clear()
    servers = ServerModel(token_server.url, tokenizer=token_server.tokenizer, max_in_flight=4)
    profile = measure(servers, tokens=8, repeats=3, temperature=1.0)
    assert profile.tokens[0] == 1
    assert profile.tokens[-1] <= 4
    assert all(seconds > 0 for seconds in profile.fixed[:1])
    assert all(seconds > 0 for seconds in profile.prefills)
    assert (profile.suffix_tokens, profile.min_tokens, profile.block, profile.shares_from) == (2, 1, 1, 0)
    assert profile.about["urls"] == token_server.url
    sent = [str(body["prompt"]) for body in token_server.requests if body["max_tokens"] == 8]
    assert len(set(sent)) >= 4, "prompts are new each time, so that no prefix cache knows them"
    assert not [body for body in token_server.requests[4:] if body["temperature"] == 0], "nothing is probed"


def test_the_command_writes_what_sweep_reads(token_server: TokenServer, tmp_path: Path) -> None:
    out = tmp_path / "profile.json"
    asked = ["--server", token_server.url, "--tokenizer", "tiny", "--max-in-flight", "2", "--temperature", "1"]
    told = CliRunner().invoke(app, ["profile", *asked, "--out", str(out)])
    assert told.exit_code == 0, told.output
    assert "seconds of a pass" in told.output
    assert dataclasses.replace(Profile.load(out), error={}).tokens[0] == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (["--server", "http://127.0.0.1:1", "--dtype", "float32"], "--dtype is for a model here"),
        (["--server", "http://127.0.0.1:1", "--passes", "3"], "--passes is for a model here"),
        (["tiny", "--tokenizer", "tiny"], "--tokenizer is for --server only"),
        ([], "profile needs a model"),
        (["--server", "http://127.0.0.1:1", "--extra-body", "3"], "--extra-body must be a JSON object"),
    ],
    ids=str,
)
def test_nothing_given_is_ignored(wrong: list[str], says: str, tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["profile", *wrong, "--out", str(tmp_path / "p.json")])
    assert told.exit_code != 0
    assert says in " ".join(told.output.split())


def test_what_cannot_be_timed() -> None:
    nobody = ServerModel(f"http://127.0.0.1:{free_port()}", tokenizer=tiny.load()[1], max_retries=0)
    with pytest.raises(InputError, match="tokens must be 8 or more, so that there is something to time, got 7"):
        measure(nobody, tokens=7)
    with pytest.raises(ServerError, match="cannot be reached"):
        measure(nobody)


def test_an_option_that_is_none_is_refused_before_anything_is_asked() -> None:
    with pytest.raises(UnknownNameError, match=r"'temperatur'.*did you mean 'temperature'"):
        measure(ServerModel(f"http://127.0.0.1:{free_port()}"), temperatur=0.5)  # type: ignore[call-arg]
