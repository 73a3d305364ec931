"""Sampling options that mean the same when a branch is continued by another request, and what each may be."""

from __future__ import annotations

import math
from collections.abc import Callable
from numbers import Integral, Real
from typing import Any

_MAY_BE: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "temperature": ("a number above 0", lambda value: value > 0),
    "top_p": ("a number above 0 and at most 1", lambda value: 0 < value <= 1),
    "top_k": ("a whole number, 0 for none", lambda value: isinstance(value, Integral) and int(value) >= 0),
    "min_p": ("a number from 0 to 1", lambda value: 0 <= value <= 1),
    "repetition_penalty": ("a number above 0", lambda value: value > 0),
}
SAMPLING = tuple(_MAY_BE)
"""transformers' names."""


def wrong_sampling(name: str, value: Any) -> str | None:
    """What an option must be, if the value is not: some servers refuse it, and some take it without a word.

    >>> wrong_sampling("top_p", 1.5), wrong_sampling("top_k", 2.5), wrong_sampling("min_p", 0.05)
    ('must be a number above 0 and at most 1', 'must be a whole number, 0 for none', None)
    """
    what, fits = _MAY_BE[name]
    number = isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    return None if number and fits(value) else f"must be {what}"
