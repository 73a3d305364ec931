"""Worth: reads on, and opens more branches, while that is worth its tokens.

Parts and where they come from: `README.md`. Two numbers decide: what reading the open branches on is worth, and what a
further wave is worth. Both begin with the probability that the leader is overtaken, and fall with what speaks for
stopping: depth, few branches still open, votes that nothing leads, long branches.
"""

from __future__ import annotations

import math
from typing import ClassVar

import numpy as np

from tts_generate.controller import Controller, Probing
from tts_generate.schedule import Ends, Range
from tts_generate.state import Decision, State

SILENT = 8
"""Branches that all ended without an answer: more of them would end so too, and none is opened."""


class Worth(Controller):
    """Opens branches in waves, reads them side by side, and stops each time that going on is worth less than its bar.

    Sources, part by part: waves CMC (arXiv 2605.08083); answers of those that finish early, and votes by length,
    short-m@k (2505.17813); the probability that a leader is overtaken, adaptive consistency (2305.11860); that a
    computation is weighed against its price, Russell and Wefald (1991).
    """

    probing: ClassVar[Probing] = "never"

    n_init: int
    """Branches of the first wave."""
    widen: int
    """Branches of every later wave; one opens when reading on is worth too little and the vote is close."""
    max_branches: int
    """Branches opened at most; no more than `n_init`: one wave."""
    read_bar: float
    """What reading the open branches on must be worth."""
    wave_bar: float
    """What a further wave must be worth."""
    depth_power: float
    """Reading on is worth (depth / 20 steps) ** -depth_power of what it was: 0: depth does not count."""
    relative_power: float
    """It is worth (depth / mean length of finished branches) ** -relative_power; 0: that does not count."""
    open_power: float
    """It is worth (share of the branches that are open) ** open_power; 0: that does not count."""
    share_power: float
    """It is worth (share of all votes that leader and runner-up have) ** share_power; 0: spread does not count."""
    wave_share_power: float
    """The same for a further wave."""
    price: float
    """A further wave is worth (mean length of finished branches / 20 steps) ** -price; 0: tokens have no price."""
    length_power: float
    """A vote counts (tokens / mean tokens of finished branches) ** -length_power; 0: every vote is one."""

    ranges = {  # noqa: RUF012
        "n_init": Range(2, 64, "log"),
        "widen": Range(1, 48, "log"),
        "max_branches": Range(2, 64, "log"),
        "read_bar": Range(0.005, 0.5, "log"),
        "wave_bar": Range(0.02, 0.8, "log"),
        "depth_power": Range(1.0, 8.0, moves=False, off=0.0),
        "relative_power": Range(0.3, 5.0, moves=False, off=0.0),
        "open_power": Range(0.2, 2.0, moves=False, off=0.0),
        "share_power": Range(0.2, 3.0, moves=False, off=0.0),
        "wave_share_power": Range(0.2, 3.0, moves=False, off=0.0),
        "price": Range(0.2, 2.0, moves=False, off=0.0),
        "length_power": Range(0.2, 3.0, moves=False, off=0.0),
    }
    starts = (
        {
            "n_init": Ends(3, 16, "log"), "widen": Ends(2, 16, "log"), "max_branches": Ends(8, 64, "log"),
            "read_bar": Ends(0.05, 0.02, "log"), "wave_bar": Ends(0.2, 0.1, "log"), "depth_power": 2.0,
            "relative_power": 1.0, "open_power": 1.0, "share_power": 1.0, "wave_share_power": 1.0, "price": 1.0,
            "length_power": 1.0,
        },
        {
            "n_init": Ends(3, 14, "log"), "widen": Ends(1, 16, "log"), "max_branches": Ends(7, 64, "log"),
            "read_bar": Ends(0.03, 0.012, "log"), "wave_bar": Ends(0.27, 0.08, "log"), "depth_power": 3.8,
            "relative_power": 0.4, "open_power": 0.9, "share_power": 2.3, "wave_share_power": 0.3, "price": 0.0,
            "length_power": 0.3,
        },
    )  # fmt: skip
    """Every part on, at round numbers that were fitted to nothing; and what exploring on AIME24 had come to."""

    sums: np.ndarray
    ids: np.ndarray
    row: np.ndarray
    leader: int
    overtaken: float
    contest: float
    mean: float
    counted: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """CMC's published schedule of the knobs that it has too, and a plain bar; every other part is off."""
        return {
            "n_init": round(2 + 6 * beta),
            "widen": round(1 + 3 * beta),
            "max_branches": round(4 + 60 * beta),
            "read_bar": round(0.15 - 0.12 * beta, 4),
            "wave_bar": round(0.15 - 0.12 * beta, 4),
            "depth_power": 0.0,
            "relative_power": 0.0,
            "open_power": 0.0,
            "share_power": 0.0,
            "wave_share_power": 0.0,
            "price": 0.0,
            "length_power": 0.0,
        }

    def memory(self, max_branches: int) -> None:
        """No votes yet."""
        self.sums = np.zeros(max_branches, np.float64)
        self.ids = np.zeros(max_branches, np.int64)
        self.row = np.zeros(max_branches, np.int64)
        self.leader = -1
        self.overtaken = 0.5
        self.contest = 1.0
        self.mean = 1.0
        self.counted = 0

    def begin(self, state: State, do: Decision) -> None:
        """Open the first wave."""
        do.open = self.n_init

    def plan(self, state: State, do: Decision) -> None:
        """Advance the branches that are least deep by a step; those of earlier waves wait for them."""
        lowest = self._lowest(state)
        for i in range(state.opened):
            if not state.finished[i] and state.depth[i] == lowest:
                do.steps[i] = 1

    def review(self, state: State, do: Decision) -> None:
        """Read on while it is worth it; then open another wave while that is worth it, else answer."""
        if state.pooled > self.counted:
            self._vote(state)
        if state.live > 0 and (state.pooled == 0 or self._reading(state) > self.read_bar):
            return
        if state.pooled == 0 and state.opened >= SILENT:
            do.stop = True
        elif state.opened < self.max_branches and self._wave(state) > self.wave_bar:
            do.open = min(self.widen, self.max_branches - state.opened)
        else:
            do.stop = True
            do.answer = self.leader  # nobody's: the `answer` hook is asked

    def _lowest(self, state: State) -> int:
        """Depth of the open branches that are least deep."""
        lowest = state.max_depth
        for i in range(state.opened):
            if not (state.finished[i] or state.pruned[i]):
                lowest = min(lowest, state.depth[i])
        return lowest

    def _reading(self, state: State) -> float:
        """What reading the open branches on is worth."""
        depth = self._lowest(state)
        worth = self.overtaken * self.contest**self.share_power * (state.live / state.opened) ** self.open_power
        worth *= (depth / 20.0) ** -self.depth_power
        return worth * (depth * state.interval_tokens / self.mean) ** -self.relative_power

    def _wave(self, state: State) -> float:
        """What a further wave is worth."""
        steps = self.mean / state.interval_tokens
        return self.overtaken * self.contest**self.wave_share_power * (steps / 20.0) ** -self.price

    def _vote(self, state: State) -> None:
        """Weigh the votes of all finished branches, as they finished; of equals the earlier one leads."""
        tokens = 0
        ended = 0  # those without an answer too: they have a rank, and no place in the pool
        for i in range(state.opened):
            if state.finished[i]:
                tokens += state.tokens[i]
                ended += 1
                self.row[state.finish_rank[i]] = i
        self.counted = state.pooled
        self.mean = max(1.0, tokens / ended)
        total = 0.0
        different = 0
        for rank in range(ended):
            i = self.row[rank]
            if state.answer[i] >= 0:
                weight = (self.mean / max(1, state.tokens[i])) ** self.length_power
                total += weight
                different = self._count(state.answer[i], weight, different)
        self._rank(different, total)

    def _count(self, answer: int, weight: float, different: int) -> int:
        """Add a vote to its answer's sum; how many different answers there are."""
        for k in range(different):
            if self.ids[k] == answer:
                self.sums[k] += weight
                return different
        self.ids[different] = answer
        self.sums[different] = weight
        return different + 1

    def _rank(self, different: int, total: float) -> None:
        """The leader, and P(it is overtaken) by a normal approximation from its weight and the runner-up's."""
        self.leader = -1
        first = 0.0
        second = 0.0
        for k in range(different):
            if self.sums[k] > first:
                second = first
                first = self.sums[k]
                self.leader = self.ids[k]
            elif self.sums[k] > second:
                second = self.sums[k]
        self.overtaken = 0.5 * math.erfc((first - second) / math.sqrt(2.0 * (first + second + 0.25)))
        self.contest = (first + second) / total if total > 0.0 else 1.0
