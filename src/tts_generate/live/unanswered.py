"""Questions that end without an answer: one warning a call says so, what was looked for, and what to set."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tts_generate.errors import NoAnswerWarning, warn
from tts_generate.inert import inert
from tts_generate.live.episode import LiveEpisode
from tts_generate.live.reader import Reader

_SHOWN = 120
"""Characters of the end of a branch."""


class Unanswered:
    """Counts the questions of a call, and those of them that have no answer although something was decoded for them."""

    def __init__(self, reader: Reader, questions: Iterable[LiveEpisode[Any]] = ()) -> None:
        self.reader = reader
        self.asked = self.unanswered = 0
        self._first = ""
        self._advice: set[str] = set()
        for question in questions:
            self.add(question)

    def add(self, question: LiveEpisode[Any]) -> None:
        """Count a question that has ended; of one that was cut short its `finish_reason` says so."""
        self.asked += 1
        if question.answer is not None or question.winner < 0 or question.finish_reason != "answer":
            return
        self.unanswered += 1
        branch, limit = question.branches[question.winner], question.settings.max_new_tokens
        if branch.cut:
            self._advice.add(f"a larger max_new_tokens (now {limit})")
        elif not branch.finished:
            self._advice.add("a larger budget")
        if not self._first:
            how = "was cut" if branch.cut else "ended" if branch.finished else "was left on its way"
            end = inert(self.reader.text(branch.ids)[-_SHOWN:], lines=False)
            self._first = (
                f"Question {question.task.question_id!r}: branch {branch.number} {how} after {len(branch.ids)} "
                f"tokens with «{end}»"
            )

    def tell(self) -> None:
        """Warn, if there is something to warn of; what the call has done is stored by now."""
        if self.unanswered:
            ways = ["answer_pattern= to what the model's answers look like", "a prompt that says how to answer"]
            warn(
                f"{self.unanswered} of {self.asked} questions end without an answer: no branch ended with what "
                f"{self.reader.format.looks_for}. {self._first}. Set {', or '.join([*sorted(self._advice), *ways])}.",
                NoAnswerWarning,
                stacklevel=3,
            )
