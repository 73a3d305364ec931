"""The parts of a search, each by itself: schedules, ranges, gains, splits, proposals."""

from __future__ import annotations

import copy
import dataclasses
import json
import pickle
import shutil
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from search_stores import BRANCHES, make_store
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.errors import ControllerError, InputError, UnknownNameError
from tts_generate.evaluate import BETAS
from tts_generate.loading import builtin_folder, load_class, load_controller
from tts_generate.recorded.recording import fewest_branches
from tts_generate.replay import Recording, replay
from tts_generate.schedule import Ends, Range, from_json, ranges_of, scheduled, to_json
from tts_generate.search import Fidelity, KnobCandidate, Scored, best_of, write_controller
from tts_generate.search.archive import Entry, Evaluation
from tts_generate.search.bench import Families
from tts_generate.search.candidate import Written
from tts_generate.search.choice import Contest, at_accuracy, beside_baselines
from tts_generate.search.history import History
from tts_generate.search.narrow import narrowed
from tts_generate.search.objective import Curve, Gain, cost_of, curve_of, gain_at_own_cost, gain_over, reference_curve
from tts_generate.search.parameters import ParametersProposer, centre, distributions, parameters_of, schedule_of
from tts_generate.search.questions import Part, folds, split

pytest.importorskip("optuna")
FAMILY, _ = load_class(
    builtin_folder("worth").with_name("earlier") / "64a09e339321"
)  # of more kinds of knobs than ship


@given(st.integers(1, 64), st.integers(1, 64), st.sampled_from(["linear", "log"]), st.booleans())
def test_a_schedule_is_monotone_and_hits_its_ends(start: int, end: int, scale: Any, whole: bool) -> None:
    ends = Ends(start, end, scale) if whole else Ends(start / 8, end / 8, scale)
    values = [ends.at(beta) for beta in np.linspace(0, 1, 41)]
    steps = np.diff(values)
    assert (steps >= 0).all() or (steps <= 0).all()
    assert (values[0], values[-1]) == pytest.approx((ends.start, ends.end), rel=1e-3)
    assert from_json(json.loads(json.dumps(to_json({"knob": ends}))), "here") == {"knob": ends}


@pytest.mark.parametrize(
    "knob",
    [{"start": 1}, {"start": 1, "end": "2"}, {"start": 0, "end": 1, "scale": "log"}, {"start": 1, "end": 2, "x": 1}],
)
def test_schedules_that_are_none(knob: dict[str, Any]) -> None:
    with pytest.raises(ControllerError, match="knob width must be a value, or"):
        from_json({"width": knob}, "controller.json")


