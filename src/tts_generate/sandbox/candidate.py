"""A candidate's code in its locked process, and what it can be asked."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Knob, check_budget, describe
from tts_generate.errors import CandidateError, InputError, warn
from tts_generate.recorded.compiled import CompileWarning
from tts_generate.recorded.episodes import Columns
from tts_generate.recorded.recording import Recording
from tts_generate.recorded.run import ReplayResult
from tts_generate.sandbox.arrays import NoSuchAnswer, Relabelled
from tts_generate.sandbox.channel import Channel, clean
from tts_generate.sandbox.process import Keeper
from tts_generate.sandbox.strict import StrictController
from tts_generate.sandbox.strictly import replay_strictly
from tts_generate.schedule import Range, Scale, is_number

Mode = Literal["bulk", "strict"]
_MAX_KNOBS = 256
_PROBING = ("every_step", "on_demand", "never")
_TAKEN = {"self", "betas", "beta", "recording", "shuffles", "first_shuffle", "compiled"}
"""Arguments of ours, beside which knobs are given by name."""


class Candidate:
    """A candidate's code in its locked process; made by `Sandbox.candidate`, use it by `with`.

    Attributes:
        name: of its controller class.
        warnings: what its process warned of, such as code that does not compile. Untrusted text.
    """

    def __init__(
        self, channel: Channel, mode: Mode, seed: int, quiet: bool = False, again: Callable[[], Candidate] | None = None
    ) -> None:
        self.mode = mode
        self.over: list[Candidate] = []
        """Processes that nobody needs any more; ended when the next one is opened."""
        self._quiet = quiet
        self.name = ""
        self.compiled = False
        """Whether some of its replays were compiled."""
        self.warnings: list[str] = []
        self.keeper: Keeper | None = None
        self.channel = self._channel = channel
        self._again = again
        self._origin: Candidate | None = None
        self._living: set[Candidate] = set()
        self._left: float | None = None
        self._seed = seed
        self._rng = np.random.default_rng()
        self._sent: dict[int, tuple[int, Relabelled, Recording]] = {}  # the recording too, so that its id stays its own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End its process, and those of its episodes."""
        if self._origin is not None:
            self._origin._ended(self)
        for other in list(self._living):
            other.close()
        self._channel.close()
        if self.keeper is not None:
            self.keeper.close()

    def fresh(self) -> Candidate:
        """Another process of the same code, which has run no episode.

        Raises:
            CandidateError: it loads otherwise than before, or its time is used up.
        """
        while self.over:
            self.over.pop().close()
        if self._left is not None and self._left <= 0:
            raise CandidateError("time", "the candidate was not done with its episodes in time and has been ended.")
        assert self._again is not None
        other = self._again()
        if (other.name, other.described) != (self.name, self.described):
            other.close()
            raise CandidateError("different", f"it loads as {other.name} in one process, as {self.name} in another.")
        other._origin = self
        self._living.add(other)
        if self._left is not None:
            other.channel.left = self._left
        return other

    @contextmanager
    def allowed(self, seconds: float) -> Iterator[None]:
        """Share the wall time of the limits, and so many seconds more, among all processes that are opened."""
        self._left = self._channel.limits.seconds + seconds
        try:
            yield
        finally:
            self._left = None

    def _ended(self, other: Candidate) -> None:
        if other in self._living:
            self._living.discard(other)
            if self._left is not None:
                self._left -= other.channel.waited

    @property
    def compiles(self) -> bool:
        """Whether its class says that its hooks compile."""
        return bool(self.described[-1])

    def renew(self) -> None:
        """Give it the whole wall time of its limits again; of CPU time it has what is left."""
        self._channel.renew()

    @property
    def output(self) -> str:
        """What it printed, at most 4 KB, cleaned. Untrusted text."""
        return self._channel.output

    def load(self, source: bytes, entry: str | None) -> None:
        """Run the module; called once, by `Sandbox.candidate`."""
        reply, _ = self._channel.ask("load", {"entry": entry, "seed": self._seed}, source)
        kind = reply.get("kind")
        if type(kind) is not dict or not isinstance(kind.get("name"), str) or not kind["name"].isidentifier():
            self._channel.refuse("it does not say what it loaded")
        self.name = kind["name"][:100]
        self.described = self._described(kind)

    def _described(self, kind: Mapping[str, Any]) -> tuple[str, int, bool, bool]:
        """What a reply says of a controller beside its knobs, checked."""
        probing, rounds = kind.get("probing"), kind.get("max_rounds")
        flags = (kind.get("reads_logprobs"), kind.get("compiles"))
        if probing not in _PROBING or type(rounds) is not int or not 1 <= rounds < 1 << 62:
            raise CandidateError(
                "import", f"{clean(self.name)} has probing {probing!r:.40} and max_rounds {rounds!r:.40}; one of "
                f"{', '.join(_PROBING)} and a whole number from 1 on are expected.",
            )  # fmt: skip
        if any(type(flag) is not bool for flag in flags):
            raise CandidateError("import", "reads_logprobs and compiles must be True or False.")
        return probing, rounds, bool(flags[0]), bool(flags[1])

    def knobs(self, betas: Sequence[float], /, **knobs: Any) -> list[dict[str, Knob]]:
        """Every knob at each budget, as the candidate's schedule says.

        Raises:
            CandidateError: the schedule fails.
        """
        return [told for told, _ in self._at(betas, knobs)]

    def _at(self, betas: Sequence[float], knobs: Mapping[str, Knob]) -> list[tuple[dict[str, Knob], Mapping[str, Any]]]:
        """By budget: every knob, and what else is said of the controller there."""
        reply, _ = self._channel.ask("knobs", {"betas": list(betas), "knobs": dict(knobs)})
        rows, kinds = reply.get("knobs"), reply.get("kinds")
        if type(rows) is not list or len(rows) != len(betas) or not all(map(_are_knobs, rows)):
            self._channel.fail(
                "knobs", f"its knobs must be at most {_MAX_KNOBS} names, each with a number of 64 bits, true or false, "
                "or a short name in one line.",
            )  # fmt: skip
        if type(kinds) is not list or len(kinds) != len(betas) or not all(type(kind) is dict for kind in kinds):
            self._channel.refuse("it does not say what it is at each budget")
        for name in (name for row in rows for name in row if name in _TAKEN):
            self._channel.fail(
                "knobs", f"a knob is called {name!r}, as an argument of replay is; give it another name."
            )
        return list(zip(rows, kinds, strict=True))

    def _made(self, beta: float, given: Mapping[str, Knob]) -> StrictController:
        """The candidate at a budget; its probing and the like may depend on its knobs."""
        ((told, kind),) = self._at([beta], given)
        probing, rounds, logprobs, _ = self._described(kind)
        body = {"probing": probing, "max_rounds": rounds, "reads_logprobs": logprobs, "__doc__": None}
        made: type[StrictController] = type(self.name, (StrictController,), body)
        return made(self, beta, given, told)

    def ranges(self) -> dict[str, Range]:
        """The ranges of its knobs that its class declares; none if it declares none.

        Raises:
            CandidateError: they are no ranges.
        """
        reply, _ = self._channel.ask("ranges", {})
        rows = reply.get("ranges")
        if type(rows) is not dict or len(rows) > _MAX_KNOBS or not all(map(_is_range, rows.values())):
            self._channel.fail("knobs", "its `ranges` are not names with a Range of finite numbers each.")
        return {clean(name)[:100]: Range(**row) for name, row in rows.items()}

    def controller(self, *, beta: float = 0.5, **knobs: Any) -> StrictController:
        """The candidate as a controller for `Recording.episode`, `Recording.trace` or `generate`, strict mode only.

        Raises:
            InputError: this candidate is open in bulk mode.
        """
        if self.mode != "strict":
            raise InputError("a controller runs step by step: open the candidate with mode='strict'.")
        return self._made(_budget(beta), knobs)

    def columns(
        self,
        recordings: Sequence[Recording],
        controller: StrictController,
        shuffles: int,
        first_shuffle: int,
        threads: int | None = 1,
    ) -> list[NDArray[np.int64]]:
        """The columns of every episode at one budget, by recording, strict mode only; see `replay_strictly`."""
        return replay_strictly(self, recordings, [controller], shuffles, first_shuffle, threads)[0]

    def replays(
        self,
        recordings: Sequence[Recording],
        betas: Sequence[float],
        *,
        shuffles: int,
        first_shuffle: int = 0,
        threads: int | None = 1,
    ) -> list[list[ReplayResult]]:
        """Replays in strict mode, by recording, then by budget: no question twice in a process.

        Raises:
            CandidateError: see `replay`; or it decides otherwise when it is alone.
            StoreError: it reads what was not recorded.
        """
        controllers = [self.controller(beta=beta) for beta in betas]
        for recording in recordings:
            recording.check(controllers[0])
        found = replay_strictly(self, recordings, controllers, shuffles, first_shuffle, threads)
        return [
            [
                ReplayResult(dict(describe(controller)), recording, *Columns(*found[c][r]))
                for c, controller in enumerate(controllers)
            ]
            for r, recording in enumerate(recordings)
        ]

    def replay(
        self,
        recording: Recording,
        *,
        beta: float = 0.5,
        shuffles: int = 100,
        first_shuffle: int = 0,
        compiled: bool | None = None,
        **knobs: Any,
    ) -> ReplayResult:
        """What `tts_generate.replay.replay` returns, computed in the sandbox; right and wrong is told outside.

        Args:
            recording: bulk: it is sent once for each candidate, and stays.
            beta: the budget in [0, 1].
            shuffles: as in `replay`.
            first_shuffle: as in `replay`.
            compiled: as in `replay`; strict mode never compiles.
            **knobs: knobs set by hand.

        Raises:
            CandidateError: the candidate fails, or an episode stalls or asks for what was not recorded.
            StoreError: it reads what was not recorded.
        """
        if shuffles < 0:
            raise InputError(f"shuffles must be 0 (recorded order) or more, got {shuffles}.")
        beta = _budget(beta)
        controller = self._made(beta, knobs)
        recording.check(controller)
        described = dict(describe(controller))
        if self.mode == "strict":
            (columns,) = self.columns([recording], controller, shuffles, first_shuffle)
            return ReplayResult(described, recording, *Columns(*columns))
        number, relabelled = self._recording(recording)
        reply, raw = self._channel.ask(
            "replay",
            {
                "recording": number,
                "beta": beta,
                "knobs": knobs,
                "shuffles": shuffles,
                "first_shuffle": first_shuffle,
                "compiled": compiled,
            },
            expects=8 * len(Columns._fields) * max(1, shuffles) * len(recording.questions),
        )
        try:
            bulk = relabelled.columns(raw, shuffles)
        except NoSuchAnswer as error:
            self._channel.fail(
                "decision",
                f"the candidate answers what no branch of the question shows ({error}): a number of its own, or what "
                "it read beyond a branch's depth or beyond state.opened, which is looking ahead.",
            )
        except ValueError as error:
            self._channel.refuse(str(error))
        seconds = reply.get("seconds")
        if seconds is not None and not (type(seconds) is float and 0 <= seconds < float("inf")):
            self._channel.refuse("compile seconds that are no number")
        self._warn(reply.get("warned"))
        self.compiled |= seconds is not None
        return ReplayResult(described, recording, *Columns(*bulk), compile_seconds=seconds)

    def _recording(self, recording: Recording) -> tuple[int, Relabelled]:
        if id(recording) not in self._sent:
            relabelled = Relabelled.of(recording, self._rng)
            self._channel.ask("recording", relabelled.message, relabelled.raw)
            self._sent[id(recording)] = len(self._sent), relabelled, recording
        return self._sent[id(recording)][:2]

    def _warn(self, warned: object) -> None:
        if type(warned) is not list or len(warned) > 8 or not all(type(text) is str for text in warned):
            self._channel.refuse("warnings that are no texts")
        for text in warned:
            self.warnings.append(clean(text)[:2000])
            if not self._quiet:
                warn(self.warnings[-1], CompileWarning, stacklevel=3)


def _budget(beta: float) -> float:
    check_budget(beta)
    return float(beta)


def _is_range(row: object) -> bool:
    """Whether a candidate's reply is the fields of a `Range`."""
    if type(row) is not dict or set(row) != {field.name for field in dataclasses.fields(Range)}:
        return False
    off = [] if row["off"] is None else [row["off"]]
    numbers = all(is_number(value) for value in (row["low"], row["high"], *off))
    return numbers and row["scale"] in get_args(Scale) and type(row["moves"]) is type(row["logprobs"]) is bool


def _is_name(value: str) -> bool:
    """Whether a knob's text is a name: short, in one line, and nothing in it acts."""
    return len(value) <= 100 and "\n" not in value and clean(value) == value


def _are_knobs(row: object) -> bool:
    """Whether a candidate's reply is a set of knobs: few, by name, each a number of 64 bits, a truth or a name."""
    if type(row) is not dict or len(row) > _MAX_KNOBS:
        return False
    return all(
        name.isidentifier()
        and len(name) <= 100
        and (type(value) is bool or is_number(value) or (type(value) is str and _is_name(value)))
        for name, value in row.items()
    )
