"""Faults of whole processes, made to happen: signals to a recording, a death in a job, a server that stalls.

Each trial gives `tried`; `wrong`, how many ended otherwise than they should; `lost`, branches that were recorded and
are not there, or a finished store unlike an uninterrupted one; `left`, processes, descriptors, threads or temporary
files; `seconds`, from the fault to the end, the longest.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / name) for name in ("tools", "tests/engine", "tests/server")]
import distributed_worker as worker  # noqa: E402
import test_distributed as jobs  # noqa: E402
from local_servers import OPTIONS, QUESTIONS, Proxy  # noqa: E402
from token_server import TokenServer  # noqa: E402
from transformers import AutoTokenizer  # noqa: E402

from tts_generate import ServerModel, tiny  # noqa: E402
from tts_generate.trajectories import Trajectory, TrajectoryStore, check  # noqa: E402

SIGNALS: dict[str, tuple[Sequence[signal.Signals], set[int]]] = {
    "ctrl_c": ([signal.SIGINT], {130}),
    "ctrl_c_twice": ([signal.SIGINT, signal.SIGINT], {130, 1, -signal.SIGINT}),
    "sigterm": ([signal.SIGTERM], {143}),
}
"""What is sent to a recording, and the exit codes it may end by."""


def signalled(folder: Path, name: str, whole: list[Trajectory], times: int) -> dict[str, Any]:
    """Send signals to recordings with the tiny model, then finish them."""
    blows, codes = SIGNALS[name]
    found = {"tried": 0, "wrong": 0, "lost": 0, "left": 0, "seconds": 0.0}
    for number in range(times):
        store = folder / f"{name}-{number}"
        child = _recording(store)
        _until_journalled(store, child)
        sent = time.monotonic()
        for blow in blows:
            child.send_signal(blow)
            time.sleep(0.02 * number)
        _, complaints = child.communicate(timeout=120)
        found["seconds"] = max(found["seconds"], round(time.monotonic() - sent, 2))
        kept = TrajectoryStore.open(store).trajectories()
        sound = check(store).sound and 0 < len(kept) < len(whole)
        found["tried"] += 1
        found["wrong"] += child.returncode not in codes or not sound or "Traceback" in complaints
        found["left"] += _of_session(child.pid)
        done = worker.record_tiny(store, 64).trajectories()
        found["lost"] += jobs.tokens(done) != jobs.tokens(whole) or not set(kept) <= set(done)
        found["left"] += len(list(store.glob("*.tmp")))
    return found


def dead_process(folder: Path, whole: list[Trajectory]) -> dict[str, Any]:
    """SIGKILL one process of two that record: the other ends by one error that names it, and nothing is lost."""
    found = {"tried": 0, "wrong": 0, "lost": 0, "left": 0, "seconds": 0.0}
    for victim in (0, 1):
        store = folder / f"victim-{victim}"
        children = jobs.start(2, "slowly", store)
        jobs.wait_for_journals(store, children)
        children[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        _, complaints = children[1 - victim].communicate(timeout=120)
        children[victim].communicate()
        found["tried"] += 1
        found["seconds"] = max(found["seconds"], round(time.monotonic() - killed, 2))
        said = f"ProcessError: process {victim} of 2 ended early: it was killed. What was recorded is kept"
        found["wrong"] += complaints.count(said) != 1 or children[1 - victim].returncode != 1
        kept = TrajectoryStore.open(store).trajectories()
        done = worker.record_tiny(store, 64).trajectories()
        found["lost"] += jobs.tokens(done) != jobs.tokens(whole) or not set(kept) <= set(done)
        found["left"] += len(list(store.glob("*.tmp"))) + len(list(store.glob("LOCK-*")))
    return found


def stalled_server(times: int) -> dict[str, Any]:
    """A server that takes requests and stops answering: given up in bounded time, and what came is kept and counted."""
    found = {"tried": 0, "wrong": 0, "lost": 0, "left": 0, "seconds": 0.0}
    tokenizer = AutoTokenizer.from_pretrained(tiny.path())
    process = psutil.Process()
    before: tuple[int, int] | None = None
    for number in range(times):
        stalls = functools.partial(_stalls, 6 + number)
        with TokenServer(batch=1) as server, Proxy(server.url, stalls) as proxy:
            model = ServerModel(proxy.url, timeout=1.0, max_retries=1, tokenizer=tokenizer)
            started = time.monotonic()
            with warnings.catch_warnings(record=True) as said:
                warnings.simplefilter("always")
                output = model.generate(QUESTIONS, controller="cmc", beta=0.0, seed=1, **OPTIONS)
            seconds = round(time.monotonic() - started, 2)
        tokens = [sum(branch.tokens for branch in branches) for branches in output.branches]
        told = all("majority so far" in str(one.message) for one in said) and len(said) == len(QUESTIONS)
        found["tried"] += 1
        found["wrong"] += output.finish_reason != ["error"] * len(QUESTIONS) or not told or seconds > 30
        found["lost"] += tokens != [cost.generated_tokens for cost in output.cost]
        found["seconds"] = max(found["seconds"], seconds)
        time.sleep(0.5)  # for the proxy's last thread
        held = process.num_fds(), process.num_threads()
        if before:
            found["left"] += max(0, held[0] - before[0]) + max(0, held[1] - before[1])
        before = held
    return found


def every(folder: Path, times: int) -> dict[str, Any]:
    """All of them."""
    whole = worker.record_tiny(folder / "whole", 64).trajectories()
    found = {name: signalled(folder, name, whole, times) for name in SIGNALS}
    return {**found, "dead_process": dead_process(folder, whole), "stalled_server": stalled_server(times)}


def _recording(store: Path) -> subprocess.Popen[str]:
    """A recording of the tiny model by the command line, in a session of its own; of two rows, to take a while."""
    asked = store.with_suffix(".jsonl")
    rows = [dataclasses.asdict(question) for question in tiny.questions("record")[:6]]
    asked.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    command = ["-m", "tts_generate.cli", "record", "tiny", "--questions", asked, "--branches", 24, "--max-rows", 2]
    heed = functools.partial(signal.signal, signal.SIGINT, signal.default_int_handler)
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    arguments = [sys.executable, *map(str, command), "--out", str(store)]
    return subprocess.Popen(arguments, env=jobs.ENVIRONMENT, start_new_session=True, preexec_fn=heed, **pipes)


def _until_journalled(store: Path, child: subprocess.Popen[str]) -> None:
    journal = store / "journal"
    deadline = time.monotonic() + 120
    while not (journal.is_file() and journal.stat().st_size):
        if child.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"the recording did not begin: {child.communicate()[1]}")
        time.sleep(0.01)


def _stalls(after: int, request: int) -> str:
    return "stall" if request > after else ""


def _of_session(session: int) -> int:
    """Processes of a session that still run."""
    found = 0
    for process in psutil.process_iter():
        try:
            found += os.getsid(process.pid) == session
        except OSError:
            continue
    return found
