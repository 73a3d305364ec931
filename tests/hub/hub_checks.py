"""What the tests of the Hub share: controllers to put on it, and a process that remembers nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from local_hub import HubServer

from tts_generate.hub import fetch, pin


def forget() -> None:
    """What a process remembers of the Hub, so that a test can be another process."""
    fetch.fetch.cache_clear()
    pin._resolved.clear()


def put(hub: HubServer, repo_id: str, files: Mapping[str, bytes]) -> str:
    """Put files into a repo, as somebody would by hand; the commit."""
    if ("model", repo_id) not in hub.repos:
        hub.create(repo_id)
    return hub.commit(repo_id, dict(files))


def read(folder: Path) -> dict[str, bytes]:
    """Every file of a folder."""
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


CODE = b'''"""Reads `width` branches to their end and lets them vote."""

from tts_generate.controller import Controller

print("RAN")


class Few(Controller):
    """Reads `width` branches to their end and lets them vote."""

    probing = "never"
    width: int

    @staticmethod
    def schedule(beta):
        return {"width": 1 + round(3 * beta)}

    def begin(self, state, do):
        do.open, do.open_steps = self.width, 1 << 20
'''
"""A controller whose code says when it runs."""


def card(code: bytes = CODE, **fields: object) -> dict[str, object]:
    """The fields of a good `controller.json`; None takes one out."""
    found: dict[str, object] = {
        "format": "tts-controller/1",
        "api": 1,
        "name": "few",
        "description": "Reads a few branches.",
        "entry": "controller.py:Few",
        "beta": {"default": 0.5, "range": [0.0, 1.0]},
        "sha256": hashlib.sha256(code).hexdigest(),
        "requires": {"tts_generate": ">=0.1"},
        "provenance": {},
    }
    return {name: value for name, value in {**found, **fields}.items() if value is not None}


def good(code: bytes = CODE, **fields: object) -> dict[str, bytes]:
    """The files of a good controller, or of one with other fields or other code."""
    return {"controller.json": json.dumps(card(code, **fields)).encode(), "controller.py": code}
