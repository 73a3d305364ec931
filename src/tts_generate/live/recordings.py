"""What it takes to record questions, wherever their branches are decoded: what is missing, and what a store says."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from tts_generate.answers import AnswerFormat
from tts_generate.arguments import whole
from tts_generate.errors import InputError
from tts_generate.live.settings import EpisodeSettings
from tts_generate.live.task import Prompt, Task, prompt_of
from tts_generate.loading import load_controller
from tts_generate.processors import BranchProcessorList
from tts_generate.trajectories import Manifest, Question
from tts_generate.trajectories.schema import questions_sha256

Key = tuple[str, int]
"""A branch of a recording: its question, and its number."""


def check_recording(questions: Sequence[Question], branches: int, options: Mapping[str, Any]) -> None:
    """Refuse a recording of nothing, and `votes` among its options.

    Raises:
        InputError: no question, no branch, or votes.
    """
    if options.get("votes") is not None:
        raise InputError("votes is of replay: a recording keeps the text of every answer; leave it out.")
    if not questions:
        raise InputError("there is no question to record.")
    whole("branches", branches)


def prompts(tokenizer: Any, questions: Sequence[Question], chat: bool | Mapping[str, Any]) -> list[Prompt]:
    """The questions as a model reads them: as they are, or in its chat template, with the arguments that `chat` has."""
    template = chat if isinstance(chat, Mapping) else {}
    found = []
    for question in questions:
        asked = question.question if chat is False else [{"role": "user", "content": question.question}]
        found.append(prompt_of(tokenizer, asked, f"question {question.question_id!r}", **template))
    return found


def missing(questions: Sequence[Question], branches: int, done: Container[Key] = ()) -> list[Key]:
    """The branches that are not recorded yet, question by question."""
    keys = ((question.question_id, branch) for question in questions for branch in range(branches))
    return [key for key in keys if key not in done]


def tasks(
    questions: Sequence[Question], prompts: Sequence[Prompt], keys: Iterable[Key], limits: BranchProcessorList
) -> list[Task]:
    """One task a question, for those of its branches that are among the keys.

    A time limit ends a question's task: what has come to its end is recorded, the rest stays missing.
    """
    wanted: dict[str, list[int]] = {}
    for question_id, branch in keys:
        wanted.setdefault(question_id, []).append(branch)
    return [
        Task(
            question.question_id,
            prompt,
            load_controller("self_consistency", max_samples=len(order)),
            order,
            limits.begin(question.question_id),
        )
        for question, prompt in zip(questions, prompts, strict=True)
        if (order := wanted.get(question.question_id))
    ]


def manifest(
    questions: Sequence[Question],
    branches: int,
    settings: EpisodeSettings,
    answer_format: AnswerFormat,
    tokenizer: Any,
    chat: bool | Mapping[str, Any],
    facts: Mapping[str, Any],
) -> Manifest:
    """What a store says of a recording; `facts` are those that only the decoding side knows."""
    kind = None if tokenizer is None else type(tokenizer).__name__
    return Manifest(
        interval_tokens=settings.interval_tokens,
        branches=branches,
        seed=settings.seed,
        tokenizer={
            "class": kind,
            "vocab_size": None if tokenizer is None else len(tokenizer),
            "chat": dict(chat) if isinstance(chat, Mapping) else chat,
            **({} if chat is False else {"chat_template": _template_sha256(tokenizer)}),
        },
        probe=answer_format.card(),
        source="recorded",
        questions_sha256=questions_sha256(questions),
        **facts,
    )


def _template_sha256(tokenizer: Any) -> str:
    """What tells a chat template from another, of one tokenizer."""
    return hashlib.sha256(json.dumps(tokenizer.chat_template, sort_keys=True).encode()).hexdigest()[:16]
