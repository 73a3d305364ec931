"""A search's folder: what it searches, every evaluation it made, and nothing that a crash can take back.

RUN/search.json        what is searched, written once
RUN/history.journal    every evaluation and every finished round, in order (`trajectories.journal`); of a search whose
                       candidates are code also their code, and every proposal that failed
RUN/result.json        the choice and its estimates; RUN/report.html and RUN/best/ are made from it
RUN/held_out.json      the held-out stores, opened once
RUN/LOCK               locked by the process that searches (`trajectories.writers`): two would write over one another,
                       and each would spend the whole of the budget
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_generate import disk, strict_json
from tts_generate.arguments import checked
from tts_generate.errors import InputError
from tts_generate.search.archive import Archive, Entry, Evaluation, Failure
from tts_generate.search.candidate import Proposal
from tts_generate.strict_json import Amount, check_format, check_shape
from tts_generate.trajectories.journal import Journal, full, read_journal
from tts_generate.trajectories.writers import Seat

FORMAT = "tts-search/1"
RESULT_FORMAT, HELD_OUT_FORMAT = "tts-search-result/1", "tts-search-held-out/1"
SETTINGS, JOURNAL, RESULT, HELD_OUT = "search.json", "history.journal", "result.json", "held_out.json"

_GAIN = {"mean": float, "worst": float, "interval": (float, float)}
_CURVE = {"betas": [float], "tokens": [Amount], "accuracy": [float]}
_ROW = {
    "label": str, "controller": str, "beta": float | None, "accuracy": float, "accuracy_ci": (float, float),
    "tokens": Amount, "sequential_tokens": Amount, "branches": Amount,
}  # fmt: skip
_MEASURED: dict[Any, Any] = {
    "gain": _GAIN, "curve": _CURVE, "reference": _CURVE, "recordings": {str: _GAIN},
}  # fmt: skip
_AT: dict[Any, Any] = {"at_accuracy?": {"label": str, "tokens": float | None, "saving": float | None}}
_RESULT: dict[Any, Any] = {
    "settings": {
        "controller": str, "reference": str, "proposer": str, "seed": int, "stores": {str: str}, "weights": [float],
    },
    "candidate": {"name": str, "knobs": {str: Any}}, "command": str, "rounds": int, "tried": int, "seconds": float,
    "candidates_per_minute": float, "proposed": {**_GAIN, "questions": int}, "ablation": {str: float},
    "selected": {**_GAIN, "questions": int, "finalists": int}, "fresh": {**_MEASURED, "questions": int},
    "baselines": [_ROW], **_AT,
}  # fmt: skip
"""What a result holds, as far as it is read; a held-out one, below."""
_HELD_OUT = {**_MEASURED, "candidate": {"name": str}, "stores": {str: str}, "baselines": [_ROW], **_AT}


class History:
    """The folder of a search, open for going on with it.

    Raises:
        InputError: the folder holds another search, or something else.
        StoreError: it cannot be written, or another process searches there.
    """

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        self.folder = folder
        told = json.loads(json.dumps({"format": FORMAT, **settings}))
        _check_claim(folder, told)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._seat = Seat(folder, 0)
        except OSError as error:
            raise full(folder, error) from error
        try:
            if not _check_claim(folder, told):  # once more, now that nobody else can write
                write_whole(folder / SETTINGS, json.dumps(told, indent=2, ensure_ascii=False) + "\n")
            self._journal = Journal(folder / JOURNAL)
        except BaseException as error:
            self._seat.leave()
            if isinstance(error, OSError):
                raise full(folder / JOURNAL, error) from error
            raise
        self.archive = Archive.of(self._journal.rows)

    def find(self, candidate: Proposal, rung: int) -> Evaluation | None:
        """An evaluation made before; None if there is none."""
        return self.archive.found.get((candidate.name, rung))

    def add(self, new: Evaluation | Entry | Failure) -> None:
        """Keep an evaluation, a candidate or a failure; it is on the disk when this returns."""
        self._keep(new.to_dict())

    def finish_round(self, number: int, seconds: float) -> None:
        """Keep that a round is over, and the seconds it took altogether."""
        if number >= self.rounds:
            self._keep({"kind": "round", "round": number, "seconds": round(seconds, 3)})

    def _keep(self, row: dict[str, Any]) -> None:
        self._journal.append([row])
        self.archive.take(row)

    @property
    def rounds(self) -> int:
        """Rounds finished in this sitting and before."""
        return len(self.archive.rounds)

    @property
    def seconds(self) -> float:
        """Seconds that those rounds took."""
        return float(sum(row["seconds"] for row in self.archive.rounds))

    @property
    def evaluations(self) -> list[Evaluation]:
        """Every evaluation, in the order in which they were made."""
        return self.archive.evaluations

    def write(self, name: str, value: Mapping[str, Any]) -> None:
        """Write a JSON file of the folder, whole or not at all."""
        write_whole(self.folder / name, json.dumps(value, indent=2, ensure_ascii=False) + "\n")

    def read(self, name: str) -> dict[str, Any] | None:
        """A JSON file of the folder; None if it is not there yet."""
        return read_json(self.folder / name)

    def close(self) -> None:
        """Close the journal, and let others go on with the search."""
        self._journal.close()
        self._seat.leave()


def write_whole(path: Path, text: str) -> None:
    """Write a file and, where it is not there, its folder; see `disk.write_whole`.

    Raises:
        StoreError: naming the path and the space left.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        disk.write_whole(path, text)
    except OSError as error:
        raise full(path, error) from error


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON object; None if there is no such file."""
    return _object(path) if path.is_file() else None


def read_result(folder: Path) -> dict[str, Any]:
    """What a search found.

    Raises:
        InputError: it has none yet, or that is damaged.
    """
    if (row := read_json(path := folder / RESULT)) is None:
        raise InputError(f"{folder} has no {RESULT} yet; let the search end first.")
    check_format(row, RESULT_FORMAT, path, "Run the search again, which writes it.")
    check_shape(row, _RESULT, path)
    return row


def read_held_out(folder: Path) -> dict[str, Any] | None:
    """What was measured on held-out stores; None if nothing was.

    Raises:
        InputError: it is damaged.
    """
    if (row := read_json(path := folder / HELD_OUT)) is not None:
        check_format(row, HELD_OUT_FORMAT, path)
        check_shape(row, _HELD_OUT, path)
    return row


def _object(path: Path) -> dict[str, Any]:
    check_shape(row := strict_json.read_json(path), {}, path)
    return dict(row)


def read_settings(folder: Path) -> dict[str, Any]:
    """What a search folder searches.

    Raises:
        InputError: it is no search folder, or of another format.
    """
    path = folder / SETTINGS
    if not path.is_file():
        raise InputError(f"{folder} is not the folder of a search: it has no {SETTINGS}.")
    row = _object(path)
    check_format(row, FORMAT, path)
    if "cost" in row:  # what it was called before it could be held to a chain
        row["objective"] = row.pop("cost")
    return row


def read_archive(folder: Path) -> Archive:
    """Everything that a search folder holds of what was tried, whether or not the search is still running.

    Raises:
        InputError: it is no search folder.
    """
    read_settings(folder)
    return Archive.of(row for rows, _, _ in read_journal(folder / JOURNAL) for row in rows)


@checked
def read_history(folder: str | Path) -> list[Evaluation]:
    """Every evaluation of a search folder; see `read_archive`."""
    return read_archive(Path(folder)).evaluations


def _check_claim(folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder is this search's; False where it is nobody's yet."""
    if (folder / SETTINGS).is_file():
        theirs = read_settings(folder)
        known = {*theirs, *settings} - ({"code"} - theirs.keys())  # which searches did not always note
        differs = [name for name in sorted(known) if theirs.get(name) != settings.get(name)]
        if differs:
            told = "; ".join(f"{name}: {theirs.get(name)!r} there, {settings.get(name)!r} now" for name in differs)
            raise InputError(f"{folder} holds another search ({told}). Choose another --out, or repeat its options.")
        return True
    if folder.exists() and not (folder.is_dir() and set(os.listdir(folder)) <= {"LOCK", f".{SETTINGS}.tmp"}):
        raise InputError(f"{folder} holds something else than a search; choose an empty or a new folder for --out.")
    return False
