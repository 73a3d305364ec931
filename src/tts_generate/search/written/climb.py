"""A candidate looked at closer and closer, as long as it keeps up with those before it or is the best of a niche."""

from __future__ import annotations

import numpy as np

from tts_generate.search.archive import Evaluation
from tts_generate.search.candidate import Written
from tts_generate.search.history import History
from tts_generate.search.loop import Judge
from tts_generate.search.written.niches import leads


def climb(judge: Judge, candidate: Written, history: History) -> tuple[Evaluation, str]:
    """Evaluate a candidate rung by rung; the last look, and a sentence that says why it was the last.

    It goes on where its score is at least the median of all that were looked at before at this rung, its own included,
    or where nothing does better in one of its niches: what is worth little on the whole may be worth going on from.
    """
    last = len(judge.rungs) - 1
    for rung in range(last + 1):
        (found,) = judge.evaluate_all([candidate], rung, history)
        if found.problem is not None:
            return found, "It failed."
        bar = _bar(history, found)
        if found.score < bar and rung < last and not leads(judge, found, history.archive):
            return found, (
                f"It was not looked at closer: its score {found.score:+.2f} is below the median {bar:+.2f} of those at "
                f"rung {rung + 1} of {last + 1}, and in each of its niches others do better."
            )
    episodes = (found.confirmed or {}).get("episodes", 0)
    return found, f"It went through all rungs; {episodes} random episodes came out the same in strict mode."


def _bar(history: History, found: Evaluation) -> float:
    """The median score at a rung, of the evaluations up to this one."""
    scores = []
    for other in history.evaluations:
        if other.rung == found.rung and other.problem is None:
            scores.append(other.score)
        if other == found:
            break
    return float(np.median(scores))
