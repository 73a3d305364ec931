"""Answers that are the same mathematics are one answer: in votes, in stopping, in grading, from any thread."""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tts_generate import equivalence
from tts_generate.answers import AnswerBook
from tts_generate.errors import TTSError, UnknownNameError
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import Question, Trajectory

pytest.importorskip("math_verify")
SAME = [("0.5", r"\frac{1}{2}"), ("1,000", "1000"), (r"2\sqrt{2}", r"\sqrt{8}"), ("x+1", "1+x")]
DIFFERENT = [("1", "2"), ("", "1"), ("ERR", "0"), (r"\frac{1}{3}", "0.33"), ("(1,2)", "(2,1)")]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_the_same(one: str, other: str) -> None:
    assert equivalence.equivalent(one, other)
    assert equivalence.equivalent(other, one)


@pytest.mark.parametrize(("one", "other"), DIFFERENT)
def test_different(one: str, other: str) -> None:
    assert not equivalence.equivalent(one, other)


def test_from_many_threads() -> None:
    pairs = [*SAME, *DIFFERENT] * 8
    equivalence.equivalent.cache_clear()
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda pair: equivalence.equivalent(*pair), pairs)) == ([True] * 4 + [False] * 5) * 8


def test_an_answer_that_hangs_is_different_and_the_next_one_works() -> None:
    start = time.monotonic()
    assert not equivalence.equivalent("9" * 7 + "^{" + "9" * 7 + "^{9999}}", "1")
    assert time.monotonic() - start < 30
    assert equivalence.equivalent("0.25", r"\frac{1}{4}")


def test_a_script_without_a_main_guard_gets_right_answers(tmp_path: Path) -> None:
    """The child must not import the script that asks again."""
    script = tmp_path / "grade.py"
    script.write_text('from tts_generate.equivalence import equivalent\nprint(equivalent("1/2", "0.5"))\n')
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("True\n", "")


def test_a_child_that_cannot_run_is_an_error_and_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    equivalence.end()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(TTSError, match="math-verify could not be run"):
        equivalence.equivalent("0.125", "1/8")
    monkeypatch.undo()
    assert equivalence.equivalent("0.125", "1/8")


def branch(number: int, final: str) -> Trajectory:
    return Trajectory("q", number, 0, 1, 10, "eos", final, (), (), (), (), ())


def test_votes_and_stopping_go_by_mathematics() -> None:
    """ASC stops after three halves however they are written; told apart as texts they never agree."""
    finals = ["0.5", r"\frac{1}{2}", "1/2", r"\frac{2}{4}", "0.50", "3"]
    rows = [branch(n, final) for n, final in enumerate(finals)]
    questions = [Question("q", "", r"\frac12")]
    knobs = {"max_samples": 6, "threshold": 0.9, "shuffles": 0}
    by_text = replay(Recording.of(questions, rows, 10), "asc", **knobs)
    by_math = replay(Recording.of(questions, rows, 10, votes="math"), "asc", **knobs)
    assert (by_text.opened[0, 0], bool(by_text.correct[0, 0])) == (6, False)
    assert (by_math.opened[0, 0], bool(by_math.correct[0, 0])) == (3, True)


def test_only_two_ways_to_tell_answers_apart() -> None:
    with pytest.raises(UnknownNameError, match="math"):
        equivalence.same_answer("maths")
    assert equivalence.same_answer("equal") is None
    book = AnswerBook(equivalence.same_answer("math"))
    assert [book.id(a) for a in ("1/2", "0.5", "2")] == [0, 0, 1]
