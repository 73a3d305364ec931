"""A proxy that lies about what it charges, or sends what is no message: the budget holds, and what came is told."""

from __future__ import annotations

import contextlib
import gzip
import json
import logging
import struct
import time
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from messages_server import KEY, Fault, MessagesServer, Reply, Turn

from tts_generate.errors import ServerError, StoreFormatError
from tts_generate.search.agent import client as client_module
from tts_generate.search.agent.client import connected
from tts_generate.search.agent.ledger import JOURNAL, BudgetReached, Ledger, read_paid
from tts_generate.search.agent.prices import implausible, price_of
from tts_generate.trajectories.journal import Journal, read_journal

PRICE = price_of("claude-sonnet-5-5")
ASKED: dict[str, Any] = {
    "model": "claude-sonnet-5-5",
    "max_tokens": 2000,
    "cache_control": {"type": "ephemeral"},
    "system": "Be good.",
}


class Talk:
    """A conversation with a server that says what it is given to say, through a ledger."""

    def __init__(self, folder: Path, budget: float = 1.0, retries: int = 0) -> None:
        self.turn: Turn = Reply("Yes.")
        self.server = MessagesServer(lambda body, number: self.turn)
        self.folder, self.budget, self.retries = folder, budget, retries

    def __enter__(self) -> Talk:
        self.server.__enter__()
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("ANTHROPIC_BASE_URL", self.server.url)
            environment.setenv("ANTHROPIC_API_KEY", KEY)
            self.plain = connected(self.retries)
        self.open()
        return self

    def open(self) -> None:
        self.ledger = Ledger(self.folder, PRICE, self.budget)
        self.ledger.client = self.client = self.plain.with_options(middleware=[self.ledger])
        self.ledger.begin(0)
        self.messages: list[dict[str, Any]] = [{"role": "user", "content": "Round 1."}]

    def ask(self, turn: Turn | None = None) -> Any:
        self.turn = turn or self.turn
        reply = self.client.beta.messages.create(**ASKED, messages=self.messages)
        self.messages += [
            {"role": "assistant", "content": [{"type": "text", "text": "Yes."}]},
            {"role": "user", "content": [{"type": "text", "text": "Go on."}]},
        ]
        return reply

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return [row for rows, _, _ in read_journal(self.folder / JOURNAL) for row in rows if row["kind"] == kind]

    def __exit__(self, *error: object) -> None:
        self.ledger.close()
        self.plain.close()
        self.server.__exit__(*error)


@pytest.fixture
def talk(tmp_path: Path) -> Iterator[Talk]:
    with Talk(tmp_path) as opened:
        yield opened


NONE_SUCH: list[Any] = [
    -50_000_000, -1, True, False, float("nan"), float("inf"), float("-inf"), 1.5, "200", 10**30, 1 << 70, [200], {"n": 200},
]  # fmt: skip
LIES: list[dict[str, Any]] = [
    *({"output_tokens": value} for value in [*NONE_SUCH, None, 2001]),
    *({"input_tokens": value} for value in (-1, float("nan"), True, None, 100_000)),
    *({"cache_read_input_tokens": value} for value in (-1, float("inf"), "200", 100_000)),
    *({"cache_creation_input_tokens": value} for value in (-1, float("nan"), 1.0, 100_000)),
    *({"usage": value} for value in (None, 3, [], "200", {}, {"output_tokens": 7})),
    {"inference_geo": ["us"]},
]


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: json.dumps(lie)[:60])
def test_usage_that_cannot_be_counts_as_the_most(lie: dict[str, Any], talk: Talk, caplog: Any) -> None:
    with caplog.at_level(logging.WARNING):
        assert talk.ask(Reply("Yes.", changed=lie)).content[0].text == "Yes."
    (asked,), (reply,) = talk.rows("asked"), talk.rows("reply")
    assert talk.ledger.spent == talk.ledger.so_far == asked["most"] == reply["usd"] > 0.02
    assert "counted as the most that it can have cost" in caplog.text
    assert reply["why"] in caplog.text
    honest = talk.ask(Reply("Yes."))
    assert honest.usage.output_tokens == 200
    spent = talk.ledger.spent
    assert asked["most"] < spent < talk.rows("asked")[1]["most"] + asked["most"]
    talk.ledger.close()
    before = talk.server.replies
    talk.open()  # and it is gone through again as it was
    talk.ask()
    talk.ask()
    assert (talk.server.replies, talk.ledger.spent, talk.ledger.so_far) == (before, spent, pytest.approx(spent))


def test_a_liar_is_not_paid_beyond_the_budget(talk: Talk) -> None:
    spent, lie = [0.0], Reply("Yes.", changed={"output_tokens": -50_000_000})

    def ask_on() -> None:
        while True:
            talk.ask(lie)
            spent.append(talk.ledger.spent)

    with pytest.raises(BudgetReached):
        ask_on()
    assert spent == sorted(set(spent))
    assert 0.5 < spent[-1] <= 1.0


def test_a_journal_that_says_less_than_nothing_is_not_believed(tmp_path: Path) -> None:
    """As versions wrote them that believed it."""
    journal = Journal(tmp_path / JOURNAL)
    place = {"round": 0, "call": 0}
    journal.append([{"kind": "asked", **place, "most": 0.5, "sent": {"messages": []}}])
    journal.append([{"kind": "reply", **place, "usd": -23_999.0, "reply": {}}])
    journal.close()
    assert read_paid(tmp_path) == (1, 0.5)


