"""Episodes that tell what to change: an answer lost, an answer gained, tokens spent, beside the reference."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tts_generate.replay import ReplayResult
from tts_generate.search.archive import Telling

_Kind = Literal["lost", "gained", "costly"]
KEPT: dict[_Kind, int] = {"lost": 3, "costly": 2, "gained": 2}
"""Episodes of each kind, each of another question."""


def telling_episodes(
    candidate: Sequence[Sequence[ReplayResult]], reference: Sequence[Sequence[ReplayResult]]
) -> list[Telling]:
    """The episodes that say most: of each kind those of the questions where it happens most.

    Every budget of the candidate is compared with the reference's budget of the nearest mean cost.

    Args:
        candidate: its replays by recording, then by budget.
        reference: the same of the reference, in the same orders of the branches.
    """
    found: dict[_Kind, list[Telling]] = {kind: [] for kind in KEPT}
    for ours, theirs in zip(candidate, reference, strict=True):
        for one in ours:
            other = _nearest(one, theirs)
            for telling in _of_pair(one, other):
                found[telling.kind].append(telling)
    kept: list[Telling] = []
    for kind, most in KEPT.items():
        questions: dict[tuple[str, str], Telling] = {}
        for telling in sorted(found[kind], key=lambda telling: -telling.share):
            questions.setdefault((telling.recording, telling.question), telling)
        kept += list(questions.values())[:most]
    return kept


def _nearest(one: ReplayResult, others: Sequence[ReplayResult]) -> ReplayResult:
    cost = max(1.0, float(one.cost.mean()))
    return min(others, key=lambda other: abs(float(np.log(max(1.0, float(other.cost.mean())) / cost))))


def _of_pair(one: ReplayResult, other: ReplayResult) -> Iterator[Telling]:
    """Per question and kind the clearest episode, if there is one."""
    excess = np.asarray(one.cost - other.cost, np.float64)
    kinds: dict[_Kind, NDArray[np.float64]] = {
        "lost": (other.correct & ~one.correct).astype(np.float64),
        "gained": (one.correct & ~other.correct).astype(np.float64),
        "costly": excess,
    }
    for kind, values in kinds.items():
        for q, share in enumerate(values.mean(axis=0).tolist()):
            if share > 0:
                s = int(values[:, q].argmax())
                yield Telling(
                    kind=kind,
                    recording=one.recording.name,
                    question=one.recording.questions[q].question.question_id,
                    shuffle=s,
                    beta=float(one.controller["beta"]),
                    tokens=int(one.cost[s, q]),
                    reference_beta=float(other.controller["beta"]),
                    reference_tokens=int(other.cost[s, q]),
                    share=round(share, 4),
                )
