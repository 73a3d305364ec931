"""One episode as few lines: what a language model reads to see why an answer was lost.

Answers are letters in the order in which they appeared, `*` marks the right one, `-` is no answer: neither texts nor
gold are needed to see what went wrong.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from tts_generate.trace import Event, some
from tts_generate.votes import NO_ANSWER

LINES = 48
_NAMED = 10
"""Branches named in one line."""


def compact(events: Sequence[Event], gold: int, lines: int = LINES) -> str:
    """The events of an episode as text: rounds in which no branch ends are told together.

    >>> from tts_generate.trace import Reading
    >>> opened = Event(0, "open", readings=(Reading(0, 1, 500, 3, False), Reading(1, 1, 500, 7, True)), tokens=1000)
    >>> print(compact([opened, Event(1, "answer", answer=7, tokens=1000)], gold=7))
    round 0: opens 2; #1 ends with b*; latest a:1 b*:1; pool -; 0 live; 1,000 tokens
    round 1: answers b*; 1,000 tokens
    """
    told = list(_Teller(gold).lines(events))
    if len(told) > lines:
        half = lines // 2
        told = [*told[:half], f"... {len(told) - 2 * half} lines left out ...", *told[-half:]]
    return "\n".join(told)


class _Teller:
    """Names answers by letters, and remembers what each branch showed last."""

    def __init__(self, gold: int) -> None:
        self._gold = gold
        self._names: dict[int, str] = {}
        self._latest: dict[int, int] = {}

    def lines(self, events: Sequence[Event]) -> Iterator[str]:
        """The lines of an episode."""
        quiet: list[Event] = []
        for event in events:
            self._see(event)
            if event.verb == "continue" and not event.pruned and not any(r.finished for r in event.readings):
                quiet.append(event)
                continue
            if quiet:
                yield self._quietly(quiet, event)
                quiet = []
            yield self._line(event)
        if quiet:
            yield self._quietly(quiet, None)

    def _see(self, event: Event) -> None:
        for reading in event.readings:
            self._name(reading.answer)
            self._latest[reading.branch] = reading.answer
        for branch in event.pruned:
            self._latest.pop(branch, None)

    def _quietly(self, events: Sequence[Event], after: Event | None) -> str:
        first, last = events[0], events[-1]
        rounds = f"round {first.round}" if first is last else f"rounds {first.round}-{last.round}"
        told = f"{rounds}: reads on {len(last.readings)}"
        if after is None:
            told += f"; latest {self._votes()}"
        return f"{told}; {self._standing(last)}"

    def _line(self, event: Event) -> str:
        head = f"round {event.round}: "
        if event.verb == "answer":
            answer = NO_ANSWER if event.answer is None else event.answer
            return f"{head}answers {self._name(answer)}; {event.tokens:,} tokens"
        parts = [f"{'opens' if event.verb == 'open' else 'reads on'} {len(event.readings)}"] if event.readings else []
        ended = [f"#{r.branch} ends with {self._name(r.answer)}" for r in event.readings if r.finished]
        pruned = [f"#{branch}" for branch in event.pruned]
        parts += [some(ended, _NAMED)] if ended else []
        parts += [f"prunes {some(pruned, _NAMED)}"] if pruned else []
        return f"{head}{'; '.join(parts)}; latest {self._votes()}; {self._standing(event)}"

    def _standing(self, event: Event) -> str:
        pool = "-"
        if event.leader_votes:
            pool = f"{self._name(event.leader)} {event.leader_votes}:{event.runner_up_votes}"
        return f"pool {pool}; {event.live} live; {event.tokens:,} tokens"

    def _votes(self) -> str:
        votes = Counter(self._name(answer) for answer in self._latest.values())
        return " ".join(f"{name}:{count}" for name, count in votes.most_common(5)) or "-"

    def _name(self, answer: int) -> str:
        if answer == NO_ANSWER:
            return "-"
        if answer not in self._names:
            number = len(self._names)
            letter = chr(ord("a") + number % 26) + (str(number // 26) if number >= 26 else "")
            self._names[answer] = letter + ("*" if answer == self._gold else "")
        return self._names[answer]
