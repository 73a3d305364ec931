"""Replays in strict mode: the host counts, and nothing that one order of a question shows is known in another.

Each order of the branches, at each budget, has a process of its own, in which every question comes once, in random
order. What could still be carried from one question to the next is found by running some episodes again, each alone in
a process: a candidate that decides otherwise there is disqualified.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from tts_generate.errors import CandidateError, ControllerError
from tts_generate.recorded.episodes import Columns, count
from tts_generate.recorded.recording import Recording
from tts_generate.recorded.run import shuffled_orders, worth_compiling
from tts_generate.sandbox.confirmation import Confirmation, Difference
from tts_generate.sandbox.lockstep import Ground, Stuck
from tts_generate.sandbox.strict import StrictController

if TYPE_CHECKING:
    from tts_generate.sandbox.candidate import Candidate

_T = TypeVar("_T")
_CHANCE = random.SystemRandom()
"""Which nobody foresees, and which leaves a caller's own random numbers alone."""
_AGAIN = 4, 2, 128
"""Episodes that are run again: so many, more for each budget on each recording, and at most."""
_SECONDS = 0.05
"""Of wall time that an episode may take on average, beside what the limits say of a candidate."""


def replay_strictly(
    candidate: Candidate,
    recordings: Sequence[Recording],
    controllers: Sequence[StrictController],
    shuffles: int,
    first_shuffle: int,
    threads: int | None,
) -> list[list[NDArray[np.int64]]]:
    """The columns of every episode, by controller, then by recording.

    Raises:
        CandidateError: it fails, or decides otherwise when it is alone.
    """
    rows = max(1, shuffles)
    episodes = rows * len(controllers) * sum(len(recording.questions) for recording in recordings)
    compiled = worth_compiling(episodes)
    out = [[Columns.empty(rows, len(recording.questions)) for recording in recordings] for _ in controllers]
    grounds = []
    for interval in {recording.interval_tokens for recording in recordings}:
        those = [r for r, recording in enumerate(recordings) if recording.interval_tokens == interval]
        places = [(r, q) for r in those for q in range(len(recordings[r].questions))]
        grounds.append((Ground.of([recordings[r] for r in those], compiled), places))

    def in_one_process(c: int, s: int) -> None:
        with candidate.fresh() as process:
            for ground, places in _CHANCE.sample(grounds, len(grounds)):
                questions = _CHANCE.sample(range(len(places)), len(places))
                orders = {
                    n: order_of(n, s, shuffles, first_shuffle)[None] for n in {q.branches for q in ground.questions}
                }
                try:
                    found = ground.run(process.channel, controllers[c], questions, orders)
                except Stuck as stuck:
                    r, q = places[stuck.question]
                    columns_of(recordings[r], controllers[c], q, s, shuffles, first_shuffle)
                    raise unlike(q) from None
                for k, question in enumerate(questions):
                    r, q = places[question]
                    out[c][r][:, s, q] = found[:, k]

    def alone(c: int, r: int, s: int, q: int) -> Difference | None:
        columns = out[c][r][:, s, q]
        told = columns_of(recordings[r], controllers[c], q, s, shuffles, first_shuffle)
        return Difference.of(float(controllers[c].beta or 0), s, q, columns, told)

    with candidate.allowed(_SECONDS * episodes):
        jobs = [partial(in_one_process, c, s) for c in range(len(controllers)) for s in range(rows)]
        at_once(_CHANCE.sample(jobs, len(jobs)), threads)
        least, each, most = _AGAIN
        every = [(c, r, s, q) for c, found in enumerate(out) for r, one in enumerate(found)
                  for s, q in np.ndindex(one[0].shape)]  # fmt: skip
        again = _CHANCE.sample(every, min(len(every), most, least + each * len(controllers) * len(recordings)))
        differences = at_once([partial(alone, *place) for place in again], threads)
    Confirmation(len(again), tuple(one for one in differences if one is not None)).require()
    return out


def at_once(jobs: Sequence[Callable[[], _T]], threads: int | None) -> list[_T]:
    """What the jobs return, in their order; the first that fails ends those that have not begun."""
    threads = min(threads or os.cpu_count() or 1, len(jobs))
    if threads <= 1:
        return [job() for job in jobs]
    with ThreadPoolExecutor(threads) as pool:
        futures = [pool.submit(job) for job in jobs]
        wait(futures, return_when=FIRST_EXCEPTION)
        if any(future.done() and future.exception() is not None for future in futures):
            pool.shutdown(wait=True, cancel_futures=True)
        failed: Iterable[BaseException | None] = (f.exception() for f in futures if f.done() and not f.cancelled())
        for error in failed:
            if error is not None:
                raise error
        return [future.result() for future in futures]


def order_of(branches: int, shuffle: int, shuffles: int, first: int) -> NDArray[np.int64]:
    """The order of so many branches in row `shuffle` of a replay's columns."""
    if shuffles == 0:
        return np.arange(branches)
    return np.array(shuffled_orders(1, branches, first + shuffle)[0], np.int64)


def columns_of(
    recording: Recording, controller: StrictController, question: int, shuffle: int, shuffles: int, first: int
) -> NDArray[np.int64]:
    """One episode's columns, alone in its process, run and counted by the host.

    Raises:
        CandidateError: it fails, or decides what cannot be carried out.
    """
    order = order_of(recording.questions[question].branches, shuffle, shuffles, first).tolist()
    try:
        episode = recording.episode(controller, question, order)
    except CandidateError:
        raise
    except ControllerError as error:
        raise CandidateError("decision", str(error)) from error
    count(episode.state, episode.answer, out := Columns.empty(1, 1), 0, 0)
    return out[:, 0, 0]


def unlike(question: int) -> CandidateError:
    """What to say of an episode that fails beside others, and not alone."""
    return CandidateError(
        "different",
        f"an episode of question {question} comes to nothing beside episodes of other questions, and not alone: the "
        "candidate remembers other episodes, or draws on time or chance.",
    )
