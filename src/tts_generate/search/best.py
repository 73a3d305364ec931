"""The choice as a controller folder that `generate`, `replay` and a publisher take as it is."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.hub.card import entry_of
from tts_generate.loading import FORMAT, find_source, is_shipped
from tts_generate.schedule import Ends, Schedule, from_json, to_json
from tts_generate.search.history import write_whole
from tts_generate.version import __version__


@checked
def write_controller(
    folder: Path, base: str, schedule: Schedule, *, name: str, description: str, provenance: Mapping[str, Any]
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
    source = find_source(base)
    if "builtin" in source.card:  # schedules of a shipped controller: all of them go into one folder
        base = str(source.card["builtin"])
        schedule = {**from_json(source.card.get("knobs", {}), source.label), **schedule}
        source = find_source(base)
    shipped = is_shipped(source)
    new: dict[str, Any] = {"format": FORMAT, "api": 1, "name": name, "description": description}
    new |= {"builtin": base} if shipped else {"entry": source.card["entry"]}
    if not shipped:
        assert source.code is not None
        folder.mkdir(parents=True, exist_ok=True)
        (folder / entry_of(source.card)[0]).write_bytes(source.code)
    new |= {
        "beta": {"default": 0.5, "range": [0.0, 1.0]},
        "knobs": to_json(schedule),
        "sha256": source.card["sha256"],
        "requires": {"tts_generate": f">={'.'.join(__version__.split('.')[:2])}"},
        "provenance": dict(provenance),
    }
    write_whole(folder / "README.md", card_text(name, base, schedule, description))
    write_whole(folder / "controller.json", json.dumps(new, indent=2, ensure_ascii=False) + "\n")


def card_text(name: str, base: str, schedule: Schedule, description: str) -> str:
    """The README of a found controller."""
    lines = [
        "---\nlibrary_name: tts_generate\nlicense: apache-2.0\ntags: [tts-controller, test-time-scaling]\n---\n",
        f"# {name}\n",
        f"{description}\n\nFound by `tts-generate search` among schedules of the knobs of `{base}`. What was measured,",
        "how many were tried and by which command: `provenance` in `controller.json`.\n",
        "| knob | at β = 0 | at β = 1 |\n|---|---|---|",
    ]
    for knob, value in schedule.items():
        start, end = (value.start, value.end) if isinstance(value, Ends) else (value, value)
        lines.append(f"| `{knob}` | {start} | {end} |")
    lines += [
        "\n## Use\n",
        "```python\ntts_generate.enable(model, tokenizer=tokenizer)",
        'output = model.generate(**inputs, strategy="autotts", controller="path/to/this/folder", beta=0.5)\n```',
    ]
    return "\n".join(lines) + "\n"
