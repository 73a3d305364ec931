"""Composed: a family of controllers made of parts that the literature suggests, each of which can be switched off.

| part | what it does | off | source |
|---|---|---|---|
| waves | opens `n_init` branches, and `widen` more while the vote is close, up to `max_branches` | max_branches = n_init | AutoTTS (2605.08083) |
| length | a short branch's vote counts more: exp(-length_decay * tokens / mean tokens) | length_decay = 0 | short-m@k (2505.17813) |
| probes | a branch still open votes too, once its probe has stood | probe_weight = 0 | Dynasor (2412.20993) |
| stopping | ends when reading on is worth less than `threshold` | threshold = 0 | adaptive consistency (2305.11860) |
| pending | what open branches can still add bounds what reading them is worth | pending = 0 | ESC (2401.10480) |
| giving up | a vote that nothing leads is worth less: share ** share_power | share_power = 0 | Snell et al. (2408.03314) |
| cutting | gives up branches longer than `cut_ratio` times the mean of those finished | cut_ratio = 0 | short-m@k |
| pruning | gives up branches that disagreed for `patience` rounds | patience = 0 | Parallel-Probe, CMC (2605.08083) |
| hurrying | reads branches that agree `burst` steps at a time | burst = 1 | CMC |
"""

from __future__ import annotations

import math

import numpy as np

from tts_generate.controller import Controller
from tts_generate.state import Decision, State


class Composed(Controller):
    """proto"""

    n_init: int
    widen: int
    max_branches: int
    widen_threshold: float
    length_decay: float
    probe_weight: float
    probe_stable: int
    threshold: float
    pending: float
    share_power: float
    cost_power: float
    min_votes: float
    warm_up: int
    cut_ratio: float
    patience: int
    burst: int

    ids: np.ndarray
    sums: np.ndarray
    disagreed: np.ndarray
    leader: int
    first: float
    second: float
    total: float
    coming: float
    mean: float
    ended: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        return {
            "n_init": round(4 + 28 * beta), "widen": 4, "max_branches": round(8 + 56 * beta), "widen_threshold": 0.1,
            "length_decay": 2.0, "probe_weight": 0.0, "probe_stable": 8, "threshold": 0.05, "pending": 1.0, "share_power": 1.0, "cost_power": 0.0,
            "min_votes": 2.0, "warm_up": 4, "cut_ratio": 0.0, "patience": 0, "burst": 1,
        }

    def memory(self, max_branches: int) -> None:
        self.ids = np.zeros(max_branches, np.int64)
        self.sums = np.zeros(max_branches, np.float64)
        self.disagreed = np.zeros(max_branches, np.int64)
        self.leader = -1
        self.first = 0.0
        self.second = 0.0
        self.total = 0.0
        self.coming = 0.0
        self.mean = 0.0
        self.ended = 0

    def begin(self, state: State, do: Decision) -> None:
        do.open = self.n_init

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            if state.finished[i] or state.pruned[i]:
                continue
            do.steps[i] = 1
            if self.ended >= 2 and self.cut_ratio > 0 and state.tokens[i] > self.cut_ratio * self.mean:
                do.prune[i] = True
            elif self.leader >= 0 and state.pooled > 0:
                agrees = state.answer[i] == self.leader
                do.steps[i] = self.burst if agrees else 1
                self.disagreed[i] = 0 if agrees else self.disagreed[i] + 1
                do.prune[i] = self.patience > 0 and self.disagreed[i] >= self.patience

    def review(self, state: State, do: Decision) -> None:
        self._vote(state)
        ready = self.total >= self.min_votes and state.round >= self.warm_up
        if state.live > 0 and not (ready and self._value(state, True) < self.threshold):
            return
        if state.opened < self.max_branches and (self.total <= 0.0 or self._value(state, False) > self.widen_threshold):
            do.open = min(self.widen, self.max_branches - state.opened)
        elif ready or state.live == 0:
            do.stop = True
            do.answer = self.leader

    def answer(self, state: State) -> int:
        self._vote(state)
        if self.leader >= 0:
            return self.leader
        best = -1
        for i in range(state.opened):
            if state.answer[i] >= 0:
                best = state.answer[i]
        return best

    def _value(self, state: State, wave: bool) -> float:
        contested = self.first + self.second + 0.25
        if wave and self.pending > 0:
            contested = min(contested, self.pending * self.coming + 1e-9)
        z = (self.first - self.second) / math.sqrt(contested)
        overtaken = 0.5 * math.erfc(z / math.sqrt(2.0))
        share = (self.first + self.second) / self.total
        steps = self.mean / state.interval_tokens / 30.0
        return overtaken * share**self.share_power / steps**self.cost_power

    def _vote(self, state: State) -> None:
        tokens = 0.0
        count = 0
        for i in range(state.opened):
            if state.finished[i]:
                tokens += state.tokens[i]
                count += 1
        self.ended = count
        self.leader = -1
        self.first = 0.0
        self.second = 0.0
        self.total = 0.0
        self.coming = 0.0
        if count == 0:
            return
        self.mean = tokens / count
        different = 0
        for i in range(state.opened):
            if state.pruned[i]:
                continue
            w = math.exp(self.length_decay * (1.0 - state.tokens[i] / self.mean))
            if not state.finished[i]:
                self.coming += w
                w = w * self.probe_weight if self._stands(state, i) else 0.0
            if w <= 0.0 or state.answer[i] < 0:
                continue
            place = 0
            while place < different and self.ids[place] != state.answer[i]:
                place += 1
            if place == different:
                self.ids[place] = state.answer[i]
                self.sums[place] = 0.0
                different += 1
            self.sums[place] += w
            self.total += w
        for k in range(different):
            if self.sums[k] > self.first:
                self.second = self.first
                self.first = self.sums[k]
                self.leader = self.ids[k]
            elif self.sums[k] > self.second:
                self.second = self.sums[k]

    def _stands(self, state: State, i: int) -> bool:
        if self.probe_weight <= 0.0:
            return False
        depth = state.depth[i]
        if depth < self.probe_stable:
            return False
        for d in range(depth - self.probe_stable, depth):
            if state.answers[i, d] != state.answer[i]:
                return False
        return True
