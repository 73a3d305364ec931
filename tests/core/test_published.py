"""Every answer, cost and verdict of the published program on AIME24: 100 shuffles x 30 questions a table."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_generate.errors import ControllerError
from tts_generate.published import load_published
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import Question, Trajectory, import_autotts

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
    result = replay(recordings[model], shuffles=SHUFFLES, **METHODS[method])
    with np.load(autotts_data / "spec" / "expected" / f"{model}_aime24_{method}.npz") as found:
        expected = dict(found)
    assert result.cost.shape == (SHUFFLES, 30)
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


def settings(row: str) -> dict[str, Any]:
    """The controller that a row of the rerun table names."""
    name, value = row.split("_")
    if name == "cmc":
        return {"controller": "cmc", "beta": float(value[1:])}
    controller, knob = {
        "asc": ("asc", "max_samples"), "esc": ("esc", "max_samples"), "pp": ("parallel_probe", "num_chains"),
    }[name]  # fmt: skip
    return {"controller": controller, knob: int(value)}


@pytest.mark.long
def test_every_average_of_the_rerun_table(recordings: dict[str, Recording], autotts_data: Path) -> None:
    """All 22 rows x 4 models of spec/paper_table.md, to the printed digit."""
    text = (autotts_data / "spec" / "paper_table.md").read_text().split("run again", 1)[1]
    rows = re.findall(r"^\| ((?:cmc|asc|esc|pp)_\S+) \|(.*)\|$", text, re.MULTILINE)
    assert len(rows) == 22
    for row, cells in rows:
        for model, cell in zip(MODELS, cells.split("|"), strict=True):
            result = replay(recordings[model], shuffles=SHUFFLES, **settings(row))
            assert f"{100 * result.accuracy:.2f} / {result.tokens:.1f}" == cell.strip(), (row, model)


def test_interpreted_too(recordings: dict[str, Recording], autotts_data: Path) -> None:
    """The slow twin, on the first shuffles of one table."""
    for method, chosen in METHODS.items():
        result = replay(recordings["Qwen3-1.7B"], shuffles=3, compiled=False, **chosen)
        with np.load(autotts_data / "spec" / "expected" / f"Qwen3-1.7B_aime24_{method}.npz") as expected:
            assert (result.cost == expected["cost"][:3]).all()
            assert (result.answers == expected["answers"][:3]).all()


def test_a_published_file_gives_the_published_numbers(recordings: dict[str, Recording], autotts_data: Path) -> None:
    file = Path(__file__).resolve().parents[1] / "replay" / "published_cmc.py"
    result = replay(recordings["Qwen3-4B"], file, beta=0.5, shuffles=2, trust_remote_code=True)
    with np.load(autotts_data / "spec" / "expected" / "Qwen3-4B_aime24_cmc_b0.5.npz") as expected:
        assert (result.cost == expected["cost"][:2]).all()
        assert (result.answers == expected["answers"][:2]).all()


def test_a_published_file_may_count_in_numpy_and_ends_nobody_elses_process(tmp_path: Path) -> None:
    """Lists take an index of numpy's, and so did the published program: here it was out of range."""
    rows = [Trajectory("q", n, 0, 1, 30, "eos", "7", (10, 20), ("8", "7"), (1, 1), (None, None), ()) for n in range(2)]
    recording = Recording.of([Question("q", "", "7")], rows, 10)
    file = tmp_path / "m.py"
    for index, found in (("np.argmax([1, 0])", "7"), ("0.0", None), ("-1", None)):
        file.write_text(
            "import numpy as np\n\n\nclass M(LLMDesignedMethod):\n    def solve(self, question):\n"
            f"        question.probe_new()\n        return question.probe_more({index})[0]\n"
        )
        if found is None:
            with pytest.raises(ControllerError, match="Index out of range for branches"):
                replay(recording, load_published(file, 0.5), shuffles=0)
        else:
            assert replay(recording, load_published(file, 0.5), shuffles=0).answers.tolist() == [[found]]
    file.write_text("import sys\nsys.exit(3)\n")
    with pytest.raises(ControllerError, match="does not load: SystemExit: 3"):
        load_published(file, 0.5)
