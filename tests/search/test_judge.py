"""What chooses and what is reported is counted by the host: lies and memories of candidates change none of it."""

from __future__ import annotations

import json
import os
import random
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cheats import DEPENDS, FORGETS, LIES, MEMORIES, OTHERS
from messages_server import KEY, MessagesServer, Reply, by_place
from search_stores import make_store, setup
from written_candidates import GOOD, name

from tts_generate.errors import CandidateError, SandboxUnavailable
from tts_generate.import_rules import check_source
from tts_generate.loading import builtin_folder, held_within, load_controller
from tts_generate.recorded.episodes import Columns, Work, open_more
from tts_generate.replay import Recording, ReplayResult, replay
from tts_generate.sandbox import Limits, Sandbox, strictly
from tts_generate.search import Search
from tts_generate.search.agent import Agent
from tts_generate.search.best import write_written
from tts_generate.search.candidate import Written
from tts_generate.search.choice import Contest
from tts_generate.search.objective import Fidelity
from tts_generate.search.questions import Part
from tts_generate.search.written.conformance import examine
from tts_generate.search.written.workbench import Workbench
from tts_generate.state import TO_END, Decision, State
from tts_generate.testing import random_trajectories
from tts_generate.trajectories import Question, Trajectory

pytest.importorskip("numba")
CMC = type(load_controller("cmc"))


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("stores")
    return [make_store(folder / f"model{n}", seed=n) for n in range(3)]


@pytest.fixture(scope="module")
def recording() -> Recording:
    """Eight questions, of whose branches no two are as long: whoever may remember knows each again."""
    rng = random.Random(3)
    lengths = iter(rng.sample(range(15, 300), 8 * 24))
    rows = [
        Trajectory(
            question_id=f"q{q}", branch=b, seed=0, prompt_tokens=4, tokens=next(lengths), finish_reason="eos",
            final_answer=rng.choice("11123"), probe_positions=(), probe_answers=(), probe_tokens=(), probe_logprobs=(),
            step_logprobs=(),
        )
        for q in range(8)
        for b in range(24)
    ]  # fmt: skip
    return Recording.of([Question(f"q{q}", "", "1") for q in range(8)], rows, 10)


def same(one: ReplayResult, other: ReplayResult) -> bool:
    return all((getattr(one, column) == getattr(other, column)).all() for column in Columns._fields)


def test_more_branches_than_64_bits_count_are_too_many(recording: Recording) -> None:
    """The host adds them to those that are open: a sum that wraps around let it write beyond its arrays."""
    state, do, order = State(24, 40, 10, 0), Decision(24), np.arange(24)
    work = Work.of(recording.questions, {24: order[None]}, CMC.from_beta(0.5), 10)
    do.open, do.open_steps = 2, TO_END
    assert open_more(state, do, recording.questions[0].rows, work, 0, order)
    do.open = np.int64((1 << 63) - 1)  # as a candidate's decision comes
    assert not open_more(state, do, recording.questions[0].rows, work, 0, order)
    assert state.opened == 2


