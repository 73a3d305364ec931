"""Answer stability: each branch is cut short once its own answer has stood, then all of them vote.

Source: Liu and Wang, "Answer Convergence as a Signal for Early Stopping in Reasoning" (arXiv 2506.02536), applied to
every branch of a self-consistency vote.
"""

from __future__ import annotations

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import Decision, State
from tts_generate.votes import majority


class AnswerStability(Controller):
    """Reads `num_chains` branches a step at a time, gives each up once its answer has stood, and lets all of them vote.

    A branch given up votes with the answer that stood; a finished one with its own. Its tokens count as wasted, since
    its end is never read.
    """

    num_chains: int
    """Branches, all opened at once."""
    stability: int
    """Probes in a row of one branch that must agree (2 or more)."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """4 branches and 3 probes at beta 0, 64 branches and 12 probes at beta 1."""
        return {"num_chains": round(4 + 60 * beta), "stability": round(3 + 9 * beta)}

    def begin(self, state: State, do: Decision) -> None:
        """Open every branch."""
        do.open = self.num_chains

    def plan(self, state: State, do: Decision) -> None:
        """Give up the branches whose answer has stood; the others take one step."""
        for i in range(state.opened):
            do.prune[i] = self._stands(state, i)
            do.steps[i] = 1

    def answer(self, state: State) -> int:
        """The majority of the latest answers of all branches, in opening order."""
        latest = np.full(state.opened, -1, np.int64)
        for i in range(state.opened):
            latest[i] = state.answer[i]
        return majority(latest, state.opened)[0]

    def _stands(self, state: State, branch: int) -> bool:
        depth = state.depth[branch]
        if depth < self.stability or state.answer[branch] < 0:
            return False
        for d in range(depth - self.stability, depth):
            if state.answers[branch, d] != state.answer[branch]:
                return False
        return True
