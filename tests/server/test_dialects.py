"""How a server is spoken to: only in ways that it honours, and asked for nothing that nobody reads."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from liar import STEP, Liar, event, sse
from local_servers import ASKED, OPTIONS, QUESTIONS, SUFFIX, free_port
from server_checks import assert_replays
from token_server import TokenServer

from tts_generate import OnRound, ServerModel
from tts_generate.errors import InputError, ServerError, UnsupportedError
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.replay import replay as replayed
from tts_generate.trajectories import Question

TWO = load_controller("self_consistency", max_samples=2)
SHORT: dict[str, Any] = {
    "controller": TWO, "interval_tokens": STEP, "max_new_tokens": 2 * STEP, "probe_suffix": SUFFIX, "seed": 1,
}  # fmt: skip
KNOWN = {"model", "prompt", "max_tokens", "stream", "seed", "temperature", "top_p", "stop"}
"""Fields of OpenAI's that a strict server takes."""


def refused(status: int, message: str) -> Any:
    return status, {"content-type": "application/json"}, f'{{"error": {{"message": "{message}"}}}}'.encode()


def client(url: str, **more: Any) -> ServerModel:
    found = ServerModel(url, max_retries=0, **more)
    found.policy = replace(found.policy, first_rest=0.001)
    return found


def bodies(liar: Liar) -> list[dict[str, Any]]:
    return [body for _, _, body in liar.requests if body]


def test_a_value_that_a_server_refuses_is_not_hidden_in_a_field_that_it_ignores() -> None:
    """vLLM takes fields that it does not know: in another dialect it would have answered, at its own temperature."""
    with Liar(lambda body: refused(400, "no min_p here") if "min_p" in body else None) as liar:
        with pytest.raises(ServerError, match="HTTP 400: no min_p here"):
            client(liar.url).generate("a", min_p=0.1, **SHORT)
        assert not any("generation_config" in body for body in bodies(liar))
        output = client(liar.url).generate("a", temperature=0.5, **SHORT)
    assert output.usage.dialect == "text"
    assert all(body["temperature"] in (0.5, 0.0) for body in bodies(liar)[-4:])


@pytest.mark.parametrize(("knows", "dialect"), [({"generation_config"}, "transformers"), (set(), "openai")])
def test_a_strict_server_is_spoken_to_in_the_fields_that_it_knows(knows: set[str], dialect: str) -> None:
    def say(body: dict[str, Any]) -> Any:
        unknown = sorted(body.keys() - KNOWN - knows - {"stream_options"})
        return refused(422, f"Unexpected fields in the request: {unknown}") if unknown else None

    with Liar(say) as liar:
        output = client(liar.url).generate("a", temperature=0.5, **SHORT)
        assert output.usage.dialect == dialect
        if dialect == "openai":
            with pytest.raises(ServerError, match="OpenAI's options only and would refuse top_k"):
                client(liar.url).generate("a", top_k=5, **SHORT)


