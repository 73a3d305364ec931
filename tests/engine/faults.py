"""What can go wrong while a model decodes, made to happen; the same in figures: `benchmarks/reliability.py`.

Each trial gives `tried`; `wrong`, how many of them came back otherwise than they should; and `left`, how many left
something behind: a cache, a descriptor, a thread, a hook, a changed setting or random state, or another answer to the
next call.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from endurance import SHORT, Raises, held, settings
from engine_models import QUESTIONS, Live
from transformers import LogitsProcessorList

from tts_generate.controller import Controller
from tts_generate.processors import BranchProcessor
from tts_generate.state import Decision, State

Trial = dict[str, int]
Good = Callable[[Any, list[str]], bool]
POINTS = 4
"""At how many places of a call each fault is tried."""


class Watched:
    """A model whose calls are tried, with what it holds and answers before."""

    def __init__(self, live: Live) -> None:
        self.live = live
        self.expected = live.run(*QUESTIONS, **SHORT)
        live.run(*QUESTIONS, **SHORT)
        self.before = self._state()
        self.trial: Trial = {"tried": 0, "wrong": 0, "left": 0}

    def _state(self) -> Any:
        now = held()
        return settings(self.live), [now[name] for name in ("descriptors", "threads", "caches")]

    def call(self, good: Good, harm: AbstractContextManager[Any] | None = None, **how: Any) -> None:
        """Make a call; `good` is told the output, or the error, and the warnings."""
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            try:
                with harm or contextlib.nullcontext():
                    came = self.live.run(*QUESTIONS, **{**SHORT, **how})
            except (Exception, KeyboardInterrupt) as error:
                came = error.with_traceback(None)
        self.trial["tried"] += 1
        self.trial["wrong"] += not good(came, [str(one.message) for one in said])
        del came
        again = self.live.run(*QUESTIONS, **SHORT)
        same = torch.equal(again.sequences, self.expected.sequences) and again.cost == self.expected.cost
        del again
        self.trial["left"] += not same or self._state() != self.before


class Broken(Controller):
    """Raises in one of its hooks, stalls, or opens branches for ever."""

    probing = "every_step"
    width: int
    how = ""
    begun = 0

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 4}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width
        type(self).begun += 1
        self._raise("begin" if self.begun == 1 else "begin last" if self.begun == len(QUESTIONS) else "")

    def plan(self, state: State, do: Decision) -> None:
        do.steps[: state.opened] = 0 if self.how == "stalls" else 1
        self._raise("plan")

    def review(self, state: State, do: Decision) -> None:
        self._raise("review")
        if self.how == "opens":
            do.open = 1

    def _raise(self, hook: str) -> None:
        if hook == self.how != "":
            raise ZeroDivisionError("a bug of the controller")


class Interrupts(BranchProcessor):
    """A real SIGINT in the `at`-th round; with `after`, one more so many seconds later. `with` it around the call."""

    def __init__(self, at: int, after: float | None = None) -> None:
        self.at, self.rounds = at, 0
        self.second = None if after is None else threading.Thread(target=self._again, args=(after,))

    def __call__(self, state: State, do: Decision) -> None:
        self.rounds += 1
        if self.rounds == self.at:
            if self.second is not None:
                self.second.start()
            os.kill(os.getpid(), signal.SIGINT)

    def _again(self, after: float) -> None:
        time.sleep(after)
        os.kill(os.getpid(), signal.SIGINT)

    def __enter__(self) -> Interrupts:
        return self

    def __exit__(self, *_: object) -> None:
        if self.second is not None:
            self.second.join()


def raising_processors(live: Live) -> Trial:
    """A logits processor raises: its error is the caller's, unchanged."""
    watched = Watched(live)
    for at in range(1, 2 * POINTS + 1):
        processors = LogitsProcessorList([Raises(at)])
        watched.call(
            lambda came, said: type(came) is RuntimeError and "somebody" in str(came), logits_processor=processors
        )
    return watched.trial


