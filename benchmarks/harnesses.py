"""The same questions and seed in every harness: how many answers and tokens are those of our own evaluation.

    python benchmarks/harnesses.py benchmarks/results/harnesses.json [--model FOLDER]

CMC (β = 0.5 for the tiny model, 0 for another) by `generate` alone, by a `pipeline`, by lm-eval (all questions at once,
and 5 at a time), by Inspect and by the evaluator; seconds are those of one run on whatever else the machine does.
Questions are the tiny model's own; a model in a folder is asked those of `real_questions.jsonl` that are kept aside, as
plain text. The file holds both.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from datasets import Dataset
from inspect_ai import Task
from inspect_ai import eval as inspect_eval
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import pattern
from lm_eval.tasks import TaskManager
from real_questions import FILE
from transformers import AutoModelForCausalLM, AutoTokenizer, pipeline

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from with_lm_eval import TASK

from tts_generate import enable, tiny
from tts_generate.engine import AutoTTS
from tts_generate.harness.evaluators import TTSEvaluator
from tts_generate.harness.lm_eval import TTSLM, simple_evaluate
from tts_generate.trajectories import Question

QUESTIONS = 48
HOW: dict[str, Any] = {"controller": "cmc", "beta": 0.5, "seed": 1}
REAL = {
    "do_sample": True, "temperature": 0.7, "top_p": 0.95, "top_k": 0, "repetition_penalty": 1.0,
    "max_new_tokens": 48, "interval_tokens": 16,
}  # fmt: skip
Row = tuple[str | None, Any]
"""Answer of a question, and its generated and probe tokens; of a pipeline, which tells neither, the text twice."""


@dataclass(frozen=True)
class Asked:
    """A model and what it is asked."""

    model: Any
    tokenizer: Any
    questions: list[Question]
    how: dict[str, Any]

    @classmethod
    def of(cls, folder: Path | None) -> Asked:
        """The tiny model; or one in a folder, without its chat template, so that all harnesses send the same text."""
        if folder is None:
            return cls(*tiny.load(), tiny.questions("test")[:QUESTIONS], HOW)
        model, tokenizer = AutoModelForCausalLM.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
        model.generation_config.update(**REAL)
        tokenizer.chat_template = None
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        lines = [line for line in map(json.loads, FILE.read_text("utf-8").splitlines()) if line["set"] == "aside"]
        asked = [
            Question(line["question_id"], f"Question: {line['question']}\nAnswer: The answer is", line["gold_answer"])
            for line in lines[:QUESTIONS]
        ]
        return cls(model, tokenizer, asked, {**HOW, "beta": 0.0})

    @property
    def texts(self) -> list[str]:
        """The questions alone."""
        return [question.question for question in self.questions]


def output_of(asked: Asked) -> Any:
    """By `generate`, all questions at once."""
    batch = asked.tokenizer(asked.texts, return_tensors="pt", padding=True, padding_side="left")
    recipe = AutoTTS(tokenizer=asked.tokenizer, **asked.how)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    return asked.model.generate(**inputs, custom_generate=recipe, return_dict_in_generate=True).whole()


def own(asked: Asked) -> list[Row]:
    """By `generate`, with what it tells."""
    output = output_of(asked)
    return [(a, (c.generated_tokens, c.probe_tokens)) for a, c in zip(output.answers, output.cost, strict=True)]


def own_texts(asked: Asked) -> list[Row]:
    """By `generate`, as text, white space apart: a tokenizer may write it otherwise beside a prompt."""
    said = asked.tokenizer.batch_decode(output_of(asked).sequences, skip_special_tokens=True)
    return [(text, text) for text in map("".join, map(str.split, said))]


def by_pipeline(asked: Asked) -> list[Row]:
    """By transformers' own pipeline, 8 at a time."""
    model = enable(asked.model, tokenizer=asked.tokenizer)
    pipe = pipeline("text-generation", model=model, tokenizer=asked.tokenizer)
    told = pipe(asked.texts, batch_size=8, strategy="autotts", **asked.how)
    return [(text, text) for text in ("".join(row["generated_text"].split()) for (row,) in told)]


def rows_of(accounts: list[dict[str, Any]]) -> list[Row]:
    """The same out of a harness's accounts."""
    return [(row["answer"], (row["generated_tokens"], row["probe_tokens"])) for row in accounts]


