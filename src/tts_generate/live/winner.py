"""Which branch speaks for a question, and how its pool voted; the same wherever the branches were decoded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tts_generate.answers import AnswerBook
from tts_generate.live.branch import Branch
from tts_generate.runner import Episode
from tts_generate.votes import NO_ANSWER


def votes(episode: Episode, book: AnswerBook) -> dict[str, int]:
    """Votes of the finished branches that were not pruned, by answer, most first."""
    state = episode.state
    pool = [book.text(int(answer)) for answer in state.pool[: state.pooled]]
    return dict(Counter(answer for answer in pool if answer is not None).most_common())


def shown(branch: Branch) -> str | None:
    """The latest answer of a branch."""
    if branch.finished:
        return branch.final_answer
    return branch.probes[-1].answer if branch.probes else None


def winner(episode: Episode, book: AnswerBook, branches: Sequence[Branch]) -> int:
    """The branch to show: first to finish with the answer, else one that was probed to it, else the longest.

    One that ran into the limit of its length comes behind those that ended by themselves. -1 where there is no branch.
    """
    answer = episode.answer
    finish_rank = episode.state.finish_rank

    def rank(number: int) -> tuple[bool, bool, bool, int, int]:
        branch = branches[number]
        agrees = answer != NO_ANSWER and book.id(shown(branch)) == answer
        order = -int(finish_rank[number]) if branch.finished else len(branch.ids)
        return agrees, branch.finished and not branch.cut, branch.finished, order, -number

    return max(range(len(branches)), key=rank, default=-1)


def truncated(branches: Sequence[Branch], winner: int) -> bool:
    """Whether what speaks for a question breaks off: its branch ran into a limit, or no probe closes it with an answer.

    The one rule for every output, harness and report; a winner of -1 says nothing at all.
    """
    if winner < 0 or branches[winner].cut:
        return True
    return not branches[winner].finished and shown(branches[winner]) is None


def cut(branches: Sequence[Branch]) -> dict[int, bool]:
    """The branches that ran into the limit of their length, and whether each was asked for its answer there."""
    return {number: branch.forced for number, branch in enumerate(branches) if branch.cut}


def shown_ids(branch: Branch) -> list[int]:
    """Tokens that speak for a branch; one that did not say its answer by itself is closed by its latest probe."""
    silent = branch.forced and branch.final_answer is None
    if (branch.finished and not branch.forced) or silent or not branch.probes:
        return branch.ids
    return [*branch.ids, *branch.probes[-1].ids]