class TestFolders:
    def write(self, folder: Path) -> Path:
        write_controller(folder, "worth", {"n_init": Ends(3, 9)}, name="mine", description="Mine.", provenance={})
        return folder

    def test_schedules_of_schedules_are_one_folder(self, tmp_path: Path) -> None:
        first = self.write(tmp_path / "first")
        for base in (str(first), "thrift"):
            folder = tmp_path / f"on_{Path(base).name}"
            write_controller(folder, base, {"widen": 7}, name="other", description="Other.", provenance={})
            card, below = json.loads((folder / "controller.json").read_text()), load_controller(base, beta=0.25)
            assert card["builtin"] == "worth"
            assert load_controller(folder, beta=0.25).knobs == {**below.knobs, "widen": 7}

    def test_what_a_base_of_code_sets_is_kept(self, tmp_path: Path) -> None:
        """The bug: its `knobs` were left out, so that another controller than the one measured was written."""
        base = Path(shutil.copytree(builtin_folder("asc"), tmp_path / "mine"))
        card = json.loads((base / "controller.json").read_text())
        (base / "controller.json").write_text(json.dumps({**card, "knobs": {"threshold": 0.77}}))
        write_controller(tmp_path / "new", str(base), {"max_samples": 7}, name="n", description="N.", provenance={})
        found = load_controller(tmp_path / "new", beta=0.5, trust_remote_code=True)
        assert (found.knobs["threshold"], found.knobs["max_samples"]) == (0.77, 7)

    @pytest.mark.parametrize(("builtin", "sha"), [("worth", "a88d907158fb"), ("composed", "64a09e339321")])
    def test_a_base_of_an_earlier_version_stays_of_that(self, tmp_path: Path, builtin: str, sha: str) -> None:
        """The bug: what was searched with an earlier version became one of this version, or could not be written."""
        earlier = builtin_folder("worth").with_name("earlier") / sha / "controller.json"
        sha256 = json.loads(earlier.read_text())["sha256"]
        base = self.edit(tmp_path / "base", builtin=builtin, sha256=sha256)
        write_controller(tmp_path / "new", str(base), {"widen": 7}, name="n", description="N.", provenance={})
        found, below = (load_controller(folder, beta=0.25) for folder in (tmp_path / "new", base))
        assert found.knobs == {**below.knobs, "widen": 7}
        assert type(found).__mro__[1] is type(below).__mro__[1]

    def test_data_needs_no_trust_and_can_be_copied(self, tmp_path: Path) -> None:
        controller = load_controller(self.write(tmp_path / "mine"), beta=0.5)
        assert controller.knobs["n_init"] == 6
        assert type(controller).__name__ == "Mine"
        for twin in (copy.deepcopy(controller), pickle.loads(pickle.dumps(controller))):
            assert repr(twin) == repr(controller)

    def edit(self, folder: Path, **fields: Any) -> Path:
        card = json.loads((self.write(folder) / "controller.json").read_text())
        (folder / "controller.json").write_text(json.dumps({**card, **fields}))
        return folder

    def test_of_another_version_of_the_base(self, tmp_path: Path) -> None:
        with pytest.raises(ControllerError, match="another version of worth"):
            load_controller(self.edit(tmp_path / "mine", sha256="0" * 64))

    def test_code_cannot_come_in_by_a_folder_of_data(self, tmp_path: Path) -> None:
        folder = self.edit(tmp_path / "mine", entry="controller.py:Evil")
        (folder / "controller.py").write_text("raise SystemExit('ran')\n")
        with pytest.raises(ControllerError, match="both entry and builtin"):
            load_controller(folder)

    def test_unknown_names(self, tmp_path: Path) -> None:
        with pytest.raises(UnknownNameError, match="did you mean 'worth'"):
            load_controller(self.edit(tmp_path / "one", builtin="worht"))
        with pytest.raises(UnknownNameError, match="did you mean 'n_init'"):
            load_controller(self.edit(tmp_path / "two", knobs={"n_innit": 3}))

    def test_a_changed_card_is_read_again(self, tmp_path: Path) -> None:
        folder = self.write(tmp_path / "mine")
        assert load_controller(folder, beta=1.0).knobs["n_init"] == 9
        self.edit(folder, knobs={"n_init": 5})
        assert load_controller(folder, beta=1.0).knobs["n_init"] == 5


def test_ranges_are_of_knobs() -> None:
    class Odd(FAMILY):  # type: ignore[valid-type, misc]
        ranges = {"nobody": Range(1, 2)}  # noqa: RUF012

    with pytest.raises(UnknownNameError, match="knob in ranges of Odd"):
        ranges_of(Odd)


def curve(tokens: list[float], *accuracy: list[float]) -> Curve:
    """Of one recording; `accuracy` by question."""
    betas = tuple(np.linspace(0, 1, len(tokens)))
    return Curve(betas, (np.array(accuracy).T,), (np.tile(np.array(tokens)[:, None], len(accuracy)),))


