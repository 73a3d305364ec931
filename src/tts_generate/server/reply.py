"""What servers answer, typed and within bounds: nothing of a reply is used before it has gone through here."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from tts_generate.answers import whole_characters
from tts_generate.errors import ServerError
from tts_generate.live.branch import LEAST_LIKELY
from tts_generate.server.failures import GarbledError, PassingError, said, shown, status_in
from tts_generate.strict_json import once

T = TypeVar("T")
_LARGEST = (1 << 31) - 1
"""A token's id, or a number of tokens, fits 32 bits."""
_ROUNDING = 1e-3
"""By how much a log-probability may be above 0."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What a server answered to one request."""

    text: str
    finish_reason: str
    """"stop" (it ended, or said a stop string) or "length"."""
    stop_reason: str | int | None
    """The stop string or token, from servers that say."""
    token_ids: tuple[int, ...] | None
    """Ids of the decoded tokens, from servers that tell."""
    logprobs: tuple[float, ...]
    prompt_tokens: int | None
    completion_tokens: int | None
    cached_tokens: int | None
    """Tokens of the prompt that the server found in its prefix cache, if it says so."""
    each: tuple[Completion, ...] = ()
    """Where several were asked for: what each is, without counts of its own. This one has those of them all."""


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that a server lists."""

    name: str
    context: int | None
    """Tokens of prompt and answer at most, if the server says so."""


@dataclass(slots=True)
class Parts:
    """The pieces of a completion as they come."""

    max_tokens: int
    """That were asked for."""
    prompt_tokens: int
    """The most that the prompt can have."""
    text: list[str] = field(default_factory=list)
    ids: list[int] | None = None
    logprobs: list[float] = field(default_factory=list)
    finish_reason: str | None = None
    stop_reason: str | int | None = None
    usage: Mapping[str, Any] = field(default_factory=dict)
    each: list[Parts] = field(default_factory=list)
    """Where several were asked for: those of each, and none here."""

    def add(self, data: bytes) -> bool:
        """Take one event; whether it brought anything of the answer. What is not there is passed over.

        Raises:
            GarbledError: it is no event of a completion.
            ServerError: there are more tokens than were asked for; or the event is an error.
        """
        event = _kind(read_json(data), dict, "an event")
        if event.get("error") is not None:
            raise said(event, data.decode(errors="replace"), status_in(event["error"]))
        self.usage = _maybe(event, "usage", dict) or self.usage
        choices, asked = _maybe(event, "choices", list) or [], self.each or [self]
        if len(choices) > len(asked):
            raise GarbledError(f"{len(choices)} choices, {_number(asked)} asked for")
        news = False
        for choice in choices:
            index = _maybe(_kind(choice, dict, "a choice"), "index", int) or 0
            if index not in range(len(asked)):
                raise GarbledError(f"choice {index}, {_number(asked)} asked for")
            news |= asked[index]._take(choice)
        return news

    def _take(self, choice: dict[str, Any]) -> bool:
        """Take the choice of an event; whether it brought anything."""
        before = len(self.text), self.finish_reason
        text = _maybe(choice, "text", str) or ""
        ids = _maybe(choice, "token_ids", list)
        if text or ids:
            self.text.append(text)
        if ids is not None:
            self.ids = self.ids or []
            self.ids += [_whole(token, "a token's id") for token in ids]
            within(self.max_tokens, len(self.ids))
        told = _maybe(_maybe(choice, "logprobs", dict) or {}, "token_logprobs", list) or []
        self.logprobs += [_logprob(value) for value in told]
        self.finish_reason = _maybe(choice, "finish_reason", str) or self.finish_reason
        for name in ("stop_reason", "matched_stop"):  # vLLM's word, SGLang's word
            if choice.get(name) is not None:
                self.stop_reason = _kind(choice[name], (str, int), name)
        return (len(self.text), self.finish_reason) != before

    def so_far(self) -> Completion:
        """What has come of it, as if no more had been asked for."""
        ids, logprobs = tuple(self.ids or ()), tuple(self.logprobs)
        each = tuple(part.so_far() for part in self.each)
        told = ids[: len(logprobs) or None]
        return Completion(whole_characters("".join(self.text)), "length", None, told, logprobs, None, None, None, each)

    def whole(self) -> Completion:
        """The completion, if its end has come.

        Raises:
            PassingError: it has not.
            GarbledError: its usage cannot be.
            ServerError: there are more tokens than were asked for.
        """
        text, each = whole_characters("".join(self.text)), tuple(part.whole() for part in self.each)
        if each:
            self.finish_reason = "stop"
        if self.finish_reason is None:
            raise PassingError(f"the response was cut off after {len(text)} characters", answered=True)
        if self.finish_reason not in ("stop", "length"):
            reason = shown(self.finish_reason, 80)
            raise PassingError(f"the server gave up with finish_reason {reason!r}", answered=True)
        details = _maybe(self.usage, "prompt_tokens_details", dict) or {}
        prompt, said = _count(self.usage, "prompt_tokens"), _count(self.usage, "completion_tokens")
        cached = _count(details, "cached_tokens")
        if max(prompt or 0, cached or 0) > self.prompt_tokens:
            raise GarbledError(
                f"{max(prompt or 0, cached or 0)} tokens of a prompt that has {self.prompt_tokens} at most"
            )
        within(self.max_tokens * (len(each) or 1), said or 0)
        if said == 0 and text and self.ids is None:
            raise GarbledError(f"no token, and {len(text)} characters of text")
        ids = None if self.ids is None else tuple(self.ids)
        return Completion(
            text, self.finish_reason, self.stop_reason, ids, tuple(self.logprobs), prompt, said, cached, each
        )


def _number(asked: Sequence[Parts]) -> str:
    return "one was" if len(asked) == 1 else f"{len(asked)} were"


def within(max_tokens: int, sent: int) -> None:
    """Refuse more tokens than were asked for.

    Raises:
        ServerError: saying how many.
    """
    if sent > max_tokens:
        raise ServerError(f"asked for {max_tokens} tokens, the server sent {sent}: it ignores max_tokens.")


def models(data: bytes) -> list[ServedModel]:
    """The models of a `/models`; what has no name is passed over.

    >>> models(b'{"data": [{"id": "m", "max_model_len": 512}, {"id": 7}, null]}')
    [ServedModel(name='m', context=512)]

    Raises:
        GarbledError: it is no list of models.
    """
    entries = _maybe(_kind(read_json(data), dict, "the list of models"), "data", list) or []
    named = [each for each in entries if isinstance(each, dict) and isinstance(each.get("id"), str)]
    return [ServedModel(each["id"], _count(each, "max_model_len") or None) for each in named]


def read_json(data: bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        GarbledError: it is none, names a field twice, or is nested too deeply.
    """
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=once)
    except RecursionError:
        what = "nested too deeply"
    except ValueError as error:
        what = str(error)
    raise GarbledError(f"{shown(what, 80)} in {shown(data[: 1 << 16].decode(errors='replace'), 80)!r}")


def _kind(value: Any, kind: type[T] | tuple[type, ...], what: str) -> Any:
    """A value of this type; `bool` is no number."""
    if isinstance(value, bool) or not isinstance(value, kind):
        raise GarbledError(f"{what} is of type {type(value).__name__}")
    return value


def _maybe(of: Mapping[str, Any], name: str, kind: type[T]) -> T | None:
    """A field of this type; None where it is null or not there."""
    value = of.get(name)
    found: T | None = None if value is None else _kind(value, kind, name)
    return found


def _whole(value: Any, what: str) -> int:
    number: int = _kind(value, int, what)
    if not 0 <= number <= _LARGEST:
        raise GarbledError(f"{what} is not from 0 to {_LARGEST}")
    return number


def _count(of: Mapping[str, Any], name: str) -> int | None:
    return None if of.get(name) is None else _whole(of[name], name)


def _logprob(value: Any) -> float:
    number = _kind(value, (int, float), "a log-probability")
    if not LEAST_LIKELY <= number <= _ROUNDING:
        raise GarbledError("a log-probability is not from the lowest float to 0")
    return float(number)
