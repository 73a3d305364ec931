"""Whatever a server answers: the question at fault ends with what it has, the others have their answers, none waits."""

from __future__ import annotations

import base64
import contextlib
import gzip
import json
import time
import tracemalloc
import warnings
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from liar import IDS, STEP, Liar, again_and_again, event, sse
from local_servers import SUFFIX

from tts_generate import ServerModel, ServerOutput
from tts_generate.errors import ServerError
from tts_generate.loading import load_controller
from tts_generate.server.failures import seconds
from tts_generate.server.reply import Parts
from tts_generate.trajectories import Question

ONE = load_controller("self_consistency", max_samples=1)
OPTIONS: dict[str, Any] = {
    "controller": ONE,
    "interval_tokens": STEP,
    "max_new_tokens": 3 * STEP,
    "probe_suffix": SUFFIX,
    "answer_pattern": "(a)",
    "seed": 1,
}


def model(url: str, retries: int = 1, timeout: float = 20.0, **more: Any) -> ServerModel:
    found = ServerModel(url, max_retries=retries, timeout=timeout, **more)
    found.policy = replace(found.policy, first_rest=0.001, longest_wait=0.05)
    return found


def text_of(body: dict[str, Any]) -> str:
    return body["prompt"] if isinstance(body["prompt"], str) else ""


def asked(say: Any, timeout: float = 20.0, retries: int = 1) -> ServerOutput:
    """Two questions; the first is answered well, the second well once and then so."""

    def poisoned(body: dict[str, Any]) -> Any:
        prompt = text_of(body)
        return say(body) if "bad" in prompt and prompt != "bad" else None

    with Liar(poisoned) as liar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*majority so far", RuntimeWarning)
        return model(liar.url, retries, timeout).generate(["well", "bad"], **OPTIONS)


def assert_the_other_is_well(output: ServerOutput) -> None:
    """The question at fault has what it had, which is counted; the other one its answer."""
    assert output.finish_reason == ["answer", "error"]
    assert output.answers == ["a", None]
    assert output.cost[0].generated_tokens == sum(branch.tokens for branch in output.branches[0]) == 3 * STEP
    assert output.cost[1].generated_tokens == sum(branch.tokens for branch in output.branches[1]) == STEP
    assert output.usage.completion_tokens >= 4 * STEP


def raw(text: str) -> bytes:
    return sse(text)


