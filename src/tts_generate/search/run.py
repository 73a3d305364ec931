"""A whole search: open the stores, go through the rounds, choose, measure, write the folder."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tts_generate.arguments import check_fields, checked
from tts_generate.controller import Controller
from tts_generate.errors import CandidateError, InputError, TTSError
from tts_generate.hub.card import identity
from tts_generate.loading import Trust, find_source, load_controller
from tts_generate.recorded.recording import fewest_branches
from tts_generate.recorded.run import most_orders
from tts_generate.replay import Recording
from tts_generate.report.search_page import search_page
from tts_generate.search import choice as choosing
from tts_generate.search.archive import Evaluation
from tts_generate.search.candidate import Proposal
from tts_generate.search.history import (
    HELD_OUT,
    HELD_OUT_FORMAT,
    RESULT,
    RESULT_FORMAT,
    History,
    read_held_out,
    read_json,
    read_result,
    write_whole,
)
from tts_generate.search.knobs import Knobs
from tts_generate.search.loop import RUNGS, Judge, SearchProgress, best_of, search
from tts_generate.search.narrow import narrowed
from tts_generate.search.objective import Fidelity, Objective, cost_of
from tts_generate.search.questions import Part, check, check_gold, check_names, split
from tts_generate.search.way import Way
from tts_generate.secret import without_secrets
from tts_generate.trajectories import TrajectoryStore
from tts_generate.trajectories.fields import mended

if TYPE_CHECKING:
    from tts_generate.sandbox import Sandbox
    from tts_generate.search.agent import Agent


@dataclass(frozen=True)
class Setup:
    """What is searched, and how; two searches of one folder must agree in it."""

    stores: tuple[str | Path, ...]
    controller: str = "worth"
    """Whose knobs are searched: a shipped name or a folder."""
    knobs: tuple[str, ...] | None = None
    """Which of its knobs to search; all that declare a range if left out. The others keep their own schedule."""
    reference: str = "cmc"
    """The controller that is to be beaten at equal cost."""
    seed: int = 0
    objective: Objective = "tokens"
    share: float = 1 / 3
    """Of the questions that only choose, and are not learnt from; 0: all do both."""
    weights: tuple[float, ...] | None = None
    """How much each store counts; the same if left out."""
    rungs: tuple[Fidelity, ...] = RUNGS
    select: Fidelity = choosing.SELECT
    fresh: Fidelity = choosing.FRESH
    trust_remote_code: Trust = False

    def __post_init__(self) -> None:
        check_fields(self)
        object.__setattr__(self, "seed", int(self.seed))  # plain, also of one of numpy's
        object.__setattr__(self, "share", float(self.share))

    @property
    def folders(self) -> tuple[Path, ...]:
        """Of the stores."""
        return tuple(map(Path, self.stores))

    def to_dict(self, part: Part) -> dict[str, Any]:
        """Plain JSON values, with what the stores hold by its hash."""
        return {
            "reference": self.reference,
            "seed": self.seed,
            "objective": self.objective,
            "share": self.share,
            "weights": part.weights.tolist(),
            "stores": {recording.name: fingerprint(recording) for recording in part.recordings},
            "rungs": [[list(rung.betas), rung.shuffles] for rung in self.rungs],
        }


@dataclass
class Search:
    """A search set up over its stores, ready to be run or gone on with.

    Args:
        setup: what is searched.
        agent: has a language model write the candidates; the knobs of `setup.controller` are searched if left out.
        box: the sandbox that the agent's candidates run in; one with every lock if left out.

    Raises:
        StoreError: a store that cannot be read.
        InputError: a search set on which nothing can be found out (`questions.check`).
        ControllerError: a controller that declares no ranges.
    """

    setup: Setup
    agent: Agent | None = None
    box: Sandbox | None = None
    whole: Part = field(init=False)
    reference: type[Controller] = field(init=False)

    def __post_init__(self) -> None:
        check_fields(self)
        recordings = [Recording.from_store(store) for store in self.setup.folders]
        check(recordings)
        _check_orders(recordings, (*self.setup.rungs, self.setup.select, self.setup.fresh))
        self.whole = Part.of(recordings, self.setup.weights)
        self.reference = narrowed(self._class(self.setup.reference), fewest_branches(recordings))
        self._knobs: Knobs | None = None
        if self.agent is None and self.box is not None:
            raise InputError("a sandbox is for an agent's candidates; knobs are searched without one.")
        if self.agent is not None and (self.setup.knobs is not None or self.setup.controller != Setup.controller):
            raise InputError("an agent writes controllers; it does not search the knobs of one. Leave those out.")
        if self.agent is None:
            kind = self._class(self.setup.controller)
            self._knobs = Knobs(kind, self.setup.controller, self.setup.knobs, recordings, self.setup.seed)
        elif not self.agent.beta:
            looks: dict[str, Any] = {name: _one_budget(getattr(self.setup, name)) for name in ("select", "fresh")}
            self.setup = dataclasses.replace(self.setup, rungs=tuple(map(_one_budget, self.setup.rungs)), **looks)

    def _way(self, say: Callable[[str], None]) -> Way:
        """What this search does its own way; the caller closes it."""
        if self._knobs is not None:
            return self._knobs
        from tts_generate.search.agent.way import AgentWay

        assert self.agent is not None
        stores = {
            recording.name: store for recording, store in zip(self.whole.recordings, self.setup.folders, strict=True)
        }
        asked: dict[str, Any] = {"objective": self.setup.objective, "stores": stores}
        return AgentWay(self.agent, self.setup.seed, self.reference, self.setup.reference, say, self.box, **asked)

    def _class(self, name: str) -> type[Controller]:
        return type(load_controller(name, trust_remote_code=self.setup.trust_remote_code))

    @checked
    def run(
        self,
        out: Path,
        *,
        minutes: float,
        max_rounds: int | None = None,
        threads: int | None = None,
        held_out: Sequence[Path] = (),
        command: str = "",
        watch: Callable[[SearchProgress], None] = lambda progress: None,
        say: Callable[[str], None] = lambda line: None,
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
            say: told that a held-out result is kept; of an agent's search which locks are in force, what the budget
                affords, what ends it.

        Returns:
            What `result.json` holds.

        Raises:
            InputError: minutes that are none, or a folder with another search.
            StoreError: the disk is full; what was evaluated before is kept.
        """
        if not minutes > 0:
            raise InputError(f"minutes must be above 0, got {minutes}.")
        mine = {store.resolve() for store in self.setup.folders}
        for store in held_out:
            if store.resolve() in mine:
                raise InputError(f"{store} is part of the search set, so it cannot be held out.")
        if held_out and read_json(out / HELD_OUT) is None:
            self._check_held_out(held_out)
        setup = self.setup
        propose, select = split(self.whole, setup.seed, setup.share)
        way = self._way(say)
        contest = choosing.Contest(way.bench, self.reference, setup.objective, threads, way.gain)
        try:
            history = History(out, self._settings(way))
        except TTSError:
            way.close()
            raise
        try:
            judge = Judge(propose, contest, setup.rungs)
            proposer = way.proposer(judge, history)
            how: dict[str, Any] = {"seconds": 60 * minutes, "max_rounds": max_rounds, "watch": watch, "usd": way.usd}
            done = search(judge, proposer, history, **how)
            finalists = best_of(history.evaluations, choosing.FINALISTS)

            def failed(candidate: Proposal, error: CandidateError) -> None:
                history.add(Evaluation.failed(candidate, len(setup.rungs) - 1, f"disqualified at the end: {error}"))

            choices = choosing.choose(finalists, propose, select, contest, setup.select, failed)
            chosen, measured = self._measured(choices, contest, failed)
            about = way.about(chosen.candidate, measured, contest, setup.fresh, history)
            result = {
                "format": RESULT_FORMAT,
                "command": mended(without_secrets(command)),
                "settings": self._settings(way),
                **self._numbers(chosen, done, history, (propose.count, select.count), measured, contest),
                **about,
            }
            history.write(RESULT, result)
            self._write_best(way, history, chosen.candidate, result)
            if held_out and history.read(HELD_OUT) is not None:
                say(f"{out / HELD_OUT} stays as it is: held-out stores are opened once, after the first choice.")
            elif held_out:
                history.write(HELD_OUT, self._held_out(chosen.candidate, held_out, contest))
        finally:
            history.close()
            way.close()
        return result

    def _settings(self, way: Way) -> dict[str, Any]:
        named = {self.setup.reference, *([self.setup.controller] if self.agent is None else [])}
        code = {name: _code_of(name) for name in sorted(named)}
        return {**way.settings(), **self.setup.to_dict(self.whole), "code": code}

    def _measured(
        self,
        choices: Sequence[choosing.Choice],
        contest: choosing.Contest,
        failed: Callable[[Proposal, CandidateError], None],
    ) -> tuple[choosing.Choice, choosing.Measured]:
        """The best choice that stands up to a last look, and that look."""
        for chosen in choices:
            try:
                return chosen, contest.measure(self.whole, chosen.candidate, self.setup.fresh)
            except CandidateError as error:
                failed(chosen.candidate, error)
        raise InputError(
            f"none of the {len(choices)} candidates left stands up to a last look, and the history says why. Give the "
            "search more rounds."
        )

    def _numbers(
        self,
        chosen: choosing.Choice,
        done: SearchProgress,
        history: History,
        questions: tuple[int, int],
        measured: choosing.Measured,
        contest: choosing.Contest,
    ) -> dict[str, Any]:
        fresh, cost = self.setup.fresh, cost_of(self.setup.objective)
        rows = choosing.beside_baselines(self.whole, fresh, contest.threads)
        return {
            "paths": [mended(str(store.resolve() if store.exists() else store)) for store in self.setup.folders],
            "rounds": history.rounds,
            "tried": done.tried,
            "seconds": history.seconds,
            "usd": done.usd,
            "candidates_per_minute": 60 * done.tried / max(history.seconds, 1e-9),
            "proposed": {"questions": questions[0], **chosen.proposed.to_dict()},
            "selected": {"questions": questions[1], "finalists": chosen.finalists, **chosen.selected.to_dict()},
            "fresh": {"questions": self.whole.count, "shuffles": fresh.shuffles, **measured.to_dict()},
            "baselines": rows,
            "at_accuracy": choosing.at_accuracy(measured, rows[0], cost),
        }

    def _check_held_out(self, stores: Sequence[Path]) -> None:
        """Refuse, before anything is searched, stores that nothing could be measured on after the choice."""
        opened = [TrajectoryStore.open(store) for store in stores]
        check_names([store.name for store in opened])
        check_gold([question for store in opened for question in store.questions])
        steps = sorted({store.manifest.interval_tokens for store in opened})
        if len(steps) > 1:
            raise InputError(f"held-out stores must have one step, got {steps}: controllers count in steps.")
        recordings = [Recording.from_store(store) for store in opened]
        _check_orders(recordings, [self.setup.fresh])
        known = {fingerprint(recording) for recording in self.whole.recordings}
        for recording in recordings:
            if fingerprint(recording) in known:
                raise InputError(
                    f"{recording.name} holds the same branches as a store of the search set; it is not held out."
                )

    def _held_out(self, candidate: Proposal, stores: Sequence[Path], contest: choosing.Contest) -> dict[str, Any]:
        part = Part.of([Recording.from_store(store) for store in stores])
        prints = {recording.name: fingerprint(recording) for recording in part.recordings}
        measured = contest.measure(part, candidate, self.setup.fresh)
        rows = choosing.beside_baselines(part, self.setup.fresh, contest.threads)
        cost = cost_of(self.setup.objective)
        return {
            "format": HELD_OUT_FORMAT,
            "candidate": candidate.to_dict(),
            "stores": prints,
            "shuffles": self.setup.fresh.shuffles,
            **measured.to_dict(),
            "baselines": rows,
            "at_accuracy": choosing.at_accuracy(measured, rows[0], cost),
        }

    def _write_best(self, way: Way, history: History, candidate: Proposal, result: dict[str, Any]) -> None:
        gain = result["fresh"]["gain"]["mean"]
        cost = cost_of(self.setup.objective)
        gained = f"{gain:+.2f} points over {self.setup.reference} at equal {cost} on its own search set."
        provenance = {
            "command": result["command"],
            "candidate": candidate.name,
            "tried": result["tried"],
            "stores": result["settings"]["stores"],
            "gain": gain,
        }
        way.write_best(history, candidate, gained, provenance)


