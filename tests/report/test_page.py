"""Pages of stores, sweeps, searches and live runs: what they say, that they ask nobody for anything, and escape all."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import replace as changed
from html.parser import HTMLParser
from pathlib import Path
from random import Random
from typing import Any

import pytest
from report_pages import HOSTILE, hostile_page
from search_stores import make_store, without_answers
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.errors import InputError, UnknownNameError
from tts_generate.evaluate import Method, evaluate_method, methods
from tts_generate.loading import builtin_controllers, find_source, load_controller
from tts_generate.publish.measuring import measure
from tts_generate.replay import Recording
from tts_generate.report.chart import AXES, FrontierChart
from tts_generate.report.frontier import Point
from tts_generate.report.gather import asked_of
from tts_generate.report.lanes import parcel, spent
from tts_generate.report.live import of_traces
from tts_generate.report.page import Asked, Page, Told, render
from tts_generate.report.pictures import draw_page
from tts_generate.testing import INTERVAL, random_trajectories
from tts_generate.trace import Trace, write_traces
from tts_generate.trajectories import Question, StoreWriter, TrajectoryStore
from tts_generate.trajectories.schema import questions_sha256
from tts_generate.votes import confidence


class Reader(HTMLParser):
    """The texts, tables, links and embedded JSON of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.sources: list[str] = []
        self.data: list[str] = []
        self.tags: list[str] = []
        self._in: str = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        self.tags.append(tag)
        self.sources += [value for name in ("src", "href", "srcset", "data", "action") if (value := found.get(name))]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        self._in = "json" if found.get("type") == "application/json" else tag

    def handle_data(self, data: str) -> None:
        if self._in == "json":
            self.data.append(data)
        elif self.rows and self.rows[-1] and self._in not in ("script", "style"):
            self.rows[-1][-1] += data.strip()

    def watched(self) -> list[dict[str, Any]]:
        return json.loads(self.data[0])


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return result.output


def unpack(data: str) -> list[dict[str, list[Any]]]:
    return json.loads(zlib.decompress(base64.b64decode(data), wbits=-zlib.MAX_WBITS))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_store(tmp_path_factory.mktemp("report") / "small", questions=5)


def test_columns_hold_the_whole_trace(tiny_recording: Recording) -> None:
    """The events rebuilt from a parcel, as the viewer's script rebuilds them, are those of the traces."""
    traces = [tiny_recording.trace(load_controller(name, beta=0.5), 2) for name in ("cmc", "asc", "parallel_probe")]
    answers, data = parcel(traces)

    def text(number: int) -> str | None:
        return None if number < 0 else answers[number]

    for trace, c in zip(traces, unpack(data), strict=True):
        readings = iter(zip(c["branch"], c["steps"], c["spent"], c["answer"], c["ended"], strict=True))
        depth: dict[int, int] = {}
        tokens: dict[int, int] = {}
        for number, event in enumerate(trace.events):
            assert ("open", "continue", "answer")[c["verb"][number]] == event["verb"]
            pairs = {"round": "round", "votes": "leader_votes", "second": "runner_up_votes", "live": "live"}
            assert {ours: c[ours][number] for ours in pairs} == {ours: event[name] for ours, name in pairs.items()}
            assert (text(c["leader"][number]), c["tokens"][number]) == (event["leader"], event["tokens"])
            assert c["pruned"][number] == event.get("pruned", [])
            assert c["confidence"][number] == pytest.approx(
                confidence(event["leader_votes"], event["runner_up_votes"]), abs=1e-4
            )
            for reading in event.get("branches", []):
                branch, steps, added, answer, ended = next(readings)
                depth[branch], tokens[branch] = depth.get(branch, 0) + steps, tokens.get(branch, 0) + added
                rebuilt = {"branch": branch, "depth": depth[branch], "tokens": tokens[branch]}
                assert {**rebuilt, "answer": text(answer), "finished": bool(ended)} == reading
        assert next(readings, None) is None
        assert text(c["result"][0]) == trace.events[-1]["answer"]


