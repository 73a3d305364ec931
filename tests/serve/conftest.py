"""Fixtures of the proxy's tests: a server that speaks token ids, and a proxy before it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from openai import OpenAI
from proxies import Opened, settings_of
from token_server import TokenServer


@pytest.fixture(scope="session")
def upstream() -> Iterator[TokenServer]:
    """One request at a time, so that a seed repeats to the bit."""
    with TokenServer(batch=1) as server:
        yield server


@pytest.fixture(scope="session")
def opened(upstream: TokenServer) -> Iterator[Opened]:
    with Opened(settings_of(upstream)) as app:
        yield app


@pytest.fixture(scope="session")
def client(opened: Opened) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{opened.url}/v1", api_key="none", max_retries=0) as openai:
        yield openai
