"""A search ends with a controller folder that works; it goes on where it was killed, and refuses what it cannot use."""

from __future__ import annotations

import dataclasses
import hashlib
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_stores import make_store, setup, without_answers
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.errors import ControllerError, InputError, StoreError, UnknownNameError
from tts_generate.loading import builtin_folder, load_class, load_controller
from tts_generate.replay import replay
from tts_generate.search import Fidelity, Search, best_of, read_history, write_report
from tts_generate.search.history import History
from tts_generate.trajectories import Manifest, Question, StoreWriter
from tts_generate.trajectories.schema import questions_sha256

pytest.importorskip("numba")
pytest.importorskip("optuna")
ROUNDS = 2


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    return [make_store(folder / f"model{n}", seed=n) for n in range(2)]


@pytest.fixture(scope="module")
def run(stores: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished search."""
    out = tmp_path_factory.mktemp("search") / "run"
    held_out = make_store(out.parent / "held_out", seed=9)
    Search(setup(*stores)).run(out, minutes=1, max_rounds=ROUNDS, held_out=[held_out], threads=1)
    write_report(out)
    return out


def test_the_best_is_a_folder_that_works_without_trust(run: Path, stores: list[Path]) -> None:
    result = json.loads((run / "result.json").read_text())
    controller = load_controller(run / "best", beta=0.5)
    assert result["fresh"]["curve"]["betas"][1] == 0.5
    found = [replay(store, run / "best", beta=0.5, shuffles=4) for store in stores]
    accuracy = sum(100 * one.accuracy for one in found) / len(found)
    tokens = sum(one.tokens for one in found) / len(found)
    assert result["fresh"]["curve"]["accuracy"][1] == pytest.approx(accuracy)
    assert result["fresh"]["curve"]["tokens"][1] == pytest.approx(tokens)
    assert type(controller).__module__.startswith("tts_generate_schedule_best")
    assert not list((run / "best").glob("*.py"))


def test_the_best_answers_live(run: Path, tiny: tuple[Any, Any]) -> None:
    import tts_generate

    model, tokenizer = tiny
    tts_generate.enable(model, tokenizer=tokenizer)
    inputs = tokenizer("Q: a = 6 ; b = a * 3 ; b ? <think>", return_tensors="pt")
    how = {"strategy": "autotts", "controller": str(run / "best"), "beta": 0.0, "seed": 0}
    output = model.generate(**inputs, **how, return_dict_in_generate=True)
    assert output.answers[0] is not None
    assert output.trace[0].controller["knobs"] == load_controller(run / "best", beta=0.0).knobs


def test_the_report_command_shows_what_was_found(run: Path, stores: list[Path], tmp_path: Path) -> None:
    def report(*options: object, code: int = 0) -> str:
        told = CliRunner().invoke(app, ["report", str(run), "--out", str(tmp_path / "p.html"), *map(str, options)])
        assert told.exit_code == code, told.output
        return told.output.replace("\n", " ") if code else (tmp_path / "p.html").read_text("utf-8")

    assert report() == (run / "report.html").read_text("utf-8")
    watched = report("--store", stores[0], "--watch", "asc@0.5")
    assert 'id="watch-data"' in watched
    assert '"label": "found β=0.5"' in html.unescape(watched).replace("\\u03b2", "β")
    other = make_store(tmp_path / "other", seed=77)
    report("--store", stores[0], "--plots", tmp_path / "pictures")
    drawn = {path.stem for path in (tmp_path / "pictures").iterdir()}
    assert drawn == {"frontier", "trace"} | ({"held-out"} if (run / "held_out.json").exists() else set())
    assert "no question is traced" in report("--plots", tmp_path / "p", "--plot-question", "all", code=1)
    assert "name them with --store" in report("--watch", "asc@0.5", code=1)
    assert "other is none of the stores" in report("--store", other, code=1)


def test_the_report_says_what_was_tried_and_held_out(run: Path) -> None:
    result, page = json.loads((run / "result.json").read_text()), (run / "report.html").read_text()
    assert result["tried"] == len({e.candidate.name for e in read_history(run)})
    assert result["candidate"]["name"] in page
    assert page.count("<svg") == 2
    assert "held out, opened once after the choice" in page
    labels = {row["label"] for row in result["baselines"]}
    assert {"SC@24", "ASC@24", "Parallel-Probe@24", "cmc β=0.5"} <= labels


def test_held_out_stores_are_opened_once(run: Path, stores: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    before = (copy / "held_out.json").read_text()
    other = make_store(tmp_path / "other", seed=11)
    how: dict[str, Any] = {"minutes": 1, "max_rounds": ROUNDS, "held_out": [other], "threads": 1}
    said: list[str] = []
    result = Search(setup(*stores)).run(
        copy, **how, say=said.append, command="named in bytes: \udcff"
    )  # no text: a UnicodeEncodeError
    assert result["command"] == "named in bytes: \ufffd"
    assert said == [
        f"{copy / 'held_out.json'} stays as it is: held-out stores are opened once, after the first choice."
    ]
    assert (copy / "held_out.json").read_text() == before


def test_held_out_stores_that_cannot_be_measured_on_are_refused_first(stores: list[Path], tmp_path: Path) -> None:
    """The bug: after the whole search, so that its page was not written and its held-out numbers never came."""
    few = make_store(tmp_path / "few", questions=3, branches=2)
    same = shutil.copytree(stores[0], tmp_path / "same")
    for store, why in ((few, "2 branches a question of few have 2 orders"), (same, "same holds the same branches")):
        with pytest.raises(InputError, match=why):
            Search(setup(*stores)).run(tmp_path / "run", minutes=1, held_out=[store])
        assert not (tmp_path / "run").exists()


def test_a_shorter_sitting_tells_of_all_rounds(run: Path, stores: list[Path], tmp_path: Path) -> None:
    """The bug: the rounds of this sitting beside the candidates of all, and with no round billions a minute."""
    copy, before = shutil.copytree(run, tmp_path / "run"), json.loads((run / "result.json").read_text())
    for rounds in (1, 0):
        told = Search(setup(*stores)).run(copy, minutes=1, max_rounds=rounds, threads=1)
        for name in ("rounds", "tried", "seconds", "candidates_per_minute"):
            assert told[name] == before[name]


def test_numbers_of_numpy_and_lists_are_numbers(stores: list[Path], tmp_path: Path) -> None:
    """The bugs: TypeError, of json and of a hash."""
    looks = {name: Fidelity([0.0, 0.5, 1.0], np.int64(2), 5_000) for name in ("select", "fresh")}  # type: ignore[arg-type]
    asked = setup(*stores, seed=np.int64(1), share=np.float32(0.25), rungs=[Fidelity(np.array([0.0, 1.0]), 2, 1_000)])  # type: ignore[arg-type]
    told = Search(dataclasses.replace(asked, **looks)).run(tmp_path / "run", minutes=1, max_rounds=1, threads=1)
    assert (told["settings"]["seed"], told["settings"]["share"]) == (1, 0.25)


def test_what_was_found_is_watched_as_it_was_measured(run: Path, stores: list[Path], tmp_path: Path) -> None:
    """The bugs: it asked for more branches than there are; and after a kill another candidate was called the found."""
    store = make_store(tmp_path / "small", branches=6)
    Search(setup(store, knobs=("read_bar",))).run(tmp_path / "run", minutes=1, max_rounds=1, threads=1)
    how = ["report", str(tmp_path / "run"), "--store", str(store), "--out", str(tmp_path / "p.html")]
    done = CliRunner().invoke(app, how)
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "run" / "result.json").read_text())
    told["candidate"]["name"] = "another"
    (tmp_path / "run" / "result.json").write_text(json.dumps(told))
    done = CliRunner().invoke(app, how)
    assert (done.exit_code, "of another; run the search again" in done.output.replace("\n", " ")) == (1, True)


def test_held_out_numbers_of_an_earlier_choice_are_told_as_such(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert "an earlier choice" not in write_report(copy).read_text()
    told = json.loads((copy / "result.json").read_text())
    told["candidate"]["name"] = "another"
    (copy / "result.json").write_text(json.dumps(told))
    name = json.loads((copy / "held_out.json").read_text())["candidate"]["name"]
    assert write_report(copy).read_text().count(f", of {name}, an earlier choice") == 2


def test_the_page_sets_no_questions_aside_where_none_were(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    assert "set aside" in write_report(copy).read_text()
    told = json.loads((copy / "result.json").read_text())
    told["settings"]["share"] = 0.0
    (copy / "result.json").write_text(json.dumps(told))
    assert "set aside" not in write_report(copy).read_text()


def test_held_out_stores_without_answers_are_refused_before_anything_runs(stores: list[Path], tmp_path: Path) -> None:
    """The bug: the search ran, and then every answer counted as wrong: a gain of 0, a saving of 86 %."""
    without_answers(make_store(tmp_path / "asked", seed=9), tmp_path / "held", 8)
    with pytest.raises(InputError, match="has no gold_answer"):
        Search(setup(*stores)).run(tmp_path / "run", minutes=1, max_rounds=1, held_out=[tmp_path / "held"])
    with pytest.raises(StoreError, match="not a trajectory store"):
        Search(setup(*stores)).run(tmp_path / "run", minutes=1, max_rounds=1, held_out=[tmp_path / "gone"])
    assert not (tmp_path / "run").exists()


def test_what_was_searched_on_cannot_be_held_out(stores: list[Path], tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be held out"):
        Search(setup(*stores)).run(tmp_path / "run", minutes=1, max_rounds=1, held_out=[stores[0]])
    twin = shutil.copytree(stores[0], tmp_path / "twin")
    with pytest.raises(InputError, match="the same branches as a store of the search set"):
        Search(setup(*stores)).run(tmp_path / "run", minutes=1, max_rounds=1, held_out=[twin], threads=1)


def test_the_same_seed_is_the_same_run_and_another_is_not(run: Path, stores: list[Path], tmp_path: Path) -> None:
    Search(setup(*stores)).run(tmp_path / "again", minutes=1, max_rounds=ROUNDS, threads=3)
    assert [e.to_dict() for e in read_history(tmp_path / "again")] == [e.to_dict() for e in read_history(run)]
    Search(setup(*stores, seed=1)).run(tmp_path / "other", minutes=1, max_rounds=1, threads=1)
    assert [e.to_dict() for e in read_history(tmp_path / "other")] != [e.to_dict() for e in read_history(run)]


KILLED = """
import sys
from pathlib import Path
from search_stores import setup
from tts_generate.search import Search
Search(setup(*map(Path, sys.argv[2:]))).run(Path(sys.argv[1]), minutes=1, max_rounds=2, threads=1)
"""


def test_killed_at_any_moment_it_loses_nothing(run: Path, stores: list[Path], tmp_path: Path) -> None:
    """Killed in a round; what was on the disk is there, and the end is that of the run that was not killed."""
    out = tmp_path / "run"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(out), *map(str, stores)], env=environment)
    while process.poll() is None and _seen(out) < 30:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = [e.to_dict() for e in read_history(out)]
    Search(setup(*stores)).run(out, minutes=1, max_rounds=ROUNDS, threads=1)
    after = [e.to_dict() for e in read_history(out)]
    assert 30 <= len(before) < len(after)
    assert after[: len(before)] == before
    assert after == [e.to_dict() for e in read_history(run)]
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (run, out))
    assert first["candidate"] == second["candidate"]
    assert first["fresh"] == second["fresh"]


def _seen(out: Path) -> int:
    return len(read_history(out)) if (out / "search.json").is_file() else 0


FULL = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000)); import signal; "
FULL += "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n" + KILLED


def test_a_full_disk_is_one_clear_error_and_what_was_there_stays(run: Path, stores: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "run"
    paths = [str(Path(__file__).parent), str(Path(__file__).parents[2] / "src")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-c", FULL, str(out), *map(str, stores)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "StoreError: cannot write" in done.stderr
    assert "history.journal: File too large" in done.stderr
    kept = [e.to_dict() for e in read_history(out)]
    assert kept
    assert kept == [e.to_dict() for e in read_history(run)][: len(kept)]


class TestRefused:
    def test_a_folder_of_another_search(self, run: Path, stores: list[Path], tmp_path: Path) -> None:
        before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()}
        with pytest.raises(InputError, match=r"another search \(seed: 0 there, 7 now\)"):
            Search(setup(*stores, seed=7)).run(run, minutes=1, max_rounds=1)
        with pytest.raises(InputError, match=r"another search .*stores"):
            Search(setup(stores[0])).run(run, minutes=1, max_rounds=1)
        assert {path.name: path.read_bytes() for path in run.iterdir() if path.is_file()} == before

    def test_a_controller_that_was_changed(self, stores: list[Path], tmp_path: Path) -> None:
        """The bug: evaluations of its code before were taken for those of its code now."""
        own = Path(shutil.copytree(builtin_folder("worth"), tmp_path / "own"))

        def run() -> None:
            chosen = setup(*stores, controller=str(own), trust_remote_code=True, knobs=("n_init",))
            Search(chosen).run(tmp_path / "run", minutes=1, max_rounds=1, threads=1)

        run()
        code = (own / "controller.py").read_bytes() + b"\n# changed\n"
        card = json.loads((own / "controller.json").read_text())
        (own / "controller.json").write_text(json.dumps({**card, "sha256": hashlib.sha256(code).hexdigest()}))
        (own / "controller.py").write_bytes(code)
        with pytest.raises(InputError, match=r"another search \(code: "):
            run()

    def test_a_folder_that_another_process_searches_in(self, tmp_path: Path) -> None:
        """The bug: both wrote their records over one another's, and either spent all of the budget."""
        first = History(tmp_path / "run", {"seed": 0})
        with pytest.raises(StoreError, match="written by another process"):
            History(tmp_path / "run", {"seed": 0})
        first.finish_round(0, 1.0)
        first.close()
        again = History(tmp_path / "run", {"seed": 0})
        assert again.rounds == 1
        again.close()

    def test_a_folder_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreError, match=r"cannot write .*: Not a directory"):
            History(tmp_path / "file" / "deeper" / "run", {"seed": 0})

    def test_a_folder_of_something_else(self, stores: list[Path], tmp_path: Path) -> None:
        (tmp_path / "thesis.txt").write_text("mine")
        with pytest.raises(InputError, match="something else than a search"):
            Search(setup(*stores)).run(tmp_path, minutes=1, max_rounds=1)
        assert (tmp_path / "thesis.txt").read_text() == "mine"

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"questions": 1}, "holds 1 question"),
            ({"branches": 1}, "a question with 1 branch"),
            ({"branches": 2}, "2 branches a question of store have 2 orders, and this search looks at 4"),
            ({"right": 1.0}, "ends with a right answer"),
            ({"right": 0.0}, "ends with a wrong answer"),
        ],
    )
    def test_search_sets_that_teach_nothing(self, options: dict[str, Any], text: str, tmp_path: Path) -> None:
        store = make_store(tmp_path / "store", **options)
        with pytest.raises(InputError, match=text):
            Search(setup(store)).run(tmp_path / "run", minutes=1, max_rounds=1)
        assert not (tmp_path / "run").exists()

    def test_an_empty_store(self, stores: list[Path], tmp_path: Path) -> None:
        manifest = Manifest.from_json((stores[0] / "manifest.json").read_text(), "manifest")
        questions = [Question("q", "?", "1")]
        manifest = dataclasses.replace(manifest, questions_sha256=questions_sha256(questions))
        with StoreWriter.open(tmp_path / "empty", manifest, questions):
            pass
        with pytest.raises(StoreError, match="holds no recorded branch"):
            Search(setup(tmp_path / "empty"))
        with pytest.raises(InputError, match="at least one store"):
            Search(setup())

    def test_stores_of_one_name(self, stores: list[Path], tmp_path: Path) -> None:
        """The bug: by their names one hid the other, its steps, its gain and whether it was searched on before."""
        twin = shutil.copytree(stores[0], tmp_path / "twin")
        other = make_store(tmp_path / "other" / "twin", seed=5)
        with pytest.raises(InputError, match="2 stores are called 'twin'"):
            Search(setup(twin, other))
        with pytest.raises(InputError, match="2 stores are called 'twin'"):
            Search(setup(stores[0])).run(tmp_path / "r", minutes=1, max_rounds=1, held_out=[twin, other], threads=1)

    def test_options_that_cannot_be(self, stores: list[Path], tmp_path: Path) -> None:
        with pytest.raises(InputError, match="minutes must be above 0"):
            Search(setup(*stores)).run(tmp_path / "run", minutes=0)
        with pytest.raises(InputError, match="one positive number a store"):
            Search(setup(*stores, weights=(1.0,)))
        with pytest.raises(UnknownNameError, match="did you mean 'read_bar'"):
            Search(setup(*stores, knobs=("readbar",)))
        with pytest.raises(ControllerError, match="ESC declares no ranges"):
            Search(setup(*stores, controller="esc"))
        with pytest.raises(UnknownNameError, match="did you mean 'cmc'"):
            Search(setup(*stores, reference="cnc"))

    @pytest.mark.parametrize("file", ["result.json", "held_out.json"])
    def test_a_damaged_result(self, file: str, run: Path, tmp_path: Path) -> None:
        copy = shutil.copytree(run, tmp_path / "run")
        whole = json.loads((copy / file).read_text())
        for damaged, text in (
            ({"format": "x"}, "has format 'x'"),
            ({**whole, "baselines": [1]}, r"baselines\[0\] is 1"),
        ):
            (copy / file).write_text(json.dumps(damaged))
            with pytest.raises(InputError, match=text):  # a KeyError, it was
                write_report(copy)

    def test_a_report_before_the_end(self, tmp_path: Path) -> None:
        with pytest.raises(InputError, match=r"no result\.json yet"):
            write_report(tmp_path)
        with pytest.raises(InputError, match="not the folder of a search"):
            read_history(tmp_path)