@pytest.mark.parametrize("name", builtin_controllers())
def test_a_trace_tells_the_ledger(tiny_recording: Recording, name: str) -> None:
    controller = load_controller(name, beta=0.5)
    for number in range(2):
        ledger = spent(tiny_recording.trace(controller, number))
        episode = tiny_recording.episode(controller, number)
        cost, state = episode.cost(), episode.state
        assert ledger["generated_tokens"] == cost.generated_tokens
        assert ledger["probe_tokens"] == cost.probe_tokens
        assert ledger["wasted_tokens"] == cost.wasted_tokens
        assert (ledger["branches"], ledger["rounds"]) == (state.opened, state.round)


def test_page_of_a_store_says_what_the_sweep_says(store: Path, tmp_path: Path) -> None:
    chosen = ("--controllers", "asc,cmc", "--betas", "0,0.5", "--shuffles", 3)
    output = invoke(
        "report", store, *chosen, "--watch", "cmc@0.5", "--out", tmp_path / "p.html", "--plots", tmp_path / "d"
    )
    html = (tmp_path / "p.html").read_text("utf-8")
    assert f"{len(html.encode()):,} bytes" in output
    page = Reader(html)
    methods = {row[0]: row for row in page.rows if len(row) == 10}
    assert list(methods) == ["method", "SC@24", "ASC@24", "asc β=0", "asc β=0.5", "cmc β=0", "cmc β=0.5"]
    from tts_generate.evaluate import Method, evaluate_method

    row, result = evaluate_method(Recording.from_store(store), Method("asc", "asc", 0.0), 3)
    assert methods["asc β=0"][1].startswith(f"{row.accuracy:.1f}")
    assert methods["asc β=0"][2] == f"{row.tokens:,.0f}"
    assert (
        html.count("<polyline") == 2 * 4
    )  # over tokens and chain, a line for each series: two baselines, two controllers
    watched = page.watched()
    assert [question["name"] for question in watched] == [f"q{n}" for n in range(5)]
    assert [trace["label"] for trace in watched[0]["traces"]] == ["cmc β=0.5", "SC@24"]
    of_question = [row for row in page.rows if row and row[0] == "q3"]
    assert of_question[0][1] == "1"
    assert [path.name for path in sorted((tmp_path / "d").iterdir())] == [
        f"{name}.{kind}" for name in ("frontier", "tokens", "trace") for kind in ("png", "svg")
    ]
    assert all(
        (tmp_path / "d" / f"{n}.png").read_bytes().startswith(b"\x89PNG") for n in ("frontier", "tokens", "trace")
    )
    assert result.recording.max_branches == 24


def test_page_asks_nobody(store: Path, tmp_path: Path) -> None:
    invoke("report", store, "--controllers", "asc", "--betas", "0", "--shuffles", 2, "--out", tmp_path / "p.html")
    html = (tmp_path / "p.html").read_text("utf-8")
    page = Reader(html)
    assert [source for source in page.sources if source != "data:,"] == []
    assert {"link", "script", "style"} >= {"link", "script", "style"} & set(page.tags)
    assert not re.search(r"@import|url\(|https?://(?!www\.w3\.org)", html)
    assert "default-src 'none'" in html


def test_page_of_a_sweep_replays_its_stores_or_says_why_not(store: Path, tmp_path: Path) -> None:
    chosen = ("--controllers", "asc,short_m_at_k", "--betas", "0,0.2", "--shuffles", 3)
    invoke("sweep", store, *chosen, "--json", tmp_path / "s.json")
    invoke("report", tmp_path / "s.json", "--out", tmp_path / "p.html")
    page = Reader((tmp_path / "p.html").read_text("utf-8"))
    labels = [trace["label"] for trace in page.watched()[0]["traces"]]
    assert labels == ["asc β=0.2", "short_m_at_k β=0.2", "SC@24"]
    invoke("report", tmp_path / "s.json", "--watch", "self_consistency@1", "--out", tmp_path / "w.html")  # of 64
    result = json.loads((tmp_path / "s.json").read_text())
    shown = [row[2] for row in page.rows if len(row) == 10][1:]
    assert shown == [f"{row['tokens']:,.0f}" for row in result["cells"]]
    result["cells"][0]["tokens"] += 7  # as if it had been swept when the store was another
    (tmp_path / "other.json").write_text(json.dumps(result))
    invoke("report", tmp_path / "other.json", "--out", tmp_path / "o.html")
    told = re.search(r"No question and no trace is shown: (.*?) in the sweep", (tmp_path / "o.html").read_text("utf-8"))
    assert told is not None
    assert "has changed since: SC@24 takes" in told[1]
    for row in result["cells"]:
        row["store"] = "somewhere/else"
    (tmp_path / "gone.json").write_text(json.dumps(result))
    invoke("report", tmp_path / "gone.json", "--out", tmp_path / "g.html")
    html = (tmp_path / "g.html").read_text("utf-8")
    assert "somewhere/else is not where the sweep found it" in html
    assert Reader(html).data == []


