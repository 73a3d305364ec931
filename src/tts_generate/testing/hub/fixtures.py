"""A pytest plugin with the fixture `hub`: `-p tts_generate.testing.hub.fixtures`, or `pytest_plugins` in a conftest."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tts_generate.testing.hub.server import HubServer


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[HubServer]:
    """An empty Hub, which huggingface_hub in this process uses, with its caches under `tmp_path / "hf"`."""
    with HubServer() as server, server.clients(tmp_path / "hf"):
        yield server
