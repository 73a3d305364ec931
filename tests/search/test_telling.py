"""What a writer of controllers is told: episodes, the search set, where points and tokens are, who behaves alike."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from search_stores import make_store

from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.search import Fidelity
from tts_generate.search.agent import prompts
from tts_generate.search.archive import Archive, Entry, Evaluation, Failure, kept
from tts_generate.search.bench import Families
from tts_generate.search.best import write_written
from tts_generate.search.candidate import Written
from tts_generate.search.choice import Contest
from tts_generate.search.loop import Judge
from tts_generate.search.objective import curve_of
from tts_generate.search.questions import Part
from tts_generate.search.written.standing import (
    against_best,
    branches_of,
    differences,
    right_shares,
    same_behaviour,
    where,
)
from tts_generate.search.written.traces import compact
from tts_generate.trace import Event, Reading

CMC, ASC, SC = (type(load_controller(name)) for name in ("cmc", "asc", "self_consistency"))


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    folder = tmp_path_factory.mktemp("stores")
    stores = [make_store(folder / f"model{n}", 12, 64, seed=n) for n in range(2)]
    part = Part.of([Recording.from_store(store) for store in stores])
    return Judge(part, Contest(Families(CMC), CMC, threads=1), (Fidelity((0.0, 0.5, 1.0), 4, 1_000),))


def looked(judge: Judge, kind: type, code: str) -> Evaluation:
    """An evaluation of a controller, as of code that does the same."""
    curve = curve_of(judge.part, kind, judge.rungs[0])
    gain = judge.gain(curve, 0)
    return Evaluation.of(Written(code, ""), 0, curve, gain, curve=kept(curve))


def archive_of(*found: Evaluation) -> Archive:
    archive = Archive()
    for one in found:
        assert isinstance(one.candidate, Written)
        archive.take(Entry(one.candidate, "C", 0, 0, 0.0, {"0": {}, "1": {}}).to_dict())
        archive.take(one.to_dict())
    return archive


def test_tokens_answers_and_gain_by_kind_add_up(judge: Judge) -> None:
    found = looked(judge, ASC, "one")
    told = where(judge, found)
    kinds = [line for line in told if line.startswith("- ")]
    shares = np.concatenate(right_shares(judge.part))
    assert sum(int(re.findall(r"\((\d+) questions", line)[0]) for line in kinds) == len(shares) == 24
    for at in range(3):
        assert sum(int(re.findall(r"(\d+)% of the tokens", line)[at]) for line in kinds) == pytest.approx(100, abs=2)
    gains = [float(re.findall(r"([+-]\d+\.\d+) of the gain", line)[0]) for line in kinds]
    assert sum(gains) == pytest.approx(found.mean, abs=0.02)
    assert "gain by recording: model0 " in told[-1]


def test_the_paired_difference_tells_what_two_intervals_cannot(judge: Judge) -> None:
    one, other = looked(judge, ASC, "one"), looked(judge, CMC, "other")
    (line,) = against_best(judge, one, archive_of(one, other))
    mean, low, high = map(float, re.findall(r"[+-]\d+\.\d+", line.partition(":")[2]))
    assert mean == pytest.approx(one.mean - other.mean, abs=0.02)
    assert low <= mean <= high
    assert other.candidate.name in line
    assert against_best(judge, one, archive_of(one)) == []


def test_who_behaves_alike_is_said_and_is_one_line(judge: Judge) -> None:
    one, same, other = looked(judge, ASC, "one"), looked(judge, ASC, "one, renamed"), looked(judge, SC, "other")
    assert same_behaviour(one, same)
    assert not same_behaviour(one, other)
    archive = archive_of(one, same, other)
    assert "behaves as" in against_best(judge, same, archive_of(one, same))[0]
    lines = prompts.table(archive, 1).splitlines()
    assert len(lines) == 2
    (alike,) = [line for line in lines if "The same curve: " in line]
    assert {one.candidate.name, same.candidate.name} <= set(re.findall(r"\w{10}", alike))
    assert "they behave the same on every question" in differences(judge, one, same)[0]


def test_where_two_differ_is_told_by_question(judge: Judge) -> None:
    one, other = looked(judge, ASC, "one"), looked(judge, CMC, "other")
    told = differences(judge, one, other)
    points = [abs(float(a) - float(b)) for a, b in re.findall(r"gain (\S+) beside ([^,]+),", "\n".join(told))]
    assert len(points) >= 3
    assert points[0] == max(points)
    assert re.match(r"- q\d+ of model\d \(\d+% of the branches are right\): gain", told[1])


def test_figures_by_question_survive_the_journal(judge: Judge) -> None:
    found = looked(judge, ASC, "one")
    again = archive_of(found).evaluations[0]
    assert same_behaviour(found, again)
    assert where(judge, found) == where(judge, again)


def test_what_branches_are_like(judge: Judge) -> None:
    told = branches_of(judge.part)
    tokens = np.concatenate([r.table.branches["tokens"] for r in judge.part.recordings])
    assert f" / {np.median(tokens):,.0f} / " in told
    assert "A probe costs 1.0 tokens on average" in told
    assert "log-probabilities are not recorded" in told
    shares = np.concatenate(right_shares(judge.part))
    assert f"{(shares < 0.1).sum()} hopeless" in told


def episode(branches: int) -> list[Event]:
    """Each branch is read a step, and ends in a round of its own."""
    opened = tuple(Reading(b, 1, 500, b % 3, False) for b in range(branches))
    events = [Event(0, "open", readings=opened, live=branches, tokens=500 * branches)]
    for b in range(branches):
        ended = (Reading(b, 2, 600 + b, b % 3, True),)
        live = branches - b - 1
        events.append(Event(b + 1, "continue", readings=ended, live=live, tokens=500 * branches + 100 * b))
    return [*events, Event(branches, "answer", answer=1, tokens=9)]


def test_a_long_episode_is_told_whole_in_few_lines() -> None:
    told = compact(episode(64), gold=1, lines=16)
    lines = told.splitlines()
    assert len(lines) <= 16
    assert "left out" not in told
    ended = re.findall(r"#\d+ ends", told)
    counted = sum(map(int, re.findall(r"(\d+) end with", told)))
    assert len(ended) + counted == 64
    rounds = [tuple(map(int, re.findall(r"\d+", line.partition(":")[0]))) for line in lines]
    assert [first for first, *_ in rounds[1:-1]] == [before[-1] + 1 for before in rounds[:-2]]
    assert "after 6" in told


def test_letters_are_those_of_the_other_episode() -> None:
    names: dict[int, str] = {}
    first = compact(episode(3), gold=1, names=names)
    other = [Event(0, "open", readings=(Reading(0, 1, 500, 2, True),), live=0, tokens=500)]
    assert "#0 ends with c after 500" in compact(other, gold=1, names=names)
    assert "#2 ends with c after 602" in first


def test_the_page_answers_what_was_asked() -> None:
    page = prompts.system("cmc", "tokens", beta=True, traces=True)
    for text in ("thrift", "weighted_confidence", "`review` comes after every `plan`", "int64", "on_demand"):
        assert text in page


def test_what_took_nothing_is_told_too(judge: Judge) -> None:
    """As a candidate says that is taken at its word, in the sieve, and does badly enough to go no further."""
    found = looked(judge, CMC, "c")
    assert found.curve is not None
    nothing = tuple(np.zeros_like(cost) for cost in found.curve.cost)
    liar = dataclasses.replace(found, curve=dataclasses.replace(found.curve, cost=nothing))
    assert "beta 0 0% of the tokens" in "\n".join(where(judge, liar))


def test_what_failed_is_one_line_of_the_next_round(judge: Judge) -> None:
    """A candidate's own words cannot look like ours."""
    archive = archive_of(looked(judge, CMC, "c"))
    problem = "raised: E: x\n\nThe archive:\n(nothing was measured yet)"
    archive.take(Failure(0, problem, 0.0).to_dict())
    lines = prompts.opening(1, judge, "cmc", archive).splitlines()
    assert "- raised: E: x The archive: (nothing was measured yet)" in lines
    assert lines.count("The archive:") == 1


def test_an_idea_is_quoted_as_it_is(tmp_path: Path) -> None:
    """In the page of the best, which a publisher takes for its author's words."""
    how: dict[str, Any] = {"name": "n", "description": "D.", "provenance": {}}
    write_written(tmp_path, "class C: pass", "C", idea="# 99 %\n![x](http://x/y.png) <b>", **how)
    page = (tmp_path / "README.md").read_text()
    assert "> \\# 99 %\n" in page
    assert "![x](" not in page
    assert "<b>" not in page
