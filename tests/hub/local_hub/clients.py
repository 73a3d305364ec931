"""Makes client libraries use a local Hub: in a child by its environment, here by huggingface_hub's constants."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest.mock import patch


def environment(url: str, home: str | Path, token: str | None) -> dict[str, str]:
    """The variables of a client process."""
    found = {
        "HF_ENDPOINT": url,
        "HF_HOME": str(home),
        "HF_HUB_OFFLINE": "0",
        "HF_HUB_DISABLE_XET": "1",  # with hf_xet installed, uploads would go to a Xet server, which the Hub here is not
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    return found if token is None else {**found, "HF_TOKEN": token}


@contextmanager
def clients_here(url: str, home: str | Path, token: str | None) -> Iterator[None]:
    """Set what huggingface_hub read from the environment when it was imported; set back afterwards."""
    from huggingface_hub import close_session, constants

    told = environment(url, home, token)
    values: dict[str, Any] = {
        "ENDPOINT": url,
        "HUGGINGFACE_CO_URL_TEMPLATE": url + "/{repo_id}/resolve/{revision}/{filename}",
        "HF_HOME": told["HF_HOME"],
        "HF_HUB_CACHE": str(Path(home) / "hub"),
        "HF_TOKEN_PATH": str(Path(home) / "token"),
        "HF_HUB_OFFLINE": False,
        "HF_HUB_DISABLE_XET": True,
        "HF_HUB_DISABLE_TELEMETRY": True,
    }
    kept = {name: value for name, value in os.environ.items() if name != "HF_TOKEN"}
    with patch.multiple(constants, **values), patch.dict(os.environ, {**kept, **told}, clear=True):
        close_session()  # its connections may be to a server that has gone
        try:
            yield
        finally:
            close_session()
