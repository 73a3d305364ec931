"""What a page says of recorded stores, and of a sweep's JSON file."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from tts_generate.equivalence import Votes
from tts_generate.errors import InputError, TTSError
from tts_generate.evaluate import NUMBERS, Method, as_dict, by_question, evaluate_method, sweep
from tts_generate.hub.names import repo_of
from tts_generate.loading import Trust, load_controller
from tts_generate.recorded.recording import RecordedQuestion, fewest_branches
from tts_generate.replay import Recording, ReplayResult
from tts_generate.report.page import Asked, Page, SweepRows, Told
from tts_generate.strict_json import Amount, check_format, check_shape, read_json
from tts_generate.trajectories import TrajectoryStore

SWEEP = "tts-sweep/2"
_ROW: dict[Any, Any] = {
    "label": str, "controller": str, "beta": float | None, "knobs": {str: bool | float | str},
    **dict.fromkeys(NUMBERS, Amount), "accuracy": float, "accuracy_ci": (float, float),
    "against": {str: {"points": float, "points_ci": (float, float), "saving": float}},
}  # fmt: skip
_SHAPE = {
    "shuffles": int, "votes": Literal["equal", "math"], "cells": [{**_ROW, "store": str}], "average": [_ROW]
}  # fmt: skip
"""What a sweep's file holds, as far as it is read."""


def of_recordings(
    stores: Sequence[Path],
    recordings: Sequence[Recording],
    chosen: Sequence[Method],
    watched: Sequence[Method],
    against: Sequence[Method],
    *,
    shuffles: int,
    votes: Votes = "equal",
    about: Mapping[str, str] | None = None,
    progress: bool = False,
) -> Page:
    """Sweep `chosen`, and show `watched` and the first of the baselines `against` question by question.

    Args:
        stores: where the recordings are, as people will read it.
        recordings: those of the stores, in their order.
        chosen: what to sweep.
        watched: methods whose results and traces are shown for every question.
        against: the baselines; the first is the one that savings are counted against.
        shuffles: orders of the branches, see `replay`.
        votes: as the recordings were read.
        about: what else to say of the stores, by name (`models_of`).
        progress: see `evaluate.sweep`.

    Raises:
        StoreError: a recording does not hold what a controller reads.
        InputError: recordings of different steps.
    """
    known = {method.label for method in (*against, *chosen)}
    everything = [*chosen, *(method for method in watched if method.label not in known)]
    found = sweep(recordings, everything, shuffles, against=against, progress=progress)
    measured = [
        SweepRows(str(store), [as_dict(row) for row in cell.rows])
        for store, cell in zip(stores, found.cells, strict=True)
    ]
    if len(stores) > 1:
        measured.insert(0, SweepRows(f"average of {len(stores)} stores", [as_dict(row) for row in found.average]))
    shown = _distinct([*watched, against[0]])
    labels = [row.label for row in found.average]
    results = [[cell.results[labels.index(method.label)] for method in shown] for cell in found.cells]
    return Page(
        f"{', '.join(recording.name for recording in recordings)}: accuracy for tokens",
        {**(about or {}), **_facts(stores, recordings, votes), "orders": _orders(shuffles)},
        measured,
        against[0].label,
        [method.label for method in shown],
        asked_of(recordings, shown, results),
        _unknown(recordings),
    )


def _unknown(recordings: Sequence[Recording]) -> list[str]:
    """That questions have no gold answer, as a note; none where all have one."""
    golds = [one.question.gold_answer for recording in recordings for one in recording.questions]
    lacking = golds.count(None)
    told = f"{lacking} of {len(golds)} questions have no gold answer: whatever is answered there counts as wrong."
    return [told] if lacking else []


