"""The same questions and seed in every harness: how many answers and tokens are those of our own evaluation.

    python benchmarks/harnesses.py benchmarks/results/harnesses.json

CMC β = 0.5 on questions of the tiny model, by `generate` alone, by lm-eval (all questions at once, and 5 at a time), by
Inspect and by the evaluator; seconds are those of one run on whatever else the machine does.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import pattern
from lm_eval.tasks import TaskManager

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from with_lm_eval import TASK

from tts_generate import tiny
from tts_generate.engine import AutoTTS
from tts_generate.harness.evaluators import TTSEvaluator
from tts_generate.harness.lm_eval import TTSLM, simple_evaluate

QUESTIONS = 48
HOW: dict[str, Any] = {"controller": "cmc", "beta": 0.5, "seed": 1}
Rows = list[tuple[str | None, int, int]]
"""Answer, generated and probe tokens of each question."""


def own(model: Any, tokenizer: Any) -> Rows:
    """By `generate`, all questions at once."""
    asked = [question.question for question in tiny.questions("test")[:QUESTIONS]]
    batch = tokenizer(asked, return_tensors="pt", padding=True, padding_side="left")
    output = model.generate(
        **{name: batch[name] for name in ("input_ids", "attention_mask")},
        custom_generate=AutoTTS(tokenizer=tokenizer, **HOW),
        return_dict_in_generate=True,
    )
    return [(a, c.generated_tokens, c.probe_tokens) for a, c in zip(output.answers, output.cost, strict=True)]


def rows_of(accounts: list[dict[str, Any]]) -> Rows:
    """The same out of a harness's accounts."""
    return [(row["answer"], row["generated_tokens"], row["probe_tokens"]) for row in accounts]


def by_lm_eval(batch_size: int | str) -> Callable[[Any, Any], Rows]:
    """By the model `tts` of lm-eval."""

    def run(model: Any, tokenizer: Any) -> Rows:
        lm = TTSLM(model, tokenizer=tokenizer, batch_size=batch_size, **HOW)
        tasks = TaskManager(include_defaults=False)
        results = simple_evaluate(lm, tasks=[TASK], limit=QUESTIONS, bootstrap_iters=0, task_manager=tasks)
        assert results is not None
        accounts = results["config"]["tts"]["tasks"]["tiny_digits"]["by_question"]
        return rows_of(sorted(accounts, key=lambda row: row["doc_id"]))

    return run


def by_inspect(model: Any, tokenizer: Any) -> Rows:
    """By the provider `tts` of Inspect."""
    asked = tiny.questions("test")[:QUESTIONS]
    samples = [Sample(input=q.question, target=q.gold_answer, id=q.question_id) for q in asked]
    task = Task(dataset=MemoryDataset(samples), scorer=pattern(r"(?s).*boxed\{\s*(\d)"))
    provider = get_model("tts/tiny", pretrained=model, tokenizer=tokenizer, memoize=False, **HOW)
    (log,) = inspect_eval(task, model=provider, display="none", log_dir=tempfile.mkdtemp())
    found = {sample.id: (sample.output.metadata or {})["tts"] for sample in log.samples or []}
    return rows_of([found[q.question_id] for q in asked])


def by_evaluator(model: Any, tokenizer: Any) -> Rows:
    """By the evaluator, whose metric tells tokens together and answers as right or wrong."""
    asked = tiny.questions("test")[:QUESTIONS]
    data = Dataset.from_dict({"question": [q.question for q in asked], "gold_answer": [q.gold_answer for q in asked]})
    told: list[dict[str, Any]] = []

    class Kept:
        def compute(self, predictions: list[str | None], **columns: Any) -> dict[str, Any]:
            kinds = zip(predictions, columns["generated_tokens"], columns["probe_tokens"], strict=True)
            told.extend({"answer": a, "generated_tokens": g, "probe_tokens": p} for a, g, p in kinds)
            return {}

    TTSEvaluator().compute(model, data, tokenizer=tokenizer, metric=Kept(), progress=False, **HOW)
    return rows_of(told)


def main(out: Path) -> None:
    """Run each, compare, write the JSON."""
    torch.set_num_threads(1)
    model, tokenizer = tiny.load()
    ways: dict[str, Callable[[Any, Any], Rows]] = {
        "own": own,
        "lm_eval_auto": by_lm_eval("auto"),
        "lm_eval_5": by_lm_eval(5),
        "inspect": by_inspect,
        "evaluator": by_evaluator,
    }
    result: dict[str, Any] = {"format": "tts-harnesses/1", "questions": QUESTIONS, "ways": {}}
    expected: Rows = []
    for name, way in ways.items():
        start = time.perf_counter()
        found = way(model, tokenizer)
        expected = expected or found
        result["ways"][name] = {
            "equal_answers": sum(ours[0] == theirs[0] for ours, theirs in zip(found, expected, strict=True)),
            "equal_tokens": sum(ours[1:] == theirs[1:] for ours, theirs in zip(found, expected, strict=True)),
            "seconds": round(time.perf_counter() - start, 2),
        }
        print(name, result["ways"][name])
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
