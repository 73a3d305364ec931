"""A search of the knobs of a controller that lives on the Hub: found by name, run if trusted, written with its code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hub_checks import CODE, card, put
from local_hub import HubServer
from search_stores import make_store, setup

from tts_generate.errors import UntrustedCodeError
from tts_generate.loading import load_controller
from tts_generate.search import Search, write_controller

pytest.importorskip("numba")
pytest.importorskip("optuna")
RANGED = CODE.replace(b'print("RAN")', b"from tts_generate.schedule import Range").replace(
    b"    @staticmethod", b'    ranges = {"width": Range(1, 8)}\n\n    @staticmethod'
)


def test_a_repo_is_searched_and_its_code_comes_with_the_best(hub: HubServer, tmp_path: Path) -> None:
    store = make_store(tmp_path / "store", questions=4)
    commit = put(hub, "user/mine", {"controller.py": RANGED, "controller.json": json.dumps(card(RANGED)).encode()})
    ours = setup(store, controller="user/mine@" + commit)
    with pytest.raises(UntrustedCodeError, match="user/mine"):
        Search(ours)
    trusting = setup(store, controller="user/mine@" + commit, trust_remote_code=["user/mine"])
    Search(trusting)
    best = tmp_path / "best"
    provenance = {"source": "test"}
    write_controller(best, ours.controller, {"width": 3}, name="found", description="Found.", provenance=provenance)
    assert (best / "controller.py").read_bytes() == RANGED
    assert json.loads((best / "controller.json").read_text())["entry"] == "controller.py:Few"
    assert load_controller(best, trust_remote_code=True).knobs == {"width": 3}
