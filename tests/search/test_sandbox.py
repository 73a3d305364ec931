"""The sandbox decides as replay does for honest controllers, says which locks hold, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.errors import CandidateError, InputError, SandboxUnavailable, StoreError, UnknownNameError
from tts_generate.import_rules import check_source, compiled
from tts_generate.loading import builtin_controllers, load_controller
from tts_generate.recorded.episodes import Columns
from tts_generate.replay import Recording, ReplayResult, replay
from tts_generate.sandbox import Limits, Sandbox, attacks
from tts_generate.sandbox.arrays import Relabelled
from tts_generate.sandbox.channel import Channel
from tts_generate.sandbox.locks import landlock_abi
from tts_generate.testing import INTERVAL, random_trajectories, recording_of
from tts_generate.trajectories import Question, Trajectory

CONTROLLERS = Path(__file__).resolve().parents[2] / "controllers"
GOLD = "gold-7f3a"
HONEST = """
from tts_generate.controller import Controller

class Honest(Controller):
    width: int

    @staticmethod
    def schedule(beta):
        return {"width": 2 + round(4 * beta)}

    def begin(self, state, do):
        do.open = self.width

    def plan(self, state, do):
        for i in range(state.opened):
            do.steps[i] = 1
"""


WITH_CODE = [name for name in builtin_controllers() if (CONTROLLERS / name / "controller.py").is_file()]
"""The others are schedules of a controller that is among these."""


def source(name: str) -> str:
    return (CONTROLLERS / name / "controller.py").read_text("utf-8")


def same(one: ReplayResult, other: ReplayResult) -> bool:
    return all((getattr(one, name) == getattr(other, name)).all() for name in Columns._fields)


@pytest.fixture(scope="module")
def recording() -> Recording:
    """64 branches, and a gold answer that none of them gives."""
    rng = random.Random(1)
    rows = random_trajectories(rng, 64)
    fields = {name: getattr(rows[0], name) for name in rows[0].__slots__}
    more = [
        Trajectory(**{**{n: getattr(r, n) for n in fields}, "question_id": "two"}) for r in random_trajectories(rng, 64)
    ]
    questions = [Question("question", "what is asked", GOLD), Question("two", "something else", "1")]
    return Recording.of(questions, [*rows, *more], INTERVAL)


@pytest.mark.parametrize("mode", ["strict", "bulk"])
@pytest.mark.parametrize("name", WITH_CODE)
def test_decides_as_replay_does(box: Sandbox, recording: Recording, name: str, mode: Any) -> None:
    with box.candidate(source(name), mode=mode) as candidate:
        for beta in (0.1, 0.6):
            found = candidate.replay(recording, beta=beta, shuffles=2, first_shuffle=3)
            expected = replay(recording, name, beta=beta, shuffles=2, first_shuffle=3, compiled=False)
            assert same(found, expected)
            assert found.controller == expected.controller
            assert found.accuracy == expected.accuracy
            assert (found.answers == expected.answers).all()
        assert candidate.knobs([0.0, 1.0])[1] == load_controller(name, beta=1.0).knobs


@pytest.mark.long
def test_compiles_behind_the_locks(box: Sandbox, recording: Recording) -> None:
    with box.candidate(source("self_consistency")) as candidate:
        found = candidate.replay(recording, shuffles=3, compiled=True, max_samples=5)
        again = candidate.replay(recording, shuffles=3, compiled=True, max_samples=7)
    assert found.compile_seconds is not None
    assert again.compile_seconds is not None
    assert again.compile_seconds < 0.5
    assert candidate.warnings == []
    assert same(found, replay(recording, "self_consistency", shuffles=3, compiled=False, max_samples=5))
    assert same(again, replay(recording, "self_consistency", shuffles=3, compiled=False, max_samples=7))
    assert box.confirm(source("self_consistency"), [again], shuffles=3, knobs={"max_samples": 7}).same


def test_what_does_not_compile_says_so_and_runs(box: Sandbox, recording: Recording) -> None:
    code = HONEST + "\n    def memory(self, max_branches):\n        self.seen = []\n"
    with (
        pytest.warns(RuntimeWarning, match=r"Honest runs interpreted.*its seen is a list"),
        box.candidate(code) as candidate,
    ):
        found = candidate.replay(recording, shuffles=2, compiled=True)
    assert found.compile_seconds is None
    assert box.confirm(code, [found], shuffles=2).same


@pytest.mark.parametrize("name", ["cmc", "worth"])
def test_a_strict_candidate_is_a_controller(name: str, box: Sandbox, recording: Recording) -> None:
    with box.candidate(source(name), mode="strict") as candidate:
        mine = candidate.controller(beta=0.3)
        theirs = load_controller(name, beta=0.3)
        assert repr(mine) == repr(theirs)
        assert recording.trace(mine, 0).events == recording.trace(theirs, 0).events
        with pytest.raises(InputError, match="runs in a sandbox"):
            mine.from_beta(0.5)
    with box.candidate(source(name)) as candidate, pytest.raises(InputError, match="mode='strict'"):
        candidate.controller(beta=0.3)


def test_numpy_as_candidates_use_it(box: Sandbox, recording: Recording) -> None:
    code = HONEST.replace("from tts", "import numpy as np\nfrom tts", 1) + (
        "\n    def review(self, state, do):\n        t = state.tokens[: state.opened]\n"
        "        do.stop = bool(np.median(t) + np.percentile(t, 90) + np.sort(t)[0] + t.std() > 99)\n"
    )
    for mode in ("strict", "bulk"):
        assert box.evaluate(code, recording, mode=mode, shuffles=2).rounds.max() > 0  # type: ignore[arg-type]


def test_neither_gold_nor_the_future_is_sent(
    box: Sandbox, recording: Recording, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    send = Channel._send
    monkeypatch.setattr(Channel, "_send", lambda self, message: (sent.append(bytes(message)), send(self, message))[1])
    bulk = box.evaluate(source("cmc"), recording, shuffles=3)
    everything = b"".join(sent)
    for text in (GOLD, "what is asked", "question_id", "something else"):
        assert text.encode() not in everything
    sent.clear()
    with box.candidate(source("cmc"), mode="strict") as candidate:
        controller = candidate.controller()
        sent.clear()
        episode = recording.episode(controller, 0)
    assert GOLD.encode() not in b"".join(sent)
    seen = [json.loads(message[4:])["seen"] for message in sent if b'"hook"' in message[:20]]
    shown = sum(len(row[8]) for one in seen for row in one["rows"])
    assert 0 < shown <= int(episode.state.depth.sum())  # what the last advance showed, nobody asked about
    ids = [answer for one in seen for row in one["rows"] for answer in row[8] if answer >= 0]
    firsts = list(dict.fromkeys(ids))
    assert firsts == list(range(len(firsts)))  # numbered as they were revealed
    assert bulk.opened.max() > 1


def test_relabelling_hides_order_and_comes_back(recording: Recording) -> None:
    keys = [Relabelled.of(recording, np.random.default_rng(seed)) for seed in range(8)]
    assert len({key.raw for key in keys}) > 2
    assert len({tuple(key.questions) for key in keys}) == 2
    assert {int(key.ids[0][0]) for key in keys} != {0}


def test_confirm_disqualifies(box: Sandbox, recording: Recording) -> None:
    """A memory of other episodes, which a bulk run alone does not show."""
    code = HONEST + (
        "\n    def review(self, state, do):\n        seen.append(1)\n        do.stop = state.pooled > 0 or len(seen) % 5 == 0\n\nseen = []\n"
    )
    found = box.evaluate(code, recording, shuffles=20)
    verdict = box.confirm(code, [found], shuffles=20, seed=1)
    assert not verdict.same
    with pytest.raises(CandidateError, match=r"in \d+ of 40 episodes the candidate decides otherwise") as caught:
        verdict.require()
    assert caught.value.reason == "different"
    honest = box.evaluate(HONEST, recording, shuffles=20)
    box.confirm(HONEST, [honest], shuffles=20, episodes=10).require()


def test_cpu_time_runs_out(box: Sandbox) -> None:
    with pytest.raises(CandidateError, match="used up its CPU time") as caught:
        box.candidate("while True: pass", mode="strict", check=False, limits=Limits(seconds=30, cpu_seconds=1))
    assert caught.value.reason == "time"


def test_lives_in_generate(box: Sandbox, tiny: tuple[Any, Any]) -> None:
    """A fetched controller steers a model from its sandbox, and decides as it would in this process."""
    import tts_generate

    model, tokenizer = tiny
    tts_generate.enable(model, tokenizer=tokenizer)
    inputs = tokenizer("Q: a = 6 ; b = a * 3 ; c = b - 8 ; c ? <think>", return_tensors="pt")
    with box.candidate(source("cmc"), mode="strict") as candidate:
        controllers = (candidate.controller(beta=0.2), load_controller("cmc", beta=0.2))
        boxed, free = (
            model.generate(**inputs, strategy="autotts", controller=c, seed=0, return_dict_in_generate=True)
            for c in controllers
        )
    assert boxed.trace[0].events == free.trace[0].events
    assert boxed.answers == free.answers


def test_errors_name_the_line(box: Sandbox, recording: Recording) -> None:
    code = HONEST + "\n    def review(self, state, do):\n        raise ValueError('what I think')\n"
    for mode in ("strict", "bulk"):
        with pytest.raises(CandidateError, match=r"ValueError \(line 19\): what I think") as caught:
            box.evaluate(code, recording, mode=mode, shuffles=1)  # type: ignore[arg-type]
        assert (caught.value.reason, caught.value.line) == ("raised", 19)
    stalls = HONEST.replace("do.steps[i] = 1", "pass")
    for mode in ("strict", "bulk"):
        with pytest.raises(CandidateError, match="stalls in round 0") as caught:
            box.evaluate(stalls, recording, mode=mode, shuffles=1)  # type: ignore[arg-type]
        assert caught.value.reason == "decision"
    with pytest.raises(CandidateError, match="must define a class Other"):
        box.candidate(HONEST, entry="Other")


def test_log_probabilities_are_asked_for_by_name(box: Sandbox, recording: Recording) -> None:
    bare = Recording(recording.questions, recording.table._replace(logprobs=np.zeros(0)), INTERVAL, 2)
    with pytest.raises(StoreError, match="DeepConf reads log-probabilities"):
        box.evaluate(source("deepconf"), bare, shuffles=1)


def test_arguments(box: Sandbox, recording: Recording) -> None:
    with pytest.raises(UnknownNameError, match="unknown lock 'secomp': did you mean 'seccomp'"):
        Sandbox(without=["secomp"])
    with pytest.raises(InputError, match="give prefix too"):
        Sandbox(python="python3")
    with pytest.raises(InputError, match="limit memory_mb must be a positive number"):
        Limits(memory_mb=0)
    with pytest.raises(InputError, match="shuffles must be 0"):
        box.evaluate(HONEST, recording, shuffles=-1)
    with pytest.raises(InputError, match=r"beta must be a number from 0 .* to 1"):
        box.evaluate(HONEST, recording, beta=2.0)
    with box.candidate(HONEST, mode="strict") as candidate:
        pass
    with pytest.raises(CandidateError, match="has been ended; open it anew"):
        candidate.knobs([0.5])


def test_output_is_kept_cut_and_clean(box: Sandbox, recording: Recording) -> None:
    code = "print('\\x1b[31mred\\x07' + 'x' * 10000, flush=True)\n" + HONEST
    with box.candidate(code, mode="strict") as candidate:
        candidate.replay(recording, shuffles=0)
    assert candidate.output.startswith("[31mredxxx")
    assert len(candidate.output) < 4096


def test_one_line_says_which_locks(box: Sandbox) -> None:
    assert "seccomp allow-list of 39 calls" in box.line
    assert "limits" in box.line
    with Sandbox(without=["landlock", "seccomp", "bubblewrap"]) as less:
        assert "no seccomp (left off); no landlock (left off); no bubblewrap (left off)" in less.line


NO_SECCOMP = """
from tts_generate.sandbox.seccomp import ALLOW, REFUSE, head, install, this_arch
from tts_generate.sandbox import Sandbox
install([*head(this_arch()), (0x15, 0, 3, 157), (0x20, 0, 0, 16), (0x15, 0, 1, 22), (0x06, 0, 0, REFUSE | 22), (0x06, 0, 0, ALLOW)])
try:
    Sandbox()
