"""Fixtures of the server backend's tests: one real `transformers serve`, one server that speaks token ids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from local_servers import transformers_serve
from token_server import TokenServer


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a `transformers serve` process with the tiny model."""
    with transformers_serve(tmp_path_factory.mktemp("serve") / "log") as url:
        yield url


@pytest.fixture(scope="session")
def token_server() -> Iterator[TokenServer]:
    """A server in the manner of vLLM; one request at a time, so that a seed repeats to the bit."""
    with TokenServer(batch=1) as server:
        yield server


@pytest.fixture(scope="session")
def tokenizer(tiny: tuple[Any, Any]) -> Any:
    return tiny[1]
