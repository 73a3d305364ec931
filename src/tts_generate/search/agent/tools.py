"""The tools of the agent, over the archive and the workbench of one search.

What goes wrong in a candidate, or in what a tool was asked for, is an answer to the model. What goes wrong here (a full
disk, a machine without locks, a fault of ours) ends the search: it is kept in `Desk.fault`, because a tool runner hands
every error of a tool to the model.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Callable
from typing import Any

from anthropic.lib.tools import BetaFunctionTool, ToolError

from tts_generate.errors import CandidateError, InputError, UnknownNameError
from tts_generate.loading import builtin_controllers, builtin_folder
from tts_generate.sandbox.channel import clean
from tts_generate.search.agent import Agent
from tts_generate.search.agent.ledger import Ledger
from tts_generate.search.agent.prompts import budgets, joined, line, shortened, table
from tts_generate.search.archive import Archive, Entry, Evaluation, Failure
from tts_generate.search.candidate import Written
from tts_generate.search.history import History
from tts_generate.search.loop import Judge
from tts_generate.search.written import niches
from tts_generate.search.written.climb import climb
from tts_generate.search.written.scan import fitted, scan
from tts_generate.search.written.seconds import Clock
from tts_generate.search.written.standing import against_best, differences, where
from tts_generate.search.written.workbench import Workbench

_IDEA = 2000
"""Characters that are kept of an idea."""
SCAN = "scan of knobs"
"""Who proposed what a scan found."""
_KNOBS = 4000
"""Characters that are told of a candidate's knobs."""
_LINES = 80
"""Of the differences between two candidates' code."""