def test_page_of_two_stores_names_their_questions(store: Path, tmp_path: Path) -> None:
    other = make_store(tmp_path / "other", questions=3, seed=1)
    options = ("--controllers", "asc", "--betas", "0", "--shuffles", 2, "--watch", "asc@0")
    invoke("report", store, other, *options, "--out", tmp_path / "p.html")
    page = Reader((tmp_path / "p.html").read_text("utf-8"))
    assert [question["name"] for question in page.watched()][4:6] == ["small: q4", "other: q0"]
    assert page.tags.count("details") == 1 + 2  # the question's text, and one for each store


@pytest.mark.long
def test_page_of_live_runs(tiny: tuple[Any, Any], tmp_path: Path) -> None:
    """Two controllers answer the same questions live; their traces make one page."""
    import tts_generate
    from tts_generate.tiny import questions

    model, tokenizer = tiny
    tts_generate.enable(model, tokenizer=tokenizer)
    asked = questions("test")[:3]
    inputs = tokenizer([q.question for q in asked], return_tensors="pt", padding=True, padding_side="left")
    outputs = {}
    for name in ("cmc", "asc"):
        outputs[name] = model.generate(
            **inputs, strategy="autotts", controller=name, beta=0.0, seed=0, return_dict_in_generate=True
        )
        write_traces(tmp_path / f"{name}.jsonl", outputs[name].trace)
    gold = [
        {"question_id": t.question_id, "question": q.question, "gold_answer": f" ${q.gold_answer}$ "}
        for t, q in zip(outputs["cmc"].trace, asked, strict=True)
    ]
    (tmp_path / "q.jsonl").write_text("".join(json.dumps(row) + "\n" for row in gold))
    files = (tmp_path / "cmc.jsonl", tmp_path / "asc.jsonl")
    invoke("report", *files, "--questions", tmp_path / "q.jsonl", "--out", tmp_path / "p.html")
    page = Reader((tmp_path / "p.html").read_text("utf-8"))
    rows = {row[0]: row for row in page.rows if len(row) == 8}
    for name, label in (("cmc", "CMC β=0"), ("asc", "ASC β=0")):
        cost = outputs[name].total_cost
        right = sum(a == q.gold_answer for a, q in zip(outputs[name].answers, asked, strict=True))
        assert rows[label][1].startswith(f"{100 * right / 3:.1f}")
        assert rows[label][2] == f"{(cost.generated_tokens + cost.probe_tokens) / 3:,.0f}"
        assert rows[label][3:5] == [f"{cost.probe_tokens / 3:,.0f}", f"{cost.wasted_tokens / 3:,.0f}"]
    assert [len(question["traces"]) for question in page.watched()] == [2, 2, 2]
    invoke("report", *files, "--out", tmp_path / "n.html", "--plots", tmp_path / "d")
    html = (tmp_path / "n.html").read_text("utf-8")
    assert "no accuracy" in html
    assert "<polyline" not in html
    assert not (tmp_path / "d" / "frontier.png").exists()
    output = invoke("report", files[0], files[0], "--out", tmp_path / "n.html", code=1)
    assert "a second time" in output.replace("\n", " ")
    rows_of_one = map(json.loads, files[0].read_text("utf-8").splitlines())
    short = [json.dumps({**row, "controller": {**row["controller"], "latency": 1.0}}) for row in rows_of_one]
    (tmp_path / "short.jsonl").write_text("\n".join(short) + "\n", "utf-8")
    invoke("report", files[0], tmp_path / "short.jsonl", "--out", tmp_path / "n.html")  # another, not a second time
    assert "β=0 latency 1" in (tmp_path / "n.html").read_text("utf-8")