except Exception as error:
    print(type(error).__name__, error)
with Sandbox(without=["seccomp"]) as box:
    print(box.line)
"""


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of system calls")
def test_refuses_where_the_lock_cannot_be_had() -> None:
    """On a kernel that refuses filters (by a filter that refuses prctl(PR_SET_SECCOMP))."""
    done = subprocess.run(
        [sys.executable, "-c", NO_SECCOMP], capture_output=True, text=True, env=environment(), check=True
    )
    refused, line = done.stdout.splitlines()
    assert refused.startswith(
        "SandboxUnavailable this system cannot filter system calls ([Errno 22] prctl(22): Invalid argument"
    )
    assert 'without=["seccomp"]' in refused
    assert "no seccomp (left off)" in line


def test_what_the_keeper_saw_is_what_counts(box: Sandbox) -> None:
    """A process that says it is locked, and of which the kernel says otherwise, gets no candidate."""
    said = {"seccomp": 39, "limits": True, "landlock": 7}
    box._verify({**said, "status": {"Seccomp": "2", "NoNewPrivs": "1"}})
    with pytest.raises(SandboxUnavailable, match="Seccomp: 0 in /proc"):
        box._verify({**said, "status": {"Seccomp": "0", "NoNewPrivs": "1"}})
    with pytest.raises(SandboxUnavailable, match="may still gain privileges"):
        box._verify({**said, "status": {"Seccomp": "2", "NoNewPrivs": "0"}})


def test_a_candidate_has_none_of_the_powers_of_root(box: Sandbox) -> None:
    with box.candidate(HONEST, mode="strict"):
        keeper = box._keepers["strict"]._process.pid
        pids = Path(f"/proc/{keeper}/task/{keeper}/children").read_text().split()
        told = "".join(Path(f"/proc/{pid}/status").read_text() for pid in pids)
    powers = re.findall(r"Cap(?:Inh|Prm|Eff|Amb):\s*(\w+)", told)
    assert len(powers) >= 4
    assert set(powers) == {"0" * 16}


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the other table of calls is x86's x32")
def test_calls_by_another_table_kill(box: Sandbox) -> None:
    code = "import ctypes\nctypes.CDLL(None).syscall(0x40000000 + 39)\n" + HONEST
    with pytest.raises(CandidateError, match="made a system call that no controller needs") as caught:
        box.candidate(code, mode="strict", check=False)
    assert caught.value.reason == "forbidden"


def environment() -> dict[str, str]:
    import tts_generate

    return {**os.environ, "PYTHONPATH": str(Path(tts_generate.__file__).resolve().parent.parent)}


def test_behind_a_command_prefix(recording: Recording) -> None:
    with Sandbox(prefix=["nice", "-n", "1"]) as prefixed:
        assert prefixed.line.endswith("behind nice")
        found = prefixed.evaluate(HONEST, recording, mode="strict", shuffles=2)
        with pytest.raises(CandidateError, match=r"ended by itself .exit code 3"):
            prefixed.candidate("import os; os._exit(3)", mode="strict", check=False)
        with pytest.raises(CandidateError, match=r"ended by itself .exit code -72"):  # as if by a signal that is none
            prefixed.candidate("import os; os._exit(200)", mode="strict", check=False)
        with pytest.raises(CandidateError, match="system call that no controller needs"):
            prefixed.candidate("import ctypes; ctypes.CDLL(None).unshare(1 << 28)", mode="strict", check=False)
        with pytest.raises(CandidateError, match=r"not done in 0\.3 s"):
            prefixed.candidate("while True: pass", mode="strict", check=False, limits=Limits(seconds=0.3))
    assert found.opened.max() == 4
    with pytest.raises(SandboxUnavailable, match="cannot start /no/such/command"):
        Sandbox(prefix=["/no/such/command"])
    with pytest.raises(SandboxUnavailable, match="has ended"):
        Sandbox(prefix=["false"])


LIVES = """
import sys
from tts_generate.sandbox import Sandbox
box = Sandbox()
keeper = box._keepers["strict"]._process.pid
import threading
def report():
    import time
    time.sleep(0.5)
    print(keeper, *open(f"/proc/{keeper}/task/{keeper}/children").read().split(), flush=True)
