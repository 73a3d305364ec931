"""The loop: ask for candidates, look at all of them briefly and at the better ones more closely, tell, repeat.

Successive halving over rungs of rising fidelity: a candidate goes on if it is in the upper third of its round, and of
everything seen at that rung so far. Each rung has orders of the branches of its own, so that luck with one is not
luck with the next. Source: ASHA (Li et al., arXiv 1810.05934).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from tts_generate.controller import Controller
from tts_generate.search.candidate import Candidate, Proposer, Scored
from tts_generate.search.history import Evaluation, History
from tts_generate.search.objective import Cost, Curve, Fidelity, curve_of, gain_over
from tts_generate.search.questions import Part

ELEVEN = tuple(k / 10 for k in range(11))
RUNGS = (
    Fidelity((0.0, 0.3, 0.6, 1.0), 6, 1_000),
    Fidelity((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 12, 2_000),
    Fidelity(ELEVEN, 40, 3_000),
)
CANDIDATES = 24
"""Of one round."""
KEPT = 1 / 3
"""Share of a rung's candidates that goes on to the next."""


@dataclass
class Judge:
    """Evaluates candidates on the questions that may be learnt from, against the reference at the same fidelity."""

    part: Part
    kind: type[Controller]
    reference: type[Controller]
    rungs: Sequence[Fidelity] = RUNGS
    cost: Cost = "tokens"
    threads: int | None = None
    _curves: dict[int, Curve] = field(default_factory=dict)

    def evaluate(self, candidate: Candidate, rung: int) -> Evaluation:
        """One look at one candidate."""
        curve = curve_of(self.part, candidate.family(self.kind), self.rungs[rung], cost=self.cost)
        gain = gain_over(self._reference(rung), curve, self.part.weights)
        return Evaluation.of(candidate, rung, curve, gain)

    def evaluate_all(self, candidates: Sequence[Candidate], rung: int, history: History) -> list[Evaluation]:
        """Each candidate's evaluation, from the history or new; new ones over all cores, kept at once."""
        new = {c.name: c for c in candidates if history.find(c, rung) is None}
        if new:
            self._reference(rung)
        with ThreadPoolExecutor(self.threads or os.cpu_count() or 1) as pool:
            for evaluation in pool.map(lambda candidate: self.evaluate(candidate, rung), new.values()):
                history.add(evaluation)
        return [found for c in candidates if (found := history.find(c, rung)) is not None]

    def _reference(self, rung: int) -> Curve:
        if rung not in self._curves:
            fidelity = Fidelity(ELEVEN, self.rungs[rung].shuffles, self.rungs[rung].first_shuffle)
            self._curves[rung] = curve_of(self.part, self.reference, fidelity, cost=self.cost, threads=self.threads)
        return self._curves[rung]


@dataclass(frozen=True)
class Progress:
    """Where a search stands after a round."""

    round: int
    tried: int
    """Different candidates evaluated."""
    seconds: float
    seconds_left: float
    best: Evaluation | None
    """The best at the highest rung reached."""


def search(
    judge: Judge,
    proposer: Proposer,
    history: History,
    *,
    seconds: float,
    max_rounds: int | None = None,
    watch: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Run rounds until `seconds` are spent, those of earlier sittings counted, or `max_rounds` are done.

    Rounds that the history holds are gone through again without replaying anything, so that the proposer stands where
    it stood; at least one round is run.
    """
    progress = _progress(history, 0, 0.0, seconds)
    seen: list[list[float]] = [[] for _ in judge.rungs]
    for number in _numbers(max_rounds):
        started = time.perf_counter()
        candidates = proposer.propose(CANDIDATES)
        if not candidates:
            break
        proposer.learn(_round(judge, candidates, history, seen))
        history.finish_round(number, time.perf_counter() - started)
        progress = _progress(history, number + 1, history.seconds, seconds)
        watch(progress)
        if number + 1 >= history.rounds and history.seconds >= seconds:
            break
    return progress


def _numbers(max_rounds: int | None) -> Iterator[int]:
    number = 0
    while max_rounds is None or number < max_rounds:
        yield number
        number += 1


def _round(
    judge: Judge, candidates: Sequence[Candidate], history: History, seen: Sequence[list[float]]
) -> list[Scored]:
    """Evaluate one round's candidates up to where each gets; `seen` are the scores of rounds before, by rung."""
    reached: dict[str, Evaluation] = {}
    going = list(candidates)
    for rung, before in enumerate(seen):
        if not going:
            break
        found = judge.evaluate_all(going, rung, history)
        reached |= {evaluation.candidate.name: evaluation for evaluation in found}
        going = _promoted(found, before)
        before += [evaluation.score for evaluation in found]
    return [
        Scored(candidate, reached[candidate.name].rung, reached[candidate.name].values, reached[candidate.name].score)
        for candidate in candidates
    ]


def _promoted(found: Sequence[Evaluation], seen: Sequence[float]) -> list[Candidate]:
    """The upper third of a round, as far as it is in the upper third of all that was seen at this rung."""
    scores = [evaluation.score for evaluation in found]
    bar = max(float(np.quantile(scores, 1 - KEPT)), float(np.quantile([*scores, *seen], 1 - KEPT)))
    better = [evaluation for evaluation in found if evaluation.score >= bar]
    return list({evaluation.candidate.name: evaluation.candidate for evaluation in better}.values())


def best_of(evaluations: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """The best candidates at the highest rung that any of them reached, best first."""
    highest = max((evaluation.rung for evaluation in evaluations), default=0)
    top = [evaluation for evaluation in evaluations if evaluation.rung == highest]
    return sorted(top, key=lambda evaluation: (-evaluation.score, evaluation.candidate.name))[:count]


def _progress(history: History, number: int, spent: float, seconds: float) -> Progress:
    evaluations = history.evaluations
    best = best_of(evaluations, 1)
    tried = len({evaluation.candidate.name for evaluation in evaluations})
    return Progress(number, tried, spent, max(0.0, seconds - spent), best[0] if best else None)
