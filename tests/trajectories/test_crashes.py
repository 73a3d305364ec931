"""Killed at any time, at any call, with calls that fail and files that are damaged: nothing acknowledged is lost.

The same trials in their hundreds: `benchmarks/reliability.py`.
"""

from __future__ import annotations

import random
from pathlib import Path

import crashes
import kills
import power
import pytest
from crashes import MANIFEST, QUESTIONS, ROWS, StoreWriter


def test_killed_while_it_records(tmp_path: Path) -> None:
    found = kills.random_kills(tmp_path, 12, seed=5, branches_each=120)
    assert found["recording"] == 12
    assert found["acknowledged"] == found["stores"] * 2 * 120
    assert found["lost"] == found["unreadable"] == found["changed_parts"] == found["left_over"] == 0
    assert found["unacknowledged"] <= kills.MOST
    assert found["unlike_uninterrupted"] == 0


def test_killed_before_every_call_that_changes_the_disk(tmp_path: Path) -> None:
    found = crashes.kills_at_every_call(tmp_path, rows=2)
    assert found["points"] >= 15
    assert found["lost"] == found["unreadable"] == found["unlike_uninterrupted"] == 0


@pytest.mark.parametrize("failure", ["ENOSPC", "short"])
def test_every_call_that_changes_the_disk_fails_once(tmp_path: Path, failure: str) -> None:
    found = crashes.every_call_fails(tmp_path, 1, failure)
    assert found["points"] >= 15
    assert found["lost"] == found["unreadable"] == found["not_ours"] == found["unlike_uninterrupted"] == 0


def test_a_journal_cut_anywhere(tmp_path: Path) -> None:
    found = crashes.journal_cuts(tmp_path / "s", rows=2, step=5)
    assert found["cuts"] > 100
    assert found["lost"] == found["unreadable"] == 0


@pytest.mark.parametrize("name", ["journal", "part"])
def test_flipped_bits_are_named_or_harmless(tmp_path: Path, name: str) -> None:
    writer = StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS)
    writer.append(ROWS[:6])
    if name == "part":
        writer.seal()
        name = next((tmp_path / "s").glob("part-*")).name
    writer._leave()  # as a kill leaves it: not sealed
    bits = (tmp_path / "s" / name).stat().st_size * 8
    found = crashes.flips(tmp_path / "s", random.Random(3).sample(range(bits), 40), name)
    assert found["flips"] == 40
    assert found["silent"] == found["not_repaired"] == 0


def test_the_power_goes_at_any_moment(tmp_path: Path) -> None:
    """And the trial is a trial: it notices when the fsync of a record, a shard, or a name is left out."""
    found = power.power_cuts(tmp_path, rows=2, seal_every=2)
    assert found["states"] > 20
    assert found["lost"] == 0
    assert found["needed"] >= 5
