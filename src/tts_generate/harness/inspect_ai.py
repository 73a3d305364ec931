"""Inspect: the provider `tts` answers with a controller, and the scorer `cost` puts its tokens beside the accuracy.

    inspect eval task.py --model tts/MODEL -M controller=cmc -M beta=0.5

Inspect finds this module by its entry point; importing it loads no model library. Put `cost()` among a task's scorers
for tokens by kind in the results; every sample's account is in its output's metadata in any case.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from inspect_ai.event import Event, ModelEvent, SpanBeginEvent
from inspect_ai.log import read_eval_log, transcript
from inspect_ai.model import ModelAPI, ModelOutput, modelapi
from inspect_ai.scorer import Metric, SampleScore, Score, Scorer, Target, metric, scorer
from inspect_ai.solver import TaskState

from tts_generate.errors import InputError
from tts_generate.statistics import saving

_KINDS = (
    "tokens", "prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens", "branches", "truncated", "seconds"
)  # fmt: skip


@modelapi(name="tts")
def tts() -> type[ModelAPI]:
    """The provider, loaded when it is asked for."""
    from tts_generate.harness.inspect_model import TTSAPI

    return TTSAPI


@metric(scores="unreduced")
def account() -> Metric:
    """Means of the samples: tokens by kind, branches, seconds, and the share of answers that were `truncated`.

    With a baseline, the share of its tokens that is saved.
    """

    def means(scores: list[SampleScore]) -> dict[str, float]:
        rows = [score.score.metadata or {} for score in scores]
        told = {name: float(np.mean([row[name] for row in rows])) for name in _KINDS}
        if all("baseline_tokens" in row for row in rows):
            theirs = sum(row["baseline_tokens"] for row in rows)
            told["saving"] = saving(sum(row["tokens"] for row in rows), theirs)
        return told

    return means


@scorer(metrics=[account()], name="tts_cost")
def cost(baseline: str | None = None) -> Scorer:
    """A sample's tokens, generated and probe, as its score; `account` tells them by kind over all samples.

    They are those of all its answers, where a solver asks more than once.

    Args:
        baseline: the log of an earlier run of the same task with the provider `tts`.

    Raises:
        InputError: the log has no tokens of the provider, or not of this sample.
    """
    before = None if baseline is None else _tokens_of(baseline)

    async def score(state: TaskState, target: Target) -> Score:
        told = _account_of(transcript().events, state.output)
        if told is None:
            raise InputError("the scorer tts_cost reads what --model tts/… tells of its tokens; this output has none.")
        if before is not None:
            key = _key(state.sample_id, state.epoch)
            if key not in before:
                raise InputError(f"baseline {baseline} lacks sample {state.sample_id!r} in epoch {state.epoch}.")
            told = {**told, "baseline_tokens": before[key]}
        return Score(value=float(told["tokens"]), answer=told["answer"], metadata=told)

    return score


def _account_of(events: Iterable[Event], last: ModelOutput) -> dict[str, Any] | None:
    """What the answers of a sample took, those before it is scored; else, and of how it ends, the last one's."""
    solved = takewhile(lambda event: not (isinstance(event, SpanBeginEvent) and event.name == "scorers"), events)
    outputs = [event.output for event in solved if isinstance(event, ModelEvent)]
    accounts = [(output.metadata or {}).get("tts") for output in [*outputs, last]]
    *every, end = [account if isinstance(account, dict) else None for account in accounts]
    taken = [account for account in every if account is not None]
    if end is None or not taken:
        return end
    return {**end, **{name: sum(account[name] for account in taken) for name in _KINDS if name != "truncated"}}


def _key(sample: int | str, epoch: int) -> str:
    return json.dumps([sample, epoch])


def _tokens_of(path: str) -> dict[str, int]:
    """Tokens of each sample of a log."""
    if not Path(path).is_file():
        raise InputError(f"baseline {path} is no file; give the .eval or .json log of an earlier run.")
    found = {}
    try:
        for sample in read_eval_log(path).samples or []:
            told = _account_of(sample.events, sample.output)
            if told is not None:
                found[_key(sample.id, sample.epoch)] = int(told["tokens"])
    except Exception as error:  # of whatever kind: it reads what may be anything
        raise InputError(f"baseline {path} is no log of Inspect: {type(error).__name__}: {error}.") from error
    if not found:
        raise InputError(f"baseline {path} tells no tokens of the provider tts; make it with --model tts/….")
    return found
