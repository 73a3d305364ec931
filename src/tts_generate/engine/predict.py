"""Seconds that a controller will take on a device, read off a recording and the device's profile."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tts_generate.arguments import checked, whole
from tts_generate.controller import Controller
from tts_generate.engine.clock import Recorded, loop_of
from tts_generate.engine.settings import Settings
from tts_generate.equivalence import Votes
from tts_generate.errors import StoreError
from tts_generate.live.task import Prompt, Task
from tts_generate.profile import Profile
from tts_generate.recorded.run import shuffled_orders
from tts_generate.trajectories import Trajectory, TrajectoryStore

_UNLIMITED = 1 << 60


@dataclass(frozen=True)
class Predicted:
    """Seconds of calls of `generate`, each of the same number of prompts; one entry a question in the arrays."""

    seconds: NDArray[np.float64]
    """From the beginning of its call to its answer."""
    calls: NDArray[np.float64]
    """Of each whole call."""
    passes: int
    tokens: int
    """Fed in all passes, those included that only fill them."""
    prompts: int

    @property
    def per_question(self) -> float:
        """Seconds of a call, shared out over its prompts."""
        return float(self.calls.mean()) / self.prompts

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values: seconds to an answer (mean, median, 95th percentile), a question, questions a minute."""
        p50, p95 = np.quantile(self.seconds, (0.5, 0.95))
        return {
            "prompts": self.prompts,
            "seconds": float(self.seconds.mean()),
            "p50": float(p50),
            "p95": float(p95),
            "seconds_a_question": self.per_question,
            "questions_a_minute": 60 / self.per_question if self.per_question else 0.0,
            "rows_a_pass": self.tokens / max(1, self.passes),
        }


@checked
def predict(
    store: TrajectoryStore,
    controller: Controller,
    profile: Profile,
    *,
    prompts: int = 1,
    max_rows: int = 256,
    ahead_rows: int | Literal["auto"] = 0,
    decode_ahead: bool = True,
    first_shuffle: int | None = 0,
    max_cache_bytes: int | None = None,
    questions: int | Collection[str] | None = None,
    votes: Votes = "equal",
) -> Predicted:
    """Run the engine's own loop over every recorded question, on the clock of a profile.

    Questions are answered in calls of `prompts`, the first ones again (in another order of their branches) where the
    last call lacks some.

    Args:
        store: a recording with a probe at every step, or of a controller that asks for none.
        controller: decides.
        profile: of the device.
        prompts: questions of a call.
        max_rows: as in `AutoTTS`, as the next two.
        ahead_rows: rows that work ahead; "auto": those that are free, as in a call that is given the profile.
        decode_ahead: whether branches decode on while they are probed.
        first_shuffle: seed of the order in which branches are opened; None: as they were recorded.
        max_cache_bytes: of the key-value cache; unlimited if left out.
        questions: the first so many of the recording only, or those of these ids.
        votes: which answers are one: equal texts, or the same mathematics, in the order in which they come as live.

    Raises:
        StoreError: the controller reads what was not recorded, or the questions were not.
        ControllerError: the controller fails; what else it raises comes as it is.
    """
    prompts = whole("prompts", prompts)
    asked = _questions(store, questions)
    calls = -(-len(asked) // prompts)
    items = [(number % len(asked), number // len(asked)) for number in range(calls * prompts)]
    settings = Settings(
        seed=0,
        interval_tokens=store.manifest.interval_tokens,
        max_new_tokens=_most(asked),
        max_branches=max(map(len, asked)),
        eos_token_ids=(1,),
        pad_token_id=0,
        max_rows=max_rows,
        max_cache_bytes=_UNLIMITED if max_cache_bytes is None else max_cache_bytes,
        ahead_rows=ahead_rows,
        profile=profile,
        decode_ahead=decode_ahead,
    )
    seconds, ends, passes, tokens = [], [], 0, 0
    for first in range(0, len(items), prompts):
        recorded, tasks = _call(asked, items[first : first + prompts], controller, first_shuffle)
        loop, model = loop_of(recorded, tasks, settings, profile, votes)
        seconds += [model.seconds for _ in loop.run()]
        ends.append(model.seconds)
        passes, tokens = passes + model.passes, tokens + model.tokens
    return Predicted(np.array(seconds), np.array(ends), passes, tokens, prompts)


def _questions(store: TrajectoryStore, of: int | Collection[str] | None) -> list[list[Trajectory]]:
    """The branches of each question, in order; those of published tables with the tokens that their probes ask for."""
    ids = [question.question_id for question in store.questions]
    wanted = set(of) if isinstance(of, Collection) else set(ids if of is None else ids[: whole("questions", of)])
    if not wanted or (unknown := wanted.difference(ids)):
        told = f"has no question {min(unknown)!r}" if wanted else "has no question, or none is asked for"
        raise StoreError(f"{store.name} {told}: there is nothing to predict.")
    found: dict[str, list[Trajectory]] = {}
    published, step = store.manifest.source == "autotts", store.manifest.interval_tokens
    for row in (row for row in store.trajectories() if row.question_id in wanted):
        if row.finish_reason is None:
            raise StoreError(f"{store.name}: branch {row.branch} of {row.question_id!r} was not recorded to its end.")
        if published:  # their branches end within the step after their last probe
            ends = step * len(row.probe_positions)
            row = dataclasses.replace(row, tokens=min(max(row.tokens, ends + 1), ends + step))
        found.setdefault(row.question_id, []).append(row)
    return [sorted(rows, key=lambda row: row.branch) for rows in found.values()]


def _most(asked: Sequence[Sequence[Trajectory]]) -> int:
    """Tokens of a branch at most: where some were cut, theirs; else more than any has."""
    rows = [row for branches in asked for row in branches]
    cut = [row.tokens for row in rows if row.finish_reason == "length"]
    return max(cut) if cut else max(row.tokens for row in rows) + 1


def _call(
    asked: Sequence[Sequence[Trajectory]],
    items: Sequence[tuple[int, int]],
    controller: Controller,
    first_shuffle: int | None,
) -> tuple[Recorded, list[Task]]:
    """The branches and tasks of one call."""
    recorded, tasks = {}, []
    for place, (number, again) in enumerate(items):
        rows = asked[number]
        shuffled = first_shuffle is not None or again
        order = shuffled_orders(1, len(rows), (first_shuffle or 0) + again)[0] if shuffled else list(range(len(rows)))
        name = str(place)
        recorded[name] = {row.branch: row for row in rows}
        tasks.append(Task(name, Prompt((0,) * max(1, rows[0].prompt_tokens)), controller, order=order))
    return recorded, tasks
