"""Every shipped controller keeps the interface's promises; damaged folders and bad knobs get one clear error."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError, UnknownNameError, UntrustedCodeError
from tts_generate.loading import builtin_controllers, held_within, load_controller

FOLDERS = Path(__file__).resolve().parents[2] / "controllers"


@pytest.mark.parametrize("name", builtin_controllers())
class TestShipped:
    def test_every_knob_is_monotone_in_beta(self, name: str) -> None:
        rows = [load_controller(name, beta=beta).knobs for beta in np.linspace(0, 1, 101)]
        for knob in (name for name, value in rows[0].items() if not isinstance(value, str)):
            steps = np.diff([row[knob] for row in rows])
            assert (steps >= 0).all() or (steps <= 0).all(), knob

    def test_knobs_make_the_same_controller_again(self, name: str) -> None:
        controller = load_controller(name, beta=0.3)
        assert type(controller)(**controller.knobs).knobs == controller.knobs
        for twin in (copy.deepcopy(controller), pickle.loads(pickle.dumps(controller))):
            assert repr(twin) == repr(controller)

    def test_memory_is_fresh_for_each_episode(self, name: str) -> None:
        controller = load_controller(name)
        before = dict(vars(controller))
        one, two = controller.for_episode(8), controller.for_episode(8)
        for key, value in vars(one).items():
            if isinstance(value, np.ndarray):
                assert value is not vars(two)[key]
        assert vars(controller) == before

    def test_folder_is_complete_and_its_hash_right(self, name: str) -> None:
        card = json.loads((FOLDERS / name / "controller.json").read_text())
        code = (FOLDERS / card.get("builtin", name) / "controller.py").read_bytes()
        assert ("builtin" in card) != (FOLDERS / name / "controller.py").exists()
        assert card["sha256"] == hashlib.sha256(code).hexdigest()
        assert card["name"] == name
        assert (FOLDERS / name / "README.md").read_text().startswith("---\nlibrary_name: tts_generate")


def test_a_class_that_imports_the_controller_alone_is_saved_and_pushed(tmp_path: Path) -> None:
    """Its module stands below what saves and publishes, and names nothing of it; see `tts_generate.above`."""
    code = (
        "from tts_generate.controller import Controller\n"
        "class Alone(Controller):\n"
        "    'Opens one.'\n"
        "    width: int\n"
        "    @staticmethod\n"
        "    def schedule(beta): return {'width': 1 + round(beta)}\n"
        "    def begin(self, state, do): do.open = self.width\n"
    )
    (tmp_path / "alone.py").write_text(code)
    told = (
        "import sys; from alone import Alone; one = Alone.from_beta(0.5)\n"
        "assert not {'tts_generate.saving', 'tts_generate.loading', 'tts_generate.publish'} & set(sys.modules)\n"
        "print(one.save_pretrained('saved'))\n"
        "try: one.push_to_hub('no repo')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", told], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    saved, refused = done.stdout.splitlines()
    assert saved == "saved"
    assert refused.startswith("InputError 'no repo'")
    assert (tmp_path / "saved" / "controller.py").read_text() == code
    assert load_controller(tmp_path / "saved", trust_remote_code=True).knobs == {"width": 1}


class TestKnobs:
    @pytest.mark.parametrize("beta", [-0.01, 1.01, float("nan"), float("inf"), "high", [0.5]])
    def test_beta_is_from_0_to_1(self, beta: Any) -> None:
        with pytest.raises(InputError, match="beta must be a number from 0"):
            load_controller("cmc", beta=beta)

    def test_unknown_knob_is_guessed(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'max_samples'"):
            load_controller("asc", max_sample=3)

    @pytest.mark.parametrize("value", [2.5, "x", None, True, float("nan")])
    def test_wrong_type(self, value: Any) -> None:
        with pytest.raises(InputError, match="whole number"):
            load_controller("asc", max_samples=value)

    def test_numbers_of_numpy_and_numbers_beyond_floats(self) -> None:
        """The first were refused as no whole numbers, the others ended in an OverflowError."""
        held = load_controller("asc", max_samples=np.int64(3), threshold=np.float32(0.5)).knobs
        assert (held["max_samples"], held["threshold"]) == (3, 0.5)
        assert (type(held["max_samples"]), type(held["threshold"])) == (int, float)
        for wrong in ({"max_samples": 10**400}, {"threshold": 10**400}, {"beta": 10**400}, {"threshold": float("inf")}):
            with pytest.raises(InputError, match="must be a"):
                load_controller("asc", **wrong)

    def test_missing_knobs_are_named(self) -> None:
        kind = type(load_controller("asc"))
        with pytest.raises(InputError, match="missing: criterion, threshold"):
            kind(max_samples=3)

    def test_an_object_passes_through_or_takes_a_new_budget(self) -> None:
        controller = load_controller("asc", beta=0.0)
        assert load_controller(controller) is controller
        assert load_controller(controller, beta=1.0).knobs["max_samples"] == 64
        assert load_controller(
            type(controller)(max_samples=7, threshold=0.9, criterion="beta"), threshold=0.8
        ).knobs == {
            "max_samples": 7,
            "threshold": 0.8,
            "criterion": "beta",
        }

    def test_a_knob_set_by_hand_stays_when_another_is_set(self) -> None:
        """The bug: `serve --set threshold=0.9` held to fewer branches went back to the threshold of its beta."""
        controller = load_controller("asc", beta=1.0, threshold=0.9)
        other = {"max_samples": 16, "threshold": 0.9, "criterion": "beta"}
        assert load_controller(controller, max_samples=16).knobs == held_within(controller, 16).knobs == other
        assert load_controller(controller, beta=0.5).knobs == load_controller("asc", beta=0.5).knobs

    def test_not_a_controller_at_all(self) -> None:
        with pytest.raises(InputError, match="a name, a folder, a repo or a Controller"):
            load_controller(3)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return shutil.copytree(FOLDERS / "asc", tmp_path / "mine")


def edit(folder: Path, **fields: Any) -> None:
    card = json.loads((folder / "controller.json").read_text())
    (folder / "controller.json").write_text(json.dumps({**card, **fields}))


class TestFolders:
    def test_code_of_a_folder_needs_trust(self, folder: Path) -> None:
        with pytest.raises(UntrustedCodeError, match="trust_remote_code=True"):
            load_controller(folder)
        assert load_controller(folder, trust_remote_code=True).knobs == load_controller("asc").knobs

    def test_edited_code_is_refused(self, folder: Path) -> None:
        (folder / "controller.py").write_text("raise SystemExit('ran')\n")
        with pytest.raises(ControllerError, match="edited by hand or damaged"):
            load_controller(folder, trust_remote_code=True)

    @pytest.mark.parametrize(
        ("fields", "text"),
        [
            ({"format": "tts-controller/99"}, "tts-controller/99"),
            ({"entry": "../controller.py:ASC"}, "entry"),
            ({"entry": "gone.py:ASC"}, "entry"),
            ({"entry": "controller.py:Nobody"}, "Nobody"),
            ({"entry": "controller.py:TO_END"}, "TO_END"),
            ({"budget": 3}, "budget"),
        ],
    )
    def test_damaged_cards(self, folder: Path, fields: dict[str, Any], text: str) -> None:
        edit(folder, **fields)
        with pytest.raises((ControllerError, UnknownNameError), match=text):
            load_controller(folder, trust_remote_code=True)

    @pytest.mark.parametrize("content", ["{", "[]", "{}"])
    def test_cards_that_are_none(self, folder: Path, content: str) -> None:
        (folder / "controller.json").write_text(content)
        with pytest.raises(ControllerError, match="controller"):
            load_controller(folder, trust_remote_code=True)

    def test_unknown_name(self) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'self_consistency'"):
            load_controller("self_consistancy")


def test_a_knob_of_another_kind_is_the_authors_mistake() -> None:
    class Odd(Controller):
        name: str

        @staticmethod
        def schedule(beta: float) -> dict[str, float]:
            return {"name": beta}

    with pytest.raises(ControllerError, match="a knob is int, float, bool or a Literal"):
        Odd.from_beta(0.5)