@checked
def write_report(out: str | Path) -> Path:
    """Write `report.html` of a search folder from what it holds; its path.

    Raises:
        InputError: the search has no result yet.
        TTSError: jinja2 or matplotlib is not installed.
    """
    out = Path(out)
    path = out / "report.html"
    write_whole(path, read_report(out)[2])
    return path


def read_report(out: Path) -> tuple[dict[str, Any], dict[str, Any] | None, str]:
    """The result of a search folder, its held-out result if there is one, and the page of both; see `write_report`."""
    result, held_out = read_result(out), read_held_out(out)
    return result, held_out, search_page(result, held_out, out / "best")


def check_best(card: Mapping[str, Any], result: Mapping[str, Any], run: Path) -> None:
    """Refuse a controller that is not what the search chose, as a search killed while it wrote leaves it.

    Raises:
        InputError: naming both.
    """
    there, chosen = card.get("provenance", {}).get("candidate"), result["candidate"]["name"]
    if there != chosen:
        raise InputError(
            f"{run / 'best'} is of candidate {there}, and {run / RESULT} of {chosen}; run the search again, which "
            "writes both."
        )


def fingerprint(recording: Recording) -> str:
    """A hash of everything in a recording that a replay can depend on."""
    found = hashlib.sha256()
    for array in (recording.table.branches, recording.table.steps, recording.table.logprobs):
        found.update(np.ascontiguousarray(array).tobytes())
    for recorded in recording.questions:
        found.update(f"{recorded.question.question_id} {recorded.gold} {recorded.branches}".encode())
    return found.hexdigest()[:16]


def _code_of(name: str) -> str:
    """A hash of what a controller does: evaluations of one version say nothing of another."""
    if Path(name).suffix == ".py" and Path(name).is_file():
        return hashlib.sha256(Path(name).read_bytes()).hexdigest()[:16]
    return identity(find_source(name).card)


def _check_orders(recordings: Sequence[Recording], looks: Sequence[Fidelity]) -> None:
    """Refuse stores with too few branches for as many orders of them as are looked at."""
    most = max(look.shuffles for look in looks)
    for recording in recordings:
        if most > (orders := most_orders(recording.max_branches)):
            raise InputError(
                f"the {recording.max_branches} branches a question of {recording.name} have {orders} orders, and this "
                f"search looks at {most}. Record more branches a question (tts-generate record --branches 64)."
            )


def _one_budget(fidelity: Fidelity) -> Fidelity:
    return dataclasses.replace(fidelity, betas=(0.5,))