def test_knobs_that_are_not_searched_keep_their_schedule(stores: list[Path], tmp_path: Path) -> None:
    Search(setup(*stores, knobs=("n_init", "read_bar"))).run(tmp_path / "run", minutes=1, max_rounds=1, threads=1)
    for evaluation in read_history(tmp_path / "run"):
        assert set(evaluation.candidate.schedule) == {"n_init", "read_bar"}
    found, worth = load_controller(tmp_path / "run" / "best", beta=1.0), load_controller("worth", beta=1.0)
    assert found.knobs["wave_bar"] == worth.knobs["wave_bar"]


def test_a_controller_of_ones_own_is_searched_and_copied(stores: list[Path], tmp_path: Path) -> None:
    folder = shutil.copytree(builtin_folder("asc"), tmp_path / "mine")
    code = (folder / "controller.py").read_text()
    code = code.replace(
        '    probing = "never"\n', '    probing = "never"\n    ranges = {"max_samples": Range(2, 64, "log")}\n'
    )
    code = code.replace("from tts_generate.state", "from tts_generate.schedule import Range\nfrom tts_generate.state")
    (folder / "controller.py").write_text(code)
    card = json.loads((folder / "controller.json").read_text())
    import hashlib

    card["sha256"] = hashlib.sha256(code.encode()).hexdigest()
    (folder / "controller.json").write_text(json.dumps(card))
    chosen = setup(*stores, controller=str(folder), reference="asc", trust_remote_code=True)
    Search(chosen).run(tmp_path / "run", minutes=1, max_rounds=1, threads=1)
    found = load_controller(tmp_path / "run" / "best", beta=1.0, trust_remote_code=True)
    assert found.knobs["threshold"] == 0.95
    assert load_class((tmp_path / "run" / "best").resolve())[0].schedule(1.0)["max_samples"] <= 24
    for name in ("controller.json", "README.md"):  # or it could not be published from a home folder
        assert str(tmp_path) not in (tmp_path / "run" / "best" / name).read_text()