MALFORMED: dict[str, bytes] = {
    "text that is a number": sse(event(text=7)),
    "text that is a list": sse(event(text=["a"])),
    "text in an object": sse(event(text={"a": "b"})),
    "choices null, no end": sse(event(choices=None)),
    "choices empty, no end": sse(event(choices=[])),
    "choices an object": sse(event(choices={"0": "a"})),
    "choices a text": sse(event(choices="abc")),
    "a choice that is null": sse(event(choices=[None])),
    "two choices": sse({"choices": event()["choices"] * 2}),
    "another choice": sse(event(index=1)),
    "a choice by name": sse(event(index="0")),
    "finish_reason a number": sse(event(finish_reason=7)),
    "finish_reason true": sse(event(finish_reason=True)),
    "finish_reason a list": sse(event(finish_reason=["stop"])),
    "finish_reason unheard of": sse(event(finish_reason="abort\x1b[31m" * 99)),
    "no finish_reason": sse(event(finish_reason=None)),
    "stop_reason an object": sse(event(stop_reason={"a": 1})),
    "matched_stop true": sse(event(matched_stop=True)),
    "logprobs a list": sse(event(logprobs=[-1.0])),
    "a log-probability -Infinity": sse(event(logprobs={"token_logprobs": [float("-inf")] * STEP})),
    "a log-probability NaN": sse(event(logprobs={"token_logprobs": [float("nan")] * STEP})),
    "a log-probability null": sse(event(logprobs={"token_logprobs": [None] * STEP})),
    "a log-probability above 0": sse(event(logprobs={"token_logprobs": [5.0] * STEP})),
    "a log-probability as text": sse(event(logprobs={"token_logprobs": ["-1"] * STEP})),
    "log-probabilities that overflow": sse(event(logprobs={"token_logprobs": [-1.7e308] * STEP})),
    "a log-probability of 400 digits": sse(event(logprobs={"token_logprobs": [-(10**400)] * STEP})),
    "token ids as floats": sse(event(token_ids=[1.0, 2.0])),
    "token ids as texts": sse(event(token_ids=["1", "2"])),
    "token ids as one text": sse(event(token_ids="12")),
    "token ids below 0": sse(event(token_ids=[-7])),
    "token ids of 70 bits": sse(event(token_ids=[1 << 70])),
    "token ids true": sse(event(token_ids=[True])),
    "token ids null": sse(event(token_ids=[None])),
    "token ids that do not end": sse(event(token_ids=IDS * 9)),
    "usage a number": sse(event(usage=3)),
    "usage a list": sse(event(usage=[1])),
    "tokens below 0": sse(event(usage={"completion_tokens": -5})),
    "tokens as a float": sse(event(usage={"completion_tokens": 4.0})),
    "tokens NaN": sse(event(usage={"completion_tokens": float("nan")})),
    "tokens Infinity": sse(event(usage={"completion_tokens": float("inf")})),
    "tokens true": sse(event(usage={"completion_tokens": True})),
    "tokens as a text": sse(event(usage={"completion_tokens": "4"})),
    "tokens of 31 digits": sse(event(usage={"completion_tokens": 10**30})),
    "two thousand million tokens": sse(event(usage={"completion_tokens": 2_000_000_000})),
    "more tokens than asked for": sse(event(usage={"completion_tokens": 9 * STEP})),
    "no token for a text": sse(event(usage={"completion_tokens": 0})),
    "a prompt of -1 tokens": sse(event(usage={"completion_tokens": 4, "prompt_tokens": -1})),
    "a prompt of a million tokens": sse(event(usage={"completion_tokens": 4, "prompt_tokens": 1_000_000})),
    "cached tokens below 0": sse(event(usage={"completion_tokens": 4, "prompt_tokens_details": {"cached_tokens": -1}})),
    "details of the prompt a list": sse(event(usage={"completion_tokens": 4, "prompt_tokens_details": [1]})),
    "no usage": sse(event(usage=None)),
    "null": raw("null"),
    "a list": raw("[]"),
    "a text": raw('"text"'),
    "a number": raw("7"),
    "no JSON": raw("{"),
    "data null": raw('{"data": null}'),
    "nested 100,000 deep": raw("[" * 100_000),
    "nested 100,000 deep in a choice": raw('{"choices": [{"text": ' + '{"a":' * 100_000 + "1" + "}" * 100_000 + "}]}"),
    "a number of 5,000 digits": raw('{"usage": {"completion_tokens": ' + "9" * 5000 + "}}"),
    "1e999": raw('{"choices": [{"text": "a", "finish_reason": "length"}], "usage": {"completion_tokens": 1e999}}'),
    "a field twice": raw('{"choices": [], "choices": [{"text": "a", "finish_reason": "stop"}]}'),
    "no UTF-8": b'data: {"choices": [{"text": "\xff\xfe", "finish_reason": "stop"}]}\n\n',
    "UTF-16": json.dumps(event()).encode("utf-16"),
    "an error that is a list": raw('{"error": [1, 2]}'),
    "an error nested deeply": raw('{"error": ' + "[" * 500 + "]" * 500 + "}"),
    "an error with a code of 40 digits": raw('{"error": {"code": ' + "4" * 40 + "}}"),
    "an error with code true": raw('{"error": {"code": true, "message": 7}}'),
    "nothing": b"",
    "zeros": b"\0" * 5000,
}


def outcomes(table: dict[str, Any], retries: int = 1) -> dict[str, tuple[str, int]]:
    """How a question ends whose third request is answered so, and what it has; and one that is answered well."""
    names = {f"bad, {name}.": name for name in table}

    def poisoned(body: dict[str, Any]) -> Any:
        prompt = text_of(body)
        said = next(
            (table[name] for start, name in names.items() if prompt.startswith(start) and prompt != start), None
        )
        return said() if callable(said) else said

    with Liar(poisoned) as liar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*majority so far", RuntimeWarning)
        output = model(liar.url, retries).generate(["well", *names], **OPTIONS)
    tokens = [sum(branch.tokens for branch in branches) for branches in output.branches]
    assert tokens == [cost.generated_tokens for cost in output.cost]
    assert output.usage.completion_tokens >= sum(tokens)
    return dict(zip(["well", *table], zip(output.finish_reason, tokens, strict=True), strict=True))