class TestGain:
    reference = curve([100, 200, 400], [40, 50, 60], [20, 30, 40])

    def test_over_itself_is_nothing(self) -> None:
        assert gain_over(self.reference, self.reference, np.ones(1)).at_costs == (0, 0, 0)

    def test_at_equal_cost_by_question(self) -> None:
        gain = gain_over(self.reference, curve([100, 400], [50, 80], [20, 40]), np.ones(1))
        assert gain.at_costs == pytest.approx((5, (10 - 3.333333) / 2, 10))
        assert gain.by_question[0] == pytest.approx([(10 + 10 + 20) / 3, (0 - 3.333333 + 0) / 3])
        assert gain.mean == pytest.approx(float(np.mean([values.mean() for values in gain.by_question])))
        low, high = gain.interval()
        assert low <= gain.mean <= high

    def test_costs_it_cannot_reach_and_budgets_upside_down(self) -> None:
        dear = gain_over(self.reference, curve([200, 400], [50, 60], [30, 40]), np.ones(1))
        assert dear.at_costs == pytest.approx((10 - 10 * np.log(2), 0, 0))
        down = gain_over(self.reference, curve([400, 200, 100], [60, 50, 40], [40, 30, 20]), np.ones(1))
        assert down.worst < -10
        assert down.score == pytest.approx(down.mean + down.worst)

    @pytest.mark.parametrize("gain", [gain_over, gain_at_own_cost])
    def test_a_chain_that_is_longer_than_it_is_held_to(self, gain: Any) -> None:
        short, long = (
            dataclasses.replace(self.reference, chain=(np.full((3, 2), chain),)) for chain in (900.0, 2000.0)
        )
        held = dataclasses.replace(self.reference, bound=(1000.0,))
        assert gain(held, short, np.ones(1)).at_costs == gain(self.reference, long, np.ones(1)).at_costs == (0, 0, 0)
        lost = gain(held, long, np.ones(1))
        assert lost.at_costs == pytest.approx([-10 * np.log(2)] * 3)
        assert lost.mean == pytest.approx(float(lost.by_question[0].mean()))
        assert gain(held.alone(0), long.alone(0), np.ones(1)).at_costs == pytest.approx(lost.at_costs)

    def test_what_a_chain_is_held_to(self, tmp_path: Path) -> None:
        part = Part.of([Recording.from_store(make_store(tmp_path / "m"))])
        cmc, look = type(load_controller("cmc")), Fidelity((0.0,), 3, 7)
        kind = narrowed(cmc, fewest_branches(part.recordings))
        every = replay(
            part.recordings[0],
            "self_consistency",
            max_samples=fewest_branches(part.recordings),
            shuffles=3,
            first_shuffle=7,
        )
        chain = float(every.sequential_tokens.mean())
        for objective, bound in (("tokens", ()), ("balanced", (chain,)), ("latency", (0.45 * chain,))):
            curve = reference_curve(part, kind, look, objective, 1)
            assert curve.bound == pytest.approx(bound)
            assert curve.cost[0].tolist() == curve_of(part, kind, Fidelity(BETAS, 3, 7)).cost[0].tolist()
        sequential = reference_curve(part, kind, look, "sequential", 1)
        assert sequential.cost[0].tolist() == sequential.chain[0].tolist() == curve.chain[0].tolist()

    def test_recordings_count_as_they_are_weighed(self) -> None:
        two = Curve(self.reference.betas, self.reference.accuracy * 2, self.reference.cost * 2)
        better = Curve(two.betas, (two.accuracy[0] + 4, two.accuracy[1]), two.cost)
        assert gain_over(two, better, np.array([0.25, 0.75])).mean == pytest.approx(1)


def test_a_search_from_before_there_were_objectives_is_gone_on_with(tmp_path: Path) -> None:
    History(tmp_path / "s", {"objective": "tokens"}).close()
    (settings,) = tmp_path.glob("s/*.json")
    settings.write_text(settings.read_text().replace("objective", "cost"))
    History(tmp_path / "s", {"objective": "tokens"}).close()
    with pytest.raises(InputError, match="objective: 'tokens' there, 'latency' now"):
        History(tmp_path / "s", {"objective": "latency"})


def test_code_is_shown_as_it_stands(tmp_path: Path) -> None:
    """The bug: lines of more than 110 characters were broken, so that what was shown was no Python."""
    history = History(tmp_path / "run", {})
    line = f"x = {'1 + ' * 60}1"
    pair = [Written(code, "a model") for code in (f"{line}\n", "pass\n")]
    for one in pair:
        history.add(Entry(one, "Few", 0, 0, 0.0, {}))
    history.close()
    for options in (("--show", pair[0].name), ("--diff", ",".join(one.name for one in pair))):
        assert line in CliRunner().invoke(app, ["history", str(tmp_path / "run"), *options]).output


