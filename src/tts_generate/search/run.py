"""A whole search: open the stores, go through the rounds, choose, measure, write the folder."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tts_generate.controller import Controller
from tts_generate.errors import InputError, UnknownNameError
from tts_generate.loading import builtin_controllers, builtin_folder, load_class, load_controller
from tts_generate.replay import Recording
from tts_generate.report.search_page import search_page
from tts_generate.schedule import Ends, Range, Schedule, ranges_of
from tts_generate.search import choice as choosing
from tts_generate.search.best import write_controller
from tts_generate.search.candidate import Candidate
from tts_generate.search.history import HELD_OUT, RESULT, History, read_json, write_whole
from tts_generate.search.loop import RUNGS, Judge, Progress, best_of, search
from tts_generate.search.narrow import narrowed, narrowed_ranges
from tts_generate.search.objective import Cost, Fidelity
from tts_generate.search.parameters import ParametersProposer
from tts_generate.search.questions import Part, check, fewest_branches, split


@dataclass(frozen=True)
class Setup:
    """What is searched, and how; two searches of one folder must agree in it."""

    stores: tuple[Path, ...]
    controller: str = "composed"
    """Whose knobs are searched: a shipped name or a folder."""
    knobs: tuple[str, ...] | None = None
    """Which of its knobs to search; all that declare a range if left out. The others keep their own schedule."""
    reference: str = "cmc"
    """The controller that is to be beaten at equal cost."""
    seed: int = 0
    cost: Cost = "tokens"
    share: float = 1 / 3
    """Of the questions that only choose, and are not learnt from; 0: all do both."""
    weights: tuple[float, ...] | None = None
    """How much each store counts; the same if left out."""
    rungs: tuple[Fidelity, ...] = RUNGS
    select: Fidelity = choosing.SELECT
    fresh: Fidelity = choosing.FRESH
    trust_remote_code: bool = False

    def to_dict(self, part: Part) -> dict[str, Any]:
        """Plain JSON values, with what the stores hold by its hash."""
        return {
            "controller": self.controller,
            "knobs": self.knobs,
            "reference": self.reference,
            "proposer": ParametersProposer.name,
            "seed": self.seed,
            "cost": self.cost,
            "share": self.share,
            "weights": part.weights.tolist(),
            "stores": {recording.name: fingerprint(recording) for recording in part.recordings},
            "rungs": [[list(rung.betas), rung.shuffles] for rung in self.rungs],
        }


@dataclass
class Search:
    """A search set up over its stores, ready to be run or gone on with.

    Raises:
        StoreError: a store that cannot be read.
        InputError: a search set on which nothing can be found out (`questions.check`).
        ControllerError: a controller that declares no ranges.
    """

    setup: Setup
    whole: Part = field(init=False)
    kind: type[Controller] = field(init=False)
    reference: type[Controller] = field(init=False)
    ranges: dict[str, Range] = field(init=False)

    def __post_init__(self) -> None:
        recordings = [Recording.from_store(store) for store in self.setup.stores]
        check(recordings)
        self.whole = Part.of(recordings, self.setup.weights)
        branches = fewest_branches(recordings)
        self.kind = narrowed(self._class(self.setup.controller), branches)
        self.reference = narrowed(self._class(self.setup.reference), branches)
        self.ranges = self._searched(narrowed_ranges(ranges_of(self.kind), branches, _with_logprobs(recordings)))
        for recording in recordings:
            recording.check(self.kind.from_beta(0.5))

    def _searched(self, ranges: dict[str, Range]) -> dict[str, Range]:
        """The ranges of the knobs that are asked for."""
        for name in self.setup.knobs or ():
            if name not in ranges:
                raise UnknownNameError.of(f"knob of {self.setup.controller} to search", name, ranges)
        return {name: room for name, room in ranges.items() if self.setup.knobs is None or name in self.setup.knobs}

    def _class(self, name: str) -> type[Controller]:
        load_controller(name, trust_remote_code=self.setup.trust_remote_code)  # says what is wrong with it, if anything
        kind, _ = load_class(builtin_folder(name) if name in builtin_controllers() else Path(name).resolve())
        return kind

    def run(
        self,
        out: Path,
        *,
        minutes: float,
        max_rounds: int | None = None,
        threads: int | None = None,
        held_out: Sequence[Path] = (),
        command: str = "",
        watch: Callable[[Progress], None] = lambda progress: None,
    ) -> dict[str, Any]:
        """Search for `minutes`, those of earlier sittings counted; then choose, measure and write `out`.

        Args:
            out: the folder; one of the same search is gone on with.
            minutes: of the rounds; the choice and the report take some seconds more.
            max_rounds: end after so many rounds instead.
            threads: candidates evaluated at once; all cores if left out.
            held_out: stores that are opened after the choice, once; a folder that has its held-out result keeps it.
            command: noted in the result.
            watch: told after every round.

        Returns:
            What `result.json` holds.

        Raises:
            InputError: minutes that are none, or a folder with another search.
            StoreError: the disk is full; what was evaluated before is kept.
        """
        if not minutes > 0:
            raise InputError(f"minutes must be above 0, got {minutes}.")
        mine = {store.resolve() for store in self.setup.stores}
        for store in held_out:
            if store.resolve() in mine:
                raise InputError(f"{store} is part of the search set, so it cannot be held out.")
        setup = self.setup
        propose, select = split(self.whole, setup.seed, setup.share)
        contest = choosing.Contest(self.kind, self.reference, setup.cost, threads)
        history = History(out, setup.to_dict(self.whole))
        try:
            judge = Judge(propose, self.kind, self.reference, setup.rungs, setup.cost, threads)
            proposer = ParametersProposer(self.ranges, starts(self.kind, self.ranges), setup.seed)
            done = search(judge, proposer, history, seconds=60 * minutes, max_rounds=max_rounds, watch=watch)
            finalists = best_of(history.evaluations, choosing.FINALISTS)
            chosen = choosing.choose(finalists, propose, select, contest, setup.select)
            result = self._result(chosen, done, (propose.count, select.count), contest, command)
            history.write(RESULT, result)
            self._write_best(out, chosen.candidate, result)
            if held_out and history.read(HELD_OUT) is None:
                history.write(HELD_OUT, self._held_out(chosen.candidate, held_out, contest))
        finally:
            history.close()
        return result

    def _result(
        self,
        chosen: choosing.Choice,
        done: Progress,
        questions: tuple[int, int],
        contest: choosing.Contest,
        command: str,
    ) -> dict[str, Any]:
        setup = self.setup
        measured = contest.measure(self.whole, chosen.candidate, setup.fresh)
        schedule = chosen.candidate.schedule
        rows = choosing.beside_baselines(self.whole, setup.fresh, contest.threads)
        return {
            "format": "tts-search-result/1",
            "command": command,
            "settings": setup.to_dict(self.whole),
            "paths": [str(store.resolve() if store.exists() else store) for store in setup.stores],
            "rounds": done.round,
            "tried": done.tried,
            "seconds": done.seconds,
            "candidates_per_minute": 60 * done.tried / max(done.seconds, 1e-9),
            "candidate": chosen.candidate.to_dict(),
            "proposed": {"questions": questions[0], **chosen.proposed.to_dict()},
            "selected": {"questions": questions[1], "finalists": chosen.finalists, **chosen.selected.to_dict()},
            "fresh": {"questions": self.whole.count, "shuffles": setup.fresh.shuffles, **measured.to_dict()},
            "ablation": choosing.ablation(schedule, self.ranges, measured, contest, setup.fresh),
            "baselines": rows,
            "at_accuracy": choosing.at_accuracy(measured, rows[0]),
        }

    def _held_out(self, candidate: Candidate, stores: Sequence[Path], contest: choosing.Contest) -> dict[str, Any]:
        part = Part.of([Recording.from_store(store) for store in stores])
        prints = {recording.name: fingerprint(recording) for recording in part.recordings}
        known = {fingerprint(recording) for recording in self.whole.recordings}
        for name, found in prints.items():
            if found in known:
                raise InputError(f"{name} holds the same branches as a store of the search set; it is not held out.")
        measured = contest.measure(part, candidate, self.setup.fresh)
        rows = choosing.beside_baselines(part, self.setup.fresh, contest.threads)
        return {
            "format": "tts-search-held-out/1",
            "candidate": candidate.to_dict(),
            "stores": prints,
            "shuffles": self.setup.fresh.shuffles,
            **measured.to_dict(),
            "baselines": rows,
            "at_accuracy": choosing.at_accuracy(measured, rows[0]),
        }

    def _write_best(self, out: Path, candidate: Candidate, result: dict[str, Any]) -> None:
        gain = result["fresh"]["gain"]["mean"]
        description = (
            f"{self.setup.controller} with schedules found by search: {gain:+.2f} points over {self.setup.reference} "
            f"at equal {self.setup.cost} on its own search set."
        )
        write_controller(
            out / "best",
            self.setup.controller,
            candidate.schedule,
            name=f"found_{candidate.name}",
            description=description,
            provenance={
                "source": "tts-generate search",
                "command": result["command"],
                "candidate": candidate.name,
                "tried": result["tried"],
                "stores": result["settings"]["stores"],
                "gain": gain,
            },
        )


def write_report(out: Path) -> Path:
    """Write `report.html` of a search folder from what it holds; its path.

    Raises:
        InputError: the search has no result yet.
        TTSError: jinja2 or matplotlib is not installed.
    """
    path = out / "report.html"
    write_whole(path, read_report(out)[2])
    return path


def read_report(out: Path) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
    """The result of a search folder, its held-out result if there is one, and the page of both; see `write_report`."""
    result, held_out = read_json(out / RESULT), read_json(out / HELD_OUT)
    if result is None:
        raise InputError(f"{out} has no {RESULT} yet; let the search end first.")
    return result, held_out, search_page(result, held_out, out / "best")


def starts(kind: type[Controller], ranges: dict[str, Range]) -> list[Schedule]:
    """What to try first: the controller's own schedule, from its ends, and those that it lists in `starts`."""
    low, high = kind.schedule(0.0), kind.schedule(1.0)
    own: dict[str, Any] = {name: Ends(low[name], high[name], room.scale) for name, room in ranges.items()}  # type: ignore[arg-type]
    listed: Sequence[Schedule] = getattr(kind, "starts", ())
    return [own, *({**own, **{name: knob for name, knob in start.items() if name in ranges}} for start in listed)]


def fingerprint(recording: Recording) -> str:
    """A hash of everything in a recording that a replay can depend on."""
    found = hashlib.sha256()
    for array in (recording.table.branches, recording.table.steps, recording.table.logprobs):
        found.update(np.ascontiguousarray(array).tobytes())
    for recorded in recording.questions:
        found.update(f"{recorded.question.question_id} {recorded.gold} {recorded.branches}".encode())
    return found.hexdigest()[:16]


def _with_logprobs(recordings: Sequence[Recording]) -> bool:
    """Whether every step of every branch has its mean log-probability."""
    return all(len(r.table.logprobs) > 0 and not np.isnan(r.table.logprobs).any() for r in recordings)
