"""Composed: a family of controllers made of parts, each of which can be switched off and searched.

Parts and where they come from: `README.md`. The stopping rule is one number, the value of reading on: how likely the
leader is overtaken, times the share of the votes that the contest is about, less where nothing leads.
"""

from __future__ import annotations

import math

import numpy as np

from tts_generate.controller import Controller
from tts_generate.schedule import Ends, Range
from tts_generate.state import Decision, State


class Composed(Controller):
    """Opens branches in waves, weighs their votes, and answers when reading on is worth less than `threshold`.

    Sources, part by part: waves and pruning CMC (arXiv 2605.08083); votes by length short-m@k (2505.17813);
    votes of open branches Dynasor (2412.20993); stopping adaptive consistency (2305.11860); confidence DeepConf
    (2508.15260).
    """

    n_init: int
    """Branches of the first wave."""
    widen: int
    """Branches of every later wave; one opens when the wave before is settled and the vote is close."""
    max_branches: int
    """Branches opened at most; no more than `n_init`: one wave."""
    widen_threshold: float
    """Value of reading on above which another wave opens."""
    length_decay: float
    """A vote counts exp(-length_decay * (tokens / mean tokens of finished ones - 1)); 0: every vote is one."""
    order_decay: float
    """A vote counts exp(-order_decay * place in finishing order / branches opened); 0: order does not count."""
    confidence_power: float
    """A vote counts exp(confidence_power * mean log-probability of its tokens); 0: none is read."""
    probe_weight: float
    """What the probed answer of an open branch counts of a vote; 0: only finished branches vote."""
    probe_stable: int
    """Probes in a row that must agree for that."""
    threshold: float
    """Value of reading on below which the wave is settled."""
    share_power: float
    """The value is multiplied by the contest's share of all votes to this power; 0: spread does not count."""
    pending: float
    """Votes that can still come, in units of what the open branches would weigh, bound the doubt; 0: they do not."""
    warm_up: int
    """Depth of the open branches, in steps, from which `threshold` holds as it stands."""
    early: float
    """Before, it is threshold * (depth / warm_up) ** early; 0: nothing is settled before."""
    stand: int
    """Rounds the leader must have stood; 0: none."""
    ceiling: int
    """Steps of all branches together after which the episode answers; 0: no ceiling."""
    cut_ratio: float
    """Branches longer than this many times the mean of those finished are given up; 0: none."""
    patience: int
    """Rounds of disagreement with the leader after which a branch is given up, two live ones stay; 0: none."""

    ranges = {  # noqa: RUF012
        "n_init": Range(2, 64, "log"),
        "widen": Range(1, 48, "log"),
        "max_branches": Range(2, 64, "log"),
        "widen_threshold": Range(0.01, 0.5, "log"),
        "length_decay": Range(0.2, 4.0, moves=False, off=0.0),
        "order_decay": Range(0.2, 4.0, moves=False, off=0.0),
        "confidence_power": Range(0.2, 5.0, "log", moves=False, off=0.0, logprobs=True),
        "probe_weight": Range(0.03, 1.0, "log", moves=False, off=0.0),
        "probe_stable": Range(2, 20, "log", moves=False),
        "threshold": Range(0.01, 0.5, "log"),
        "share_power": Range(0.2, 3.0, moves=False, off=0.0),
        "pending": Range(0.1, 3.0, "log", moves=False, off=0.0),
        "warm_up": Range(2, 40),
        "early": Range(0.5, 8.0, moves=False, off=0.0),
        "stand": Range(1, 16, "log", moves=False, off=0),
        "ceiling": Range(100, 3000, "log", off=0),
        "cut_ratio": Range(0.8, 3.0, moves=False, off=0.0),
        "patience": Range(3, 40, "log", off=0),
    }
    starts = (
        {"widen": Ends(4, 24, "log"), "widen_threshold": Ends(0.4, 0.2, "log"), "pending": 0.5},
        {"n_init": Ends(4, 48, "log"), "max_branches": Ends(4, 48, "log")},
        {"length_decay": 0.5, "share_power": 0.5},
        {"n_init": Ends(2, 12, "log"), "widen": Ends(1, 4, "log"), "length_decay": 1.5, "warm_up": Ends(40, 40)},
    )

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
    stood: int

    @staticmethod
    def schedule(beta: float) -> dict[str, float]:
        """A wave of 4 branches at beta 0, 40 at beta 1; a majority answers from 24 steps on, unless it is close."""
        return {
            "n_init": round(4 * 10**beta),
            "widen": round(2 * 4**beta),
            "max_branches": round(12 * (64 / 12) ** beta),
            "widen_threshold": round(0.4 * 0.625**beta, 4),
            "length_decay": 0.0,
            "order_decay": 0.0,
            "confidence_power": 0.0,
            "probe_weight": 0.0,
            "probe_stable": 12,
            "threshold": 0.4,
            "share_power": 0.0,
            "pending": 0.0,
            "warm_up": 24,
            "early": 0.0,
            "stand": 0,
            "ceiling": 0,
            "cut_ratio": 0.0,
            "patience": 16,
        }

    @property
    def reads_logprobs(self) -> bool:  # type: ignore[override]
        """Only where votes weigh by them."""
        return self.confidence_power > 0

    def memory(self, max_branches: int) -> None:
        """No votes yet, nobody disagrees."""
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
        self.stood = 0

    def begin(self, state: State, do: Decision) -> None:
        """Open the first wave."""
        do.open = self.n_init

    def plan(self, state: State, do: Decision) -> None:
        """Advance the branches that are least deep, a step; give up what is too long or has disagreed too long."""
        live = state.live
        lowest = self._lowest(state)
        for i in range(state.opened):
            if state.finished[i] or state.pruned[i] or state.depth[i] > lowest:
                continue
            do.steps[i] = 1
            agrees = self.leader < 0 or state.answer[i] == self.leader
            self.disagreed[i] = 0 if agrees else self.disagreed[i] + 1
            long = self.cut_ratio > 0 and self.ended >= 2 and state.tokens[i] > self.cut_ratio * self.mean
            strays = self.patience > 0 and self.disagreed[i] >= self.patience
            if long or (strays and live > 2):
                do.prune[i] = True
                live -= 1

    def review(self, state: State, do: Decision) -> None:
        """When the wave is settled or at its end: open another if the vote is close, else answer."""
        before = self.leader
        self._vote(state)
        self.stood = self.stood + 1 if self.leader == before else 0
        if self.ceiling > 0 and state.generated_tokens >= self.ceiling * state.interval_tokens and self.leader >= 0:
            do.stop = True
            do.answer = self.leader
            return
        if state.live > 0 and not self._settled(state):
            return
        close = self.total <= 0 or self._value(False) > self.widen_threshold
        if close and state.opened < self.max_branches:
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

    def _settled(self, state: State) -> bool:
        """Whether reading the open branches on is worth less than the threshold of this round."""
        if self.total <= 0 or self.stood < self.stand:
            return False
        bar = self.threshold
        depth = self._lowest(state)
        if depth < self.warm_up:
            if self.early <= 0:
                return False
            bar *= (depth / self.warm_up) ** self.early
        return self._value(True) < bar

    def _value(self, pending: bool) -> float:
        """P(the leader is overtaken) by a normal approximation, times the contest's share of the votes."""
        doubt = self.first + self.second + 0.25
        if pending and self.pending > 0:
            doubt = min(doubt, self.pending * self.coming + 1e-9)
        overtaken = 0.5 * math.erfc((self.first - self.second) / math.sqrt(2.0 * doubt))
        return overtaken * ((self.first + self.second) / self.total) ** self.share_power

    def _vote(self, state: State) -> None:
        """Weigh all votes: leader, its weight, the runner-up's, their total, and what open branches could add."""
        tokens = 0
        self.ended = 0
        for i in range(state.opened):
            if state.finished[i]:
                tokens += state.tokens[i]
                self.ended += 1
        self.mean = max(1.0, tokens / max(1, self.ended))
        self.total = 0.0
        self.coming = 0.0
        different = 0
        for i in range(state.opened):
            if state.pruned[i] or self.ended == 0:
                continue
            weight = self._weight(state, i)
            if not state.finished[i]:
                self.coming += weight
                weight *= self.probe_weight if self._stands(state, i) else 0.0
            if weight > 0.0 and state.answer[i] >= 0:
                different = self._count(state.answer[i], weight, different)
        self._rank(different)

    def _weight(self, state: State, i: int) -> float:
        """What the vote of branch i counts, were it to end now."""
        exponent = self.length_decay * (1.0 - state.tokens[i] / self.mean)
        rank = state.finish_rank[i] if state.finished[i] else self.ended
        exponent -= self.order_decay * rank / state.opened
        if self.confidence_power > 0:
            total = 0.0
            for d in range(state.depth[i]):
                total += state.logprobs[i, d]
            exponent += self.confidence_power * total / state.depth[i]
        return math.exp(exponent)

    def _stands(self, state: State, i: int) -> bool:
        """Whether the last `probe_stable` probes of an open branch agree; only asked where they count."""
        depth = state.depth[i]
        if self.probe_weight <= 0.0 or depth < self.probe_stable:
            return False
        for d in range(depth - self.probe_stable, depth):
            if state.answers[i, d] != state.answer[i]:
                return False
        return True

    def _count(self, answer: int, weight: float, different: int) -> int:
        """Add a vote to its answer's sum; how many different answers there are."""
        self.total += weight
        for k in range(different):
            if self.ids[k] == answer:
                self.sums[k] += weight
                return different
        self.ids[different] = answer
        self.sums[different] = weight
        return different + 1

    def _rank(self, different: int) -> None:
        """Leader and runner-up; of equals the one that was opened first."""
        self.leader = -1
        self.first = 0.0
        self.second = 0.0
        for k in range(different):
            if self.sums[k] > self.first:
                self.second = self.first
                self.first = self.sums[k]
                self.leader = self.ids[k]
            elif self.sums[k] > self.second:
                self.second = self.sums[k]
