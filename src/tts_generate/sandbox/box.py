"""The sandbox: opens candidates in locked processes, and confirms bulk replay by strict replay."""

from __future__ import annotations

import random
import secrets
import sys
import threading
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Self

import numpy as np

from tts_generate.arguments import checked
from tts_generate.controller import Knob
from tts_generate.errors import InputError, SandboxUnavailable, UnknownNameError
from tts_generate.import_rules import check_source
from tts_generate.recorded.episodes import Columns
from tts_generate.recorded.recording import Recording
from tts_generate.recorded.run import ReplayResult, worth_compiling
from tts_generate.sandbox.candidate import Candidate, Mode
from tts_generate.sandbox.channel import Channel, Limits
from tts_generate.sandbox.confirmation import Confirmation, Difference
from tts_generate.sandbox.process import LOCKS, Child, Keeper, bubblewrap_problem
from tts_generate.sandbox.strictly import at_once, columns_of


class Sandbox:
    """Runs candidates' code in locked processes; use it by `with`. Threads may share one.

    Args:
        limits: what each candidate may take.
        without: names of `LOCKS` to leave off. Nothing else turns the refusal of a machine without seccomp into a run.
        bubblewrap: around everything: True (or refuse), False, or None: where it works.
        prefix: a command that ends in the place where a Python command goes, such as `("docker", "run", "--rm", "-i",
            "--network=none", "image")`. Every candidate then starts one, which takes as long as it takes.
        python: the interpreter behind `prefix`, which has this package installed; the host's own if left out.

    Raises:
        SandboxUnavailable: no seccomp, which is the lock that all rests on, or what was asked for cannot be had.
        UnknownNameError: no such lock.
    """

    @checked
    def __init__(
        self,
        limits: Limits | None = None,
        *,
        without: Sequence[str] = (),
        bubblewrap: bool | None = None,
        prefix: Sequence[str] = (),
        python: str | None = None,
    ) -> None:
        for name in without:
            if name not in LOCKS:
                raise UnknownNameError.of("lock", name, LOCKS)
        if python is not None and not prefix:
            raise InputError("python names the interpreter behind a command prefix; give prefix too.")
        if sys.platform != "linux" and not prefix:
            raise SandboxUnavailable(
                f"the sandbox needs Linux, which locks candidates up, and this is {sys.platform}: pass a command "
                "prefix that starts a container, or search with the parameters proposer, which runs no foreign code."
            )
        self.limits = limits or Limits()
        self.without = tuple(without)
        self._prefix, self._python = tuple(prefix), python
        self._no_bubblewrap: str | None = "left off" if bubblewrap is False or "bubblewrap" in without else None
        if self._no_bubblewrap is None and prefix:
            self._no_bubblewrap = "a command prefix takes its place"
        if self._no_bubblewrap is None:
            self._no_bubblewrap = bubblewrap_problem()
        if bubblewrap and self._no_bubblewrap is not None:
            raise SandboxUnavailable(f"bubblewrap was asked for and cannot be had: {self._no_bubblewrap}.")
        self._keepers: dict[Mode, Keeper] = {}
        self._lock = threading.RLock()
        try:
            self.locks = self._probe()
        except SandboxUnavailable:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End every process."""
        with self._lock:
            for keeper in self._keepers.values():
                keeper.close()
            self._keepers.clear()

    @property
    def line(self) -> str:
        """Which locks are in force, in one line."""
        parts = ["own session, empty environment, no descriptors"]
        for name in ("limits", "seccomp", "landlock", "bubblewrap"):
            told = self.locks[name]
            version = {"seccomp": f" allow-list of {told} calls", "landlock": f" ABI {told}"}.get(name, "")
            parts.append(f"{name}{version}" if told is True or type(told) is int else f"no {name} ({told})")
        if self._prefix:
            parts.append(f"behind {self._prefix[0]}")
        return "locks: " + "; ".join(parts)

    @checked
    def prepare(self, recordings: Sequence[Recording]) -> None:
        """Compile what every bulk candidate shares, for recordings of these sizes: seconds, once.

        Without it each candidate compiles it for itself. `evaluate` does this by itself.
        """
        if not self._prefix:  # behind which every candidate has a keeper of its own
            for recording in recordings:
                self._keeper("bulk").warm(recording.max_branches, recording.max_depth)

    @checked
    def candidate(
        self,
        source: str | bytes,
        *,
        mode: Mode = "bulk",
        entry: str | None = None,
        check: bool = True,
        seed: int = 0,
        limits: Limits | None = None,
        quiet: bool = False,
    ) -> Candidate:
        """Run a candidate's module in a locked process of its own.

        Args:
            source: the code of a controller file.
            mode: "bulk": it gets whole recordings, without gold, and may compile; "strict": what was revealed, as it
                is revealed.
            entry: the name of its class; may be left out if there is only one controller in it.
            check: apply the import rules first, which give a clearer error earlier. They protect nothing.
            seed: of Python's random numbers in its process. How recordings are relabelled nobody can foresee.
            limits: of this candidate alone.
            quiet: keep what its process warns of in `Candidate.warnings`, and do not warn.

        Raises:
            CandidateError: the code breaks the import rules, or does not load.
            SandboxUnavailable: a lock that is wanted is not in force.
        """
        text = source.encode() if isinstance(source, str) else source
        if check:
            check_source(text)
        return self._opened(text, mode, entry, seed, limits or self.limits, quiet)

    def _opened(self, text: bytes, mode: Mode, entry: str | None, seed: int, limits: Limits, quiet: bool) -> Candidate:
        """A process in which the candidate's module has run."""
        keeper, child = self._child(mode, limits)
        channel = Channel(child.stream, child.errors, limits, lambda patience: keeper.end(child.pid, patience))
        opened = Candidate(
            channel, mode, seed, quiet,
            lambda: self._opened(text, mode, entry, secrets.randbits(32), limits, quiet),
        )  # fmt: skip
        try:
            opened.load(text, entry)
        except BaseException:
            channel.close()
            raise
        finally:
            if self._prefix and not channel.open:
                keeper.close()
        if self._prefix:
            opened.keeper = keeper
        return opened

    @checked
    def evaluate(
        self,
        source: str | bytes,
        recording: Recording,
        *,
        beta: float = 0.5,
        shuffles: int = 100,
        first_shuffle: int = 0,
        mode: Mode = "bulk",
        entry: str | None = None,
        **knobs: Any,
    ) -> ReplayResult:
        """Open a candidate, replay it once, and close it; see `candidate` and `Candidate.replay`."""
        episodes = max(1, shuffles) * len(recording.questions)
        if mode == "bulk" and worth_compiling(episodes):
            self.prepare([recording])
        with self.candidate(source, mode=mode, entry=entry) as candidate:
            return candidate.replay(recording, beta=beta, shuffles=shuffles, first_shuffle=first_shuffle, **knobs)

    @checked
    def confirm(
        self,
        source: str | bytes,
        results: Sequence[ReplayResult],
        *,
        shuffles: int,
        first_shuffle: int = 0,
        episodes: int = 64,
        seed: int | None = None,
        entry: str | None = None,
        knobs: Mapping[str, Knob] | None = None,
        check: bool = True,
        threads: int | None = None,
    ) -> Confirmation:
        """Run a random part of what `results` say in strict mode, each episode in a process of its own, and compare.

        A candidate that looked ahead, kept memory between episodes, drew random numbers, read clocks or hash orders,
        or made its numbers up differs. One that did so in a share f of the episodes gets away with probability
        (1 - f) ** episodes, so what chooses or is reported is measured in strict mode altogether.

        Args:
            source: the candidate's code.
            results: of bulk replays with these `shuffles`, `first_shuffle` and `knobs`.
            shuffles: as given to `replay`.
            first_shuffle: as given to `replay`.
            episodes: how many to run, of all results together.
            seed: of the choice; unpredictable if left out.
            entry: as in `candidate`.
            knobs: those set by hand.
            check: as in `candidate`.
            threads: processes at once; as many as cores if left out.

        Raises:
            CandidateError: the candidate fails in strict mode.
        """
        rng = random.Random(seed)
        places = [(r, s, q) for r, found in enumerate(results) for s, q in np.ndindex(found.answer_ids.shape)]
        chosen = rng.sample(places, min(episodes, len(places)))
        given = dict(knobs or {})
        with self.candidate(source, mode="strict", entry=entry, check=check, seed=rng.getrandbits(32)) as candidate:
            betas = {float(found.controller["beta"]) for found in results}
            controllers = {beta: candidate.controller(beta=beta, **given) for beta in betas}

            def alone(r: int, s: int, q: int) -> Difference | None:
                found = results[r]
                beta = float(found.controller["beta"])
                strict = controllers[beta]
                if strict.knobs != found.controller["knobs"]:
                    return Difference(beta, s, q, "knobs", found.controller["knobs"], strict.knobs)
                before = np.array([getattr(found, name)[s, q] for name in Columns._fields])
                told = columns_of(found.recording, strict, q, s, shuffles, first_shuffle)
                return Difference.of(beta, s, q, before, told)

            with candidate.allowed(0.0):
                differences = at_once([partial(alone, *place) for place in chosen], threads)
        return Confirmation(len(chosen), tuple(one for one in differences if one is not None))

    def _child(self, mode: Mode, limits: Limits) -> tuple[Keeper, Child]:
        """A locked child whose locks are those wanted, as its keeper saw them in /proc."""
        keeper = self._keeper(mode)
        child = keeper.fork(
            {
                "without": list(self.without),
                "memory": int(limits.memory_mb * (1 << 20)),
                "cpu_seconds": max(1, round(limits.cpu_seconds)),
                "exec_pages": mode == "bulk",
            }
        )
        try:
            self._verify(child.locks)
        except SandboxUnavailable:
            self._discard(keeper, child)
            raise
        return keeper, child

    def _discard(self, keeper: Keeper, child: Child) -> None:
        keeper.end(child.pid, 0.0)
        child.close()
        if self._prefix:
            keeper.close()

    def _verify(self, locks: Mapping[str, Any]) -> None:
        status = locks["status"]
        if "seccomp" not in self.without and (type(locks.get("seccomp")) is not int or status.get("Seccomp") != "2"):
            raise SandboxUnavailable(
                f"this system cannot filter system calls ({locks.get('seccomp')}; Seccomp: {status.get('Seccomp')} in "
                "/proc): candidates would reach your files and network. Pass a command prefix that starts a container, "
                'or without=["seccomp"] to run them with process limits only.'
            )
        if status.get("NoNewPrivs") != "1":
            raise SandboxUnavailable("the candidate's process may still gain privileges (NoNewPrivs is not set).")

    def _keeper(self, mode: Mode) -> Keeper:
        with self._lock:
            if self._prefix:
                return Keeper(mode == "bulk", self._prefix, self._python)
            if mode in self._keepers and not self._keepers[mode].alive:
                self._keepers.pop(mode).close()  # something killed it; it held nothing
            if mode not in self._keepers:
                self._keepers[mode] = Keeper(mode == "bulk", bubblewrap=self._no_bubblewrap is None)
            return self._keepers[mode]

    def _probe(self) -> dict[str, Any]:
        """Lock a process that does nothing; what came of each lock."""
        keeper, child = self._child("strict", self.limits)
        self._discard(keeper, child)
        locks = {name: child.locks.get(name, "left off") for name in LOCKS}
        return {**locks, "bubblewrap": self._no_bubblewrap or True}
