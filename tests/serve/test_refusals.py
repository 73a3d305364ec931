"""What the proxy does not do: each refused by its name, in OpenAI's shape, before anything is sent."""

from __future__ import annotations

import http.client
import json
import socket
from typing import Any

import pytest
from liar import Liar
from local_servers import QUESTIONS
from openai import AuthenticationError, BadRequestError, OpenAI, RateLimitError
from proxies import Opened, settings_of
from token_server import TokenServer
from transformers import AutoTokenizer

from tts_generate import tiny
from tts_generate.arguments import key
from tts_generate.loading import load_controller
from tts_generate.serve.responder import Bounds

CHAT = {"messages": [{"role": "user", "content": QUESTIONS[0]}], "max_tokens": 16}
OWN_KEY, CLIENT_KEY = "key-of-the-upstream-0123", "key-of-the-client-4567"


def post(url: str, path: str, body: bytes, **headers: str) -> tuple[int, Any]:
    """The status of an answer, and its JSON."""
    host = url.removeprefix("http://")
    connection = http.client.HTTPConnection(host, timeout=60)
    headers = {"content-type": "application/json", **{name.replace("_", "-"): value for name, value in headers.items()}}
    try:
        connection.request("POST", path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def begun(opened: Opened, rest: bytes) -> bytes:
    """The status of what answers a request of which no more comes than its beginning."""
    with socket.create_connection(("127.0.0.1", int(opened.url.rpartition(":")[2])), timeout=20) as raw:
        raw.sendall(b"POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n" + rest)
        return raw.recv(100)


def chat(opened: Opened, **fields: Any) -> tuple[int, Any]:
    return post(opened.url, "/v1/chat/completions", json.dumps({**CHAT, **fields}).encode())


def checked(found: tuple[int, Any], status: int = 400) -> dict[str, Any]:
    """The error of a refusal, which has OpenAI's shape."""
    assert found[0] == status, found
    error: dict[str, Any] = found[1]["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == status
    return error


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        ({"n": 2}, "n", "cannot be honoured"),
        ({"n": True}, "n", "cannot be honoured"),
        ({"tools": [{"type": "function"}]}, "tools", "cannot be honoured"),
        ({"logprobs": True}, "logprobs", "cannot be honoured"),
        ({"response_format": {"type": "json_object"}}, "response_format", "cannot be honoured"),
        ({"frequency_penalty": 0.5}, "frequency_penalty", "cannot be honoured"),
        ({"frobnicate": 1}, "frobnicate", "not known"),
        ({"model": "gpt-4"}, "model", "use 'tiny'"),
        ({"temperature": -1}, "temperature", "above 0"),
        ({"temperature": "hot"}, "temperature", "number"),
        ({"top_p": 1.5}, "top_p", "at most 1"),
        ({"seed": "x"}, "seed", "whole number"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"max_tokens": True}, "max_tokens", "whole number"),
        ({"max_completion_tokens": 17}, "max_tokens", "different"),
        ({"stop": [1]}, "stop", "got [1]"),
        ({"stop": [""]}, None, "one character"),
        ({"stream": "yes"}, "stream", "got 'yes'"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "stream=true"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "not known"),
        ({"messages": []}, "messages", "list of"),
        ({"messages": "hi"}, "messages", "list of"),
        ({"messages": [1]}, "messages[0]", "object"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0]", "one of"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0]", "must be text"),
        ({"messages": [{"role": "user"}]}, "messages[0]", "must be text"),
        ({"messages": [{"role": "user", "content": ""}]}, None, "is empty"),
        ({"messages": [{"role": "user", "content": "\ud800"}]}, None, "surrogate"),
        ({"messages": CHAT["messages"] * 2}, None, "no chat template"),
        ({"chat_template_kwargs": {"enable_thinking": False}}, None, "no chat template"),
        ({"chat_template_kwargs": {"x": False}}, "chat_template_kwargs.x", "not known"),
        ({"tts_generate": {"controller": "cmc"}}, "tts_generate.controller", "not known"),
        ({"tts_generate": {"controller_kwargs": {"controller": "/etc"}}}, None, "sets knobs"),
        ({"tts_generate": {"controller_kwargs": {"trust_remote_code": True}}}, None, "sets knobs"),
        ({"tts_generate": {"controller_kwargs": {"frob": 1}}}, None, "unknown knob"),
        ({"tts_generate": {"beta": 7}}, None, "beta"),
        ({"tts_generate": {"max_branches": 100_000}}, None, "at most 128 here"),
        ({"tts_generate": {"max_branches": 0}}, None, "max_branches"),
        ({"max_tokens": 100_000}, None, "context of 512"),
    ],
    ids=str,
)  # fmt: skip
def test_wrong_values(opened: Opened, upstream: TokenServer, fields: dict[str, Any], param: str, words: str) -> None:
    sent = len(upstream.requests)
    error = checked(chat(opened, **fields), 404 if "gpt-4" in fields.values() else 400)
    assert (error["param"], error["type"]) == (param, "invalid_request_error")
    assert words in error["message"]
    assert len(upstream.requests) == sent


