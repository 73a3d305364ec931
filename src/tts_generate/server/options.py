"""What a call on servers is asked for, checked before anything is sent, and against what the servers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tts_generate.errors import InputError, UnknownNameError, UnsupportedError
from tts_generate.live.settings import EpisodeSettings, interval_for
from tts_generate.live.task import Task
from tts_generate.server.connect import Session
from tts_generate.server.dialects import SAMPLING

_OPTIONS = {
    "strategy", "controller", "beta", "latency", "controller_kwargs", "branch_processors", "seed", "interval_tokens",
    "max_new_tokens", "max_probe_tokens", "max_branches", "probe_suffix", "think_end", "answer_pattern", "force_answer",
    "stop_strings", "progress", "revision", "sandbox", "trust_remote_code", *SAMPLING,
}  # fmt: skip


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


def fitting(
    settings: EpisodeSettings,
    to_context: bool,
    step: int | None,
    session: Session,
    tasks: Sequence[Task],
    probe_tokens: int,
) -> EpisodeSettings:
    """The settings, with branches as long as the servers' context holds if that is asked for; none beyond it.

    Their steps are then of `step` tokens, or of as many as fit where that is None.
    """
    longest = max((len(task.prompt.ids) for task in tasks), default=0)
    room = None if session.context is None else session.context - longest - probe_tokens
    if to_context:
        if room is None:
            raise InputError("pass max_new_tokens: the server does not say how long its context is.")
        step = interval_for(max(1, room)) if step is None else step
        if room < step:
            raise InputError(
                f"a prompt of {longest} tokens and {probe_tokens} for a probe leave {max(0, room)} tokens of the "
                f"server's context of {session.context}, less than one step of interval_tokens="
                f"{step}; pass a smaller interval_tokens, or shorter prompts."
            )
        return replace(settings, interval_tokens=step, max_new_tokens=room)
    if room is not None and settings.max_new_tokens > room:
        raise InputError(
            f"a prompt of {longest} tokens, max_new_tokens={settings.max_new_tokens} and {probe_tokens} for a probe "
            f"are beyond the server's context of {session.context}; pass max_new_tokens={max(0, room)} or less."
        )
    return settings


def check_controllers(session: Session, tasks: Sequence[Task]) -> None:
    """Refuse a controller that needs what the servers do not tell."""
    for each in tasks:
        if each.controller.reads_logprobs and not session.wire.logprobs:
            raise UnsupportedError(
                f"{each.controller!r} reads log-probabilities, which come with token ids only (vLLM, with tokenizer= "
                f"here); this server is spoken to as {session.wire.dialect!r}."
            )
