"""A canary in every place where a key can be given: it is sent where it should be, and is in nothing that is written.

That is what is printed, logged, warned of, raised, with all that errors come from and the variables of their
tracebacks, and every file.
"""

from __future__ import annotations

import base64
import json
import logging
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from liar import QUESTION, Liar, echo, event, sse
from local_servers import SUFFIX
from messages_server import KEY, MessagesServer
from search_stores import make_store
from typer.testing import CliRunner

from tts_generate import ServerModel, secret
from tts_generate.cli import app
from tts_generate.errors import InputError, ServerError
from tts_generate.search.agent.client import connected
from tts_generate.search.agent.ledger import JOURNAL, read_paid
from tts_generate.server.address import taken_apart
from tts_generate.trajectories import Question
from tts_generate.trajectories.journal import read_journal

CANARY = "canary-5b1e77d0c2f94a"
PAIR = base64.b64encode(f"me:{CANARY}".encode()).decode()
OPTIONS: dict[str, Any] = {"interval_tokens": 4, "max_new_tokens": 8, "probe_suffix": SUFFIX, "seed": 1}


def told(error: BaseException, variables: bool = True) -> str:
    """An error, and all that it comes from, with the variables of every frame but this test's own."""
    texts, seen, errors = [], set(), [error]
    while errors:
        one = errors.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        shown = traceback.TracebackException(type(one), one, one.__traceback__, capture_locals=True)
        texts += [f"{one!r} {one}"]
        texts += [f"{f.filename} {f.locals}" for f in shown.stack if variables and "/tests/" not in f.filename]
        errors += [each for each in (one.__cause__, one.__context__) if each is not None]
    return "\n".join(texts)


@pytest.fixture
def nowhere(tmp_path: Path, capfd: Any, caplog: Any) -> Iterator[list[object]]:
    """What was said elsewhere goes into this list; the canary is not in it, nor in the output, the logs, the files."""
    said: list[object] = []
    secret._known.clear()  # what the tests before have told it
    caplog.set_level(logging.DEBUG, "tts_generate")
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        yield said
    said += [*capfd.readouterr(), *(str(warning.message) for warning in warned)]
    said += [record.getMessage() for record in caplog.records if record.name.startswith("tts_generate")]
    said += [path.read_bytes().decode("latin-1") for path in tmp_path.rglob("*") if path.is_file()]
    said += [str(path) for path in tmp_path.rglob("*")]
    for text in said:
        assert CANARY[:9] not in str(text)


def model(url: str, **options: Any) -> ServerModel:
    found = ServerModel(url, max_retries=1, **options)
    found.policy = replace(found.policy, first_rest=0.001)
    return found