NO_MESSAGES: dict[str, Any] = {
    "content null": {"content": None}, "content a text": {"content": "Yes."}, "a block that is a number": {"content": [3]},
    "a block without type": {"content": [{"text": "Yes."}]}, "a type that is a list": {"content": [{"type": ["text"]}]},
    "text that is none": {"content": [{"type": "text", "text": 3}]},
    "a call without input": {"content": [{"type": "tool_use", "id": "a", "name": "replay"}]},
    "a call with a list": {"content": [{"type": "tool_use", "id": "a", "name": "replay", "input": []}]},
    "a call without a name": {"content": [{"type": "tool_use", "id": "a", "name": None, "input": {}}]},
    "somebody else": {"role": "user"}, "stop_reason a list": {"stop_reason": ["end_turn"]},
}  # fmt: skip
NO_JSON = {
    "nested deeply": "[" * 100_000,
    "a message nested deeply": '{"role": "assistant", "usage": {}, "content": [{"type": "text", "text": "", "a": '
    + "[" * 300 + "]" * 300 + "}]}",
    "a number of 5,000 digits": '{"content": ' + "9" * 5000 + "}", "NaN": "NaN", "nothing": "", "a text": '"Yes."',
}  # fmt: skip


@pytest.mark.parametrize("name", [*NO_MESSAGES, *NO_JSON])
def test_what_is_no_message_is_one_clear_error_and_counted(name: str, talk: Talk) -> None:
    turn = Reply("Yes.", changed=NO_MESSAGES[name]) if name in NO_MESSAGES else Fault(200, NO_JSON[name] or " ")
    with pytest.raises(ServerError, match="the API answered something that is no message"):
        talk.ask(turn)
    assert talk.ledger.spent == talk.rows("asked")[0]["most"] == talk.rows("none")[0]["usd"] > 0


@pytest.mark.parametrize(
    "headers",
    [{"retry-after": "inf"}, {"retry-after": "1e9"}, {"retry-after-ms": "1e12"}, {"retry-after": "nan"}],
    ids=str,
)
def test_it_does_not_wait_for_ever(headers: dict[str, str], tmp_path: Path) -> None:
    with Talk(tmp_path, retries=1) as talk:
        start, turns = time.monotonic(), [Fault(429, headers=headers), Reply("Yes.")]
        talk.server.turns = lambda body, number: turns.pop(0)
        talk.ask()
    assert time.monotonic() - start < 10


def test_a_reply_is_bounded(talk: Talk, monkeypatch: Any) -> None:
    monkeypatch.setattr(client_module, "_BYTES", 10_000)
    packed = gzip.compress(b" " * 1_000_000).decode("latin-1").encode("utf-8", "replace").decode()
    for fault in (Fault(200, " " * 20_000), Fault(200, packed, {"content-encoding": "gzip"})):
        with pytest.raises(anthropic.APIConnectionError):
            talk.ask(fault)
    assert [row["usd"] for row in talk.rows("none")] == [row["most"] for row in talk.rows("asked")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.sampled_from([10**30, -7]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=4,
)
FIELDS = ("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "inference_geo")


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON, st.integers(0, 10**6), st.integers(0, 10**5))
def test_what_is_plausible_costs_no_more_than_the_most(usage: Any, prompt: int, output: int) -> None:
    if not implausible(usage, prompt, output):
        assert 0 <= PRICE.of(usage) <= PRICE.at_most(prompt, output) + 1e-12


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(st.sampled_from((*FIELDS, "usage", "content", "role", "stop_reason", "id", "model")), JSON))
def test_anything_may_come_and_the_budget_holds(talk: Talk, changed: dict[str, Any]) -> None:
    before = talk.ledger.spent
    talk.ledger._budget = before + 1.0
    with contextlib.suppress(ServerError):
        talk.ask(Reply("Yes.", changed=changed))
    assert before < talk.ledger.spent <= before + 1.0


RECORDED = {"kind": "asked", "round": 0, "call": 0, "most": 1.0, "sent": {"messages": []}}


@pytest.mark.parametrize(
    "row",
    [
        {"kind": "asked"},
        {"x": 1},
        {**RECORDED, "most": float("inf")},
        {**RECORDED, "most": -100_000},
        {**RECORDED, "most": True},
        {**RECORDED, "round": []},
        {**RECORDED, "kind": "reply", "usd": "x"},
    ],
    ids=["no round", "no kind", "endless", "less than nothing", "true", "list of rounds", "dollars in words"],
)
def test_a_journal_that_no_ledger_wrote_is_one_clear_error(row: dict[str, Any], tmp_path: Path) -> None:
    text = json.dumps([row]).replace("Infinity", "1e999").encode()
    (tmp_path / JOURNAL).write_bytes(struct.pack("<II", len(text), zlib.crc32(text)) + text)
    with pytest.raises(StoreFormatError, match=r"paid\.journal holds a row that says no round"):
        read_paid(tmp_path)
    for _ in range(2):  # the lock is not kept
        with pytest.raises(StoreFormatError, match=r"paid\.journal holds a row that says no round"):
            Ledger(tmp_path, price_of("claude-sonnet-5-5"), 5.0)


def test_numbers_without_end_are_no_usage() -> None:
    endless = int("9" * 4300)
    assert "a number without end" in implausible({"input_tokens": endless, "output_tokens": 1}, 10, 10)
    assert implausible({"input_tokens": 1, "output_tokens": 1, "cache_read_input_tokens": endless}, 10, 10)
