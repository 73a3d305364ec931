"""What a call on servers is asked for, checked before anything is sent, and against what the servers say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tts_generate.answers import AnswerFormat
from tts_generate.engine.branch import Branch
from tts_generate.engine.settings import Probing, Settings
from tts_generate.errors import InputError, UnknownNameError, UnsupportedError
from tts_generate.server.asked import Asked
from tts_generate.server.connect import Session
from tts_generate.server.wire import SAMPLING

_OPTIONS = {
    "strategy", "controller", "beta", "controller_kwargs", "branch_processors", "seed", "interval_tokens",
    "max_new_tokens", "max_probe_tokens", "max_branches", "probe_suffix", "think_end", "answer_pattern", "stop_strings",
    "progress", "revision", "sandbox", "trust_remote_code", *SAMPLING,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Call:
    """What one call asks for, checked before anything is sent."""

    settings: Settings
    probing: Probing
    sampling: Mapping[str, Any]
    stop: Sequence[str] = ()
    progress: bool = False
    on_branch: Callable[[Asked, Branch], None] | None = None
    prepared: Callable[[Session, Settings], list[Asked]] | None = None
    """Told how the servers are spoken to, before anything is decoded; returns the questions to ask instead."""


_NO_LIMIT = 1 << 40
"""Stands for "as much as the server's context holds" until that is known."""


def max_tokens(given: int | None) -> int:
    """Tokens of a branch at most, as given; else a mark that `fitting` replaces."""
    return _NO_LIMIT if given is None else given


def probing(
    probe_suffix: str | None, think_end: str | None, answer_pattern: str | None, max_probe_tokens: int
) -> Probing:
    """How the model is asked for its answer: as given, else as usual."""
    given = {"probe_suffix": probe_suffix, "think_end": think_end, "answer_pattern": answer_pattern}
    return Probing(
        AnswerFormat(**{name: value for name, value in given.items() if value is not None}), max_probe_tokens
    )


def check_sampling(given: Mapping[str, Any]) -> dict[str, Any]:
    """The sampling options that were given.

    Raises:
        UnknownNameError: an option, or a keyword of generate, that is not known.
        InputError: not a number, or a temperature at which all branches are the same.
    """
    for name, value in given.items():
        if name not in SAMPLING:
            raise UnknownNameError.of("keyword of generate", name, _OPTIONS)
        if value is not None and (isinstance(value, bool) or not isinstance(value, (int, float))):
            raise InputError(f"{name} must be a number, got {value!r}.")
    if given.get("temperature") is not None and given["temperature"] <= 0:
        raise InputError(
            f"temperature={given['temperature']} makes all branches of a question the same, so there is nothing "
            "to vote on; pass a temperature above 0."
        )
    return {name: value for name, value in given.items() if value is not None}


def fitting(settings: Settings, session: Session, asked: Sequence[Asked], probe_tokens: int) -> Settings:
    """The settings with `max_new_tokens` known, checked against the servers' context where they say it."""
    longest = max((each.prompt_tokens for each in asked), default=0)
    room = None if session.context is None else session.context - longest - probe_tokens
    if settings.max_new_tokens == _NO_LIMIT:
        if room is None:
            raise InputError("pass max_new_tokens: the server does not say how long its context is.")
        if room < settings.interval_tokens:
            raise InputError(
                f"a prompt of {longest} tokens and {probe_tokens} for a probe leave {max(0, room)} tokens of the "
                f"server's context of {session.context}, less than one step of interval_tokens="
                f"{settings.interval_tokens}; pass a smaller interval_tokens, or shorter prompts."
            )
        return replace(settings, max_new_tokens=room)
    if room is not None and settings.max_new_tokens > room:
        raise InputError(
            f"a prompt of {longest} tokens, max_new_tokens={settings.max_new_tokens} and {probe_tokens} for a probe "
            f"are beyond the server's context of {session.context}; pass max_new_tokens={max(0, room)} or less."
        )
    return settings


def check_controllers(session: Session, asked: Sequence[Asked]) -> None:
    """Refuse a controller that needs what the servers do not tell."""
    for each in asked:
        if each.controller.reads_logprobs and not session.wire.logprobs:
            raise UnsupportedError(
                f"{each.controller!r} reads log-probabilities, which come with token ids only (vLLM, with tokenizer= "
                f"here); this server is spoken to as {session.wire.dialect!r}."
            )
