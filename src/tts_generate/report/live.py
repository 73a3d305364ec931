"""What a page says of live runs, from the traces they left."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from tts_generate.answers import is_right
from tts_generate.equivalence import Votes, same_answer
from tts_generate.errors import InputError
from tts_generate.report.lanes import spent
from tts_generate.report.page import Asked, Page, SweepRows, Told
from tts_generate.statistics import mean_interval
from tts_generate.trace import Trace, read_traces, some
from tts_generate.trajectories import Question

_NOT_TRACED = dict.fromkeys(("accuracy", "accuracy_ci", "sequential_tokens"))


def of_traces(files: Sequence[Path], golds: Sequence[Question] = (), votes: Votes = "equal") -> Page:
    """Traces of live runs (`write_traces(path, output.trace)`), those of one question side by side.

    Args:
        files: JSON lines of traces; each controller, with its budget and knobs, is a method.
        golds: questions with their gold answers, by the ids of the traces (in `generate` the numbers of its prompts);
            accuracy is shown if all have one, and a note says so if not.
        votes: how an answer is compared with the gold one.

    Raises:
        InputError: files that hold no trace, one controller's trace of a question twice, or questions that are none of
            the traces'.
    """
    runs: dict[str, dict[str, Trace]] = {}
    for file in files:
        for trace in read_traces(file):
            if not trace.events:
                raise InputError(f"{file}: the trace of {trace.question_id!r} has no events.")
            run = runs.setdefault(json.dumps(dict(trace.controller), sort_keys=True), {})
            if trace.question_id in run:
                raise InputError(f"{file} traces {_label(trace)} on question {trace.question_id!r} a second time.")
            run[trace.question_id] = trace
    if not runs:
        raise InputError(f"{', '.join(map(str, files))} holds no trace; write some: write_traces(path, output.trace).")
    known = {question.question_id: question for question in golds}
    ids = list(dict.fromkeys(name for run in runs.values() for name in run))
    if golds and not known.keys() & set(ids):
        raise InputError(
            f"none of the {len(known)} questions is traced: traces are of {_few(ids)}, the questions {_few(known)}. "
            "In a live run a question is called by its number in the call; name them so."
        )
    same = same_answer(votes)
    asked = [
        _traced(known.get(name, Question(name, "")), [run.get(name) for run in runs.values()], same) for name in ids
    ]
    labels = _labels([next(iter(run.values())) for run in runs.values()])
    told = zip(labels, runs.values(), zip(*(question.told for question in asked), strict=True), strict=True)
    rows = [_row(label, list(run.values()), mine) for label, run, mine in told]
    title = "Live run" if len(runs) == 1 else "Live runs"
    facts = {"traces": ", ".join(map(str, files)), "questions": str(len(ids))}
    lacking = sum(question.gold is None for question in asked) if golds else 0
    told_why = f"{lacking} of {len(ids)} questions have no right answer here: runs of them have no accuracy."
    return Page(title, facts, [SweepRows("live", rows)], None, labels, asked, [told_why] if lacking else [])


def _traced(question: Question, traces: list[Trace | None], same: Callable[[str, str], bool] | None) -> Asked:
    told: list[Told | None] = []
    gold = question.gold_answer
    for trace in traces:
        if trace is None:
            told.append(None)
            continue
        answer = trace.events[-1].get("answer")
        share = None if gold is None else 100.0 * is_right(answer, gold, same)
        told.append(Told(share, trace.events[-1]["tokens"]))
    right = None if gold is None else partial(is_right, gold=gold, same=same)
    return Asked(question.question_id, question.question, gold, told, traces, right)


def _row(label: str, traces: Sequence[Trace], told: Sequence[Told | None]) -> dict[str, Any]:
    ledgers = [spent(trace) for trace in traces]
    means = {name: sum(ledger[name] for ledger in ledgers) / len(ledgers) for name in ledgers[0]}
    row: dict[str, Any] = {"label": label, "controller": label, "beta": None, "against": {}, **_NOT_TRACED, **means}
    accuracy = [one.accuracy for one in told if one is not None and one.accuracy is not None]
    if len(accuracy) == len(traces):
        low, high = mean_interval([value / 100 for value in accuracy])
        row |= {"accuracy": sum(accuracy) / len(accuracy), "accuracy_ci": [100 * low, 100 * high]}
    return row


def _labels(traces: Sequence[Trace]) -> list[str]:
    """What the controller of each trace is called; of those called the same, with the knobs in which they differ."""
    labels, found = list(map(_label, traces)), []
    for label, trace in zip(labels, traces, strict=True):
        alike = [other.controller["knobs"] for name, other in zip(labels, traces, strict=True) if name == label]
        knobs = trace.controller["knobs"].items()
        differ = [f"{knob}={value}" for knob, value in knobs if any(other.get(knob) != value for other in alike)]
        found.append(", ".join([label, *differ]))
    return found


def _label(trace: Trace) -> str:
    beta, latency = trace.controller["beta"], trace.controller.get("latency")
    told = f"β={beta:g}" if beta is not None else f"({trace.knobs})"
    return f"{trace.controller['controller']} {told}" + ("" if latency is None else f" latency {latency:g}")


def _few(names: Iterable[str]) -> str:
    return some([repr(name) for name in names], 3)