def of_sweep(file: Path, watched: Sequence[Method] | None, *, trust_remote_code: Trust = False) -> Page:
    """What `tts-generate sweep --json` wrote; questions and traces are replayed, if its stores are still there.

    Args:
        file: the JSON file.
        watched: methods to trace; the sweep's baseline and each of its controllers at the budget next to 0.5 if None.
        trust_remote_code: for controller folders that did not come with this package.

    Raises:
        InputError: not such a file.
    """
    result = read_sweep(file)
    rows = result["average"]
    baseline = rows[0]["label"]
    names = list(dict.fromkeys(row["store"] for row in result["cells"]))
    measured = [SweepRows(name, [row for row in result["cells"] if row["store"] == name]) for name in names]
    if len(names) > 1:
        measured.insert(0, SweepRows(f"average of {len(names)} stores", rows))
    found = [_found(name, file.parent) for name in names]
    stores = [store for store in found if store is not None]
    facts = {"sweep": str(file), "orders": _orders(result["shuffles"])}
    page = Page(f"Sweep of {', '.join(Path(name).name for name in names)}", facts, measured, baseline)
    if len(stores) < len(names):
        gone = ", ".join(name for name, store in zip(names, found, strict=True) if store is None)
        return _without_questions(page, f"{gone} is not where the sweep found it")
    votes = result["votes"]
    recordings = [Recording.from_store(store, votes=votes) for store in stores]
    named = [_held(method, fewest_branches(recordings)) for method in watched or ()]
    shown = _distinct([*(named or _typical(rows, trust_remote_code)), _again(rows[0], trust_remote_code)])
    results = [
        [evaluate_method(recording, method, result["shuffles"])[1] for method in shown] for recording in recordings
    ]
    if changed := _changed(names, shown, results, result["cells"]):
        return _without_questions(page, changed)
    asked = asked_of(recordings, shown, results)
    facts = {**facts, **models_of(stores), **_facts(stores, recordings, votes)}
    return replace(page, facts=facts, methods=[m.label for m in shown], asked=asked, notes=_unknown(recordings))


def _changed(
    names: Sequence[str], shown: Sequence[Method], results: Sequence[Sequence[ReplayResult]], rows: Sequence[Any]
) -> str:
    """Which store is not what was swept, for all that its tokens say; "" if all are."""
    for name, each in zip(names, results, strict=True):
        swept = {row["label"]: row["tokens"] for row in rows if row["store"] == name}
        for label, now in ((method.label, told.tokens) for method, told in zip(shown, each, strict=True)):
            if not math.isclose(now, swept.get(label, now), rel_tol=1e-6):
                seen = f"{label} takes {now:,.0f} tokens a question there, and {swept[label]:,.0f} in the sweep"
                return f"{name} has changed since: {seen}"
    return ""


def _without_questions(page: Page, why: str) -> Page:
    return replace(page, notes=[f"No question and no trace is shown: {why}."])


def read_sweep(file: Path) -> dict[str, Any]:
    """The object that `tts-generate sweep --json` wrote.

    Raises:
        InputError: something else.
    """
    result = read_json(file)
    check_format(result, SWEEP, file, "Make it with tts-generate sweep --json.")
    check_shape(result, _SHAPE, file)
    if not result["average"] or not result["cells"]:
        raise InputError(f"{file} holds no row; make it with tts-generate sweep --json.")
    baseline = result["average"][0]["label"]
    for row in [*result["cells"], *result["average"]]:
        if baseline not in row["against"]:
            raise InputError(
                f"{file}: {row['label']!r:.80} is not compared with {baseline!r:.80}, the first of the average."
            )
    return dict(result)


