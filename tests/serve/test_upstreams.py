"""Upstreams that become others between two requests: the client who asks next is answered, and notices nothing."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from local_servers import QUESTIONS, Proxy
from openai import APIStatusError, AsyncOpenAI, BadRequestError, OpenAI
from proxies import Opened, settings_of
from token_server import TokenServer

from tts_generate.loading import load_controller


def looks(server: TokenServer) -> int:
    """Times that a server was asked for one token, to find out how it is spoken to."""
    return [body["max_tokens"] for body in server.requests].count(1)


def ask(opened: Opened, clients: int = 1, **fields: Any) -> list[Any]:
    """The answers to several clients at once."""

    async def every() -> list[Any]:
        async with AsyncOpenAI(base_url=f"{opened.url}/v1", api_key="none", max_retries=0) as client:
            asked = [client.completions.create(model="tiny", prompt=QUESTIONS[0], **fields) for _ in range(clients)]
            return await asyncio.gather(*asked)

    return asyncio.run(every())


@pytest.mark.parametrize(
    "becomes",
    [{"context": 256}, {"name": "other"}, {"tells_ids": False}],
    ids=["of another context", "another model", "of another dialect"],
)
def test_the_request_that_finds_an_upstream_changed_is_answered(becomes: dict[str, Any]) -> None:
    with TokenServer() as first, Opened(settings_of(first, max_new_tokens=None)) as opened:
        ask(opened)
        first.__exit__()
        with TokenServer(int(first.url.rpartition(":")[2].removesuffix("/v1")), **becomes) as second:
            answers = ask(opened, clients=4)
            assert all(answer.choices[0].text for answer in answers)
            assert looks(second) <= 2, "once for all of them, in two ways at most"
            spent = sum(answer.usage.completion_tokens for answer in answers)
            assert second.decoded - looks(second) <= spent, "what was decoded in vain is told too"
            ask(opened)
            assert looks(second) <= 2, "nor once more"


@pytest.mark.parametrize(
    ("model", "becomes"),
    [("tiny", {"name": "other"}), (None, {"tells_ids": False})],
    ids=["it has not the model", "another dialect"],
)
def test_one_of_two_that_changed_is_asked_no_more_and_the_other_goes_on(
    model: str | None, becomes: dict[str, Any]
) -> None:
    with TokenServer() as first, TokenServer() as other:
        port = int(first.url.rpartition(":")[2].removesuffix("/v1"))
        with Opened(settings_of(first, other, model=model)) as opened:
            ask(opened, clients=4)
            first.__exit__()
            with TokenServer(port, **becomes) as second:
                assert all(answer.choices[0].text for answer in ask(opened, clients=4))
                found_out = len(second.requests) - looks(second)
                assert all(answer.choices[0].text for answer in ask(opened, clients=4))
                assert len(second.requests) - looks(second) == found_out, "it is looked at, and asked nothing"


def test_what_upstream_cannot_do_any_more_is_said_as_it_is_now() -> None:
    controller = load_controller("deepconf", beta=0.0)
    with TokenServer() as first, Opened(settings_of(first, controller=controller)) as opened:
        ask(opened)
        first.__exit__()
        with (
            TokenServer(int(first.url.rpartition(":")[2].removesuffix("/v1")), tells_ids=False),
            pytest.raises(BadRequestError, match="reads log-probabilities"),
        ):
            ask(opened)


@pytest.mark.filterwarnings("ignore:question")
def test_a_request_that_is_at_fault_itself_is_asked_once() -> None:
    with (
        TokenServer() as server,
        Proxy(server.url, lambda n: "400" if n == 1 else "") as harm,
        Opened(settings_of(harm.url, tokenizer=server.tokenizer)) as opened,
        OpenAI(base_url=f"{opened.url}/v1", api_key="none", max_retries=0) as client,
    ):
        with pytest.raises(APIStatusError, match="harm"):
            client.completions.create(model="tiny", prompt=QUESTIONS[0])
        assert (harm.count, looks(server)) == (3, 2), "a look, its branches, and another look"
