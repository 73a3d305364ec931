"""Recordings as a bulk candidate gets them: arrays, relabelled, without questions, texts or gold; and their way back.

Questions come in a random order, and the ids of each question's answers are shuffled, so that neither says which
answer is frequent or right. The host keeps the key.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.answers import AnswerBook
from tts_generate.recorded.episodes import Columns
from tts_generate.recorded.recording import RecordedQuestion, Recording
from tts_generate.recorded.table import Table
from tts_generate.trajectories import Question
from tts_generate.votes import NO_ANSWER

_BRANCH_FIELDS = ("tokens", "interior", "first", "complete")
_STEP_FIELDS = ("answer", "probe_tokens")


class NoSuchAnswer(ValueError):
    """An answer that no branch of the question shows."""


@dataclass(frozen=True)
class Relabelled:
    """A recording for one candidate, and the key by which its results are read."""

    message: Mapping[str, Any]
    raw: bytes
    recording: Recording
    questions: NDArray[np.int64]
    """Place k of the candidate is question `questions[k]` of the recording."""
    ids: tuple[NDArray[np.int64], ...]
    """By place: what each of the candidate's answer ids is in the recording."""
    bounds: NDArray[np.int64]
    """(columns, questions) the most that an episode of the recording can show in each column."""

    @classmethod
    def of(cls, recording: Recording, rng: np.random.Generator) -> Relabelled:
        """Shuffle questions and answer ids by `rng`."""
        order = rng.permutation(len(recording.questions))
        ids, branches, steps, logprobs, bounds = [], [], [], [], []
        for q in order:
            recorded = recording.questions[q]
            rows, shown, logs = _slices(recorded)
            key = rng.permutation(int(shown["answer"].max(initial=NO_ANSWER)) + 1)
            bounds.append(_bounds(rows, shown, recording.interval_tokens))
            inverse = np.argsort(key)
            known = shown["answer"] >= 0
            shown["answer"][known] = inverse[shown["answer"][known]]
            ids.append(key.astype(np.int64))
            branches.append(rows)
            steps.append(shown)
            logprobs.append(logs)
        rows, shown, logs = np.concatenate(branches), np.concatenate(steps), np.concatenate(logprobs)
        rows["first"] = np.cumsum([0, *(rows["interior"] + 1)])[:-1]
        message = {
            "questions": [recording.questions[q].branches for q in order],
            "interval_tokens": recording.interval_tokens,
            "max_probe_tokens": recording.max_probe_tokens,
            "steps": len(shown),
            "logprobs": len(logs),
        }
        raw = b"".join(
            np.ascontiguousarray(column).astype("<i8").tobytes()
            for column in (*(rows[name] for name in _BRANCH_FIELDS), *(shown[name] for name in _STEP_FIELDS))
        )
        raw += np.ascontiguousarray(logs).astype("<f8").tobytes()
        return cls(message, raw, recording, order, tuple(ids), np.stack(bounds, axis=1))

    def columns(self, raw: bytes, shuffles: int) -> NDArray[np.int64]:
        """What a candidate sent back, in the recording's order and ids: (columns, shuffles, questions).

        Raises:
            ValueError: a number that no episode of this recording can have.
        """
        shape = (len(Columns._fields), max(1, shuffles), len(self.questions))
        if len(raw) != 8 * int(np.prod(shape)):
            raise ValueError(f"{len(raw)} bytes of results, {8 * int(np.prod(shape))} are expected")
        found = np.frombuffer(raw, "<i8").reshape(shape).astype(np.int64)
        least = np.array([NO_ANSWER, *[0] * (shape[0] - 1)])[:, None, None]
        wrong = np.argwhere((found < least) | (found > self.bounds[:, None, :]))
        if len(wrong):
            column, shuffle, place = wrong[0]
            kind = NoSuchAnswer if column == 0 else ValueError
            raise kind(
                f"{Columns._fields[column]} {found[column, shuffle, place]} in an episode, where at most "
                f"{self.bounds[column, place]} can be"
            )
        _consistent(Columns(*found))
        out = np.empty_like(found)
        out[:, :, self.questions] = found
        for place, q in enumerate(self.questions):
            key = np.append(self.ids[place], NO_ANSWER)  # index -1: no answer
            out[0, :, q] = key[found[0, :, place]]
        return out


