"""What runs in a candidate's locked process: it loads the candidate's code and answers the host's questions about it.

Whatever comes out of here may be forged by the candidate, which shares the process; the host believes nothing it
cannot check. Runs in the child: no import of the host's part.
"""

from __future__ import annotations

import dataclasses
import linecache
import math
import os
import random
import sys
import types
import warnings
from collections.abc import Mapping
from operator import index
from typing import Any, Literal

import numpy as np

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError
from tts_generate.import_rules import compiled
from tts_generate.rules import clear_decision
from tts_generate.sandbox import wire
from tts_generate.sandbox.revealed import reveal_only
from tts_generate.sandbox.together import MOST_OWN, Together, check_decision
from tts_generate.schedule import Range
from tts_generate.state import Decision, State
from tts_generate.votes import confidence, majority, tally

MODULE = "candidate"
FILE = "controller.py"
_MESSAGE = 2000  # characters of an error's text
_Message = Mapping[str, Any]


def serve(stream_in: int, stream_out: int) -> None:
    """Answer requests until the host is gone; never returns."""
    candidate = _Candidate()
    while (received := wire.read(stream_in)) is not None:
        message, raw = received
        try:
            told, out = getattr(candidate, "do_" + message["do"])(message, raw)
            reply = wire.pack({"t": message["t"], **told}, out)
        except BaseException as error:  # whatever a candidate raises is an answer
            reply = wire.pack({"t": message["t"], "error": _told(error)})
        wire.write(stream_out, reply)
    os._exit(0)