def test_that_token_ids_are_refused_is_said(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    with (
        Liar(lambda body: refused(400, "prompts are text") if isinstance(body["prompt"], list) else None) as liar,
        caplog.at_level(logging.INFO),
    ):
        client(liar.url, tokenizer=tokenizer).generate("a", **SHORT)
        assert [(each.levelname, each.message) for each in caplog.records if "spoken" in each.message] == [
            ("WARNING", f"{liar.url} is spoken to as 'text'; it says: HTTP 400: prompts are text")
        ]


@pytest.mark.parametrize("looks", [True, False])
def test_options_that_a_server_may_not_look_at_are_named(looks: bool, caplog: pytest.LogCaptureFixture) -> None:
    def say(body: dict[str, Any]) -> Any:
        return refused(400, "top_k cannot be -2") if looks and body.get("top_k", 0) < -1 else None

    with Liar(say) as liar:
        client(liar.url).generate("a", top_k=5, temperature=0.5, **SHORT)
    assert ("takes top_k=-2, which cannot be: it may not look at it" in caplog.text) is not looks


def test_log_probabilities_are_asked_for_where_something_reads_them(tokenizer: Any, tmp_path: Path) -> None:
    with Liar(tokens=True) as liar:
        model = client(liar.url, tokenizer=tokenizer)
        options = {**SHORT, "controller": "deepconf", "beta": 0.0}
        quiet = model.generate("a", **SHORT)
        assert not any(body["stream"] or "logprobs" in body for body in bodies(liar))
        assert {row.step_logprobs for row in quiet.branches[0]} == {()}
        for more in (options, {**SHORT, "branch_processors": [OnRound(lambda question, state: None)]}):
            liar.requests.clear()
            read = model.generate("a", **more)
            assert all(body["logprobs"] == 1 and not body["stream"] for body in bodies(liar))
            assert {row.step_logprobs for row in read.branches[0]} == {(-0.5, -0.5)}
        liar.requests.clear()
        recorded = {name: value for name, value in SHORT.items() if name != "controller"}
        store = model.record([Question("q", "a")], tmp_path / "s", branches=2, progress=False, **recorded)
        assert all(body["logprobs"] == 1 for body in bodies(liar))
        assert {row.step_logprobs for row in store.trajectories()} == {(-0.5, -0.5)}


@pytest.mark.long
def test_long_answers_are_streamed(tokenizer: Any) -> None:
    """Of others nothing is heard before their end, for which they have `timeout` and a share of it for each token."""
    late = [0.0]

    def say(body: dict[str, Any]) -> Any:
        time.sleep(late[0] * (body["max_tokens"] == 100))
        return None

    with Liar(say, tokens=True) as liar:
        options = {**SHORT, "max_new_tokens": 600, "interval_tokens": 600}
        client(liar.url, tokenizer=tokenizer).generate("a", **options)
        assert [body["stream"] for body in bodies(liar)[1:3]] == [True, True]
        assert all(body["stream"] == (body["max_tokens"] > 512) for body in bodies(liar))
        assert all(("stream_options" in body) == body["stream"] for body in bodies(liar))
        late[0] = 0.8
        options |= {"max_new_tokens": 100, "interval_tokens": 100}
        assert client(liar.url, tokenizer=tokenizer, timeout=0.6).generate("a", **options).finish_reason == ["answer"]


@pytest.mark.parametrize("told", [True, False])
def test_a_server_that_tells_few_log_probabilities_is_still_spoken_to_by_ids(tokenizer: Any, told: bool) -> None:
    """`--max-logprobs 0` refuses any beside the token's own; others tell none whatever they are asked."""
    if told:
        with TokenServer(batch=1, max_logprobs=0) as server:
            model = ServerModel(server.url, tokenizer=server.tokenizer)
            output = model.generate(QUESTIONS, controller="deepconf", beta=0.0, seed=1, **OPTIONS)
            assert_replays(output, "deepconf", beta=0.0)
            assert output.usage.dialect == "tokens"
            assert all(branch.step_logprobs for branches in output.branches for branch in branches)
        return

    def say(body: dict[str, Any]) -> Any:
        if "logprobs" in body:
            return refused(400, "Requested sample logprobs of 1, which is greater than max allowed")
        return None

    with Liar(say, tokens=True) as liar:
        model = client(liar.url, tokenizer=tokenizer)
        with pytest.raises(UnsupportedError, match=r"reads log-probabilities.*spoken to as 'tokens' and tells none"):
            model.generate("a", **{**SHORT, "controller": "deepconf", "beta": 0.0})
        assert model.generate("a", **SHORT).usage.dialect == "tokens"


def test_no_seed_is_sent_that_nobody_gave(tmp_path: Path) -> None:
    """vLLM on a CPU may die of one; what was decoded without replays all the same."""
    with TokenServer(seeds=False) as server:
        model = client(server.url, tokenizer=server.tokenizer)
        output = model.generate(QUESTIONS, controller="cmc", beta=0.0, **OPTIONS)
        assert_replays(output, "cmc", beta=0.0)
        rows = [branch for branches in output.branches for branch in branches]
        assert output.seed is None
        assert {row.seed for row in rows} == {None}
        assert len({row.token_ids for row in rows}) > 2  # nor do they say the same
        options = {**OPTIONS, "interval_tokens": 64, "branches": 2, "progress": False}
        store = model.record(ASKED, tmp_path / "s", **options)
        assert (store.manifest.seed, {row.seed for row in store.trajectories()}) == (None, {None})
        assert len(replayed(Recording.from_store(store), TWO, shuffles=0).answers[0]) == len(ASKED)
        assert not any("seed" in body for body in server.requests)
        with pytest.raises(ServerError, match="vLLM on a CPU may die of a seed: leave seed= out"):
            model.generate(QUESTIONS, seed=1, controller=TWO, **OPTIONS)


@pytest.mark.parametrize("status", [401, 403])
def test_a_key_that_is_missing_is_asked_for(status: int) -> None:
    with (
        Liar(lambda body: refused(status, "Unauthorized")) as liar,
        pytest.raises(ServerError, match=f"HTTP {status}: Unauthorized. Pass the key of that server as api_key="),
    ):
        client(liar.url).generate("a", **SHORT)
    with pytest.raises(InputError, match="api_key is empty: is the variable that it comes from set"):
        ServerModel(liar.url, api_key="")


@pytest.mark.parametrize(
    ("extra_body", "instead"),
    [
        ({"n": 4}, "one continuation of one branch"),
        ({"echo": True}, "one continuation"),
        ({"best_of": 2}, "one continuation"),
        ({"stream": False}, "streamed"),
        ({"seed": 7}, "pass seed="),
        ({"stop": ["a"]}, "pass stop_strings="),
        ({"temperature": 1.0}, "pass it to generate or record"),
        ({"logprobs": 5}, "where something reads it"),
        ({"min_tokens": 8}, "counts within one request"),  # vLLM: more than the one token of a look
        ({"presence_penalty": 0.5}, "counts within one request"),
    ],
)
def test_fields_that_say_what_a_request_is_for_are_refused(extra_body: dict[str, Any], instead: str) -> None:
    with pytest.raises(InputError, match=f"extra_body cannot set '{next(iter(extra_body))}': .*{instead}"):
        ServerModel("http://127.0.0.1:9", extra_body=extra_body)


@contextlib.contextmanager
def _late(port: int, seconds: float) -> Iterator[None]:
    """A server that has started after a while."""
    over, started = threading.Event(), threading.Event()

    def serve() -> None:
        time.sleep(seconds)
        with TokenServer(port):
            started.set()
            over.wait(60)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_server_that_is_still_starting_is_waited_for(token_server: TokenServer) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/v1"
    with _late(port, 1.5):
        with pytest.raises(ServerError, match="One that is still starting is waited for with wait="):
            client(url).generate(QUESTIONS[0], controller=TWO, **OPTIONS)
        model = ServerModel([token_server.url, url], tokenizer=token_server.tokenizer, wait=60.0, max_in_flight=1)
        output = model.generate(QUESTIONS, controller=TWO, **OPTIONS)
    assert set(output.usage.requests_by_url) == {token_server.url, url}
    with pytest.raises(InputError, match="wait must be a number of seconds"):
        ServerModel(url, wait=-1.0)


def test_a_gateway_before_a_server_that_is_still_starting_is_waited_for() -> None:
    answers: list[Any] = [(503, {}, b"starting"), b'{"data": []}']
    with Liar(models=lambda: answers.pop(0)) as liar:
        assert client(liar.url, wait=10.0).generate("a", **SHORT).finish_reason == ["answer"]
    assert answers == []


@pytest.mark.parametrize("details", [None, {"cached_tokens": 2}])
def test_what_a_prefix_cache_held_is_known_where_a_server_says_so(details: Any) -> None:
    def say(body: dict[str, Any]) -> Any:
        usage = {"prompt_tokens": 3, "completion_tokens": min(STEP, body["max_tokens"])}
        usage |= {} if details is None else {"prompt_tokens_details": details}
        return sse(event(usage=usage, token_ids=None))

    with Liar(say) as liar, warnings.catch_warnings():
        usage = client(liar.url).generate("a", **SHORT).usage
    assert usage.cached_tokens == (None if details is None else 2 * usage.requests)


@pytest.mark.parametrize("tokens", [False, True])
@pytest.mark.parametrize("seed", [1, None])  # a request a step, and branches that run on
def test_what_a_server_does_not_count_is_counted_here(tokenizer: Any, tokens: bool, seed: int | None) -> None:
    def say(body: dict[str, Any]) -> Any:
        count = min(STEP, body["max_tokens"])
        ids, logprobs = ([5] * count, {"token_logprobs": [-0.5] * count}) if tokens else (None, None)
        return sse(event(text=" a" * count, token_ids=ids, logprobs=logprobs, usage=None))

    with Liar(say) as liar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no answer
        output = client(liar.url, tokenizer=tokenizer).generate("a", **{**SHORT, "seed": seed, "controller": "cmc"})
    assert output.usage.dialect == ("tokens" if tokens else "text")
    usage, asked = output.usage, [body["prompt"] for body in bodies(liar)]
    counts = [len(each if tokens else tokenizer(each)["input_ids"]) for each in asked[-output.usage.requests :]]
    assert usage.completion_tokens >= output.total_cost.generated_tokens > 0
    assert usage.sent_tokens == sum(counts)


def test_a_length_that_no_server_bounds_is_bounded_here() -> None:
    """What is kept of each step is allocated beforehand: 10^9 tokens were 4 GB a question, for any client to ask."""
    with Liar(models=b'{"data": [{"id": "m"}]}') as liar:
        with pytest.raises(InputError, match=r"2,000,000 steps each of interval_tokens=500.*pass fewer max_new_tokens"):
            client(liar.url).generate("a", max_new_tokens=10**9)
        assert not bodies(liar)


def test_a_seed_that_no_row_holds_is_refused_before_anything_is_asked() -> None:
    with Liar() as liar:
        for seed in (1 << 63, 10**30, -(10**30)):
            with pytest.raises(InputError, match="seed must be a whole number"):
                client(liar.url).generate("a", **{**SHORT, "seed": seed})
        assert not bodies(liar)
        assert client(liar.url).generate("a", **{**SHORT, "seed": np.int64(7)}).branches[0][0].seed == 7
