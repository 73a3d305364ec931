"""Machine code of one process serves the next, is never taken for another's, and its loss costs time only."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from tts_generate.recorded import machine_code
from tts_generate.recorded.machine_code import digest_of, kept

numba: Any = pytest.importorskip("numba")

CONTROLLER = """
import math
import numpy as np
from tts_generate.controller import Controller
{at_the_top}

def limit(width):
    return width {change}

class Wide(Controller):
    probing = "never"
    width: int

    @staticmethod
    def schedule(beta):
        return {{"width": 3}}

    def memory(self, max_branches):
        self.seen = np.zeros(max_branches, np.int64)

    def most(self):
        return limit(self.width)

    def begin(self, state, do):
        self.seen[0] = self.most()
        do.open, do.open_steps = min(state.max_branches, self.seen[0]), 1 << 20
"""
RUN = """
import json, random, sys, warnings
from tts_generate.loading import load_controller
from tts_generate.recorded import compiled, machine_code
from tts_generate.replay import replay
from tts_generate.testing import random_trajectories, recording_of

recording = recording_of(random_trajectories(random.Random(0), 12))
told = {}
for path in sys.argv[1:]:
    controller = load_controller(path, trust_remote_code=True)
    fast = replay(recording, controller, shuffles=3, compiled=True)
    slow = replay(recording, controller, shuffles=3, compiled=False)
    assert fast.compile_seconds is not None
    same = bool((fast.cost == slow.cost).all() and (fast.answer_ids == slow.answer_ids).all())
    told[path] = {"opened": int(fast.opened[0, 0]), "same": same}