def _told(error: BaseException) -> dict[str, Any]:
    """An error as the host is told of it: its type, its text, and the last line of the candidate that it came by."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == FILE:
            line = trace.tb_lineno
        trace = trace.tb_next
    return {"type": type(error).__name__[:100], "text": str(error)[:_MESSAGE], "line": line}


class _Candidate:
    """A candidate's code and the episodes it has running; `do_*` answers a request by (JSON, raw bytes)."""

    kind: type[Controller]
    running: tuple[Controller, State, Decision]
    together: Together

    def __init__(self) -> None:
        self.recordings: list[Any] = []

    def do_load(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Run the candidate's module and find its controller."""
        random.seed(message["seed"])
        module = types.ModuleType(MODULE)
        module.__file__ = FILE
        sys.modules[MODULE] = module
        linecache.cache[FILE] = (len(raw), None, raw.decode("utf-8").splitlines(keepends=True), FILE)
        exec(compiled(raw, FILE), vars(module))
        self.kind = kind = _controller_of(module, message["entry"])
        told = _kind(kind)
        if any(isinstance(value, property) for value in told.values()):  # it depends on the knobs: as they usually are
            told = _kind(kind.from_beta())
        return {"kind": {"name": kind.__name__, **told}}, b""

    def do_knobs(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Every knob at each of some budgets, and what else the controller is there."""
        made = [self.kind.from_beta(beta, **message["knobs"]) for beta in message["betas"]]
        return {"knobs": [one.knobs for one in made], "kinds": [_kind(one) for one in made]}, b""

    def do_ranges(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """The ranges that the class declares."""
        declared: Mapping[str, Range] = getattr(self.kind, "ranges", {})
        return {"ranges": {str(name): dataclasses.asdict(room) for name, room in declared.items()}}, b""

    def do_hook(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Strict mode: let the controller of this process's one episode see what was revealed since, and decide."""
        told: dict[str, Any] = {}
        if "shape" in message:
            shape = message["shape"]
            mine = self.kind.from_beta(message["beta"], **message["knobs"])
            told["knobs"] = mine.knobs
            self.running = mine.for_episode(shape[0]), State(*shape), Decision(shape[0])
            reveal_only(self.running[1])
        mine, state, do = self.running
        _see(state, message["seen"])
        if message["hook"] == "answer":
            return {"answer": int(index(mine.answer(state)))}, b""
        clear_decision(do)
        getattr(mine, message["hook"])(state, do)
        if "own" in message:
            told["own"] = _numbers(mine)
        return {**told, "did": _decided(do, message["seen"]["scalars"][4])}, b""

    def do_batch(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Strict mode: begin episodes that go on together, each of another question."""
        self.together = Together(self.kind, message)
        return {"knobs": self.together.knobs}, b""

    def do_turn(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Strict mode: the next hook of each of them that goes on."""
        return {}, self.together.turn(message["counts"], raw)

    def do_recording(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Bulk mode: take a recording, relabelled and without gold."""
        from tts_generate.sandbox.arrays import recording_of

        self.recordings.append(recording_of(message, raw))
        return {"recordings": len(self.recordings)}, b""

    def do_replay(self, message: _Message, raw: bytes) -> tuple[_Message, bytes]:
        """Bulk mode: replay, and hand back the columns of every episode."""
        from tts_generate.recorded.compiled import CompileWarning
        from tts_generate.recorded.episodes import Columns
        from tts_generate.recorded.run import run_recorded

        controller = self.kind.from_beta(message["beta"], **message["knobs"])
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = run_recorded(
                self.recordings[message["recording"]], controller, threads=1,
                **{name: message[name] for name in ("shuffles", "first_shuffle", "compiled")},
            )  # fmt: skip
        columns = np.stack([getattr(found, name) for name in Columns._fields])
        said = [str(w.message)[:_MESSAGE] for w in caught if issubclass(w.category, CompileWarning)][:8]
        return {"seconds": found.compile_seconds, "warned": said}, columns.astype("<i8").tobytes()


def _kind(one: Controller | type[Controller]) -> dict[str, Any]:
    """What the host must know of a controller to run it."""
    return {name: getattr(one, name) for name in ("probing", "max_rounds", "reads_logprobs", "compiles")}


def _controller_of(module: types.ModuleType, entry: str | None) -> type[Controller]:
    """The candidate's controller class: the one named, else the one that no other of its classes is based on."""
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Controller) and value.__module__ == MODULE
    ]
    if entry is not None:
        found = [kind for kind in found if kind.__name__ == entry]
    else:
        found = [kind for kind in dict.fromkeys(found) if not any(kind in other.__mro__[1:] for other in found)]
    if len(found) != 1:
        names = ", ".join(sorted(kind.__name__ for kind in found)) or "none"
        wanted = "one class" if entry is None else f"a class {entry}"
        raise ControllerError(
            f"{FILE} must define {wanted} based on tts_generate.controller.Controller; found {names}."
        )
    return found[0]


def _see(state: State, seen: _Message) -> None:
    """Bring the state up to what the host has revealed."""
    (
        state.pooled, state.leader, state.leader_votes, state.runner_up_votes, state.opened, state.live, state.round,
        state.generated_tokens, state.probe_tokens, state.sequential_tokens,
    ) = seen["scalars"]  # fmt: skip
    pool = seen["pool"]
    state.pool[state.pooled - len(pool) : state.pooled] = pool
    for i, answer, depth, tokens, finished, pruned, rank, start, answers, logprobs in seen["rows"]:
        state.answer[i], state.depth[i], state.tokens[i] = answer, depth, tokens
        state.finished[i], state.pruned[i], state.finish_rank[i] = finished, pruned, rank
        state.answers[i, start:depth] = answers
        if logprobs is not None:
            state.logprobs[i, start:depth] = [np.nan if value is None else value for value in logprobs]


def _decided(do: Decision, opened: int) -> _Message:
    """A decision as plain numbers."""
    check_decision(do, opened)
    return {
        "open": int(index(do.open)),
        "open_steps": int(index(do.open_steps)),
        "stop": bool(do.stop),
        "answer": int(index(do.answer)),
        "steps": do.steps[:opened].astype(np.int64).tolist(),
        "prune": np.flatnonzero(do.prune[:opened]).tolist(),
        "probe": np.flatnonzero(do.probe).tolist(),  # those that are opened now may be probed too
    }


def _numbers(mine: Controller) -> dict[str, float]:
    """The first few numbers that a controller remembers, its knobs aside."""
    values = {name: value for name, value in vars(mine).items() if name not in mine.knobs and name != "beta"}
    numbers = {
        name: float(value)
        for name, value in values.items()
        if isinstance(value, (int, float, np.integer, np.floating)) and len(name) <= 40
    }
    kept = {name: value for name, value in numbers.items() if abs(value) < 1e18}
    return dict(list(kept.items())[:MOST_OWN])


class _WarmUp(Controller):
    """Uses what candidates use most: votes, names, arrays and their loops, logarithms and powers."""

    width: int
    threshold: float
    criterion: Literal["one", "other"]

    @staticmethod
    def schedule(beta: float) -> dict[str, float | str]:
        return {"width": 2, "threshold": 0.5, "criterion": "one"}

    def memory(self, max_branches: int) -> None:
        self.seen = np.zeros(max_branches, np.float64)
        self.counts = np.full(max_branches, -1, np.int64)
        self.total = 0.0

    def begin(self, state: State, do: Decision) -> None:
        do.open = min(self.width, state.max_branches)

    def plan(self, state: State, do: Decision) -> None:
        for i in range(state.opened):
            do.steps[i] = 0 if state.finished[i] or state.pruned[i] else 1

    def review(self, state: State, do: Decision) -> None:
        votes = tally(state.pool, state.pooled)
        for count in votes:
            self.total += math.log(count) + math.exp(-count) + math.lgamma(count) + math.sqrt(count) + count**0.5
        winner, first, second = majority(state.answer, state.opened)
        self.seen[0] = confidence(first, second) + max(1.0, abs(float(winner))) / max(1, votes.sum())
        if self.criterion == "one" and self.seen[: state.opened].sum() >= 0:
            do.stop = self.total > self.threshold or np.argsort(state.tokens)[0] == 0
            do.answer = winner


def _line(values: Any) -> Any:
    return np.zeros(3) + math.log(values[0])


def load_compiler() -> None:
    """Compile a line, so that a locked child finds every part of the compiler in memory, and needs no file."""
    from tts_generate.recorded import run  # noqa: F401 - with all that it needs
    from tts_generate.recorded.compiled import compiled_function
    from tts_generate.recorded.machine_code import keep_nothing
    from tts_generate.sandbox import arrays  # noqa: F401

    keep_nothing()
    compiled_function(_line)(np.ones(3))


def warm_up(branches: int, depth: int) -> None:
    """Compile once what every candidate shares, and what most of them use."""
    from tts_generate.recorded.run import run_recorded
    from tts_generate.sandbox.arrays import plainest

    run_recorded(plainest(branches, depth), _WarmUp.from_beta(0.5), shuffles=0, compiled=True, threads=1)
