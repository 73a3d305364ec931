"""What a trajectory is, as a value and as a row of a parquet file."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from tts_generate.arguments import check_fields
from tts_generate.errors import InputError, StoreFormatError, UnknownNameError
from tts_generate.strict_json import check_format
from tts_generate.trajectories.fields import encodable, mended, misfit, shown, wrong_manifest, wrong_trajectory
from tts_generate.trajectories.files import parse, read_text

FORMAT = "tts-store/1"

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
    """A prompt, with its right answer where one is known: any text that UTF-8 can hold, NUL aside."""

    question_id: str
    question: str
    gold_answer: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)
        for name in ("question_id", "question", "gold_answer"):
            if not encodable(getattr(self, name) or ""):
                raise InputError(f"Question: {name} must be text that UTF-8 can hold, got {getattr(self, name)!r:.80}.")


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One branch of one question, read to its end or as far as a live run read it.

    Its answers are what a model wrote: surrogates in them, which UTF-8 does not hold, are paired or become U+FFFD.

    Raises:
        StoreFormatError: fields that no column holds, or that cannot belong together, naming the branch.
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
    """Generated tokens at which a probe was taken: ascending multiples of `interval_tokens`, and last all `tokens` of a
    branch that was cut, if it was asked for its answer there."""
    probe_answers: tuple[str | None, ...]
    probe_tokens: tuple[int, ...]
    """Tokens decoded for each probe: forced suffix and answer."""
    probe_logprobs: tuple[float | None, ...]
    """Mean log-probability of the tokens of each probed answer."""
    step_logprobs: tuple[float | None, ...]
    """Mean log-probability of the tokens of each step."""
    token_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        wrong = wrong_trajectory(self)
        if wrong:
            name = f"branch {shown(self.branch)} of question {shown(self.question_id)}"
            raise StoreFormatError(f"{name} does not fit a store: {wrong}.")
        if not encodable("".join(filter(None, (self.final_answer, *self.probe_answers)))):
            object.__setattr__(self, "final_answer", self.final_answer and mended(self.final_answer))
            object.__setattr__(self, "probe_answers", tuple(text and mended(text) for text in self.probe_answers))

    @property
    def key(self) -> tuple[str, int]:
        """What names a branch in a store."""
        return self.question_id, self.branch

    @property
    def forced(self) -> bool:
        """Whether it was asked for its answer at its end, where it was cut: the last probe's is the final answer."""
        return self.finish_reason == "length" and self.probe_positions[-1:] == (self.tokens,)

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
    """Everything needed to repeat a recording.

    Raises:
        StoreFormatError: a field of another type or range, by name.
    """

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

    def __post_init__(self) -> None:
        wrong = wrong_manifest(self)
        if wrong:
            raise StoreFormatError(f"a recording's {wrong}.")

    @classmethod
    def from_json(cls, text: str, path: object) -> Manifest:
        """Read a manifest, refusing other formats, unknown fields, and values that cannot be.

        Raises:
            StoreFormatError: naming `path` and what is wrong.
        """
        try:
            row = parse(text)
        except ValueError as error:
            raise StoreFormatError(f"{path} is not JSON: {error}") from error
        check_format(row, FORMAT, path, "Update tts-generate, or record again.", error=StoreFormatError)
        known = {field.name for field in dataclasses.fields(cls)}
        for name in set(row) - known:
            raise UnknownNameError.of(f"field of {path}", name, known)
        missing = known - set(row)
        if missing:
            raise StoreFormatError(f"{path} lacks {', '.join(sorted(missing))}.")
        try:
            return cls(**row)
        except StoreFormatError as error:
            raise StoreFormatError(f"{path} is of no recording: {error}") from error

    def to_json(self) -> str:
        """Indented JSON, the format named first."""
        row = {"format": self.format, **dataclasses.asdict(self)}
        return json.dumps(row, indent=2, sort_keys=False, ensure_ascii=False) + "\n"

    def difference(self, other: Manifest) -> str:
        """The fields in which two recordings differ, versions of libraries left out; "" if they can be one store.

        Versions may change between two sittings; settings may not.
        """
        names = [f.name for f in dataclasses.fields(self) if f.name != "versions"]
        here, there = self.published().spelt_out, other.published().spelt_out
        if not all("chat_template" in each.tokenizer for each in (here, there)):  # one is older, or none is of a chat
            here, there = here.without_template(), there.without_template()
        return "; ".join(
            f"{name}: {getattr(self, name)!r} here, {getattr(other, name)!r} asked for"
            for name in names
            if getattr(here, name) != getattr(there, name)
        )

    @property
    def hashed(self) -> bool:
        """Whether it has a hash of its questions; stores that were not recorded may have none."""
        return re.fullmatch("[0-9a-f]{64}", self.questions_sha256) is not None

    def misfit(self, row: Trajectory) -> str:
        """Why a branch cannot be one of this recording; "" if it can."""
        return misfit(row, self.interval_tokens, self.source, self.branches)

    @property
    def answer_pattern(self) -> str | None:
        """How its answers were read; boxes, where it is from before there were names of formats."""
        asked = self.probe.get("format")
        return str(asked.get("answer_pattern") or "boxed") if isinstance(asked, dict) else None

    @property
    def spelt_out(self) -> Manifest:
        """The same, with what older recordings leave unsaid of how the model was asked."""
        if self.answer_pattern is None:
            return self
        asked = {"force_answer": False, **self.probe["format"], "answer_pattern": self.answer_pattern}
        return dataclasses.replace(self, probe={**self.probe, "format": asked})

    def without_template(self) -> Manifest:
        """The same, but for which chat template its questions stand in."""
        rest = {name: value for name, value in self.tokenizer.items() if name != "chat_template"}
        return dataclasses.replace(self, tokenizer=rest)

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
    names = [field.name for field in dataclasses.fields(Question)]
    rows = ({name: getattr(question, name) for name in names} for question in questions)
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def questions_sha256(questions: Sequence[Question]) -> str:
    """A hash of ids, texts and gold answers, in order: that of questions.jsonl."""
    return hashlib.sha256(questions_to_jsonl(questions).encode()).hexdigest()


