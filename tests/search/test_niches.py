"""Parents that differ: niches over tokens and longest chain, novelty by behaviour, and what a program is told of both."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scripted import program, told
from search_stores import make_store, setup
from test_telling import ASC, CMC, SC, archive_of, looked
from written_candidates import GOOD, name

from tts_generate.profile import Profile
from tts_generate.replay import Recording
from tts_generate.sandbox import Sandbox
from tts_generate.search import Fidelity, Search
from tts_generate.search.agent import Agent, prompts
from tts_generate.search.archive import Archive, Entry, Evaluation, kept
from tts_generate.search.bench import Families
from tts_generate.search.candidate import Written
from tts_generate.search.choice import Contest
from tts_generate.search.loop import Judge
from tts_generate.search.objective import curve_of
from tts_generate.search.questions import Part
from tts_generate.search.written import niches

WIDE = GOOD.replace("OneByOne", "AtOnce").replace(
    "min(2, self.width, state.max_branches)", "min(self.width, state.max_branches)"
)
"""Side by side what `GOOD` reads one after the other."""


@pytest.fixture(scope="module")
def judge(tmp_path_factory: pytest.TempPathFactory) -> Judge:
    part = Part.of([Recording.from_store(make_store(tmp_path_factory.mktemp("stores") / "model", 12, 64))])
    return Judge(part, Contest(Families(CMC), CMC, threads=1), (Fidelity((0.0, 0.5, 1.0), 4, 1_000),))


def other_than(found: Evaluation, code: str, points: float, *, backwards: bool) -> Evaluation:
    """Code with so many points less everywhere, which spends on the last question what `found` does on the first."""
    assert found.curve is not None
    curve = dataclasses.replace(
        found.curve,
        accuracy=tuple(values - points for values in found.curve.accuracy),
        cost=tuple(values[:, ::-1] if backwards else values for values in found.curve.cost),
    )
    return dataclasses.replace(found, candidate=Written(code, ""), curve=curve, score=found.score - points)


def test_a_candidate_stands_where_its_budgets_are(judge: Judge) -> None:
    one_by_one, at_once = (niches.places(judge, looked(judge, kind, "code")) for kind in (ASC, SC))
    assert {place.niche.partition(", ")[2] for place in one_by_one} == {"a longer chain"}
    assert {place.niche.partition(", ")[2] for place in at_once} == {"a shorter chain"}
    for place in (*one_by_one, *at_once):
        assert (place.chain > place.usual) == place.niche.endswith("a longer chain")
    tokens = [place.tokens for place in at_once]
    assert tokens == sorted(tokens)
    itself = curve_of(judge.part, CMC, Fidelity((0.0, 0.5, 1.0), 4, 1_000))
    gain = judge.gain(itself, 0)
    same = Evaluation.of(Written("itself", ""), 0, itself, gain, curve=kept(itself))
    assert max(abs(place.gain) for place in niches.places(judge, same)) < 0.05


def test_who_is_best_nowhere_is_no_parent_and_who_is_worse_but_elsewhere_is(judge: Judge) -> None:
    one, copy, other = looked(judge, ASC, "one"), looked(judge, ASC, "copy"), looked(judge, SC, "other")
    worse = other_than(one, "worse", 1.0, backwards=False)
    archive = archive_of(one, copy, worse, other)
    found = niches.parents(judge, archive, 1)
    assert [parent.name for parent in found] == [one.candidate.name, other.candidate.name]
    assert other.score < worse.score
    assert niches.leads(judge, other, archive)
    assert not niches.leads(judge, worse, archive)
    assert niches.parents(judge, archive, 0) == []


def test_who_behaves_otherwise_is_a_parent_though_others_score_more(judge: Judge) -> None:
    one = looked(judge, ASC, "one")
    near, far = (other_than(one, code, 0.5, backwards=code == "far") for code in ("near", "far"))
    poor = other_than(one, "poor", 30.0, backwards=True)
    assert niches.apart(judge, one, near) == pytest.approx(0.0)
    share = niches.apart(judge, one, far)
    assert niches.apart(judge, far, one) == pytest.approx(share)
    assert 0.05 < share < 1
    found = niches.parents(judge, archive_of(one, near, far, poor), 1)
    assert [parent.name for parent in found] == [one.candidate.name, far.candidate.name]
    assert f"{share:.0%} of its tokens go to other questions" in found[1].why
    assert len(niches.parents(judge, archive_of(one, near, poor), 1)) == 1


def test_the_next_round_begins_where_least_was_built(judge: Judge) -> None:
    one, other = looked(judge, ASC, "one"), looked(judge, SC, "other")
    archive = archive_of(one, other)
    assert niches.first_of(niches.parents(judge, archive, 1)).name == one.candidate.name
    child = Written("child", "", one.candidate.name)
    archive.take(Entry(child, "C", 0, 0, 0.0, {"0": {}, "1": {}}).to_dict())
    found = niches.parents(judge, archive, 1)
    assert niches.first_of(found).name == other.candidate.name
    assert "1 was made from it" in niches.told(found)[0]
    opened = prompts.opening(1, judge, "cmc", archive)
    assert f"Make the first candidate of this round from {other.candidate.name}" in opened
    assert "Parents that differ" not in prompts.opening(0, judge, "cmc", Archive())


def test_the_chain_survives_the_journal_and_one_from_before_has_none(judge: Judge) -> None:
    found = looked(judge, ASC, "one")
    (again,) = archive_of(found).evaluations
    assert again.chain == found.chain
    assert len(found.chain) == 3
    assert niches.places(judge, again) == niches.places(judge, found)
    row = json.loads(json.dumps(found.to_dict()))
    del row["chain"], row["curve"]["chain"]
    before = Evaluation.from_dict(row, {found.candidate.name: Written("one", "")})
    assert niches.places(judge, before) == []
    assert np.array_equal(before.curve.cost, found.curve.cost)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("objective", "text"),
    [
        ("tokens", "does not count in the score"),
        ("balanced", "longer than 100% of that of self-consistency"),
        ("latency", "longer than 45% of that of self-consistency"),
        ("sequential", "they are chains"),
    ],
)
def test_the_page_says_how_the_chain_counts(objective: Any, text: str) -> None:
    assert text in prompts.system("cmc", objective, beta=True, traces=True)


def test_a_program_is_told_of_chains_seconds_and_parents(box: Sandbox, tmp_path: Path) -> None:
    """In a search that holds the chain; and the screen says what each round goes on from."""
    profile = tmp_path / "profile.json"
    Profile.roofline(5e8, 4096, device="a test's device").save(profile)
    first = [
        [["write_controller", {"code": code, "idea": ""}], ["replay", {"candidate": name(code)}]]
        for code in (GOOD, WIDE)
    ]
    agent = Agent(program=program(tmp_path, first, [[["read_history", {}]]]), profile=profile)
    said: list[str] = []
    searched = Search(setup(make_store(tmp_path / "store"), share=0.0, objective="balanced"), agent, box)
    result = searched.run(tmp_path / "run", minutes=10, max_rounds=2, threads=1, say=said.append)
    _, serial, _, side_by_side, listed = (str(block["content"]) for block in told(tmp_path))
    chains = [re.findall(r"beta 1: \S+ tokens, chain (\S+), ", text)[0] for text in (serial, side_by_side)]
    assert float(chains[0].replace(",", "")) > 2 * float(chains[1].replace(",", ""))
    for text, kind in ((serial, "a longer chain"), (side_by_side, "a shorter chain")):
        assert kind in re.findall("its niches: .*", text)[0]
        ours, theirs = re.findall(
            r"seconds to an answer on a test's device.*beta 1: (\S+) s, the reference (\S+) s", text
        )[0]
        assert (float(ours) > float(theirs)) == (kind == "a longer chain")
    assert f"- {name(GOOD)}: " in listed
    lines = (tmp_path / "told.jsonl").read_text("utf-8").splitlines()
    openings = [text for line in lines if isinstance(text := json.loads(line), str)]
    assert all("A candidate's chain is held to " in text for text in openings)
    assert "Parents that differ" in openings[1]
    (begun,) = [line for line in said if " begins from " in line]
    assert begun.startswith(f"round 2 begins from {name(WIDE)}, one of 2 parents: ")
    assert result["settings"]["objective"] == "balanced"