def one_well(table: dict[str, Any]) -> dict[str, tuple[str, int]]:
    return {"well": ("answer", 3 * STEP), **dict.fromkeys(table, ("error", STEP))}


def test_malformed_replies_end_their_questions_and_no_other() -> None:
    assert outcomes(MALFORMED) == one_well(MALFORMED)


def test_so_do_those_that_are_not_streamed() -> None:
    table = {
        name: (200, {"content-type": "application/json"}, data.partition(b"\n")[0].removeprefix(b"data: "))
        for name, data in MALFORMED.items()
    }
    assert outcomes(table) == one_well(table)


STATUSES: dict[str, Any] = {
    "an error nested deeply": (500, {}, b"[" * 60_000),
    "an error without end": lambda: (500, {}, again_and_again(b"x" * 65_536)),
    "an error that is no UTF-8": (400, {}, b"\xff\xfe\x00"),
    "a redirect": (307, {"location": "http://127.0.0.1:1/v1/completions"}, b""),
    "a redirect to nowhere": (302, {"location": "http://[::1"}, b""),
    "no such status": (299, {}, b""),
    "wait for ever": (429, {"retry-after": "inf"}, b""),
    "wait for 31 years": (429, {"retry-after": "1e9"}, b""),
    "wait till 9999": (503, {"retry-after": "Fri, 31 Dec 9999 23:59:59 GMT"}, b""),
    "wait till 99999": (503, {"retry-after": "Fri, 31 Dec 99999 23:59:59 GMT"}, b""),
    "wait -5": (503, {"retry-after": "-5"}, b""),
    "wait NaN": (503, {"retry-after": "nan"}, b""),
    "packed six times": (200, {"content-encoding": "gzip, " * 6}, b"x"),
    "packed wrongly": (200, {"content-encoding": "br"}, b"x" * 100),
}


def test_so_do_statuses_and_none_waits_for_ever() -> None:
    start = time.monotonic()
    assert outcomes(STATUSES, retries=6) == one_well(STATUSES)
    assert time.monotonic() - start < 30


BOMB = gzip.compress(b" " * (64 << 20), 9)
ENDLESS: dict[str, Any] = {
    "comments that keep it alive": lambda: again_and_again(b": so alive\n\n", 0.05),
    "events that bring nothing": lambda: again_and_again(sse(event(choices=[]))[:-16], 0.05),
    "tokens that trickle": lambda: again_and_again(b'data: {"choices": [{"text": ""}]}\n\n', 0.05),
    "letters that trickle": lambda: again_and_again(b'data: {"choices": [{"text": "a"}]}\n\n', 0.2),
    "silence": lambda: again_and_again(b"", 0.2),
    "a line": lambda: again_and_again(b"x" * 65_536, first=[b"data: "]),
    "letters": lambda: again_and_again(b'data: {"choices": [{"text": "aaaaaaaa"}]}\n\n' * 500),
    "comments": lambda: again_and_again(b": so alive\n" * 5000),
    "a bomb": lambda: (200, {"content-encoding": "gzip"}, BOMB),
    "a bomb that is no stream": lambda: (200, {"content-encoding": "gzip", "content-type": "application/json"}, BOMB),
    "a bomb that is an error": lambda: (400, {"content-encoding": "gzip"}, BOMB),
}

FLOODS = ("a line", "letters", "comments", *(name for name in ENDLESS if name.startswith("a bomb")))


@pytest.mark.long
@pytest.mark.parametrize("name", ENDLESS)
def test_no_stream_is_heard_for_ever_or_kept_whole(name: str) -> None:
    start, peak = time.monotonic(), 0
    if name in FLOODS:
        tracemalloc.start()
    output = asked(lambda body: ENDLESS[name](), timeout=3.0 if name in FLOODS else 1.0)
    if name in FLOODS:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert_the_other_is_well(output)
    assert time.monotonic() - start < 25
    assert peak < 32 << 20


