"""Where a candidate's points and tokens are: by kind of question, by recording, and beside another candidate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tts_generate.recorded.table import UNREAD
from tts_generate.search.archive import Archive, Evaluation
from tts_generate.search.loop import Judge
from tts_generate.search.objective import Gain
from tts_generate.search.questions import Part
from tts_generate.statistics import gain_interval

_Questions = list[NDArray[np.float64]]
"""A number of each question, one array a recording."""
_KINDS = {
    "sure": (0.75, 1.01, "three quarters or more of their branches are right"),
    "between": (0.1, 0.75, "a tenth to three quarters"),
    "hopeless": (0.0, 0.1, "fewer than a tenth"),
}
"""Least share of right branches, share that is too much, and both in words."""
_DIFFERENCES = 8
_UNLIKE = 0.005


def right_shares(part: Part) -> _Questions:
    """The share of each question's branches that end with its answer."""
    return [np.array([branches.mean() for branches in recording.right]) for recording in part.recordings]


def branches_of(part: Part) -> str:
    """What the branches of a search set are like: lengths, probes, log-probabilities, kinds of question."""
    right, wrong, probes, logprobs = [], [], [], True
    for recording in part.recordings:
        table = recording.table
        for q, is_right in zip(recording.questions, recording.right, strict=True):
            tokens = table.branches["tokens"][q.offset : q.offset + q.branches]
            right.append(tokens[is_right])
            wrong.append(tokens[~is_right])
        inner = np.delete(table.steps, table.branches["first"] + table.branches["interior"])
        probes.append(inner["probe_tokens"][inner["answer"] != UNREAD])
        logprobs &= recording.has_logprobs
    lengths = np.percentile(np.concatenate([*right, *wrong]), (10, 50, 90))
    told = "Branches have {:,.0f} / {:,.0f} / {:,.0f} tokens (a tenth, half, nine tenths are shorter)".format(*lengths)
    medians = [(np.concatenate(some), what) for some, what in ((right, "right"), (wrong, "wrong"))]
    told += "".join(f"; {what} ones {np.median(found):,.0f} in the median" for found, what in medians if len(found))
    asked = np.concatenate(probes)
    cost = f"A probe costs {asked.mean():.1f} tokens on average" if len(asked) else "No probes were recorded"
    cost = "Probes cost nothing here" if len(asked) and not asked.any() else cost
    shares = np.concatenate(right_shares(part))
    kinds = [f"{((least <= shares) & (shares < most)).sum()} {kind}" for kind, (least, most, _) in _KINDS.items()]
    known = "recorded" if logprobs else "not recorded"
    return f"{told}. {cost}; log-probabilities are {known}. Of the questions {', '.join(kinds)}."


