"""lm-eval with a controller: accuracy, tokens by kind and the saving over self-consistency, in lm-eval's own table.

python examples/with_lm_eval.py --questions 8

The same from a shell, for any task: python -m tts_generate.harness.lm_eval --model tts --tasks gsm8k --batch_size auto
    --model_args pretrained=Qwen/Qwen3-4B,controller=cmc,beta=0.5,max_new_tokens=8192,baseline=results/of/an/earlier/run
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Annotated, Any

import typer
from lm_eval.tasks import TaskManager
from lm_eval.utils import make_table

from tts_generate import tiny
from tts_generate.harness.lm_eval import TTSLM, simple_evaluate

TASK = {
    "task": "tiny_digits",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": str(tiny.path() / "test.jsonl")}},
    "test_split": "test",
    "output_type": "generate_until",
    "doc_to_text": "{{question}}",
    "doc_to_target": "{{gold_answer}}",
    "generation_kwargs": {"until": ["Q:"]},
    "filter_list": [
        {
            "name": "boxed",
            "filter": [
                {"function": "regex", "regex_pattern": r"boxed\{\s*(\d)", "group_select": -1},
                {"function": "take_first"},
            ],
        }
    ],
    "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
}


def main(questions: Annotated[int, typer.Option(help="Questions to answer.")] = 8) -> None:
    """Self-consistency first, then a controller against it."""
    folder = Path(tempfile.mkdtemp())
    tasks: dict[str, Any] = {"tasks": [TASK], "limit": questions, "task_manager": TaskManager(include_defaults=False)}
    for name, options in (("self_consistency", {}), ("cmc", {"baseline": str(folder)})):
        lm = TTSLM(str(tiny.path()), dtype="float32", device="cpu", batch_size="auto", controller=name, **options)
        results = simple_evaluate(lm, **tasks)
        (folder / f"results_{name}.json").write_text(json.dumps(results, default=str))
        print(name, make_table(results), sep="\n")


if __name__ == "__main__":
    typer.run(main)
