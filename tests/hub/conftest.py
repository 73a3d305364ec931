"""A Hub on this machine, which the clients of this process use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from hub_checks import forget
from local_hub import HubServer


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """The clients of this process use it, and remember nothing of another one."""
    monkeypatch.chdir(tmp_path)  # where no lock file is
    forget()
    with HubServer() as server, server.clients(tmp_path / "home"):
        yield server
    forget()
