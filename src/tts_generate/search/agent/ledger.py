"""What was asked of the API, what it answered and what that cost: on the disk before it is used.

The ledger stands between the client and the wire. Before a request goes out it is sure that the most it can cost is
left of the budget, and writes that down; a reply is written down before anybody reads it. A search that was killed
asks the same again and is answered from here. A request without an outcome may have been paid for, so it counts as
the most that it can have cost; and so does one whose reply says of its tokens what cannot be.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anthropic
import httpx2

from tts_generate.errors import ServerError, StoreFormatError, TTSError
from tts_generate.search.agent.prices import Price, implausible, prompt_tokens
from tts_generate.search.history import write_whole
from tts_generate.secret import without_known
from tts_generate.server.failures import seconds, shown
from tts_generate.trajectories.journal import Journal, full, read_journal

if TYPE_CHECKING:
    from anthropic import APIRequest, APIResponse
    from anthropic._middleware import CallNext

logger = logging.getLogger(__name__)
JOURNAL = "paid.journal"
_OVERHEAD = 2000
"""Tokens that the API may add to a prompt by itself, beyond those of what is sent; a byte is a token at most."""
_LONGEST_WAIT = 300.0
"""Seconds that the API is left alone at most, whatever it asks for."""
SILENCE = 60.0
"""Seconds without a reply, after which that is said."""
_DEEPEST = 64
_UNSENT = (
    httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError, httpx2.LocalProtocolError,
    httpx2.UnsupportedProtocol,
)  # fmt: skip
"""What fails before anything of a request has reached the API."""
_BLOCKS: dict[str, dict[str, type]] = {"text": {"text": str}, "tool_use": {"id": str, "name": str, "input": dict}}


Wire = Callable[[dict[str, Any]], dict[str, Any]]
"""Answers a request with a message, in the place of the API; raises `Ended` when there is no more to come."""


class Ended(TTSError):
    """Nothing more is answered."""


class BudgetReached(Ended):
    """The next request could cost more than what is left."""


def on_file_only(request: dict[str, Any]) -> dict[str, Any]:
    """A wire that leads nowhere: a conversation on file, gone through again.

    Raises:
        Ended: always.
    """
    raise Ended("the conversation on file ends here.")


class Ledger(anthropic.Middleware):
    """Accounts for every request of a search, and answers those that were answered before.

    Args:
        folder: of the search.
        price: of its model.
        budget: US dollars that may be spent in all, sittings before counted.
        say: told when a reply is long in coming, and of every request without one.
        wire: who answers instead of the API, at no cost.

    Raises:
        StoreError: the disk is full, or the journal there holds what no ledger wrote.
    """

    client: anthropic.Anthropic
    """Whose requests these are; set by whoever makes it."""

    def __init__(
        self,
        folder: Path,
        price: Price,
        budget: float,
        say: Callable[[str], None] = lambda line: None,
        wire: Wire | None = None,
    ) -> None:
        self._folder, self._price, self._budget, self._say, self._wire = folder, price, budget, say, wire
        try:
            self._journal = Journal(folder / JOURNAL)
        except OSError as error:
            raise full(folder / JOURNAL, error) from error
        try:
            for row in self._journal.rows:
                _paid(row)
        except StoreFormatError:
            self._journal.close()
            raise
        self._round = self._call = 0
        self._so_far = 0.0
        self._said: list[dict[str, Any]] = []  # messages of this round, as they were sent
        self._before = 0  # tokens of the last prompt and its reply

    @property
    def spent(self) -> float:
        """US dollars: every reply, and the most that a request without an outcome can have cost."""
        return sum(_costs(self._journal.rows).values())

    @property
    def left(self) -> float:
        """US dollars of the budget."""
        return self._budget - self.spent

    @property
    def so_far(self) -> float:
        """US dollars spent up to the last reply handed out, now or when it was first asked for; as `spent` counts."""
        return self._so_far

    @property
    def calls(self) -> int:
        """Replies paid for."""
        return sum(row["kind"] == "reply" for row in self._journal.rows)

    def of_round(self, number: int) -> float:
        """US dollars that a round has cost."""
        return sum(usd for (of, _, _), usd in _costs(self._journal.rows).items() if of == number)

    def opening(self, number: int) -> str | None:
        """The first message of a round that was begun before."""
        for row in self._journal.rows:
            if row["kind"] == "asked" and row["round"] == number:
                return str(row["sent"]["messages"][0]["content"])
        return None

    @property
    def asked(self) -> int:
        """Replies of this round that were handed out."""
        return self._call

    def begin(self, number: int) -> None:
        """The next requests are those of round `number`."""
        self._round, self._call, self._said, self._before = number, 0, [], 0
        self._so_far = sum(usd for (of, _, _), usd in _costs(self._journal.rows).items() if of < number)

    def handle(self, request: APIRequest, call_next: CallNext) -> APIResponse[Any]:
        """Answer from the journal, or send the request, with what it repeats as it was sent before; keep the reply."""
        body: dict[str, Any] = dict(request.json)  # type: ignore[call-overload]
        asked = [row for row in self._journal.rows if (row["round"], row["call"]) == (self._round, self._call)]
        new: dict[str, Any]
        new = {name: _plain(body[name]) for name in ("system", "tools") if name in body and not self._said}
        new["messages"] = _plain(body["messages"][len(self._said) :])
        if asked and asked[-1]["kind"] == "reply":
            sent = [row["sent"] for row in asked if row["kind"] == "asked"]
            self._turn(sent[0] if sent else new, asked[-1], body["max_tokens"])
            return self._again(asked[-1]["reply"], request)
        if self._wire is not None:
            return self._by_wire(request, body, new)
        longest = self._longest(new)
        most = self._price.at_most(longest, body["max_tokens"])
        if most > self.left:
            raise BudgetReached(
                f"the next request can cost ${most:.4f}, and ${self.left:.4f} of ${self._budget:.2f} is left."
            )
        self._keep("asked", sent=new, most=most)
        try:
            with self._patiently(most):
                response = call_next(request.copy(body={**body, "messages": [*self._said, *new["messages"]]}))
        except anthropic.AnthropicError as error:
            cause = error.__cause__ or error
            unsent = isinstance(cause, _UNSENT) or not isinstance(error, anthropic.APIConnectionError)
            why = shown(f"{type(cause).__name__}: {cause}")
            self._unanswered(0.0 if unsent else most, why)
            raise
        if not response.http_response.is_success:
            self._unanswered(0.0, f"HTTP {response.status_code}: {_text(response)}")
            _heed_no_longer(response.http_response.headers)
            return response
        reply = self._reply(response, most)
        wrong = implausible(reply.get("usage"), longest, body["max_tokens"])
        if wrong:
            logger.warning("a reply is counted as the most that it can have cost, $%.4f: %s", most, wrong)
        told = {"usd": most, "why": wrong} if wrong else {"usd": self._price.of(reply["usage"])}
        self._keep("reply", **told, reply=reply)
        self._turn(new, self._journal.rows[-1], body["max_tokens"])
        return response

    def write_transcript(self, number: int) -> None:
        """Write a round's conversation as one JSON file, with what each reply cost."""
        rows = [row for row in self._journal.rows if row["round"] == number]
        head: dict[str, Any] = next((row["sent"] for row in rows if row["kind"] == "asked"), {})
        turns = []
        for row in rows:
            if row["kind"] == "reply":
                sent = [r["sent"]["messages"] for r in rows if r["kind"] == "asked" and r["call"] == row["call"]]
                turns.append({"sent": sent[0] if sent else None, "usd": row["usd"], "reply": row["reply"]})
        told = {"format": "tts-transcript/1", "round": number, "model": self._price.model, "usd": self.of_round(number)}
        opened = {name: head[name] for name in ("system", "tools") if name in head}
        text = json.dumps({**told, **opened, "turns": turns}, indent=1, ensure_ascii=False)
        write_whole(self._folder / "transcripts" / f"round-{number:03d}.json", text + "\n")

    def close(self) -> None:
        """Close the journal."""
        self._journal.close()

    def _keep(self, kind: str, **more: Any) -> None:
        self._journal.append([{"kind": kind, "round": self._round, "call": self._call, **more}])

    def _turn(self, sent: dict[str, Any], row: dict[str, Any], asked_for: int) -> None:
        """A reply is handed out: the next request is the next call."""
        usage, longest = row["reply"].get("usage"), self._longest(sent)
        known = not implausible(usage, longest, asked_for)
        self._before = prompt_tokens(usage) + usage["output_tokens"] if known else longest + asked_for
        here = self._round, self._call
        self._so_far = sum(usd for (*place, _), usd in _costs(self._journal.rows).items() if tuple(place) <= here)
        self._said = [*self._said, *sent["messages"]]
        self._call += 1

    def _by_wire(self, request: APIRequest, body: dict[str, Any], new: dict[str, Any]) -> APIResponse[Any]:
        """What the wire answers, kept like a reply of the API."""
        assert self._wire is not None
        asked = {name: _plain(body[name]) for name in ("system", "tools", "max_tokens")}
        asked = {"round": self._round + 1, "call": self._call + 1, **asked, "messages": [*self._said, *new["messages"]]}
        with self._patiently(0.0):
            reply = _plain(self._wire(asked))
        self._keep("asked", sent=new, most=0.0)
        self._keep("reply", usd=0.0, reply=reply)
        self._turn(new, self._journal.rows[-1], body["max_tokens"])
        return self._again(reply, request)

    def _unanswered(self, usd: float, why: str) -> None:
        """A request has come to nothing, which may have cost something."""
        self._keep("none", usd=usd, why=why)
        cost = f"it may have cost ${usd:.4f}" if usd else "it cost nothing"
        self._say(
            f"round {self._round + 1}, ${self.spent:.2f}: no reply ({why[:100]}), {cost}; it is sent again while "
            "attempts are left."
        )

    @contextlib.contextmanager
    def _patiently(self, most: float) -> Iterator[None]:
        """Say from time to time that a reply is still waited for, and what that may cost."""
        over = threading.Event()

        def tell() -> None:
            started = time.monotonic()
            while not over.wait(SILENCE):
                self._say(
                    f"round {self._round + 1}, ${self.spent:.2f}: no reply for {time.monotonic() - started:.0f} s; "
                    f"this request can cost ${most:.4f}, which is counted already."
                )

        teller = threading.Thread(target=tell, daemon=True)
        teller.start()
        try:
            yield
        finally:
            over.set()
            teller.join()

    def _longest(self, new: dict[str, Any]) -> int:
        """The most tokens that a prompt can have: what was counted before, and one for each byte of what is new."""
        return self._before + len(json.dumps(new, ensure_ascii=False).encode()) + _OVERHEAD

    def _reply(self, response: APIResponse[Any], most: float) -> dict[str, Any]:
        """The reply as JSON; what is none was paid for all the same, for all anybody knows."""
        text = _text(response, None)
        try:
            reply = _plain(json.loads(text))
            _check_message(reply)
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            problem = f"the API answered something that is no message ({type(error).__name__}: {error})"
        else:
            return dict(reply)
        self._keep("none", usd=most, why=f"no message: {shown(text, 200)}")
        raise ServerError(f"{problem}: {shown(text, 200)!r}.")

    def _again(self, reply: dict[str, Any], request: APIRequest) -> APIResponse[Any]:
        """A reply of before, as it would come off the wire."""
        raw = httpx2.Response(200, json=reply, request=httpx2.Request("POST", self.client.base_url))
        return anthropic.APIResponse(
            raw=raw, cast_to=request.cast_to, client=self.client, stream=False, stream_cls=None, options=request.options
        )


