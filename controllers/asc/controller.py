"""Adaptive consistency: read one branch after the other until the majority is unlikely to change.

Source: Aggarwal et al., "Let's Sample Step by Step" (arXiv 2305.11860), the Beta stopping criterion.
"""

from __future__ import annotations

from tts_generate.controller import Controller
from tts_generate.state import TO_END, Decision, State
from tts_generate.votes import confidence


class ASC(Controller):
    """Reads branches to their end one at a time, until the leader beats the runner-up with confidence `threshold`."""

    probing = "never"

    max_samples: int
    """Branches at most (1 or more)."""
    threshold: float
    """Posterior probability of the leader at which reading stops (0 to 1)."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """4 branches at beta 0, 64 at beta 1; the published threshold throughout."""
        return {"max_samples": round(4 + 60 * beta), "threshold": 0.95}

    def begin(self, state: State, do: Decision) -> None:
        """Read the first branch."""
        do.open = 1
        do.open_steps = TO_END

    def review(self, state: State, do: Decision) -> None:
        """Stop when the vote is settled or the samples are spent, else read one more branch."""
        settled = state.opened >= 2 and confidence(state.leader_votes, state.runner_up_votes) > self.threshold
        if settled or state.opened >= self.max_samples:
            do.stop = True
            do.answer = state.leader
        else:
            do.open = 1
            do.open_steps = TO_END