def where(judge: Judge, found: Evaluation) -> list[str]:
    """An evaluation by kind of question and by recording, as lines."""
    curve = found.curve
    if curve is None:
        return []
    part, gain, told = judge.part, _gain(judge, found), ["where the tokens, the right answers and the gain are:"]
    looks = sorted({0, len(curve.betas) // 2, len(curve.betas) - 1})
    for kind, (least, most, words) in _KINDS.items():
        mine = [(least <= shares) & (shares < most) for shares in right_shares(part)]
        count = sum(int(those.sum()) for those in mine)
        if count == 0:
            continue
        at = []
        for b in looks:
            cost, right = ([values[b] for values in column] for column in (curve.cost, curve.accuracy))
            share = _sum(part, cost, mine) / max(1e-9, _sum(part, cost))  # nothing, as a liar in the sieve may say
            accuracy = _sum(part, right, mine) / _sum(part, [those.astype(np.float64) for those in mine])
            at.append(f"beta {curve.betas[b]:g} {share:.0%} of the tokens, {accuracy:.1f} % right")
        points = _sum(part, list(gain.by_question), mine)
        told.append(f"- {kind} ({count} questions: {words}): {'; '.join(at)}; {points:+.2f} of the gain")
    if len(part.recordings) > 1:
        stores = zip(part.recordings, gain.by_question, strict=True)
        told.append("gain by recording: " + ", ".join(f"{one.name} {values.mean():+.2f}" for one, values in stores))
    return told


def against_best(judge: Judge, found: Evaluation, archive: Archive) -> list[str]:
    """The paired difference to the best of the others at the same rung, as a line."""
    others = [
        other
        for other in archive.evaluations
        if other.rung == found.rung and other.curve is not None and other.candidate.name != found.candidate.name
    ]
    if found.curve is None or not others:
        return []
    best = max(others, key=lambda other: other.score)
    if same_behaviour(found, best):
        return [f"It behaves as {best.candidate.name} does: the same curve, question by question."]
    mean, low, high = _paired(judge, found, best)
    sure = "" if low <= 0 <= high else ", which is more than luck with these questions"
    return [
        f"beside {best.candidate.name}, the best of the others at this rung: {mean:+.2f} points, question by question; "
        f"95 % interval {low:+.2f} to {high:+.2f}{sure}"
    ]


def differences(judge: Judge, one: Evaluation, other: Evaluation) -> list[str]:
    """Where two candidates behave differently, by question, as lines."""
    if one.curve is None or other.curve is None:
        return []
    names = f"{one.candidate.name} beside {other.candidate.name}"
    if same_behaviour(one, other):
        return [f"{names}: they behave the same on every question, whatever their code says."]
    mean, low, high = _paired(judge, one, other)
    told = [f"{names}: {mean:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}. Where they differ most:"]
    gains = _gain(judge, one).by_question, _gain(judge, other).by_question
    costs = [[values.mean(axis=0) for values in found.curve.cost] for found in (one, other) if found.curve]
    shares, rows = right_shares(judge.part), []
    for r, recording in enumerate(judge.part.recordings):
        for q, recorded in enumerate(recording.questions):
            mine, theirs = float(gains[0][r][q]), float(gains[1][r][q])
            tokens, others = float(costs[0][r][q]), float(costs[1][r][q])
            line = (
                f"- {recorded.question.question_id} of {recording.name} ({shares[r][q]:.0%} of the branches are right):"
                f" gain {mine:+.1f} beside {theirs:+.1f}, {tokens:,.0f} tokens beside {others:,.0f}"
            )
            rows.append((abs(mine - theirs), abs(tokens - others), line))
    by_points = sorted(rows, key=lambda row: -row[0])[:_DIFFERENCES]
    by_tokens = [row for row in sorted(rows, key=lambda row: -row[1])[: _DIFFERENCES // 2] if row not in by_points]
    return [*told, *(line for points, tokens, line in (*by_points, *by_tokens) if points > _UNLIKE or tokens >= 1)]


def same_behaviour(one: Evaluation, other: Evaluation) -> bool:
    """Whether two evaluations at one rung are the same, question by question where that is known."""
    if (one.rung, one.tokens, one.accuracy) != (other.rung, other.tokens, other.accuracy) or not one.tokens:
        return False
    if one.curve is None or other.curve is None:
        return True
    pairs = zip((*one.curve.cost, *one.curve.accuracy), (*other.curve.cost, *other.curve.accuracy), strict=True)
    return all(np.array_equal(mine, theirs) for mine, theirs in pairs)


def _gain(judge: Judge, found: Evaluation) -> Gain:
    assert found.curve is not None
    return judge.gain(found.curve, found.rung)


def _paired(judge: Judge, one: Evaluation, other: Evaluation) -> tuple[float, float, float]:
    """The difference of two gains, and its 95 % interval over questions."""
    pairs = zip(_gain(judge, one).by_question, _gain(judge, other).by_question, strict=True)
    apart = [mine - theirs for mine, theirs in pairs]
    weights = judge.part.weights
    low, high = gain_interval([len(weights) * w * d for w, d in zip(weights, apart, strict=True)])
    return _sum(judge.part, apart), low, high


def _sum(part: Part, values: _Questions, those: list[NDArray[np.bool_]] | None = None) -> float:
    """The mean over each recording's questions, of `those` the part that they make up, summed by weight."""
    chosen = values if those is None else [v * mask for v, mask in zip(values, those, strict=True)]
    return float(sum(w * v.mean() for w, v in zip(part.weights, chosen, strict=True)))
