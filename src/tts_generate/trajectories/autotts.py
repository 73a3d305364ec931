"""Imports the tables that the authors of AutoTTS published (arXiv 2605.08083) as a trajectory store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.errors import StoreFormatError
from tts_generate.trajectories.fields import shown
from tts_generate.trajectories.files import parse, read_text
from tts_generate.trajectories.schema import Manifest, Question, Trajectory, questions_sha256
from tts_generate.trajectories.store import StoreWriter, TrajectoryStore


@checked
def import_autotts(json_file: str | Path, out: str | Path, *, model: str | None = None) -> TrajectoryStore:
    """Write a published table as a store: probes free of charge, every branch read to its end.

    Args:
        json_file: a list of `{question, each_branch, gold_answer, probe_freq}`, a branch being
            `[[answers of its probes], [tokens, final answer]]` or `[[answers], tokens, final answer]`.
        out: folder of the store; one of an import of the same table is gone on with.
        model: name to note; the file's folder if left out.

    Raises:
        StoreFormatError: naming the file, the question and the branch that is not as expected.
    """
    path = Path(json_file)
    try:
        table = parse(read_text(path))
    except ValueError as error:
        raise StoreFormatError(f"{path} is not a readable JSON table: {error}") from error
    if not isinstance(table, list) or not table:
        raise StoreFormatError(f"{path} must hold a list of questions, got {type(table).__name__}.")
    questions, trajectories, intervals = [], [], set()
    for number, entry in enumerate(table):
        question_id = f"{path.stem}/{number:04d}"
        try:
            interval = entry["probe_freq"]
            intervals.add(interval)
            questions.append(Question(question_id, _text(entry["question"]), _text(entry["gold_answer"])))
            trajectories += [_branch(question_id, n, row, interval) for n, row in enumerate(entry["each_branch"])]
        except (KeyError, TypeError, ValueError, StoreFormatError) as error:
            raise StoreFormatError(
                f"{path}, question {number} is not an AutoTTS table: {type(error).__name__} {error}."
            ) from error
    if len(intervals) != 1:
        raise StoreFormatError(f"{path}: all questions must have one probe_freq, got {sorted(intervals, key=str)}.")
    if not trajectories:
        raise StoreFormatError(f"{path} holds no branch.")
    manifest = Manifest(
        interval_tokens=intervals.pop(),
        branches=max(len(entry["each_branch"]) for entry in table),
        seed=None,
        model={"name_or_path": model or path.parent.name},
        tokenizer={},
        generation_config={},
        probe={},
        versions={},
        source="autotts",
        questions_sha256=questions_sha256(questions),
    )
    with StoreWriter.open(out, manifest, questions) as writer:
        writer.append(trajectories)
    store = TrajectoryStore.open(out)
    there = {row.key: row for row in store.trajectories()}
    if there != (asked := {row.key: row for row in trajectories}):
        key = next(key for key in sorted({*there, *asked}) if there.get(key) != asked.get(key))
        raise StoreFormatError(
            f"{out} holds another import: branch {key[1]} of {key[0]!r} is not that of {path}. Import it into another "
            "folder."
        )
    return store


def _branch(question_id: str, branch: int, row: Any, interval_tokens: int) -> Trajectory:
    answers, *end = row
    tokens, final = end[0] if len(end) == 1 else end
    if not isinstance(answers, list):
        raise ValueError(f"a list of answers is expected, got {shown(answers)}")
    probes = len(answers)
    return Trajectory(
        question_id=question_id,
        branch=branch,
        seed=None,
        prompt_tokens=0,
        tokens=tokens,
        finish_reason="eos",
        final_answer=_text(final),
        probe_positions=tuple(interval_tokens * (k + 1) for k in range(probes)),
        probe_answers=tuple(map(_text, answers)),
        probe_tokens=(0,) * probes,
        probe_logprobs=(None,) * probes,
        step_logprobs=(),
    )


def _text(value: Any) -> str:
    """Text, or what some tables have for it: a number or null."""
    if isinstance(value, (list, dict)):
        raise ValueError(f"text is expected, got {shown(value)}")
    return str(value)
