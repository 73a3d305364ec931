"""The metrics, loaded as `evaluate` loads them and imported, against counting by hand."""

from __future__ import annotations

import itertools
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any, ClassVar

import evaluate
import numpy as np
import pytest
from huggingface_hub import RepoCard
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_generate import metrics
from tts_generate.errors import InputError, UnknownNameError
from tts_generate.metrics.grading import Grader
from tts_generate.metrics.maj_at_k.maj_at_k import MajAtK
from tts_generate.metrics.pass_at_k.pass_at_k import PassAtK
from tts_generate.metrics.tts_accuracy_cost.tts_accuracy_cost import TtsAccuracyCost
from tts_generate.statistics import maj_at_k, pass_at_k, ratio_interval

BRANCHES = [["1/2", r"so \boxed{0.5}", "3", ""], ["4", "5", "4", r"\boxed{5"]]
GOLD = ["0.5", r"thus \boxed{5}"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evaluate.config.HF_METRICS_CACHE", str(tmp_path / "metrics"))


def load(name: str, folder: str | None = None) -> Any:
    return evaluate.load(folder or metrics.path(name), keep_in_memory=True)


def drawn(items: list[str | None], k: int) -> tuple[float, float]:
    """maj@k and pass@k of the answer "R", by going through every way to draw k."""
    majority, passed = [], []
    for draw in itertools.combinations(items, k):
        votes = Counter(answer for answer in draw if answer is not None)
        top = [answer for answer in votes if votes[answer] == max(votes.values())]
        majority.append(1 / len(top) if "R" in top else 0.0)
        passed.append("R" in draw)
    return float(np.mean(majority)), float(np.mean(passed))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["R", "a", "b", "c", None]), min_size=1, max_size=8), st.data())
def test_at_k_is_the_mean_over_every_draw(items: list[str | None], data: Any) -> None:
    k = data.draw(st.integers(1, len(items)))
    counts = Counter(items)
    wrong = [counts[answer] for answer in "abc" if counts[answer]]
    expected = drawn(items, k)
    assert maj_at_k(counts["R"], wrong, counts[None], k) == pytest.approx(expected[0])
    assert pass_at_k(counts["R"], len(items), k) == pytest.approx(expected[1])


def test_tokens_that_are_all_one_are_no_share() -> None:
    """Twenty answers of one token each had an interval from 0.83 to 1 tokens."""
    kinds = {name: [1] * 20 for name in ("prompt_tokens", "generated_tokens")}
    kinds |= {name: [0] * 20 for name in ("probe_tokens", "wasted_tokens")}
    told = TtsAccuracyCost().compute(predictions=["7"] * 20, references=["7"] * 20, votes="equal", **kinds)
    assert told["tokens_ci"] == [1.0, 1.0]