threading.Thread(target=report).start()
try:
    with box:
        box.candidate("import signal\\nfor s in (2, 15): signal.signal(s, signal.SIG_IGN)\\nwhile True: pass", mode="strict", check=False)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_no_process_outlives_the_host(how: int) -> None:
    """A candidate that spins and ignores signals, and a host that is killed, or interrupted."""
    host = subprocess.Popen(
        [sys.executable, "-c", LIVES], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment(),
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip
    assert host.stdout is not None
    pids = [int(word) for word in host.stdout.readline().split()]
    assert len(pids) == 2
    host.send_signal(how)
    host.wait(10)
    if how == signal.SIGINT:
        assert host.stdout.read() == "interrupted\n"
    host.stdout.close()
    deadline = time.monotonic() + 5
    while alive(pids) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert alive(pids) == []


def test_nothing_is_left_open(recording: Recording) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for prefix in ((), ("nice",)):
        with Sandbox(prefix=prefix) as box:
            box.evaluate(HONEST, recording, mode="strict", shuffles=0)
            with pytest.raises(CandidateError):
                box.candidate("1 / 0", mode="strict")
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_a_killed_keeper_is_replaced(recording: Recording) -> None:
    with Sandbox() as box:
        before = len(os.listdir("/proc/self/fd"))
        candidate = box.candidate(HONEST, mode="strict")
        keeper = box._keepers["strict"]._process
        keeper.kill()
        keeper.wait()
        with pytest.raises(CandidateError, match="was killed"):
            candidate.knobs([0.5])
        assert box.evaluate(HONEST, recording, mode="strict", shuffles=1).opened.max() == 4
        assert len(os.listdir("/proc/self/fd")) == before


def alive(pids: list[int]) -> list[int]:
    return [pid for pid in pids if Path(f"/proc/{pid}").exists()]


@settings(max_examples=300, deadline=None)
@given(st.one_of(
    st.binary(max_size=300),
    st.dictionaries(st.sampled_from(["t", "raw", "error", "x"]),
                    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=4), st.lists, max_leaves=5))
    .map(lambda reply: (text := json.dumps(reply).encode()) and len(text).to_bytes(4, "little") + text),
), st.binary(max_size=8))  # fmt: skip
def test_whatever_a_candidate_sends_is_a_candidates_error(reply: bytes, more: bytes) -> None:
    ours, theirs = socket.socketpair()
    errors, write = os.pipe()
    os.close(write)
    channel = Channel(ours, errors, Limits(seconds=5, reply_bytes=1000), lambda patience: 0)
    theirs.send(reply + more)  # before anything is asked: unsolicited, or nothing
    theirs.close()
    with pytest.raises(CandidateError):
        channel.ask("load", {})
    channel.close()