SIGNS = "\u2028\u2029\x85\x0b\x0c\x1c\U0001f600e\u0301"


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n", "\r\r"])
def test_only_line_ends_end_a_line(end: str) -> None:
    """And they may come in pieces."""

    def say(body: dict[str, Any]) -> Any:
        good = json.dumps(event(text=f" a{SIGNS}b"), ensure_ascii=False)
        data = sse(good, end=end)
        return [bytes([byte]) for byte in data] if body["seed"] % 2 else data

    output = asked(say)
    assert output.finish_reason == ["answer", "answer"]
    assert SIGNS in output.texts[1]


def test_an_event_may_have_several_lines_and_a_character_come_in_halves() -> None:
    halves = [
        event(text=" a\ud83d", finish_reason=None, usage=None, token_ids=None),
        event(text="\ude00 \ud83d", token_ids=None),
    ]
    lines = json.dumps(halves[1], indent=1).replace("\n", "\ndata: ")
    output = asked(lambda body: b"event: x\nid: 1\n" + sse(json.dumps(halves[0]))[:-14] + sse(lines))
    assert output.finish_reason == ["answer", "answer"]
    assert output.texts[1].endswith(" a\U0001f600 \ufffd")


def test_many_that_are_garbled_do_not_bring_their_server_down() -> None:
    """The good question comes last, behind more failures in a row than a server is forgiven that is not there."""
    with Liar(lambda body: sse(7) if "bad" in text_of(body) else None) as liar, warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*majority so far", RuntimeWarning)
        output = model(liar.url, max_in_flight=1).generate([*["bad"] * 5, "well"], **OPTIONS)
    assert output.finish_reason == [*["error"] * 5, "answer"]


NO_MODELS: dict[str, Any] = {
    "a bomb": (200, {"content-encoding": "gzip"}, BOMB),
    "a list": b"[]", "null": b"null", "data a number": b'{"data": 7}', "no JSON": b"<html>", "no UTF-8": b"\xff",
    "nested deeply": b"[" * 100_000, "a context below 0": b'{"data": [{"id": "m", "max_model_len": -1}]}',
    "a context as text": b'{"data": [{"id": "m", "max_model_len": "512"}]}', "long": b" " * (5 << 20) + b"{}",
    "a context true": b'{"data": [{"id": "m", "max_model_len": true}]}',
}  # fmt: skip


@pytest.mark.parametrize("name", NO_MODELS)
def test_a_list_of_models_that_is_none_is_one_clear_error(name: str) -> None:
    with Liar(models=NO_MODELS[name]) as liar, pytest.raises(ServerError, match="/models: the response is not"):
        model(liar.url).generate("well", **OPTIONS)


@pytest.mark.parametrize("listed", [b'{"data": null}', b"{}", b'{"data": [null, 7, {"id": 3}, {}]}'])
def test_a_server_may_list_nothing(listed: bytes) -> None:
    with Liar(models=listed) as liar:
        assert model(liar.url).generate("well", **OPTIONS).finish_reason == ["answer"]


@pytest.mark.parametrize(
    "name", ["text that is a list", "tokens NaN", "null", "nested 100,000 deep", "no UTF-8", "zeros"]
)
def test_a_server_that_only_garbles_is_one_clear_error(name: str) -> None:
    with Liar(lambda body: MALFORMED[name]) as liar, pytest.raises(ServerError):
        model(liar.url, retries=0).generate("well", **OPTIONS)


def test_what_is_recorded_stays_when_a_reply_is_garbled(tmp_path: Any) -> None:
    questions = [Question("0", "well"), Question("1", "bad")]
    options = {**OPTIONS, "branches": 2, "progress": False, "max_probe_tokens": 1}
    del options["controller"]
    say = MALFORMED["tokens below 0"]
    with (
        Liar(lambda body: say if "bad" in text_of(body) else None) as liar,
        pytest.warns(RuntimeWarning, match="majority so far"),
        pytest.raises(ServerError, match="1 of 2 questions could not be recorded"),
    ):
        model(liar.url).record(questions, tmp_path / "s", **options)
    with Liar() as liar:
        store = model(liar.url).record(questions, tmp_path / "s", **options)
    assert len(store.trajectories()) == 4


