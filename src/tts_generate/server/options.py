"""What a call on servers is asked for, checked before anything is sent, and against what the servers say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from tts_generate.answers import AnswerOptions
from tts_generate.errors import InputError, UnsupportedError
from tts_generate.live.sampling import SAMPLING, wrong_sampling
from tts_generate.live.settings import EpisodeSettings, advice_on_room, interval_for
from tts_generate.live.task import Task
from tts_generate.loading import ControllerOptions
from tts_generate.server.connect import Session
from tts_generate.server.dialects import TELLING, Wire


class RecordOptions(AnswerOptions, total=False):
    """How the servers' model is asked, and how its branches are sampled: see `live.sampling`."""

    temperature: Any
    top_p: Any
    top_k: Any
    min_p: Any
    repetition_penalty: Any


class ServerOptions(ControllerOptions, RecordOptions, total=False):
    """Arguments of `ServerModel.generate` by kind: who decides, how the model is asked, how it is sampled."""


@dataclass(frozen=True, kw_only=True)
class Call:
    """What a call asks of its episodes."""

    seed: int | None
    interval_tokens: int | None
    max_new_tokens: int | None
    """None: as many as the servers' context holds."""
    max_branches: int
    stop_strings: Any
    options: RecordOptions
    probe_every_step: bool = False

    def settings(self, most: int) -> EpisodeSettings:
        """The numbers of its episodes, of branches of `most` tokens."""
        return EpisodeSettings(
            seed=self.seed,
            interval_tokens=interval_for(most) if self.interval_tokens is None else self.interval_tokens,
            max_new_tokens=most,
            max_branches=self.max_branches,
            probe_every_step=self.probe_every_step,
        )


_ONE, _LONG = "a request is for one continuation of one branch", "long answers are streamed, others are not"
_COUNTS = "it counts within one request, of which a branch takes many, and a probe asks for few tokens"
_OURS = {
    **dict.fromkeys(SAMPLING, "pass it to generate or record, whose probes are greedy"),
    **dict.fromkeys(("n", "best_of", "use_beam_search", "echo", "suffix", "prompt"), _ONE),
    **dict.fromkeys(("stream", "stream_options"), _LONG),
    **dict.fromkeys(("min_tokens", "min_new_tokens", "presence_penalty", "frequency_penalty"), _COUNTS),
    **dict.fromkeys(("logprobs", TELLING), "it is asked for where something reads it"),
    "max_tokens": "it follows from interval_tokens and max_new_tokens",
    "model": "pass model= beside it",
    "seed": "pass seed= to generate or record; left out, none is sent",
    "stop": "pass stop_strings= to generate or record",
}
"""Fields of a request that are this client's own, or mean another thing in many requests; and what to do instead."""


def check_extra_body(extra_body: Mapping[str, Any]) -> None:
    """Refuse fields that would change what a request is for.

    Raises:
        InputError: naming the first.
    """
    for name in extra_body:
        if name in _OURS:
            raise InputError(f"extra_body cannot set {name!r}: {_OURS[name]}.")


def check_sampling(options: RecordOptions) -> dict[str, Any]:
    """The sampling options that were given.

    Raises:
        InputError: a value that it cannot be, or a temperature at which all branches are the same.
    """
    given: dict[str, Any] = {name: value for name, value in options.items() if name in SAMPLING}
    for name, value in given.items():
        if name == "temperature" and value == 0:
            raise InputError(
                "temperature=0 makes all branches of a question the same, so there is nothing to vote on; pass a "
                "temperature above 0."
            )
        if value is not None and (wrong := wrong_sampling(name, value)):
            raise InputError(f"{name} {wrong}, got {value!r:.80}.")
    return {name: int(v) if isinstance(v, Integral) else float(v) for name, v in given.items() if v is not None}


def fitting(call: Call, session: Session, tasks: Sequence[Task], probe_tokens: int) -> EpisodeSettings:
    """The settings, with branches as long as the servers' context holds if that is asked for; none beyond it."""
    asked = max(tasks, key=lambda task: len(task.prompt.ids))
    longest = len(asked.prompt.ids)
    taken = f"prompt {asked.question_id!r} of {longest} tokens and {probe_tokens} for a probe"
    room = None if session.context is None else session.context - longest - probe_tokens
    if (most := call.max_new_tokens) is None:
        if room is None:
            raise InputError("pass max_new_tokens: the server does not say how long its context is.")
        if room < (step := call.interval_tokens or 1):
            raise InputError(
                f"{taken} leave {max(0, room)} tokens of the server's context of {session.context}, less than one step "
                f"of interval_tokens={step}; pass a smaller interval_tokens, or shorter prompts."
            )
        return call.settings(room)
    if room is not None and most > room:
        raise InputError(
            f"{taken}, with max_new_tokens={most}, are beyond the server's context of {session.context}. "
            f"{advice_on_room(room)}."
        )
    return call.settings(most)


def check_controllers(wire: Wire, tasks: Sequence[Task]) -> None:
    """Refuse a controller that needs what the servers do not tell."""
    for each in tasks:
        if each.controller.reads_logprobs and not wire.logprobs:
            raise UnsupportedError(
                f"{each.controller!r} reads log-probabilities, which come with token ids only (vLLM, if --max-logprobs "
                f"is not 0, with tokenizer= here); this server is spoken to as {wire.dialect!r} and tells none."
            )