@settings(max_examples=300, deadline=None)
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=4),
                    lambda inner: st.lists(inner) | st.dictionaries(st.sampled_from(["t", "raw", "error", "type", "text", "line"]), inner),
                    max_leaves=8), st.binary(max_size=20))  # fmt: skip
def test_whatever_it_answers_too(reply: Any, more: bytes) -> None:

    ours, theirs = socket.socketpair()
    errors, write = os.pipe()
    os.close(write)
    channel = Channel(ours, errors, Limits(seconds=5, reply_bytes=1000), lambda patience: 0)
    text = json.dumps({"t": 1, **reply} if isinstance(reply, dict) else reply).encode()

    def answer() -> None:
        theirs.recv(1000)
        theirs.send(len(text).to_bytes(4, "little") + text + more)
        theirs.close()

    thread = threading.Thread(target=answer)
    thread.start()
    try:
        told, raw = channel.ask("load", {}, expects=3)
        assert type(told) is dict
        assert len(raw) == 3
    except CandidateError:
        pass
    thread.join()
    channel.close()


@pytest.mark.parametrize(
    ("early", "reply", "told"),
    [
        (False, {"t": 2}, "a reply to request 2, where 1 is expected"),
        (False, {"t": True}, "a reply to request True, where 1 is expected"),
        (False, {}, "a reply to request None, where 1 is expected"),
        (True, {"t": 1}, "it sent bytes that nobody asked for"),
    ],
)
def test_a_reply_is_to_what_was_asked(early: bool, reply: dict[str, Any], told: str) -> None:
    ours, theirs = socket.socketpair()
    errors, write = os.pipe()
    os.close(write)
    channel = Channel(ours, errors, Limits(seconds=5), lambda patience: 0)
    text = json.dumps(reply).encode()

    def answer() -> None:
        if not early:
            theirs.recv(1000)
        theirs.send(len(text).to_bytes(4, "little") + text)

    thread = threading.Thread(target=answer)
    thread.start()
    if early:
        thread.join()
    with pytest.raises(CandidateError, match=told):
        channel.ask("load", {})
    thread.join()
    theirs.close()


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc")
def test_the_process_that_forks_candidates_was_given_no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A_SECRET", "marker-of-the-host")
    with Sandbox(Limits(seconds=20)) as opened:
        pid = opened._keepers["strict"]._process.pid
        found = Path(f"/proc/{pid}/environ").read_bytes()
    assert b"marker-of-the-host" not in found