def test_live_runs_that_differ_in_a_knob_stand_apart(tiny_recording: Recording, tmp_path: Path) -> None:
    """The bug: they were one method, and a question of both was refused as traced a second time."""
    for count in (2, 4):
        controller = load_controller("asc", beta=0.5, max_samples=count)
        write_traces(tmp_path / f"{count}.jsonl", [tiny_recording.trace(controller, n) for n in range(2)])
    page = of_traces([tmp_path / "2.jsonl", tmp_path / "4.jsonl"])
    assert page.methods == ["ASC β=0.5, max_samples=2", "ASC β=0.5, max_samples=4"]
    assert [row["branches"] <= most for row, most in zip(page.measured[0].rows, (2, 4), strict=True)] == [True, True]


def test_questions_that_are_not_traced_are_said(tiny_recording: Recording, tmp_path: Path) -> None:
    """The bug: a file of questions under other ids than the call's numbers was ignored without a word."""
    traces = [tiny_recording.trace(load_controller("asc", beta=0.5), n) for n in range(2)]
    write_traces(tmp_path / "t.jsonl", traces)
    with pytest.raises(InputError, match="none of the 1 questions is traced"):
        of_traces([tmp_path / "t.jsonl"], [Question("elsewhere", "", "7")])
    page = of_traces([tmp_path / "t.jsonl"], [Question(traces[0].question_id, "", "7")])
    assert page.notes == ["1 of 2 questions have no right answer here: runs of them have no accuracy."]


def test_the_viewer_marks_what_the_table_counts_right() -> None:
    """The bug: a gold answer that is a solution, boxed, or the same mathematics was marked as missed by all."""
    reading = {"branch": 0, "depth": 1, "tokens": 32, "answer": "7", "finished": True}
    event = {"round": 0, "leader": "7", "leader_votes": 1, "runner_up_votes": 0, "live": 0, "tokens": 32}
    moves = {**event, "verb": "open", "pruned": [], "branches": [reading]}, {**event, "verb": "answer", "answer": "7"}
    trace = Trace("q", {"controller": "asc", "beta": 0.5, "knobs": {}}, moves)
    asked = Asked("q", "", "3 + 4\n#### 7", [Told(100.0, 32)], [trace])
    assert Reader(render(Page("", {}, methods=["asc"], asked=[asked]))).watched()[0]["right"] == [0]
    rows = [changed(row, final_answer="0.5") for row in random_trajectories(Random(0), 2)]
    halves = Recording.of([Question("question", "", r"$\frac12$")], rows, INTERVAL, votes="math")
    method = Method("asc", "asc", None, {"max_samples": 2})
    (asked,) = asked_of([halves], [method], [[evaluate_method(halves, method, 1)[1]]])
    assert asked.told == [Told(100.0, asked.told[0].tokens)]
    assert Reader(render(Page("", {}, methods=["asc"], asked=[asked]))).watched()[0]["right"] != []


