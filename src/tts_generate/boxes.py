r"""Boxes, and the text by which answers are compared: `\boxed{…}` as models write it, closed, bare or cut."""

from __future__ import annotations

import re

_GROUP = r"\{(?:[^{}\\]|\\.|\{(?:[^{}\\]|\\.|\{(?:[^{}\\]|\\.){0,99}+\}){0,99}+\}){0,99}+\}"
_NUMBER = r"\.?\d+(?:[.,]\d+)*(?:/\d+)?(?:\\?%)?"
_COMMAND = rf"\\(?:[A-Za-z]+(?:\[[^][{{}}]{{0,99}}\])?(?:\s*{_GROUP}|\d)+|(?:pi|infty|emptyset|varnothing)(?![A-Za-z]))"
_ENDS = r"(?=\s*(?:$|\n|[$.,;:!?)\]}*\"'`]|\\[])]|\\\\)|\s+[A-Za-z]{2})"
_BARE = rf"(?>[-+\u2212]?(?:{_NUMBER}|{_COMMAND})|[A-Za-z](?!\s*[A-Za-z])){_ENDS}"
_NAME = r"(?:boxed|fbox|framebox(?:\s*\[[^][{}]{0,99}\]){0,2})(?![A-Za-z])"
_BOX = rf"\\{{1,2}}{_NAME}\s*"
_TOKEN = re.compile(rf"(?P<box>{_BOX}\{{)|{_BOX}(?P<bare>{_BARE})|\\.|[{{}}]", re.DOTALL)
_HAS_BOX = re.compile(_BOX)
NUMBER = r"[-+\u2212]?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+)?(?:[eE][-+]?\d+)?(?:/\d+)?(?:\s?\\?%)?"
"""A number as people write it: with commas between its thousands, as a fraction, in percent."""
_WORDS = re.compile(r"\\(?:text|textbf|textit|textrm|mathrm|mathbf)\s*\{([^{}\\]*)\}")
_CHOICE = re.compile(r"\(([A-J])\)")
_IN_TEX = re.compile(rf"(?<!\\)\\(?:\\\\)*{_NAME}")


def normalise(answer: str) -> str:
    r"""The text by which answers are compared: outer space and `$` gone, inner space runs made one; `\$` stays.

    A number has no commas between its thousands, words do without the command that sets them, and a choice without its
    parentheses.

    >>> normalise("  $ 1  / 2 $ "), normalise(r"$5\$ $"), normalise("-1,000.5"), normalise("(1,000)")
    ('1 / 2', '5\\$', '-1000.5', '(1,000)')
    >>> normalise(r"\text{no answer}"), normalise(r"\text{(B)}"), normalise("(B)"), normalise(r"5 \text{ cm}")
    ('no answer', 'B', 'B', '5 \\text{ cm}')
    """
    text = " ".join(answer.split()).lstrip(" $")
    bare = text.rstrip(" $")
    for way in (_WORDS, _CHOICE):
        if (said := way.fullmatch(bare)) is not None and said[1].strip():
            bare = said[1].strip()
    if "," in bare and re.fullmatch(NUMBER, bare):
        return bare.replace(",", "")
    return f"{bare}$" if bare.endswith("\\") and text.startswith("$", len(bare)) else bare


def has_box(text: str) -> bool:
    r"""Whether `text` names a box, closed or cut.

    >>> has_box(r"\boxed{7"), has_box("7")
    (True, False)
    """
    return _HAS_BOX.search(text) is not None


def last_boxed(text: str) -> str | None:
    r"""The content of the last complete box of `text` that holds something; None if there is none.

    A box is `\boxed{…}`, `\fbox{…}` or `\framebox{…}`, its braces balanced but for those behind a backslash; `%` is
    a percent sign. Without braces it holds the one number, letter or command with its arguments that follows, where
    nothing behind goes on with it. Of boxes inside one another the innermost counts. In a text whose boxes all stand
    with two backslashes, as JSON prints them, each two are one.

    >>> last_boxed(r"so \boxed{3}, no: \boxed{\frac{1}{2}}, never \boxed{} and \boxed{un")
    '\\frac{1}{2}'
    >>> last_boxed(r"\boxed{\left\{ 1 \right.}"), last_boxed(r"$\fbox 7$"), last_boxed(r"\\boxed{\\pi}")
    ('\\left\\{ 1 \\right.', '7', '\\pi')
    """
    return boxes(text)[0]


def boxes(text: str) -> tuple[str | None, bool]:
    """The content of the last box that holds something, and whether the last box is closed by its brace."""
    if not _IN_TEX.search(text):
        text = text.replace("\\\\", "\\")
    found: str | None = None
    closed, innermost = False, 0
    groups: list[int] = []  # where the content of open boxes begins; 0: other braces
    for token in _TOKEN.finditer(text):
        content = token["bare"]
        if token["box"] or content:
            closed, innermost = False, token.end()
        if token["box"]:
            groups.append(innermost)
        elif token[0] == "{":
            groups.append(0)
        elif token[0] == "}" and groups and (start := groups.pop()):
            closed = True
            content = text[start : token.start()] if start >= innermost else None
        if content is not None and (found is None or normalise(content)):
            found = content
    return found, closed