FIELDS = [
    "model", "messages", "prompt", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "max_tokens",
    "max_completion_tokens", "stop", "stream", "stream_options", "chat_template_kwargs", "tts_generate", "n", "user",
    "logprobs", "tools", "response_format", "echo",
]  # fmt: skip
VALUES: list[Any] = [
    "", "x", -1, 0, 1e308, 10**30, True, [], [[]], [{}], [[-1]], [None], ["\x00"], {}, {"": {}}, {"beta": "x"},
    {"role": "user"},
]  # fmt: skip


@pytest.mark.long
@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_whatever_stands_in_a_field_no_request_breaks_it(opened: Opened, path: str) -> None:
    asks = {"messages": CHAT["messages"]} if "chat" in path else {"prompt": QUESTIONS[0]}
    connection = http.client.HTTPConnection(opened.url.removeprefix("http://"), timeout=30)
    for name, value in ((name, value) for name in FIELDS for value in VALUES):
        body = {**asks, "max_tokens": 2, name: value}
        if name == "max_completion_tokens":
            del body["max_tokens"]
        connection.request("POST", path, json.dumps(body), {"content-type": "application/json"})
        response = connection.getresponse()
        response.read()
        assert response.status in (200, 400, 404), (name, value, response.status)
    connection.close()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"[]", "must be a JSON object"),
        (b"null", "must be a JSON object"),
        (b"\xff", "UTF-8"),
        (b'{"a": 1, "a": 2}', "twice"),
        (b'{"seed": NaN}', "NaN"),
        (b"[" * 100_000, "nested"),
        (b"{}", "is missing"),
    ],
)
def test_bodies_that_are_none(opened: Opened, body: bytes, words: str) -> None:
    assert words in checked(post(opened.url, "/v1/chat/completions", body))["message"]


def test_what_is_too_much_or_not_here(upstream: TokenServer) -> None:
    with Opened(settings_of(upstream), Bounds(max_body=1000, max_requests=1)) as opened:
        assert "1,000 bytes" in checked(chat(opened, user="x" * 2000), 413)["message"]
        assert b" 413 " in begun(opened, b"content-length: 99999999\r\n\r\n{")
        assert (
            "application/json"
            in checked(post(opened.url, "/v1/completions", b"{}", content_type="text/plain"), 415)["message"]
        )
        many = json.dumps({"prompt": ["1"] * 129}).encode()
        assert "at most 128" in checked(post(opened.url, "/v1/completions", many))["message"]
        assert "There are POST" in checked(post(opened.url, "/v1/nothing", b"{}"), 404)["message"]
        checked(post(opened.url, "/v1/models", b"{}"), 405)
        opened.responder.in_flight += 1
        client = OpenAI(base_url=f"{opened.url}/v1", api_key="none", max_retries=0)
        with client, pytest.raises(RateLimitError, match="1 requests are in flight"):
            client.completions.create(model="tiny", prompt="1")
        opened.responder.in_flight -= 1


