"""What a client is told: OpenAI's objects, with what the answer took and how it came about beside them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tts_generate.controller import describe
from tts_generate.live.winner import shown_ids, truncated, votes
from tts_generate.runner import Cost
from tts_generate.serve.desk import Job
from tts_generate.serve.refusal import refusal_of
from tts_generate.server.question import Served
from tts_generate.version import __version__


def whole(job: Job, name: str, urls: Sequence[str]) -> dict[str, Any]:
    """The answer to a request that is not streamed."""
    choices = [
        {**_choice(job, each, index), "finish_reason": _reason(each)} for index, each in enumerate(job.questions)
    ]
    return {**_head(job, name), "choices": choices, "usage": usage(job), "tts_generate": account(job, urls)}


def chunks(job: Job, name: str, urls: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The end of a stream: texts, why they end, and what they took, if that was asked for."""
    for index, question in enumerate(job.questions):
        yield {**_head(job, name), "choices": [{**_choice(job, question, index), "finish_reason": None}]}
    ends = [{**_empty(job, index), "finish_reason": _reason(question)} for index, question in enumerate(job.questions)]
    yield {**_head(job, name), "choices": ends, "tts_generate": account(job, urls)}
    if job.asked.usage:
        yield {**_head(job, name), "choices": [], "usage": usage(job)}


def begun(job: Job, name: str) -> dict[str, Any]:
    """The first chunk of a stream."""
    choice = _empty(job, 0)
    if job.asked.chat:
        choice["delta"] = {"role": "assistant", "content": ""}
    return {**_head(job, name), "choices": [{**choice, "finish_reason": None}]}


def progress(job: Job, name: str, question: Served) -> dict[str, Any]:
    """A chunk that says how far a question is."""
    event, index = question.events[-1], question.index - job.loop.first
    said = {
        "round": event.round,
        "branches": question.episode.state.opened,
        "live": event.live,
        "tokens": event.tokens,
        "answer": question.book.text(event.leader),
        "votes": votes(question.episode, question.book),
    }
    choice = {**_empty(job, index), "finish_reason": None}
    return {**_head(job, name), "choices": [choice], "tts_generate": {"progress": said}}


def usage(job: Job) -> dict[str, Any]:
    """Tokens by kind, as OpenAI counts them: a prompt once, and every token that the servers decoded."""
    took, cost = job.loop.pool.usage, sum((each.cost for each in job.questions), Cost())
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


def account(job: Job, urls: Sequence[str]) -> dict[str, Any]:
    """How the answer came about; of several prompts, a list of questions."""
    took = job.loop.pool.usage
    return {
        "version": __version__,
        "controller": dict(describe(job.tasks[0].controller)),
        "seed": job.asked.seed,
        "dialect": took.dialect,
        "requests": took.requests,
        "retries": took.retries,
        "seconds": round(time.perf_counter() - job.began, 4),
        "notes": list(job.asked.notes),
        "questions": [_question(each, urls) for each in job.questions],
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


def _head(job: Job, name: str) -> dict[str, Any]:
    kind = "chat.completion" if job.asked.chat else "text_completion"
    kind += ".chunk" if job.asked.chat and job.asked.stream else ""
    prefix = "chatcmpl" if job.asked.chat else "cmpl"
    return {"id": f"{prefix}-{job.id}", "object": kind, "created": job.created, "model": name}


def _empty(job: Job, index: int) -> dict[str, Any]:
    """A choice of a stream that adds no text."""
    return {"index": index, "logprobs": None, **({"delta": {}} if job.asked.chat else {"text": ""})}


def _choice(job: Job, question: Served, index: int) -> dict[str, Any]:
    text = _text(job, question)
    said: Mapping[str, Any] = {"text": text}
    if job.asked.chat:
        said = {"delta": {"content": text}} if job.asked.stream else {"message": {"role": "assistant", "content": text}}
    return {"index": index, "logprobs": None, **said}


def _text(job: Job, question: Served) -> str:
    """What the winning branch says, without the stop string that ended it."""
    if question.winner < 0:
        return ""
    branch = question.branches[question.winner]
    text = job.loop.reader.said(shown_ids(branch))
    if branch.finish_reason != "stop":
        return text
    return text[: min((text.index(stop) for stop in job.loop.stop if stop in text), default=len(text))]


def _reason(question: Served) -> str:
    return "length" if truncated(question.branches, question.winner) else "stop"
