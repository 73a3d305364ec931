"""One episode as few lines: what a language model reads to see why an answer was lost.

Answers are letters in the order in which they appeared, `*` marks the right one, `-` is no answer: neither texts nor
gold are needed to see what went wrong.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from tts_generate.trace import Event, some
from tts_generate.votes import NO_ANSWER

LINES = 48
_NAMED = 10
"""Branches named in one line."""
_Group = list[Event]
"""Events that are told in one line."""


def compact(
    events: Sequence[Event],
    gold: int,
    lines: int = LINES,
    names: dict[int, str] | None = None,
    own: Mapping[int, Mapping[str, float]] | None = None,
) -> str:
    """The events of an episode as text: rounds in which no branch ends are told together.

    Args:
        events: of the episode.
        gold: id of the right answer.
        lines: at most so many; more are told in fewer words.
        names: the letters of answers by id, which another episode of the question may have begun.
        own: the controller's own numbers after each round.

    >>> from tts_generate.trace import Reading
    >>> opened = Event(0, "open", readings=(Reading(0, 1, 500, 3, False), Reading(1, 1, 420, 7, True)), tokens=920)
    >>> print(compact([opened, Event(1, "answer", answer=7, tokens=920)], gold=7, own={0: {"led": 2}}))
    round 0: opens 2; #1 ends with b* after 420; latest a:1 b*:1; pool -; 0 live; 920 tokens; led 2
    round 1: answers b*; 920 tokens
    """
    groups = list(_quiet_together(events))
    each = -(-max(0, len(groups) - 1) // max(1, lines - 1))
    if each > 1:
        *before, last = groups
        groups = [[*itertools.chain(*before[k : k + each])] for k in range(0, len(before), each)] + [last]
    teller = _Teller(gold, {} if names is None else names, own or {})
    return "\n".join(teller.line(group) for group in groups)


def _quiet_together(events: Sequence[Event]) -> Iterator[_Group]:
    """Each event by itself, but those in which branches are read on and none of them ends."""
    quiet: _Group = []
    for event in events:
        if event.verb == "continue" and not event.pruned and not any(r.finished for r in event.readings):
            quiet.append(event)
            continue
        if quiet:
            yield quiet
            quiet = []
        yield [event]
    if quiet:
        yield quiet


class _Teller:
    """Names answers by letters, and remembers what each branch showed last."""

    def __init__(self, gold: int, names: dict[int, str], own: Mapping[int, Mapping[str, float]]) -> None:
        self._gold, self._names, self._own = gold, names, own
        self._latest: dict[int, int] = {}

    def line(self, events: _Group) -> str:
        """Some events as a line."""
        for event in events:
            for reading in event.readings:
                self._name(reading.answer)
                self._latest[reading.branch] = reading.answer
            for branch in event.pruned:
                self._latest.pop(branch, None)
        first, last = events[0], events[-1]
        rounds = f"round {first.round}" if first.round == last.round else f"rounds {first.round}-{last.round}"
        if last.verb == "answer":
            answer = NO_ANSWER if last.answer is None else last.answer
            return f"{rounds}: answers {self._name(answer)}; {last.tokens:,} tokens"
        parts = [*self._moves(events), f"latest {self._votes()}", self._standing(last)]
        own = [f"{name} {value:.4g}" for name, value in self._own.get(last.round, {}).items()]
        return f"{rounds}: {'; '.join([*parts, *([', '.join(own)] if own else [])])}"

    def _moves(self, events: _Group) -> list[str]:
        """What is opened, read on, ended and given up."""
        opened = sum(len(event.readings) for event in events if event.verb == "open")
        read = [len(event.readings) for event in events if event.verb == "continue" and event.readings]
        ended = [reading for event in events for reading in event.readings if reading.finished]
        pruned = [f"#{branch}" for event in events for branch in event.pruned]
        told = [f"opens {opened}"] if opened else []
        told += [f"reads on {read[-1]}"] if read else []
        if len(ended) <= _NAMED:
            told += [f"#{r.branch} ends with {self._name(r.answer)} after {r.tokens:,}" for r in ended]
        else:
            votes = Counter(self._name(reading.answer) for reading in ended)
            lengths = sorted(reading.tokens for reading in ended)
            with_what = " ".join(f"{name}:{count}" for name, count in votes.most_common(5))
            told.append(f"{len(ended)} end with {with_what} after {lengths[0]:,} to {lengths[-1]:,}")
        return told + ([f"prunes {some(pruned, _NAMED)}"] if pruned else [])

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
