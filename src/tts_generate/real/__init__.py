"""A recording of an ordinary language model that ships here: what a controller does on one can be tried without it.

Its card is `README.md` beside this file; `benchmarks/real_store.py` makes the folder out of recordings of
`benchmarks/real_live.py`.
"""

from __future__ import annotations

from pathlib import Path


def path() -> Path:
    """The folder of the store, as `TrajectoryStore.open`, `replay`, `sweep` and `search` take it.

    >>> from tts_generate.trajectories import TrajectoryStore
    >>> TrajectoryStore.open(path()).manifest.model["class"]
    'Qwen2ForCausalLM'
    """
    return Path(__file__).parent / "store"
