"""How far a long job has come and what it has saved so far: tqdm bars, and a trackio run where one is wanted.

Every bar of this package is one of these: `Progress` of questions that are answered, `Recorded` of branches that are
recorded, `Compared` of methods that are replayed, `Searched` of a search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Self

from tqdm.auto import tqdm

from tts_generate.errors import TTSError, UnknownNameError
from tts_generate.inert import inert
from tts_generate.runner import Cost
from tts_generate.statistics import saving
from tts_generate.trajectories import Trajectory

_SAMPLES = 64


class Savings:
    """Tokens spent on the questions answered so far, and the share saved.

    Compared is with a baseline's tokens of the same questions where they are known; elsewhere with 64 branches as long
    as those that were read to their end, on average over the question. That is an estimate, and a low one, because the
    short ones come to their end first; where no branch has, there is none.

    >>> saved = Savings()
    >>> saved.text
    ''
    >>> saved.add(Cost(10, 300, 20), [], baseline=1280)
    >>> saved.text
    '320 tokens, 75.0% saved'
    """

    def __init__(self) -> None:
        self.cost = Cost()
        self.questions = 0
        self._spent = self._reference = 0.0
        self._estimated = False

    def add(self, cost: Cost, branches: Sequence[Trajectory], baseline: float | None = None) -> None:
        """Count an answered question."""
        self.cost += cost
        self.questions += 1
        if baseline is None:
            ends = [branch.tokens for branch in branches if branch.finish_reason is not None]
            if not ends:
                return
            baseline = _SAMPLES * sum(ends) / len(ends)
            self._estimated = True
        self._spent += cost.tokens
        self._reference += baseline

    def merge(self, other: Savings) -> None:
        """Count the questions that `other` counted, of another process, as well.

        >>> one, other = Savings(), Savings()
        >>> one.add(Cost(10, 300, 20), [], baseline=1280)
        >>> other.add(Cost(10, 100, 0), [], baseline=720)
        >>> one.merge(other)
        >>> one.text
        '420 tokens, 79.0% saved'
        """
        self.cost += other.cost
        self.questions += other.questions
        self._spent += other._spent
        self._reference += other._reference
        self._estimated = self._estimated or other._estimated

    @property
    def tokens(self) -> int:
        """Generated and probe tokens."""
        return self.cost.tokens

    @property
    def share(self) -> float | None:
        """The share of the reference's tokens that is saved; None before anything is known."""
        return saving(self._spent, self._reference) if self._reference else None

    @property
    def text(self) -> str:
        """What a bar shows; "~" and "SC@64" mark an estimate."""
        if not self.questions:
            return ""
        told = "" if self.share is None else f", {self.share:.1%} saved"
        if self._estimated:
            told = told.replace(", ", ", ~") + f" of SC@{_SAMPLES}"
        return f"{self.tokens:,} tokens{told}"

    def to_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        told: dict[str, float] = {"questions": self.questions, "tokens": self.tokens, **asdict(self.cost)}
        return told if self.share is None else {**told, "saving": self.share}


def bars_shown() -> bool:
    """Whether progress bars are on: `transformers.utils.logging.disable_progress_bar()` turns ours off too."""
    from transformers.utils import logging

    return bool(logging.is_progress_bar_enabled())


class Bar:
    """A bar over a long job, `initial` of whose `total` units were done before.

    `disable_progress_bar()` of transformers hides it, and so does `shown=False`.
    """

    def __init__(self, total: float | None, description: str, *, unit: str, shown: bool, initial: float = 0) -> None:
        hidden = not (shown and bars_shown())
        self.bar = tqdm(total=total, desc=inert(description, lines=False), unit=unit, initial=initial, disable=hidden)

    def tell(self, text: str, count: float = 1) -> None:
        """Put `text` behind the bar, and count `count` more as done."""
        self.bar.set_postfix_str(inert(text, lines=False), refresh=False)
        self.bar.update(count)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.close()


