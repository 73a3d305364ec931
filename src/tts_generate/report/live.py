"""What a page says of live runs, from the traces they left."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tts_generate.answers import is_right
from tts_generate.equivalence import Votes, same_answer
from tts_generate.errors import InputError
from tts_generate.report.lanes import spent
from tts_generate.report.page import Asked, Page, SweepRows, Told
from tts_generate.statistics import mean_interval
from tts_generate.trace import Trace, read_traces
from tts_generate.trajectories import Question

_NOT_TRACED = dict.fromkeys(("accuracy", "accuracy_ci", "sequential_tokens"))


def of_traces(files: Sequence[Path], golds: Sequence[Question] = (), votes: Votes = "equal") -> Page:
    """Traces of live runs (`write_traces(path, output.trace)`), those of one question side by side.

    Args:
        files: JSON lines of traces; each file and controller is a method.
        golds: questions with their gold answers, by the ids of the traces; accuracy is shown if all have one.
        votes: how an answer is compared with the gold one.

    Raises:
        InputError: files that hold no trace, or one controller's trace of a question twice.
    """
    runs: dict[str, dict[str, Trace]] = {}
    for file in files:
        for trace in read_traces(file):
            if not trace.events:
                raise InputError(f"{file}: the trace of {trace.question_id!r} has no events.")
            label = _label(trace)
            run = runs.setdefault(label, {})
            if trace.question_id in run:
                raise InputError(f"{file} traces {label} on question {trace.question_id!r} a second time.")
            run[trace.question_id] = trace
    if not runs:
        raise InputError(f"{', '.join(map(str, files))} holds no trace; write some: write_traces(path, output.trace).")
    known = {question.question_id: question for question in golds}
    ids = list(dict.fromkeys(name for run in runs.values() for name in run))
    if known and not known.keys() & set(ids):
        raise InputError(
            f"none of the {len(known)} questions has an id that is in the traces (the first there is {ids[0]!r}, the "
            f"first here {next(iter(known))!r}); live runs number theirs from 0 on."
        )
    same = same_answer(votes)
    asked = [
        _traced(known.get(name, Question(name, "")), [run.get(name) for run in runs.values()], same) for name in ids
    ]
    rows = [_row(label, list(run.values()), [q.told[n] for q in asked]) for n, (label, run) in enumerate(runs.items())]
    title = "Live run" if len(runs) == 1 else "Live runs"
    facts = {"traces": ", ".join(map(str, files)), "questions": str(len(ids))}
    return Page(title, facts, [SweepRows("live", rows)], None, list(runs), asked)


def _traced(question: Question, traces: list[Trace | None], same: Callable[[str, str], bool] | None) -> Asked:
    told: list[Told | None] = []
    seen = dict.fromkeys(answer for trace in traces if trace is not None for answer in _answers(trace))
    right = [answer for answer in seen if is_right(answer, question.gold_answer or "", same)]
    for trace in traces:
        if trace is None:
            told.append(None)
            continue
        answer, gold = trace.events[-1].get("answer"), question.gold_answer
        accuracy = None if gold is None else 100.0 * is_right(answer, gold, same)
        told.append(Told(accuracy, trace.events[-1]["tokens"]))
    return Asked(question.question_id, question.question, question.gold_answer, told, traces, right)


def _answers(trace: Trace) -> Iterator[str]:
    """Every answer that a trace shows."""
    for event in trace.events:
        shown = [event["leader"], event.get("answer"), *(reading["answer"] for reading in event.get("branches", []))]
        yield from (answer for answer in shown if answer is not None)


def _row(label: str, traces: Sequence[Trace], told: Sequence[Told | None]) -> dict[str, Any]:
    ledgers = [spent(trace) for trace in traces]
    means = {name: sum(ledger[name] for ledger in ledgers) / len(ledgers) for name in ledgers[0]}
    row: dict[str, Any] = {"label": label, "controller": label, "beta": None, "against": {}, **_NOT_TRACED, **means}
    accuracy = [one.accuracy for one in told if one is not None and one.accuracy is not None]
    if len(accuracy) == len(traces):
        low, high = mean_interval([value / 100 for value in accuracy])
        row |= {"accuracy": sum(accuracy) / len(accuracy), "accuracy_ci": [100 * low, 100 * high]}
    return row


def _label(trace: Trace) -> str:
    beta, latency = trace.controller["beta"], trace.controller.get("latency")
    told = f"β={beta:g}" if beta is not None else f"({trace.knobs})"
    return f"{trace.controller['controller']} {told}" + ("" if latency is None else f" latency {latency:g}")
