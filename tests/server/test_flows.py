"""Requests that run on while a controller decides: the same episodes, fewer tokens sent, all on the accounts."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from typing import Any

import pytest
from liar import STEP, Liar, event, sse
from local_servers import OPTIONS, QUESTIONS, Proxy
from server_checks import assert_replays
from test_faults import patient
from test_tokens import CONTROLLERS, sampled
from token_server import TokenServer

from tts_generate import BranchProcessor, ServerModel, ServerOutput, tiny
from tts_generate.controller import Controller
from tts_generate.loading import load_controller
from tts_generate.state import Decision, State

STEPWISE = load_controller("short_m_at_k", num_chains=6, votes=2)
"""Goes on with all of its branches a step at a time, and asks for no probes."""
LONG = max((each.question for each in tiny.questions("test")[:64]), key=len)
"""A question with long branches."""


def assert_accounted(output: ServerOutput, server: TokenServer) -> None:
    """Every token that was told is a branch's, a probe's, or discarded; the server may have been ahead of that."""
    usage, branches = output.usage, [branch for branches in output.branches for branch in branches]
    suffix = len(server.tokenizer(OPTIONS["probe_suffix"])["input_ids"])
    probed = [tokens for branch in branches for tokens in branch.probe_tokens if tokens]
    said = sum(probed) - len(probed) * suffix
    assert sum(branch.tokens for branch in branches) == output.total_cost.generated_tokens
    assert usage.completion_tokens >= output.total_cost.generated_tokens + said + usage.discarded_tokens
    if not probed:  # a suffix may be one of the two that there are
        assert usage.completion_tokens == output.total_cost.generated_tokens + usage.discarded_tokens
    assert usage.completion_tokens <= server.decoded - 1


@pytest.mark.long
@pytest.mark.parametrize("room", [1, 3, 16])
@pytest.mark.parametrize("controller", [STEPWISE, *CONTROLLERS], ids=str)
def test_an_episode_replays_whatever_ran_on(tokenizer: Any, controller: Any, room: int) -> None:
    knobs = {} if isinstance(controller, Controller) else {"beta": 0.0}
    with TokenServer(batch=16) as server:
        model = ServerModel(server.url, tokenizer=tokenizer, max_in_flight=room)
        output = model.generate(QUESTIONS, controller=controller, **knobs, **OPTIONS)
        assert_replays(output, controller, **knobs)
        assert_accounted(output, server)
        assert output.usage.cancelled == output.usage.retries == 0
        assert output.usage.most_in_flight <= room


def test_tokens_that_came_and_nobody_took_are_counted(tokenizer: Any) -> None:
    with TokenServer(batch=64) as server:  # ahead of what is asked for, when the vote ends stragglers
        output = ServerModel(server.url, tokenizer=tokenizer).generate([LONG], controller=STEPWISE, **OPTIONS)
        assert output.usage.discarded_tokens > 0
        assert_accounted(output, server)


def test_a_branch_that_goes_on_is_sent_once(tokenizer: Any) -> None:
    with TokenServer(batch=16) as server:
        model = ServerModel(server.url, tokenizer=tokenizer)
        output = model.generate(QUESTIONS, controller=STEPWISE, **OPTIONS)
        seeded = model.generate(QUESTIONS, controller=STEPWISE, seed=1, **OPTIONS)
    assert output.usage.sent_tokens == 6 * output.total_cost.prompt_tokens < seeded.usage.sent_tokens
    assert all(body["stream"] for body in sampled(server) if body["max_tokens"] > 16 and "seed" not in body)
    assert not any(body["stream"] for body in server.requests if "seed" in body)


@pytest.mark.parametrize("harm", ["500", "reset", "cut", "stall"])
def test_a_stream_that_breaks_off_is_gone_on_with(tokenizer: Any, harm: str) -> None:
    with TokenServer(batch=16) as server, Proxy(server.url, lambda n: harm if n in (2, 4, 5) else "") as proxy:
        model = patient(proxy.url, timeout=6.0 if harm == "stall" else 60.0, tokenizer=tokenizer)
        output = model.generate(QUESTIONS, controller=STEPWISE, **OPTIONS)
    assert_replays(output, STEPWISE)
    assert output.usage.retries == 3
    assert_accounted(output, server)


@pytest.mark.parametrize("interval", [4, 7, 16])
def test_stop_strings_end_a_branch_wherever_its_steps_end(tokenizer: Any, interval: int) -> None:
    stop = ["; a", "; b", "; c", "; d"]
    with TokenServer(batch=16) as server:
        model = ServerModel(server.url, tokenizer=tokenizer)
        options = {**OPTIONS, "interval_tokens": interval, "stop_strings": stop}
        output = model.generate(QUESTIONS, controller=STEPWISE, **options)
        assert_replays(output, STEPWISE, interval)
        assert_accounted(output, server)
    ended = [branch for branches in output.branches for branch in branches if branch.finish_reason == "stop"]
    assert ended
    for branches, prompt in zip(output.branches, QUESTIONS, strict=True):
        for branch in branches:
            before = len(prompt)
            texts = [tokenizer.decode([*tokenizer(prompt)["input_ids"], *branch.token_ids[:n]]) for n in (-1, None)]
            found = [any(each in text[before:] for each in stop) for text in texts]
            assert found == [False, branch.finish_reason == "stop"]


class Late(BranchProcessor):
    """Prunes all branches but three after a step, whatever the controller wants."""

    def __call__(self, state: State, do: Decision) -> None:
        if state.round == 1:
            do.prune[3 : state.opened] = True


def test_what_runs_on_for_a_branch_that_is_pruned_is_called_off(tokenizer: Any) -> None:
    with TokenServer(batch=16, pause=0.01) as server:
        model = ServerModel(server.url, tokenizer=tokenizer)
        waits = load_controller("short_m_at_k", num_chains=6, votes=5)  # the pruned ones count
        output = model.generate(LONG, controller=waits, branch_processors=[Late()], **OPTIONS)
        assert all(branch.tokens <= 32 for branch in output.branches[0][3:])
        assert_accounted(output, server)
        assert server.decoded < output.total_cost.generated_tokens + 3 * 48, "each would run 64 ahead"


@pytest.mark.parametrize("most", [320, 600])
def test_branches_that_are_read_to_their_end_are_one_request_where_they_have_room(tokenizer: Any, most: int) -> None:
    with TokenServer(batch=16, context=1024) as server:
        options = {**OPTIONS, "max_new_tokens": most, "stop_strings": ["; d"], "controller": CONTROLLERS[0]}
        few, room = (
            ServerModel(server.url, tokenizer=tokenizer, max_in_flight=room).generate(QUESTIONS[0], **options)
            for room in (3, 4)
        )
        assert [body.get("n", 1) for body in sampled(server) if body["max_tokens"] > 1] == [1, 1, 1, 1, 4]
        for output in (few, room):
            assert_replays(output, CONTROLLERS[0])
            assert output.total_cost.generated_tokens + output.usage.discarded_tokens <= output.usage.completion_tokens
        assert room.usage.most_in_flight == 4
        assert room.usage.sent_tokens * 4 == few.usage.sent_tokens


def test_what_was_taken_of_a_stream_that_broke_off_is_counted(tokenizer: Any) -> None:
    begun = []

    def cut() -> Iterator[bytes]:
        yield sse(event(finish_reason=None, usage=None)).removesuffix(b"data: [DONE]\n\n")
        time.sleep(0.3)  # it is taken

    def say(body: dict[str, Any]) -> Any:
        if body["max_tokens"] != 3 * STEP or begun:
            return None
        begun.append(body)
        return 200, {}, cut()

    options = {**OPTIONS, "interval_tokens": STEP, "max_new_tokens": 3 * STEP, "force_answer": False}
    one = load_controller("short_m_at_k", num_chains=1, votes=1)
    with Liar(say, tokens=True) as liar, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no answer
        output = patient(liar.url, tokenizer=tokenizer).generate("a", controller=one, **options)
    usage = output.usage
    assert (begun != [], usage.retries) == (True, 1)
    assert usage.completion_tokens == output.total_cost.generated_tokens + usage.discarded_tokens == 3 * STEP
