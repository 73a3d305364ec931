"""ESC, early-stopping self-consistency: read branches window by window until a whole window agrees.

Source: Li et al., "Escape Sky-high Cost" (arXiv 2401.10480).
"""

from __future__ import annotations

from tts_generate.controller import Controller
from tts_generate.state import TO_END, Decision, State


class ESC(Controller):
    """Reads windows of `window` branches to their end; a window of one answer ends the episode with it."""

    probing = "never"

    max_samples: int
    """Branches at most; what is left over after whole windows is not read."""
    window: int
    """Branches read at once (1 or more)."""

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """8 branches at beta 0, 64 at beta 1; the published window throughout."""
        return {"max_samples": round(8 + 56 * beta), "window": 8}

    def begin(self, state: State, do: Decision) -> None:
        """Read the first window, or as much of it as may be."""
        do.open = min(self.window, self.max_samples)
        do.open_steps = TO_END

    def review(self, state: State, do: Decision) -> None:
        """Answer if the last window agrees; else read one more, or let everything read vote."""
        start = max(0, state.opened - self.window)
        first = state.answer[start]
        agrees = first >= 0
        for i in range(start, state.opened):
            if state.answer[i] != first:
                agrees = False
        if agrees:
            do.stop = True
            do.answer = first
        elif state.opened + self.window <= self.max_samples:
            do.open = self.window
            do.open_steps = TO_END