told["loaded"] = sum(sum(run._cache_hits.values()) for run in compiled._runs.values())
print(json.dumps(told))
"""


def run_in_a_process(folder: Path, *controllers: Path) -> dict[str, Any]:
    """What a fresh process replays, with machine code in `folder`; how many entries it found there."""
    told = subprocess.run(
        [sys.executable, "-c", RUN, *map(str, controllers)],
        env={**os.environ, "NUMBA_CACHE_DIR": str(folder)}, capture_output=True, text=True,
    )  # fmt: skip
    assert told.returncode == 0, told.stderr
    return dict(json.loads(told.stdout))


def written(folder: Path, change: str, at_the_top: str = "") -> Path:
    """A controller in a folder of its own; all of them have equal names, fields and hooks."""
    folder.mkdir()
    code = CONTROLLER.format(change=change, at_the_top=at_the_top)
    (folder / "controller.py").write_text(code)
    card = {
        "format": "tts-controller/1", "api": 1, "name": "wide", "description": "Opens some.", "provenance": {},
        "entry": "controller.py:Wide", "beta": {"default": 0.5, "range": [0.0, 1.0]},
        "sha256": hashlib.sha256(code.encode()).hexdigest(), "requires": {"tts_generate": ">=0.1"},
    }  # fmt: skip
    (folder / "controller.json").write_text(json.dumps(card))
    return folder


@pytest.mark.long
def test_each_process_finds_its_own(tmp_path: Path) -> None:
    """Two that differ in a helper alone, compiled apart, as numba names them alike, and loaded together."""
    place = tmp_path / "code"
    one, two, copy = written(tmp_path / "one", "+ 1"), written(tmp_path / "two", "+ 2"), written(tmp_path / "c", "+ 1")
    assert run_in_a_process(place, one) == {str(one): {"opened": 4, "same": True}, "loaded": 0}
    assert run_in_a_process(place, two) == {str(two): {"opened": 5, "same": True}, "loaded": 0}
    kept = {path: path.stat().st_mtime_ns for path in (place / "compiled").iterdir()}
    assert len(kept) == 2
    told = run_in_a_process(place, one, two, copy)
    assert {name: told[str(path)]["opened"] for name, path in (("one", one), ("two", two), ("copy", copy))} == {
        "one": 4, "two": 5, "copy": 4,
    }  # fmt: skip
    assert all(told[str(path)]["same"] for path in (one, two, copy))
    assert told["loaded"] == 3  # the copy is what the first one was
    assert {path: path.stat().st_mtime_ns for path in (place / "compiled").iterdir()} == kept


def loaded(function: Any, digest: str | None) -> tuple[int, int]:
    """What a newly made compiled function gives for 3, and how often it was found in the folder."""
    compiled = kept(numba.njit(function), digest)
    return int(compiled(3)), sum(compiled._cache_hits.values())


def test_damage_and_a_folder_that_cannot_be_written_cost_time_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    add, digest = of(1), digest_of(of(1))
    assert [loaded(add, digest), loaded(add, digest), loaded(add, None)] == [(4, 0), (4, 1), (4, 0)]
    (path,) = (tmp_path / "compiled").iterdir()
    whole = path.read_bytes()
    flipped = bytearray(whole)
    flipped[len(whole) // 2] ^= 1
    for damaged in (b"", b"\n", whole[:-100], bytes(flipped), b"\xff" * 100):
        path.write_bytes(damaged)
        assert [loaded(add, digest), loaded(add, digest)] == [(4, 0), (4, 1)], "it is mended"
    stands = tmp_path / "a file"
    stands.write_text("")
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(stands))
    assert [loaded(add, digest), loaded(add, digest)] == [(4, 0), (4, 0)]
    assert stands.read_text() == ""


def test_nothing_is_kept_where_it_is_forbidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a sandbox."""
    monkeypatch.setattr(numba.core.config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(machine_code, "_allowed", True)
    machine_code.keep_nothing()
    assert loaded(of(1), digest_of(of(1))) == (4, 0)
    assert not list(tmp_path.iterdir())


class More(NamedTuple):
    by: int


FACTOR = 2
TABLE = np.arange(3)


def helper(x: int) -> int:
    return x + FACTOR


def calls(x: int) -> int:
    return helper(x) * int(TABLE[0])


def of(value: Any) -> Callable[[int], Any]:
    return lambda x: x + value


def with_default(x: int, by: int = 1) -> int:
    return x + by


class TestDigest:
    def test_what_is_reached_counts(self, monkeypatch: pytest.MonkeyPatch) -> None:
        digests = [digest_of(calls)]
        here = sys.modules[__name__]
        for name, value in (
            ("FACTOR", 3), ("FACTOR", 2.0), ("FACTOR", True), ("TABLE", np.arange(3.0)), ("TABLE", np.arange(4)),
            ("TABLE", np.array([1, 1, 2])), ("helper", lambda x: x - FACTOR),
        ):  # fmt: skip
            with monkeypatch.context() as changed:
                changed.setattr(here, name, value)
                digests.append(digest_of(calls))
        assert None not in digests
        assert len({*digests}) == len(digests)
        assert digest_of(calls) == digests[0]

    def test_closures_and_defaults_count(self) -> None:
        assert digest_of(of(1)) == digest_of(of(1))
        assert len({digest_of(of(value)) for value in (1, 2, 1.0, True, "1", None)}) == 6
        before = digest_of(with_default)
        with_default.__defaults__ = (2,)
        assert digest_of(with_default) != before

    def test_where_it_stands_does_not(self) -> None:
        texts = ("def f(x):\n    return [y + 1 for y in x]", "\n\n\ndef f(x):\n\n    return [y + 1 for y in x]  # why")
        made = []
        for number, text in enumerate(texts):
            names: dict[str, Any] = {}
            exec(compile(text, f"file {number}", "exec"), names)
            made.append(digest_of(names["f"]))
        assert made[0] == made[1] is not None

    def test_what_no_digest_tells(self) -> None:
        for value in (
            object(),
            of(object()),
            np.array([object()]),
            More(1),
            {"a": [1]},
            Path("a"),
            os,
            digest_of.__get__(1),
        ):
            assert digest_of(value) is None
