"""Text of strangers, made inert: what a terminal, a browser, a Markdown page or an eye would obey is shown instead."""

from __future__ import annotations

import re
import unicodedata

_BLANK = {
    0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, *range(0x180B, 0x1810), *range(0xFE00, 0xFE0E), 0x3164, 0xFFA0,
    *range(0xE0100, 0xE01F0),
}  # fmt: skip
"""Letters and marks that nobody sees; the two that choose a picture or a letter (U+FE0E, U+FE0F) are left."""


class _Shown(dict[int, str]):
    """What stands for each character, found when it first comes."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        seen = char.isprintable() or unicodedata.category(char) == "Zs"  # no-break and ideographic spaces are text
        self[code] = char if seen and code not in _BLANK else char.encode("unicode_escape").decode("ascii")
        return self[code]


_LINES, _ONE_LINE = _Shown({10: "\n", 9: "\t"}), _Shown()


def inert(text: object, *, lines: bool = True) -> str:
    r"""`text` with every character that acts, or that nobody sees, written out: the one function for that.

    Those are control characters (NUL, ESC, DEL, C1, carriage returns), marks that turn the direction of writing, ones
    without width, separators of lines and paragraphs, halves of surrogate pairs, private and unknown characters.
    Line breaks and tabs stay, unless it is to be one line.

    >>> inert("a\x1b[31mb\u202ec\nd")
    'a\\x1b[31mb\\u202ec\nd'
    >>> inert("a\nb", lines=False)
    'a\\nb'
    """
    return str(text).translate(_LINES if lines else _ONE_LINE)


def as_markdown(text: object) -> str:
    r"""`text` as Markdown that shows it: inert, one line, no link, no picture, no HTML, no heading, no cell of a table.

    Code in backticks stays, for descriptions have some.

    >>> as_markdown("# <b>[x](y)|\nz")
    '\\# &lt;b>\\[x\\](y)\\| z'
    """
    shown = " ".join(inert(" ".join(str(text).split())).split())
    shown = re.sub(r"[\\\[\]|]", r"\\\g<0>", shown.replace("&", "&amp;").replace("<", "&lt;"))
    return re.sub(r"^(\d*)(```|~~~|>|#+(?=\s|$)|[-+*.)](?=\s|$))", r"\1\\\2", shown)  # what begins a block