PLACES: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "an argument": lambda host: (f"http://{host}/v1", {"api_key": CANARY}),
    "an argument from a file": lambda host: (f"http://{host}/v1", {"api_key": f" {CANARY}\r\n"}),
    "user and password": lambda host: (f"http://me:{CANARY}@{host}/v1", {}),
    "a password in escapes": lambda host: (f"http://me:{CANARY.replace('-', '%2D')}@{host}", {}),
    "extra_body": lambda host: (f"http://{host}/v1", {"extra_body": {"api_key": CANARY, "top_a": 1}}),
    "extra_body, deeper": lambda host: (
        f"http://{host}/v1",
        {"extra_body": {"metadata": {"headers": [{"Authorization": f"Bearer {CANARY}"}]}, "user": f"me, {CANARY}"}},
    ),
}
FAILURES: dict[str, Any] = {
    "refused": lambda body: (401, {}, json.dumps({"error": {"message": f"not {CANARY} {PAIR}"}}).encode()),
    "cut in the middle of it": lambda body: (401, {}, b"x" * 490 + f"{CANARY} {PAIR}".encode()),
    "in trouble": lambda body: (500, {}, f"not {CANARY} {PAIR}".encode()),
    "redirected": lambda body: (307, {"location": f"http://me:{CANARY}@127.0.0.1:1/v1?key={CANARY}"}, b""),
    "garbled": lambda body: sse(f"{CANARY} {PAIR}"),
    "garbled in a field": lambda body: sse(event(finish_reason=f"{CANARY} {PAIR}")),
    "an error in the stream": lambda body: sse({"error": {"message": f"{CANARY} {PAIR}", "code": 400}}),
    "silent": lambda body: (500, {}, b""),
    "away": None,
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("failure", FAILURES)
def test_of_a_server_that_fails(place: str, failure: str, nowhere: list[object]) -> None:
    with Liar(FAILURES[failure] or (lambda body: None)) as liar:
        url, options = PLACES[place](liar.address)
        there = model(url, **options)
        if failure != "away":
            with pytest.raises(ServerError) as caught:
                there.generate("well", **OPTIONS)
    if failure == "away":
        with pytest.raises(ServerError) as caught:
            there.generate("well", **OPTIONS)
    # Where a server repeats it, its reply is among the variables: that is no key that we held.
    nowhere += [told(caught.value, variables=failure in ("away", "silent")), there.urls, repr(there)]
    assert PAIR not in told(caught.value, variables=failure in ("away", "silent")) or "me:" not in url
    sent = [(headers, body) for _, headers, body in liar.requests if body]
    given = f"{sent} {base64.b64decode(sent[0][0]['Authorization'][6:]) if PAIR in str(sent) else ''}"
    assert failure == "away" or CANARY in given


@pytest.mark.parametrize("place", PLACES)
def test_of_a_recording(place: str, nowhere: list[object], tmp_path: Path) -> None:
    def say(body: dict[str, Any]) -> Any:
        return FAILURES["refused"](body) if "bad" in body["prompt"] else None

    questions = [Question("0", "well"), Question("1", "bad")]
    options = {**OPTIONS, "branches": 2, "progress": True}
    models = json.dumps({"data": [{"id": f"m-{CANARY}", "max_model_len": 99}]}).encode()
    with Liar(say, models) as liar:
        url, given = PLACES[place](liar.address)
        with pytest.raises(ServerError, match="1 of 2 questions") as caught:
            model(url, **given).record(questions, tmp_path / "s", **options)
        nowhere += [told(caught.value, variables=False)]
        output = model(url, **given).generate("well", controller="self_consistency", **OPTIONS)
    nowhere += [output.usage, repr(output.usage)]
    assert list(output.usage.requests_by_url) == [liar.url]
    manifest = json.loads((tmp_path / "s" / "manifest.json").read_text())
    if "extra_body" in given:
        assert "<secret>" in json.dumps(manifest["generation_config"]["extra_body"])
        with Liar(models=models) as liar:  # a key may change from one sitting to the next
            again = json.loads(json.dumps(given["extra_body"]).replace(CANARY, f"{CANARY}-of-now"))
            store = model(liar.url, extra_body=again if "user" not in again else given["extra_body"])
            assert len(store.record(questions, tmp_path / "s", **options).trajectories()) == 4


BAD_KEYS = [
    CANARY + "\x00",
    CANARY + "\n" + CANARY,
    "Bearer " + CANARY,
    CANARY + "é",
    CANARY + "\u2028x",
    "",
    " \n",
    "\x7f",
]


@pytest.mark.parametrize("key", BAD_KEYS)
def test_of_a_key_that_cannot_be_sent(
    key: str, nowhere: list[object], tmp_path: Path, monkeypatch: Any, store: Path
) -> None:
    with Liar() as liar:
        with pytest.raises(InputError, match=r"api_key (must be|is empty)") as caught:
            model(liar.url, api_key=key)
        nowhere += [str(caught.value)]
        (tmp_path / "q").write_text(QUESTION)
        command = [
            "record",
            "m",
            "--server",
            liar.url,
            "--questions",
            str(tmp_path / "q"),
            "--out",
            str(tmp_path / "s"),
        ]
        result = CliRunner().invoke(app, [*command, "--api-key", key])
        nowhere += [result.output, repr(result.exception)]
        assert result.exit_code == (1 if key or CANARY in key else 0) or "is empty" in result.output
    assert not [body for _, headers, body in liar.requests if "Authorization" in headers]
    if "\0" in key:
        return
    with MessagesServer(lambda body, number: pytest.fail("it was sent")) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", key)
        monkeypatch.delenv("ANTHROPIC_AUTH_TOKEN", raising=False)
        with pytest.raises(InputError, match=r"there is no key|ANTHROPIC_API_KEY (must be|is empty)") as caught:
            connected(0)
    nowhere += [str(caught.value)]


ADDRESSES = [
    f"http://h/v1?key={CANARY}", f"http://h/{CANARY}#{CANARY}".replace(f"/{CANARY}", ""), f"htp://me:{CANARY}@h",
    f"me:{CANARY}@h:80", f"http://me:{CANARY}/x@h", f"http://me:{CANARY}@h:99999", f"http://me:{CANARY}@[::1",
    f"http://me:{CANARY}\n@h",
]  # fmt: skip


@pytest.mark.parametrize("url", ADDRESSES)
def test_of_an_address_that_is_none(url: str, nowhere: list[object]) -> None:
    with pytest.raises(InputError, match="a server's address") as caught:
        ServerModel(url)
    nowhere += [str(caught.value), str(caught.value.__cause__), str(caught.value.__context__)]


def test_of_both_a_password_and_a_key(nowhere: list[object]) -> None:
    for given in ([f"http://me:{CANARY}@h"], [f"http://me:{CANARY}@h", f"http://you:{CANARY}@h"]):
        with pytest.raises(InputError, match=r"http://h/v1 (comes with|is given twice)") as caught:
            ServerModel(given, api_key=CANARY if len(given) == 1 else None)
        nowhere += [str(caught.value)]


@pytest.mark.parametrize(
    "proxy", [f"socks9://me:{CANARY}@h", f"http://me:{CANARY}\n@h", f"http://me:{CANARY}@127.0.0.1:1"]
)
def test_of_a_proxy(proxy: str, nowhere: list[object], monkeypatch: Any) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy)
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-the-api")
    with pytest.raises(
        (InputError, ServerError), match=r"a proxy named in the environment|cannot be reached"
    ) as caught:
        model("http://somewhere.invalid").generate("well", **OPTIONS)
    nowhere += [told(caught.value)]
    if not proxy.endswith(":1"):
        with pytest.raises(InputError, match="as the environment says") as caught:
            connected(0)
        nowhere += [told(caught.value)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("canaries") / "store", seed=0)


