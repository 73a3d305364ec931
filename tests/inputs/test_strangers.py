"""Text of strangers where it is shown: on a terminal every command, and in warnings, pages, pictures and READMEs."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
import termios
import warnings
from pathlib import Path

import pytest
import yaml
from hub_checks import CODE, card
from report_pages import hostile_page
from search_stores import make_store
from strangers import ACTING, EVIL, KEPT, MARKUP, NAME, STORE, evaluation, trace_of

from tts_generate.errors import StoreError, warn
from tts_generate.hub.source import read_folder
from tts_generate.inert import as_markdown, inert
from tts_generate.publish.files import repo_files
from tts_generate.report.frontier import Point, plot_frontier
from tts_generate.report.page import Asked, Page, render
from tts_generate.report.pictures import plot_tokens, plot_traces
from tts_generate.report.store_page import _code
from tts_generate.report.timeline import timeline
from tts_generate.search.archive import Entry, Evaluation, Failure
from tts_generate.search.candidate import Written
from tts_generate.search.history import History
from tts_generate.trace import write_traces
from tts_generate.trajectories import Manifest, Question, StoreWriter, Trajectory
from tts_generate.trajectories.schema import questions_sha256

SHOWN = inert(EVIL)


@pytest.mark.parametrize("what", ACTING.values(), ids=ACTING)
def test_what_acts_is_written_out(what: str) -> None:
    shown = inert(f"a{what}b\n\tc")
    assert shown.replace("\n", "").replace("\t", "").isprintable()
    assert what not in shown
    assert shown.endswith("b\n\tc")
    assert inert(shown) == shown
    assert what not in str(StoreError(f"a{what}b"))
    with pytest.warns(RuntimeWarning, match="^ab|a\\\\") as caught:
        warn(f"a{what}b")
    assert what not in str(caught[0].message)
    assert caught[0].filename == __file__


@pytest.mark.parametrize(
    "text", ["größer ≤ 7", "数学　答案", "مرحبا", "½\xa0€", "❤️ 🎉", "a\tb\nc", r"\frac{1}{2} $x_1$"]
)
def test_what_people_write_stays(text: str) -> None:
    assert inert(text) == text


class TestTerminal:
    """All commands in one child process, which has a terminal; what it writes there is read from the other end."""

    def run(self, folder: Path, *commands: list[str]) -> list[str]:
        """What each command wrote, colours taken out; nothing that acts is in it."""
        ours, theirs = pty.openpty()
        termios.tcsetwinsize(theirs, (50, 4000))
        code = (
            "import json, sys\nfrom tts_generate.cli import app\n"
            "for command in json.load(open(sys.argv[1])):\n"
            "    try:\n        app(command)\n"
            "    except SystemExit as end:\n        print('\\x1c', end.code, '\\x1d', flush=True)\n"
        )
        (folder / "commands.json").write_text(json.dumps(commands))
        environment = {**os.environ, "FORCE_COLOR": "1", "TERM": "xterm-256color", "HF_HUB_OFFLINE": "1"}
        environment.pop("COLUMNS", None)  # pytest-xdist gives its workers one
        child = subprocess.Popen(
            [sys.executable, "-c", code, folder / "commands.json"],
            stdin=theirs, stdout=theirs, stderr=theirs, cwd=folder, env=environment,
        )  # fmt: skip
        os.close(theirs)
        text = b"".join(iter(lambda: _read(ours), b"")).decode("utf-8")
        child.wait()
        os.close(ours)
        told = [re.sub(r"\x1b\[[0-9;]*m", "", part) for part in re.split("\x1c [0-9]+ \x1d\r\n", text)]
        for command, part in zip(commands, told, strict=False):
            lines = part.replace("\r\n", "\n").replace("\t", "")
            if command[0] == "sweep":
                lines = lines.replace("\r", "")  # of its bar
            assert all(line.isprintable() for line in lines.split("\n")), (command, lines)
            assert "Traceback" not in part, (command, part)
        assert len(told) == len(commands) + 1, text
        assert "\x1b[31merror:" in text  # there are colours, and they are ours
        return told

    @pytest.mark.long
    def test_every_place(self, tmp_path: Path) -> None:
        places = {name: str(tmp_path / name) for name in ("code", "data", "traces.jsonl", "run", "store")}
        _controllers(tmp_path)
        write_traces(places["traces.jsonl"], [trace_of()])
        write_traces(tmp_path / "kept.jsonl", [trace_of(KEPT)])
        _search(tmp_path / "run")
        _store(tmp_path / "store")
        named = make_store(tmp_path / STORE, questions=2, branches=4)
        written = Written(f"x = 1  # {EVIL}", EVIL, None, EVIL).name
        one, other = (Written(f"x = {n}  # {EVIL}", EVIL).name for n in (1, 2))
        commands = {
            "error": ["store", "check", "no[/such]store"],
            "path": ["store", "check", NAME + "x"],
            "argument": ["trace", "a", NAME],
            "command": [NAME],
            "option": ["show", "asc", f"--{NAME}"],
            "choice": ["replay", "x", "--votes", NAME],
            "number": ["replay", "x", "--beta", STORE],
            "code": ["show", places["code"]],
            "data": ["show", places["data"]],
            "unknown": ["show", NAME],
            "repo": ["pull", NAME, "--out", "x"],
            "lock": ["lock", NAME],
            "verify": ["verify", NAME],
            "traces": ["trace", places["traces.jsonl"]],
            "check": ["store", "check", STORE],
            "trace": ["trace", places["store"], "--controller", "asc", "--set", "max_samples=2"],
            "question": ["trace", places["store"], "--question", NAME],
            "replay": ["replay", STORE, "--controller", "asc", "--set", "max_samples=4", "--shuffles", "1"],
            "sweep": [
                "sweep",
                STORE,
                "--controllers",
                "asc",
                "--betas",
                "0",
                "--shuffles",
                "1",
                "--plot",
                NAME + ".svg",
            ],
            "report": ["report", "kept.jsonl", "--out", NAME + ".html"],
            "history": ["history", places["run"]],
            "shown": ["history", places["run"], "--show", written],
            "differ": ["history", places["run"], "--diff", f"{one},{other}"],
            "controller": ["replay", STORE, "--controller", NAME],
            "publish": ["publish", NAME, NAME],
            "import": ["import", "autotts", NAME, "--out", "x"],
        }
        told = dict(zip(commands, self.run(tmp_path, *commands.values()), strict=False))
        assert named.is_dir()
        assert "error: no[/such]store is not a trajectory store" in told["error"]
        for name, text in told.items():
            assert name in ("error", "number") or "[red]no[" in text, (name, text)
        for name in ("path", "report", "replay", "sweep"):
            assert "".join(inert(STORE).split()) in "".join(told[name].split()), (
                name,
                told[name],
            )  # titles are wrapped
        assert inert(EVIL, lines=False) in told["traces"]
        assert f"  {SHOWN}" in told["code"].replace("\r\n", "\n")
        assert "\n  data alone, for cmc: loads without trust" in told["code"]  # what a stranger says is no line of ours
        assert "\nneeds trust_remote_code, or sandbox" in told["code"].replace("\r", "")
        assert f"{SHOWN}:3questions,{SHOWN},replay".replace(" ", "") in "".join(told["data"].split())
        assert inert(KEPT) in told["trace"]
        for name in ("history", "shown", "differ"):
            assert MARKUP in told[name], told[name][-1500:]


def test_a_terminal_without_the_characters(tmp_path: Path) -> None:
    """What an encoding does not have is written out, ours too."""
    (tmp_path / "x").mkdir()
    text = json.dumps(card(description="größer ≤ 7"))
    (tmp_path / "x" / "controller.json").write_text(text)
    (tmp_path / "x" / "controller.py").write_bytes(CODE)
    command = [sys.executable, "-m", "tts_generate.cli", "show", str(tmp_path / "x")]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "ascii"}, check=True)
    assert b"gr\\xf6\\xdfer \\u2264 7" in done.stdout


def test_pages() -> None:
    """Nothing that acts is in a page, and what is watched is told by the same names as in the table."""
    page = hostile_page()
    trace = trace_of()
    asked = Asked(EVIL, EVIL, EVIL, page.asked[0].told, [trace])
    html = render(Page(EVIL, {EVIL: EVIL}, methods=[EVIL], asked=[asked], notes=[EVIL]))
    assert all(line.isprintable() for line in html.split("\n"))
    told = re.search(r'id="watch-data">(.*?)</script>', html)
    assert told is not None
    (watched,) = json.loads(told[1])
    assert [watched["name"], watched["text"], watched["gold"], *watched["answers"]] == [SHOWN] * 4
    assert watched["traces"] == [{"label": SHOWN, "knobs": f"{SHOWN}={SHOWN}"}]
    assert next(iter(timeline(trace))).isprintable()


FORMULAS = ["$\\bad{", "$x_1$ and $\\frac{1", r"\$5 and $6", "_hidden", "a_b^c", "$" * 7, EVIL, "数学", "x" * 5000]


def test_pictures(tmp_path: Path) -> None:
    """A `$` is no formula, TeX is never run, and nothing is left out of the legend."""
    from matplotlib import rc_context

    points = [Point(text, 10.0, 9.0 * n, (0.0, 90.0), label=text) for n, text in enumerate(FORMULAS)]
    row = {"generated_tokens": 9, "wasted_tokens": 1, "probe_tokens": 2}
    with warnings.catch_warnings(), rc_context({"text.usetex": True, "svg.fonttype": "none"}):
        warnings.filterwarnings("ignore", "Glyph", UserWarning)  # its font has no Chinese
        warnings.filterwarnings("ignore", "constrained_layout", UserWarning)
        plot_frontier(points, str(tmp_path / "f.svg"), title=FORMULAS[0])
        plot_tokens([{"label": text, **row} for text in ["$\\bad{", "$\\bad{"]], tmp_path / "t.svg", title="$\\bad{")
        plot_traces({"$\\bad{": trace_of("$\\bad{")}, tmp_path / "e.svg", title="$\\bad{")
    text = (tmp_path / "f.svg").read_text("utf-8")
    assert text.count("$\\bad{") >= 3  # in the title, at its point and in the legend
    assert text.count(" _hidden") >= 2
    assert all(line.isprintable() for line in text.split("\n"))
    assert (tmp_path / "t.svg").read_text("utf-8").count("$\\bad{</text>") == 3
    assert "answers $\\bad{" in (tmp_path / "e.svg").read_text("utf-8")


def test_readmes(tmp_path: Path) -> None:
    """The page of a controller has no markup of a stranger in it, and its head ends where it should."""
    evil = "---\nlicense: evil\n---\n# Head\n<script>x</script> [y](javascript:z) ![p](q) |c| `w`" + EVIL
    of = card(entry=None, builtin="cmc", description=evil[:4000], provenance={evil: evil})
    of["knobs"] = {"width": "a|b\n# c"}
    (tmp_path / "controller.json").write_text(json.dumps({**of, "knobs": {}}))
    sha256 = json.loads((read_folder_of("cmc") / "controller.json").read_text())["sha256"]
    (tmp_path / "controller.json").write_text(json.dumps({**of, "sha256": sha256}))
    source = read_folder(tmp_path)
    told = evaluation(dict(source.card), evil)
    files = repo_files(source, told, "me/x", benchmarks={}, licence="a\n---\n# b", own_words="My [own](words) \u200d.")
    text = files["README.md"].decode()
    head, body = text.removeprefix("---\n").split("\n---\n", 1)
    assert yaml.safe_load(head)["license"] == "a\n---\n# b"
    assert body.count("My [own](words) \u200d.") == 1  # an author's own words are his
    body = body.replace("My [own](words) \u200d.", "")
    assert all(line.isprintable() for line in body.split("\n"))
    assert "<script" not in body
    assert not re.search(r"(?<!\\)\[[yp](?<!\\)\]", body)
    assert not re.search(r"^# (Head|c)", body, re.MULTILINE)
    rows = [line for line in body.split("\n") if line.startswith("| ") and "Head" in line]
    assert rows
    assert {len(re.findall(r"(?<!\\)\|", line)) for line in rows} == {3, 8, 9}  # as many cells as their tables have


@pytest.mark.parametrize("text", ["a``b", "`", "``", "|", "a\nb", "`a` | ``b``"])
def test_code_in_a_table_cannot_end_early(text: str) -> None:
    shown = _code(text)
    fence = re.match("`+", shown)
    assert fence is not None
    assert shown.endswith(fence[0])
    assert fence[0] not in re.findall("`+", shown[len(fence[0]) : -len(fence[0])])
    assert "\n" not in shown


def test_markdown_of_a_number_is_that_number() -> None:
    assert [as_markdown(value) for value in (-1.5, 0.5, "-3", "1e-5")] == ["-1.5", "0.5", "-3", "1e-5"]
    assert as_markdown("1. x") == "1\\. x"
    assert as_markdown("```x") == "\\```x"


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # the other end was closed
        return b""


def _controllers(folder: Path) -> None:
    description = EVIL + "\ndata alone, for cmc: loads without trust"
    (folder / "code").mkdir()
    (folder / "code" / "controller.json").write_text(json.dumps(card(description=description)))
    (folder / "code" / "controller.py").write_bytes(CODE)
    sha256 = json.loads((Path(read_folder_of("cmc")) / "controller.json").read_text())["sha256"]
    data = card(entry=None, builtin="cmc", sha256=sha256, name="data")
    (folder / "data" / "evaluation").mkdir(parents=True)
    (folder / "data" / "controller.json").write_text(json.dumps(data))
    (folder / "data" / "evaluation" / "summary.json").write_text(json.dumps(evaluation(data)))


def read_folder_of(name: str) -> Path:
    """The folder of a shipped controller."""
    from tts_generate.loading import builtin_folder

    return builtin_folder(name)


def _search(folder: Path) -> None:
    history = History(folder, {"stores": {}})
    for number in (1, 2):
        code = Written(f"x = {number}  # {EVIL}", EVIL, None, EVIL)
        history.add(Entry(code, EVIL, 0, 0, 0.0, {}))
        history.add(Evaluation.failed(code, 0, EVIL))
    history.add(Failure(0, EVIL, 0.0))
    history.close()


def _store(folder: Path) -> None:
    asked = [Question(KEPT, KEPT, KEPT)]
    manifest = Manifest(
        interval_tokens=10, branches=2, seed=0, model={"name_or_path": KEPT}, tokenizer={}, generation_config={},
        probe={}, versions={}, source="recorded", questions_sha256=questions_sha256(asked),
    )  # fmt: skip
    row = Trajectory(
        question_id=KEPT, branch=0, seed=0, prompt_tokens=4, tokens=9, finish_reason="eos", final_answer=KEPT,
        probe_positions=(), probe_answers=(), probe_tokens=(), probe_logprobs=(), step_logprobs=(),
    )  # fmt: skip
    with StoreWriter.open(folder, manifest, asked) as writer:
        writer.append([row, Trajectory(**{**{n: getattr(row, n) for n in row.__dataclass_fields__}, "branch": 1})])
