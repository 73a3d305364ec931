"""Fixtures of the whole suite; nothing here reaches the network."""

from __future__ import annotations

import functools
import gc
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from tts_generate import equivalence

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

typer.testing._get_command = functools.cache(typer.testing._get_command)  # the app's commands, built once

ROOT = Path(__file__).resolve().parent.parent
KEPT_BY_OTHERS = ("/inspect_ai/traces/", "/matplotlib/mpl-data/fonts/")
"""Files that other libraries hold open as long as their process lives: Inspect's log, matplotlib's fonts."""


def pytest_collection_finish() -> None:
    """What was imported and collected lives as long as the process: no collection of garbage walks it again."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def left_behind(request: pytest.FixtureRequest) -> Iterator[None]:
    """Write what descriptors the session leaves open to `$TTS_LEFT_BEHIND`, if set (tools/suite_leaks.py)."""
    where = os.environ.get("TTS_LEFT_BEHIND")
    before = _descriptors() if where else {}
    yield
    equivalence.end()
    if "forked" in sys.modules:
        sys.modules["forked"].stop()
    if where:
        from tts_generate.sandbox import confined

        gc.collect()
        for kept in confined._sandbox:  # the one process for confined controllers, which ends with this one
            kept.close()
        left = [target for file, target in _descriptors().items() if before.get(file) != target]
        left = [target for target in left if not any(kept in target for kept in KEPT_BY_OTHERS)]
        told = {"tests": request.session.testscollected, "descriptors": left}
        Path(where).write_text(json.dumps(told), "utf-8")


def _descriptors() -> dict[str, str]:
    """Open descriptors and what they are; not that by which they are listed."""
    found = {}
    for file in os.listdir("/proc/self/fd"):
        try:
            found[file] = os.readlink(f"/proc/self/fd/{file}")
        except OSError:
            continue
    return found


@pytest.fixture(scope="session")
def autotts_data() -> Path:
    """The folder with the published tables (`replay/`) and their expected episodes (`spec/`); not ours to ship."""
    folder = Path(os.environ.get("AUTOTTS_DATA", ROOT.parent / "shared"))
    if not (folder / "replay").is_dir():
        pytest.skip(
            f"the published AutoTTS tables are not in {folder}; set AUTOTTS_DATA to the folder with replay/ and spec/"
        )
    return folder


@pytest.fixture(scope="session")
def tiny() -> tuple[Any, Any]:
    """The shipped tiny model and its tokenizer."""
    import torch

    from tts_generate.tiny import load

    torch.set_num_threads(1)
    return load()


@pytest.fixture(scope="session")
def tiny_recording(tiny: tuple[Any, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Five questions, 64 branches each, as the shipped model answers them."""
    from tts_generate import record
    from tts_generate.replay import Recording
    from tts_generate.tiny import questions

    return Recording.from_store(record(*tiny, questions("record")[:5], tmp_path_factory.mktemp("tiny") / "s"))
