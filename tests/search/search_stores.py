"""Small stores for searches: questions of rising difficulty, whose short branches are right more often."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

from tts_generate.search import Fidelity, Setup
from tts_generate.trajectories import Manifest, Question, StoreWriter, Trajectory, TrajectoryStore
from tts_generate.trajectories.schema import questions_sha256

BRANCHES = 24
FEW = {
    "rungs": (Fidelity((0.0, 1.0), 2, 1_000), Fidelity((0.0, 0.5, 1.0), 3, 2_000)),
    "select": Fidelity((0.0, 0.5, 1.0), 3, 5_000),
    "fresh": Fidelity((0.0, 0.5, 1.0), 4, 0),
}


def make_store(
    folder: Path, questions: int = 8, branches: int = BRANCHES, *, seed: int = 0, right: float | None = None
) -> Path:
    """Write a store; `right` is the share of right branches, rising from question to question if left out."""
    rng = random.Random(seed)
    asked = [Question(f"q{n}", f"what is {n} ?", "1") for n in range(questions)]
    manifest = Manifest(
        interval_tokens=10, branches=branches, seed=0, model={"name_or_path": "m"}, tokenizer={}, generation_config={},
        probe={}, versions={}, source="recorded", questions_sha256=questions_sha256(asked),
    )  # fmt: skip
    rows = [
        _branch(rng, question.question_id, b, (n + 1) / (questions + 1) if right is None else right)
        for n, question in enumerate(asked)
        for b in range(branches)
    ]
    with StoreWriter.open(folder, manifest, asked) as writer:
        writer.append(rows)
    return folder


def _branch(rng: random.Random, question: str, branch: int, right: float) -> Trajectory:
    tokens = rng.randint(15, 300)
    answer = "1" if rng.random() < right * (1.3 if tokens < 120 else 0.8) or right == 1.0 else rng.choice("234")
    probes = -(-tokens // 10) - 1
    return Trajectory(
        question_id=question, branch=branch, seed=0, prompt_tokens=4, tokens=tokens, finish_reason="eos",
        final_answer=answer, probe_positions=tuple(10 * (k + 1) for k in range(probes)),
        probe_answers=tuple(rng.choice([answer, "5", None]) for _ in range(probes)), probe_tokens=(1,) * probes,
        probe_logprobs=(None,) * probes, step_logprobs=(),
    )  # fmt: skip


def without_answers(store: Path, folder: Path, count: int) -> Path:
    """The same store, but that nobody knows the right answers of its first questions."""
    whole = TrajectoryStore.open(store)
    asked = [replace(q, gold_answer=None) if n < count else q for n, q in enumerate(whole.questions)]
    manifest = replace(whole.manifest, questions_sha256=questions_sha256(asked))
    with StoreWriter.open(folder, manifest, asked) as writer:
        writer.append(whole.trajectories())
    return folder


def setup(*stores: Path, **options: object) -> Setup:
    """A search that takes a second or two."""
    return Setup(stores, **{**FEW, **options})  # type: ignore[arg-type]