def broken_controllers(live: Live) -> Trial:
    """A controller raises in a hook, stalls, or opens for ever: each question ends with what it has, and says why."""
    watched = Watched(live)
    for how in ("begin", "begin last", "plan", "review", "stalls", "opens"):
        kind = type(f"Broken_{how}", (Broken,), {"how": how, "__module__": __name__})

        def good(came: Any, said: list[str], how: str = how) -> bool:
            if how == "begin":  # the first question: nothing is decoded yet
                return isinstance(came, ZeroDivisionError)
            bugs = {"stalls": "stalls in round", "opens": "wants 9 branches"}
            told = sum("majority so far" in line and bugs.get(how, "a bug of the controller") in line for line in said)
            return told == came.finish_reason.count("error") == (1 if how == "begin last" else len(QUESTIONS))

        watched.call(good, controller=kind.from_beta(0.5), beta=None, max_branches=8)
    return watched.trial


def nan_logits(live: Live) -> Trial:
    """NaN in one row of one pass: that question ends with a warning, the others come out as they would have."""
    watched = Watched(live)

    def good(came: Any, said: list[str]) -> bool:
        spared = [n for n, reason in enumerate(came.finish_reason) if reason == "answer"]
        same = all(came.answers[n] == watched.expected.answers[n] for n in spared)
        same &= all(came.cost[n] == watched.expected.cost[n] for n in spared)
        return same and len(spared) == len(QUESTIONS) - 1 and any("NaN logits" in line for line in said)

    for at in range(2, 2 + POINTS):
        watched.call(good, _forward(live, at, lambda output, rows: output.logits[0, 0].fill_(float("nan"))))
    return watched.trial


def out_of_memory(live: Live) -> Trial:
    """No pass of more than some rows fits: it goes on with fewer, and the same answers at the same cost."""
    watched = Watched(live)
    for most in range(2, 2 + POINTS):

        def cap(output: Any, rows: int, most: int = most) -> None:
            if rows > most:
                raise torch.OutOfMemoryError("no more than that fits (a test)")

        watched.call(
            lambda came, said: (came.answers, came.cost) == (watched.expected.answers, watched.expected.cost),
            _forward(live, None, cap),
        )
    return watched.trial


def interrupts(live: Live, delays: Sequence[float | None]) -> Trial:
    """Ctrl-C: once, what there is comes back and says so; twice, that or KeyboardInterrupt. In the main thread.

    `delays` are the seconds after which it comes again.
    """
    assert threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        watched = Watched(live)
        for number, after in enumerate(delays):
            blow = Interrupts(2 + number % 4, after)
            watched.call(
                lambda came, said, after=after: (
                    (after is not None and isinstance(came, KeyboardInterrupt)) or "interrupted" in came.finish_reason
                ),
                blow,
                branch_processors=[blow],
            )
        return watched.trial
    finally:
        signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _forward(live: Live, at: int | None, harm: Callable[[Any, int], Any]) -> Iterator[None]:
    """Do harm to the `at`-th pass, or to each; it is told the output and how many rows it has."""
    count = 0

    def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        nonlocal count
        chosen = kwargs.get("logits_to_keep")
        if isinstance(chosen, torch.Tensor):  # a pass, not a prefill
            count += 1
            if at is None or count == at:
                harm(output, len(chosen.unique()))  # what fills a pass is the last one again
        return output

    handle = live.model.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


TRIALS: dict[str, Callable[[Live], Trial]] = {
    "raising_processor": raising_processors,
    "broken_controller": broken_controllers,
    "nan_logits": nan_logits,
    "out_of_memory": out_of_memory,
    "ctrl_c": lambda live: interrupts(live, [None] * POINTS),
    "ctrl_c_twice": lambda live: interrupts(live, [0.0003 * number for number in range(4 * POINTS)]),
}
