"""Measures a controller for its page: replay on stores, beside self-consistency, adaptive consistency and CMC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from tts_generate.arguments import checked
from tts_generate.errors import InputError
from tts_generate.evaluate import BETAS, CMC_BETAS, Cell, Method, as_dict, baselines, by_question, sweep
from tts_generate.hub.card import identity
from tts_generate.hub.source import Source
from tts_generate.hub.trust import Trust
from tts_generate.recorded.recording import fewest_branches
from tts_generate.replay import Recording
from tts_generate.search.questions import check_gold, check_names
from tts_generate.search.run import fingerprint
from tts_generate.trajectories import TrajectoryStore
from tts_generate.trajectories.schema import public_model
from tts_generate.version import __version__

FORMAT = "tts-evaluation/1"
SHUFFLES = 100


class MeasuringOptions(TypedDict, total=False):
    """How a controller is measured, see `measure`."""

    betas: Sequence[float]
    shuffles: int
    threads: int | None
    trust_remote_code: Trust


@checked
def measure(
    source: Source,
    stores: Sequence[str | Path],
    *,
    betas: Sequence[float] = BETAS,
    shuffles: int = SHUFFLES,
    trust_remote_code: Trust = False,
    threads: int | None = None,
) -> dict[str, Any]:
    """Replay a controller at every budget on every store, beside SC@64, ASC@64 and CMC.

    Args:
        source: the controller; code that nobody vouches for runs in the sandbox, a step at a time.
        stores: trajectory stores, folders or datasets of the Hub, of one `interval_tokens`.
        betas: its budgets; those outside its range are left out.
        shuffles: orders of the branches.
        trust_remote_code: run its code in this process, where it may compile.
        threads: of compiled replay.

    Returns:
        What `evaluation/summary.json` holds: plain JSON values.

    Raises:
        StoreError: a store that cannot be read.
        InputError: no stores or budgets; stores that cannot be compared, or the same one twice, or with questions
            without a right answer.
        ControllerError: the controller fails.
    """
    if not len(stores) or not len(betas):
        raise InputError("there is nothing to measure: name at least one store, and at least one budget.")
    opened = [TrajectoryStore.open(store) for store in stores]
    recordings = [Recording.from_store(store) for store in opened]
    prints = [fingerprint(recording) for recording in recordings]
    for number, found in enumerate(prints):
        if found in prints[:number]:
            raise InputError(
                f"{stores[number]} holds the same branches as {stores[prints.index(found)]}; give it once."
            )
    check_names([recording.name for recording in recordings])
    check_gold([question for store in opened for question in store.questions])
    fewest = fewest_branches(recordings)
    name, confined = str(source.card["name"]), source.code is not None and not trust_remote_code
    low, high = source.card["beta"].get("range", (0.0, 1.0))
    budgets = [float(beta) for beta in betas if low <= beta <= high]
    if not budgets:
        raise InputError(f"{name} is for beta from {low:g} to {high:g}, and none of {list(betas)} is; name others.")
    how: dict[str, Any] = {"name": name, "trust_remote_code": trust_remote_code, "sandbox": confined}
    ours = [Method.at(source.path, beta, fewest, **how) for beta in budgets]
    theirs = [Method.at("cmc", beta, fewest, name="CMC") for beta in CMC_BETAS]
    found_all = sweep(recordings, [*theirs, *ours], shuffles, against=baselines(fewest), threads=threads, progress=True)
    told = [
        {
            "name": recording.name,
            "fingerprint": print_,
            "origin": store.origin,
            "model": {"name_or_path": "unknown", **public_model(store.manifest.model)},
            "source": store.manifest.source,
            "seed": store.manifest.seed,
            "questions": len(recording.questions),
            "branches": recording.max_branches,
            "fewest": fewest_branches([recording]),
            "interval_tokens": recording.interval_tokens,
            "rows": [_row(row, source.path, name) for row in map(as_dict, cell.rows)],
            "by_question": _by_question(cell, len(ours)),
        }
        for recording, store, print_, cell in zip(recordings, opened, prints, found_all.cells, strict=True)
    ]
    return {
        "format": FORMAT,
        "tts_generate": __version__,
        "controller": identity(source.card),
        "name": name,
        "betas": budgets,
        "shuffles": max(1, int(shuffles)),
        "sandboxed": confined,
        "stores": told,
        "average": [_row(row, source.path, name) for row in map(as_dict, found_all.average)],
        "live": [],
    }


def rows_of(evaluation: Mapping[str, Any], store: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The controller's own rows of a store: those behind the baselines', one of which may be called as it is."""
    rows: Sequence[Mapping[str, Any]] = store["rows"]
    return rows[max(0, len(rows) - len(evaluation["betas"])) :]


def _row(row: dict[str, Any], path: Path, name: str) -> dict[str, Any]:
    """A row under the controller's name; where it lies on this machine is nobody's business."""
    return {**row, "controller": {str(path): name, "cmc": "CMC"}.get(row["controller"], row["controller"])}


def _by_question(cell: Cell, count: int) -> Mapping[str, Any]:
    """Accuracy (0 to 1) and tokens of the controller's budgets on each question, means over orders."""
    results = cell.results[-count:]
    return {
        "accuracy": [[round(float(value), 4) for value in by_question(result)] for result in results],
        "tokens": [[round(float(value), 1) for value in np.mean(result.cost, axis=0)] for result in results],
    }