def test_questions_without_a_right_answer_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The bug: they counted as answered wrong, in a sweep and on its page, without a word."""
    store = without_answers(make_store(tmp_path / "whole", questions=3), tmp_path / "s", 1)
    few = ("--controllers", "asc", "--betas", "0", "--shuffles", 1, "--watch", "asc@0", "--out", tmp_path / "p.html")
    invoke("report", store, *few)
    assert "1 of 3 questions have no right answer" in caplog.text
    assert "1 of them without a right answer, which count as wrong" in (tmp_path / "p.html").read_text("utf-8")


@pytest.mark.long
def test_questions_to_draw_are_chosen(store: Path, tmp_path: Path) -> None:
    few = ("--controllers", "asc", "--betas", "0", "--shuffles", 1, "--watch", "asc@0", "--out", tmp_path / "p.html")
    invoke("report", store, *few, "--plots", tmp_path / "two", "--plot-question", "q3", "--plot-question", "q1")
    assert {path.name for path in (tmp_path / "two").iterdir()} == {
        f"{name}{ending}" for name in ("frontier", "tokens", "trace-q1", "trace-q3") for ending in (".png", ".svg")
    }
    svg = (tmp_path / "two" / "trace-q3.svg").read_text("utf-8")
    assert "<!-- question q3 -->" in svg
    invoke("report", store, *few, "--plots", tmp_path / "all", "--plot-question", "all")
    assert len(list((tmp_path / "all").glob("trace-*.png"))) == 5
    invoke("report", store, *few, "--plots", tmp_path / "first")
    assert len(list((tmp_path / "first").glob("trace*"))) == 2
    assert "unknown question 'q9'" in invoke(
        "report", store, *few, "--plots", tmp_path / "d", "--plot-question", "q9", code=1
    )
    assert not (tmp_path / "d").exists()
    assert "--plots" in invoke("report", store, *few, "--plot-question", "q1", code=1)


def test_the_same_id_in_two_stores_is_told_apart(tmp_path: Path) -> None:
    trace = Trace("q1", {"name": "asc"}, ({"round": 1, "tokens": 4, "answer": "7"},))
    asked = [Asked(f"{name}: q1", "", None, [None], [trace]) for name in ("one", "two")]
    page = Page("", {}, methods=["asc"], asked=asked)
    with pytest.raises(UnknownNameError, match="'one: q1', 'two: q1'"):
        list(draw_page(page, tmp_path, ["q1"]))


def test_questions_of_stores_of_one_name_are_told_apart(store: Path, tmp_path: Path) -> None:
    """The bug: a click on a question of the second store played the first's."""
    other = make_store(tmp_path / store.name, questions=5, seed=1)
    options = (
        "--controllers",
        "asc",
        "--betas",
        "0",
        "--shuffles",
        1,
        "--watch",
        "asc@0",
        "--out",
        tmp_path / "p.html",
    )
    invoke("report", store, other, *options)
    names = [question["name"] for question in Reader((tmp_path / "p.html").read_text("utf-8")).watched()]
    assert (len(set(names)), names[5]) == (10, "small (2): q0")


def test_questions_without_a_gold_answer_are_told_of(store: Path, tmp_path: Path) -> None:
    """The bug: an accuracy of 0 % without a word."""
    opened = TrajectoryStore.open(store)
    asked = [dataclasses.replace(question, gold_answer=None) for question in opened.questions]
    manifest = dataclasses.replace(opened.manifest, questions_sha256=questions_sha256(asked))
    with StoreWriter.open(tmp_path / "unknown", manifest, asked) as writer:
        writer.append(opened.trajectories())
    few = ("--controllers", "asc", "--betas", "0", "--shuffles", 1, "--watch", "asc@0", "--out", tmp_path / "p.html")
    invoke("report", tmp_path / "unknown", *few)
    assert "5 of 5 questions have no gold answer" in (tmp_path / "p.html").read_text("utf-8")
    with pytest.raises(InputError, match="'q0' has no gold_answer"):
        measure(find_source("asc"), [tmp_path / "unknown"], betas=[0.0], shuffles=1)
    invoke("report", store, *few)
    assert "no gold answer" not in (tmp_path / "p.html").read_text("utf-8")


def test_the_viewer_marks_what_counts_as_right(tiny_recording: Recording, store: Path, tmp_path: Path) -> None:
    """The bug: what the table counts as right had a cross in the viewer, where the gold answer is written otherwise."""
    first = tiny_recording.questions[0].question
    opened = TrajectoryStore.open(store)
    golds = [
        dataclasses.replace(asked, gold_answer=f"so it is\n#### {asked.gold_answer}") for asked in opened.questions
    ]
    recording = Recording.of(golds, opened.trajectories(), 10)
    (method,) = methods(["self_consistency"], [1.0], max_branches=24)
    asked = asked_of([recording], [method], [[evaluate_method(recording, method, 1)[1]]])
    shown = Reader(render(Page("", {}, methods=["SC"], asked=asked))).watched()
    assert [[row["answers"][n] for n in row["right"]] for row in shown] == [["1"]] * 5
    trace = tiny_recording.trace(load_controller("asc", beta=0.5), 0)
    gold = Question(trace.question_id, "", f"#### {first.gold_answer}")
    write_traces(tmp_path / "t.jsonl", [trace])
    right = of_traces([tmp_path / "t.jsonl"], [gold]).asked[0].right
    assert right is not None
    assert right(str(first.gold_answer))
    assert not right("another")


