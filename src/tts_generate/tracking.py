"""How far a long job has come and what it has saved so far: a tqdm bar, and a trackio run where one is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

from tqdm.auto import tqdm

from tts_generate.errors import InputError, TTSError, UnknownNameError
from tts_generate.runner import Cost
from tts_generate.statistics import saving
from tts_generate.trajectories import Trajectory

_SAMPLES = 64


class Saved:
    """Tokens spent on the questions answered so far, and the share saved.

    Compared is with a baseline's tokens of the same questions where they are known; elsewhere with 64 branches as long
    as those that were read to their end, on average over the question. That is an estimate, and a low one, because the
    short ones come to their end first; where no branch has, there is none.

    >>> saved = Saved()
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
        self._spent += cost.generated_tokens + cost.probe_tokens
        self._reference += baseline

    @property
    def tokens(self) -> int:
        """Generated and probe tokens."""
        return self.cost.generated_tokens + self.cost.probe_tokens

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
        kinds = ("prompt_tokens", "generated_tokens", "probe_tokens", "wasted_tokens")
        told: dict[str, float] = {"questions": self.questions, "tokens": self.tokens}
        told |= {name: getattr(self.cost, name) for name in kinds}
        return told if self.share is None else {**told, "saving": self.share}


def bars_shown() -> bool:
    """Whether progress bars are on: `transformers.utils.logging.disable_progress_bar()` turns ours off too."""
    from transformers.utils import logging

    return bool(logging.is_progress_bar_enabled())


class Progress:
    """A bar over the questions of a long job, with the tokens saved so far, and what it reports to.

    Args:
        total: questions to answer.
        description: what stands before the bar.
        shown: False hides the bar; so does transformers' switch.
        report_to: "trackio" logs the totals to a run of it after every question; None does not.
        project: its project there.
        name: the run's name there; trackio makes one up if None.
        config: what is written down with the run.

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
        project: str = "tts-generate",
        name: str | None = None,
        config: Mapping[str, Any] | None = None,
    ) -> None:
        self.saved = Saved()
        self._run = _trackio_run(report_to, project, name, config or {})
        self._bar = tqdm(total=total, desc=description, unit="question", disable=not (shown and bars_shown()))

    def add(self, cost: Cost, branches: Sequence[Trajectory], baseline: float | None = None) -> None:
        """Count an answered question."""
        self.saved.add(cost, branches, baseline)
        self._bar.set_postfix_str(self.saved.text, refresh=False)
        self._bar.update()
        if self._run is not None:
            self._run.log(self.saved.to_dict())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._run is not None:
            self._run.finish()


def _trackio_run(report_to: str | None, project: str, name: str | None, config: Mapping[str, Any]) -> Any:
    if report_to is None:
        return None
    if report_to != "trackio":
        raise UnknownNameError.of("report_to", report_to, ("trackio",))
    if not project:
        raise InputError("project must not be empty: it names the folder of the runs in trackio.")
    try:
        import trackio
    except ImportError as error:
        raise TTSError("report_to='trackio' needs trackio: pip install 'tts-generate[trackio]'.") from error
    return trackio.init(project=project, name=name, config=dict(config), embed=False)
