"""An evaluation suite: controllers at budgets on one data set, each against self-consistency.

python examples/evaluation_suite.py --questions 8

The class `Suite` is what `evaluate.EvaluationSuite.load("examples/evaluation_suite.py")` loads, from a Space as well.
"""

from __future__ import annotations

from typing import Annotated

import typer
from datasets import Dataset

import tts_generate
from tts_generate import tiny
from tts_generate.harness.evaluators import ControllerSuite, controllers_by_budgets


class Suite(ControllerSuite):
    """Two controllers at two budgets, after self-consistency of 16, on the tiny model's questions."""

    def __init__(self, name: str, questions: int = 4) -> None:
        super().__init__(name)
        asked = tiny.questions("test")[:questions]
        data = Dataset.from_dict(
            {"question": [q.question for q in asked], "gold_answer": [q.gold_answer for q in asked]}
        )
        self.suite = controllers_by_budgets(data, ["asc", "cmc"], [0.0, 0.05], baseline_samples=16, votes="equal")


def main(questions: Annotated[int, typer.Option(help="Questions to answer.")] = 8) -> None:
    """Run the suite, and show each row's accuracy, tokens and saving."""
    model, tokenizer = tiny.load()
    tts_generate.enable(model, tokenizer=tokenizer)
    for row in Suite("tiny", questions).run(model):
        low, high = row["accuracy_ci"]
        saved = f"{row['saving']:7.1%} saved" if "saving" in row else ""
        accuracy = f"{row['accuracy']:6.1%} ({low:.0%} to {high:.0%})"
        print(f"{row['task_name']:17} {accuracy}, {row['tokens']:7,.0f} tokens a question {saved}")


if __name__ == "__main__":
    typer.run(main)
