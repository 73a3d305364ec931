"""short-m@k: of k branches decoded at once, the m that finish first vote.

Source: Hassid et al., "Don't Overthink it" (arXiv 2505.17813).
"""

from __future__ import annotations

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import Decision, State
from tts_generate.votes import majority


class ShortMAtK(Controller):
    """Reads `num_chains` branches a step at a time and lets the `votes` shortest vote as soon as they have finished.

    Ties go to the answer with the shortest branch. Branches that end in one step are ranked by their tokens.
    """

    probing = "never"

    num_chains: int
    """Branches, all opened at once; k in the paper."""
    votes: int
    """Finished branches that vote; m in the paper."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """4 branches at beta 0, 64 at beta 1; a quarter of them vote, three or more."""
        return {"num_chains": round(4 + 60 * beta), "votes": max(3, round((4 + 60 * beta) / 4))}

    def begin(self, state: State, do: Decision) -> None:
        """Open every branch."""
        do.open = self.num_chains

    def plan(self, state: State, do: Decision) -> None:
        """One step for every branch that has not finished."""
        for i in range(state.opened):
            do.steps[i] = 1

    def review(self, state: State, do: Decision) -> None:
        """Answer once enough branches have finished."""
        if state.opened - state.live >= self.votes:
            do.stop = True
            do.answer = self.answer(state)

    def answer(self, state: State) -> int:
        """The majority of the shortest finished branches, shortest first."""
        shortest = np.full(self.votes, -1, np.int64)
        taken = np.zeros(state.opened, np.bool_)
        for place in range(self.votes):
            best = -1
            for i in range(state.opened):
                if state.finished[i] and not taken[i] and (best < 0 or state.tokens[i] < state.tokens[best]):
                    best = i
            if best < 0:
                break
            taken[best] = True
            shortest[place] = state.answer[best]
        return majority(shortest, self.votes)[0]