@pytest.mark.parametrize("ids", [[1 << 31], [-1], [1.5], ["a"], None, IDS[:2]])
def test_ids_go_through_the_same_door(ids: Any, tokenizer: Any) -> None:
    def say(body: dict[str, Any]) -> Any:
        return sse(event(token_ids=ids)) if len(body["prompt"]) > STEP else None

    with Liar(say, tokens=True) as liar, pytest.warns(RuntimeWarning, match="majority so far: (Server|Garbled)Error"):
        output = model(liar.url, tokenizer=tokenizer).generate("a", **OPTIONS)
    assert output.usage.dialect == "tokens"
    assert output.finish_reason == ["error"]
    assert output.cost[0].generated_tokens == STEP


def test_no_key_goes_where_a_redirect_points() -> None:
    with (
        Liar() as other,
        Liar(lambda body: (307, {"location": f"{other.url}/completions"}, b"")) as liar,
        pytest.raises(ServerError, match=f"it redirects to {other.url}/completions; give that address"),
    ):
        model(liar.url, api_key="key-of-this-server").generate("well", **OPTIONS)
    assert other.requests == []
    assert [headers["Authorization"] for _, headers, _ in liar.requests] == ["Bearer key-of-this-server"] * 2


def test_each_server_gets_its_own_key() -> None:
    with Liar() as one, Liar() as other:
        urls = [f"http://me:of-{number}-alone@{liar.address}" for number, liar in enumerate((one, other))]
        ServerModel(urls, max_in_flight=1).generate(["a", "b", "c", "d"], **OPTIONS)
    for number, liar in enumerate((one, other)):
        pair = base64.b64encode(f"me:of-{number}-alone".encode()).decode()
        assert {headers["Authorization"] for _, headers, _ in liar.requests} == {f"Basic {pair}"}
        assert any(body for _, _, body in liar.requests)


def test_how_long_to_wait() -> None:
    assert [seconds(text) for text in ("inf", "-1", "0.5", "1_0", "Fri, 31 Dec 99999 23:59:59 GMT", "")] == [
        float("inf"), 0, 0.5, 10, 0, 0,
    ]  # fmt: skip


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([10**30, -7, 1 << 70]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
PLACES = [
    ("choices",), ("usage",), ("error",), ("choices", 0), ("choices", 0, "text"), ("choices", 0, "token_ids"),
    ("choices", 0, "token_ids", 0), ("choices", 0, "logprobs"), ("choices", 0, "logprobs", "token_logprobs"),
    ("choices", 0, "logprobs", "token_logprobs", 0), ("choices", 0, "finish_reason"), ("choices", 0, "index"),
    ("usage", "prompt_tokens"), ("usage", "completion_tokens"), ("usage", "prompt_tokens_details"), (),
]  # fmt: skip


def changed(places: list[tuple[Any, ...]], values: list[Any]) -> Any:
    whole: Any = event()
    for place, value in zip(places, values, strict=False):
        if not place:
            return value
        at = whole
        with contextlib.suppress(KeyError, TypeError, IndexError):
            for step in place[:-1]:
                at = at[step]
            at[place[-1]] = value
    return whole


FUZZ = given(st.lists(st.sampled_from(PLACES), min_size=1, max_size=3), st.lists(JSON, min_size=3, max_size=3))


@settings(max_examples=300, deadline=None)
@FUZZ
def test_anything_is_a_completion_or_an_error_of_ours(places: list[Any], values: list[Any]) -> None:
    parts = Parts(STEP, 100)
    try:
        parts.add(json.dumps(changed(places, values)).encode())
        found = parts.whole()
    except ServerError:
        return
    assert len(found.token_ids or ()) <= STEP
    assert 0 <= (found.completion_tokens or 0) <= STEP
    assert all(-1e30 <= value < 0.01 for value in found.logprobs)
    found.text.encode()


@settings(max_examples=25, deadline=None)
@FUZZ
def test_anything_may_come_over_the_wire(places: list[Any], values: list[Any]) -> None:
    output = asked(lambda body: sse(changed(places, values)))
    assert output.finish_reason[0] == "answer"
    assert output.cost[1].generated_tokens == sum(branch.tokens for branch in output.branches[1]) >= STEP