SEARCH = ["--proposer", "anthropic", "--max-cost-usd", "5", "--rounds", "1", "--share", "0"]


def searched(store: Path, out: Path, nowhere: list[object]) -> str:
    result = CliRunner().invoke(app, ["search", str(store), "--out", str(out), *SEARCH])
    assert result.exit_code == 1, result.output + repr(result.exception)
    nowhere += [result.output]
    return result.output


ENVIRONMENT: dict[str, dict[str, str]] = {
    "a key": {"ANTHROPIC_API_KEY": CANARY},
    "a key from a file": {"ANTHROPIC_API_KEY": f"{CANARY}\n"},
    "a bearer token from a file": {"ANTHROPIC_AUTH_TOKEN": f"{CANARY}\r\n"},
    "a header": {"ANTHROPIC_API_KEY": "key-of-the-api", "ANTHROPIC_CUSTOM_HEADERS": f"x-api-key: {CANARY}"},
    "user and password": {"ANTHROPIC_API_KEY": "key-of-the-api", "USERINFO": f"me:{CANARY}@"},
}


@pytest.mark.parametrize("place", ENVIRONMENT)
@pytest.mark.parametrize("status", [401, 404, 500])
def test_of_the_messages_api(
    place: str, status: int, nowhere: list[object], store: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_CUSTOM_HEADERS"):
        monkeypatch.delenv(name, raising=False)
    environment = dict(ENVIRONMENT[place])
    with echo(status, PAIR if "USERINFO" in environment else CANARY) as (url, sent):
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url.replace("//", "//" + environment.pop("USERINFO", "")))
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr("tts_generate.search.agent.way.connected", lambda retries: connected(0))
        searched(store, tmp_path / "run", nowhere)
    assert any(sent)
    assert PAIR.encode() not in (tmp_path / "run" / JOURNAL).read_bytes()
    assert read_paid(tmp_path / "run") == (0, 0.0)


def test_nothing_is_charged_for_what_was_not_sent(
    nowhere: list[object], store: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """A header that is none, a proxy that is away: neither reached anybody."""
    monkeypatch.setenv("ANTHROPIC_API_KEY", "key-of-the-api")
    monkeypatch.setenv("ANTHROPIC_CUSTOM_HEADERS", f"x-other: {CANARY}\x01")
    assert "must be printable ASCII" in searched(store, tmp_path / "a", nowhere)
    monkeypatch.delenv("ANTHROPIC_CUSTOM_HEADERS")
    monkeypatch.setattr("tts_generate.search.agent.way.connected", lambda retries: connected(0))
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://somewhere.invalid")
    monkeypatch.setenv("HTTP_PROXY", f"http://me:{CANARY}@127.0.0.1:1")
    assert "cannot be reached" in searched(store, tmp_path / "b", nowhere)
    assert read_paid(tmp_path / "b") == (0, 0.0)
    kinds = [row["kind"] for rows, _, _ in read_journal(tmp_path / "b" / JOURNAL) for row in rows]
    assert kinds == ["asked", "none"]


def test_no_key_of_the_api_goes_where_a_redirect_points(
    nowhere: list[object], store: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    with Liar() as other, Liar(lambda body: (307, {"location": f"{other.url}/messages"}, b"")) as liar:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", liar.url.removesuffix("/v1"))
        monkeypatch.setenv("ANTHROPIC_API_KEY", CANARY)
        assert "HTTP 307" in searched(store, tmp_path / "run", nowhere)
    assert other.requests == []
    assert CANARY in str(liar.requests)


def test_what_an_error_comes_from_is_cleaned_too(nowhere: list[object]) -> None:
    assert KEY  # a key of fewer than eight characters is a word
    ServerModel("http://h", api_key=CANARY)

    def fail() -> None:
        try:
            try:
                raise ValueError(f"inner {CANARY}", 3)
            except ValueError as error:
                raise KeyError(f"http://me:pass@h?key={CANARY}") from error
        except KeyError as error:
            raise ServerError(f"outer {CANARY}") from error

    with pytest.raises(ServerError) as caught:
        fail()
    nowhere += [told(caught.value)]
    assert "inner <secret>" in told(caught.value)


def test_a_token_in_the_place_of_a_user_and_a_short_password_are_kept() -> None:
    address, own = taken_apart("http://glpat-canary-99:hunt3r2@host/v1")
    assert address == "http://host/v1"
    assert own is not None
    said = secret.without_secrets("401: glpat-canary-99 may not, nor with hunt3r2")
    assert said == "401: <secret> may not, nor with <secret>"
