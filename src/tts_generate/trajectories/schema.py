from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Question:
    question_id: str
    question: str
    gold_answer: str | None = None


@dataclass(frozen=True, slots=True)
class Trajectory:
    question_id: str
    branch: int
    seed: int | None
    prompt_tokens: int
    tokens: int
    finish_reason: str | None
    final_answer: str | None
    probe_positions: tuple[int, ...]
    probe_answers: tuple[str | None, ...]
    probe_tokens: tuple[int, ...]
    probe_logprobs: tuple[float | None, ...]
    step_logprobs: tuple[float | None, ...]
    token_ids: tuple[int, ...] | None = None


@dataclass(frozen=True, slots=True)
class Manifest:
    interval_tokens: int
    branches: int
    seed: int | None
    model: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    probe: Mapping[str, Any]
    versions: Mapping[str, str]
    source: str
    questions_sha256: str
    format: str = "tts-store/1"
