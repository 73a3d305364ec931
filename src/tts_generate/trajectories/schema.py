"""What a trajectory is, as a value and as a row of a parquet file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tts_generate.arguments import check_fields
from tts_generate.errors import StoreFormatError, UnknownNameError

FORMAT = "tts-store/1"
FINISH_REASONS = ("eos", "stop", "length")
SOURCES = ("recorded", "live", "autotts")

SCHEMA = pa.schema(
    [
        ("question_id", pa.string()),
        ("branch", pa.int32()),
        ("seed", pa.int64()),
        ("prompt_tokens", pa.int32()),
        ("tokens", pa.int32()),
        ("finish_reason", pa.string()),
        ("final_answer", pa.string()),
        ("probe_positions", pa.list_(pa.int32())),
        ("probe_answers", pa.list_(pa.string())),
        ("probe_tokens", pa.list_(pa.int32())),
        ("probe_logprobs", pa.list_(pa.float64())),
        ("step_logprobs", pa.list_(pa.float64())),
        ("token_ids", pa.list_(pa.int32())),
    ]
)


@dataclass(frozen=True, slots=True)
class Question:
    """A prompt, with its right answer where one is known."""

    question_id: str
    question: str
    gold_answer: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One branch of one question, read to its end or as far as a live run read it.

    Raises:
        StoreFormatError: fields that cannot belong together, naming the branch.
    """

    question_id: str
    branch: int
    seed: int | None
    prompt_tokens: int
    tokens: int
    """Tokens generated."""
    finish_reason: str | None
    """"eos", "stop" (a stopping criterion), "length", or None: not read to its end."""
    final_answer: str | None
    """None where no answer was found, or the branch was not read to its end."""
    probe_positions: tuple[int, ...]
    """Generated tokens at which a probe was taken: ascending multiples of `interval_tokens`."""
    probe_answers: tuple[str | None, ...]
    probe_tokens: tuple[int, ...]
    """Tokens decoded for each probe: forced suffix and answer."""
    probe_logprobs: tuple[float | None, ...]
    """Mean log-probability of the tokens of each probed answer."""
    step_logprobs: tuple[float | None, ...]
    """Mean log-probability of the tokens of each step."""
    token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        wrong = self._wrong()
        if wrong:
            raise StoreFormatError(f"branch {self.branch} of question {self.question_id!r}: {wrong}.")

    def _wrong(self) -> str:
        probes = {len(self.probe_positions), len(self.probe_answers), len(self.probe_tokens), len(self.probe_logprobs)}
        if min(self.branch, self.prompt_tokens, self.tokens, *self.probe_tokens, 0) < 0:
            return "numbers of branches and tokens must not be negative"
        if len(probes) > 1:
            return "probe_positions, probe_answers, probe_tokens and probe_logprobs must have one length"
        if any(a >= b for a, b in zip((0, *self.probe_positions), self.probe_positions, strict=False)):
            return f"probe_positions must ascend from above 0, got {list(self.probe_positions)}"
        if self.finish_reason not in (*FINISH_REASONS, None):
            return f"finish_reason must be one of {', '.join(FINISH_REASONS)} or null, got {self.finish_reason!r}"
        if not all(value is None or math.isfinite(value) for value in (*self.probe_logprobs, *self.step_logprobs)):
            return "log-probabilities must be finite, or null where there is none"
        if self.finish_reason is None and self.final_answer is not None:
            return "a branch not read to its end has no final_answer"
        if self.token_ids is not None and len(self.token_ids) != self.tokens:
            return f"{len(self.token_ids)} token_ids for {self.tokens} tokens"
        return ""

    @property
    def key(self) -> tuple[str, int]:
        """What names a branch in a store."""
        return self.question_id, self.branch

    def to_row(self) -> dict[str, Any]:
        """Plain JSON values, lists for tuples."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in ((field.name, getattr(self, field.name)) for field in dataclasses.fields(self))
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any]) -> Trajectory:
        """The trajectory of a parquet or journal row.

        Raises:
            StoreFormatError: fields are missing, unknown or empty that must not be, or do not belong together.
        """
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in row.items()}
        try:
            return cls(**values)
        except TypeError as error:
            raise StoreFormatError(f"a row is no trajectory ({error}).") from error


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything needed to repeat a recording."""

    interval_tokens: int
    branches: int
    """Branches a question."""
    seed: int | None
    model: Mapping[str, Any]
    tokenizer: Mapping[str, Any]
    generation_config: Mapping[str, Any]
    probe: Mapping[str, Any]
    versions: Mapping[str, str]
    source: str
    """"recorded", "live", or "autotts" (an imported published table)."""
    questions_sha256: str
    format: str = FORMAT

    @classmethod
    def from_json(cls, text: str, path: object) -> Manifest:
        """Read a manifest, refusing other formats and unknown fields.

        Raises:
            StoreFormatError: naming `path` and what is wrong.
        """
        try:
            row = json.loads(text)
        except ValueError as error:
            raise StoreFormatError(f"{path} is not JSON: {error}") from error
        found = row.get("format") if isinstance(row, dict) else type(row).__name__
        if found != FORMAT:
            raise StoreFormatError(
                f"{path} has format {found!r}; this version of tts-generate reads {FORMAT!r}. "
                "Update tts-generate, or record again."
            )
        known = {field.name for field in dataclasses.fields(cls)}
        for name in set(row) - known:
            raise UnknownNameError.of(f"field of {path}", name, known)
        missing = known - set(row)
        if missing:
            raise StoreFormatError(f"{path} lacks {', '.join(sorted(missing))}.")
        return cls(**row)

    def to_json(self) -> str:
        """Indented JSON, the format named first."""
        row = {"format": self.format, **dataclasses.asdict(self)}
        return json.dumps(row, indent=2, sort_keys=False, ensure_ascii=False) + "\n"

    def difference(self, other: Manifest) -> str:
        """The fields in which two recordings differ, versions of libraries left out; "" if they can be one store.

        Versions may change between two sittings; settings may not.
        """
        names = [f.name for f in dataclasses.fields(self) if f.name != "versions"]
        here, there = self.published(), other.published()
        return "; ".join(
            f"{name}: {getattr(self, name)!r} here, {getattr(other, name)!r} asked for"
            for name in names
            if getattr(here, name) != getattr(there, name)
        )

    def published(self) -> Manifest:
        """The same for other people's eyes: a model in a folder of this machine goes by the folder's name alone."""
        return dataclasses.replace(self, model=public_model(self.model))