def _slices(recorded: RecordedQuestion) -> tuple[NDArray[Any], NDArray[Any], NDArray[np.float64]]:
    rows = recorded.table.branches[recorded.offset : recorded.offset + recorded.branches].copy()
    start, end = rows["first"][0], rows["first"][-1] + rows["interior"][-1] + 1
    return rows, recorded.table.steps[start:end].copy(), recorded.table.logprobs[start:end]


def _bounds(rows: NDArray[Any], shown: NDArray[Any], interval_tokens: int) -> NDArray[np.int64]:
    """The most that any episode of a question can show, in the order of `Columns`."""
    generated = int(np.maximum(rows["tokens"], interval_tokens * rows["interior"]).sum())
    probed = int(shown["probe_tokens"].sum())
    answer = int(shown["answer"].max(initial=NO_ANSWER))
    rounds = int((rows["interior"] + 1).sum()) + len(rows)  # every round moves, opens or prunes a branch
    return np.array([answer, generated, probed, generated, generated + probed, len(rows), rounds], np.int64)


def _consistent(told: Columns) -> None:
    if (told.wasted_tokens > told.generated_tokens).any() or (told.opened < 1).any():
        raise ValueError("an episode that wastes more tokens than it generates, or opens no branch")
    if (told.sequential_tokens > told.generated_tokens + told.probe_tokens).any():
        raise ValueError("an episode that waits for more tokens than it spends")


def recording_of(message: Mapping[str, Any], raw: bytes) -> Recording:
    """The recording that a candidate's process makes of the arrays: nothing in it is right or wrong."""
    branches, steps = sum(message["questions"]), int(message["steps"])
    rows = np.zeros(branches, [(name, "?" if name == "complete" else "i8") for name in _BRANCH_FIELDS])
    shown = np.zeros(steps, [(name, "i8") for name in _STEP_FIELDS])
    place = 0
    for table, count, names in ((rows, branches, _BRANCH_FIELDS), (shown, steps, _STEP_FIELDS)):
        for name in names:
            table[name] = np.frombuffer(raw, "<i8", count, place)
            place += 8 * count
    logprobs = np.frombuffer(raw, "<f8", int(message["logprobs"]), place).astype(np.float64)
    both = Table(_aligned(rows), _aligned(shown), logprobs)
    offsets = np.cumsum([0, *message["questions"]])[:-1].tolist()
    questions = tuple(
        RecordedQuestion(Question(str(k), "", ""), both, offset, count, 0, AnswerBook(), NO_ANSWER)
        for k, (offset, count) in enumerate(zip(offsets, message["questions"], strict=True))
    )
    return Recording(questions, both, int(message["interval_tokens"]), int(message["max_probe_tokens"]))


def _aligned(table: NDArray[Any]) -> NDArray[Any]:
    """The same records laid out as `Recording` lays them out, so that what is compiled for one is compiled for both."""
    assert table.dtype.fields is not None
    return table.astype(np.dtype([(name, table.dtype[name]) for name in table.dtype.names or ()], align=True))


def plainest(branches: int, depth: int) -> Recording:
    """A question of `branches` branches, two or more, of which the longest takes `depth` steps: enough to run on."""
    branches = max(2, branches)
    interior = np.zeros(branches, np.int64)
    interior[0] = depth - 1
    steps = int((interior + 1).sum())
    first = np.cumsum([0, *(interior + 1)])[:-1]
    columns = (interior + 1, interior, first, np.ones(branches), np.zeros(steps), np.zeros(steps))
    message = {"questions": [branches], "interval_tokens": 1, "max_probe_tokens": 0, "steps": steps, "logprobs": 0}
    return recording_of(message, b"".join(column.astype("<i8").tobytes() for column in columns))
