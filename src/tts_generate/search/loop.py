"""The loop: ask for candidates, look at all of them briefly and at the better ones more closely, tell, repeat.

Successive halving over rungs of rising fidelity: a candidate goes on if it is in the upper third of its round, and of
everything seen at that rung so far. Each rung has orders of the branches of its own, so that luck with one is not
luck with the next. Source: ASHA (Li et al., arXiv 1810.05934).
"""

from __future__ import annotations

import itertools
import os
import secrets
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from tts_generate.arguments import checked
from tts_generate.errors import CandidateError
from tts_generate.evaluate import BETAS
from tts_generate.loading import load_controller
from tts_generate.recorded.recording import fewest_branches
from tts_generate.replay import replay
from tts_generate.search.archive import Evaluation, kept
from tts_generate.search.candidate import Proposal, Proposer, Scored
from tts_generate.search.choice import Contest
from tts_generate.search.history import History
from tts_generate.search.objective import Curve, Fidelity, Gain, cost_of, curve_from
from tts_generate.search.questions import Part
from tts_generate.statistics import saving, tokens_at

RUNGS = (
    Fidelity((0.0, 0.3, 0.6, 1.0), 6, 1_000),
    Fidelity((0.0, 0.2, 0.4, 0.6, 0.8, 1.0), 12, 2_000),
    Fidelity(BETAS, 40, 3_000),
)
CANDIDATES = 24
"""Of one round."""
KEPT = 1 / 3
"""Share of a rung's candidates that goes on to the next."""


@dataclass
class Judge:
    """Evaluates candidates on the questions that may be learnt from, against the reference at the same fidelity."""

    part: Part
    contest: Contest
    rungs: Sequence[Fidelity] = RUNGS
    _all: tuple[float, float] | None = None
    """Tokens and accuracy of self-consistency with all branches."""

    def evaluate(self, candidate: Proposal, rung: int) -> Evaluation:
        """One look at one candidate; at the highest rung what is not ours to trust is confirmed, or disqualified."""
        fidelity, bench = self.rungs[rung], self.contest.bench
        confirms = bench.confirms
        seed = secrets.randbits(32) if confirms and rung == len(self.rungs) - 1 else None
        cost, tells = cost_of(self.contest.objective), confirms > 0
        try:
            look = bench.look(self.part, candidate, fidelity, cost=cost, confirm=seed, tell=tells)
        except CandidateError as error:
            what = "disqualified: " if error.reason == "different" else ""
            return Evaluation.failed(candidate, rung, f"{what}{error}")
        gain = self.gain(look.curve, rung)
        if not confirms:
            return Evaluation.of(candidate, rung, look.curve, gain)
        every = len(fidelity.betas) * max(1, fidelity.shuffles) * self.part.count  # of few, all are confirmed
        sure = None if seed is None else {"episodes": min(confirms, every), "seed": seed}
        low, high = gain.interval()
        more = {"interval": (round(low, 4), round(high, 4)), "confirmed": sure, "curve": kept(look.curve)}
        told = {"telling": tuple(look.telling), "warned": tuple(look.warned)}
        return Evaluation.of(candidate, rung, look.curve, gain, **more, **told)

    def evaluate_all(self, candidates: Sequence[Proposal], rung: int, history: History) -> list[Evaluation]:
        """Each candidate's evaluation, from the history or new; new ones over all cores, kept at once."""
        new = {c.name: c for c in candidates if history.find(c, rung) is None}
        if new:
            self.reference_curve(rung)
        with ThreadPoolExecutor(self.contest.threads or os.cpu_count() or 1) as pool:
            for evaluation in pool.map(lambda candidate: self.evaluate(candidate, rung), new.values()):
                history.add(evaluation)
        return [found for c in candidates if (found := history.find(c, rung)) is not None]

    def reference_curve(self, rung: int) -> Curve:
        """What the reference does at a rung, at eleven budgets."""
        return self.contest.reference_curve(self.part, self.rungs[rung])

    def gain(self, curve: Curve, rung: int) -> Gain:
        """What a curve gains over the reference at a rung."""
        return self.contest.gain(self.reference_curve(rung), curve, self.part.weights)

    def saved(self, best: Evaluation) -> str:
        """What a candidate saves of self-consistency with all branches, where it has its accuracy; "" if never.

        The branches are read in their recorded order, which makes no difference to a vote of all but in ties.
        """
        count = fewest_branches(self.part.recordings)
        if self._all is None:
            everyone = load_controller("self_consistency", max_samples=count)
            results = [[replay(recording, everyone, shuffles=0)] for recording in self.part.recordings]
            tokens, accuracy = curve_from(results, Fidelity((1.0,), 0, 0), cost_of(self.contest.objective)).points(
                self.part.weights
            )
            self._all = float(tokens[0]), float(accuracy[0])
        tokens_of_all, accuracy_of_all = self._all
        found = tokens_at(zip(best.tokens, best.accuracy, strict=True), accuracy_of_all)
        if found is None or found >= tokens_of_all:
            return ""
        return f"saves {saving(found, tokens_of_all):.1%} of SC@{count} at its accuracy"


