"""evaluate's evaluators and suites with an enabled model: the numbers of our own evaluation."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import evaluate
import pytest
from datasets import Dataset
from harness_tasks import LENGTH, QUESTIONS, SEED
from harness_tasks import expected as known
from transformers import pipeline
from transformers.utils import logging

import tts_generate
from tts_generate import Deadline, metrics, tiny
from tts_generate.errors import InputError, TTSError
from tts_generate.harness.evaluators import ControllerSuite, TTSEvaluator, controllers_by_budgets
from tts_generate.metrics.tts_accuracy_cost.tts_accuracy_cost import TtsAccuracyCost

DATA = Dataset.from_dict(
    {"question": [q.question for q in QUESTIONS], "gold_answer": [q.gold_answer for q in QUESTIONS]}
)
HOW: dict[str, Any] = {"controller": "cmc", "beta": 0.0, "seed": SEED, "max_new_tokens": LENGTH}


@pytest.fixture(scope="module")
def enabled() -> tuple[Any, Any]:
    model, tokenizer = tiny.load()
    return tts_generate.enable(model, tokenizer=tokenizer), tokenizer


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))


def right(output: Any) -> float:
    graded = [answer == question.gold_answer for answer, question in zip(output.answers, QUESTIONS, strict=True)]
    return sum(graded) / len(graded)


class Graded:
    """A metric that is given texts only, as `evaluator("text-generation")` does."""

    def compute(self, data: list[str]) -> dict[str, Any]:
        maj = evaluate.load(metrics.path("maj_at_k"), keep_in_memory=True)
        references = [question.gold_answer for question in QUESTIONS]
        told: dict[str, Any] = maj.compute(predictions=[[text] for text in data], references=references, votes="equal")
        return told


@pytest.mark.long
def test_evaluates_own_evaluator_with_an_enabled_model(enabled: tuple[Any, Any]) -> None:
    """Its evaluator passes on no keywords of its own; they go where its pipeline keywords are kept."""
    model, tokenizer = enabled
    task = evaluate.evaluator("text-generation")
    task.PIPELINE_KWARGS = {"strategy": "autotts", **HOW}
    found = task.compute(
        model_or_pipeline=model, tokenizer=tokenizer, data=DATA, input_column="question", metric=Graded()
    )
    assert found["maj@1"] == pytest.approx(right(known()))


def test_evaluates_own_evaluator_fails_on_pipelines_by_itself(enabled: tuple[Any, Any]) -> None:
    """On any, under transformers 5. When this fails, evaluate has mended it: change docs/harnesses.md."""
    pipe = pipeline("text-generation", model=enabled[0], tokenizer=enabled[1])
    with pytest.raises(AttributeError, match="TFPreTrainedModel"):
        evaluate.evaluator("text-generation").compute(pipe, DATA, input_column="question", metric=Graded())


def test_ours_counts_tokens_too(enabled: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    expected = known()
    model, tokenizer = enabled
    pipe = pipeline("text-generation", model=model, tokenizer=tokenizer)
    found = [TTSEvaluator().compute(model, DATA, **HOW), TTSEvaluator().compute(pipe, DATA, progress=False, **HOW)]
    stock = tiny.load()
    found.append(TTSEvaluator().compute(stock[0], DATA, tokenizer=stock[1], **HOW, progress=False))
    for told in found:
        assert told["accuracy"] == pytest.approx(right(expected))
        tokens = [cost.generated_tokens + cost.probe_tokens for cost in expected.cost or []]
        assert told["by_question"]["tokens"] == tokens
    bar = capsys.readouterr().err
    assert bar.count("saved of SC@64") >= 1
    assert "cmc β=0" in bar


def test_bars_follow_the_switch_of_transformers(enabled: tuple[Any, Any], capsys: pytest.CaptureFixture[str]) -> None:
    logging.disable_progress_bar()
    try:
        TTSEvaluator().compute(enabled[0], DATA, **HOW)
    finally:
        logging.enable_progress_bar()
    assert capsys.readouterr().err == ""


@pytest.mark.long
def test_controllers_by_budgets(enabled: tuple[Any, Any]) -> None:
    suite = ControllerSuite("tiny")
    suite.suite = controllers_by_budgets(
        DATA, ["cmc", "asc"], [0.0], baseline_samples=8, seed=SEED, max_new_tokens=LENGTH, progress=False
    )
    results = suite.run(enabled[0])
    assert [told["task_name"] for told in results] == ["self_consistency", "cmc β=0", "asc β=0"]
    first = results[0]
    assert "saving" not in first
    for told in results[1:]:
        assert told["saving"] == pytest.approx(1 - told["tokens"] / first["tokens"])
        assert told["points"] == pytest.approx(100 * (told["accuracy"] - first["accuracy"]))


def test_what_is_missing_is_named(enabled: tuple[Any, Any]) -> None:
    with pytest.raises(InputError, match="tokenizer"):
        TTSEvaluator().compute(tiny.load()[0], DATA, **HOW)
    with pytest.raises(ValueError, match="no_such_column"):
        TTSEvaluator().compute(enabled[0], DATA, input_column="no_such_column", **HOW)
    empty = ControllerSuite("empty")
    empty.suite = []
    with pytest.raises(ValueError, match="No evaluation tasks"):
        empty.run(enabled[0])


def test_right_answers_are_read_as_questions_of_a_data_set_are(enabled: tuple[Any, Any]) -> None:
    """GSM8K states them behind `####`, of which none was ever right; numbers ended the call after all was answered."""
    solutions = [f"6 + 1 = 7\n#### {gold}" for gold in DATA["gold_answer"]]
    numbers = [int(gold) for gold in DATA["gold_answer"]]
    told = []
    for labels in (DATA["gold_answer"], solutions, numbers):
        few = Dataset.from_dict({"question": DATA["question"][:4], "answer": labels[:4]})
        found = TTSEvaluator().compute(enabled[0], few, label_column="answer", votes="equal", progress=False, **HOW)
        told.append(found["by_question"])
    assert told[0] == told[1] == told[2]


@pytest.mark.parametrize(
    ("given", "match"),
    [
        ({"baseline": {"tokens": [1]}}, "baseline must hold tokens and correct of the same"),
        ({"baseline": {"tokens": [0, 1, 1, 1], "correct": [1] * 4}}, "of tokens one or more"),
        ({"baseline": {"tokens": ["a"] * 4, "correct": [1] * 4}}, "numbers"),
        ({"baseline": [1]}, "baseline must hold"),
        ({"votes": "x"}, "unknown votes 'x'"),
        ({"label_column": "why"}, "row 0, column 'why' states no answer"),
        ({"max_new_tokens": 0}, "max_new_tokens"),
    ],
)
def test_what_is_of_no_use_is_found_out_before_anything_is_asked(
    enabled: tuple[Any, Any], given: dict[str, Any], match: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = DATA.add_column("why", ["we add\nthem"] * len(DATA))
    asked: list[Any] = []
    monkeypatch.setattr(enabled[0], "forward", lambda *args, **kwargs: asked.append(args))
    with pytest.raises((InputError, ValueError, TTSError), match=match):
        TTSEvaluator().compute(enabled[0], data, progress=False, **{**HOW, "votes": "equal", **given})
    assert not asked


def test_questions_without_a_token_end_no_evaluation(enabled: tuple[Any, Any]) -> None:
    """Their time was up before any: accuracy and tokens of all are told."""
    told = TTSEvaluator().compute(enabled[0], DATA, branch_processors=[Deadline(1e-9)], progress=False, **HOW)
    assert (told["tokens"], told["accuracy"]) == (0.0, 0.0)
    given = {kind: [1, 1] for kind in ("prompt_tokens", "probe_tokens", "wasted_tokens")}
    given |= {"generated_tokens": [0, 8], "probe_tokens": [0, 0]}
    some = TtsAccuracyCost().compute(predictions=["1", "2"], references=["1", "2"], votes="equal", **given)
    assert (some["tokens_per_correct"], some["tokens_per_correct_ci"]) == (4.0, None)


def test_controllers_of_a_suite_are_checked_before_the_first_is_asked(
    enabled: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    suite, asked = ControllerSuite("tiny"), []
    suite.suite = controllers_by_budgets(DATA, ["cmc", "cmcc"], [0.0], seed=SEED, max_new_tokens=LENGTH, progress=False)
    monkeypatch.setattr(enabled[0], "forward", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(TTSError, match="did you mean 'cmc'"):
        suite.run(enabled[0])
    assert not asked
