"""What a client is told: OpenAI's objects, with what the answer took and how it came about beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tts_generate.controller import describe
from tts_generate.live.winner import shown_ids, truncated, votes
from tts_generate.runner import Cost
from tts_generate.serve.refusal import refusal_of
from tts_generate.serve.responder import Reply
from tts_generate.server.question import Served
from tts_generate.version import __version__


def whole(reply: Reply, name: str, urls: Sequence[str]) -> dict[str, Any]:
    """The answer to a request that is not streamed."""
    choices = [
        {**_choice(reply, each, index), "finish_reason": _reason(each)} for index, each in enumerate(reply.questions)
    ]
    return {**_head(reply, name), "choices": choices, "usage": usage(reply), "tts_generate": account(reply, urls)}


def chunks(reply: Reply, name: str, urls: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The end of a stream: texts, why they end, and what they took, if that was asked for."""
    for index, question in enumerate(reply.questions):
        yield {**_head(reply, name), "choices": [{**_choice(reply, question, index), "finish_reason": None}]}
    ends = [
        {**_empty(reply, index), "finish_reason": _reason(question)} for index, question in enumerate(reply.questions)
    ]
    yield {**_head(reply, name), "choices": ends, "tts_generate": account(reply, urls)}
    if reply.asked.usage:
        yield {**_head(reply, name), "choices": [], "usage": usage(reply)}


def begun(reply: Reply, name: str) -> dict[str, Any]:
    """The first chunk of a stream."""
    choice = _empty(reply, 0)
    if reply.asked.chat:
        choice["delta"] = {"role": "assistant", "content": ""}
    return {**_head(reply, name), "choices": [{**choice, "finish_reason": None}]}


def progress(reply: Reply, name: str, question: Served) -> dict[str, Any]:
    """A chunk that says how far a question is."""
    event, index = question.events[-1], question.index - reply.loop.first
    said = {
        "round": event.round,
        "branches": question.episode.state.opened,
        "live": event.live,
        "tokens": event.tokens,
        "answer": question.book.text(event.leader),
        "votes": votes(question.episode, question.book),
    }
    choice = {**_empty(reply, index), "finish_reason": None}
    return {**_head(reply, name), "choices": [choice], "tts_generate": {"progress": said}}


def usage(reply: Reply) -> dict[str, Any]:
    """Tokens by kind, as OpenAI counts them: a prompt once, and every token that the servers decoded."""
    took, cost = reply.loop.pool.usage, sum((each.cost for each in reply.questions), Cost())
    decoded, branches, discarded = took.completion_tokens, cost.generated_tokens, took.discarded_tokens
    cached = {} if took.cached_tokens is None else {"cached_tokens": took.cached_tokens}
    return {
        "prompt_tokens": cost.prompt_tokens,
        "completion_tokens": decoded,
        "total_tokens": cost.prompt_tokens + decoded,
        "prompt_tokens_details": {**cached, "sent_tokens": took.sent_tokens},
        "completion_tokens_details": {
            "branch_tokens": branches,
            "probe_tokens": max(0, decoded - branches - discarded),
            "discarded_tokens": discarded,
        },
    }


def account(reply: Reply, urls: Sequence[str]) -> dict[str, Any]:
    """How the answer came about; of several prompts, a list of questions."""
    took = reply.loop.pool.usage
    return {
        "version": __version__,
        "controller": dict(describe(reply.tasks[0].controller)),
        "seed": reply.asked.seed,
        "dialect": took.dialect,
        "requests": took.requests,
        "retries": took.retries,
        "seconds": round(time.perf_counter() - reply.began, 4),
        "notes": list(reply.asked.notes),
        "questions": [_question(each, urls) for each in reply.questions],
    }


def _question(question: Served, urls: Sequence[str]) -> dict[str, Any]:
    branches = [
        {
            "branch": branch.number,
            "tokens": len(branch.ids),
            "probe_tokens": sum(probe.tokens for probe in branch.probes),
            "answer": branch.final_answer if branch.finished else None,
            "finish_reason": branch.finish_reason,
        }
        for branch in question.branches
    ]
    error = None if question.error is None else str(refusal_of(question.error, urls))
    return {
        "answer": question.answer,
        "cost": asdict(question.cost),
        "votes": votes(question.episode, question.book),
        "finish_reason": question.finish_reason,
        "truncated": truncated(question.branches, question.winner),
        "winner": question.winner,
        "rounds": question.episode.state.round,
        "branches": branches,
        **({} if error is None else {"error": error}),
    }


def _head(reply: Reply, name: str) -> dict[str, Any]:
    kind = "chat.completion" if reply.asked.chat else "text_completion"
    kind += ".chunk" if reply.asked.chat and reply.asked.stream else ""
    prefix = "chatcmpl" if reply.asked.chat else "cmpl"
    return {"id": f"{prefix}-{reply.id}", "object": kind, "created": reply.created, "model": name}


def _empty(reply: Reply, index: int) -> dict[str, Any]:
    """A choice of a stream that adds no text."""
    return {"index": index, "logprobs": None, **({"delta": {}} if reply.asked.chat else {"text": ""})}


def _choice(reply: Reply, question: Served, index: int) -> dict[str, Any]:
    text = _text(reply, question)
    said: Mapping[str, Any] = {"text": text}
    if reply.asked.chat:
        said = (
            {"delta": {"content": text}} if reply.asked.stream else {"message": {"role": "assistant", "content": text}}
        )
    return {"index": index, "logprobs": None, **said}


def _text(reply: Reply, question: Served) -> str:
    """What the winning branch says, without the stop string that ended it."""
    if question.winner < 0:
        return ""
    branch = question.branches[question.winner]
    text = reply.loop.reader.said(shown_ids(branch))
    if branch.finish_reason != "stop":
        return text
    return text[: min((text.index(stop) for stop in reply.loop.stop if stop in text), default=len(text))]


def _reason(question: Served) -> str:
    return "length" if truncated(question.branches, question.winner) else "stop"
