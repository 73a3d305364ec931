"""Answers that are the same mathematics are one answer: in votes, in stopping, in grading, from any thread."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tts_generate import equivalence
from tts_generate.answers import AnswerBook
from tts_generate.equivalence import Partition, grouped
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
    book = AnswerBook(Partition(["1/2", "0.5", "2"]).head)
    assert [book.id(a) for a in ("1/2", "0.5", "2")] == [0, 0, 1]


AMBIGUOUS = ["50", "50", r"50\%", "0.5", r"\frac12", "1/2", "1/3", "0.333333", "0.3333333333", "7", "listen", "silent"]
"""math-verify holds 50 % for 50 and for a half, and what is near a third for a third."""


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(AMBIGUOUS), max_size=12), st.randoms(use_true_random=False))
def test_a_partition_does_not_depend_on_the_order(answers: list[str], shuffler: random.Random) -> None:
    shuffled = list(answers)
    shuffler.shuffle(shuffled)
    found, again = Partition(answers), Partition(shuffled)
    heads = [found.head(answer) for answer in AMBIGUOUS]
    assert heads == [again.head(answer) for answer in AMBIGUOUS]
    assert all(found.head(head) == head for head in heads)  # a group's name is in it
    book = AnswerBook(found.head)
    ids = [book.id(answer) for answer in answers]
    assert [book.text(number) for number in ids] == [found.head(answer) for answer in answers]


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.sampled_from("abcdefgh"), st.integers(1, 3), max_size=8),
    st.sets(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh"))),
    st.randoms(use_true_random=False),
)
def test_any_relation_gives_one_partition(
    votes: dict[str, int], pairs: set[tuple[str, str]], shuffler: random.Random
) -> None:
    """Whatever a test of equality says: its ambiguous answers never bring two groups together."""
    asked: list[tuple[str, str]] = []

    def same(one: str, other: str) -> bool:
        asked.append((one, other))
        return one == other or (one, other) in pairs or (other, one) in pairs

    found = grouped(votes, same)
    assert len(asked) == len(votes) * (len(votes) - 1) // 2
    items = list(votes.items())
    shuffler.shuffle(items)
    assert grouped(dict(items), same) == found
    near = {one: {other for other in votes if same(one, other)} for one in votes}
    certain = {one for one in votes if all(near[one] <= near[other] for other in near[one])}
    for one in votes:
        assert found[one] in near[one]
        for other in certain & {one}:
            assert {each for each in certain if found[each] == found[other]} == near[other] & certain


def test_who_is_ambiguous_joins_the_larger_group() -> None:
    half, fifty, percent = "0.5", "50", r"50\%"
    for answers, head in (
        ([half, half, fifty, percent], half),
        ([half, fifty, fifty, percent], fifty),
        ([half, fifty, percent, percent], half),  # as many: the text that comes first
        ([r"\frac12", half, half, fifty, fifty, percent], half),  # a half has three
    ):
        assert Partition(answers).head(percent) == head
        assert Partition(answers).head(half) != Partition(answers).head(fifty)
    together = Partition([half, percent, percent])  # nothing says that it is ambiguous
    assert together.head(percent) == together.head(half) == percent


def test_no_chain_of_near_numbers() -> None:
    """Neighbours of a chain are equal, its ends are not: the middle has most, and does not bring the ends together."""
    votes = {"1": 1, "2": 9, "3": 2}
    assert grouped(votes, lambda one, other: abs(int(one) - int(other)) <= 1) == {"3": "3", "2": "3", "1": "1"}


def test_many_different_answers_are_few_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """One look at each; whole numbers and words that differ as forms are told apart without asking."""
    asked: list[tuple[str, ...]] = []
    ask = equivalence._ask
    monkeypatch.setattr(equivalence, "_ask", lambda *answers: asked.append(answers) or ask(*answers))
    equivalence.equivalent.cache_clear()
    equivalence._form.cache_clear()
    answers = [str(1000 + n) for n in range(60)] + ["1,000", "some words", r"\text{other words}", r"\frac{1}{2}"]
    heads = {Partition(answers).head(answer) for answer in answers}
    assert len(heads) == len(answers) - 1
    assert sum(len(each) == 1 for each in asked) == len(answers) - 2  # words are read here
    assert len(asked) <= len(answers) + 60 + 2 * 62  # one fraction with all, two words with what is not words
    done = len(asked)
    Partition(answers[::-1])
    assert len(asked) == done


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("listen", "silent", False),
        ("East", r"\text{east}", True),
        (r"\text{seat}", "east", False),
        ("new york", "York new", False),
        ("1/0", "2/0", False),
        ("A", "(A)", True),
        ("A", "B", False),
        ("ab", "ba", True),
    ],
)
def test_words_are_no_products(one: str, other: str, same: bool) -> None:
    assert equivalence.equivalent(one, other) is same
    assert len({Partition([one, other]).head(one), Partition([one, other]).head(other)}) == 2 - same


def test_a_replay_by_mathematics_does_not_depend_on_the_order_of_recording() -> None:
    """The order in which branches were recorded decided whether 50 % was a vote for 50, and so who won."""
    finals = ["50", r"50\%", "0.5", "3", "3", "50"]
    wins = set()
    for first in range(len(finals)):
        turned = [*finals[first:], *finals[:first]]
        rows = [branch(n, final) for n, final in enumerate(turned)]
        recording = Recording.of([Question("q", "", "50")], rows, 10, votes="math")
        done = replay(recording, "self_consistency", max_samples=6, shuffles=20)
        wins.add(done.accuracy)
        (recorded,) = recording.questions
        assert recorded.book.id(r"50\%") == recorded.book.id("50") == recorded.gold != recorded.book.id("0.5")
    assert wins == {1.0}


def test_a_forked_process_compares_by_its_own() -> None:
    """It shared its parent's pipe: it hung for ever, or took the parent's replies, and the parent took its."""
    code = (
        "import os, sys\nfrom tts_generate.equivalence import equivalent\nequivalent('0.5', '1/2')\n"
        "if not (child := os.fork()):\n    sys.exit(0 if equivalent('0.25', '1/4') else 3)\n"
        "assert os.waitpid(child, 0)[1] == 0\n"
        "assert equivalent('0.75', '3/4') and not equivalent('z', 'z+1')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)


def test_an_interrupted_question_leaves_no_reply_for_the_next() -> None:
    """The reply to what Ctrl-C cut short was taken for that to the next question, and so on: wrong, or a traceback."""
    assert equivalence.equivalent("0.5", r"\frac{1}{2}")
    interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    interrupt.start()
    with pytest.raises(KeyboardInterrupt):
        equivalence._ask("9" * 7 + "^{" + "9" * 7 + "^{9999}}", "1")  # takes seconds
    assert equivalence.equivalent("0.0625", r"\frac{1}{16}")
    assert not equivalence.equivalent("w+1", "w+2")


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGINT])
def test_a_child_that_went_while_nobody_asked_is_replaced(sent: signal.Signals) -> None:
    """The next two answers were held to be different for it, and that was kept."""
    assert equivalence.equivalent("0.5", r"\frac{1}{2}")
    assert equivalence._ask("0.5", "1/2")
    child = equivalence._child
    assert child is not None
    assert os.getpgid(child.process.pid) != os.getpgid(0)  # Ctrl-C in a terminal does not reach it
    os.kill(child.process.pid, sent)
    child.process.wait()
    assert equivalence._ask("0.0125", r"\frac{1}{80}") is True
