"""A network and servers in trouble: a real proxy before real servers answers 429, 500, resets, stalls, cuts, dies."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import threading
import time
import warnings
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx2
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liar import Liar
from local_servers import ASKED, OPTIONS, QUESTIONS, Proxy, free_port
from server_checks import assert_replays
from token_server import TokenServer

from tts_generate import BranchProcessor, ServerModel, TrajectoryStore
from tts_generate.errors import ServerError
from tts_generate.loading import load_controller
from tts_generate.server.pool import Policy, Pool, Slots
from tts_generate.state import Decision, State

ONE, FOUR = (load_controller("self_consistency", max_samples=samples) for samples in (1, 4))


def patient(urls: Any, timeout: float = 60.0, retries: int = 5, **options: Any) -> ServerModel:
    """A client that rests for hundredths of seconds only."""
    model = ServerModel(urls, timeout=timeout, max_retries=retries, **options)
    model.policy = replace(model.policy, first_rest=0.02)
    return model


@pytest.mark.long
@pytest.mark.parametrize("harm", ["429", "500", "503", "reset", "cut", "stall", "garbage"])
def test_transformers_serve_behind_a_proxy_that_does_harm(served: str, tokenizer: Any, harm: str) -> None:
    with Proxy(served, lambda n: harm if n in (3, 4, 7) else "") as proxy:
        model = patient(proxy.url, timeout=6.0 if harm == "stall" else 60.0, tokenizer=tokenizer)
        # The dialect takes two requests to find; 3 and 4 are of branches that run side by side.
        output = model.generate(QUESTIONS[1], controller=FOUR, seed=1, **OPTIONS)
        assert_replays(output, FOUR)
        assert output.usage.retries == sum(n in (3, 4, 7) for n in range(proxy.count))
        assert output.usage.retries >= 2
        assert output.usage.requests == output.usage.retries + 4
        if harm == "429":
            assert sorted(proxy.times)[proxy.count - 1] - proxy.times[4] > 0.39  # Retry-After: 0.4


@pytest.mark.parametrize(("longest_wait", "reason"), [(60.0, "answered"), (0.1, "error")])
def test_a_server_that_only_says_wait_is_waited_for(
    token_server: TokenServer, tokenizer: Any, longest_wait: float, reason: str
) -> None:
    """429 counts neither against a request nor against its server, till there was nothing else for `longest_wait`."""
    with Proxy(token_server.url, lambda n: "429" if 4 <= n < 10 else "") as proxy:
        model = patient(proxy.url, retries=1, tokenizer=tokenizer, max_in_flight=1)
        model.policy = replace(model.policy, longest_wait=longest_wait)
        with contextlib.nullcontext() if reason == "answered" else pytest.warns(RuntimeWarning, match="HTTP 429"):
            output = model.generate(QUESTIONS[1], controller=FOUR, seed=1, **OPTIONS)
    assert ("error" in output.finish_reason) == (reason == "error")


def test_a_server_that_only_fails_costs_what_follows(token_server: TokenServer, tokenizer: Any) -> None:
    with Proxy(token_server.url, lambda n: "500" if n > 6 else "") as proxy:
        model = patient(proxy.url, retries=2, tokenizer=tokenizer)
        with pytest.warns(RuntimeWarning, match="HTTP 500: harm"):
            output = model.generate(QUESTIONS, controller="cmc", beta=0.0, seed=1, **OPTIONS)
    assert output.finish_reason == ["error", "error"]
    tokens = [sum(branch.tokens for branch in branches) for branches in output.branches]
    assert tokens == [cost.generated_tokens for cost in output.cost]
    assert 0 < sum(tokens) <= 16 * 6


@pytest.mark.long
@pytest.mark.parametrize("how", ["dead", "stall", "500"])
def test_what_one_server_drops_the_other_takes_up(token_server: TokenServer, tokenizer: Any, how: str) -> None:
    with Proxy(token_server.url, lambda n: how if n >= 6 else "") as dying, Proxy(token_server.url) as well:
        model = patient([dying.url, well.url], timeout=1.5, retries=2, tokenizer=tokenizer, max_in_flight=4)
        output = model.generate(QUESTIONS, controller="cmc", beta=0.0, seed=1, **OPTIONS)
        alone = patient(token_server.url, tokenizer=tokenizer).generate(
            QUESTIONS, controller="cmc", beta=0.0, seed=1, **OPTIONS
        )
    assert_replays(output, "cmc", beta=0.0)
    assert output.branches == alone.branches  # nothing is lost, nothing is decoded from another place
    assert output.usage.retries > 0
    assert min(output.usage.requests_by_url.values()) >= 6


@pytest.mark.long
def test_a_recording_survives_the_death_of_all_servers(
    token_server: TokenServer, tokenizer: Any, tmp_path: Path
) -> None:
    whole = record(patient(token_server.url, tokenizer=tokenizer), tmp_path / "whole")
    with (
        Proxy(token_server.url, lambda n: "dead" if n >= 12 else "") as proxy,
        pytest.warns(RuntimeWarning, match="majority so far"),
        pytest.raises(ServerError, match="the same command goes on with it"),
    ):
        record(patient(proxy.url, retries=1, tokenizer=tokenizer, max_in_flight=2), tmp_path / "s")
    kept = TrajectoryStore.open(tmp_path / "s").trajectories()
    assert 0 < len(kept) < 12
    found = record(patient(token_server.url, tokenizer=tokenizer), tmp_path / "s")
    assert found.trajectories() == whole.trajectories()
    assert kept == [row for row in found.trajectories() if row in kept]


def record(model: ServerModel, out: Path) -> TrajectoryStore:
    options = {**OPTIONS, "interval_tokens": 32}
    return model.record(ASKED, out, branches=6, seed=1, progress=False, **options)


def test_a_server_that_is_not_there_is_left_out(
    token_server: TokenServer, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    nobody = f"http://127.0.0.1:{free_port()}/v1"
    with caplog.at_level(logging.WARNING):
        output = patient([nobody, token_server.url], tokenizer=tokenizer).generate(
            QUESTIONS[0], controller="dynasor", seed=1, **OPTIONS
        )
    assert f"{nobody} is left out" in caplog.text
    assert list(output.usage.requests_by_url) == [token_server.url]
    with pytest.raises(ServerError, match=r"cannot be reached.*Is the server running"):
        patient(nobody).generate(QUESTIONS[0], **OPTIONS)


@pytest.mark.parametrize("why", ["it starts late", "it comes back"])
def test_a_server_is_taken_up_when_it_answers(token_server: TokenServer, tokenizer: Any, why: str) -> None:
    """Left out at the beginning, or given up in the middle; the answers are those of one server."""
    port, options = free_port(), {"controller": "asc", "seed": 1, **OPTIONS}
    url = f"http://127.0.0.1:{port}/v1"
    whole = patient(token_server.url, tokenizer=tokenizer).generate(QUESTIONS, **options)
    other = TokenServer(port=port) if why == "it comes back" else None
    late: list[TokenServer] = []

    class Starts(BranchProcessor):
        """Has the server die, if it is there, and another one stand in its place."""

        reads_logprobs = False

        def begin(self, question_id: str) -> BranchProcessor:
            return self

        def __call__(self, state: State, do: Decision) -> None:
            if state.round == 1 and not late:
                if other is not None:
                    other.__exit__()
                late.append(TokenServer(port=port).__enter__())
            elif late:
                time.sleep(0.02)

    if other is not None:
        other.__enter__()
    model = patient([url, token_server.url], retries=1, tokenizer=tokenizer)
    model.policy = replace(model.policy, look_again=0.05)
    try:
        output = model.generate(QUESTIONS, branch_processors=[Starts()], **options)
        assert url in output.usage.requests_by_url
        assert len(late[0].requests) > 1  # the first asks how it is spoken to
        assert (output.answers, output.cost) == (whole.answers, whole.cost)
    finally:
        late[0].__exit__()


def test_servers_that_differ_are_refused(served: str, token_server: TokenServer, tokenizer: Any) -> None:
    with pytest.raises(ServerError, match="not alike"):
        patient([served, token_server.url], tokenizer=tokenizer, model=None).generate(QUESTIONS[0], **OPTIONS)


def test_a_question_asked_of_nobody_raises(token_server: TokenServer, tokenizer: Any) -> None:
    with (
        Proxy(token_server.url, lambda n: "500" if n else "") as proxy,
        pytest.warns(RuntimeWarning, match="majority so far"),
        pytest.raises(ServerError, match="HTTP 500"),
    ):
        patient(proxy.url, retries=1, tokenizer=tokenizer).generate(QUESTIONS, controller=FOUR, **OPTIONS)


class _Picky(BaseHTTPRequestHandler):
    """Fails for one prompt, always, ends another answer too early, garbles one once, and answers all others."""

    garbled = 0

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        bad, short = b"bad" in body, b"short" in body
        text = json.dumps({"choices": [{"text": "a", "finish_reason": None if short else "length"}]}).encode()
        self.send_response(500 if bad else 200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(text)))
        if b"garbled" in body and not _Picky.garbled:
            _Picky.garbled += 1
            self.send_header("content-encoding", "gzip")
        self.end_headers()
        self.wfile.write(text)


@contextlib.contextmanager
def _picky() -> Iterator[str]:
    http = ThreadingHTTPServer(("127.0.0.1", 0), _Picky)
    thread = threading.Thread(target=http.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_port}"
    finally:
        http.shutdown()
        http.server_close()
        thread.join()


def test_an_answer_without_its_end_is_none() -> None:
    async def ask(url: str) -> None:
        async with httpx2.AsyncClient() as client:
            await Pool(client, [url], Policy(max_retries=1, first_rest=0.001)).complete({"prompt": "short"})

    with _picky() as url, pytest.raises(ServerError, match="cut off after 1 characters"):
        asyncio.run(ask(url))


def test_an_answer_that_cannot_be_unpacked_is_asked_for_again() -> None:
    async def ask(url: str) -> Pool:
        async with httpx2.AsyncClient() as client:
            pool = Pool(client, [url], Policy(max_retries=1, first_rest=0.001))
            await pool.complete({"prompt": "garbled"})
            return pool

    _Picky.garbled = 0
    with _picky() as url:
        usage = asyncio.run(ask(url)).usage
    assert (usage.requests, usage.retries) == (2, 1)


@pytest.mark.parametrize(("status", "again"), [(507, True), (520, True), (524, True), (529, True), (501, False)])
def test_what_stands_before_a_server_may_be_in_trouble_by_any_status(status: int, again: bool) -> None:
    """Gateways have statuses of their own: 520 to 524, 529."""
    harm = [(status, {}, b'{"error": {"message": "harm"}}')]
    options = {**OPTIONS, "interval_tokens": 4, "max_new_tokens": 4, "seed": 1, "force_answer": False}
    with Liar(lambda body: harm.pop() if harm and body["max_tokens"] == 4 else None) as liar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no answer
        if not again:
            with pytest.raises(ServerError, match="HTTP 501: harm"):
                patient(liar.url).generate("a", controller=ONE, **options)
            return
        output = patient(liar.url).generate("a", controller=ONE, **options)
    assert (output.finish_reason, output.usage.retries) == (["answer"], 1)


def test_a_dead_server_is_not_asked_for_ever() -> None:
    async def ask(urls: list[str]) -> Pool:
        async with httpx2.AsyncClient() as client:
            pool = Pool(client, urls, Policy(max_retries=2, first_rest=0.001))
            for _ in range(20):
                await pool.complete({"prompt": "a"})
                await asyncio.sleep(0.01)  # longer than it rests
            return pool

    dead = f"http://127.0.0.1:{free_port()}"
    with _picky() as well:
        pool = asyncio.run(ask([dead, well]))
    assert pool.usage.requests_by_url == {dead: 3, well: 20}
    assert pool.endpoints[0].given_up is not None


def test_a_request_that_always_fails_is_given_up_though_its_server_is_well() -> None:
    async def ask(url: str) -> list[Any]:
        async with httpx2.AsyncClient() as client:
            pool = Pool(client, [url], Policy(max_in_flight=1, max_retries=2, first_rest=0.01))
            asked = [pool.complete({"prompt": "bad"}), *(pool.complete({"prompt": "a"}, (1, n)) for n in range(9))]
            return await asyncio.gather(*asked, return_exceptions=True)

    with _picky() as url:
        failed, *answered = asyncio.run(ask(url))
    assert isinstance(failed, ServerError)
    assert "3 times in a row, the last: HTTP 500" in str(failed)
    assert [completion.text for completion, _ in answered] == ["a"] * 9


@settings(max_examples=40, deadline=None)
@given(limit=st.integers(1, 4), orders=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=30))
def test_slots_leave_nothing_behind(limit: int, orders: list[tuple[int, bool]]) -> None:
    """Whatever is called off while it waits or works, room is never overdrawn, never lost, and given in order."""
    slots, served, most = Slots(limit), [], 0

    async def work(order: int) -> None:
        nonlocal most
        async with slots.held((order, 0)):
            served.append(order)
            most = max(most, slots.taken)
            await asyncio.sleep(random.Random(order).random() / 1000)

    async def main() -> None:
        tasks = [asyncio.ensure_future(work(order)) for order, _ in orders]
        await asyncio.sleep(0)
        for task, (_, called_off) in zip(tasks, orders, strict=True):
            if called_off:
                task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(main())
    assert (slots.taken, slots.free, slots.load) == (0, limit, 0)
    assert most <= limit
    waited = served[limit:]
    assert waited == sorted(waited)