def test_questions_of_other_traces_are_refused(tiny_recording: Recording, tmp_path: Path) -> None:
    """The bug: they were left out without a word, and so was the accuracy that was asked for."""
    write_traces(tmp_path / "t.jsonl", [tiny_recording.trace(load_controller("asc", beta=0.5), 0)])
    (tmp_path / "q.jsonl").write_text('{"question_id": "other", "question": "?", "gold_answer": "7"}\n')
    files = ("report", tmp_path / "t.jsonl", "--questions", tmp_path / "q.jsonl", "--out", tmp_path / "p.html")
    assert "none of the 1 questions is traced" in invoke(*files, code=1)


def test_answers_of_a_model_are_text_never_markup() -> None:
    html = render(hostile_page())
    page = Reader(html)
    assert "img" not in page.tags
    assert page.tags.count("script") == 3  # the data, the viewer, the table
    assert page.watched()[0]["answers"] == [HOSTILE]


def refusals(store: Path, folder: Path) -> Iterator[tuple[tuple[object, ...], str]]:
    (folder / "s.json").write_text('{"format": "tts-sweep/1"}')
    (folder / "t.jsonl").write_text("")
    yield (folder / "none",), "no trajectory store"
    yield (folder / "s.json",), "reads 'tts-sweep/2'"
    yield (folder / "t.jsonl",), "holds no trace"
    yield (store, folder / "t.jsonl"), "one kind of thing"
    yield (folder / "s.json", folder / "s.json"), "a report is of one sweep"
    yield (folder / "s.json", "--betas", "0"), "--betas means nothing for sweep"
    yield (folder / "t.jsonl", "--shuffles", "3"), "--shuffles means nothing for traces"
    yield (store, "--questions", folder / "t.jsonl"), "--questions means nothing for stores"
    yield (store, "--watch", "cmc"), "--watch takes controller@beta, got 'cmc'"
    yield (store, "--watch", "cmc@many"), "--watch takes numbers"
    yield (store, "--watch", "acm@0.5"), "unknown controller 'acm'"
    yield (store, "--controllers", "deepconf", "--betas", "0"), "reads log-probabilities"


def test_what_cannot_be_reported_is_refused(store: Path, tmp_path: Path) -> None:
    for arguments, text in refusals(store, tmp_path):
        output = invoke("report", *arguments, "--out", tmp_path / "p.html", code=1).replace("\n", " ")
        assert "error: " in output
        assert text in output
    assert not (tmp_path / "p.html").exists()


def test_chart_lays_points_inside_and_in_order() -> None:
    points = [
        Point("a", 100.0, 50.0, (40.0, 60.0)),
        Point("a", 1000.0, 70.0, (60.0, 80.0)),
        Point("b", 10.0, 0.0, (0.0, 3.0)),
    ]
    drawn = FrontierChart.of(points, AXES["sequential_tokens"])
    assert drawn.axis.startswith("longest chain")
    (a, b) = drawn.series
    assert a.dots[0].x < a.dots[1].x
    assert a.dots[0].y > a.dots[1].y
    assert all(dot.low >= dot.y >= dot.high for series in drawn.series for dot in series.dots)
    assert [tick.text for tick in drawn.x_ticks] == ["10", "20", "50", "100", "200", "500", "1k"]
    assert b.name == "b"


def test_an_unknown_kind_of_path_is_told_apart(tmp_path: Path) -> None:
    from tts_generate.cli.report import kind_of

    with pytest.raises(InputError, match="no trajectory store"):
        kind_of([tmp_path])