def written(folder: Path, code: str) -> Path:
    """A folder of trusted code, to be run in this process."""
    entry = code.partition("(Controller)")[0].rpartition("class ")[2]
    write_written(folder, code, entry, name="good", description="Good.", idea="", provenance={})
    return folder


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("controller", ["cmc", "deepconf"])
def test_many_at_once_decide_as_each_alone(
    box: Sandbox, stores: list[Path], compiled: bool, controller: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loops of the host are those of replay, compiled or not; questions come in no order and take their own time."""
    monkeypatch.setattr(strictly, "worth_compiling", lambda episodes: compiled)
    rng = random.Random(5)
    rows = []
    for q, count in enumerate((9, 30, 2, 30)):
        for row in random_trajectories(rng, count):
            fields = {field: getattr(row, field) for field in row.__slots__}
            rows.append(Trajectory(**{**fields, "question_id": f"q{q}"}))
    ragged = Recording.of([Question(f"q{q}", "", "1") for q in range(4)], rows, 10)
    code = (builtin_folder(controller) / "controller.py").read_text("utf-8")
    knobs: dict[str, Any] = (
        {"max_samples": 2, "warm_up": 2} if controller == "deepconf" else {"max_branches": 2, "n_init": 2}
    )
    knobs = {knob: value for knob, value in knobs.items() if knob in load_controller(controller).knobs}
    with box.candidate(code, mode="strict") as candidate:
        for shuffles, first in ((3, 7), (0, 0)):
            found = candidate.replay(ragged, beta=0.4, shuffles=min(shuffles, 2), first_shuffle=first, **knobs)
            expected = replay(
                ragged, controller, beta=0.4, shuffles=min(shuffles, 2), first_shuffle=first, compiled=False, **knobs
            )
            assert same(found, expected)


def test_made_up_numbers_are_worth_nothing(box: Sandbox, stores: list[Path], tmp_path: Path) -> None:
    """Honest wherever the search used to confirm, and a liar where it did not: every figure is the honest one."""
    check_source(LIES.encode())
    talk = [
        Reply("", [("write_controller", {"code": LIES, "idea": "lies"})]), Reply("", [("replay", {"candidate": name(LIES)})])
    ]  # fmt: skip
    out, (held, *searched) = tmp_path / "run", stores
    with MessagesServer(by_place(talk)) as server, pytest.MonkeyPatch.context() as environment:
        environment.setenv("ANTHROPIC_BASE_URL", server.url)
        environment.setenv("ANTHROPIC_API_KEY", KEY)
        result = Search(setup(*searched), Agent(max_cost_usd=5.0), box).run(
            out, minutes=10, max_rounds=1, threads=2, held_out=[held]
        )
    assert result["candidate"]["name"] == name(LIES)
    honest = written(tmp_path / "honest", GOOD)
    told = json.loads((out / "held_out.json").read_text())
    for figures, where, shuffles in ((result["fresh"], searched, 4), (told, [held], 4)):
        for k, beta in enumerate((0.0, 0.5, 1.0)):
            rows = [replay(s, honest, beta=beta, shuffles=shuffles, trust_remote_code=True) for s in where]
            assert figures["curve"]["tokens"][k] == pytest.approx(np.mean([row.tokens for row in rows]))
            assert figures["curve"]["accuracy"][k] == pytest.approx(np.mean([100 * row.accuracy for row in rows]))
    with box.candidate(LIES) as bulk:  # it does lie where it is taken at its word
        assert bulk.replay(Recording.from_store(held), shuffles=2, first_shuffle=9).tokens == 1.0


def test_every_look_that_chooses_is_counted_here(box: Sandbox, stores: list[Path]) -> None:
    part = Part.of([Recording.from_store(store) for store in stores])
    bench = Workbench(box, CMC)
    contest, fidelity = Contest(bench, CMC), Fidelity((0.0, 1.0), 2, 500_000)
    liar, honest = (contest.measure(part, Written(code, ""), fidelity) for code in (LIES, GOOD))
    assert liar.to_dict() == honest.to_dict()
    assert bench.look(part, Written(LIES, ""), fidelity).curve.cost[0].max() == 1.0
    bench.close()


@pytest.fixture(scope="module")
def forgetful(box: Sandbox, recording: Recording) -> ReplayResult:
    return box.evaluate(FORGETS, recording, mode="strict", shuffles=6)


@pytest.mark.parametrize("where", MEMORIES)
def test_a_memory_of_other_orders_is_worth_nothing(
    box: Sandbox, recording: Recording, forgetful: ReplayResult, where: str
) -> None:
    """Each learns answers over the orders of a question, wherever it keeps them: 24 branches become a few."""
    found = box.evaluate(MEMORIES[where], recording, mode="strict", shuffles=6)
    assert same(found, forgetful)


@pytest.mark.parametrize("where", MEMORIES)
def test_a_memory_is_found_before_anything_is_measured(box: Sandbox, where: str) -> None:
    with pytest.raises(CandidateError, match="decides otherwise when it is alone"):
        examine(box, MEMORIES[where])


@pytest.mark.parametrize("what", DEPENDS)
def test_what_an_episode_must_not_depend_on(box: Sandbox, recording: Recording, what: str) -> None:
    check_source(DEPENDS[what].encode())

    def measured() -> None:
        for _ in range(40):  # it is a random part of the episodes that is run again: one look in two finds it
            box.evaluate(DEPENDS[what], recording, mode="strict", shuffles=6)

    with pytest.raises(CandidateError, match="decides otherwise when it is alone") as caught:
        measured()
    assert caught.value.reason == "different"


def test_a_memory_pays_where_nothing_stops_it(recording: Recording, tmp_path: Path) -> None:
    """What the attack gains in a process that serves all orders of a question: it is no straw man."""
    folder = written(tmp_path / "m", MEMORIES["a closure"])
    cheat = replay(recording, folder, shuffles=6, compiled=False, trust_remote_code=True)
    honest = replay(recording, written(tmp_path / "f", FORGETS), shuffles=6, compiled=False, trust_remote_code=True)
    assert cheat.tokens < 0.5 * honest.tokens


def test_confined_controllers_are_held_to_fewer_branches(recording: Recording, tmp_path: Path) -> None:
    """The bug: a sandboxed controller took no other knob, so that `serve --sandbox` refused every request."""
    code = GOOD.replace("width", "max_samples")
    confined = load_controller(written(tmp_path / "g", code), sandbox=True, beta=1.0, share=0.7)
    held = held_within(confined, 3)
    assert held.knobs == {"max_samples": 3, "share": 0.7}
    assert replay(recording, held, shuffles=2).opened.max() <= 3
    assert load_controller(confined) is confined


def test_more_episodes_than_files_are_one_clear_error(tmp_path: Path) -> None:
    confined = load_controller(written(tmp_path / "g", GOOD), sandbox=True)

    def begun() -> object:
        mine = confined.for_episode(8)
        mine.begin(State(8, 4, 10, 0), Decision(8))
        return mine

    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 20, before[1]))
    try:
        with pytest.raises(SandboxUnavailable, match="Ask fewer at once, or raise the limit of open files"):
            [begun() for _ in range(40)]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_confined_controllers_remember_nothing(recording: Recording, forgetful: ReplayResult, tmp_path: Path) -> None:
    """`load_controller(sandbox=True)`: in replay, where publishing measures, and an episode at a time as in generate."""
    confined = load_controller(written(tmp_path / "m", MEMORIES["a default argument"]), sandbox=True)
    assert same(replay(recording, confined, shuffles=6), forgetful)
    orders = [[*range(24)], [*reversed(range(24))], [*range(24)]]
    first, _, again = (recording.trace(confined, 7, order).events for order in orders)
    assert first == again


@pytest.mark.parametrize("what", OTHERS)
def test_another_candidate_in_each_process(box: Sandbox, recording: Recording, what: str) -> None:
    with pytest.raises(CandidateError) as caught:
        box.evaluate(OTHERS[what], recording, mode="strict", shuffles=2)
    assert caught.value.reason == "different"


@pytest.mark.parametrize(
    "code",
    [
        "import os\nraise ValueError(os.uname())",
        "import platform\nraise ValueError(platform.uname())",
        "import sys\nraise ValueError([sys.path, sys.prefix, sys.executable, sys.argv, sys.orig_argv])",
        "import numpy, json\nraise ValueError([m.__file__ for m in (numpy, json)], numpy.__spec__, numpy.__path__)",
        "import json\nraise ValueError(json.loads.__code__.co_filename)",
        "import json\nprint(json.loads.__code__.co_filename, flush=True)\nraise ValueError",
    ],
)
@pytest.mark.parametrize("mode", ["strict", "bulk"])
def test_nothing_says_whose_machine_it_is(box: Sandbox, code: str, mode: Any) -> None:
    with pytest.raises(CandidateError) as caught:
        box.candidate(code, mode=mode, check=False)
    told = f"{caught.value} {caught.value.output}"
    for secret in (
        os.uname().nodename,
        os.uname().release,
        sys.prefix,
        sys.base_prefix,
        os.getcwd(),
        os.path.expanduser("~"),
    ):
        assert len(secret) < 4 or secret not in told


@pytest.mark.parametrize("prefix", [(), ("nice",)])
def test_cpu_time_is_told_as_time_even_by_one_who_ignores_the_signal(prefix: tuple[str, ...]) -> None:
    code = "import signal\nsignal.signal(signal.SIGXCPU, signal.SIG_IGN)\nwhile True: pass\n" + GOOD
    limits = Limits(seconds=60, cpu_seconds=1)
    with Sandbox(limits, prefix=prefix) as box, pytest.raises(CandidateError, match="used up its CPU") as caught:
        box.candidate(code, mode="strict", check=False)
    assert caught.value.reason == "time"


ON_DEMAND = '''
from tts_generate.controller import Controller


class Asks(Controller):
    """Has branches show their answers as they are opened, and every other step."""

    probing = "on_demand"
    width: int

    @staticmethod
    def schedule(beta):
        return {"width": 2 + round(4 * beta)}

    def begin(self, state, do):
        do.open = 2
        do.probe[0] = True

    def plan(self, state, do):
        for i in range(state.opened):
            do.steps[i] = 1
            do.probe[i] = (i + state.round) % 2 == 0

    def review(self, state, do):
        if state.opened < min(self.width, state.max_branches):
            do.open = 1
            do.probe[state.opened] = True
'''
_PEEKS = "if state.logprobs[0, 0] == state.logprobs[0, 0]:\n            do.stop, do.answer = True, state.answer[0]\n        elif "
AS_ANYWHERE = {
    "probes branches that it opens": ON_DEMAND,
    "probes by its budget": ON_DEMAND.replace(
        'probing = "on_demand"', "@property\n    def probing(self):\n        return 'never' if self.beta == 0.5 else 'every_step'\n"
    ),
    "ends by its budget": GOOD.replace(
        "    width: int", "    @property\n    def max_rounds(self):\n        return 1 if self.beta == 1.0 else 1000\n\n    width: int", 1
    ),
    "probes no more once it has begun": ON_DEMAND.replace("        do.open = 2", "        do.open, self.probing = 2, 'never'"),
    "peeks at log-probabilities": GOOD.replace("if state.pooled >= 2", _PEEKS + "state.pooled >= 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", AS_ANYWHERE)
def test_strict_mode_decides_as_every_other_run(box: Sandbox, tmp_path: Path, what: str) -> None:
    """What is measured is what runs: beside others, alone, taken at its word, trusted, and episode by episode as live."""
    rng, rows = random.Random(8), []
    for q, count in enumerate((9, 30, 4)):
        for row in random_trajectories(rng, count):
            fields = {field: getattr(row, field) for field in row.__slots__}
            rows.append(Trajectory(**{**fields, "question_id": f"q{q}"}))
    ragged = Recording.of([Question(f"q{q}", "", "1") for q in range(3)], rows, 10)
    folder = written(tmp_path / "c", AS_ANYWHERE[what])
    for beta in (0.5, 1.0):
        expected = replay(ragged, folder, beta=beta, shuffles=2, compiled=False, trust_remote_code=True)
        for mode in ("strict", "bulk"):
            assert same(box.evaluate(AS_ANYWHERE[what], ragged, beta=beta, shuffles=2, mode=mode), expected)  # type: ignore[arg-type]
        confined = load_controller(folder, beta=beta, sandbox=True)
        for controller in (load_controller(folder, beta=beta, trust_remote_code=True), confined):
            traced = replay(ragged, controller, shuffles=2, traces=True)  # as live: by the runner
            assert same(traced, expected)


def test_who_says_so_is_shown_log_probabilities(box: Sandbox) -> None:
    rows = random_trajectories(random.Random(8), 9)
    fields = {field: getattr(rows[0], field) for field in rows[0].__slots__}
    one = Recording.of([Question(fields["question_id"], "", "1")], rows, 10)
    code = AS_ANYWHERE["peeks at log-probabilities"]
    asks = code.replace("    width: int", "    reads_logprobs = True\n    width: int", 1)
    for mode in ("strict", "bulk"):
        found = [box.evaluate(each, one, mode=mode, shuffles=2) for each in (GOOD, code, asks)]  # type: ignore[arg-type]
        assert same(found[0], found[1])
        assert found[2].tokens < found[1].tokens


def test_the_random_numbers_of_a_caller_choose_nothing(box: Sandbox, recording: Recording) -> None:
    """Whoever knows their seed would know which episodes are run again; and they stay as they were."""
    random.seed(7)
    before = random.getstate()
    box.evaluate(GOOD, recording, mode="strict", shuffles=2)
    assert random.getstate() == before
