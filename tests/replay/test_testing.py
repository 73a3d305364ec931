"""The public conformance checks: every shipped controller passes, and each kind of cheat is caught by name."""

from __future__ import annotations

import functools
import random
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError
from tts_generate.loading import builtin_controllers
from tts_generate.state import Decision, State
from tts_generate.testing import ConformanceError, check_controller, check_knobs, check_no_future, random_trajectories


@pytest.mark.long
@pytest.mark.parametrize("name", builtin_controllers())
def test_shipped_controllers_conform(name: str) -> None:
    check_controller(name)


def test_a_published_file_conforms() -> None:
    check_controller(Path(__file__).parent / "published_cmc.py", recordings=1)


class Reads(Controller):
    """Three branches, a step at a time; the base of the broken ones."""

    width: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": 3}

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.width

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            do.steps[i] = 1


class Remembers(Reads):
    seen: ClassVar[list[int]] = []
    compiles = False

    def review(self, state: State, do: Decision) -> None:
        self.seen.append(1)
        do.stop = len(self.seen) % 5 == 0


class Turns(Reads):
    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {"width": round(10 * beta * (1 - beta)) + 1}


class OutOfRange(Reads):
    def review(self, state: State, do: Decision) -> None:
        do.stop = state.answer[state.opened] >= 0 or state.opened > 3
        do.open = 3 if state.round == 1 else 0


class Peeks(Reads):
    compiles = False
    recording: Any = None

    def review(self, state: State, do: Decision) -> None:
        do.stop = bool(Peeks.recording.table.branches["tokens"][0] % 2)


def _closure() -> Any:
    seen: dict[int, int] = {}
    return lambda: seen


@functools.lru_cache
def _cached() -> dict[int, int]:
    return {}


def _generator() -> Any:
    seen: dict[int, int] = {}
    while True:
        yield seen


_held, _given, _global = _closure(), _generator(), dict[int, int]()


class Knows(Reads):
    """Answers at once where it knows a branch of the question by its length; it asks a store of its own for that."""

    compiles = False

    def known(self) -> dict[int, int]:
        raise NotImplementedError

    def review(self, state: State, do: Decision) -> None:
        lengths = [int(state.tokens[i]) for i in range(state.opened) if state.finished[i]]
        known = self.known()
        do.stop = any(known.get(n, 0) > 2 for n in lengths)
        for n in lengths:
            known[n] = known.get(n, 0) + 1


class InClosure(Knows):
    def known(self) -> dict[int, int]:
        found: dict[int, int] = _held()
        return found


class InDefault(Knows):
    def known(self, seen: dict[int, int] = {}) -> dict[int, int]:  # noqa: B006
        return seen


class InCache(Knows):
    def known(self) -> dict[int, int]:
        return _cached()


class InGenerator(Knows):
    def known(self) -> dict[int, int]:
        found: dict[int, int] = next(_given)
        return found


class InGlobal(Knows):
    def known(self) -> dict[int, int]:
        return _global


class InClass(Knows):
    seen: ClassVar[dict[int, int]] = {}

    def known(self) -> dict[int, int]:
        return self.seen


@pytest.mark.parametrize("kind", [Remembers, InClosure, InDefault, InCache, InGenerator, InGlobal, InClass])
def test_memory_that_outlives_an_episode(kind: type[Controller]) -> None:
    with pytest.raises(ConformanceError, match=r"remembers other episodes|sees what it did not read"):
        check_controller(kind.from_beta(0.5))


def test_a_knob_that_turns() -> None:
    with pytest.raises(ConformanceError, match="width rises and falls with beta"):
        check_knobs(Turns)


def test_reading_beyond_what_is_open() -> None:
    """Interpreted, entries beyond `opened` are as they were made; compiled, they hold what an earlier episode left."""
    with pytest.raises(ConformanceError, match="compiled than interpreted"):
        check_controller(OutOfRange.from_beta(0.5), recordings=12)


def test_a_look_into_the_future(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that got hold of the recording itself."""
    import tts_generate.testing as testing

    real = testing.recording_of

    def leaking(rows: Any) -> Any:
        Peeks.recording = real(rows)
        return Peeks.recording

    monkeypatch.setattr(testing, "recording_of", leaking)

    def check_all() -> None:
        for seed in range(20):
            rng = random.Random(seed)
            check_no_future(Peeks.from_beta(0.5), random_trajectories(rng, 64), rng)

    with pytest.raises(ConformanceError, match="sees what it did not read"):
        check_all()


def test_stalls_are_errors_of_the_controller() -> None:
    class Stalls(Reads):
        def plan(self, state: State, do: Decision) -> None:
            do.steps[:] = np.zeros_like(do.steps)

    with pytest.raises(ControllerError, match=r"stalls in round 0: unfinished branches: [123] \(#[012]: depth 1, "):
        check_controller(Stalls.from_beta(0.5))