@dataclass(frozen=True)
class SearchProgress:
    """Where a search stands after a round."""

    round: int
    tried: int
    """Different candidates evaluated."""
    seconds: float
    seconds_left: float
    best: Evaluation | None
    """The best at the highest rung reached."""
    usd: float = 0.0
    """What its proposals have cost."""
    saved: str = ""
    """What the best saves of self-consistency with all branches at the same accuracy; "" where it never has that."""


def search(
    judge: Judge,
    proposer: Proposer,
    history: History,
    *,
    seconds: float,
    max_rounds: int | None = None,
    watch: Callable[[SearchProgress], None] = lambda progress: None,
    usd: Callable[[], float] = lambda: 0.0,
) -> SearchProgress:
    """Run rounds until `seconds` are spent, those of earlier sittings counted, or `max_rounds` are done.

    `usd` says what the proposals have cost so far.

    Rounds that the history holds are gone through again without replaying anything, so that the proposer stands where
    it stood; at least one round is run.
    """
    progress = _progress(judge, history, 0, 0.0, seconds)
    seen: list[list[float]] = [[] for _ in judge.rungs]
    for number in itertools.count() if max_rounds is None else range(max_rounds):
        started = time.perf_counter()
        candidates = proposer.propose(CANDIDATES)
        if candidates is None:
            break
        proposer.learn(_round(judge, candidates, history, seen))
        history.finish_round(number, time.perf_counter() - started)
        progress = _progress(judge, history, number + 1, history.seconds, seconds, usd())
        watch(progress)
        if number + 1 >= history.rounds and history.seconds >= seconds:
            break
    return progress


def _round(judge: Judge, candidates: Sequence[Proposal], history: History, seen: Sequence[list[float]]) -> list[Scored]:
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


def _promoted(found: Sequence[Evaluation], seen: Sequence[float]) -> list[Proposal]:
    """The upper third of a round, as far as it is in the upper third of all that was seen at this rung."""
    scores = [evaluation.score for evaluation in found]
    bar = max(float(np.quantile(scores, 1 - KEPT)), float(np.quantile([*scores, *seen], 1 - KEPT)))
    better = [evaluation for evaluation in found if evaluation.score >= bar and evaluation.problem is None]
    return list({evaluation.candidate.name: evaluation.candidate for evaluation in better}.values())


@checked
def best_of(evaluations: Sequence[Evaluation], count: int) -> list[Evaluation]:
    """The best candidates at the highest rung that any of them came through, best first.

    One that failed or was disqualified is none of them, whatever it did at the rungs before.
    """
    failed = {evaluation.candidate.name for evaluation in evaluations if evaluation.problem is not None}
    whole = [evaluation for evaluation in evaluations if evaluation.candidate.name not in failed]
    highest = max((evaluation.rung for evaluation in whole), default=0)
    top = [evaluation for evaluation in whole if evaluation.rung == highest]
    return sorted(top, key=lambda evaluation: (-evaluation.score, evaluation.candidate.name))[:count]


def _progress(
    judge: Judge, history: History, number: int, spent: float, seconds: float, usd: float = 0.0
) -> SearchProgress:
    evaluations = history.evaluations
    best = best_of(evaluations, 1)
    tried = len({evaluation.candidate.name for evaluation in evaluations})
    saved = judge.saved(best[0]) if best else ""
    return SearchProgress(number, tried, spent, max(0.0, seconds - spent), best[0] if best else None, usd, saved)
