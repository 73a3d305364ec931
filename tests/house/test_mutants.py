"""Every safeguard that `tools/mutants.py` takes away is there, once, and so is the test that holds it."""

from __future__ import annotations

from pathlib import Path

import mutants
import pytest

ROOT = Path(__file__).resolve().parents[2]


def test_names_are_their_own() -> None:
    names = [mutant.name for mutant in mutants.MUTANTS]
    assert len(set(names)) == len(names) >= 30


@pytest.mark.parametrize("mutant", mutants.MUTANTS, ids=lambda mutant: mutant.name)
def test_it_is_there(mutant: mutants.Mutant) -> None:
    text = (ROOT / "src" / "tts_generate" / mutant.file).read_text("utf-8")
    assert text.count(mutant.before) == 1
    assert text.replace(mutant.before, mutant.after) != text
    file, _, name = mutant.test.partition("::")
    held = (ROOT / file).read_text("utf-8")
    for part in name.split("::") if name else ():
        assert f"def {part.partition('[')[0]}(" in held or f"class {part}:" in held
