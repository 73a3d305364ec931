"""Whatever a candidate answers is taken as what was asked for or refused; what it is sent holds no gold."""

from __future__ import annotations

from pathlib import Path

import reply_fuzz

CONTROLLERS = Path(__file__).resolve().parents[2] / "controllers"


def test_random_replies_are_refused_by_one_clear_error_or_valid() -> None:
    found = reply_fuzz.fuzz(1_000, seed=1)
    assert found["refused"] + found["taken"] == found["replies"]
    assert min(found["refused"], found["taken"]) > 100
    assert found["taken_wrongly"] == found["not_ours"] == found["left"] == 0


def test_no_gold_in_what_is_sent() -> None:
    found = reply_fuzz.gold_in_what_is_sent([(CONTROLLERS / "asc" / "controller.py").read_text("utf-8")])
    assert found["bytes"] > 10_000
    assert found["found"] == 0
