"""Imports the tables that the authors of AutoTTS published (arXiv 2605.08083) as a trajectory store."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.errors import StoreFormatError
from tts_generate.trajectories.schema import Manifest, Question, Trajectory, questions_sha256
from tts_generate.trajectories.store import StoreWriter, TrajectoryStore


@checked
def import_autotts(json_file: str | Path, out: str | Path, *, model: str | None = None) -> TrajectoryStore:
    """Write a published table as a store: probes free of charge, every branch read to its end.

    Args:
        json_file: a list of `{question, each_branch, gold_answer, probe_freq}`, a branch being
            `[[answers of its probes], [tokens, final answer]]` or `[[answers], tokens, final answer]`.
        out: folder of the store.
        model: name to note; the file's folder if left out.

    Raises:
        StoreFormatError: naming the file, the question and the branch that is not as expected.
    """
    path = Path(json_file)
    try:
        table = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise StoreFormatError(f"{path} is not a readable JSON table: {error}") from error
    if not isinstance(table, list) or not table:
        raise StoreFormatError(f"{path} must hold a list of questions, got {type(table).__name__}.")
    questions, trajectories, intervals = [], [], set()
    for number, entry in enumerate(table):
        where = f"{path}, question {number}"
        try:
            question_id = f"{path.stem}/{number:04d}"
            questions.append(Question(question_id, str(entry["question"]), str(entry["gold_answer"])))
            intervals.add(int(entry["probe_freq"]))
            branches = [
                _branch(question_id, branch, row, int(entry["probe_freq"]))
                for branch, row in enumerate(entry["each_branch"])
            ]
        except (KeyError, TypeError, ValueError) as error:
            raise StoreFormatError(f"{where} is not an AutoTTS table: {type(error).__name__} {error}.") from error
        trajectories += branches
    if len(intervals) != 1:
        raise StoreFormatError(f"{path}: all questions must have one probe_freq, got {sorted(intervals)}.")
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
    return TrajectoryStore.open(out)


def _branch(question_id: str, branch: int, row: Any, interval_tokens: int) -> Trajectory:
    answers, *end = row
    tokens, final = end[0] if len(end) == 1 else end
    probes = len(answers)
    return Trajectory(
        question_id=question_id,
        branch=branch,
        seed=None,
        prompt_tokens=0,
        tokens=int(tokens),
        finish_reason="eos",
        final_answer=str(final),
        probe_positions=tuple(interval_tokens * (k + 1) for k in range(probes)),
        probe_answers=tuple(map(str, answers)),
        probe_tokens=(0,) * probes,
        probe_logprobs=(None,) * probes,
        step_logprobs=(),
    )