class Progress(Bar):
    """A bar over the questions of a long job, with the tokens saved so far, and what it reports to.

    With `report_to="trackio"` the totals are logged to a run of it after every question, and `config` with the run.

    Raises:
        UnknownNameError: `report_to` is neither.
        TTSError: trackio is not installed.
    """

    def __init__(
        self,
        total: int,
        description: str,
        *,
        shown: bool = True,
        report_to: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.saved = Savings()
        self._run = _trackio_run(report_to, config or {})
        super().__init__(total, description, unit="question", shown=shown)

    def add(self, cost: Cost, branches: Sequence[Trajectory], baseline: float | None = None) -> None:
        """Count an answered question."""
        self.saved.add(cost, branches, baseline)
        self.tell(self.saved.text)
        if self._run is not None:
            self._run.log(self.saved.to_dict())

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        if self._run is not None:
            self._run.finish()


class Recorded(Bar):
    """A bar over the branches of a recording, with the tokens so far; there is nothing to save in reading them all."""

    def __init__(self, total: int, description: str = "recording", *, shown: bool = True, initial: int = 0) -> None:
        self.tokens = self.probe_tokens = 0
        super().__init__(total, description, unit="branch", shown=shown, initial=initial)

    def add(self, branch: Trajectory) -> None:
        """Count a recorded branch."""
        self.tokens += branch.tokens
        self.probe_tokens += sum(branch.probe_tokens)
        self.tell(f"{self.tokens:,} tokens and {self.probe_tokens:,} of probes")


class Compared(Bar):
    """A bar over the methods replayed on one recording, with what the best of them saves so far.

    The best one has the accuracy of the baseline, which is the first method if None, for the fewest tokens.
    """

    def __init__(self, total: int, description: str, *, baseline: str | None = None, shown: bool = True) -> None:
        self.baseline = baseline
        self.rows: dict[str, tuple[float, float]] = {}
        super().__init__(total, description, unit="method", shown=shown)

    @property
    def text(self) -> str:
        """The best method so far, and the share of the baseline's tokens that it saves; "" while none saves any."""
        if self.baseline not in self.rows:
            return ""
        accuracy, tokens = self.rows[self.baseline]
        able = [(spent, label) for label, (reached, spent) in self.rows.items() if reached >= accuracy]
        spent, label = min(able)
        return f"{label} saves {saving(spent, tokens):.1%} of {self.baseline}" if spent < tokens else ""

    def add(self, label: str, accuracy: float, tokens: float) -> None:
        """Count a method that was replayed."""
        self.baseline = self.baseline or label
        self.rows[label] = accuracy, tokens
        self.tell(self.text)


class Searched(Bar):
    """A bar over the time of a search, with what was tried and what the best candidate saves so far."""

    def __init__(self, minutes: float) -> None:
        self.seconds = 60 * minutes
        super().__init__(self.seconds, "searching", unit="s", shown=True)
        self.bar.bar_format = "{desc}: {percentage:3.0f}%|{bar}| {n:.0f} of {total_fmt} s{postfix}"

    def add(self, seconds: float, tried: int, saved: str) -> None:
        """Tell where it stands after `seconds` in all; `saved` says what the best candidate saves."""
        more = max(0.0, min(seconds, self.seconds) - self.bar.n)
        self.tell(f"{tried} candidates" + (f", {saved}" if saved else ""), more)


def _trackio_run(report_to: str | None, config: Mapping[str, Any]) -> Any:
    if report_to is None:
        return None
    if report_to != "trackio":
        raise UnknownNameError.of("report_to", report_to, ("trackio",))
    try:
        import trackio
    except ImportError as error:
        raise TTSError("report_to='trackio' needs trackio: pip install 'tts-generate[trackio]'.") from error
    return trackio.init(project="tts-generate", config=dict(config), embed=False)