def test_history_lists_compares_and_plots(run: Path, tmp_path: Path) -> None:
    best = best_of(read_history(run), 2)
    runner = CliRunner()
    listed = runner.invoke(app, ["history", str(run), "--plot", str(tmp_path / "best.svg")])
    assert listed.exit_code == 0, listed.output
    assert best[0].candidate.name in listed.output
    assert (tmp_path / "best.svg").read_text().lstrip().startswith("<?xml")
    names = f"{best[0].candidate.name},{best[1].candidate.name}"
    assert "knobs that differ" in runner.invoke(app, ["history", str(run), "--diff", names]).output
    wrong = runner.invoke(app, ["history", str(run), "--diff", "nobody,none"])
    assert wrong.exit_code == 1
    both = CliRunner().invoke(app, ["history", str(run), "--diff", "a,b", "--plot", str(tmp_path / "none.png")])
    assert (both.exit_code, "--diff, --plot show one thing each" in both.output) == (1, True)  # --plot was ignored
    assert not (tmp_path / "none.png").exists()


def test_a_damaged_journal_costs_what_it_hits_only(run: Path, stores: list[Path], tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "run")
    journal = copy / "history.journal"
    data = bytearray(journal.read_bytes())
    data[100] ^= 0xFF
    journal.write_bytes(bytes(data))
    settings = json.loads((copy / "search.json").read_text())
    history = History(copy, {name: value for name, value in settings.items() if name != "format"})
    assert len(history.evaluations) == len(read_history(run)) - 1
    history.close()
    Search(setup(*stores)).run(copy, minutes=1, max_rounds=ROUNDS, threads=1)
    assert {e.candidate.name for e in read_history(copy)} == {e.candidate.name for e in read_history(run)}


def test_the_command_line(stores: list[Path], tmp_path: Path) -> None:
    command = ["search", str(stores[0]), "--out", str(tmp_path / "run"), "--minutes", "0.001", "--rounds", "1"]
    done = CliRunner().invoke(app, [*command, "--knobs", "n_init,read_bar", "--threads", "1"])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "run" / "report.html").is_file()
    assert (tmp_path / "run" / "best" / "controller.json").is_file()
