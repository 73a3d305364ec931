"""The metadata that the Hub reads: the head of a README, and results of benchmarks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import yaml
from huggingface_hub import DatasetCardData, EvalResultEntry, ModelCardData, eval_result_entries_to_yaml

from tts_generate.arguments import check_fields

TAGS = ("tts-controller", "test-time-scaling", "custom_generate")
STORE_TAGS = ("tts-trajectories", "test-time-scaling", "tts_generate")
_SIZES = (
    (1e3, "n<1K"), (1e4, "1K<n<10K"), (1e5, "10K<n<100K"), (1e6, "100K<n<1M"), (1e7, "1M<n<10M"), (math.inf, "n>10M"),
)  # fmt: skip
"""The Hub's words for numbers of rows."""


@dataclass(frozen=True)
class Benchmark:
    """A benchmark of the Hub that a store's questions are from."""

    dataset_id: str
    task_id: str = "default"
    revision: str | None = None

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Result:
    """One measured point on a benchmark."""

    benchmark: Benchmark
    accuracy: float
    """Percent."""
    notes: str


def front_matter(*, licence: str, base_models: Sequence[str] = (), datasets: Sequence[str] = ()) -> str:
    """The head of a controller's README, in YAML.

    >>> print(front_matter(licence="mit", datasets=["me/aime24"]))
    ---
    datasets:
    - me/aime24
    library_name: tts_generate
    license: mit
    tags:
    - tts-controller
    - test-time-scaling
    - custom_generate
    ---
    """
    data = ModelCardData(
        library_name="tts_generate",
        license=licence,
        tags=list(TAGS),
        base_model=list(base_models) or None,
        datasets=list(datasets) or None,
    )
    return f"---\n{data.to_yaml().strip()}\n---"


def store_front_matter(*, branches: int, licence: str | None = None) -> str:
    """The head of a store's README: what the Hub's viewer and `load_dataset` take for its data.

    >>> print(store_front_matter(branches=640))
    ---
    size_categories:
    - n<1K
    tags:
    - tts-trajectories
    - test-time-scaling
    - tts_generate
    configs:
    - config_name: trajectories
      data_files: part-*.parquet
      default: true
    ---
    """
    data = DatasetCardData(
        license=licence,
        tags=list(STORE_TAGS),
        size_categories=[next(name for limit, name in _SIZES if branches < limit)],
        configs=[{"config_name": "trajectories", "data_files": "part-*.parquet", "default": True}],
    )
    return f"---\n{data.to_yaml().strip()}\n---"


def results_yaml(results: Sequence[Result]) -> str:
    """Results in the format of `.eval_results/*.yaml`.

    >>> print(results_yaml([Result(Benchmark("me/aime24"), 61.5, "beta=0.5")]).strip())
    - dataset:
        id: me/aime24
        task_id: default
      value: 61.5
      notes: beta=0.5
    """
    entries = [
        EvalResultEntry(
            dataset_id=result.benchmark.dataset_id,
            task_id=result.benchmark.task_id,
            dataset_revision=result.benchmark.revision,
            value=round(result.accuracy, 2),
            notes=result.notes,
        )
        for result in results
    ]
    return str(yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True))
