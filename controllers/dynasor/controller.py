"""Dynasor: one branch, probed as it goes, answered as soon as its last probes agree.

Source: Fu et al., "Efficiently Scaling LLM Reasoning with Certaindex" (arXiv 2412.20993), Dynasor-CoT.
"""

from __future__ import annotations

from tts_generate.controller import Controller
from tts_generate.state import Decision, State


class Dynasor(Controller):
    """Reads one branch a step at a time and answers when its last `agree` probes gave the same answer."""

    agree: int
    """Probes in a row that must agree (2 or more); a probe without an answer breaks the row."""
    warm_up: int
    """Steps taken before the branch may be cut short."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """2 probes at beta 0, 12 at beta 1, from the second step on."""
        return {"agree": round(2 + 10 * beta), "warm_up": 2}

    def begin(self, state: State, do: Decision) -> None:
        """Open the branch."""
        do.open = 1

    def plan(self, state: State, do: Decision) -> None:
        """Answer if the last probes agree, else take one more step."""
        depth = state.depth[0]
        agreed = depth >= max(self.agree, self.warm_up) and not state.finished[0]
        for d in range(max(0, depth - self.agree), depth):
            if state.answers[0, d] != state.answer[0] or state.answer[0] < 0:
                agreed = False
        if agreed:
            do.stop = True
            do.answer = state.answer[0]
        else:
            do.steps[0] = 1