def test_maj_at_k_by_mathematics_and_by_text() -> None:
    pytest.importorskip("math_verify")
    metric = load("maj_at_k")
    found = metric.compute(predictions=BRANCHES, references=GOLD, k=[1, 4])
    assert found["maj@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["maj@4"] == pytest.approx((1 + 0) / 2)
    assert found["maj@4_ci"][0] <= found["maj@4"] <= found["maj@4_ci"][1]
    by_text = metric.compute(predictions=BRANCHES, references=GOLD, k=4, votes="equal")
    assert by_text["maj@4"] == pytest.approx((1 / 3 + 0) / 2)
    assert MajAtK(keep_in_memory=True).compute(predictions=BRANCHES, references=GOLD, k=[1, 4]) == found


def test_maj_at_k_does_not_depend_on_the_order_of_predictions() -> None:
    """50 % is as 50 and as a half; whichever of these came first had its vote."""
    pytest.importorskip("math_verify")
    metric = MajAtK(keep_in_memory=True)
    predictions = ["50", r"50\%", r"50\%", "0.5", "0.5", "3", "3", "3"]
    orders = [predictions[first:] + predictions[:first] for first in range(8)]
    found = [metric.compute(predictions=[order], references=["3"], k=[3, 5, 8]) for order in orders]
    assert all(each == found[0] for each in found)
    assert found[0]["maj@8"] == 0.0  # the four of the half are more


def test_pass_at_k_by_mathematics_and_by_text() -> None:
    pytest.importorskip("math_verify")
    metric = load("pass_at_k")
    found = metric.compute(predictions=BRANCHES, references=GOLD, k=[1, 2])
    assert found["pass@1"] == pytest.approx((2 / 4 + 1 / 4) / 2)
    assert found["pass@2"] == pytest.approx(((1 - 1 / 6) + (1 - 3 / 6)) / 2)
    by_text = metric.compute(predictions=BRANCHES, references=GOLD, k=1, votes="equal")
    assert by_text["pass@1"] == pytest.approx(1 / 4)
    assert PassAtK(keep_in_memory=True).compute(predictions=BRANCHES, references=GOLD, k=[1, 2]) == found


class TestAccuracyAndCost:
    COSTS: ClassVar[dict[str, Any]] = {
        "prompt_tokens": [10, 10, 10, 10],
        "generated_tokens": [100, 200, 300, 400],
        "probe_tokens": [10, 20, 30, 40],
        "wasted_tokens": [0, 0, 100, 0],
    }
    ASKED: ClassVar[dict[str, Any]] = {"predictions": ["1", "2", None, "4"], "references": ["1", "2", "3", "5"]}

    def test_numbers(self) -> None:
        found = load("tts_accuracy_cost").compute(**self.ASKED, **self.COSTS, votes="equal")
        assert (found["accuracy"], found["tokens"], found["tokens_per_correct"]) == (0.5, 275.0, 550.0)
        kinds = ("prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens")
        assert [found[kind] for kind in kinds] == [10, 250, 25, 25]
        low, high = found["tokens_per_correct_ci"]
        assert low < 550 < high
        assert TtsAccuracyCost(keep_in_memory=True).compute(**self.ASKED, **self.COSTS, votes="equal") == found

    def test_against_a_baseline_paired_by_question(self) -> None:
        metric = load("tts_accuracy_cost")
        double = {name: [2 * n for n in values] for name, values in self.COSTS.items()}
        baseline = metric.compute(**self.ASKED, **double, votes="equal")["by_question"]
        found = metric.compute(**self.ASKED, **self.COSTS, votes="equal", baseline=baseline)
        assert found["saving"] == 0.5
        assert found["saving_ci"] == [0.5, 0.5]  # exactly half on every question
        assert (found["points"], found["points_ci"]) == (0.0, [0.0, 0.0])

    def test_nothing_right(self) -> None:
        wrong = {**self.ASKED, "predictions": ["0"] * 4}
        found = TtsAccuracyCost(keep_in_memory=True).compute(**wrong, **self.COSTS, votes="equal")
        assert (found["accuracy"], found["tokens_per_correct"]) == (0.0, None)

    @pytest.mark.parametrize("baseline", [{"tokens": [1.0]}, {"tokens": [1.0] * 4, "correct": [1.0] * 3}, {"x": []}])
    def test_another_baseline_is_refused(self, baseline: dict[str, Any]) -> None:
        with pytest.raises(InputError, match="same 4 questions"):
            TtsAccuracyCost(keep_in_memory=True).compute(**self.ASKED, **self.COSTS, votes="equal", baseline=baseline)


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), min_size=1, max_size=30))
def test_an_interval_holds_the_ratio(pairs: list[tuple[int, int]]) -> None:
    parts, of = zip(*pairs, strict=True)
    low, high = ratio_interval(parts, of)
    assert low - 1e-12 <= sum(parts) / sum(of) <= high + 1e-12 or len(set(pairs)) > 1


@pytest.mark.parametrize("k", [0, 5, True, 1.5, [1, 9]])
def test_k_out_of_range(k: Any) -> None:
    for kind in (MajAtK, PassAtK):
        with pytest.raises(InputError, match="whole numbers from 1 to the 4"):
            kind(keep_in_memory=True).compute(predictions=BRANCHES, references=GOLD, k=k, votes="equal")


def test_a_reference_may_be_a_solution() -> None:
    assert Grader("equal").right(r"\boxed{42}", "6 * 7 = 42\n#### 42")


def test_a_reference_without_an_answer() -> None:
    with pytest.raises(InputError, match="states no answer"):
        MajAtK(keep_in_memory=True).compute(predictions=[["1"]], references=[r"\boxed{"], votes="equal")


def test_only_shipped_metrics_have_a_path() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'maj_at_k'"):
        metrics.path("maj_at_kk")


@pytest.mark.parametrize("name", metrics.names())
def test_each_folder_is_a_space(name: str, tmp_path: Path) -> None:
    """What is pushed is the folder: moved elsewhere it loads, its card is complete, and its example runs."""
    folder = tmp_path / name
    shutil.copytree(metrics.path(name), folder, ignore=shutil.ignore_patterns("__pycache__"))
    assert {file.name for file in folder.iterdir()} == {
        "README.md", "__init__.py", "app.py", "requirements.txt", f"{name}.py",
    }  # fmt: skip
    card = RepoCard.load(folder / "README.md")
    assert (card.data.sdk, card.data.app_file) == ("gradio", "app.py")
    assert {"evaluate", "metric"} <= set(card.data.tags)
    assert load(name, str(folder)).name == name
    (block,) = re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text("utf-8"), re.DOTALL)
    exec(compile(block, str(folder / "README.md"), "exec"), {"__name__": "__main__"})
