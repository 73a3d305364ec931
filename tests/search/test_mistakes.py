"""A program writes controllers with the mistakes that models make: each is told at the call that made it."""

from __future__ import annotations

import itertools
import json
import re
import time
from pathlib import Path
from typing import Any

import pytest
from mistakes import MISTAKES, PLAIN
from scripted import program, told
from search_stores import FEW, make_store, setup
from typer.testing import CliRunner
from written_candidates import GOOD, name

from tts_generate.cli import app
from tts_generate.errors import InputError, ServerError
from tts_generate.sandbox import Sandbox
from tts_generate.search import Fidelity, Search
from tts_generate.search.agent import Agent, prompts
from tts_generate.search.history import read_archive
from tts_generate.search.written import scan

pytest.importorskip("numba")
EXAMPLE = re.findall(r"```python\n(.*?)```", prompts.read("interface"), re.DOTALL)[0]
COMPILED: dict[str, Any] = {"rungs": (Fidelity((0.0, 1.0), 1, 1_000), Fidelity((0.0, 0.5, 1.0), 42, 2_000))}
"""So close that candidates are compiled."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("stores") / "store")


@pytest.mark.long
def test_every_mistake_is_told_at_the_call_that_made_it(box: Sandbox, store: Path, tmp_path: Path) -> None:
    """In one message that says what to do; and who reads the page writes what passes."""
    assert len(MISTAKES) >= 30
    turns = [[["write_controller", {"code": code, "idea": what}]] for what, (code, _) in MISTAKES.items()]
    turns += [
        [["write_controller", {"code": EXAMPLE, "idea": "as on the page"}]],
        [["replay", {"candidate": name(EXAMPLE)}]],
    ]
    agent = Agent(program=program(tmp_path, turns), calls=len(turns) + 1)
    said = [(time.monotonic(), "")]
    search = Search(setup(store, share=0.0, **COMPILED), agent, box)
    result = search.run(
        tmp_path / "run", minutes=10, max_rounds=1, threads=1, say=lambda line: said.append((time.monotonic(), line))
    )
    answers = told(tmp_path)
    for (what, (_, part)), block in zip(MISTAKES.items(), answers, strict=False):
        assert block.get("is_error"), (what, block)
        assert part in str(block["content"]), (what, block)
    assert "In the archive" in str(answers[-2]["content"])
    assert "came out the same in strict mode" in str(answers[-1]["content"])
    assert max(after - before for (before, _), (after, _) in itertools.pairwise(said)) < 60
    archive = read_archive(tmp_path / "run")
    assert list(archive.written) == [name(EXAMPLE)]
    last = archive.last(name(EXAMPLE))
    assert last is not None
    assert (last.rung, last.warned) == (1, ())
    assert result["usd"] == 0.0
    card = json.loads((tmp_path / "run" / "best" / "controller.json").read_text())
    assert card["provenance"]["proposer"] == "command"


RANGED = PLAIN.replace("import math", "import math\nfrom tts_generate.schedule import Range").replace(
    "    width: int", '    ranges = {"width": Range(2, 24, "log"), "bar": Range(0.1, 0.9)}\n    width: int', 1
)


class TestScan:
    @pytest.mark.long
    def test_numbers_are_fitted_and_become_a_candidate(
        self, box: Sandbox, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """By replay alone, from one branch for every budget to what the ranges allow."""
        monkeypatch.setattr(scan, "SECONDS", 4.0)
        poor = RANGED.replace("2 + round(14 * beta)", "2")
        turns = [
            [["write_controller", {"code": poor, "idea": "Two."}]],
            [["scan_knobs", {"candidate": name(poor)}], ["read_history", {}]],
            [["scan_knobs", {"candidate": name(poor)}]],
        ]
        rungs = {"rungs": (Fidelity((0.0, 1.0), 1, 1_000), Fidelity((0.0, 0.5, 1.0), 2, 2_000))}
        agent = Agent(program=program(tmp_path, turns))
        search = Search(setup(store, share=0.0, **rungs), agent, box)
        search.run(tmp_path / "run", minutes=10, max_rounds=1, threads=1)
        _, found, _, again = (str(block["content"]) for block in told(tmp_path))
        tried, score, before = re.findall(r"a scan of (\d+) schedules: score (\S+) at rung 2, (\S+) before", found)[0]
        assert int(tried) > 5
        assert float(score) > float(before)
        (first, new) = read_archive(tmp_path / "run").written.values()
        assert (new.candidate.parent, new.kind) == (first.candidate.name, "TriedFitted")
        assert new.candidate.code.startswith(poor.rstrip())
        assert 2 <= new.knobs["0"]["width"] <= new.knobs["1"]["width"] <= 24 or new.knobs["0"]["width"] > 2
        assert f"in the archive already, as {new.candidate.name}" in again

    @pytest.mark.long
    def test_what_cannot_be_scanned(self, box: Sandbox, store: Path, tmp_path: Path) -> None:
        wrong = {
            "": "declares no ranges",
            '{"depth": Range(1, 2)}': "names depth, which is no knob",
            '{"width": Range(9, 2)}': "the range of width must rise",
            '{"width": 3}': "asdict",
            '{"width": Range(float("nan"), 3)}': "Out of range float",
        }
        turns = []
        for ranges in wrong:
            code = re.sub(r"    ranges = .*\n", f"    ranges = {ranges}\n" if ranges else "", RANGED)
            turns += [[["write_controller", {"code": code, "idea": ""}], ["scan_knobs", {"candidate": name(code)}]]]
        agent = Agent(program=program(tmp_path, turns))
        once = Fidelity((0.5,), 1, 1_000)
        looks: dict[str, Any] = {"rungs": (once,), "select": once, "fresh": once}
        Search(setup(store, share=0.0, **looks), agent, box).run(tmp_path / "run", minutes=10, max_rounds=1, threads=1)
        blocks = told(tmp_path)
        for text, block in zip(wrong.values(), blocks[1::2], strict=True):
            assert block["is_error"]
            assert text in str(block["content"])


class TestProgram:
    def test_from_the_command_line(self, store: Path, tmp_path: Path) -> None:
        options = ["--out", str(tmp_path / "run"), "--proposer", "command", "--program", "true"]
        done = CliRunner().invoke(app, ["search", str(store), *options])
        assert "answers come from 'true', and nothing is charged." in done.output
        assert "the program has ended, which ends the search." in done.output
        assert "found no candidate" in done.output
        settings = json.loads((tmp_path / "run" / "search.json").read_text())
        assert (settings["proposer"], settings["model"]) == ("command", "true")

    def test_its_end_ends_the_search(self, box: Sandbox, store: Path, tmp_path: Path) -> None:
        said: list[str] = []
        agent = Agent(program=program(tmp_path, [[["write_controller", {"code": GOOD, "idea": ""}]]]))
        Search(setup(store), agent, box).run(tmp_path / "run", minutes=10, threads=1, say=said.append)
        assert said[-1] == "the program has ended, which ends the search."
        assert read_archive(tmp_path / "run").failures == []

    @pytest.mark.parametrize(
        ("command", "text"),
        [
            ("printf 'well\\n'", "something that is no message"),
            ('printf \'{"content": [{"type": "image"}]}\\n\'', "a block is a text or a tool_use"),
            ("false", "ended with exit code 1"),
        ],
    )
    def test_what_it_does_wrong(self, box: Sandbox, store: Path, tmp_path: Path, command: str, text: str) -> None:
        with pytest.raises(ServerError, match=text):
            Search(setup(store), Agent(program=command), box).run(tmp_path / "run", minutes=10)

    def test_options(self, store: Path, tmp_path: Path) -> None:
        run_of = ["search", str(store), "--out", str(tmp_path / "run")]
        for options, text in (
            (["--proposer", "command"], "name it by --program"),
            (["--proposer", "command", "--program", "no-such-program"], "cannot be started"),
            (["--proposer", "command", "--program", "x", "--model", "y"], "--model is for --proposer anthropic"),
            (["--program", "x"], "--program is for --proposer command"),
            (["--conversation", str(tmp_path), "--model", "y"], "--model is for another search"),
            (["--conversation", str(tmp_path)], "not the folder of a search"),
        ):
            done = CliRunner().invoke(app, [*run_of, *options])
            assert done.exit_code == 1
            assert text in done.output, done.output
        with pytest.raises(InputError, match="an empty one"):
            Agent(program=" ")


def test_a_program_keeps_its_secrets_and_is_gone_through_again_to_its_end(
    box: Sandbox, store: Path, tmp_path: Path
) -> None:
    """The bugs: a password in its command was stored and published; on file, a round ended after 16 requests."""
    turns = [[["read_history", {}]]] * 17
    turns += [[["write_controller", {"code": GOOD, "idea": "good"}]], [["replay", {"candidate": name(GOOD)}]]]
    agent = Agent(program=f"{program(tmp_path, turns)} http://me:of-mine@host/v1", calls=30)
    looks: dict[str, Any] = {"rungs": (Fidelity((0.0, 1.0), 1, 1_000),), "select": FEW["select"], "fresh": FEW["fresh"]}
    how: dict[str, Any] = {"minutes": 10, "max_rounds": 1, "threads": 1}
    command = "tts-generate search --program 'ask http://me:of-mine@host'"
    first = Search(setup(store, **looks), agent, box).run(tmp_path / "run", command=command, **how)
    stored = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    assert b"of-mine" not in stored
    assert stored.count(b"http://<secret>@host") >= 3
    again = Search(setup(store, **looks), Agent.of(tmp_path / "run"), box).run(tmp_path / "again", **how)
    assert again["candidate"]["code"] == first["candidate"]["code"] == GOOD
    assert not (tmp_path / "again" / ".paid.journal.tmp").exists()
