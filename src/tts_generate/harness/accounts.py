"""The account of a run: tokens by kind, saving and time of each task, beside its accuracy."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np

from tts_generate.errors import InputError
from tts_generate.harness.asking import Answered
from tts_generate.statistics import ratio_interval, saving
from tts_generate.strict_json import Count, check_shape
from tts_generate.tracking import Savings

FORMAT = "tts-harness/1"
KINDS = ("tokens", "prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens", "branches", "truncated")
Key = tuple[str, int, int]
"""A task's name, the number of the question in it, and which of its requests: of its `repeats`, as a rule."""
_ROW = {"doc_id": Count, "repeat": Count, "tokens": Annotated[int, "1 or more", lambda value: value > 0]}
_SECONDS = Annotated[float, "more than 0", lambda value: value > 0]
_ACCOUNT = {"tasks": {str: {"seconds": _SECONDS, "by_question": [_ROW]}}}
"""What is read of a baseline's account."""


@dataclass(frozen=True, slots=True)
class Baseline:
    """An earlier run on the same questions."""

    path: str
    tokens: Mapping[Key, int]
    seconds: Mapping[str, float]
    """By task."""

    @classmethod
    def read(cls, path: str | Path) -> Baseline:
        """Read a results file of lm-eval, or the newest one below a folder.

        Raises:
            InputError: there is none, or it is of a run without the model `tts`.
        """
        file = Path(path)
        if file.is_dir():
            file = max(file.rglob("results_*.json"), key=lambda found: found.stat().st_mtime, default=file)
        try:
            results = json.loads(file.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise InputError(f"baseline {path} holds no results_….json of lm-eval: {error}.") from None
        config = results.get("config") if isinstance(results, dict) else None
        account = config.get("tts") if isinstance(config, dict) else None
        found = account.get("format") if isinstance(account, dict) else None
        if not isinstance(account, dict) or found != FORMAT:
            raise InputError(
                f"baseline {file} has an account of format {found!r:.80}, expected {FORMAT!r}: make it "
                "with the model tts, such as controller=self_consistency."
            )
        check_shape(account, _ACCOUNT, f"baseline {file}")
        tokens = {
            (task, row["doc_id"], row["repeat"]): row["tokens"]
            for task, told in account["tasks"].items()
            for row in told["by_question"]
        }
        return cls(str(file), tokens, {task: told["seconds"] for task, told in account["tasks"].items()})


@dataclass(slots=True)
class TaskAccounts:
    """What each question took, as they are answered."""

    baseline: Baseline | None = None
    rows: dict[Key, dict[str, Any]] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    saved: dict[str, Savings] = field(default_factory=dict)
    """By task, against self-consistency of 64 as `Savings` estimates it."""
    how: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By task, who decided on it: see `Asker.how`."""

    @property
    def common(self) -> dict[str, Any]:
        """Who decided on all tasks; {} where they differ, or there are none."""
        told = list(self.how.values())
        return told[0] if told and all(each == told[0] for each in told) else {}

    def expect(self, keys: Iterable[Key]) -> None:
        """Refuse questions that the baseline does not have, before any is asked."""
        if self.baseline is None:
            return
        missing = [key for key in keys if key not in self.baseline.tokens]
        if missing:
            task, number, repeat = missing[0]
            raise InputError(
                f"baseline {self.baseline.path} lacks {len(missing)} of these questions, first question {number} "
                f"(repeat {repeat}) of task {task}: run it with the same tasks, limit and repeats."
            )

    @contextmanager
    def timed(self, task: str) -> Iterator[None]:
        """Count the time spent inside as the task's."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[task] = self.seconds.get(task, 0.0) + time.perf_counter() - start

    def add(self, key: Key, found: Answered) -> int | None:
        """Write a question's account down; the baseline's tokens on it, if there is one."""
        self.rows[key] = found.to_dict()
        self.saved.setdefault(key[0], Savings()).add(found.cost, found.branches)
        return None if self.baseline is None else self.baseline.tokens[key]

    @classmethod
    def merged(cls, parts: Sequence[TaskAccounts]) -> TaskAccounts:
        """The account of processes that answered at the same time; a task took as long as in the slowest of them."""
        whole = cls(parts[0].baseline)
        for part in parts:
            whole.how |= part.how
            whole.rows |= part.rows
            for task, seconds in part.seconds.items():
                whole.seconds[task] = max(seconds, whole.seconds.get(task, 0.0))
            for task, saved in part.saved.items():
                whole.saved.setdefault(task, Savings()).merge(saved)
        return whole

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values: totals of each task, and every question's row."""
        tasks = {task: self._task(task) for task in self.seconds}
        return {"format": FORMAT, "baseline": None if self.baseline is None else self.baseline.path, "tasks": tasks}

    def _task(self, task: str) -> dict[str, Any]:
        rows = {key: self.rows[key] for key in sorted(self.rows) if key[0] == task}
        tokens = np.array([row["tokens"] for row in rows.values()])
        told: dict[str, Any] = {
            **self.how.get(task, {}),
            **{name: float(np.mean([row[name] for row in rows.values()])) for name in KINDS},
            "tokens_stderr": float(tokens.std(ddof=1) / math.sqrt(len(rows))) if len(rows) > 1 else None,
            "seconds": self.seconds[task],
        }
        if self.baseline is None:
            told["saving_estimate"] = self.saved[task].share
        else:
            theirs = np.array([self.baseline.tokens[key] for key in rows])
            low, high = ratio_interval(tokens, theirs)
            told["saving"] = saving(float(tokens.sum()), float(theirs.sum()))
            told["saving_ci"] = [1 - high, 1 - low]
            told["time_saving"] = saving(self.seconds[task], self.baseline.seconds[task])
        return {
            **told,
            "by_question": [{"doc_id": number, "repeat": repeat, **row} for (_, number, repeat), row in rows.items()],
        }


def beside_accuracy(results: dict[str, Any]) -> dict[str, Any]:
    """Put the account of lm-eval results, which is in their `config`, beside the accuracy of each task, and of samples.

    Tokens and branches are means a question, `truncated` the share of answers that break off, seconds the whole task's
    wall-clock time. Without a baseline the saving is an estimate, against self-consistency of 64 (see `Savings`).
    """
    tasks = results["config"].get("tts", {}).get("tasks", {})
    for task, told in tasks.items():
        row = results["results"][task]
        better = results["higher_is_better"].setdefault(task, {})
        for name in (*KINDS, "seconds", "saving", "saving_estimate", "time_saving"):
            if told.get(name) is not None:
                row[f"tts_{name},none"] = told[name]
                better[f"tts_{name}"] = "saving" in name
        row["tts_tokens_stderr,none"] = "N/A" if told["tokens_stderr"] is None else told["tokens_stderr"]
        accounts: dict[int, list[dict[str, Any]]] = {}
        for account in told["by_question"]:
            accounts.setdefault(account["doc_id"], []).append(account)
        for sample in results.get("samples", {}).get(task, []):
            sample["tts"] = accounts.get(sample["doc_id"], [])
    return results