def public_model(model: Mapping[str, Any]) -> dict[str, Any]:
    """What a manifest says of a model, without the folders of this machine.

    >>> public_model({"name_or_path": "/home/me/models/tiny"}), public_model({"name_or_path": "Qwen/Qwen3-0.6B"})
    ({'name_or_path': 'tiny'}, {'name_or_path': 'Qwen/Qwen3-0.6B'})
    """
    name = str(model.get("name_or_path") or "")
    local = name.startswith((".", "~")) or Path(name).is_absolute() or name.count("/") > 1
    return {**model, "name_or_path": Path(name).name} if local else dict(model)


def to_table(trajectories: Iterable[Trajectory]) -> pa.Table:
    """Trajectories as an arrow table, one row a branch."""
    return pa.Table.from_pylist([trajectory.to_row() for trajectory in trajectories], schema=SCHEMA)


def from_table(table: pa.Table) -> list[Trajectory]:
    """The trajectories of an arrow table."""
    return [Trajectory.from_row(row) for row in table.to_pylist()]


def questions_to_jsonl(questions: Sequence[Question]) -> str:
    """One JSON object a line."""
    return "".join(json.dumps(dataclasses.asdict(question), ensure_ascii=False) + "\n" for question in questions)


def questions_sha256(questions: Sequence[Question]) -> str:
    """A hash of ids, texts and gold answers, in order: that of questions.jsonl."""
    return hashlib.sha256(questions_to_jsonl(questions).encode()).hexdigest()


def questions_from_jsonl(text: str, path: object) -> tuple[Question, ...]:
    """Questions from JSON lines `{"question_id", "question", "gold_answer"}`.

    Raises:
        StoreFormatError: naming file, line and what is wrong.
    """
    questions: list[Question] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            question = Question(**row)
        except (ValueError, TypeError) as error:
            raise StoreFormatError(
                f'{path}, line {number}: expected {{"question_id", "question", "gold_answer"}}, {error}.'
            ) from error
        if not all(isinstance(v, str) for v in (question.question_id, question.question)):
            raise StoreFormatError(f"{path}, line {number}: question_id and question must be text.")
        questions.append(question)
    ids = [question.question_id for question in questions]
    twice = sorted({name for name in ids if ids.count(name) > 1})
    if twice:
        raise StoreFormatError(f"{path}: question_id {twice[0]!r} stands twice; ids must differ.")
    return tuple(questions)
