"""Self-consistency: read a fixed number of branches to their end and let them vote.

Source: Wang et al., "Self-Consistency Improves Chain of Thought Reasoning" (arXiv 2203.11171).
"""

from __future__ import annotations

from tts_generate.controller import Controller
from tts_generate.state import TO_END, Decision, State


class SelfConsistency(Controller):
    """Reads `max_samples` branches to their end; the majority answers."""

    probing = "never"

    max_samples: int
    """Branches (1 or more)."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """4 branches at beta 0, 64 at beta 1."""
        return {"max_samples": round(4 + 60 * beta)}

    def begin(self, state: State, do: Decision) -> None:
        """Open every branch at once and read it to its end."""
        do.open = self.max_samples
        do.open_steps = TO_END
