"""evaluate's evaluator and evaluation suite for test-time scaling: controllers at budgets, accuracy and cost.

evaluate's own `evaluator("text-generation")` works with an enabled model as well,
and hands the texts to a metric; this one knows the answers and what they took.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset
from evaluate import EvaluationSuite, TextGenerationEvaluator
from evaluate.evaluation_suite import SubTask

from tts_generate.controller import Controller
from tts_generate.engine.generate import EnabledGenerate
from tts_generate.engine.given import padded
from tts_generate.errors import InputError
from tts_generate.harness.asking import Answered, Asker, PromptBatch
from tts_generate.loading import DEFAULT_CONTROLLER, chosen
from tts_generate.metrics.grading import Grader
from tts_generate.metrics.tts_accuracy_cost.tts_accuracy_cost import TtsAccuracyCost, paired
from tts_generate.question_sets import gold_of
from tts_generate.tracking import Progress

_KINDS = ("prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens")


class TTSEvaluator(TextGenerationEvaluator):
    """Answers the questions of a data set with a controller, and grades answers and tokens by `tts_accuracy_cost`."""

    def compute(
        self,
        model_or_pipeline: Any,
        data: str | Dataset,
        *,
        subset: str | None = None,
        split: str | None = None,
        metric: Any = None,
        tokenizer: Any = None,
        input_column: str = "question",
        label_column: str = "gold_answer",
        controller: str | Path | Controller = DEFAULT_CONTROLLER,
        beta: float | None = None,
        seed: int = 0,
        max_new_tokens: int | None = None,
        baseline: dict[str, Any] | None = None,
        votes: str = "math",
        progress: bool = True,
        report_to: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """What the metric says, with `seconds` of the whole and the share of answers that were `truncated`.

        Args:
            model_or_pipeline: an enabled model, a text-generation pipeline, or any model with `tokenizer`.
            data: a data set, or its name.
            subset: of a named data set.
            split: of a named data set.
            metric: something like `tts_accuracy_cost`, which is taken if None.
            tokenizer: left out with an enabled model or a pipeline.
            input_column: the prompts.
            label_column: the right answers, read as `load_questions` reads them: also solutions with `####` or a box.
            controller: see `AutoTTS`.
            beta: the budget in [0, 1].
            seed: of the branches.
            max_new_tokens: tokens of a branch at most; as the model's generation config has it if None.
            baseline: `by_question` of an earlier result on the same data.
            votes: which answers are one when they are graded: "math" or "equal".
            progress: show a bar, with the tokens saved so far.
            report_to: "trackio", or None.
            **options: for `AutoTTS` and `generate`.

        Raises:
            InputError: an answer, the baseline or an option is of no use; nothing is asked then.
        """
        Grader(votes)  # says what is missing
        model, tokenizer = _parts(model_or_pipeline, tokenizer)
        asker = Asker(model, tokenizer, controller=controller, beta=beta, **options)
        rows = self.load_data(data=data, subset=subset, split=split)
        self.check_required_columns(rows, {"input_column": input_column, "label_column": label_column})
        references = _golds(rows[label_column], label_column)
        if baseline is not None:
            paired(baseline, len(rows))
        length = model.generation_config.max_new_tokens if max_new_tokens is None else max_new_tokens
        if length is None:
            raise InputError("max_new_tokens is neither given nor in the model's generation config; pass it.")
        prompts = [list(tokenizer(prompt)["input_ids"]) for prompt in rows[input_column]]
        request = PromptBatch(*padded(prompts, model.device), length, seed)
        found: list[Answered | None] = [None] * len(rows)
        described = {"controller": asker.controller, "seed": seed}
        with Progress(
            len(rows), _label(controller, beta), shown=progress, report_to=report_to, config=described
        ) as bar:
            for number, answered in asker.ask(request):
                found[number] = answered
                bar.add(answered.cost, answered.branches, None if baseline is None else baseline["tokens"][number])
        done = [answered for answered in found if answered is not None]
        told: dict[str, Any] = (metric or TtsAccuracyCost()).compute(
            predictions=[answered.answer for answered in done],
            references=references,
            **{kind: [getattr(answered.cost, kind) for answered in done] for kind in _KINDS},
            baseline=baseline,
            votes=votes,
        )
        told["truncated"] = sum(answered.truncated for answered in done) / max(1, len(done))
        return {**told, "seconds": max((answered.seconds for answered in done), default=0.0)}


class ControllerSuite(EvaluationSuite):
    """An evaluation suite of controllers; each is compared with the first.

    A file with a class `Suite` of this kind, which sets `self.suite` to what `controllers_by_budgets` makes, is run by
    `EvaluationSuite.load(path).run(model)`.
    """

    suite: list[SubTask]

    def run(self, model_or_pipeline: Any) -> list[dict[str, Any]]:
        """One result a subtask, in order, with its `task_name`.

        Raises:
            TTSError: one of the controllers is of no use; nothing is asked then.
        """
        self.assert_suite_nonempty()
        for task in self.suite:  # before the first is asked
            asked = task.args_for_task or {}
            chosen(asked.get("controller", DEFAULT_CONTROLLER), asked)
        results: list[dict[str, Any]] = []
        for task in self.suite:
            arguments = {"subset": task.subset, "split": task.split, **(task.args_for_task or {})}
            data, evaluator = task.data, TTSEvaluator()
            if task.data_preprocessor is not None:
                data = evaluator.load_data(data, subset=task.subset, split=task.split).map(task.data_preprocessor)
            baseline = results[0]["by_question"] if results else None
            told = evaluator.compute(model_or_pipeline, data, baseline=baseline, **arguments)
            name = _label(arguments.get("controller", DEFAULT_CONTROLLER), arguments.get("beta"))
            results.append({"task_name": name, **told})
        return results


def controllers_by_budgets(
    data: str | Dataset, controllers: Sequence[str], betas: Sequence[float], **arguments: Any
) -> list[SubTask]:
    """A subtask for each controller at each budget, after self-consistency of 64 for a baseline.

    Args:
        data: a data set, or its name.
        controllers: names or folders.
        betas: budgets.
        **arguments: for `TTSEvaluator.compute`, such as `input_column` or `baseline_samples`, 64 if left out.
    """
    split, subset = arguments.pop("split", None), arguments.pop("subset", None)
    samples = arguments.pop("baseline_samples", 64)
    many: dict[str, Any] = {"controller": "self_consistency", "controller_kwargs": {"max_samples": samples}}
    grid: list[dict[str, Any]] = [{"controller": name, "beta": beta} for name in controllers for beta in betas]
    return [
        SubTask("text-generation", data, subset, split, args_for_task={**arguments, **how}) for how in [many, *grid]
    ]


def _golds(column: Sequence[Any], name: str) -> list[str]:
    """The right answers of a data set's column."""
    found = []
    for number, value in enumerate(column):
        gold = gold_of(value)
        if gold is None:
            raise InputError(f"row {number}, column {name!r} states no answer: {value!r:.80}; leave the row out.")
        found.append(gold)
    return found


def _label(controller: str | Path | Controller, beta: float | None) -> str:
    name = type(controller).__name__ if isinstance(controller, Controller) else str(controller)
    return name if beta is None else f"{name} β={beta:g}"


def _parts(model_or_pipeline: Any, tokenizer: Any) -> tuple[Any, Any]:
    model = getattr(model_or_pipeline, "model", None) if hasattr(model_or_pipeline, "task") else model_or_pipeline
    bound = getattr(model, "generate", None)
    found = tokenizer or getattr(model_or_pipeline, "tokenizer", None)
    if found is None and isinstance(bound, EnabledGenerate):
        found = bound.tokenizer
    if bound is None or found is None:
        raise InputError(
            f"the evaluator takes an enabled model, a text-generation pipeline, or a model with tokenizer=…, got "
            f"{type(model_or_pipeline).__name__}."
        )
    return model, found
