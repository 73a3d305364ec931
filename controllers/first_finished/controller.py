"""First finished: of several branches decoded at once, the first that ends with an answer gives it.

Source: short-1@k of Hassid et al., "Don't Overthink it" (arXiv 2505.17813).
"""

from __future__ import annotations

from tts_generate.controller import Controller
from tts_generate.state import Decision, State


class FirstFinished(Controller):
    """Reads `num_chains` branches a step at a time; the shortest that finishes with an answer decides."""

    probing = "never"

    num_chains: int
    """Branches, all opened at once."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """2 branches at beta 0, 16 at beta 1."""
        return {"num_chains": round(2 + 14 * beta)}

    def begin(self, state: State, do: Decision) -> None:
        """Open every branch."""
        do.open = self.num_chains

    def plan(self, state: State, do: Decision) -> None:
        """One step for every branch that has not finished."""
        for i in range(state.opened):
            do.steps[i] = 1

    def review(self, state: State, do: Decision) -> None:
        """Answer with the shortest branch of those that ended in this step."""
        best = -1
        for i in range(state.opened):
            if state.finished[i] and state.answer[i] >= 0 and (best < 0 or state.tokens[i] < state.tokens[best]):
                best = i
        if best >= 0:
            do.stop = True
            do.answer = state.answer[best]
