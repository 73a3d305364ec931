"""Fixtures of the search's tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tts_generate.sandbox import Limits, Sandbox


@pytest.fixture(scope="session")
def box() -> Iterator[Sandbox]:
    """One for all, so that what candidates share is compiled once; tests that end or change one have their own."""
    with Sandbox(Limits(seconds=60)) as opened:
        yield opened
