"""A task of lm-eval on the tiny model's own questions, and our own evaluation of the same."""

from __future__ import annotations

from functools import cache
from typing import Any

from tts_generate import tiny
from tts_generate.engine import AutoTTS, AutoTTSOutput

QUESTIONS = tiny.questions("test")[:4]
SEED = 3
LENGTH = 128
"""Tokens of a branch at most, to keep the tests short."""


def task(name: str = "tiny_digits", **config: Any) -> dict[str, Any]:
    """The config of a generate_until task over the shipped questions."""
    generation = {"until": ["Q:"], "do_sample": False, "max_gen_toks": LENGTH, **config.pop("generation_kwargs", {})}
    boxed = {"function": "regex", "regex_pattern": r"boxed\{\s*(\d)", "group_select": -1}
    return {
        "task": name,
        "dataset_path": "json",
        "dataset_kwargs": {"data_files": {"test": str(tiny.path() / "test.jsonl")}},
        "test_split": "test",
        "output_type": "generate_until",
        "doc_to_text": "{{question}}",
        "doc_to_target": "{{gold_answer}}",
        "generation_kwargs": generation,
        "filter_list": [{"name": "boxed", "filter": [boxed, {"function": "take_first"}]}],
        "metric_list": [{"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}],
        "metadata": {"version": 1.0},
        **config,
    }


@cache
def expected(**options: Any) -> AutoTTSOutput:
    """`own_evaluation` of the shipped model."""
    return own_evaluation(*tiny.load(), **options)


def own_evaluation(model: Any, tokenizer: Any, **options: Any) -> AutoTTSOutput:
    """The same questions and seed, by `generate` alone."""
    batch = tokenizer([q.question for q in QUESTIONS], return_tensors="pt", padding=True, padding_side="left")
    given: dict[str, Any] = {"controller": "cmc", "beta": 0.0, "seed": SEED, **options}
    length = given.pop("max_new_tokens", LENGTH)
    output: AutoTTSOutput = model.generate(
        **{name: batch[name] for name in ("input_ids", "attention_mask")},
        custom_generate=AutoTTS(tokenizer=tokenizer, **given),
        max_new_tokens=length,
        return_dict_in_generate=True,
    )
    return output