class Desk:
    """What the model works with in one round."""

    def __init__(
        self,
        agent: Agent,
        ledger: Ledger,
        judge: Judge,
        bench: Workbench,
        history: History,
        number: int,
        *,
        seed: int,
        clock: Clock | None,
        say: Callable[[str], None],
    ) -> None:
        self._judge, self._bench, self._history, self._number = judge, bench, history, number
        self._agent, self._ledger, self._accounted = agent, ledger, ledger.so_far
        self._seed, self._clock, self._say = seed, clock, say
        self.candidates: list[Written] = []
        """Those of this round that passed, in the order in which they were written."""
        self.fault: Exception | None = None

    def tools(self) -> list[BetaFunctionTool[Any]]:
        """The tools, as a tool runner takes them."""
        found: list[Callable[..., str]]
        found = [
            self.read_history,
            self.read_controller,
            self.write_controller,
            self.replay,
            self.compare,
            self.scan_knobs,
        ]
        if self._agent.traces:
            found.append(self.read_trace)
        return [_Tool(self, tool) for tool in found]

    def tell(self, tool: str, answer: str) -> None:
        """Say what a tool answered, in a line."""
        first = answer.strip().partition("\n")[0]
        self._say(f"round {self._number + 1}, ${self._ledger.spent:.2f}, {tool}: {first[:140]}")

    def failed(self, problem: str, code: str | None = None) -> None:
        """Keep that a proposal, or the round, came to nothing; once, however often the round is gone through."""
        archive = self._history.archive
        known = any((f.round, f.problem, f.code) == (self._number, problem, code) for f in archive.failures)
        usd = self._since()
        if not known:
            self._history.add(Failure(self._number, problem, usd, code))

    def read_history(self, count: int = 20) -> str:
        """The best candidates of all rounds, those that were looked at closest first; then parents that differ.

        Args:
            count: how many to list.
        """
        listed = table(self._archive, self._number + 1, max(1, count))
        return joined([listed, *niches.told(niches.parents(self._judge, self._archive, self._number + 1))])

    def read_controller(self, name: str) -> str:
        """The code of a candidate, or of a controller that ships with the package.

        Args:
            name: a candidate's name, or one of the shipped names.
        """
        entry = self._archive.written.get(name)
        if entry is not None:
            return f"{entry.candidate.idea}\n\n{entry.candidate.code}"
        if name not in builtin_controllers():
            raise UnknownNameError.of("controller", name, [*self._archive.written, *builtin_controllers()])
        folder = builtin_folder(name)
        card = json.loads((folder / "controller.json").read_text("utf-8"))
        if "builtin" in card:
            family = self.read_controller(str(card["builtin"]))
            return f"{card['builtin']} with these knobs:\n{json.dumps(card['knobs'], indent=1)}\n\n{family}"
        return (folder / str(card["entry"]).partition(":")[0]).read_text("utf-8")

    def write_controller(self, code: str, idea: str, parent: str = "") -> str:
        """Put a controller into the archive: its code is checked and run on random episodes, and refused if it fails.

        Args:
            code: the whole of controller.py.
            idea: what is new in it and why it should pay, in a few sentences.
            parent: name of the candidate that it was made from, if it was from one.
        """
        if parent and parent not in self._archive.written and parent not in builtin_controllers():
            raise UnknownNameError.of("parent", parent, [*self._archive.written, *builtin_controllers()])
        return self._taken(
            Written(_text(code), f"{self._agent.model}, round {self._number + 1}", parent or None, _kept(idea))
        )

    def scan_knobs(self, candidate: str) -> str:
        """Fit a candidate's numbers: for half a minute schedules of the knobs in its `ranges` are tried, for nothing.

        Args:
            candidate: its name.
        """
        entry = self._entry(candidate)
        known = [
            e for e in self._archive.written.values() if (e.candidate.parent, e.candidate.origin) == (candidate, SCAN)
        ]
        if known:
            return self._taken(known[0].candidate)
        found = scan(self._judge, self._bench, entry, self._seed, families=self._agent.beta)
        if found.score <= found.before:
            return f"None of {found.tried} schedules does better than its own (score {found.before:+.2f} at rung 2)."
        idea = (
            f"Knobs of {candidate} fitted by a scan of {found.tried} schedules: score {found.score:+.2f} at rung 2, "
            f"{found.before:+.2f} before. {entry.candidate.idea}"
        )
        new = Written(fitted(entry, found.schedule), SCAN, candidate, _kept(idea))
        return f"{idea}\n{self._taken(new)}"

    def _taken(self, candidate: Written) -> str:
        """A candidate put into the archive, if it passes."""
        known = self._archive.written.get(candidate.name)
        if known is not None and (known.round < self._number or known.candidate in self.candidates):
            raise InputError(f"this code is in the archive already, as {candidate.name}.")
        if known is None:
            known = self._examined(candidate)
        else:
            self._since()
        self.candidates.append(known.candidate)
        knobs = "\n".join(f"beta {beta}: {json.dumps(knobs)}" for beta, knobs in known.knobs.items())
        told = f"In the archive as {candidate.name}. It is not measured yet: replay it. Its knobs:"
        return f"{told}\n{shortened(knobs, _KNOBS)}"

    def replay(self, candidate: str) -> str:
        """Measure a candidate on the recorded questions, at rising fidelity as long as it keeps up with the others.

        Args:
            candidate: its name.
        """
        entry = self._entry(candidate)
        last, why = climb(self._judge, entry.candidate, self._history)
        if last.problem is not None:
            self.failed(f"{candidate}: {last.problem}")
            raise CandidateError("raised", f"{candidate} at rung {last.rung + 1}: {last.problem}")
        placed = [*where(self._judge, last), *against_best(self._judge, last, self._archive)]
        return joined([*self._measured(last), why, *placed, *self._seconds(last), *self._telling(last)])

    def compare(self, one: str, other: str) -> str:
        """Two candidates: how they did at the closest look that both had, where they differ, and in which lines.

        Args:
            one: a name.
            other: another name.
        """
        pair = [self._entry(one), self._entry(other)]
        looks = [self._at(rung, pair) for rung in range(len(self._judge.rungs))]
        common = [found for found in looks if len(found) == len(pair)]
        told = ["No look that both had; replay them first."]
        if common:
            told = [text for found in common[-1] for text in self._measured(found)]
            told += differences(self._judge, *common[-1])
        return shortened("\n".join([*told, "", *_changes(*pair)]))

    def read_trace(self, candidate: str, episode: int) -> str:
        """What a candidate did in an episode that `replay` named, round by round, and what the reference did.

        Args:
            candidate: its name.
            episode: the number that replay gave it.
        """
        entry, last = self._entry(candidate), self._archive.last(candidate)
        telling = last.telling if last is not None else ()
        if last is None or not 1 <= episode <= len(telling):
            raise InputError(f"{candidate} has {len(telling)} telling episodes, numbered from 1; got {episode}.")
        fidelity = self._judge.rungs[last.rung]
        return shortened(self._bench.trace(self._judge.part, entry.candidate, fidelity, telling[episode - 1]))

    @property
    def _archive(self) -> Archive:
        return self._history.archive

    def _since(self) -> float:
        before, self._accounted = self._accounted, self._ledger.so_far
        return round(self._accounted - before, 6)

    def _entry(self, name: str) -> Entry:
        if name not in self._archive.written:
            raise UnknownNameError.of("candidate", name, self._archive.written)
        return self._archive.written[name]

    def _examined(self, candidate: Written) -> Entry:
        """A candidate that is new: checked, and kept."""
        try:
            part, closest = self._judge.part, self._judge.rungs[-1]
            found = self._bench.examine(part, candidate, closest, families=self._agent.beta)
        except CandidateError as error:
            printed = f"\nIt printed: {error.output}" if error.output else ""
            self.failed(f"{error.reason}: {error}{printed}", candidate.code)
            raise
        entry = Entry(candidate, found.name, self._number, self._seed, self._since(), found.knobs)
        self._history.add(entry)
        return entry

    def _at(self, rung: int, pair: list[Entry]) -> list[Evaluation]:
        found = [self._history.find(entry.candidate, rung) for entry in pair]
        return [evaluation for evaluation in found if evaluation is not None and evaluation.problem is None]

    def _measured(self, found: Evaluation) -> list[str]:
        fidelity, names = self._judge.rungs[found.rung], [place.niche for place in niches.places(self._judge, found)]
        low, high = found.interval or (0.0, 0.0)
        told = [
            f"{line(self._archive, found)}\n95 % interval of the gain {low:+.2f} to {high:+.2f}, {fidelity.shuffles} "
            "orders of the branches"
        ]
        told += budgets(fidelity.betas, found.tokens, found.chain, found.accuracy)
        told.append(f"its niches: {'; '.join(names)}")
        told.append("gain at the reference's costs: " + " ".join(f"{gain:+.2f}" for gain in found.gains))
        told += [f"it warns: {text}" for text in found.warned]
        return told

    def _seconds(self, found: Evaluation) -> list[str]:
        """Its seconds on a device, as a line; of those that were looked at closest, where there is a profile."""
        if self._clock is None or found.rung < len(self._judge.rungs) - 1:
            return []
        assert isinstance(found.candidate, Written)
        return [self._clock.told(self._bench.box, self._judge.part, found.candidate, self._judge.contest.reference)]

    def _telling(self, found: Evaluation) -> list[str]:
        """Its telling episodes as lines, unless executions are not to be seen."""
        if not self._agent.traces or not found.telling:
            return []
        told = ["Telling episodes (read_trace shows one):"]
        for number, one in enumerate(found.telling, 1):
            share = (
                f"{one.share:,.0f} tokens over it on average" if one.kind == "costly" else f"{one.share:.0%} of orders"
            )
            told.append(
                f"{number}. {one.kind}: question {one.question} of {one.recording} at beta {one.beta:g}, "
                f"{one.tokens:,} tokens; the reference {one.reference_tokens:,} at beta {one.reference_beta:g}; {share}"
            )
        return told


