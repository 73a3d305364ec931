"""The rules of an episode that every environment shares: who moves, in which order, and how an outcome counts.

Plain loops over `State` and `Decision`, so that the interpreted runner and the compiled replay run the very same
source. Source of the order and of the cost: the published program of AutoTTS (arXiv 2605.08083).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tts_generate.state import Decision, State


def clear_state(state: State) -> None:
    """Back to an episode's beginning; what branches left behind is overwritten as they are opened."""
    state.pooled = 0
    state.leader = -1
    state.leader_votes = 0
    state.runner_up_votes = 0
    state.opened = 0
    state.live = 0
    state.round = 0
    state.generated_tokens = 0
    state.probe_tokens = 0
    state.sequential_tokens = 0


def clear_decision(do: Decision) -> None:
    """Back to "hold everything, open nothing, go on"."""
    do.open = 0
    do.open_steps = 1
    do.stop = False
    do.answer = -1
    do.steps.fill(0)
    do.prune.fill(0)
    do.probe.fill(0)


def open_branches(state: State, count: int) -> None:
    """Take `count` more branches into the episode, at depth 0."""
    for i in range(state.opened, state.opened + count):
        state.answer[i] = -1
        state.depth[i] = 0
        state.tokens[i] = 0
        state.finished[i] = False
        state.pruned[i] = False
        state.finish_rank[i] = -1
    state.opened += count
    state.live += count


def prune_and_order(state: State, do: Decision, order: NDArray[np.int64]) -> int:
    """Carry out `do.prune`, and put the branches that `do.steps` moves into `order`; how many there are.

    The deepest comes first, ties in opening order. Branches that are finished or pruned stay where they are.
    """
    count = 0
    for i in range(state.opened):
        if state.finished[i] or state.pruned[i]:
            continue
        if do.prune[i]:
            state.pruned[i] = True
            state.live -= 1
        elif do.steps[i] > 0:
            place = count
            while place > 0 and state.depth[order[place - 1]] < state.depth[i]:
                order[place] = order[place - 1]
                place -= 1
            order[place] = i
            count += 1
    return count


def count_outcome(
    state: State, branch: int, depth: int, generated_tokens: int, probe_tokens: int, answer: int, finished: bool
) -> None:
    """Let a branch stand at `depth`, having shown `answer` (`NO_ANSWER`: nothing); a finished one joins the pool.

    A branch that ends without an answer does not join, and takes its probed one back; but for one that was asked once
    more at its end, where its latest probed one stands.
    """
    for d in range(state.depth[branch], depth - 1):
        state.answers[branch, d] = -1
    state.answers[branch, depth - 1] = answer
    state.depth[branch] = depth
    state.tokens[branch] += generated_tokens
    state.generated_tokens += generated_tokens
    state.probe_tokens += probe_tokens
    if answer >= 0 or (finished and probe_tokens == 0):
        state.answer[branch] = answer
    if finished:
        rank = 0
        for i in range(state.opened):
            rank += state.finished[i]
        state.finish_rank[branch] = rank
        state.finished[branch] = True
        state.live -= 1
        if answer >= 0:
            join_pool(state, answer)


def has_shown(state: State, answer: int) -> bool:
    """Whether any branch has shown an answer by now, at its end or in a probe."""
    for i in range(state.opened):
        if state.answer[i] == answer:
            return True
        for d in range(state.depth[i]):
            if state.answers[i, d] == answer:
                return True
    return False


def join_pool(state: State, answer: int) -> None:
    """Append a final answer to the pool and keep its leader: the majority, of equals the one that came first."""
    votes = 1
    for k in range(state.pooled):
        votes += state.pool[k] == answer
    state.pool[state.pooled] = answer
    state.pooled += 1
    if answer == state.leader:
        state.leader_votes = votes
    elif votes > state.leader_votes or (votes == state.leader_votes and came_first(state, answer)):
        state.runner_up_votes = state.leader_votes
        state.leader = answer
        state.leader_votes = votes
    elif votes > state.runner_up_votes:
        state.runner_up_votes = votes


def came_first(state: State, answer: int) -> bool:
    """Whether `answer` entered the pool before its leader did."""
    for k in range(state.pooled):
        if state.pool[k] == answer:
            return True
        if state.pool[k] == state.leader:
            return False
    return False
