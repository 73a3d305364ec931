"""Every answer, cost and verdict of the published program on AIME24: 100 shuffles x 30 questions a table."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_generate.replay import Recording, replay
from tts_generate.trajectories import import_autotts

MODELS = ["Qwen3-0.6B", "Qwen3-1.7B", "Qwen3-4B", "Qwen3-8B"]
METHODS: dict[str, dict[str, Any]] = {
    "asc_64": {"controller": "asc", "max_samples": 64},
    "asc_8": {"controller": "asc", "max_samples": 8},
    "esc_64": {"controller": "esc", "max_samples": 64},
    "pp_16": {"controller": "parallel_probe", "num_chains": 16},
    "pp_64": {"controller": "parallel_probe", "num_chains": 64},
    **{f"cmc_b{beta:g}": {"controller": "cmc", "beta": beta} for beta in (0, 0.2, 0.5, 0.8, 1)},
}
SHUFFLES = 100
SLOW = {"pp_64": 25}
"""Interpreted, 64 branches in lockstep take tens of milliseconds an episode: of these the first shuffles only."""


@pytest.fixture(scope="module")
def recordings(autotts_data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Recording]:
    """The tables, through the importer and the store."""
    folder = tmp_path_factory.mktemp("autotts")
    return {
        model: Recording.from_store(import_autotts(autotts_data / "replay" / model / "aime24.json", folder / model))
        for model in MODELS
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("model", MODELS)
def test_every_episode(recordings: dict[str, Recording], autotts_data: Path, model: str, method: str) -> None:
    shuffles = SLOW.get(method, SHUFFLES)
    result = replay(recordings[model], shuffles=shuffles, **METHODS[method])
    with np.load(autotts_data / "spec" / "expected" / f"{model}_aime24_{method}.npz") as found:
        expected = {key: rows[:shuffles] for key, rows in found.items()}
    assert result.cost.shape == (shuffles, 30)
    assert (result.cost == expected["cost"]).all()
    assert (result.answers == expected["answers"]).all()
    assert (result.correct == expected["correct"]).all()


@pytest.mark.parametrize("model", MODELS)
def test_self_consistency(recordings: dict[str, Recording], autotts_data: Path, model: str) -> None:
    """There is no file for it: counted here from the raw table."""
    table = json.loads((autotts_data / "replay" / model / "aime24.json").read_text())
    result = replay(recordings[model], "self_consistency", shuffles=SHUFFLES, max_samples=64)
    for q, entry in enumerate(table):
        for s in range(SHUFFLES):
            branches = [(row[1], row[2]) if len(row) == 3 else tuple(row[1]) for row in entry["each_branch"]]
            random.Random(s).shuffle(branches)
            read = branches[:64]
            assert result.cost[s, q] == sum(tokens for tokens, _ in read)
            assert result.answers[s, q] == Counter(final for _, final in read).most_common(1)[0][0]
