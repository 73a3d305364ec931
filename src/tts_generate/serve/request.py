"""A request's JSON, field by field: what is honoured, what asks for nothing, and what is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tts_generate.arguments import fits, told
from tts_generate.live.sampling import SAMPLING, wrong_sampling
from tts_generate.live.task import Prompt, as_sent, prompt_of
from tts_generate.serve.refusal import Refusal

_OPTIONAL: dict[str, Any] = {
    "model": str, "seed": int, "max_tokens": int, "max_completion_tokens": int, "stop": str | Sequence[str | None],
    "stream": bool, "stream_options": Mapping[str, Any], "chat_template_kwargs": Mapping[str, Any],
    "tts_generate": Mapping[str, Any], **dict.fromkeys(SAMPLING, float),
}  # fmt: skip
"""Fields that are honoured, beside the messages or the prompt."""
_OWN: dict[str, Any] = {
    "beta": float, "latency": float, "controller_kwargs": Mapping[str, Any], "max_branches": int
}  # fmt: skip
"""Fields of `tts_generate`."""
_TALK = {
    "user", "metadata", "store", "service_tier", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"
}  # fmt: skip
"""Fields that say nothing of the answer."""
_NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,), "best_of": (1,), "echo": (False,), "suffix": ("",), "logprobs": (False,), "top_logprobs": (0,),
    "tools": ([],), "tool_choice": ("none", "auto"), "parallel_tool_calls": (True, False), "functions": ([],),
    "function_call": ("none", "auto"), "response_format": ({"type": "text"},), "modalities": (["text"],),
    "logit_bias": ({},), "frequency_penalty": (0, 0.0), "presence_penalty": (0, 0.0),
}  # fmt: skip
"""Fields that cannot be honoured, and the values at which they ask for nothing."""
_PROMPTS = 128
"""Prompts of one request at most."""
_ROLES = ("system", "developer", "user", "assistant")
_IN_MESSAGE = {"role", "content", "name", "type", "refusal"}
_COLD = "temperature 0 makes all branches the same, with nothing to vote on: they are sampled as if it were left out"


@dataclass(frozen=True, slots=True)
class ClientRequest:
    """What a client asks for."""

    prompts: Sequence[Prompt]
    chat: bool
    seed: int | None = None
    max_tokens: int | None = None
    stop: Sequence[str] = ()
    stream: bool = False
    usage: bool = False
    """Whether a stream ends with what it took."""
    sampling: Mapping[str, float] = field(default_factory=dict)
    own: Mapping[str, Any] = field(default_factory=dict)
    """What it says of the controller, by the names of `_OWN`."""
    notes: Sequence[str] = ()
    """What it must be told."""


def client_request(body: Any, tokenizer: Any, name: str, *, chat: bool) -> ClientRequest:
    """The request that a JSON stands for.

    Args:
        body: the JSON.
        tokenizer: the model's; None where there is none here.
        name: the model's.
        chat: whether it has messages, or a prompt.

    Raises:
        Refusal: naming the first field that cannot be honoured.
        InputError: a chat for which there is no template.
    """
    if not isinstance(body, dict):
        raise Refusal(f"the body must be a JSON object, got {_short(body)}.")
    what = "messages" if chat else "prompt"
    given = {each: value for each, value in body.items() if value is not None}
    if what not in given:
        raise Refusal(f"{what!r} is missing: it says what to answer.", param=what)
    _check(given, {what: object, **_OPTIONAL})
    if given.get("model", name) != name:
        raise Refusal(f"there is no model {_short(given['model'])} here; use {name!r}.", 404, param="model")
    own, options = given.get("tts_generate", {}), given.get("stream_options", {})
    _check(own, _OWN, "tts_generate.")
    _check(options, {"include_usage": bool}, "stream_options.")
    if options and not given.get("stream"):
        raise Refusal("stream_options is for requests with stream=true; leave it out.", param="stream_options")
    sampling, notes = _sampling(given)
    stop = given.get("stop", [])
    stop = [stop] if isinstance(stop, str) else [text for text in stop if text is not None]
    return ClientRequest(
        prompts=_chat(given, tokenizer) if chat else _prompts(given, tokenizer),
        chat=chat,
        seed=given.get("seed"),
        max_tokens=_max_tokens(given),
        stop=stop,
        stream=given.get("stream", False),
        usage=options.get("include_usage", False),
        sampling=sampling,
        own=own,
        notes=notes,
    )


def _check(given: Mapping[str, Any], known: Mapping[str, Any], where: str = "") -> None:
    """Refuse a field that is not known, or is not what it must be."""
    for name, value in given.items():
        param = f"{where}{name}"
        if name in known:
            if not fits(value, known[name]):
                raise Refusal(f"{param} must be {told(known[name])}, got {_short(value)}.", param=param)
        elif not where and name in _NOTHING:
            if json.dumps(value) not in map(json.dumps, _NOTHING[name]):
                raise Refusal(
                    f"{param}={_short(value)} cannot be honoured: a controller answers with one branch's text; leave "
                    "it out.",
                    param=param,
                )
        elif where or name not in _TALK:
            raise Refusal(
                f"{param} is not known here; leave it out. Known: {', '.join(sorted(known))}.", param=param[:100]
            )


def _sampling(given: Mapping[str, Any]) -> tuple[dict[str, float], list[str]]:
    sampling = {name: given[name] for name in SAMPLING if name in given}
    notes = []
    if sampling.get("temperature") == 0:
        del sampling["temperature"]
        notes.append(_COLD)
    for name, value in sampling.items():
        if wrong := wrong_sampling(name, value):
            raise Refusal(f"{name} {wrong}, got {_short(value)}.", param=name)
    return sampling, notes


def _max_tokens(given: Mapping[str, Any]) -> int | None:
    said = {name: given[name] for name in ("max_tokens", "max_completion_tokens") if name in given}
    for name, value in said.items():
        if value < 1:
            raise Refusal(f"{name} must be at least 1, got {value}: tokens of a branch.", param=name)
    if len(set(said.values())) > 1:
        raise Refusal("max_tokens and max_completion_tokens say different things; leave one out.", param="max_tokens")
    return next(iter(said.values()), None)


def _chat(given: Mapping[str, Any], tokenizer: Any) -> list[Prompt]:
    turns = given["messages"]
    if not isinstance(turns, list) or not turns:
        raise Refusal(f"messages must be a list of {{'role', 'content'}}, got {_short(turns)}.", param="messages")
    turns = [_turn(turn, f"messages[{number}]") for number, turn in enumerate(turns)]
    if "developer" not in str(getattr(tokenizer, "chat_template", "")):  # most templates would leave it out
        turns = [{**turn, "role": "system"} if turn["role"] == "developer" else turn for turn in turns]
    template = given.get("chat_template_kwargs", {})
    _check(template, {"enable_thinking": bool}, "chat_template_kwargs.")
    if tokenizer is not None and not getattr(tokenizer, "chat_template", None) and not template:
        if len(turns) == 1 and turns[0]["role"] == "user":  # a base model's
            return [prompt_of(tokenizer, turns[0]["content"], "the message")]
    return [prompt_of(tokenizer, turns, "the chat", **template)]


def _turn(turn: Any, where: str) -> dict[str, str]:
    """One message, its content as one text."""
    if not isinstance(turn, dict) or not isinstance(turn.get("role"), str):
        raise Refusal(f"{where} must be an object with 'role' and 'content', got {_short(turn)}.", param=where)
    if turn["role"] not in _ROLES:
        raise Refusal(f"{where}.role must be one of {', '.join(_ROLES)}, got {_short(turn['role'])}.", param=where)
    for name in turn:
        if name not in _IN_MESSAGE and turn[name]:
            raise Refusal(f"{where}.{name} cannot be honoured; leave it out.", param=where)
    content = turn.get("content")
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, list) or not all(
        isinstance(part, dict) and part.get("type") == "text" and isinstance(part.get("text"), str) for part in parts
    ):
        raise Refusal(f"{where}.content must be text, or parts of type 'text', got {_short(content)}.", param=where)
    return {"role": turn["role"], "content": "".join(part["text"] for part in parts)}


def _prompts(given: Mapping[str, Any], tokenizer: Any) -> list[Prompt]:
    """The prompts of a completion: texts, or token ids where there is a tokenizer."""
    prompt = given["prompt"]
    if "chat_template_kwargs" in given:
        raise Refusal("chat_template_kwargs is for chats; leave it out.", param="chat_template_kwargs")
    one = isinstance(prompt, str) or (isinstance(prompt, list) and bool(prompt) and fits(prompt[0], int))
    many = [prompt] if one else prompt
    if not isinstance(many, list) or not many or not all(fits(each, str | list[int]) for each in many):
        raise Refusal(f"prompt must be a text, token ids, or a list of either, got {_short(prompt)}.", param="prompt")
    if len(many) > _PROMPTS:
        raise Refusal(f"prompt has {len(many)} prompts; at most {_PROMPTS} go into one request.", param="prompt")
    return [_prompt(each, tokenizer, number) for number, each in enumerate(many)]


def _prompt(asked: str | list[int], tokenizer: Any, number: int) -> Prompt:
    if isinstance(asked, str):
        return prompt_of(tokenizer, asked, f"prompt {number}")
    if not asked:
        raise Refusal(f"prompt {number} is empty; give every question at least one token.", param="prompt")
    if tokenizer is None or not all(0 <= each < len(tokenizer) for each in asked):
        why = "this server has no tokenizer" if tokenizer is None else f"its vocabulary has {len(tokenizer):,} tokens"
        raise Refusal(f"prompt {number} has token ids that cannot be read: {why}; send text.", param="prompt")
    return Prompt(tuple(asked), as_sent(tokenizer, tokenizer.decode(asked, clean_up_tokenization_spaces=False)))


def _short(value: Any) -> str:
    return f"{value!r:.80}"
