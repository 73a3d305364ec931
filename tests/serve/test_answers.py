"""What clients get from the proxy: the answers of `ServerModel.generate`, every token, streams, and many at once."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from typing import Any

import pytest
from local_servers import QUESTIONS
from openai import AsyncOpenAI, OpenAI
from proxies import ASKING, MOST, STEP, Opened, settings_of
from token_server import TokenServer

from tts_generate import ServerModel, ServerOutput, tiny
from tts_generate.loading import load_controller
from tts_generate.version import __version__


def generated(server: TokenServer, prompts: str | list[str], **how: Any) -> ServerOutput:
    """What the library says to the same."""
    how = {"controller": load_controller("self_consistency", max_samples=3), "interval_tokens": STEP, **ASKING, **how}
    return ServerModel(server.url, tokenizer=server.tokenizer).generate(prompts, max_new_tokens=MOST, **how)


def asked(client: OpenAI, question: str, **how: Any) -> Any:
    return client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": question}], **how)


def test_a_chat_is_answered_as_the_library_answers(client: OpenAI, upstream: TokenServer) -> None:
    answer, same = asked(client, QUESTIONS[0], seed=7), generated(upstream, QUESTIONS[0], seed=7)
    (choice,), extra = answer.choices, answer.tts_generate
    assert choice.message.content == same.texts[0].removesuffix(" <eos>")
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    (question,) = extra["questions"]
    assert question["answer"] == same.answers[0]
    assert question["votes"] == same.votes[0]
    cost = same.total_cost
    assert question["cost"] == {
        name: getattr(cost, name) for name in ("prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens")
    }
    assert [branch["tokens"] for branch in question["branches"]] == [branch.tokens for branch in same.branches[0]]
    assert (extra["version"], extra["controller"]["controller"], extra["dialect"]) == (
        __version__, "SelfConsistency", "tokens"
    )  # fmt: skip


def test_usage_is_every_token_decoded(client: OpenAI, upstream: TokenServer) -> None:
    upstream.decoded = 0
    usage = asked(client, QUESTIONS[1], extra_body={"tts_generate": {"controller_kwargs": {"max_samples": 2}}}).usage
    assert usage.completion_tokens == upstream.decoded > 0
    assert usage.prompt_tokens == len(upstream.tokenizer(QUESTIONS[1])["input_ids"])
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    kinds = usage.completion_tokens_details.model_dump(exclude_none=True)
    assert set(kinds) == {"branch_tokens", "probe_tokens", "discarded_tokens"}
    assert sum(kinds.values()) == usage.completion_tokens


def test_probes_are_counted_apart(upstream: TokenServer) -> None:
    with Opened(settings_of(upstream, controller=load_controller("cmc", beta=0.0))) as opened:
        upstream.decoded = 0
        with OpenAI(base_url=f"{opened.url}/v1", api_key="none") as client:
            usage = asked(client, QUESTIONS[0], seed=1).usage
        kinds = usage.completion_tokens_details.model_dump(exclude_none=True)
        assert kinds["probe_tokens"] > 0
        assert sum(kinds.values()) == usage.completion_tokens == upstream.decoded


def test_completions_of_several_prompts_by_text_and_by_ids(client: OpenAI, upstream: TokenServer) -> None:
    texts = client.completions.create(model="tiny", prompt=QUESTIONS, seed=3, stop=["</think>"])
    same = generated(upstream, QUESTIONS, seed=3, stop_strings=["</think>"])
    assert [choice.text for choice in texts.choices] == [text.partition("</think>")[0] for text in same.texts]
    assert [each["answer"] for each in texts.tts_generate["questions"]] == same.answers
    assert texts.usage.prompt_tokens == same.total_cost.prompt_tokens
    ids = upstream.tokenizer(QUESTIONS[0])["input_ids"]
    by_ids = client.completions.create(model="tiny", prompt=ids, seed=3, stop="</think>")
    assert by_ids.choices[0].text == texts.choices[0].text


def test_a_stream_tells_how_far_it_is_then_the_text_then_what_it_took(client: OpenAI) -> None:
    whole = asked(client, QUESTIONS[0], seed=7)
    with asked(client, QUESTIONS[0], seed=7, stream=True, stream_options={"include_usage": True}) as stream:
        chunks = list(stream)
    *_, end, usage = chunks
    assert {chunk.object for chunk in chunks} == {"chat.completion.chunk"}
    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == whole.choices[0].message.content
    assert [c.choices[0].finish_reason for c in chunks[:-1]] == [None] * (len(chunks) - 2) + ["stop"]
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert end.tts_generate["questions"] == whole.tts_generate["questions"]


def test_progress_is_told_while_it_runs(upstream: TokenServer) -> None:
    with (
        Opened(settings_of(upstream, controller=load_controller("cmc", beta=0.0))) as opened,
        OpenAI(base_url=f"{opened.url}/v1", api_key="none") as client,
    ):
        chunks = list(client.completions.create(model="tiny", prompt=QUESTIONS[0], stream=True))
    told = [
        chunk.tts_generate["progress"]
        for chunk in chunks
        if "progress" in (chunk.model_extra or {}).get("tts_generate", {})
    ]
    assert told
    assert [each["tokens"] for each in told] == sorted(each["tokens"] for each in told)
    assert set(told[0]) == {"round", "branches", "live", "tokens", "answer", "votes"}


def test_a_branch_that_was_cut_is_told_as_cut(client: OpenAI) -> None:
    answer = asked(client, QUESTIONS[0], seed=7, max_tokens=8)
    assert answer.choices[0].finish_reason == "length"
    assert answer.tts_generate["questions"][0]["truncated"] is True


def test_temperature_0_is_answered_and_told(client: OpenAI) -> None:
    assert "temperature 0" in asked(client, QUESTIONS[0], temperature=0, max_tokens=16).tts_generate["notes"][0]
    assert asked(client, QUESTIONS[0], temperature=0.5, max_tokens=16).tts_generate["notes"] == []


def test_64_clients_at_once() -> None:
    """Each has the answer to its own question, over one connection that was found out once."""
    questions = [question.question for question in tiny.questions("test")[:64]]
    with TokenServer(batch=64) as server, Opened(settings_of(server, max_in_flight=64)) as opened:

        async def ask() -> list[Any]:
            async with AsyncOpenAI(base_url=f"{opened.url}/v1", api_key="none", max_retries=0) as client:
                return await asyncio.gather(*[
                    client.chat.completions.create(
                        model="tiny", messages=[{"role": "user", "content": each}], max_tokens=32
                    )
                    for each in questions
                ])  # fmt: skip

        answers = asyncio.run(ask())
        assert len(answers) == 64
        assert sum(answer.usage.completion_tokens for answer in answers) == server.decoded - 1
        ids = [server.tokenizer(each)["input_ids"] for each in questions]
        assert [answer.usage.prompt_tokens for answer in answers] == list(map(len, ids))
        assert [body["max_tokens"] for body in server.requests].count(1) == 1
        assert opened.responder.in_flight == 0


def test_what_was_found_out_is_kept_until_a_server_fails(upstream: TokenServer) -> None:
    with TokenServer() as first, Opened(settings_of(first)) as opened:
        port = int(first.url.rpartition(":")[2].removesuffix("/v1"))
        with OpenAI(base_url=f"{opened.url}/v1", api_key="none", max_retries=0) as client:
            for _ in range(3):
                asked(client, QUESTIONS[0], max_tokens=16)
            assert [body["max_tokens"] for body in first.requests].count(1) == 1
            assert len({answer.id for answer in [asked(client, QUESTIONS[0], max_tokens=16) for _ in range(2)]}) == 2
            asked(client, QUESTIONS[0], max_tokens=16, extra_body={"top_k": 5})
            assert [body["max_tokens"] for body in first.requests].count(1) == 2, "an option that servers may not know"
            first.__exit__()
            with TokenServer(port) as second:
                assert asked(client, QUESTIONS[0], max_tokens=16).usage.completion_tokens > 0
                assert second.requests


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_hangs_up_is_decoded_for_no_more(stream: bool) -> None:
    with TokenServer(pause=0.05, context=2048) as server, Opened(settings_of(server, max_new_tokens=1024)) as opened:
        body = {"prompt": QUESTIONS[0] * 2, "stream": stream}  # the model has never seen such a one
        request = urllib.request.Request(
            f"{opened.url}/v1/completions", json.dumps(body).encode(), {"content-type": "application/json"}
        )
        with pytest.raises(TimeoutError), urllib.request.urlopen(request, timeout=1.0) as response:
            response.read()
        _until(lambda: opened.responder.in_flight == 0)
        _until(lambda: not server.in_flight)
        time.sleep(0.5)  # the token that was under way
        decoded = server.decoded
        time.sleep(0.5)
        assert server.decoded == decoded > 1


def _until(happened: Any, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < end
        time.sleep(0.02)
