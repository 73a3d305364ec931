"""Fixtures of the engine's tests."""

from __future__ import annotations

import pytest
from engine_models import CONFIGS, Live, make_live

from tts_generate.engine.selfcheck import checked


@pytest.fixture(scope="session", params=sorted(CONFIGS))
def live(request: pytest.FixtureRequest) -> Live:
    """Every family in turn."""
    return looked_at(make_live(request.param))


@pytest.fixture(scope="session")
def qwen() -> Live:
    """One family, where the family does not matter."""
    return looked_at(make_live("qwen3"))


def looked_at(live: Live) -> Live:
    """Whoever counts its passes counts those of the call."""
    checked(live.model, static=False, tokens=0)
    return live
