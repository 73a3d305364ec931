"""One process, many calls: nothing piles up, exceptions leave everything as it was, threads do not mix."""

from __future__ import annotations

import endurance
import pytest
from engine_models import Live, make_live


@pytest.mark.long
def test_many_calls_hold_no_more_than_few(qwen: Live) -> None:
    found = endurance.many_calls(qwen, 30)
    grown = found["grown"]
    assert grown["descriptors"] <= 0
    assert grown["threads"] <= 0
    assert grown["caches"] <= 0
    assert grown["resident_bytes"] < 32e6, "3 MB a call and more"


def test_an_exception_anywhere_leaves_everything_as_it_was(qwen: Live) -> None:
    found = endurance.interrupted_calls(qwen, 6)
    assert found == {"calls": 6, "changed": 0, "caches_left": 0}


def test_two_threads_answer_as_one_does(qwen: Live) -> None:
    found = endurance.two_threads(qwen, make_live("qwen3"), 3)
    assert found == {"calls": 6, "different": 0}