def test_who_failed_at_a_closer_look_is_none_of_the_best() -> None:
    """The bug: where nobody else had come as far, the look before counted, and who was disqualified was chosen."""
    cheat, other = Written("a", "one"), Written("b", "one")
    found = [Evaluation(who, 0, (1.0,), (1.0,), (score,), score) for who, score in ((cheat, 5.0), (other, 1.0))]
    assert [evaluation.candidate for evaluation in best_of(found, 5)] == [cheat, other]
    found.append(Evaluation.failed(cheat, 1, "disqualified: it looks ahead"))
    assert [evaluation.candidate for evaluation in best_of(found, 5)] == [other]


def test_a_question_of_two_recordings_is_on_one_side(tmp_path: Path) -> None:
    recordings = [Recording.from_store(make_store(tmp_path / f"m{n}", seed=n)) for n in range(2)]
    propose, select = split(Part.of(recordings, [3.0, 1.0]), seed=0)
    sides = [{q.question.question for r in part.recordings for q in r.questions} for part in (propose, select)]
    assert not sides[0] & sides[1]
    assert (propose.count, select.count) == (10, 6)
    assert propose.weights.tolist() == select.weights.tolist() == [0.75, 0.25]


class TestParameters:
    ranges: ClassVar[dict[str, Range]] = dict(ranges_of(FAMILY))

    def test_parameters_and_schedules_are_the_same(self) -> None:
        for candidate in ParametersProposer(self.ranges, [], 3).propose(40):
            again = schedule_of(parameters_of(candidate.schedule, self.ranges), self.ranges)
            assert to_json(again) == to_json(candidate.schedule)
            family = scheduled(FAMILY, candidate.schedule, "Found")
            for beta in (0.0, 0.5, 1.0):
                family.from_beta(beta)
        assert set(distributions(self.ranges)) == set(parameters_of(candidate.schedule, self.ranges))

    def test_the_same_answers_the_same_proposals(self) -> None:
        told: list[list[str]] = []
        for _ in range(2):
            proposer = ParametersProposer(self.ranges, [candidate_schedule()], 5)
            names = []
            for number in range(4):
                found = proposer.propose(6)
                names += [candidate.name for candidate in found]
                proposer.learn(
                    [Scored(c, n % 2, (float(n), -float(n)), float(n + number)) for n, c in enumerate(found)]
                )
            told.append(names)
        assert told[0] == told[1]
        assert {candidate.origin for candidate in found} == {"nudge", "centre", "nsga2"}
        assert any(candidate.parent for candidate in found)

    def test_starts_come_first(self) -> None:
        first = ParametersProposer(self.ranges, [candidate_schedule()], 5).propose(3)[0]
        assert first.origin == "start"
        assert first.schedule["n_init"] == Ends(4, 40, "log")


def candidate_schedule() -> dict[str, Any]:
    low, high = FAMILY.schedule(0.0), FAMILY.schedule(1.0)
    return {name: Ends(low[name], high[name], room.scale) for name, room in ranges_of(FAMILY).items()}


def test_a_candidate_keeps_its_name_through_json() -> None:
    candidate = KnobCandidate({"n_init": Ends(4, 40, "log"), "price": 0}, "nudge", "0123456789")
    assert KnobCandidate.from_dict(json.loads(json.dumps(candidate.to_dict()))) == candidate


def test_the_middle_of_the_best_is_inside_and_averages_logarithms() -> None:
    kinds = distributions({"n_init": Range(2, 64, "log"), "hurry": Range(2, 20, "log", moves=False, off=0)})
    rows = [
        {"n_init.start": 2, "n_init.end": 8, "hurry.start": 4, "hurry.on": True},
        {"n_init.start": 8, "n_init.end": 32, "hurry.start": 4, "hurry.on": False},
        {"n_init.start": 4, "n_init.end": 16, "hurry.start": 4, "hurry.on": False},
    ]
    assert centre(rows, kinds) == {"n_init.start": 4, "n_init.end": 16, "hurry.start": 4, "hurry.on": False}


