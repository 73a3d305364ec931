"""Where stop strings end a branch: looked for in all that it has said, for a server sees the text of one request only.

They end it where transformers' own criterion does: behind the first token with which one of them is complete.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence

_TOKENS_OF_A_CHARACTER = 4
"""At most, where each is a byte of it."""


def text_until(text: str, start: int, stop: Sequence[str]) -> int | None:
    r"""Characters of a text to the end of the stop string that is complete first; None where there is none.

    Args:
        text: what was said, of which stop strings that end before `start` do not count.
        start: where the text begins that is looked at for the first time.
        stop: the strings.

    >>> text_until("a\n\nQ: b", 2, ["Q:", "\n\n"]), text_until("a\n\nQ: b", 3, ["Q:", "\n\n"])
    (3, 5)
    """
    places = [(text.find(string, max(0, start - len(string) + 1)), len(string)) for string in stop]
    return min((place + length for place, length in places if place >= 0), default=None)


def tokens_until(
    decode: Callable[[list[int]], str], before: Sequence[int], ids: Sequence[int], stop: Sequence[str]
) -> int | None:
    """How many of the tokens `ids`, said behind those `before`, complete a stop string; None where they do not."""
    if not stop:
        return None
    tail = list(before[-_TOKENS_OF_A_CHARACTER * max(map(len, stop)) :])
    start = len(decode(tail).rstrip("\ufffd"))  # of a character that is not whole yet

    def complete(count: int) -> bool:
        return text_until(decode([*tail, *ids[:count]]), start, stop) is not None

    return 1 + bisect_left(range(1, len(ids)), True, key=complete) if complete(len(ids)) else None