def read_manifest(store: Path) -> Manifest:
    """The manifest of a store's folder.

    Raises:
        StoreFormatError: it is damaged, or of no recording.
    """
    return Manifest.from_json(read_text(store / "manifest.json"), store / "manifest.json")


def read_questions(store: Path, manifest: Manifest | None) -> tuple[Question, ...]:
    """The questions of a store's folder, which are those that its manifest, if there is one, has a hash of.

    Raises:
        StoreFormatError: they are others, or the file is damaged.
    """
    file = store / "questions.jsonl"
    questions = questions_from_jsonl(read_text(file), file)
    if manifest is not None and manifest.hashed and questions_sha256(questions) != manifest.questions_sha256:
        raise StoreFormatError(
            f"{file} is not the file that manifest.json was written with: its questions_sha256 differs, so a question "
            "or a right answer was changed, added or lost."
        )
    return questions


def questions_from_jsonl(text: str, path: object) -> tuple[Question, ...]:
    """Questions from JSON lines `{"question_id", "question", "gold_answer"}`.

    Raises:
        StoreFormatError: naming file, line and what is wrong.
    """
    questions: list[Question] = []
    for number, line in enumerate(text.split("\n"), 1):  # no other end of a line: texts may hold those
        if not line.strip():
            continue
        try:
            questions.append(Question(**parse(line)))
        except (ValueError, TypeError) as error:
            raise StoreFormatError(
                f'{path}, line {number}: expected {{"question_id", "question", "gold_answer"}}, {error}.'
            ) from error
    if questions:
        name, count = Counter(question.question_id for question in questions).most_common(1)[0]
        if count > 1:
            raise StoreFormatError(f"{path}: question_id {name!r} stands twice; ids must differ.")
    return tuple(questions)
