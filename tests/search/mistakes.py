"""What models do wrong when they write controllers, and what each must be told at once."""

from __future__ import annotations

from written_candidates import BROKEN

BASE = """
import math

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import TO_END
from tts_generate.votes import NO_ANSWER, confidence, majority, tally, weighted_confidence


class Tried(Controller):
    width: int
    bar: float

    @staticmethod
    def schedule(beta):
        return {"width": 2 + round(14 * beta), "bar": 0.5 + 0.4 * beta}

    def memory(self, max_branches):
        self.led = 0
        self.total = 0.0
        self.seen = np.zeros(max_branches, np.int64)

    def begin(self, state, do):
        do.open = min(self.width, state.max_branches)

    def plan(self, state, do):
        for i in range(state.opened):
            if not state.finished[i] and not state.pruned[i]:
                do.steps[i] = 1

    def review(self, state, do):
        BODY
        if state.live == 0:
            do.stop, do.answer = True, state.leader
"""


def reviewing(body: str) -> str:
    """A controller whose `review` begins with these lines."""
    return BASE.replace("BODY", body.replace("\n", "\n        "))


PLAIN = reviewing("pass")
MISTAKES: dict[str, tuple[str, str]] = {
    **{what: told for what, told in BROKEN.items() if told[1] and what != "half a character"},
    "a class with an accent": (PLAIN.replace("class Tried", "class Essayé"), "no such class stands at the top of the file"),
    "a class of another name": (f"{PLAIN}\n\nTried.__name__ = 'Other'\n", "no such class stands at the top of the file"),
    "a dictionary": (
        reviewing("d = {}\nfor i in range(state.opened):\n    d[state.answer[i]] = d.get(state.answer[i], 0) + 1"),
        "numba cannot compile controller.py, line 35: No implementation of function",
    ),
    "a dictionary in memory": (
        reviewing("self.votes[state.answer[0]] = 1").replace("self.led = 0", "self.led = 0\n        self.votes = {}"),
        "its votes is a dict; numba compiles numbers",
    ),
    "an attribute from nowhere": (reviewing("self.other = self.led + 1"), "line 33: Cannot resolve setattr: (Tried).other"),
    "a key function": (reviewing("x = sorted(range(state.opened), key=lambda i: state.tokens[i])"), "line 33: Cannot capture"),
    "an exception": (
        reviewing("try:\n    x = 1 / state.pooled\nexcept ZeroDivisionError:\n    x = 0"), "line 35: No implementation",
    ),
    "an import in a hook": (reviewing("from collections import Counter\nx = Counter(state.answer)"), "(IMPORT_NAME)"),
    "it says that it does not compile": (PLAIN.replace("    width: int", "    compiles = False\n    width: int"), "leave that out"),
    "weights for confidence": (reviewing("x = confidence(0.5 * state.opened, 1.5)"), "`weighted_confidence` takes weights"),
    "half a number in a whole one": (
        reviewing("self.led += 0.3\nif self.led > 1.5:\n    do.stop, do.answer = True, state.answer[0]"),
        "compiled than interpreted (beta 0). Compiled, an attribute keeps the type that `memory` gives it",
    ),
    "too slow": (
        reviewing("self.total += np.ones(2_000_000).sum()"), "compiles, but an episode takes",
    ),
    "beyond its depth": (
        reviewing("d = state.depth[0]\nif d < state.max_depth and state.answers[0, d] >= 0:\n    do.stop = True"),
        "(line 34): state.answers[0, 2] is beyond the 2 entries that were revealed",
    ),
    "beyond the end of a row": (reviewing("x = state.answers[0][state.max_depth - 1]"), "looking ahead"),
    "log-probabilities to come": (reviewing("x = state.logprobs[0, state.depth[0]]"), "state.logprobs[0, 2] is beyond"),
    "a branch that is not open": (
        reviewing("if state.opened < state.max_branches and state.answer[state.opened] >= 0:\n    do.stop = True"),
        "state.answer[2] is beyond the 2 entries",
    ),
    "beyond the pool": (reviewing("if state.pool[state.pooled - 1] == 0:\n    do.stop = True"), "state.pool[-1] is beyond"),
    "more branches than there are": (reviewing("do.open = 3"), "Never open more than state.max_branches"),
    "nothing moves": (PLAIN.replace("do.steps[i] = 1", "do.steps[i] = 0"), "Set do.steps, do.open or do.stop"),
    "a loop without an end": (reviewing("while state.pooled > 1:\n    self.led += 1"), "Does every `while` of its hooks end?"),
    "an answer of nobody": (reviewing("if state.pooled:\n    do.stop, do.answer = True, 99"), "an id that no branch has shown"),
    "steps as a list": (reviewing("pass").replace("    def plan", "    def plan").replace(
        "        for i in range(state.opened):\n            if not state.finished[i] and not state.pruned[i]:\n"
        "                do.steps[i] = 1", "        do.steps = [1] * state.opened"), "do.steps must stay the array it is"),
    "nothing opened": (PLAIN.replace("do.open = min(self.width, state.max_branches)", "pass"), "opened no branch in begin"),
    "a name that is none": (reviewing("x = pooled"), "NameError (line 33)"),
}  # fmt: skip
"""By what is wrong: the code, and a part of what its writer is told."""
