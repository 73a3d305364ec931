"""The part of the demo that needs no model: the recording of an ordinary one that ships here, replayed and searched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from tts_generate import real
from tts_generate.demo.methods import find, replayed
from tts_generate.demo.tables import replay_table, search_line
from tts_generate.evaluate import as_dict
from tts_generate.replay import Recording
from tts_generate.trajectories import TrajectoryStore


def run_real(out: Path, minutes: float, console: Console) -> dict[str, Any]:
    """Replay the recording and search on it; what `demo.json` says of it."""
    store = TrajectoryStore.open(real.path())
    recording = Recording.from_store(store)
    rows = replayed(recording, store.manifest.branches)
    console.print(replay_table(rows, len(store.questions)))
    result = find(real.path(), out / "search-real", minutes)
    console.print(search_line(result))
    return {
        "model": store.manifest.model["name_or_path"],
        "questions": len(store.questions),
        "branches": store.manifest.branches,
        "replay": [as_dict(row) for row in rows],
        "search": {name: result[name] for name in ("beta", "tried", "seconds")} | {"gain": result["fresh"]["gain"]},
    }
