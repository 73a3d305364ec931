"""CMC, the Confidence Momentum Controller: the one that AutoTTS discovered.

Source: AutoTTS, "LLMs Improving LLMs" (arXiv 2605.08083); exact in every answer and cost on the published tables.
"""

from __future__ import annotations

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import Decision, State
from tts_generate.votes import confidence


class CMC(Controller):
    """Widens while the moving average of the pool's confidence stalls, and answers once it is high and not falling.

    Branches that agree with the pool are read in bursts; branches that disagree for long are pruned.
    """

    max_rounds = 500

    n_init: int
    """Branches opened first."""
    max_branches: int
    """Branches opened at most."""
    warm_up: int
    """Rounds before anything is pruned or answered."""
    patience: int
    """Rounds of disagreement with the pool after which a branch may be pruned."""
    ema_window: int
    """Rounds over which the change of the average is taken."""
    ema_alpha: float
    """Weight of the newest confidence in the average (0 to 1)."""
    conf_thresh: float
    """Average at which the pool's majority is answered (0 to 1)."""
    delta_slack: float
    """Fall of the average within the window that still counts as not falling."""
    burst_aligned: int
    """Steps a round for branches that agree with the pool."""
    widen_burst: int
    """Branches opened at once when widening."""
    trend_thresh: float
    """Rise of the average within the window up to which it counts as stalled."""
    min_complete: int
    """Finished branches before anything is answered."""

    average: float
    window: np.ndarray
    filled: int
    disagreed: np.ndarray

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """The published schedule of all twelve knobs (Python's round, half to even)."""
        return {
            "n_init": max(2, round(2 + 6 * beta)),
            "max_branches": min(64, round(4 + 60 * beta)),
            "warm_up": max(2, round(2 + 8 * beta)),
            "patience": max(3, round(3 + 9 * beta)),
            "ema_window": max(2, round(2 + 6 * beta)),
            "ema_alpha": round(0.70 - 0.40 * beta, 4),
            "conf_thresh": round(0.85 + 0.12 * beta, 4),
            "delta_slack": round(0.04 - 0.03 * beta, 4),
            "burst_aligned": max(1, round(1 + 2 * beta)),
            "widen_burst": max(1, round(1 + 3 * beta)),
            "trend_thresh": round(0.04 - 0.03 * beta, 4),
            "min_complete": max(2, round(2 + 3 * beta)),
        }

    def memory(self, max_branches: int) -> None:
        """Average 0, an empty window, no disagreement."""
        self.average = 0.0
        self.window = np.zeros(self.ema_window, np.float64)
        self.filled = 0
        self.disagreed = np.zeros(max_branches, np.int64)

    def begin(self, state: State, do: Decision) -> None:
        """Open the first branches."""
        do.open = self.n_init

    def plan(self, state: State, do: Decision) -> None:
        """Prune lasting dissenters (two branches stay), then advance: aligned ones in bursts, others one step."""
        self._average(state)
        self._push()
        judged = state.round >= self.warm_up and state.pooled > 0
        for i in range(state.opened):
            if state.finished[i] or state.pruned[i]:
                continue
            aligned = state.answer[i] == state.leader
            do.steps[i] = self.burst_aligned if judged and aligned else 1
            if judged:
                self.disagreed[i] = 0 if aligned else self.disagreed[i] + 1
        if judged:
            self._prune(state, do)

    def review(self, state: State, do: Decision) -> None:
        """Answer when the average is high and not falling; widen when it is low and stalled."""
        self._average(state)
        self.window[self.filled - 1] = self.average
        delta = self.window[self.filled - 1] - self.window[0] if self.filled > 1 else 0.0
        ready = state.round >= self.warm_up and state.pooled >= self.min_complete
        if ready and self.average >= self.conf_thresh and delta >= -self.delta_slack:
            do.stop = True
            do.answer = state.leader
        elif state.live > 0 and delta <= self.trend_thresh and self.average < self.conf_thresh:
            if state.round >= max(1, self.warm_up // 2) and state.opened < self.max_branches:
                do.open = min(self.widen_burst, self.max_branches - state.opened)

    def _average(self, state: State) -> None:
        newest = confidence(state.leader_votes, state.runner_up_votes)
        self.average = (1 - self.ema_alpha) * self.average + self.ema_alpha * newest

    def _push(self) -> None:
        """Append the average to the window, dropping the oldest entry when it is full."""
        if self.filled == self.ema_window:
            for k in range(self.filled - 1):
                self.window[k] = self.window[k + 1]
            self.filled -= 1
        self.window[self.filled] = self.average
        self.filled += 1

    def _prune(self, state: State, do: Decision) -> None:
        """Give up the branches that disagreed longest, ties in opening order."""
        for _ in range(state.live - 2):
            worst = -1
            for i in range(state.opened):
                lasting = not (state.finished[i] or state.pruned[i] or do.prune[i])
                if (
                    lasting
                    and self.disagreed[i] >= self.patience
                    and (worst < 0 or self.disagreed[i] > self.disagreed[worst])
                ):
                    worst = i
            if worst < 0:
                break
            do.prune[worst] = True
