"""Every package that the project needs is pinned, and the SBOM lists what is pinned."""

from __future__ import annotations

import json
from importlib import metadata
from pathlib import Path

import pytest
import supply_chain

ROOT = Path(__file__).resolve().parents[2]


def test_every_package_that_is_needed_is_pinned() -> None:
    extras = tuple(metadata.metadata("tts-generate").get_all("Provides-Extra") or ())
    pinned = supply_chain.pins(ROOT / "constraints.txt")
    other = [line for line in supply_chain.problems(pinned, complete=False) if "is installed as" in line]
    if other:
        pytest.skip(f"this environment is not the pinned one: {other[0]}")
    assert {"torch", "transformers", "pydantic", "urllib3"} <= supply_chain.needed("tts-generate", extras) | {"torch"}
    assert supply_chain.needed("tts-generate", extras) - set(pinned) == set()


def test_another_version_and_a_missing_package_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "constraints.txt"
    text = (ROOT / "constraints.txt").read_text("utf-8").replace("numpy==", "numpy==0.")
    path.write_text(text + "no-such-package==1.0\n")
    out = tmp_path / "sbom.json"
    assert supply_chain.main([str(out), "--constraints", str(path), "--complete"]) == 1
    said = capsys.readouterr().out
    assert f"numpy is installed as {metadata.version('numpy')}; pinned is 0.{metadata.version('numpy')}" in said
    assert "no-such-package is not installed; pinned is 1.0" in said


def test_the_sbom_is_the_pins_and_always_the_same() -> None:
    pinned = supply_chain.pins(ROOT / "constraints.txt")
    made = supply_chain.sbom(pinned)
    assert {row["name"]: row["version"] for row in made["components"]} == pinned
    assert made["components"][0]["purl"].startswith("pkg:pypi/")
    assert json.dumps(made) == json.dumps(supply_chain.sbom(pinned))


def test_a_line_that_pins_nothing(tmp_path: Path) -> None:
    (tmp_path / "c.txt").write_text("# pins\nnumpy==2.0\nscipy>=1.0\n")
    with pytest.raises(ValueError, match=r"line 3: 'scipy>=1\.0' pins nothing"):
        supply_chain.pins(tmp_path / "c.txt")


def test_every_pin_has_its_hashes(tmp_path: Path) -> None:
    pinned = supply_chain.pins(ROOT / "constraints.txt")
    assert supply_chain.unhashed(pinned, ROOT / "requirements.lock") == []
    found = supply_chain.unhashed({**pinned, "numpy": "0.1"}, ROOT / "requirements.lock")
    assert found[0] == "numpy==0.1 has no hash in requirements.lock"
    assert found[1:] == [f"numpy=={pinned['numpy']} in requirements.lock is no pin"]
    (tmp_path / "r.lock").write_text("numpy==2.0\n")
    assert supply_chain.unhashed({"numpy": "2.0"}, tmp_path / "r.lock") == ["numpy==2.0 has no hash in r.lock"]
    (tmp_path / "r.lock").write_text("numpy>=2.0\n")
    with pytest.raises(ValueError, match=r"line 1: 'numpy>=2\.0' is neither"):
        supply_chain.hashes(tmp_path / "r.lock")
