r"""Answers as people write them: `\boxed{42}`, `#### 42`, "the answer is 42", tags, letters, numbers, JSON, by name.

A reader takes what a branch said and gives the answer stated last, None where it finds none. `auto` takes the first of
them that the text has, in a fixed order, so that equal texts are read alike on every model.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass

from tts_generate.boxes import NUMBER, boxes, has_box, last_boxed, normalise

Reader = Callable[[str], str | None]
"""What a branch said, outside its thinking, to the answer it states; None if it states none."""

_LAST_NUMBER = re.compile(rf"(?<![\w.,/]){NUMBER}(?![\w]|[.,]\d)|(?<![\d.]){NUMBER}(?!\d)")
_WITH_UNIT = re.compile(rf"[$\u20ac\u00a3]?\s?({NUMBER})(?:\s+[^\W\d_]+){{0,3}}")
_HASHES = re.compile(r"####[ \t]*(\S[^\n]*)")
_TAG = re.compile(r"<answer>([^<]*(?:<(?!/?answer>)[^<]*)*)</answer>", re.IGNORECASE)
_SENTENCE = re.compile(
    r"\banswer\b[\s*_]{0,3}(?:(?:is|are|was|would be|should be|must be|equals)\b|[:=])[\s*_:=]*(\S.*?)"
    r"(?:[.!?;](?=\s|$|[*_\"'])|\n|$)",
    re.IGNORECASE,
)
_LETTER = re.compile(
    r"\(([A-J])\)|\b(?:answer|option|choice)\b[\s*_]*(?:is\b|[:=])?[\s*_:=]*\(?([A-J])(?![A-Za-z'])"
    r"|^[ *_]{0,9}([A-J])(?:[.):*_]|[ \t]*$)",
    re.MULTILINE,
)
_SHORT = (3, 40)
"""Words and characters of a text that is taken for an answer as it stands."""
_AROUND = "*_`\"'\u201c\u201d \t\n"
_LONGEST = 200
"""Characters of what may follow "the answer is"."""
_OBJECTS = 1000
"""JSON objects that are looked at, from the end of a text."""


def boxed(text: str) -> str | None:
    r"""What the last box holds, as `last_boxed` finds it.

    >>> boxed(r"\boxed{ 7 } and \boxed{}"), boxed("7")
    ('7', None)
    """
    content = last_boxed(text)
    return normalise(content) or None if content is not None else None


def hashes(text: str) -> str | None:
    r"""What stands behind the last `####`, as in the solutions of GSM8K.

    >>> hashes("6 * 7 = 42\n#### 1,042.")
    '1042'
    """
    return _last(_HASHES, text)


def stated(gold: str) -> str:
    r"""The text that a right answer is compared by: behind its last `####`, else in its last box, else all of it.

    >>> stated("6 * 7 = 42\n#### 42"), stated(r"$\boxed{\frac{1}{2}}$"), stated(" $1,000$ ")
    ('42', '\\frac{1}{2}', '1000')
    """
    return hashes(gold) or boxed(gold) or normalise(gold)


def tag(text: str) -> str | None:
    """What stands in the last `<answer>…</answer>`.

    >>> tag("<answer>7</answer>, no: <ANSWER> 8 </ANSWER>")
    '8'
    """
    return _last(_TAG, text)


def sentence(text: str) -> str | None:
    """What the last "the answer is …", "Answer: …" or "answer = …" says; of a number with its unit, the number.

    >>> sentence("So the answer is 42 apples. Done."), sentence("**Final Answer:** (B) because"), sentence("no answer")
    ('42', 'B', None)
    """
    return next((answer for match in reversed([*_SENTENCE.finditer(text)]) if (answer := _said(match[1]))), None)


def choice(text: str) -> str | None:
    """The letter of a choice, A to J, stated last: `(B)`, "answer: B", "option B", or a line that is a letter.

    >>> choice("Not (A). The answer is C."), choice("B"), choice("A man walks")
    ('C', 'B', None)
    """
    return _last(_LETTER, text)


def number(text: str) -> str | None:
    r"""The last number, thousands without commas.

    >>> number("3 boxes of 1,250 are 3,750."), number("-0.5 or 1/2"), number("50\\%"), number("none")
    ('3750', '1/2', '50\\%', None)
    """
    return _last(_LAST_NUMBER, text)


def short(text: str) -> str | None:
    """All of a text of at most three words in one line.

    >>> short(" Paris. "), short("It is a long story, and nobody knows how it will end.")
    ('Paris', None)
    """
    line = text.strip()
    fits = "\n" not in line and len(line.split()) <= _SHORT[0] and len(line) <= _SHORT[1]
    return tidy(line) or None if fits else None


def whole(text: str) -> str | None:
    r"""All of a text: what votes is equal word for word, white space and what stands around it apart.

    >>> whole('"SELECT  name\nFROM users".'), whole(" ")
    ('SELECT name FROM users', None)
    """
    return tidy(" ".join(text.split())) or None


_AUTO = ("boxed", "hashes", "tag", "sentence")
"""The formats that `auto` looks for, in this order."""


def auto(text: str) -> str | None:
    r"""The first of `boxed`, `hashes`, `tag`, `sentence` that the text has.

    >>> auto(r"The answer is \boxed{7}."), auto("The answer is 8."), auto("1 and 2 and")
    ('7', '8', None)
    """
    return next((answer for name in _AUTO if (answer := NAMED[name].read(text)) is not None), None)


def settled(text: str) -> str:
    """A text without its last word, which may be on the way if the text was cut off.

    >>> settled("The answer is 4"), settled("The answer is 42 ")
    ('The answer is ', 'The answer is 42 ')
    """
    return text[: len(text) - len(re.split(r"\s", text)[-1])]


def auto_cut(text: str) -> str | None:
    r"""As `auto`, of a text that was cut off: a line or a sentence counts without its last word.

    >>> auto_cut("The answer is 4"), auto_cut("The answer is 4 and"), auto_cut(r"\boxed{4}")
    (None, '4', '4')
    """
    return next((answer for name in _AUTO if (answer := NAMED[name].read_cut(text)) is not None), None)


def auto_ended(text: str) -> str | None:
    """As `auto`; of a text that is finished and has none of those: all of it if `short`, `choice`, the last `number`.

    A text that was cut off is not read so: the last number in it is one on the way.

    >>> auto_ended("67"), auto_ended("so I would take option C"), auto_ended("It takes them about 3 hours and no more")
    ('67', 'C', '3')
    """
    return next((answer for read in (auto, short, choice, number) if (answer := read(text)) is not None), None)


def json_key(key: str) -> Reader:
    """A reader of the value of `key` in the last JSON object that has it.

    >>> json_key("answer")('{"answer": 1} and ```json {"why": "x", "answer": [1, 2]}```')
    '[1, 2]'
    """

    def read(text: str) -> str | None:
        decoder = json.JSONDecoder(parse_constant=str)
        stated, begins = None, len(text)
        for match in reversed([*re.finditer(r"\{", text)][-_OBJECTS:]):
            try:
                value, end = decoder.raw_decode(text, match.start())
            except (ValueError, RecursionError):
                continue
            if value.get(key) is not None and (stated is None or end > begins):  # of nested ones the outermost
                stated, begins = value[key], match.start()
        if stated is None:
            return None
        return tidy(stated if isinstance(stated, str) else json.dumps(stated, ensure_ascii=False)) or None

    return read


@dataclass(frozen=True, slots=True)
class NamedFormat:
    """A way to state an answer that has a name."""

    read: Reader
    """What a branch has said so far to the answer that it states."""
    read_cut: Reader
    """What a branch that was cut off has said: its last word may be on the way."""
    read_ended: Reader
    """What a branch that has ended by itself has said: nothing is on the way there."""
    opening: str
    """Text behind which a model states its answer so."""
    looks: str
    """What such an answer looks like."""
    complete: Callable[[str], bool]
    """Whether more text could not change an answer that is stated behind `opening`."""


def _box_closed(text: str) -> bool:
    return boxes(text)[1]


def _ended(opening: str, end: str) -> Callable[[str], bool]:
    """Whether `end` stands behind what the last `opening` opens."""
    return lambda text: end in text.rpartition(opening)[2].lstrip()


def _stated(read: Reader) -> Reader:
    """`read` of what "the answer is" says."""
    return lambda text: read(phrase) if (phrase := sentence(text)) is not None else None


def _worded(read: Reader, ended: Reader, opening: str, looks: str, end: str = "\n") -> NamedFormat:
    """A format in which the last word of a text that was cut may be on the way; `end` closes an answer."""
    return NamedFormat(read, lambda text: read(settled(text)), ended, opening, looks, _ended(opening, end))


_BOX, _LINE, _TAGGED, _PHRASE = "\\boxed{42}", "#### 42", "<answer>42</answer>", '"the answer is 42"'
NAMED: dict[str, NamedFormat] = {
    "auto": NamedFormat(
        auto, auto_cut, auto_ended, "\\boxed{", f"{_BOX}, {_LINE}, {_TAGGED} or {_PHRASE}", _box_closed
    ),
    "boxed": NamedFormat(boxed, boxed, boxed, "\\boxed{", _BOX, _box_closed),
    "hashes": _worded(hashes, hashes, "#### ", _LINE),
    "tag": NamedFormat(tag, tag, tag, "<answer>", _TAGGED, _ended("<answer>", "</answer>")),
    "sentence": _worded(sentence, sentence, "The answer is ", _PHRASE),
    "choice": _worded(_stated(choice), choice, "The answer is (", "a letter from A to J", ")"),
    "number": _worded(_stated(number), number, "The answer is ", "a number"),
    "text": _worded(sentence, whole, "The answer is ", "a text that ends"),
}
"""Formats by the names that `answer_pattern` takes; `json:KEY` is one for each key."""


def named_format(name: str) -> NamedFormat | None:
    r"""The format of a name: one of `NAMED`, or `json:KEY`; None if it is no name of one.

    >>> named_format("json:result").read('{"result": "Berlin"}')
    'Berlin'
    >>> named_format(r"answer is (\w+)") is None
    True
    """
    kind, colon, key = name.partition(":")
    if kind == "json" and key and colon:
        read = json_key(key)
        example = json.dumps({key: ""})
        return NamedFormat(read, read, read, example[:-3], example, lambda text: read(text) is not None)
    return NAMED.get(name)


def tidy(text: str) -> str:
    r"""An answer without what a sentence puts around it: emphasis, quotes, a full stop, commas between thousands.

    >>> tidy("**$1,000**."), tidy('"Paris".'), tidy("f(x)."), tidy("(B)")
    ('1000', 'Paris', 'f(x)', 'B')
    """
    bare, before = normalise(text), ""
    while bare != before:
        bare, before = normalise(bare.strip(_AROUND).rstrip(".!?,;:")), bare
    if letter := re.fullmatch(r"\(([A-Za-z])\)|([A-J])[.)]", bare):
        return letter[1] or letter[2]
    return bare


def _said(phrase: str) -> str | None:
    """The answer in what follows "the answer is"; of a box, closed or not, what it holds."""
    if len(phrase) > _LONGEST:
        return None
    if has_box(phrase):
        return boxed(phrase)
    if letter := re.match(r"[\s*_]*\(([A-J])\)", phrase):
        return letter[1]
    bare = tidy(phrase)
    amount = _WITH_UNIT.fullmatch(bare)
    return tidy(amount[1]) if amount else bare or None


def _last(pattern: re.Pattern[str], text: str) -> str | None:
    """What the last match of `pattern` that says something says: its first group that matched, or all of it."""
    for match in reversed([*pattern.finditer(text)]):
        if answer := tidy(next((group for group in match.groups() if group is not None), match[0])):
            return answer
    return None
