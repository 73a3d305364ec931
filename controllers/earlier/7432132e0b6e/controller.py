"""Parallel-Probe: advance all branches in lockstep, prune dissenters, stop on a stable majority.

Source: the baseline of AutoTTS (arXiv 2605.08083), github.com/zhengkid/Parallel-Probe.
"""

from __future__ import annotations

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import Decision, State
from tts_generate.votes import majority


class ParallelProbe(Controller):
    """Reads all branches a step at a time and answers when the majority of their latest answers has stood long enough.

    Branches that disagree with the majority for long are pruned; finished ones keep voting with their last answer.
    """

    max_rounds = 100

    num_chains: int
    """Branches, all opened at once."""
    stability: int
    """Rounds the majority must stand before it is answered; T in the paper."""
    patience: int
    """Rounds of disagreement in a row after which a branch is pruned."""
    warm_up: int
    """Rounds before anything is pruned."""

    winner: int
    stood: int
    off_track: np.ndarray
    dropped: np.ndarray

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """4 branches at beta 0, 64 at beta 1; the published patience throughout."""
        return {"num_chains": round(4 + 60 * beta), "stability": 40, "patience": 7, "warm_up": 15}

    def memory(self, max_branches: int) -> None:
        """No majority yet, nobody off track."""
        self.winner = -2
        self.stood = 0
        self.off_track = np.zeros(max_branches, np.int64)
        self.dropped = np.zeros(max_branches, np.bool_)

    def begin(self, state: State, do: Decision) -> None:
        """Open every branch."""
        do.open = self.num_chains

    def plan(self, state: State, do: Decision) -> None:
        """Prune what the last review dropped; the others take one step."""
        for i in range(state.opened):
            do.prune[i] = self.dropped[i]
            do.steps[i] = 1

    def review(self, state: State, do: Decision) -> None:
        """Vote, drop lasting dissenters, and answer once the vote has stood or nothing is left to read."""
        winner = self._vote(state)
        active = 0
        for i in range(state.opened):
            active += not self.dropped[i]
        if state.round >= self.warm_up and active > 1 and self._drop(state, winner):
            winner = self._vote(state)
        self.stood = self.stood + 1 if winner == self.winner else 0
        self.winner = winner
        reading = False
        for i in range(state.opened):
            if not (state.finished[i] or self.dropped[i]):
                reading = True
        if self.stood >= self.stability or not reading:
            do.stop = True
            do.answer = winner

    def answer(self, state: State) -> int:
        """The majority of the last round."""
        return self.winner if self.winner >= 0 else -1

    def _vote(self, state: State) -> int:
        latest = np.full(state.opened, -1, np.int64)
        for i in range(state.opened):
            if not self.dropped[i]:
                latest[i] = state.answer[i]
        return majority(latest, state.opened)[0]

    def _drop(self, state: State, winner: int) -> bool:
        """Count dissent and mark who has dissented too long; whether anybody was marked."""
        marked = False
        for i in range(state.opened):
            if state.finished[i] or self.dropped[i]:
                continue
            self.off_track[i] = self.off_track[i] + 1 if state.answer[i] != winner else 0
            if self.off_track[i] >= self.patience:
                self.dropped[i] = True
                marked = True
        return marked
