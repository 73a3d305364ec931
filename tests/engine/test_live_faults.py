"""Each fault comes back as it should and leaves nothing behind; the trials are in faults.py."""

from __future__ import annotations

import faults
import pytest
from engine_models import Live


@pytest.mark.long
# a second Ctrl-C may fall into a finalizer, where Python reports it and goes on
@pytest.mark.filterwarnings("ignore:(?s).*KeyboardInterrupt:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("name", list(faults.TRIALS))
def test_a_fault_is_dealt_with_and_leaves_nothing_behind(
    name: str, qwen: Live, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "POINTS", 2)
    found = faults.TRIALS[name](qwen)
    assert found["tried"] >= 2
    assert (found["wrong"], found["left"]) == (0, 0)
