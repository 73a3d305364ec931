"""DeepConf: votes filtered and weighted by how sure the model was of its tokens; unsure branches are given up early.

Source: Fu et al., "Deep Think with Confidence" (arXiv 2508.15260). Theirs takes a token's confidence from its top-k
log-probabilities; a trajectory store holds the log-probability of the tokens drawn, averaged over each step, and that
is what is used here: confidence = mean log-probability (at most 0; higher is surer).
"""

from __future__ import annotations

import math
from typing import Literal

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import TO_END, Decision, State


class DeepConf(Controller):
    """Reads `warm_up` branches whole, then gives up later ones that are less sure than `keep` of those.

    A vote of the surest `keep`, weighted by their confidence, decides.
    """

    probing = "never"
    reads_logprobs = True

    max_samples: int
    """Branches at most."""
    warm_up: int
    """Branches read to their end before any is given up."""
    keep: float
    """Share of branches, the surest, that vote and that set the bar (0 to 1)."""
    window: int
    """Steps of the group over which confidence is averaged."""
    consensus: float
    """Share of the weighted votes at which the leader is answered (0 to 1)."""
    confidence: Literal["mean", "tail", "bottom_window", "min_window"]
    """A branch's confidence: over all its steps, its last `window` steps, the lowest tenth of its windows, or the
    lowest window."""

    bar: float
    started: bool

    @staticmethod
    def schedule(beta: float) -> dict[str, float | str]:
        """4 branches at beta 0, 64 at beta 1, a quarter of them as warm-up; the paper's "high" setting keeps 0.9."""
        return {
            "max_samples": round(4 + 60 * beta),
            "warm_up": max(2, round((4 + 60 * beta) / 4)),
            "keep": 0.9,
            "window": 4,
            "consensus": 0.95,
            "confidence": "bottom_window",
        }

    def memory(self, max_branches: int) -> None:
        """No bar yet."""
        self.bar = -math.inf
        self.started = False

    def begin(self, state: State, do: Decision) -> None:
        """Read the warm-up branches."""
        do.open = min(self.warm_up, self.max_samples)
        do.open_steps = TO_END

    def plan(self, state: State, do: Decision) -> None:
        """Give up branches that fell below the bar; the others take one step."""
        for i in range(state.opened):
            do.prune[i] = state.depth[i] >= self.window and self._lowest_window(state, i) < self.bar
            do.steps[i] = 1

    def review(self, state: State, do: Decision) -> None:
        """After the warm-up set the bar and open the rest, unless the vote is settled already."""
        winner, share = self._vote(state)
        if winner >= 0 and share >= self.consensus:
            do.stop = True
            do.answer = winner
        elif not self.started:
            self.started = True
            self.bar = self._percentile(state)
            do.open = max(0, self.max_samples - state.opened)

    def answer(self, state: State) -> int:
        """The weighted vote."""
        return self._vote(state)[0]

    def _percentile(self, state: State) -> float:
        """The lowest-window confidence that `keep` of the finished branches reach; no bar where a limit let none."""
        lowest = np.sort(np.array([self._lowest_window(state, i) for i in range(state.opened) if state.finished[i]]))
        return lowest[len(lowest) - self._kept(len(lowest))] if len(lowest) > 0 else -math.inf

    def _kept(self, count: int) -> int:
        """How many of so many are the surest `keep`, one at least: 9 of 10 are 0.9, which 0.1 * 10 falls short of."""
        return max(1, math.ceil(self.keep * count - 1e-9))

    def _vote(self, state: State) -> tuple[int, float]:
        """The answer with most weight over the surest finished branches, and its share of the weight."""
        sure = np.full(state.opened, -np.inf)
        voters = 0
        for i in range(state.opened):
            if state.finished[i] and state.answer[i] >= 0:
                sure[i] = self._confidence(state, i)
                voters += 1
        if voters == 0:
            return -1, 0.0
        bar = np.sort(sure)[state.opened - self._kept(voters)]
        winner, best, total = -1, 0.0, 0.0
        for i in range(state.opened):
            if sure[i] == -np.inf or sure[i] < bar:
                continue
            total += math.exp(sure[i])
            weight, first = 0.0, True
            for k in range(state.opened):
                if state.answer[k] == state.answer[i] and sure[k] > -np.inf and sure[k] >= bar:
                    first = first and k >= i
                    weight += math.exp(sure[k])
            if first and weight > best:
                winner, best = state.answer[i], weight
        return winner, best / total

    def _confidence(self, state: State, branch: int) -> float:
        depth = state.depth[branch]
        if self.confidence == "mean":
            return self._mean(state, branch, 0, depth)
        if self.confidence == "tail":
            return self._mean(state, branch, max(0, depth - self.window), depth)
        if self.confidence == "min_window":
            return self._lowest_window(state, branch)
        windows = np.sort(self._windows(state, branch))
        lowest = max(1, len(windows) // 10)
        total = 0.0
        for k in range(lowest):
            total += windows[k]
        return total / lowest

    def _lowest_window(self, state: State, branch: int) -> float:
        return self._windows(state, branch).min()

    def _windows(self, state: State, branch: int) -> np.ndarray:
        """Confidence of every `window` consecutive steps; of all steps where there are fewer."""
        count = max(1, state.depth[branch] - self.window + 1)
        windows = np.zeros(count)
        for k in range(count):
            windows[k] = self._mean(state, branch, k, min(k + self.window, state.depth[branch]))
        return windows

    def _mean(self, state: State, branch: int, start: int, end: int) -> float:
        total = 0.0
        for d in range(start, end):
            total += state.logprobs[branch, d]
        return total / max(1, end - start)
