"""A search that is killed does nothing twice, and a reply that is paid for is on the disk before it is used.

The same trials, more of them: `benchmarks/reliability.py`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import search_kills

pytest.importorskip("numba")
pytest.importorskip("optuna")


@pytest.mark.long
def test_a_search_killed_at_its_calls_and_at_random_redoes_and_loses_nothing(tmp_path: Path) -> None:
    found = search_kills.search_kills(tmp_path, points=3, count=1, seed=3)
    assert found["kills"] >= 3
    assert found["evaluations"] > 100
    assert found["redone"] == found["lost"] == found["unlike_uninterrupted"] == 0


@pytest.mark.long
def test_a_reply_is_on_the_disk_before_it_is_used_and_asked_for_once(tmp_path: Path) -> None:
    """Killed before every call that changes the disk: between a reply and its writing down, too."""
    found = search_kills.paid_kills(tmp_path, count=2, seed=4)
    assert found["kills"] > 15
    assert found["redone"] == found["lost"] == found["used_early"] == found["unaccounted"] == 0
    assert found["unlike_uninterrupted"] == 0
    assert 0 < found["on_the_way"] <= search_kills.TURNS + 2
