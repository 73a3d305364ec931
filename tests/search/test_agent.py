"""An agent's search against a server on this machine: what it finds, what goes wrong, and what it pays."""

from __future__ import annotations

import copy
import functools
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from messages_server import KEY, Fault, MessagesServer, Reply, Script, by_place, said, script
from search_stores import make_store, setup
from typer.testing import CliRunner
from written_candidates import BESIDE, BETTER, BROKEN, CONSTANT, GOOD, HOSTILE, REMEMBERS, name

from tts_generate.cli import app
from tts_generate.errors import InputError, ServerError, StoreError, UnknownNameError, UntrustedCodeError
from tts_generate.loading import load_controller
from tts_generate.replay import replay
from tts_generate.sandbox import Limits, Sandbox
from tts_generate.search import Fidelity, Search, Setup, write_report
from tts_generate.search.agent import Agent, ledger, prompts
from tts_generate.search.agent.ledger import JOURNAL, Ledger, read_paid
from tts_generate.search.agent.prices import price_of
from tts_generate.search.history import History, read_archive
from tts_generate.search.written.conformance import examine
from tts_generate.search.written.workbench import Workbench
from tts_generate.trajectories.journal import read_journal

pytest.importorskip("numba")
FIRST = [
    Reply(
        "Let me see what there is.",
        [("read_history", {}), *[("read_controller", {"name": one}) for one in ("asc", "thrift")]],
    ),
    Reply("", [("write_controller", {"code": GOOD, "idea": "One by one: [b]cheap[/b]."})]),
    Reply("", [("replay", {"candidate": name(GOOD)})]),
    Reply("", [("read_trace", {"candidate": name(GOOD), "episode": 1})]),
    Reply("", [("write_controller", {"code": BETTER, "idea": "More of them.", "parent": name(GOOD)})]),
    Reply("", [("replay", {"candidate": name(BETTER)}), ("compare", {"one": name(GOOD), "other": name(BETTER)})]),
    Reply("More branches pay."),
]
SECOND = [
    Reply("", [("write_controller", {"code": BROKEN["no budget"][0], "idea": "Up and down."})]),
    Reply("", [("read_history", {"count": 5}), ("read_controller", {"name": name(GOOD)})]),
    Reply("I see."),
]
CHEATS = [
    Reply("", [("write_controller", {"code": REMEMBERS, "idea": "Counts."})]),
    Reply(
        "", [("replay", {"candidate": name(REMEMBERS)}), ("read_trace", {"candidate": name(REMEMBERS), "episode": 1})]
    ),
    *FIRST[1:3],
]
TALK: Script = by_place(FIRST, SECOND)
BRIEFLY: dict[str, Any] = {
    "rungs": (Fidelity((0.0, 1.0), 1, 1_000), Fidelity((0.0, 0.5, 1.0), 1, 2_000)),
    "select": Fidelity((0.0, 0.5, 1.0), 1, 5_000),
    "fresh": Fidelity((0.0, 0.5, 1.0), 2, 0),
}


@pytest.fixture(scope="module")
def box(box: Sandbox) -> Sandbox:
    """The same processes, which end candidates sooner."""
    sooner = copy.copy(box)
    sooner.limits = Limits(seconds=60, cpu_seconds=5)
    return sooner


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    return [make_store(folder / f"model{n}", seed=n) for n in range(2)]


Run = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module")
def run(box: Sandbox, stores: list[Path]) -> Run:
    """Runs a search against a script, of one store if no others are given; what it said goes into `told`."""

    def searched(turns: Script | MessagesServer, out: Path, rounds: int = 1, **options: Any) -> dict[str, Any]:
        told, where = options.pop("told", []), options.pop("where", stores[:1])
        if isinstance(turns, MessagesServer):
            agent = Agent(**{"max_cost_usd": 5.0, **options})
            with pytest.MonkeyPatch.context() as environment:
                environment.setenv("ANTHROPIC_BASE_URL", turns.url)
                environment.setenv("ANTHROPIC_API_KEY", KEY)
                chosen = Search(setup(*where, **BRIEFLY), agent, box)
                return chosen.run(out, minutes=10, max_rounds=rounds, threads=1, say=told.append)
        with MessagesServer(turns) as server:
            return searched(server, out, rounds, told=told, where=where, **options)

    return searched


