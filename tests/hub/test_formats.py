"""What an earlier version wrote is read by this one: stored folders, one set for each version of the formats.

Nothing in `formats/` is ever edited; a new format gets a new folder beside it.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tts_generate.errors import ControllerError, UnknownNameError
from tts_generate.hub.lock import read_lock
from tts_generate.hub.source import read_folder
from tts_generate.loading import load_controller
from tts_generate.publish import evaluation_of, verify
from tts_generate.publish.contest import compare
from tts_generate.replay import replay

FORMATS = Path(__file__).parent / "formats"
EXPECTED = {
    (version.name, folder): found
    for version in sorted(FORMATS.iterdir())
    for folder, found in json.loads((version / "expected.json").read_text()).items()
}


@pytest.mark.parametrize(("version", "folder"), EXPECTED)
def test_a_folder_decides_as_it_did(version: str, folder: str, tmp_path: Path) -> None:
    store = shutil.copytree(FORMATS / version / "store", tmp_path / "store")
    for beta, expected in EXPECTED[version, folder].items():
        controller = load_controller(FORMATS / version / folder, beta=float(beta), trust_remote_code=True)
        found = replay(store, controller, shuffles=3)
        assert controller.knobs == expected["knobs"]
        assert found.answer_ids.tolist() == expected["answers"]
        assert found.cost.tolist() == expected["cost"]


def test_schedules_of_a_version_that_is_not_there_are_refused(tmp_path: Path) -> None:
    """Those of a family that went, or of an earlier version, run while that ships, as the table above says."""
    folder = shutil.copytree(FORMATS / "v1" / "run" / "best", tmp_path / "best")
    card = json.loads((folder / "controller.json").read_text())
    (folder / "controller.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    with pytest.raises(UnknownNameError, match="unknown controller 'composed'"):
        load_controller(folder)
    (folder / "controller.json").write_text(json.dumps({**card, "sha256": "0" * 64, "builtin": "worth"}))
    with pytest.raises(ControllerError, match=r"another version of worth .* was measured does not hold for it"):
        load_controller(folder)


@pytest.mark.parametrize("folder", ["code", "data", "published"])
def test_its_recipe_is_known(folder: str) -> None:
    assert verify(str(FORMATS / "v1" / folder)).card["format"] == "tts-controller/1"


def test_an_evaluation_can_be_compared_with() -> None:
    told = evaluation_of(read_folder(FORMATS / "v1" / "published"))
    assert told is not None
    verdict = compare(told, told)
    assert verdict is not None
    assert verdict.gain == pytest.approx(0)


def test_a_lock_file() -> None:
    files = read_folder(FORMATS / "v1" / "published").files
    assert read_lock(FORMATS / "v1" / "tts-controllers.lock")["user/few"].files == files
