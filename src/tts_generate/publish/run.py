"""From a search, or from an object, to the Hub."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError
from tts_generate.hub.card import CARD, MAX_CARD
from tts_generate.publish.push import Published, publish
from tts_generate.replay import Recording
from tts_generate.saving import card_json, save
from tts_generate.search.history import RESULT, SETTINGS, read_result
from tts_generate.search.run import check_best, fingerprint
from tts_generate.secret import without_secrets
from tts_generate.strict_json import read_json


@checked
def push_controller(
    controller: Controller, repo_id: str, *, name: str | None = None, description: str | None = None, **how: Any
) -> Published:
    """What `Controller.push_to_hub` does: save it, and publish the folder."""
    with tempfile.TemporaryDirectory(prefix="tts-push-") as folder:
        return publish(save(controller, Path(folder) / "c", name=name, description=description), repo_id, **how)


@checked
def publish_run(run: str | Path, repo_id: str, *, stores: Sequence[str | Path] = (), **how: Any) -> Published:
    """Publish what a search found, measured on the stores it was searched on, and how it was found.

    Args:
        run: the folder of the search.
        repo_id: `user/name`.
        stores: where the search's stores are now, if they were moved; others may be added.
        **how: see `publish`.

    Raises:
        InputError: the search has no result, or its stores are not where they were.
        ConflictError: what is there is as good; see `publish`.
    """
    run = Path(run)
    result = read_result(run)
    chosen = list(stores) or list(result.get("paths", ()))
    if not chosen:
        raise InputError(f"{run / RESULT} does not say where its stores are; name them (--store).")
    _check_stores(chosen, result["settings"]["stores"], run)
    with tempfile.TemporaryDirectory(prefix="tts-publish-") as folder:
        card = read_json(run / "best" / CARD, largest=MAX_CARD, error=ControllerError)
        check_best(card, result, run)
        best = Path(shutil.copytree(run / "best", Path(folder) / "best"))
        card["provenance"] = {**card.get("provenance", {}), **_found(result)}
        (best / CARD).write_text(card_json(card), "utf-8")
        (best / "README.md").unlink(missing_ok=True)  # made from `provenance`, as the page is
        return publish(best, repo_id, stores=chosen, **how)


@checked
def is_run(folder: str | Path) -> bool:
    """Whether a folder is a search's."""
    return (Path(folder) / SETTINGS).is_file()


def _check_stores(stores: Sequence[str | Path], searched: dict[str, str], run: Path) -> None:
    there = {fingerprint(Recording.from_store(store)) for store in stores}
    for name, expected in searched.items():
        if expected not in there:
            raise InputError(
                f"{run} was searched on {name} ({expected}), and none of {', '.join(map(str, stores))} holds its "
                "branches; name the folder where they are (--store)."
            )


def _found(result: dict[str, Any]) -> dict[str, Any]:
    """How it was found, for its card: what the search measured of itself, without the folders of this machine."""
    settings, gain = result["settings"], result["fresh"]["gain"]
    told = {
        "command": without_secrets(str(result["command"])).replace(f"{Path.home()}{os.sep}", f"~{os.sep}"),
        "proposer": settings["proposer"],
        "seed": settings["seed"],
        "rounds": result["rounds"],
        "seconds": round(result["seconds"], 1),
        "gain_over": settings["reference"],
        "objective": settings.get("objective", settings.get("cost")),
        "weights": dict(zip(settings["stores"], settings["weights"], strict=False)),
        "gain_interval": [round(value, 4) for value in gain["interval"]],
    }
    return {**told, "usd": result.get("usd", 0.0)}  # a search of knobs calls no model
