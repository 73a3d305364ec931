"""A task of Inspect, answered by the provider `tts`, with tokens by kind beside the accuracy.

inspect eval examples/with_inspect.py --model tts/Qwen/Qwen3-4B -M controller=cmc -M beta=0.5
python examples/with_inspect.py --questions 4                      # with the tiny model
"""

from __future__ import annotations

import tempfile
from typing import Annotated

import typer
from inspect_ai import Task, eval, task
from inspect_ai.dataset import MemoryDataset, Sample
from inspect_ai.model import get_model
from inspect_ai.scorer import pattern

from tts_generate import tiny
from tts_generate.harness.inspect_ai import cost


@task
def tiny_digits(questions: int = 8) -> Task:
    """The tiny model's questions; `cost(baseline="logs/….eval")` would tell the saving over an earlier run."""
    samples = [
        Sample(input=q.question, target=q.gold_answer, id=q.question_id) for q in tiny.questions("test")[:questions]
    ]
    return Task(dataset=MemoryDataset(samples), scorer=[pattern(r"(?s).*boxed\{\s*(\d)"), cost()])


def main(questions: Annotated[int, typer.Option(help="Questions to answer.")] = 8) -> None:
    """Run it with CMC."""
    model = get_model(f"tts/{tiny.path()}", controller="cmc", beta=0.5, dtype="float32")
    (log,) = eval(tiny_digits(questions), model=model, display="none", log_dir=tempfile.mkdtemp())
    assert log.results is not None
    for score in log.results.scores:
        for name, found in score.metrics.items():
            print(f"{score.name:9} {name:17} {found.value:9.3f}")


if __name__ == "__main__":
    typer.run(main)