def read_paid(folder: Path) -> tuple[int, float]:
    """Replies and US dollars of a search folder, whether or not the search is still running."""
    rows = [_paid(row) for rows, _, _ in read_journal(folder / JOURNAL) for row in rows]
    return sum(row["kind"] == "reply" for row in rows), sum(_costs(rows).values())


def _paid(row: Any) -> dict[str, Any]:
    """A row of the journal, as `_keep` writes them."""
    whole = isinstance(row, dict) and all(type(row.get(name)) is int for name in ("round", "call"))
    usd: Any = row.get("most" if row.get("kind") == "asked" else "usd") if whole else None
    told = isinstance(usd, (int, float)) and not isinstance(usd, bool) and math.isfinite(usd)
    if not told or not isinstance(row.get("kind"), str) or (row["kind"] == "asked" and usd < 0):
        raise StoreFormatError(
            f"{JOURNAL} holds a row that says no round, call, kind and US dollars: {str(row)!r:.80}. What was spent "
            "cannot be known; search into another folder."
        )
    return dict(row)


def _costs(rows: list[dict[str, Any]]) -> dict[tuple[int, int, int], float]:
    """US dollars by (round, call, attempt); an attempt without an outcome counts as the most that it can have cost.

    So does one that is said to have cost less than nothing, or more.
    """
    costs: dict[tuple[int, int, int], float] = {}
    attempt = 0
    for row in rows:
        attempt += row["kind"] == "asked"
        place = row["round"], row["call"], attempt
        usd = row["most"] if row["kind"] == "asked" else row["usd"]
        most = costs.get(place, max(usd, 0.0))
        costs[place] = usd if 0 <= usd <= most else most
    return costs


