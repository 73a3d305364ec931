"""A candidate's code in its locked process, and what it can be asked."""

from __future__ import annotations

import random
import warnings
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Knob
from tts_generate.errors import CandidateError, ControllerError, InputError
from tts_generate.replay import Recording, ReplayResult, shuffled_orders
from tts_generate.replay.compiled import CompileWarning
from tts_generate.replay.episodes import Columns
from tts_generate.search.sandbox.arrays import Relabelled
from tts_generate.search.sandbox.channel import Channel, clean
from tts_generate.search.sandbox.process import Keeper
from tts_generate.search.sandbox.strict import StrictController

Mode = Literal["bulk", "strict"]
_MAX_KNOBS = 256
_PROBING = ("every_step", "on_demand", "never")


class Candidate:
    """A candidate's code in its locked process; made by `Sandbox.candidate`, use it by `with`.

    Attributes:
        name: of its controller class.
        warnings: what its process warned of, such as code that does not compile. Untrusted text.
    """

    def __init__(self, channel: Channel, mode: Mode, seed: int, quiet: bool = False) -> None:
        self.mode = mode
        self._quiet = quiet
        self.name = ""
        self.warnings: list[str] = []
        self.keeper: Keeper | None = None
        self._channel = channel
        self._seed = seed
        self._rng = np.random.default_rng()
        self._kind: type[StrictController] = StrictController
        self._sent: dict[int, tuple[int, Relabelled, Recording]] = {}  # the recording too, so that its id stays its own

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End its process."""
        self._channel.close()
        if self.keeper is not None:
            self.keeper.close()

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
        rounds = kind.get("max_rounds")
        flags = (kind.get("reads_logprobs"), kind.get("compiles"))
        if kind.get("probing") not in _PROBING or type(rounds) is not int or not 1 <= rounds < 1 << 62:
            raise CandidateError(
                "import", f"{clean(kind['name'])[:100]} has probing {kind.get('probing')!r:.40} and max_rounds "
                f"{rounds!r:.40}; one of {', '.join(_PROBING)} and a whole number from 1 on are expected.",
            )  # fmt: skip
        if any(type(flag) is not bool for flag in flags):
            raise CandidateError("import", "reads_logprobs and compiles must be True or False.")
        self.name = kind["name"][:100]
        body = {"probing": kind["probing"], "max_rounds": rounds, "reads_logprobs": flags[0], "__doc__": None}
        self._kind = type(self.name, (StrictController,), body)

    def knobs(self, betas: Sequence[float], **knobs: Any) -> list[dict[str, Knob]]:
        """Every knob at each budget, as the candidate's schedule says.

        Raises:
            CandidateError: the schedule fails.
        """
        reply, _ = self._channel.ask("knobs", {"betas": list(betas), "knobs": knobs})
        rows = reply.get("knobs")
        if type(rows) is not list or len(rows) != len(betas) or not all(map(_are_knobs, rows)):
            self._channel.refuse("knobs that are not names with numbers or names")
        return [dict(row) for row in rows]

    def controller(self, *, beta: float = 0.5, **knobs: Any) -> StrictController:
        """The candidate as a controller for `Recording.episode`, `Recording.trace` or `generate`, strict mode only.

        Raises:
            InputError: this candidate is open in bulk mode.
        """
        if self.mode != "strict":
            raise InputError("a controller runs step by step: open the candidate with mode='strict'.")
        (told,) = self.knobs([_budget(beta)], **knobs)
        return self._kind(self._channel, float(beta), knobs, told)

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
        recording.check(self._kind(self._channel, beta, knobs, {}))
        (told,) = self.knobs([beta], **knobs)
        described = {"controller": self.name, "beta": float(beta), "knobs": told}
        if self.mode == "strict":
            return ReplayResult(
                described, recording, *Columns(*self._strictly(recording, beta, shuffles, first_shuffle, knobs))
            )
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
            columns = relabelled.columns(raw, shuffles)
        except ValueError as error:
            self._channel.refuse(str(error))
        seconds = reply.get("seconds")
        if seconds is not None and not (type(seconds) is float and 0 <= seconds < float("inf")):
            self._channel.refuse("compile seconds that are no number")
        self._warn(reply.get("warned"))
        return ReplayResult(described, recording, *Columns(*columns), compile_seconds=seconds)

    def _strictly(
        self, recording: Recording, beta: float, shuffles: int, first_shuffle: int, knobs: Mapping[str, Knob]
    ) -> NDArray[np.int64]:
        """Every episode, in random order."""
        out = Columns.empty(max(1, shuffles), len(recording.questions))
        controller = self.controller(beta=beta, **knobs)
        places = list(np.ndindex(out[0].shape))
        random.shuffle(places)
        for s, q in places:
            out[:, s, q] = columns_of(recording, controller, q, order_of(recording, q, s, shuffles, first_shuffle))
        return out

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
                warnings.warn(self.warnings[-1], CompileWarning, stacklevel=3)


def order_of(recording: Recording, question: int, shuffle: int, shuffles: int, first: int) -> list[int]:
    """The order of a question's branches in row `shuffle` of a replay's columns."""
    branches = recording.questions[question].branches
    if shuffles == 0:
        return list(range(branches))
    (order,) = shuffled_orders(1, branches, first + shuffle)
    return order


def columns_of(recording: Recording, controller: StrictController, question: int, order: Sequence[int]) -> list[int]:
    """One episode's columns, run and counted by the host."""
    try:
        episode = recording.episode(controller, question, order)
    except CandidateError:
        raise
    except ControllerError as error:
        raise CandidateError("decision", str(error)) from error
    cost, state = episode.cost(), episode.state
    told = (episode.answer, cost.generated_tokens, cost.probe_tokens, cost.wasted_tokens)
    return [int(value) for value in (*told, state.sequential_tokens, state.opened, state.round)]


def _budget(beta: float) -> float:
    if isinstance(beta, bool) or not isinstance(beta, (int, float)) or not 0 <= beta <= 1:
        raise InputError(f"beta must be a number from 0 (few tokens) to 1 (many), got {beta!r}.")
    return float(beta)


def _are_knobs(row: object) -> bool:
    """Whether a candidate's reply is a set of knobs: few, by name, each a number, a truth or a name."""
    if type(row) is not dict or len(row) > _MAX_KNOBS:
        return False
    return all(
        name.isidentifier() and len(name) <= 100 and type(value) in (int, float, bool, str) and len(str(value)) <= 100
        for name, value in row.items()
    )