ORPHAN = """
import os, signal, sys, time
from tts_generate.sandbox import Sandbox
box = Sandbox(bubblewrap=False)
keeper = box._keepers["strict"]._process.pid
if os.fork() == 0:  # holds the host's end of the stream open
    print(keeper, os.getpid(), flush=True)
    time.sleep(30)
    os._exit(0)
time.sleep(0.5)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_it_ends_with_the_host_though_somebody_holds_its_stream() -> None:
    done = subprocess.Popen([sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True, env=environment())
    assert done.stdout is not None
    keeper, holder = map(int, done.stdout.readline().split())
    done.wait()
    done.stdout.close()
    try:
        deadline = time.monotonic() + 20
        while Path(f"/proc/{keeper}").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not Path(f"/proc/{keeper}").exists()
        assert Path(f"/proc/{holder}").exists()
    finally:
        os.kill(holder, signal.SIGKILL)


def test_every_attack_works_without_locks() -> None:
    """So that one which is stopped is stopped by a lock, and a lock that is dropped fails a test."""
    at_start = {"read its environment", "use open descriptors of the host"}
    if os.getuid() == 0:  # whose powers the process has no more, so that it cannot look into those that have them
        at_start |= {"read the host's environment", "read the host's memory map", "trace its parent (ptrace)"}
    needs_limits = "take more memory than it may"
    with Sandbox(Limits(memory_mb=128), without=tuple(attacks.LOCKS)) as open_box, attacks.targets() as places:
        for name, code in attacks.MACHINE.items():
            stopped, said = attacks.try_attack(open_box, attacks.machine_attack(code, places))
            if name not in at_start and name != "raise its own limits":  # which needs the powers of root
                assert not stopped, (name, said)
    assert needs_limits in attacks.MACHINE


@pytest.mark.long
def test_check_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = CliRunner().invoke(app, ["sandbox", "check", "--json", str(tmp_path / "check.json")])
    assert run.exit_code == 0, run.output
    told = json.loads((tmp_path / "check.json").read_text())
    assert f"{len(told['attacks'])} of {len(told['attacks'])} attacks stopped" in run.output
    by = {row["attack"]: row["by"] for row in told["attacks"]}
    assert "seccomp" in by["send by UDP"]
    assert "landlock" not in by["send by UDP"]
    assert set(by["write a file"]) >= {"seccomp", *(["landlock"] if landlock_abi() else [])}
    assert by["take more memory than it may"] == ["limits"]
    assert by["read its environment"] == ["clean start"]
    monkeypatch.setattr(attacks, "MACHINE", {"do what is allowed": "worked = True"})
    monkeypatch.setattr(attacks, "HOST", {})
    run = CliRunner().invoke(app, ["sandbox", "check"])
    assert run.exit_code == 1
    assert "0 of 1 attacks stopped" in run.output


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("import collections\ncollections._sys.modules", "line 2: a candidate may not use 'collections._sys'"),
        ("import collections as c\nc._sys", "line 2: a candidate may not use 'collections._sys'"),
        ("import math\nmath.__loader__", "line 2: a candidate may not use the attribute '__loader__'"),
        ("import numpy as np\nnp.lib.npyio", "may not use 'numpy.lib'"),
        ("import numpy as np\nnp.f2py", "may not use 'numpy.f2py'"),
        ("import numpy as np\nnp.seterrcall(print)", "may not use the attribute 'seterrcall'"),
        ("import numpy as np\nnp.zeros(3).ctypes", "may not use the attribute 'ctypes'"),
        ("import numpy.typing\nnumpy.typing.np", "may not use 'numpy.typing.np'"),
        ("import tts_generate.votes\ntts_generate.votes.np.zeros(3)", "may not use 'tts_generate.votes.np'"),
        ("import tts_generate.votes\ntts_generate.replay", "may not use 'tts_generate.replay'"),
        ("import tts_generate.votes\nv = tts_generate.votes", "may only be used by its functions and classes"),
        ("import math\nm = [math]", "the module math may only be used by its functions and classes"),
        ("from tts_generate.votes import np", "may not use 'tts_generate.votes.np'"),
        ("from tts_generate.controller import import_module", "may not use 'tts_generate.controller.import_module'"),
        ("from tts_generate.controller import Path", "may not use 'tts_generate.controller.Path'"),
        ("from collections import _sys", "may not use 'collections._sys'"),
        ("from enum import sys", "may not use 'enum.sys'"),
        ("import statistics\nstatistics.math", "may not use 'statistics.math'"),
        ("from operator import attrgetter", "may not use the attribute 'attrgetter'"),
        ("import operator\noperator.methodcaller('x')", "may not use the attribute 'methodcaller'"),
        ("import string\nstring.Formatter()", "may not use the attribute 'Formatter'"),
        ("from typing import get_type_hints", "may not use the attribute 'get_type_hints'"),
        ("'{0.real}'.format(1)", "write an f-string"),
        ("x = '{0}'\nx.format(1)", "write an f-string"),
        ("'{0:{1.real}}'.format(1, 2)", "write an f-string"),
        ("'{a}'.format_map({})", "may not use the attribute 'format_map'"),
        ("x = f'{int.__subclasses__}'", "may not use the attribute '__subclasses__'"),
        ("f = '__globals__'", "may not name '__globals__' in a text"),
        ("__builtins__['open']", "may not use '__builtins__'"),
        ("__loader__", "may not use '__loader__'"),
        ("match f:\n    case object(__globals__=g):\n        pass", "may not use the attribute '__globals__'"),
        ("class A:\n    __match_args__ = ('x',)", "may not use '__match_args__'"),
        ("class A:\n    x: 'open(1)'", "line 2: a candidate may not use 'open'"),
        ("def f(x: 'int | ().__class__'): pass", "may not use the attribute '__class__'"),
        ("try:\n    1\nexcept ValueError as e:\n    e.__traceback__.tb_frame", "may not use the attribute"),
        ("# coding: unicode_escape\n# \\nimport os", "line 1: the code declares the encoding 'unicode-escape'"),
        ("#!/bin/sh\r# vim: set fileencoding=utf-7 :\r", "line 2: the code declares the encoding 'utf-7'"),
        ("\ufeff# -*- coding: latin-1 -*-\n", "the code declares the encoding 'latin-1'"),
        ("import os", "line 1: a candidate may not import 'os': it may import __future__, abc,"),
        ("import numpi", "did you mean 'numpy'?"),
        ("x = 1\nfrom random import random", "line 2: a candidate may not import 'random': a controller must decide"),
        ("from . import x", "cannot import its neighbours"),
        ("from math import *", "import by name"),
        ("x = open('f')", "may not use 'open'"),
        ("x = ().__class__", "may not use the attribute '__class__'"),
        ("import numpy as np\nnp.load('f')", "line 2: a candidate may not use the attribute 'load'"),
        ("from numpy import memmap", "may not use numpy's 'memmap'"),
        ("def f(state): return state.text(1)", "texts of answers never enter the sandbox"),
        ("def f(:", "the code is not Python"),
        ("x = 1\0", "the code is not Python"),
        ("#" * (300 << 10), "the code has 307200 bytes; at most 262144"),
    ],
)
def test_import_rules(code: str, text: str) -> None:
    with pytest.raises(CandidateError) as caught:
        check_source(code.encode())
    assert text in str(caught.value)


@pytest.mark.parametrize(
    "code",
    [
        "# coding: utf-8\nimport numpy as np\nx = np.zeros(3).astype(np.int64), np.add.reduce([1]), np.inf, np.argsort",
        "import collections\nfrom collections import abc, Counter\nx: collections.abc.Mapping = collections.Counter()",
        "import numpy.typing as npt\nfrom numpy.typing import NDArray\nx: npt.NDArray",
        "from typing import Literal\nclass A:\n    x: Literal['open', 'other']\n    y: 'int'",
        "x = '{} {:.2f} {x}'.format(1, 2.0, x=3) + f'{1.5:>{3}.2f}'",
        "class A:\n    __slots__ = ('_x',)\n    def __init__(self):\n        super().__init__()\n        self._x = 1",
        "import functools, heapq, itertools, math, operator, statistics\nfunctools.lru_cache, heapq.heappush, "
        "itertools.chain, math.log, operator.add, statistics.median",
        "from tts_generate.controller import Controller, Knob\nfrom tts_generate.votes import majority, tally, confidence",
        '\ufeff"""The `__init__` of a thing."""',
    ],
)
def test_what_honest_code_needs_keeps_the_rules(code: str) -> None:
    check_source(code.encode())
    exec(compiled(code.encode(), "controller.py"), {})


@pytest.mark.parametrize(
    "code",
    [
        'x = "{' + "." * 250_000 + '".format(1)',
        'x = "' + "{:" * 60_000 + "}" * 60_000 + '".format(1)',
        "x: " + ".".join(["a"] * 900) + "[0] = 1",
        "def f(x: " + ".".join(["a"] * 900) + "[0]): pass",
    ],
    ids=["dots in a template", "templates in one another", "a deep annotation", "a deep annotation of an argument"],
)
def test_code_that_is_made_to_be_slow_or_deep_is_checked_at_once(code: str) -> None:
    started = time.monotonic()
    with contextlib.suppress(CandidateError):
        check_source(code.encode())
    assert time.monotonic() - started < 5


@pytest.mark.parametrize("name", WITH_CODE)
def test_shipped_controllers_keep_the_import_rules(name: str) -> None:
    check_source(source(name).encode())


def test_threads_share_a_sandbox(box: Sandbox) -> None:
    from concurrent.futures import ThreadPoolExecutor

    small = recording_of(random_trajectories(random.Random(2), 8))
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda n: box.evaluate(HONEST, small, shuffles=n + 1, mode="strict"), range(8)))
    assert [len(one.opened) for one in found] == list(range(1, 9))