def test_bodies_without_an_end(upstream: TokenServer) -> None:
    with Opened(settings_of(upstream), Bounds(max_body=1000, body_seconds=0.2)) as opened:
        long = b"transfer-encoding: chunked\r\n\r\n3e9\r\n" + b" " * 1001 + b"\r\n"
        assert b" 413 " in begun(opened, long)
        assert b" 408 " in begun(opened, b"content-length: 9\r\n\r\n{")


def test_keys_are_asked_for_and_said_nowhere(upstream: TokenServer, caplog: pytest.LogCaptureFixture) -> None:
    settings = settings_of(upstream, api_key=OWN_KEY)
    with Opened(settings, Bounds(key=key("client_key", CLIENT_KEY))) as opened:
        said = []
        for sent in ("none", CLIENT_KEY[:-1], CLIENT_KEY + "x", "é"):
            found = post(
                opened.url, "/v1/completions", b"{}", authorization=f"Bearer {sent}".encode().decode("latin-1")
            )
            said.append(checked(found, 401))
        checked(post(opened.url, "/v1/completions", b"{}"), 401)
        client = OpenAI(base_url=f"{opened.url}/v1", api_key="wrong", max_retries=0)
        with client, pytest.raises(AuthenticationError, match="another key"):
            client.models.list()
        with OpenAI(base_url=f"{opened.url}/v1", api_key=CLIENT_KEY, max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["tiny"]
            answer = client.completions.create(model="tiny", prompt=QUESTIONS[0], max_tokens=16)
            with pytest.raises(BadRequestError) as refused:
                client.completions.create(model="tiny", prompt=QUESTIONS[0], user=OWN_KEY, max_tokens=9**9)
        told = f"{said} {answer.model_dump_json()} {refused.value} {caplog.text} {settings} {opened.bounds}"
    for secret in (OWN_KEY, CLIENT_KEY):
        assert secret not in told
    assert upstream.url not in told.replace(repr(settings), "")


TEMPLATE = (
    "{% for m in messages %}{% if m.role in ('system', 'user', 'assistant') %}{{ m.role }}: {{ m.content }} "
    "{% endif %}{% endfor %}{% if messages[0].content == 'fail' %}{{ raise_exception('not so') }}{% endif %}"
)


def test_a_developer_is_heard_and_token_ids_are_said_to_the_letter(upstream: TokenServer) -> None:
    """Templates of today know no developer, and leave out what it says; some tokenizers tidy up what they decode."""
    tokenizer = AutoTokenizer.from_pretrained(tiny.path())
    tokenizer.chat_template, tokenizer.clean_up_tokenization_spaces = TEMPLATE, True
    with Liar() as liar, Opened(settings_of(liar.url, tokenizer=tokenizer)) as opened:
        turns = [{"role": "developer", "content": "a"}, {"role": "user", "content": "b"}]
        assert chat(opened, messages=turns)[0] == 200
        assert liar.requests[-1][2]["prompt"].startswith("system: a user: b ")
        assert (
            "does not take it: not so"
            in checked(chat(opened, messages=[{"role": "user", "content": "fail"}]))["message"]
        )
        ids = tokenizer("a = 3 ; b ?")["input_ids"]
        assert post(opened.url, "/v1/completions", json.dumps({"prompt": ids, "max_tokens": 16}).encode())[0] == 200
        assert liar.requests[-1][2]["prompt"].startswith("a = 3 ; b ?")


def test_a_knob_with_which_a_controller_cannot_begin_is_the_clients(upstream: TokenServer) -> None:
    with Opened(settings_of(upstream, controller=load_controller("cmc", beta=0.0))) as opened:
        own = {"controller_kwargs": {"ema_window": 10**14}}
        assert "Unable to allocate" in checked(chat(opened, tts_generate=own))["message"]
