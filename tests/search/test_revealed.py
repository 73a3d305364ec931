"""In strict mode a state shows what was revealed and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tts_generate.sandbox.revealed import LooksAhead, reveal_only
from tts_generate.state import State
from tts_generate.votes import majority


def shown() -> State:
    """Two of four branches are open, read to depths 3 and 1; one has ended."""
    state = State(4, 5, 10, 0)
    reveal_only(state)
    state.opened, state.pooled = 2, 1
    state.depth[:2], state.answers[0, :3], state.answers[1, 0], state.pool[0] = [3, 1], [1, 2, 1], 2, 1
    state.answer[:2] = [1, 2]
    return state


AHEAD: dict[str, Callable[[State], Any]] = {
    "an answer beyond the depth": lambda s: s.answers[0, 3],
    "an answer before the first": lambda s: s.answers[0, -1],
    "a row, beyond the depth": lambda s: s.answers[1][1],
    "a slice that ends beyond the depth": lambda s: s.answers[0, :4],
    "a log-probability beyond the depth": lambda s: s.logprobs[1, 1],
    "answers of a branch that is not open": lambda s: s.answers[2, 0],
    "answers of a branch that there is not": lambda s: s.answers[7, 0],
    "a branch that is not open": lambda s: s.answer[2],
    "the last branch of all": lambda s: s.tokens[-1],
    "branches that are not open": lambda s: s.finished[:3],
    "the pool beyond its end": lambda s: s.pool[1],
    "a vote of branches that are not open": lambda s: majority(s.answer, 3),
}


@pytest.mark.parametrize("what", AHEAD)
def test_what_was_not_revealed_cannot_be_read(what: str) -> None:
    with pytest.raises(LooksAhead, match=r"state\.\w+\[.*\] is beyond the \d entries that were revealed"):
        AHEAD[what](shown())


def test_what_was_revealed_can() -> None:
    state = shown()
    assert (state.answers[0, 2], state.answers[0][1], state.pool[0], state.answer[1]) == (1, 2, 1, 2)
    assert state.answers[0, :3].tolist() == [1, 2, 1]
    assert majority(state.answers[0], state.depth[0]) == (1, 2, 1)
    assert state.tokens[: state.opened].sum() == 0
    assert np.argsort(state.depth[: state.opened]).tolist() == [1, 0]
    assert state.answers[:2, 0].tolist() == [1, 2]
