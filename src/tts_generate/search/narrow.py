"""Families that ask for no more than was recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from tts_generate.controller import BRANCH_KNOBS, Controller, Knob, held_to
from tts_generate.schedule import Range, derived


def narrowed(kind: type[Controller], branches: int) -> type[Controller]:
    """`kind` with every knob that counts branches held to `branches`, so that it runs on recordings of that many.

    >>> from tts_generate.loading import load_controller
    >>> narrowed(type(load_controller("asc")), 16).from_beta(1.0).max_samples
    16
    """

    def schedule(beta: float) -> dict[str, Knob]:
        knobs = kind.schedule(beta)
        return {**knobs, **held_to(knobs, branches)}

    return derived(kind, schedule, kind.__name__)


def narrowed_ranges(ranges: Mapping[str, Range], branches: int, logprobs: bool) -> dict[str, Range]:
    """`ranges` as far as recordings of `branches` branches allow, without the knobs that read what they do not hold."""
    return {
        name: dataclasses.replace(room, low=min(room.low, branches), high=min(room.high, branches))
        if name in BRANCH_KNOBS
        else room
        for name, room in ranges.items()
        if logprobs or not room.logprobs
    }
