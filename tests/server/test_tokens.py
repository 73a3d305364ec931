"""Servers that take and return token ids: exact prefixes, exact counts, live = replay, and what ends a call early."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import takewhile
from typing import Any

import numpy as np
import pytest
from forked import Forked
from local_servers import OPTIONS, QUESTIONS
from server_checks import Alarm, assert_replays, interrupted, interrupted_while_asked
from test_live_replay import Restless
from token_server import TokenServer

from tts_generate import BranchProcessor, ServerModel
from tts_generate.controller import Controller
from tts_generate.errors import InputError, ServerError, UnknownNameError, UnsupportedError
from tts_generate.loading import load_controller
from tts_generate.processors import MaxBranches
from tts_generate.state import Decision, State

CONTROLLERS: list[Any] = [
    load_controller("self_consistency", max_samples=4),
    "asc",
    "cmc",
    "dynasor",
    load_controller("deepconf", beta=0.0),
    load_controller("parallel_probe", num_chains=4, warm_up=1, patience=2, stability=3),
    Restless.from_beta(0.0),
]


@pytest.fixture
def model(token_server: TokenServer) -> ServerModel:
    token_server.requests.clear()
    token_server.decoded = token_server.dropped = 0
    return ServerModel(token_server.url, tokenizer=token_server.tokenizer)


def sampled(server: TokenServer) -> list[dict[str, Any]]:
    """Requests that continue a branch; the first request of a call finds out how to speak."""
    return [body for body in server.requests[1:] if body["temperature"] > 0]


def probes(server: TokenServer) -> list[dict[str, Any]]:
    return [body for body in server.requests[1:] if body["temperature"] == 0]


@pytest.mark.parametrize("controller", CONTROLLERS, ids=str)
def test_what_a_run_decoded_replays_to_the_same_episode(model: ServerModel, controller: Any) -> None:
    knobs = {} if isinstance(controller, Controller) else {"beta": 0.0}
    output = model.generate(QUESTIONS, controller=controller, seed=1, **knobs, **OPTIONS)
    assert_replays(output, controller, **knobs)
    assert output.usage.dialect == "tokens"
    assert all(branch.token_ids is not None for branches in output.branches for branch in branches)
    reads = isinstance(controller, Controller) and controller.reads_logprobs
    assert all(bool(branch.step_logprobs) == reads for branches in output.branches for branch in branches)


def test_prefixes_are_the_ids_decoded_and_every_token_is_on_the_accounts(
    model: ServerModel, token_server: TokenServer
) -> None:
    output = model.generate(QUESTIONS, controller="cmc", beta=0.0, seed=2, **OPTIONS)
    prompts = [token_server.tokenizer(text)["input_ids"] for text in QUESTIONS]
    whole = {
        tuple([*prompt, *branch.token_ids])
        for prompt, branches in zip(prompts, output.branches, strict=True)
        for branch in branches
    }
    suffix = tuple(token_server.tokenizer(OPTIONS["probe_suffix"])["input_ids"])
    for body in sampled(token_server):
        assert any(ids[: len(body["prompt"])] == tuple(body["prompt"]) for ids in whole)
    for body in probes(token_server):
        assert body["temperature"] == 0
        at = len(body["prompt"]) - len(suffix)
        if tuple(body["prompt"][at:]) == suffix:
            assert any(ids[:at] == tuple(body["prompt"][:at]) for ids in whole)
    usage, cost = output.usage, output.total_cost
    assert usage.requests == len(token_server.requests) - 1
    assert usage.sent_tokens == sum(len(body["prompt"]) for body in token_server.requests[1:])
    assert usage.completion_tokens == token_server.decoded - 1
    taken = [branch for branches in output.branches for branch in branches]
    assert cost.generated_tokens == sum(branch.tokens for branch in taken)
    assert cost.prompt_tokens == sum(map(len, prompts))
    # A probe costs its suffix and what was said: "7 }" and no more, the brace stops it.
    assert Counter(tokens for branch in taken for tokens in branch.probe_tokens).most_common(1)[0][0] == len(suffix) + 2
    assert (usage.retries, usage.cancelled) == (0, 0)


def test_a_seed_repeats_whatever_is_in_flight(token_server: TokenServer) -> None:
    options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 3}}
    first, again, other = (
        ServerModel(token_server.url, tokenizer=token_server.tokenizer, max_in_flight=room).generate(
            QUESTIONS[0], seed=seed, **options
        )
        for room, seed in ((1, 3), (3, 3), (3, 4))
    )
    assert first.branches == again.branches
    assert first.texts == again.texts
    assert (first.usage.most_in_flight, again.usage.most_in_flight) == (1, 3)
    assert other.branches != first.branches


def test_texts_and_winners_belong_together(model: ServerModel) -> None:
    output = model.generate(
        QUESTIONS[0], controller="self_consistency", controller_kwargs={"max_samples": 3}, **OPTIONS
    )
    winner = output.branches[0][output.winners[0]]
    assert winner.final_answer == output.answers[0]
    assert output.texts[0] == model.tokenizer.decode(winner.token_ids)
    assert output.votes[0] == Counter(b.final_answer for b in output.branches[0] if b.final_answer is not None)


def test_branches_stay_with_the_endpoint_that_has_their_prefix(token_server: TokenServer) -> None:
    with TokenServer(batch=1) as other:
        token_server.requests.clear()
        model = ServerModel([token_server.url, other.url], tokenizer=other.tokenizer)
        output = model.generate(QUESTIONS, controller="cmc", beta=0.0, seed=5, **OPTIONS)
        assert_replays(output, "cmc", beta=0.0)
        firsts = [{tuple(b["prompt"]) for b in sampled(server)} for server in (token_server, other)]
        prompts = [tuple(other.tokenizer(text)["input_ids"]) for text in QUESTIONS]
        for prompt, branches in zip(prompts, output.branches, strict=True):
            for branch in branches:
                steps = {(*prompt, *branch.token_ids[:16]), (*prompt, *branch.token_ids[:32])} & (firsts[0] | firsts[1])
                assert steps <= firsts[0] or steps <= firsts[1]
        # Neither is idle; how much each does depends on how fast it is, and here both share two cores with the client.
        assert min(output.usage.requests_by_url.values()) > 0.1 * output.usage.requests


def test_chats_go_through_the_template(model: ServerModel, token_server: TokenServer) -> None:
    with pytest.raises(InputError, match="chat template"):
        model.generate([{"role": "user", "content": "1"}], **OPTIONS)
    model.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}{{ ' <think>' }}"
    try:
        chat = [{"role": "user", "content": QUESTIONS[0].removesuffix(" <think>")}]
        output = model.generate([chat, chat], controller="dynasor", seed=1, **OPTIONS)
    finally:
        model.tokenizer.chat_template = None
    assert len(output.answers) == 2
    assert sampled(token_server)[0]["prompt"] == model.tokenizer(QUESTIONS[0])["input_ids"]


def test_behind_a_prompt_that_has_ended_the_thinking_probes_force_the_box_alone(
    model: ServerModel, token_server: TokenServer
) -> None:
    output = model.generate(
        [f"{QUESTIONS[0]} </think>"], controller="cmc", beta=0.0, seed=2, **{**OPTIONS, "interval_tokens": 1}
    )
    (end,) = token_server.tokenizer("</think>", add_special_tokens=False)["input_ids"]
    prompt = token_server.tokenizer(f"{QUESTIONS[0]} </think>")["input_ids"]
    own = [list(branch.token_ids or ()) for branch in output.branches[0]]
    assert probes(token_server)
    for body in probes(token_server):
        asked = body["prompt"][len(prompt) :]
        taken = max(
            sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(asked, ids, strict=False))) for ids in own
        )
        assert end not in asked[taken:]


@pytest.mark.long
def test_a_processor_that_expires_ends_its_questions_with_the_majority_so_far(tokenizer: Any) -> None:
    with TokenServer(batch=8, pause=0.005) as server:
        alarm = Alarm(lambda: server.decoded > 3000)  # the first branches have ended, and most have not begun
        model = ServerModel(server.url, tokenizer=tokenizer, max_in_flight=8)
        options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 64}}
        output = model.generate([*QUESTIONS, *QUESTIONS], seed=1, branch_processors=[alarm], **options)
        assert time.monotonic() - alarm.rang < 6
        assert alarm.questions == ["0", "1", "2", "3"]
        assert output.finish_reason == ["deadline"] * 4
        assert output.usage.cancelled > 0
        ended = [branch for branch in output.branches[0] if branch.finish_reason]
        assert output.cost[0].generated_tokens == sum(branch.tokens for branch in ended) > 0
        assert output.votes[0] == Counter(b.final_answer for b in ended if b.final_answer is not None)
        assert output.answers[0] == next(iter(output.votes[0]), None)
        still = [server.decoded, -1]
        while still[-1] != still[-2]:  # the server was told to stop, and does before it has decoded the rest
            time.sleep(0.5)
            still.append(server.decoded)
        assert server.dropped > 0
        assert still[-1] < 6000


@pytest.mark.parametrize("seed", [1, None])  # a request for each branch, and one for both
def test_what_has_come_of_a_long_answer_counts_when_it_is_called_off(tokenizer: Any, seed: int | None) -> None:
    with TokenServer(batch=8, context=2048, pause=0.02) as server:
        alarm = Alarm(lambda: server.decoded > 60)
        options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 2}}
        options |= {"interval_tokens": 600, "max_new_tokens": 600}
        output = ServerModel(server.url, tokenizer=tokenizer).generate(
            QUESTIONS, branch_processors=[alarm], seed=seed, **options
        )
        taken = [branch for branches in output.branches for branch in branches]
        assert output.finish_reason == ["deadline", "deadline"]
        assert output.usage.cancelled > 0
        assert output.total_cost.generated_tokens == sum(branch.tokens for branch in taken)
        assert 20 < output.total_cost.generated_tokens <= server.decoded  # one question's may not have come yet
        assert output.total_cost.generated_tokens <= output.usage.completion_tokens <= server.decoded
        assert output.usage.sent_tokens > 0
        assert all(len(branch.token_ids or ()) == branch.tokens for branch in taken)


class Faulty(Controller):
    """Raises in its third round."""

    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 2}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        if state.round == 2:
            raise ZeroDivisionError("a bug of the controller")
        do.steps[:] = 1


class Picky(BranchProcessor):
    """Raises on question 1 only."""

    reads_logprobs = False

    def __init__(self, question_id: str = "") -> None:
        self.question_id = question_id

    def begin(self, question_id: str) -> BranchProcessor:
        return Picky(question_id)

    def __call__(self, state: State, do: Decision) -> None:
        if self.question_id == "1" and state.round >= 1:
            raise ZeroDivisionError("a bug of the processor")


@pytest.mark.long
def test_a_controller_that_raises_costs_its_question_only_the_rest(model: ServerModel) -> None:
    options = {**OPTIONS, "controller": "cmc", "beta": 0.0, "seed": 1}
    alone = model.generate(QUESTIONS, **options)
    with pytest.warns(
        RuntimeWarning, match=r"question '1' ends with the majority so far: ZeroDivisionError: a bug of the p"
    ):
        output = model.generate(QUESTIONS, branch_processors=[Picky()], **options)
    assert output.finish_reason == ["answer", "error"]
    assert output.branches[0] == alone.branches[0]
    assert output.trace[0] == alone.trace[0]
    assert 0 < output.cost[1].generated_tokens < alone.cost[1].generated_tokens
    assert output.cost[1].generated_tokens == sum(branch.tokens for branch in output.branches[1])
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError"):
        rest = model.generate(QUESTIONS[0], controller=Faulty.from_beta(), seed=1, **OPTIONS)
    assert rest.finish_reason == ["error"]
    assert rest.answers[0] is not None


def test_limits_hold(model: ServerModel) -> None:
    output = model.generate(
        QUESTIONS[0], controller="self_consistency", branch_processors=[MaxBranches(2)], seed=1, **OPTIONS
    )
    assert len(output.branches[0]) == 2


def test_ctrl_c_leaves_what_there_is_and_nothing_open(token_server: TokenServer) -> None:
    child = Forked(interrupted, token_server.url)
    said, complaints = child.communicate(timeout=120)
    assert child.returncode == 0, complaints
    assert said.splitlines() == ["['interrupted', 'interrupted', 'interrupted'] 4", "True", "True"]


def test_ctrl_c_while_branches_are_asked_at_a_deadline_is_an_interruption() -> None:
    child = Forked(interrupted_while_asked)
    said, complaints = child.communicate(timeout=120)
    assert child.returncode == 0, complaints
    assert said.splitlines() == ["['interrupted'] True", "True"]


def test_inside_a_running_event_loop(model: ServerModel) -> None:
    async def notebook() -> Any:
        return model.generate(QUESTIONS[0], controller="dynasor", seed=1, **OPTIONS)

    assert (
        asyncio.run(notebook()).answers == model.generate(QUESTIONS[0], controller="dynasor", seed=1, **OPTIONS).answers
    )


def test_the_context_is_kept_to(model: ServerModel, token_server: TokenServer) -> None:
    with pytest.raises(
        InputError,
        match=r"beyond the server's context of 512\. Shorten the prompt or pass max_new_tokens=4\d\d or less",
    ):
        model.generate(QUESTIONS, **{**OPTIONS, "max_new_tokens": 500})
    assert len(token_server.requests) == 1
    options = {**OPTIONS, "controller": "self_consistency", "controller_kwargs": {"max_samples": 1}}
    del options["max_new_tokens"]
    model.generate(QUESTIONS[0], **options)
    room = 512 - len(model.tokenizer(QUESTIONS[0])["input_ids"]) - 4 - 2
    assert sampled(token_server)[-1]["max_tokens"] == room
    with pytest.raises(InputError, match=r"leave 4\d\d tokens .* one step of interval_tokens=500; pass a smaller"):
        model.generate(QUESTIONS[0], **{**options, "interval_tokens": 500})
    with pytest.raises(InputError, match=r"leave 0 tokens .* or shorter prompts"):
        model.generate(QUESTIONS[0] * 100, **options)
    with pytest.raises(InputError, match=r"prompt '1' of \d{4} tokens .* context of 512\. Shorten the prompt\."):
        model.generate([QUESTIONS[0], QUESTIONS[0] * 100], **OPTIONS)


def test_a_text_that_breaks_off_is_told(model: ServerModel) -> None:
    for most, told in ((16, [True, True]), (32, [False, False])):
        output = model.generate(QUESTIONS, controller=CONTROLLERS[0], seed=1, **{**OPTIONS, "max_new_tokens": most})
        ends = [branches[n].finish_reason for branches, n in zip(output.branches, output.winners, strict=True)]
        assert output.truncated == [end == "length" for end in ends] == told


def test_a_request_that_the_server_refuses_is_not_sent_again(token_server: TokenServer) -> None:
    """Without a tokenizer here nobody knows how long the prompt is, until the server says that it is too long."""
    token_server.requests.clear()
    model = ServerModel(token_server.url)
    options = {**OPTIONS, "max_new_tokens": 500, "controller": load_controller("self_consistency", max_samples=1)}
    with (
        pytest.warns(RuntimeWarning, match="maximum"),
        pytest.raises(ServerError, match="maximum context length is 512"),
    ):
        model.generate(QUESTIONS[0], **options)
    assert [body["max_tokens"] for body in sampled(token_server)] == [500]


def test_a_wrong_model_is_named_with_those_there_are(token_server: TokenServer) -> None:
    with pytest.raises(ServerError, match=r"Model 'tiiny', its /v1/models lists 'tiny'. It says: HTTP 404"):
        ServerModel(token_server.url, model="tiiny").generate(QUESTIONS, **OPTIONS)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"temprature": 0.5}, UnknownNameError, "did you mean 'temperature'"),
        ({"max_tokens": 5}, UnknownNameError, "did you mean 'max_new_tokens'"),
        ({"strategy": "autots"}, UnknownNameError, "did you mean 'autotts'"),
        ({"controller": "cmcc"}, UnknownNameError, "did you mean 'cmc'"),
        ({"temperature": 0}, InputError, "nothing to vote on"),
        ({"top_p": "high"}, InputError, "top_p must be a number"),
        ({"top_p": 1.5}, InputError, "top_p must be a number above 0 and at most 1, got 1.5"),
        ({"top_p": 0}, InputError, "top_p must be a number above 0 and at most 1, got 0"),
        ({"min_p": 2}, InputError, "min_p must be a number from 0 to 1, got 2"),
        ({"min_p": -0.1}, InputError, "min_p must be a number from 0 to 1"),
        ({"top_k": 2.5}, InputError, "top_k must be a whole number, 0 for none, got 2.5"),
        ({"top_k": -1}, InputError, "top_k must be a whole number"),
        ({"top_k": True}, InputError, "top_k must be a whole number"),
        ({"repetition_penalty": 0}, InputError, "repetition_penalty must be a number above 0"),
        ({"temperature": float("inf")}, InputError, "temperature must be a number above 0"),
        ({"temperature": -1}, InputError, "temperature must be a number above 0"),
        ({"interval_tokens": 0}, InputError, "interval_tokens"),
        ({"seed": 1.5}, InputError, "seed must be"),
        ({"max_probe_tokens": 0}, InputError, "max_probe_tokens"),
    ],
)
def test_what_cannot_be_honoured_is_refused_before_anything_is_sent(
    model: ServerModel, token_server: TokenServer, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        model.generate(QUESTIONS, **{**OPTIONS, **options})
    assert token_server.requests == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"base_urls": []}, "at least one server"),
        ({"base_urls": "localhost:8000"}, "looks like http://host:8000/v1"),
        ({"base_urls": "http://a", "max_in_flight": 0}, "max_in_flight"),
        ({"base_urls": "http://a", "timeout": 0}, "timeout"),
    ],
)
def test_servers_are_checked(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ServerModel(**arguments)


def test_prompts_are_checked(model: ServerModel) -> None:
    for prompts in ("", [], ["1", ""]):
        with pytest.raises(InputError, match="at least one token"):
            model.generate(prompts, **OPTIONS)
    with pytest.raises(InputError, match="prompts must be a text, a sequence of texts"):
        model.generate([["1", "2"]], **OPTIONS)
    with pytest.raises(InputError, match=r"prompt 1 must be text or a list of .*, got \[\]"):
        model.generate([[{"role": "user", "content": "1"}], []], **OPTIONS)
    assert [each.text for each in model.prompts(np.array(QUESTIONS))] == QUESTIONS


def test_a_controller_that_reads_logprobs_is_refused_where_there_are_none(token_server: TokenServer) -> None:
    with pytest.raises(UnsupportedError, match="reads log-probabilities"):
        ServerModel(token_server.url).generate(QUESTIONS, controller="deepconf", **OPTIONS)