class _Tool(BetaFunctionTool[Any]):
    """A tool whose errors are answers, where they are the model's."""

    def __init__(self, desk: Desk, tool: Callable[..., str]) -> None:
        super().__init__(tool)
        self._desk = desk

    def call(self, input: object) -> Any:
        """Run it."""
        try:
            answer = str(super().call(input))
            self._desk.tell(self.name, answer)
            return answer
        except (CandidateError, InputError) as error:
            printed = f"\nIt printed: {error.output}" if isinstance(error, CandidateError) and error.output else ""
            self._desk.tell(self.name, str(error))
            raise ToolError(shortened(f"{error}{printed}")) from error
        except Exception as error:
            if str(error).startswith("Invalid arguments") and error.__cause__ is not None:  # by the tool's schema
                raise ToolError(f"{error}: {error.__cause__}") from error
            self._desk.fault = error
            raise


def _text(code: str) -> str:
    """Code that can be written to a file."""
    try:
        code.encode()
    except UnicodeEncodeError as error:
        raise CandidateError("import", f"the code is no text: {error.reason} at character {error.start}") from None
    return code.replace("\r\n", "\n")


def _changes(one: Entry, other: Entry) -> list[str]:
    """Which lines of code differ, if that says anything."""
    mine, theirs = (entry.candidate.code.splitlines() for entry in (one, other))
    differs = one.candidate.difference(other.candidate, context=1)
    if difflib.SequenceMatcher(None, mine, theirs).ratio() < 0.5:
        return [f"Their code is unrelated ({len(mine)} and {len(theirs)} lines); read_controller shows either."]
    more = len(differs) - _LINES
    return [*differs[:_LINES], *([f"... {more} lines of the differences left out"] if more > 0 else [])]


def _kept(idea: str) -> str:
    return clean(idea)[:_IDEA]