def _heed_no_longer(headers: httpx2.Headers) -> None:
    """Take out of a reply's headers how long to wait, if that is too long."""
    for name, unit in (("retry-after", 1), ("retry-after-ms", 1000)):
        if seconds(headers.get(name)) > _LONGEST_WAIT * unit:
            del headers[name]


def _check_message(reply: Any) -> None:
    """Whether a reply is an assistant's message whose blocks are what they say."""
    if not isinstance(reply, dict) or reply["role"] != "assistant" or not isinstance(reply["content"], list):
        raise TypeError("no content of an assistant")
    if not isinstance(reply.get("stop_reason"), (str, type(None))):
        raise TypeError("stop_reason is no text")
    for block in reply["content"]:
        kinds = _BLOCKS.get(block["type"], {})
        if not all(isinstance(block[name], kind) for name, kind in kinds.items()):
            raise TypeError(f"a block is no {block['type']}")


def _text(response: APIResponse[Any], most: int | None = 300) -> str:
    return without_known(response.http_response.read().decode("utf-8", "replace"))[:most]


def _plain(value: Any, depth: int = 0) -> Any:
    """Plain JSON values that a file can hold: no objects among a request's messages, no halves of a character."""
    if depth > _DEEPEST:
        raise ValueError("nested too deeply")
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, dict):
        return {_plain(name): _plain(inner, depth + 1) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner, depth + 1) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value.to_dict() if hasattr(value, "to_dict") else value
