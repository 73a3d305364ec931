"""What a search found as a controller folder that `generate`, `replay` and a publisher take as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.hub.card import CARD, entry_of
from tts_generate.inert import as_markdown
from tts_generate.loading import find_source, is_shipped
from tts_generate.saving import CODE, card_json, new_card, readme
from tts_generate.schedule import Schedule, from_json, to_json
from tts_generate.search.history import write_whole


@checked
def write_controller(
    folder: str | Path, base: str, schedule: Schedule, *, name: str, description: str, provenance: Mapping[str, Any]
) -> None:
    """Write the controller `base` with `schedule` as a folder.

    A shipped `base` is named in it, and the folder holds no code; the code of any other is copied. Of a base that holds
    schedules itself, those that `schedule` does not set are kept.

    Args:
        folder: of the new controller; what it held is written over file by file.
        base: a shipped controller's name, a folder, or a repo of the Hub.
        schedule: its knobs over beta.
        name: of the new controller.
        description: one sentence.
        provenance: where it comes from, plain JSON values.
    """
    folder = Path(folder)
    source = find_source(base)
    schedule = {**from_json(source.card.get("knobs", {}), source.label), **schedule}
    base = str(source.card.get("builtin", base))  # schedules of a shipped controller: all of them go into one folder
    if "builtin" in source.card or is_shipped(source):
        code = {"builtin": base}
    else:
        assert source.code is not None
        code = {"entry": str(source.card["entry"])}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / entry_of(source.card)[0]).write_bytes(source.code)
    sha256 = source.card["sha256"]  # of the version that was searched, which may be an earlier one
    new = new_card(name, description, code, sha256, knobs=to_json(schedule), provenance=provenance)
    _write_card(
        folder,
        new,
        f"Found by `tts-generate search` among schedules of the knobs of `{called(base)}`. What was measured, how\n"
        f"many were tried and by which command: `provenance` in `{CARD}`.",
    )


def called(controller: str) -> str:
    """What a controller is called for other people's eyes: one in a folder of this machine, by the folder's name."""
    return Path(controller).absolute().name if Path(controller).is_dir() else controller


def write_written(
    folder: Path, code: str, entry: str, *, name: str, description: str, idea: str, provenance: Mapping[str, Any]
) -> None:
    """Write code as a controller folder, without running it; loading it runs that code, for those who trust it."""
    sha256 = hashlib.sha256(code.encode()).hexdigest()
    card = new_card(name, description, {"entry": f"{CODE}:{entry}"}, sha256, provenance=provenance)
    quoted = "\n".join(f"> {as_markdown(line)}" for line in idea.splitlines()) or "> (it says nothing)"
    write_whole(folder / CODE, code)
    _write_card(
        folder,
        card,
        f"`{CODE}` was written by a language model and ran in a sandbox until now. Read it before you trust it. What\n"
        f"was measured, and where it comes from: `provenance` in `{CARD}`. Its writer says:\n\n{quoted}",
    )


def _write_card(folder: Path, card: Mapping[str, Any], said: str) -> None:
    trust = ', "trust_remote_code": True' if "entry" in card else ""
    use = (
        "## Use\n\n```python\ntts_generate.enable(model, tokenizer=tokenizer)\n"
        f'how = {{"strategy": "autotts", "controller": "path/to/this/folder"{trust}}}\n'
        "output = model.generate(**inputs, **how, beta=0.5)\n```"
    )
    write_whole(folder / "README.md", readme(card, f"{said}\n\n{use}"))
    write_whole(folder / CARD, card_json(card))