def test_a_gain_on_one_recording_alone_is_not_steady(tmp_path: Path) -> None:
    recordings = [Recording.from_store(make_store(tmp_path / f"s{n}", seed=n)) for n in range(3)]
    contest = Contest(Families(type(load_controller("worth"))), type(load_controller("asc")), threads=1)
    measured = contest.measure(Part.of(recordings), KnobCandidate({"n_init": 4}, "here"), Fidelity((0.0, 1.0), 3, 0))
    for name, gain in measured.without().items():
        others = Part.of([recording for recording in recordings if recording.name != name])
        again = contest.measure(others, KnobCandidate({"n_init": 4}, "here"), Fidelity((0.0, 1.0), 3, 0)).gain
        assert gain.at_costs == pytest.approx(again.at_costs)
    assert measured.steady == min(measured.gain.score, *(gain.score for gain in measured.without().values()))
    assert contest.measure(Part.of(recordings[:1]), KnobCandidate({}, "here"), Fidelity((0.0,), 3, 0)).without() == {}


def test_every_question_is_left_out_once(tmp_path: Path) -> None:
    whole = Part.of([Recording.from_store(make_store(tmp_path / f"s{n}", questions=7)) for n in range(2)])
    pairs = folds(whole, 3, seed=0)
    left = [q.question.question_id for _, fold in pairs for q in fold.recordings[0].questions]
    assert sorted(left) == [f"q{n}" for n in range(7)]
    assert all(rest.count + fold.count == whole.count == 14 for rest, fold in pairs)
    with pytest.raises(InputError, match="holds 7 questions, fewer than the 8 folds"):
        folds(whole, 8, seed=0)


def test_all_questions_may_propose_and_choose(tmp_path: Path) -> None:
    whole = Part.of([Recording.from_store(make_store(tmp_path / "s"))])
    propose, select = split(whole, 0, share=0)
    assert propose.count == select.count == whole.count
    with pytest.raises(InputError, match="from 0 to below 1, got 1"):
        split(whole, 0, share=1)
    propose, select = split(whole, 0, share=0.99)  # of 8: rounded, nothing would be left to learn from
    assert (propose.count, select.count) == (1, 7)


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
def test_a_weight_is_a_positive_number(weight: float, tmp_path: Path) -> None:
    recording = Recording.from_store(make_store(tmp_path / "s"))
    with pytest.raises(InputError, match="one positive number a store, 2 in all"):
        Part.of([recording, recording], [weight, 1.0])


def test_a_gain_of_nothing_has_no_interval() -> None:
    """The bug: no gain on any question was taken for a share of 0 of 12, whose interval goes up to 0.26."""
    for points in (0.0, 1.0):
        for sizes in ((12,), (12, 12), (12, 1)):
            by_question = tuple(np.full(size, points) for size in sizes)
            gain = Gain((points,), by_question, np.full(len(sizes), 1 / len(sizes)))
            assert gain.interval() == pytest.approx((points, points))


def test_baselines_count_as_the_search_counts(tmp_path: Path) -> None:
    """The bugs: baselines were averaged as if no store counted more; chains of tokens stood beside tokens."""
    stores = [make_store(tmp_path / f"m{n}", 4, seed=n, right=right) for n, right in enumerate((0.8, 0.2))]
    one, other = (Part.of([Recording.from_store(store)]) for store in stores)
    both, few = Part.of([*one.recordings, *other.recordings], [9.0, 1.0]), Fidelity((0.0, 0.5, 1.0), 4, 0)
    rows = [beside_baselines(part, few, 1)[0] for part in (one, other, both)]
    for name in ("accuracy", "tokens", "sequential_tokens"):
        assert rows[2][name] == pytest.approx(0.9 * rows[0][name] + 0.1 * rows[1][name])
    assert rows[2]["accuracy_ci"][0] <= rows[2]["accuracy"] <= rows[2]["accuracy_ci"][1]
    kind = type(load_controller("self_consistency"))
    for objective, column in (("tokens", "tokens"), ("sequential", "sequential_tokens")):
        measured = Contest(Families(kind), kind, objective, 1).measure(
            both, KnobCandidate({"max_samples": BRANCHES}, ""), few
        )
        told = at_accuracy(measured, rows[2], cost_of(objective))
        assert told["tokens"] == pytest.approx(rows[2][column])
        assert told["saving"] == pytest.approx(0.0)