@pytest.fixture(scope="module")
def finished(run: Run, stores: list[Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, MessagesServer]:
    """A search of two rounds over two stores, and the server that it spoke to."""
    out = tmp_path_factory.mktemp("agent") / "run"
    with MessagesServer(TALK) as server:
        run(server, out, 2, where=stores)
    write_report(out)
    return out, server


class TestFinished:
    @pytest.mark.long
    def test_the_best_is_a_folder_that_works_once_it_is_trusted(self, finished: Any, stores: list[Path]) -> None:
        out, _ = finished
        result = json.loads((out / "result.json").read_text())
        with pytest.raises(UntrustedCodeError):
            load_controller(out / "best", beta=0.5)
        found = [replay(store, out / "best", beta=0.5, shuffles=2, trust_remote_code=True) for store in stores]
        assert result["fresh"]["curve"]["accuracy"][1] == pytest.approx(
            sum(100 * one.accuracy for one in found) / len(found)
        )
        assert result["fresh"]["curve"]["tokens"][1] == pytest.approx(sum(one.tokens for one in found) / len(found))
        card = json.loads((out / "best" / "controller.json").read_text())
        assert card["provenance"]["proposer"] == "anthropic"
        assert result["candidate"]["name"] in (name(GOOD), name(BETTER))

    @pytest.mark.long
    def test_the_api_was_spoken_to_as_it_wants(self, finished: Any) -> None:
        _, server = finished
        assert server.problems == []
        assert server.replies == len(FIRST) + len(SECOND)
        first = server.requests[0]
        assert [tool["name"] for tool in first["tools"]] == [
            "read_history", "read_controller", "write_controller", "replay", "compare", "scan_knobs",
            "read_trace",
        ]  # fmt: skip
        assert first["tools"][2]["input_schema"]["required"] == ["code", "idea"]
        assert "$" not in first["system"].replace("$OUT", "")
        assert "beta" in first["system"]

    def test_the_tools_answer(self, finished: Any) -> None:
        _, server = finished
        told = [said(body) for body in server.requests if len(body["messages"]) > 1]
        assert "nothing was measured yet" in told[0]
        assert "class ASC(Controller)" in told[0]
        assert "class Worth(Controller)" in told[0]  # whose knobs `thrift` sets
        assert '"width": 9' in told[1]
        assert "Telling episodes" in told[2]
        assert "random episodes came out the same in strict mode" in told[2]
        assert "of the gain" in told[2]
        assert "the reference at beta" in told[3]
        assert "* marks the right one" in told[3]
        assert "round 0: opens 2" in told[3]
        assert f"beside {name(GOOD)}, the best of the others at this rung" in told[5]
        assert told[5].index("Where they differ most") < told[5].index("+++")
        assert "rises and falls with beta" in told[6]
        opened = server.requests[len(FIRST)]["messages"][0]["content"]
        assert f"{name(BETTER)} (round 1, from {name(GOOD)})" in opened
        assert "This is round 2." in opened

    def test_the_archive_holds_code_lineage_cost_and_seed(self, finished: Any) -> None:
        out, server = finished
        archive = read_archive(out)
        assert list(archive.written) == [name(GOOD), name(BETTER)]
        entry = archive.written[name(BETTER)]
        assert entry.candidate.code == BETTER
        assert (entry.kind, entry.round, entry.seed) == ("OneMore", 0, 0)
        assert [one.candidate.name for one in archive.lineage(name(BETTER))] == [name(GOOD), name(BETTER)]
        found = archive.last(name(GOOD))
        assert found is not None
        assert found.interval is not None
        assert found.interval[0] <= found.mean <= found.interval[1]
        assert found.confirmed is not None
        questions = json.loads((out / "result.json").read_text())["proposed"]["questions"]
        assert found.confirmed["episodes"] == 3 * questions < Workbench.confirms  # all that there were
        calls, spent = read_paid(out)
        assert calls == server.replies
        entries = sum(one.usd for one in archive.written.values()) + sum(one.usd for one in archive.failures)
        assert 0 < entries < spent
        listed = CliRunner().invoke(app, ["history", str(out)]).output
        assert "rises and falls with beta" in listed

    def test_transcripts_are_whole(self, finished: Any) -> None:
        out, server = finished
        one, two = (json.loads(path.read_text()) for path in sorted((out / "transcripts").iterdir()))
        assert [turn["reply"]["id"] for turn in one["turns"]] == [f"msg_{n + 1}" for n in range(len(FIRST))]
        sent = [message for turn in one["turns"] for message in turn["sent"]]
        assert sent == server.requests[len(FIRST) - 1]["messages"]
        assert one["usd"] + two["usd"] == pytest.approx(read_paid(out)[1])
        assert one["system"] == server.requests[0]["system"]

    def test_report_and_history_show_the_code(self, finished: Any, tmp_path: Path) -> None:
        out, _ = finished
        page = (out / "report.html").read_text()
        result = json.loads((out / "result.json").read_text())
        assert "class One" in page
        assert "trust_remote_code=True" in page
        assert result["candidate"]["name"] in page
        shown = CliRunner().invoke(app, ["history", str(out), "--show", name(BETTER)]).output
        assert "One by one: [b]cheap[/b]." in shown
        assert "class OneMore(Controller)" in shown
        names = f"{name(GOOD)},{name(BETTER)}"
        assert "-class OneByOne" in CliRunner().invoke(app, ["history", str(out), "--diff", names]).output
        done = CliRunner().invoke(app, ["history", str(out), "--plot", str(tmp_path / "best.svg")])
        assert done.exit_code == 0
        assert (tmp_path / "best.svg").is_file()
        assert CliRunner().invoke(app, ["history", str(out), "--show", "nobody"]).exit_code == 1

    def test_going_on_with_a_finished_search_pays_nothing(
        self, finished: Any, run: Run, stores: list[Path], tmp_path: Path
    ) -> None:
        out = shutil.copytree(finished[0], tmp_path / "run")
        with MessagesServer(TALK) as server:
            again = run(server, out, 2, where=stores)
        assert server.requests == []
        assert again["candidate"] == json.loads((finished[0] / "result.json").read_text())["candidate"]


def test_a_cheat_is_disqualified_and_the_history_says_so(run: Run, tmp_path: Path) -> None:
    """It passes every check on random recordings, and remembers other episodes on the real ones."""
    out = tmp_path / "run"
    with MessagesServer(by_place(CHEATS)) as server:
        result = run(server, out)
    evaluation = read_archive(out).last(name(REMEMBERS))
    assert evaluation is not None
    assert evaluation.problem is not None
    assert evaluation.problem.startswith("disqualified: in ")
    replayed, traced = (str(block["content"]) for block in server.requests[2]["messages"][-1]["content"])
    assert "disqualified: in " in replayed
    assert "0 telling episodes" in traced
    assert result["candidate"]["name"] == name(GOOD)
    assert f"{name(REMEMBERS)}: disqualified" in CliRunner().invoke(app, ["history", str(out)]).output


def test_who_cheats_in_the_last_look_is_not_chosen(run: Run, tmp_path: Path) -> None:
    """It is honest on the rungs, and wherever an episode is alone in its process."""
    out = tmp_path / "run"
    late = [
        Reply("", [("write_controller", {"code": BESIDE, "idea": "beside"})]),
        Reply("", [("replay", {"candidate": name(BESIDE)})]),
    ]
    with MessagesServer(by_place(late)) as server, pytest.raises(InputError, match="found no candidate"):
        run(server, out)
    assert "came out the same in strict mode" in said(server.requests[-1])
    evaluation = read_archive(out).last(name(BESIDE))
    assert evaluation is not None
    assert evaluation.problem is not None
    assert evaluation.problem.startswith("disqualified at the end: in ")
    assert not (out / "best").exists()
    result = run(by_place(late, FIRST[1:3]), out, 2)
    assert result["candidate"]["name"] == name(GOOD)


@pytest.mark.long
def test_bad_code_is_answered_and_what_is_hostile_is_contained(run: Run, tmp_path: Path) -> None:
    tried = [*BROKEN.items(), *HOSTILE.items()]
    turns = [Reply("", [("write_controller", {"code": code, "idea": what})]) for what, (code, _) in tried]
    good = Reply("", [("write_controller", {"code": GOOD, "idea": "At last."})])
    with MessagesServer(by_place([*turns, good])) as server:
        run(server, tmp_path / "run", calls=40)
    for (what, (_, text)), body in zip(tried, server.requests[1:], strict=False):
        block = body["messages"][-1]["content"][0]
        if what != "it stalls":
            assert block.get("is_error"), (what, block)
        assert text in str(block["content"]), (what, block)
    archive = read_archive(tmp_path / "run")
    assert {name(GOOD)} <= set(archive.written) <= {name(GOOD), name(BROKEN["it stalls"][0])}
    failed = {failure.code for failure in archive.failures}
    kept = [code for code, _ in HOSTILE.values()]
    assert set(kept) <= failed


def test_the_example_that_the_model_is_shown_passes(box: Sandbox) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", prompts.read("interface"), re.DOTALL)
    assert examine(box, code).knobs["0.5"] == {"width": 18, "share": 0.7, "patience": 4}
    for beta in (True, False):
        assert "$" not in prompts.system("cmc", "tokens", beta=beta, traces=beta)


@given(
    st.integers(0, 200_000), st.integers(0, 200_000), st.integers(0, 200_000), st.integers(0, 200_000),
    st.sampled_from(["claude-haiku-5-5", "claude-sonnet-5-5", "claude-opus-5-5"]), st.integers(0, 50_000),
)  # fmt: skip
def test_a_call_never_costs_more_than_its_most(
    fresh: int, read: int, written: int, output: int, model: str, more: int
) -> None:
    usage = {"input_tokens": fresh, "output_tokens": output}
    usage |= {"cache_read_input_tokens": read, "cache_creation_input_tokens": written, "inference_geo": "us"}
    price = price_of(model)
    assert price.of(usage) <= price.at_most(fresh + read + written + more, output) + 1e-12


def test_a_round_has_as_many_requests_as_it_may(run: Run, tmp_path: Path) -> None:
    with MessagesServer(TALK) as server:
        run(server, tmp_path / "run", calls=3)
    assert len(server.requests) == server.replies == 3


def test_the_page_says_what_runs(tmp_path: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "search-agent.md").read_text("utf-8")
    (table,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    (tmp_path / "prices.json").write_text(table)
    assert price_of("claude-sonnet-5-5", tmp_path / "prices.json").date == "2026-11-25"
    for code in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(code, {})


def test_a_long_prompt_is_in_the_dearer_tier() -> None:
    price = price_of("claude-haiku-5-5")
    usage = {"input_tokens": 60_000, "cache_read_input_tokens": 40_000, "output_tokens": 1_000}
    assert price.of(usage) == pytest.approx((60_000 * 0.1 + 40_000 * 0.01 + 1_000 * 0.5) / 1e6)
    assert price.of({**usage, "input_tokens": 60_001}) == pytest.approx(
        (60_001 * 0.5 + 40_000 * 0.05 + 1_000 * 2.5) / 1e6
    )


def test_the_best_answers_live(finished: Any, tiny: tuple[Any, Any]) -> None:
    import tts_generate

    model, tokenizer = tiny
    tts_generate.enable(model, tokenizer=tokenizer)
    inputs = tokenizer("Q: a = 6 ; b = a * 3 ; b ? <think>", return_tensors="pt")
    how = {"strategy": "autotts", "controller": str(finished[0] / "best"), "trust_remote_code": True, "beta": 0.0}
    output = model.generate(**inputs, **how, seed=0, return_dict_in_generate=True)
    assert output.answers[0] is not None
    assert output.trace[0].controller["controller"].startswith("One")


def test_wrong_calls_are_answers(run: Run, tmp_path: Path) -> None:
    """What the model asks for wrongly it is told; the round goes on."""
    wrong = [
        ("no_such_tool", {}), ("replay", {"name": "x"}), ("replay", {"candidate": "x"}), ("compare", {"one": "x"}),
        ("read_controller", {"name": "amc"}), ("read_trace", {"candidate": name(GOOD), "episode": 1}),
        ("write_controller", {"code": GOOD, "idea": "again"}),
        ("write_controller", {"code": BETTER, "idea": "", "parent": "nobody"}), ("read_history", {"count": "many"}),
    ]  # fmt: skip
    first = Reply("", [("write_controller", {"code": GOOD, "idea": "one"})])
    with MessagesServer(by_place([first, Reply("", wrong)])) as server:
        run(server, tmp_path / "run")
    blocks = server.requests[-1]["messages"][-1]["content"]
    assert all(block["is_error"] for block in blocks)
    told = [str(block["content"]) for block in blocks]
    for text, part in zip(
        told,
        ["not found", "Missing required argument", "unknown candidate 'x'", "Missing required", "did you mean 'cmc'",
         "0 telling episodes", "in the archive already", "unknown parent", "valid integer"],
        strict=True,
    ):  # fmt: skip
        assert part in text
    assert server.problems == []


class TestRoundsThatComeToNothing:
    def test_the_next_round_is_told(self, run: Run, tmp_path: Path) -> None:
        write = Reply("", [("write_controller", {"code": GOOD, "idea": "one"})])
        rounds = ([Reply("no.", stop="refusal")], [Reply("")], [Reply("x", stop="max_tokens")], [write])
        with MessagesServer(by_place(*rounds[:2], rounds[3], rounds[2])) as server:
            run(server, tmp_path / "run", 5)
        openings = [body["messages"][0]["content"] for body in server.requests if len(body["messages"]) == 1]
        assert "refused to go on" in openings[1]
        assert "answered with nothing" in openings[2]
        assert "failed" not in openings[3]
        assert "cut at 16000 tokens" in openings[4]

    def test_three_of_them_end_the_search(self, run: Run, tmp_path: Path) -> None:
        told: list[str] = []
        with MessagesServer(by_place([Reply("", [("write_controller", {"code": GOOD, "idea": ""})])])) as server:
            run(server, tmp_path / "run", 9, told=told)
        assert "3 rounds in succession came to nothing" in told[-1]
        assert server.replies == 2 + 3
        with pytest.raises(InputError, match=r"3 rounds came to nothing, the last one so: the model refused"):
            run(by_place(end=Reply("no", stop="refusal")), tmp_path / "other", 9)


class TestFaults:
    def test_limits_and_errors_of_the_server_are_waited_out(self, run: Run, tmp_path: Path) -> None:
        faults = [Fault(cut=True), Fault(429), Fault(500), Fault(529), Fault(503)]
        turns = script(*faults, FIRST[1], Fault(529), *FIRST[2:])
        with MessagesServer(turns) as server:
            run(server, tmp_path / "run")
        assert server.problems == []
        rows = [row for rows, _, _ in read_journal(tmp_path / "run" / JOURNAL) for row in rows]
        why = [(row["why"], row["usd"]) for row in rows if row["kind"] == "none"]
        assert [text[:8] for text, _ in why] == ["RemotePr", "HTTP 429", "HTTP 500", "HTTP 529", "HTTP 503", "HTTP 529"]
        assert [usd > 0 for _, usd in why] == [True, False, False, False, False, False]  # the cut one may be charged
        paid = sum(row["usd"] for row in rows if row["kind"] == "reply")
        assert read_paid(tmp_path / "run") == (server.replies, pytest.approx(paid + why[0][1]))

    def test_a_server_that_stays_away_ends_it_and_nothing_paid_for_is_lost(self, run: Run, tmp_path: Path) -> None:
        turns = script(*FIRST[1:3], *[Fault(529)] * 3)
        with pytest.raises(ServerError, match=r"HTTP 529 .*run the same command again"):
            run(turns, tmp_path / "run", retries=2)
        with MessagesServer(TALK_FROM_SECOND) as server:
            run(server, tmp_path / "run")
        assert [len(body["messages"]) for body in server.requests] == [5, 7]
        assert server.problems == []

    @pytest.mark.parametrize("body", ["<html>gateway</html>", '{"type": "message"}', '{"usage": 3}', "[]"])
    def test_what_is_no_message_is_said_and_counted(self, body: str, run: Run, tmp_path: Path) -> None:
        with pytest.raises(ServerError, match="something that is no message"):
            run(script(Fault(200, body)), tmp_path / "run")
        assert read_paid(tmp_path / "run")[1] > 0.1

    def test_nobody_listens(self, run: Run, tmp_path: Path) -> None:
        with MessagesServer(TALK) as server:
            pass
        with pytest.raises(ServerError, match="cannot be reached"):
            run(server, tmp_path / "run", retries=0)
        assert read_paid(tmp_path / "run") == (0, 0.0)

    def test_a_full_disk_ends_it_and_is_not_told_to_the_model(self, run: Run, tmp_path: Path) -> None:
        before = resource.getrlimit(resource.RLIMIT_FSIZE)
        held = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        with MessagesServer(TALK) as server:
            try:
                resource.setrlimit(resource.RLIMIT_FSIZE, (24_000, before[1]))
                with pytest.raises(StoreError, match="cannot write"):
                    run(server, tmp_path / "run")
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                signal.signal(signal.SIGXFSZ, held)
            first = server.replies
            run(server, tmp_path / "run")
        assert 0 < first < len(FIRST)
        assert server.problems == []
        assert server.replies <= len(FIRST) + 1  # the one that could not be written is asked for again


TALK_FROM_SECOND: Script = by_place([*FIRST[1:3], Reply("", [("read_history", {})]), Reply("Done.")])


class TestBudget:
    def test_it_stops_before_it_is_passed(self, run: Run, tmp_path: Path) -> None:
        told: list[str] = []
        dear = [Reply(turn.text, turn.calls, output_tokens=9_000) for turn in FIRST]
        with MessagesServer(by_place(dear, dear, end=Reply("x", output_tokens=9_000))) as server:
            result = run(server, tmp_path / "run", 9, max_cost_usd=0.75, told=told)
        calls, spent = read_paid(tmp_path / "run")
        assert 0.45 < spent <= 0.75
        assert calls == server.replies
        assert result["usd"] == spent
        assert result["candidate"]["name"] in (name(GOOD), name(BETTER))
        assert "affords 1 more" in told[1]
        assert told[2].startswith("round 1, $0.1")
        assert "read_history: (nothing was measured yet)" in told[2]
        assert "prices of" in told[1]

    def test_every_request_fits_into_what_is_left(self, run: Run, tmp_path: Path) -> None:
        """Whatever the replies cost, within what was announced."""
        dear = [Reply(turn.text, turn.calls, output_tokens=2_000) for turn in FIRST]
        run(by_place(dear, SECOND), tmp_path / "run", 2)
        rows = [row for rows, _, _ in read_journal(tmp_path / "run" / JOURNAL) for row in rows]
        for asked, reply in zip(rows[::2], rows[1::2], strict=True):
            assert 0 < reply["usd"] <= asked["most"]

    @pytest.mark.long
    def test_cached_tokens_are_cheaper(self, run: Run, tmp_path: Path) -> None:
        run(by_place([Reply("", FIRST[1].calls, cached=2_000)]), tmp_path / "run")
        run(by_place([Reply("", FIRST[1].calls)]), tmp_path / "other")
        saved = read_paid(tmp_path / "other")[1] - read_paid(tmp_path / "run")[1]
        assert saved == pytest.approx(2_000 * (2.0 - 0.1) / 1e6)

    def test_a_request_without_an_outcome_counts_as_its_most(self, run: Run, tmp_path: Path) -> None:
        out = tmp_path / "run"
        run(by_place(FIRST), out)
        ends = [end for rows, _, end in read_journal(out / JOURNAL) if rows[0]["kind"] == "asked"]
        data = (out / JOURNAL).read_bytes()
        (out / JOURNAL).write_bytes(data[: ends[-1]])
        ledger = Ledger(out, price_of("claude-sonnet-5-5"), 5.0)
        most = [row["most"] for rows, _, _ in read_journal(out / JOURNAL) for row in rows if row["kind"] == "asked"][-1]
        assert ledger.spent == pytest.approx(most + sum(ledger_row["usd"] for ledger_row in _replies(out)))
        ledger.close()

    def test_a_connection_that_breaks_counts_as_its_most(self, run: Run, tmp_path: Path) -> None:
        run(script(Fault(cut=True), *FIRST), tmp_path / "run")
        rows = [row for rows, _, _ in read_journal(tmp_path / "run" / JOURNAL) for row in rows]
        assert [row["kind"] for row in rows[:2]] == ["asked", "none"]
        assert rows[1]["usd"] == rows[0]["most"] > 0

    def test_every_figure_counts_what_may_be_charged(self, run: Run, tmp_path: Path) -> None:
        """From the moment on at which a request has no reply."""
        told: list[str] = []
        run(script(Fault(cut=True), *FIRST[1:3]), tmp_path / "run", told=told)
        rows = [row for rows, _, _ in read_journal(tmp_path / "run" / JOURNAL) for row in rows]
        lost, first = rows[1]["usd"], rows[3]["usd"]
        (line,) = [line for line in told if "no reply (RemoteProtocolError" in line]
        assert f"round 1, ${lost:.2f}: " in line
        assert f"it may have cost ${lost:.4f}" in line
        assert any(line.startswith(f"round 1, ${lost + first:.2f}, write_controller") for line in told)
        (entry,) = read_archive(tmp_path / "run").written.values()
        assert entry.usd == pytest.approx(lost + first, abs=1e-6)

    def test_a_long_silence_is_told(self, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(ledger, "SILENCE", 0.1)

        def slowly(body: dict[str, Any], number: int) -> Any:
            time.sleep(0.5 if number == 0 else 0)
            return by_place(FIRST[1:2])(body, number)

        told: list[str] = []
        run(slowly, tmp_path / "run", told=told)
        asked = next(row for rows, _, _ in read_journal(tmp_path / "run" / JOURNAL) for row in rows)
        assert any(re.match(r"round 1, \$0\.\d\d: no reply for \d s", line) for line in told)
        assert any(f"can cost ${asked['most']:.4f}, which is counted already" in line for line in told)

    @pytest.mark.long
    def test_raising_it_goes_on(self, run: Run, tmp_path: Path) -> None:
        dear = [Reply(turn.text, turn.calls, output_tokens=15_000) for turn in FIRST]
        with MessagesServer(by_place(dear)) as server:
            run(server, tmp_path / "run", 1, max_cost_usd=0.6)
            first = server.replies
            run(server, tmp_path / "run", 2, max_cost_usd=3.0)
        assert first < len(FIRST)
        assert server.replies > first
        assert read_paid(tmp_path / "run")[1] < 3.0


def _replies(out: Path) -> list[dict[str, Any]]:
    return [row for rows, _, _ in read_journal(out / JOURNAL) for row in rows if row["kind"] == "reply"]


class TestCutOff:
    @pytest.mark.long
    def test_at_every_record_of_the_ledger(self, finished: Any, run: Run, stores: list[Path], tmp_path: Path) -> None:
        """Whatever was on the disk is used, what was paid for is not asked again, and the end is the same."""
        whole, _ = finished
        before = json.loads((whole / "result.json").read_text())
        ends = [end for _, _, end in read_journal(whole / JOURNAL)]
        for number, end in list(enumerate(ends))[1::6]:
            out = tmp_path / f"run{number}"
            out.mkdir()
            shutil.copy(whole / "search.json", out)
            (out / JOURNAL).write_bytes((whole / JOURNAL).read_bytes()[: end + 3])  # and a torn record
            paid = len(_replies(out))
            with MessagesServer(TALK) as server:
                run(server, out, 2, where=stores)
            result = json.loads((out / "result.json").read_text())
            assert server.problems == []
            assert server.replies == len(FIRST) + len(SECOND) - paid
            assert result["candidate"] == before["candidate"]
            assert result["fresh"] == before["fresh"]

    @pytest.mark.long
    def test_damage_costs_what_it_hits_only(self, finished: Any, run: Run, stores: list[Path], tmp_path: Path) -> None:
        whole, _ = finished
        places = [(start, rows[0]["kind"]) for rows, start, _ in read_journal(whole / JOURNAL)]
        for number, (start, kind) in enumerate(places[4:6]):
            out = tmp_path / f"run{number}"
            out.mkdir()
            shutil.copy(whole / "search.json", out)
            data = bytearray((whole / JOURNAL).read_bytes())
            data[start + 40] ^= 0xFF
            (out / JOURNAL).write_bytes(bytes(data))
            with MessagesServer(TALK) as server:
                run(server, out, 2, where=stores)
            assert server.replies == (kind == "reply")
            assert server.problems == []

    @pytest.mark.long
    def test_killed(self, stores: list[Path], box: Sandbox, tmp_path: Path) -> None:
        """A process that is killed while it uses a reply has it on the disk."""
        out = tmp_path / "run"
        here = Path(__file__).parent
        paths = os.pathsep.join([str(here), str(here.parents[1] / "src")])
        with MessagesServer(TALK) as server:
            environment = {
                **os.environ,
                "PYTHONPATH": paths,
                "ANTHROPIC_BASE_URL": server.url,
                "ANTHROPIC_API_KEY": KEY,
            }
            process = subprocess.Popen([sys.executable, "-c", KILLED, str(out), *map(str, stores)], env=environment)
            while process.poll() is None and server.replies < 2:
                time.sleep(0.002)
            time.sleep(0.05)
            process.send_signal(signal.SIGKILL)
            process.wait()
            kept = _replies(out)
            with pytest.MonkeyPatch.context() as environ:
                environ.setenv("ANTHROPIC_BASE_URL", server.url)
                environ.setenv("ANTHROPIC_API_KEY", KEY)
                chosen = Search(setup(*stores, reference="self_consistency"), Agent(5.0), box)
                chosen.run(out, minutes=10, max_rounds=1, threads=1)
        assert 1 <= len(kept) <= 3
        assert server.replies - len(FIRST) <= 1  # at most the one that was on its way
        assert [row["reply"]["id"] for row in _replies(out)][: len(kept)] == [row["reply"]["id"] for row in kept]


KILLED = """
import sys
from pathlib import Path
from search_stores import setup
from tts_generate.search import Search
from tts_generate.search.agent import Agent, ledger, prompts
chosen = Search(setup(*map(Path, sys.argv[2:]), reference="self_consistency"), Agent(5.0))
chosen.run(Path(sys.argv[1]), minutes=10, max_rounds=1, threads=1)
"""


class TestConversationOnFile:
    @pytest.mark.long
    def test_it_is_gone_through_again_without_a_key(
        self, finished: Any, stores: list[Path], box: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The same candidates, the same figures, the same choice; and it ends where the file does."""
        for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "ANTHROPIC_BASE_URL"):
            monkeypatch.delenv(variable, raising=False)
        whole, out = finished[0], tmp_path / "run"
        told: list[str] = []
        searched = Search(setup(*stores, **BRIEFLY), Agent.of(whole), box)
        result = searched.run(out, minutes=10, threads=1, say=told.append)
        before = json.loads((whole / "result.json").read_text())
        for part in ("candidate", "fresh", "selected", "usd", "tried", "rounds"):
            assert json.loads(json.dumps(result[part])) == before[part]
        one, other = (read_archive(folder) for folder in (whole, out))
        assert one.written == other.written
        assert one.failures == other.failures
        assert [_unseeded(e) for e in one.evaluations] == [_unseeded(e) for e in other.evaluations]
        assert told[-1] == "the conversation on file ends here."
        assert json.loads((out / "search.json").read_text()) == json.loads((whole / "search.json").read_text())

    def test_one_that_is_none(self, tmp_path: Path) -> None:
        History(tmp_path / "knobs", {"controller": "worth", "proposer": "parameters"}).close()
        with pytest.raises(InputError, match="no model wrote there"):
            Agent.of(tmp_path / "knobs")


def _unseeded(evaluation: Any) -> dict[str, Any]:
    """An evaluation without the seed by which episodes were chosen to confirm it, which nobody can foresee."""
    return {name: value for name, value in evaluation.to_dict().items() if name != "confirmed"}


class TestAblations:
    def test_without_traces_none_are_seen(self, run: Run, tmp_path: Path) -> None:
        with MessagesServer(by_place(FIRST[1:3])) as server:
            run(server, tmp_path / "run", traces=False)
        assert "read_trace" not in [tool["name"] for tool in server.requests[0]["tools"]]
        assert "read_trace" not in server.requests[0]["system"]
        assert "elling" not in said(server.requests[-1])

    def test_without_beta_a_candidate_is_one_controller(self, run: Run, tmp_path: Path) -> None:
        turns = [
            Reply("", [("write_controller", {"code": GOOD, "idea": "a family"})]),
            Reply("", [("write_controller", {"code": CONSTANT, "idea": "one"})]),
            Reply("", [("replay", {"candidate": name(CONSTANT)})]),
        ]
        with MessagesServer(by_place(turns)) as server:
            result = run(server, tmp_path / "run", beta=False)
        assert "every knob is a constant" in said(server.requests[1])
        assert "same knobs whatever `beta` is" in server.requests[0]["system"]
        assert len(result["fresh"]["gain"]["at_costs"]) == 1
        assert "class Fixed" in write_report(tmp_path / "run").read_text()
        assert load_controller(tmp_path / "run" / "best", beta=0.1, trust_remote_code=True).knobs["width"] == 9

    def test_effort_is_sent(self, run: Run, tmp_path: Path) -> None:
        with MessagesServer(by_place(FIRST[1:2])) as server:
            run(server, tmp_path / "run", effort="low", max_tokens=32_000)
        assert server.requests[0]["output_config"] == {"effort": "low"}


class TestRefused:
    def test_before_anything_is_paid_or_written(self, run: Run, stores: list[Path], tmp_path: Path) -> None:
        out = tmp_path / "run"
        with MessagesServer(TALK) as server:
            with pytest.raises(InputError, match=r"below one round, which is expected to cost about \$0\.\d\d"):
                run(server, out, max_cost_usd=0.05)
            with pytest.raises(UnknownNameError, match="did you mean 'claude-sonnet-5-5'"):
                run(server, out, model="claude-sonet-5-5")
            with pytest.raises(InputError, match="cannot read the prices"):
                run(server, out, prices=tmp_path / "none.json")
            for options, text in (
                ({"max_cost_usd": 0.0}, "above 0"), ({"max_cost_usd": float("nan")}, "must be a number"), ({"calls": 0}, "--calls"),
                ({"max_tokens": 64_000}, "--max-tokens must be from"), ({"effort": "huge"}, "--effort is one of"),
            ):  # fmt: skip
                with pytest.raises(InputError, match=text):
                    run(server, out, **options)
            with pytest.MonkeyPatch.context() as environment:
                for variable in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
                    environment.delenv(variable, raising=False)
                environment.setenv("HOME", str(tmp_path))
                with pytest.raises(InputError, match="set ANTHROPIC_API_KEY"):
                    Search(setup(*stores), Agent(5.0)).run(out, minutes=10)
            assert server.requests == []
        assert not out.exists()

    def test_what_is_for_the_other_proposer(self, stores: list[Path], box: Sandbox) -> None:
        with pytest.raises(InputError, match="an agent writes controllers"):
            Search(setup(*stores, knobs=("n_init",)), Agent(5.0))
        with pytest.raises(InputError, match="a sandbox is for an agent"):
            Search(setup(*stores), box=box)

    def test_prices_that_are_none(self, tmp_path: Path) -> None:
        for text in ("{", "[]", '{"format": "x"}', '{"format": "tts-prices/1", "date": "d", "models": {"m": []}}'):
            (tmp_path / "p.json").write_text(text)
            with pytest.raises(InputError, match="is no price table"):
                price_of("m", tmp_path / "p.json")

    def test_a_model_that_the_api_does_not_know(self, run: Run, tmp_path: Path) -> None:
        table = {"format": "tts-prices/1", "date": "today", "models": {"claude-next": [
            {"input": 1, "output": 5, "cache_read": 0.1, "cache_write": 1.25}]}}  # fmt: skip
        (tmp_path / "prices.json").write_text(json.dumps(table))
        with pytest.raises(InputError, match="the API knows no model 'claude-next'"):
            run(TALK, tmp_path / "run", model="claude-next", prices=tmp_path / "prices.json")

    def test_a_key_that_the_api_does_not_take(self, stores: list[Path], box: Sandbox, tmp_path: Path) -> None:
        with MessagesServer(TALK) as server, pytest.MonkeyPatch.context() as environment:
            environment.setenv("ANTHROPIC_BASE_URL", server.url)
            environment.setenv("ANTHROPIC_API_KEY", "sk-other")
            with pytest.raises(InputError, match="does not take the key"):
                Search(setup(*stores), Agent(5.0), box).run(tmp_path / "run", minutes=10)

    def test_the_folder_of_another_search(self, finished: Any, run: Run, stores: list[Path], tmp_path: Path) -> None:
        out = shutil.copytree(finished[0], tmp_path / "run")
        before = {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()}
        with pytest.raises(InputError, match=r"holds another search \(.*model"):
            run(TALK, out, where=stores, model="claude-haiku-5-5")
        with pytest.raises(InputError, match=r"holds another search \(.*without"):
            run(TALK, out, where=stores, traces=False)
        with pytest.raises(InputError, match=r"holds another search \(.*proposer"):
            Search(setup(*stores)).run(out, minutes=1, max_rounds=1)
        assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


@pytest.mark.long
def test_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rounds at the fidelity of a real search: candidates compile behind the locks. Fewer orders in the last looks."""
    looks = {"select": Fidelity((0.0, 1.0), 8, 500_000), "fresh": Fidelity((0.0, 1.0), 8, 0)}
    monkeypatch.setattr("tts_generate.search.Setup", functools.partial(Setup, **looks))  # type: ignore[arg-type]
    store, out = make_store(tmp_path / "store", 3), tmp_path / "run"
    options = [
        "--out",
        str(out),
        "--rounds",
        "1",
        "--share",
        "0",
        "--proposer",
        "anthropic",
        "--max-cost-usd",
        "5",
        "--effort",
        "low",
    ]
    with MessagesServer(by_place(FIRST[1:3])) as server:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", KEY)
        done = CliRunner().invoke(app, ["search", str(store), *options])
    assert done.exit_code == 0, done.output
    assert "locks: own session" in done.output
    assert "$0.00 of $5.00 spent" in done.output
    assert f"chosen {name(GOOD)}" in done.output
    assert (out / "report.html").is_file()
    assert (out / "best" / "controller.py").read_text() == GOOD
    assert not read_archive(out).last(name(GOOD)).warned  # type: ignore[union-attr]


def test_options_of_the_command_line(stores: list[Path], tmp_path: Path) -> None:
    run_of = ["search", str(stores[0]), "--out", str(tmp_path / "run"), "--rounds", "1"]
    for options, text in (
        (["--model", "x"], "--model is for --proposer anthropic"),
        (["--max-cost-usd", "0"], "--max-cost-usd is for --proposer anthropic"),
        (["--proposer", "anthropic"], "--max-cost-usd"),
        (
            ["--proposer", "anthropic", "--max-cost-usd", "5", "--knobs", "n_init"],
            "--knobs is for --proposer parameters",
        ),
        (["--proposer", "anthropic", "--max-cost-usd", "5", "--without", "gold"], "unknown ablation 'gold'"),
        (["--proposer", "anthropic", "--max-cost-usd", "5", "--without-lock", "gate"], "unknown lock 'gate'"),
    ):
        done = CliRunner().invoke(app, [*run_of, *options])
        assert done.exit_code == 1
        assert text in done.output
    assert not (tmp_path / "run").exists()


@pytest.mark.paid
def test_the_real_api(stores: list[Path], box: Sandbox, tmp_path: Path) -> None:
    """A round of the cheapest model, some cents: what is sent is what the API takes."""
    if not os.environ.get("ANTHROPIC_API_KEY"):
        pytest.skip("set ANTHROPIC_API_KEY; this spends some cents")
    agent = Agent(max_cost_usd=0.25, model="claude-haiku-5-5", calls=8)
    result = Search(setup(*stores), agent, box).run(tmp_path / "run", minutes=10, max_rounds=1, threads=1)
    assert 0 < result["usd"] <= 0.25
