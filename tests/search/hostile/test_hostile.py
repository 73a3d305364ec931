"""Every hostile controller is contained: as whoever runs the tests, as an ordinary user, with namespaces refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import circumstances
import pytest
from hostile_candidates import CANDIDATES, Hostile

from tts_generate.errors import CandidateError
from tts_generate.import_rules import check_source
from tts_generate.sandbox.attacks import MACHINE
from tts_generate.sandbox.process import bubblewrap_problem

CIRCUMSTANCES = ("as it is", "ordinary user", "namespaces refused")
OBVIOUS = (
    "os._exit(0)", "sys.exit", "os.system", "imports subprocess", "fork bomb", "null pointer", "spins in its error's text",
    "depends on chance", "depends on the clock", "looks for gold in frames", "execve by number", "a pickle",
)  # fmt: skip


def check(told: dict[str, Any]) -> None:
    assert [row for row in told["rows"] if not row["contained"]] == []
    assert told["contained"] == told["tried"] == sum(len(hostile.modes) for hostile in CANDIDATES)
    assert told["left"] == ["secret", "socket"]  # of the folder that attacks write to
    assert told["threads"] == told["children"] == 0
    assert told["descriptors"] < 24


@pytest.fixture(scope="module")
def runs() -> Iterator[dict[str, Future[dict[str, Any]]]]:
    with ThreadPoolExecutor() as pool:
        yield {name: pool.submit(circumstances.run, name) for name in CIRCUMSTANCES}


@pytest.mark.long
@pytest.mark.parametrize("name", CIRCUMSTANCES)
def test_all_are_contained(runs: dict[str, Future[dict[str, Any]]], name: str) -> None:
    try:
        told = runs[name].result()
    except circumstances.NotHere as error:
        pytest.skip(str(error))
    check(told)
    if name == "ordinary user":
        assert told["uid"] != 0
    if name == "namespaces refused":
        assert "no bubblewrap" in told["locks"]


@pytest.mark.skipif(bubblewrap_problem() is not None, reason=f"bubblewrap: {bubblewrap_problem()}")
def test_all_are_contained_in_bubblewrap() -> None:
    told = circumstances.run("as it is", "--bubblewrap")
    check(told)
    assert told["locks"].endswith("bubblewrap")


def test_the_list_is_whole() -> None:
    assert len(CANDIDATES) - len(MACHINE) >= 69


@pytest.mark.parametrize("hostile", [h for h in CANDIDATES if h.name in OBVIOUS], ids=lambda h: h.name)
def test_import_rules_say_early_what_is_wrong(hostile: Hostile) -> None:
    with pytest.raises(CandidateError, match=r"line \d+: a candidate may not") as caught:
        check_source(hostile.source)
    assert caught.value.reason == "rules"
    assert caught.value.line is not None