def asked_of(
    recordings: Sequence[Recording], shown: Sequence[Method], results: Sequence[Sequence[ReplayResult]]
) -> list[Asked]:
    """Every question of every recording, with its `results` by recording and method, traced in recorded order."""
    controllers = [
        load_controller(m.controller, beta=m.beta, trust_remote_code=m.trust_remote_code, **m.knobs) for m in shown
    ]
    asked = []
    names = [recording.name for recording in recordings]
    if len(set(names)) < len(names):  # the viewer finds a question by its name
        names = [f"{name} ({number})" for number, name in enumerate(names, 1)]
    for place, recording, mine in zip(names, recordings, results, strict=True):
        accuracy = [100 * by_question(result) for result in mine]
        tokens = [result.cost.mean(axis=0) for result in mine]
        for number, recorded in enumerate(recording.questions):
            question = recorded.question
            known = question.gold_answer is not None
            told = [
                Told(float(a[number]) if known else None, float(t[number]))
                for a, t in zip(accuracy, tokens, strict=True)
            ]
            name = question.question_id if len(recordings) == 1 else f"{place}: {question.question_id}"
            traces = [recording.trace(controller, number) for controller in controllers]
            right = partial(_right, recorded)
            asked.append(Asked(name, question.question, question.gold_answer, told, traces, right))
    return asked


def _right(recorded: RecordedQuestion, answer: str) -> bool:
    return recorded.book.id(answer) == recorded.gold


def _facts(stores: Sequence[Path], recordings: Sequence[Recording], votes: Votes) -> dict[str, str]:
    questions = sum(len(recording.questions) for recording in recordings)
    branches = sorted({recorded.branches for recording in recordings for recorded in recording.questions})
    span = f"{branches[0]}" if len(branches) == 1 else f"{branches[0]} to {branches[-1]}"
    unknown = sum(recorded.question.gold_answer is None for recording in recordings for recorded in recording.questions)
    lacking = f", {unknown} of them without a right answer, which count as wrong" if unknown else ""
    return {
        "recorded": ", ".join(map(str, stores)),
        "questions": f"{questions}, {span} branches each{lacking}",
        "step": f"{recordings[0].interval_tokens} tokens",
        "answers are one if": "their texts are" if votes == "equal" else "they are the same mathematics",
    }


def _orders(shuffles: int) -> str:
    return f"{shuffles} of the branches, in which they are opened" if shuffles else "the recorded one"


def models_of(stores: Sequence[Path]) -> dict[str, str]:
    """Which models the branches of stores are of, as their manifests say; of a folder on a disk, its name."""
    cards = [TrajectoryStore.open(store).manifest.model for store in stores]
    paths = [Path(str(card["name_or_path"])) for card in cards if card.get("name_or_path")]
    names = [path.name if path.is_absolute() else str(path) for path in paths]
    return {"model": ", ".join(dict.fromkeys(names))} if names else {}


def _distinct(methods: Iterable[Method]) -> list[Method]:
    return list({method.label: method for method in methods}.values())


def _held(method: Method, branches: int) -> Method:
    """The method, opening no more branches than were recorded, as in the sweep."""
    if method.beta is None:
        return method
    return Method.at(method.controller, method.beta, branches, trust_remote_code=method.trust_remote_code)


def _again(row: Mapping[str, Any], trust_remote_code: Trust) -> Method:
    return Method(row["label"], row["controller"], row["beta"], row["knobs"], trust_remote_code)


def _typical(rows: Sequence[Mapping[str, Any]], trust_remote_code: Trust) -> list[Method]:
    """Each controller of a sweep at the budget next to 0.5, the default one first."""
    nearest: dict[str, Mapping[str, Any]] = {}
    for row in rows:
        if row["beta"] is not None:
            best = nearest.setdefault(row["controller"], row)
            if abs(row["beta"] - 0.5) < abs(best["beta"] - 0.5):
                nearest[row["controller"]] = row
    return [_again(row, trust_remote_code) for row in nearest.values()]


def _found(name: str, beside: Path) -> Path | None:
    """The store of a sweep, from where we are or from where its JSON file lies; or from the Hub."""
    for path in (Path(name), beside / name):
        if os.path.isfile(path / "manifest.json"):
            return path
    with suppress(TTSError):
        if repo_of(name) is not None and TrajectoryStore.open(name):
            return Path(name)
    return None
