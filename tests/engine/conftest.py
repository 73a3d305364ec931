"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest
from engine_models import CONFIGS, Live, make_live


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def live(request: pytest.FixtureRequest) -> Live:
    """Every family in turn."""
    return make_live(request.param)


@pytest.fixture(scope="session")
def qwen() -> Live:
    """One family, where the family does not matter."""
    return make_live("qwen3")