def by_lm_eval(batch_size: int | str) -> Callable[[Asked], list[Row]]:
    """By the model `tts` of lm-eval."""

    def run(asked: Asked) -> list[Row]:
        lm = TTSLM(asked.model, tokenizer=asked.tokenizer, batch_size=batch_size, **asked.how)
        tasks = TaskManager(include_defaults=False)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "test.jsonl"
            rows = [{"question": q.question, "gold_answer": q.gold_answer} for q in asked.questions]
            file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
            task = {**TASK, "dataset_kwargs": {"data_files": {"test": str(file)}}, "generation_kwargs": {"until": []}}
            results = simple_evaluate(lm, tasks=[task], bootstrap_iters=0, task_manager=tasks)
        assert results is not None
        accounts = results["config"]["tts"]["tasks"]["tiny_digits"]["by_question"]
        return rows_of(sorted(accounts, key=lambda row: row["doc_id"]))

    return run


def by_inspect(asked: Asked) -> list[Row]:
    """By the provider `tts` of Inspect."""
    samples = [Sample(input=q.question, target=q.gold_answer or "", id=q.question_id) for q in asked.questions]
    task = Task(dataset=MemoryDataset(samples), scorer=pattern(r"(?s).*boxed\{\s*(\d)"))
    provider = get_model("tts/it", pretrained=asked.model, tokenizer=asked.tokenizer, memoize=False, **asked.how)
    (log,) = inspect_eval(task, model=provider, display="none", log_dir=tempfile.mkdtemp())
    found = {sample.id: (sample.output.metadata or {})["tts"] for sample in log.samples or []}
    return rows_of([found[q.question_id] for q in asked.questions])


def by_evaluator(asked: Asked) -> list[Row]:
    """By the evaluator, whose metric tells tokens together and answers as right or wrong."""
    columns = {"question": asked.texts, "gold_answer": [q.gold_answer for q in asked.questions]}
    told: list[dict[str, Any]] = []

    class Kept:
        def compute(self, predictions: list[str | None], **columns: Any) -> dict[str, Any]:
            kinds = zip(predictions, columns["generated_tokens"], columns["probe_tokens"], strict=True)
            told.extend({"answer": a, "generated_tokens": g, "probe_tokens": p} for a, g, p in kinds)
            return {}

    TTSEvaluator().compute(
        asked.model, Dataset.from_dict(columns), tokenizer=asked.tokenizer, metric=Kept(), progress=False, **asked.how
    )
    return rows_of(told)


WAYS: dict[str, tuple[Callable[[Asked], list[Row]], Callable[[Asked], list[Row]]]] = {
    "own": (own, own),
    "pipeline": (by_pipeline, own_texts),
    "lm_eval_auto": (by_lm_eval("auto"), own),
    "lm_eval_5": (by_lm_eval(5), own),
    "inspect": (by_inspect, own),
    "evaluator": (by_evaluator, own),
}
"""Each way, and what it must be equal to."""


def compared(asked: Asked) -> dict[str, Any]:
    """Each way beside our own."""
    expected: dict[Callable[[Asked], list[Row]], list[Row]] = {}
    ways = {}
    for name, (way, beside) in WAYS.items():
        if beside not in expected:
            expected[beside] = beside(asked)
        start = time.perf_counter()
        found = way(asked)
        pairs = list(zip(found, expected[beside], strict=True))
        ways[name] = {
            "equal_answers": sum(ours[0] == theirs[0] for ours, theirs in pairs),
            "equal_tokens": sum(ours[1] == theirs[1] for ours, theirs in pairs),
            "seconds": round(time.perf_counter() - start, 2),
        }
        print(name, ways[name], flush=True)
    answered = sum(answer is not None for answer, _ in expected[own])
    return {"questions": len(asked.questions), "answered": answered, "ways": ways}


def main(
    out: Annotated[Path, typer.Argument(help="The file.")],
    model: Annotated[Path | None, typer.Option(help="Folder of a model; the tiny one if left out.")] = None,
) -> None:
    """Run each, compare, write the JSON."""
    torch.set_num_threads(1)
    result = json.loads(out.read_text("utf-8")) if out.exists() else {"format": "tts-harnesses/1"}
    found = compared(Asked.of(model))
    if model is None:
        result.update(found)
    else:
        result["real"] = {"model": model.name, **found}
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
