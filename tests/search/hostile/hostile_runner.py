"""Runs every hostile controller in this process's circumstances and prints what came of each, as JSON.

    python hostile_runner.py [--no-namespaces] [--bubblewrap]

The tests and `benchmarks/sandbox.py` start it as root, as another user, and with namespaces refused.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hostile_candidates import CANDIDATES, DIFFERENT, GOLD, HONEST, HONEST_SOURCE, VALID, Hostile

from tts_generate.errors import CandidateError
from tts_generate.inert import inert
from tts_generate.recorded.episodes import Columns
from tts_generate.replay import Recording, ReplayResult
from tts_generate.sandbox import Limits, Sandbox
from tts_generate.sandbox.attacks import MACHINE, WORKED, machine_attack, targets
from tts_generate.sandbox.seccomp import ALLOW, REFUSE, each, head, install, this_arch
from tts_generate.testing import INTERVAL, random_trajectories
from tts_generate.trajectories import Question

LONG, SHORT = Limits(seconds=20, memory_mb=128), Limits(seconds=0.3, memory_mb=128)
"""For candidates that end by themselves, and for those that do not."""
SLACK = 10.0
SHUFFLES = {"bulk": 5, "strict": 1}
"""So few in strict mode that every episode is run again, alone."""


def recording(branches: int = 8) -> Recording:
    """Six questions of some branches, whose gold is a text that a candidate can look for."""
    rng = random.Random(0)
    questions = [Question(f"q{n}", f"the question {n}", GOLD) for n in range(6)]
    rows = []
    for question in questions:
        for row in random_trajectories(rng, branches):
            fields = {name: getattr(row, name) for name in row.__slots__}
            rows.append(type(row)(**{**fields, "question_id": question.question_id}))
    return Recording.of(questions, rows, INTERVAL)


def refuse_namespaces() -> None:
    """Refuse unshare, mount, setns, clone3 and clone with new namespaces, as Docker's default profile does."""
    arch = this_arch()
    assert arch is not None
    assert os.uname().machine == "x86_64"
    lines = [*head(arch), *each((272, 308, 165), REFUSE | 1), *each((435,), REFUSE | 38)]
    lines += [(0x15, 0, 3, 56), (0x20, 0, 0, 16), (0x45, 0, 1, 0x7E020000), (0x06, 0, 0, REFUSE | 1)]
    install([*lines, (0x06, 0, 0, ALLOW)])


def same(one: ReplayResult, other: ReplayResult) -> bool:
    return all((getattr(one, name) == getattr(other, name)).all() for name in Columns._fields)


class Runner:
    """One sandbox, one recording, every hostile controller."""

    def __init__(self, bubblewrap: bool | None) -> None:
        self.recording = recording()
        self.box = Sandbox(LONG, bubblewrap=bubblewrap)
        self.box.evaluate(
            "from tts_generate.controller import Controller\nclass C(Controller):\n"
            "    schedule = staticmethod(lambda beta: {})\n    def begin(self, state, do): do.open, do.open_steps = 1, 99",
            self.recording,
            shuffles=0,
        )  # starts the compiler
        honest = HONEST_SOURCE.replace(b"import ctypes, gc, json, os, sys, time\n", b"")
        self.honest = {
            mode: self.box.evaluate(honest, self.recording, shuffles=shuffles, mode="strict")
            for mode, shuffles in SHUFFLES.items()
        }

    def run(self, hostile: Hostile, mode: str, places: dict[str, object]) -> dict[str, Any]:
        source = hostile.source
        if hostile.code == "MACHINE":
            code = MACHINE[hostile.name.removeprefix("tries to ")]
            source = machine_attack(code, places).encode() + HONEST_SOURCE
        limits = SHORT if "time" in hostile.right else LONG
        started = time.monotonic()
        said, output = "", ""
        try:
            outcome = self.outcome(source, mode, limits)
        except CandidateError as error:
            outcome, said, output = error.reason, str(error), error.output  # `different` is one of them
        except BaseException as error:  # reported: it is a hole in the host
            outcome, said = f"{type(error).__name__} in the host", str(error)
        seconds = time.monotonic() - started
        works = WORKED in said or "exit code 42" in said
        if mode == "bulk" and hostile.name == "tries to run machine code of its own":
            works = False  # bulk mode compiles: what machine code can do is another attack
            outcome = HONEST
        clean = inert(said + output) == said + output
        fine = (
            outcome in hostile.right and not works and clean and len(said) < 3000 and seconds < limits.seconds + SLACK
        )
        return {"name": hostile.name, "mode": mode, "contained": fine, "outcome": outcome, "said": said[:300],
                "seconds": round(seconds, 3)}  # fmt: skip

    def outcome(self, source: bytes, mode: Any, limits: Limits) -> str:
        with self.box.candidate(source, mode=mode, check=False, limits=limits) as candidate:
            found = candidate.replay(
                self.recording, shuffles=SHUFFLES[mode], **({"compiled": False} if mode == "bulk" else {})
            )
            assert all(c.isprintable() or c == "\n" for c in candidate.output)
        if same(found, self.honest[mode]):
            return HONEST
        if mode == "strict":
            return VALID
        return VALID if self.confirm(source, found) else DIFFERENT

    def confirm(self, source: bytes, found: ReplayResult) -> bool:
        """By a few episodes, and by all of them where those say nothing."""
        how: dict[str, Any] = {"shuffles": SHUFFLES["bulk"], "check": False}
        return all(self.box.confirm(source, [found], episodes=episodes, **how).same for episodes in (6, 30))


def main(no_namespaces: bool, bubblewrap: bool | None) -> None:
    """Run and print."""
    if no_namespaces:
        refuse_namespaces()
    before = threading.active_count()
    runner = Runner(bubblewrap)
    work = [(hostile, mode) for hostile in CANDIDATES for mode in hostile.modes]
    with targets() as places, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda pair: runner.run(*pair, places), work))
        left = sorted(path.name for path in Path(str(places["FOLDER"])).iterdir())
    descriptors = len(os.listdir("/proc/self/fd"))
    line = runner.box.line
    runner.box.close()
    told = {
        "locks": line, "uid": os.getuid(), "tried": len(found), "contained": sum(row["contained"] for row in found),
        "controllers": len(CANDIDATES), "left": left, "threads": threading.active_count() - before,
        "descriptors": descriptors, "children": children(), "rows": found,
    }  # fmt: skip
    sys.stdout.write(json.dumps(told))


def children() -> int:
    """Processes that this one has left."""
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return len(file.read().split())


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--no-namespaces", action="store_true")
    parser.add_argument("--bubblewrap", action="store_true")
    arguments = parser.parse_args()
    main(arguments.no_namespaces, True if arguments.bubblewrap else None)
