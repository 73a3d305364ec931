"""JSON that somebody else wrote: read within bounds, checked for its shape, with one clear error for whatever is wrong.

Python's own reader takes NaN, keys that come twice, numbers of thousands of digits and halves of surrogate pairs, and
ends in a `RecursionError` or worse where the value is used. Every file that may be a stranger's is read by this one.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, NoReturn, Union, get_args, get_origin

from tts_generate.arguments import fits, told
from tts_generate.errors import InputError, TTSError

LARGEST = 32 << 20
"""Bytes of a file that are read, where nothing else is said."""
DEEPEST = 100
Count = Annotated[int, "0 or more", lambda value: value >= 0]
Amount = Annotated[float, "0 or more", lambda value: value >= 0]
Short = Annotated[str, "at most 4,000 characters", lambda value: len(value) <= 4000]
"""In a shape: a whole number of 0 or more, any number of 0 or more, and a text that can be shown."""


def parse_json(text: bytes | str, where: object, *, largest: int = LARGEST, error: type[TTSError] = InputError) -> Any:
    r"""The value that a stranger's JSON stands for.

    Raises:
        TTSError: of the class `error`, naming `where` and what is wrong.

    >>> parse_json('{"a": 1, "a": 2}', "x.json")
    Traceback (most recent call last):
    tts_generate.errors.InputError: x.json: 'a' is in it twice.
    >>> parse_json('{"a": -Infinity}', "x.json")
    Traceback (most recent call last):
    tts_generate.errors.InputError: x.json: it holds -Infinity, which JSON does not have.
    """

    def refuse(why: str) -> NoReturn:
        raise error(f"{where}: {why}.") from None

    if len(text) > largest:
        refuse(f"it has {len(text):,} bytes; at most {largest:,} are read")
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=lambda pairs: once(pairs, refuse),
            parse_constant=lambda name: refuse(f"it holds {name}, which JSON does not have"),
            parse_int=lambda digits: _whole(digits, refuse),
            parse_float=lambda digits: _finite(digits, refuse),
        )
    except UnicodeDecodeError as found:
        refuse(f"it is not UTF-8 text ({found.reason} at byte {found.start})")
    except RecursionError:
        refuse("it is nested too deeply")
    except json.JSONDecodeError as found:
        refuse(f"it is not JSON: {found}")
    _check_depth(value, refuse)
    return value


def _wrong(why: str) -> NoReturn:
    raise ValueError(why)


def once(pairs: list[tuple[str, Any]], refuse: Callable[[str], NoReturn] = _wrong) -> dict[str, Any]:
    """The fields of an object, for `json.loads(object_pairs_hook=...)`; one that comes twice is refused.

    Raises:
        ValueError: naming it, where nobody else refuses.
    """
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            refuse(f"{name[:80]!r} is in it twice")
        fields[name] = value
    return fields


def read_json(path: Path, where: object = None, *, largest: int = LARGEST, error: type[TTSError] = InputError) -> Any:
    """The value in a file, called `where` in messages if that is given; see `parse_json`.

    Raises:
        TTSError: of the class `error`; what `parse_json` raises, or that the file cannot be read.
    """
    try:
        if not path.is_file():
            raise error(f"{where or path} is not a file.")
        with open(path, "rb") as file:
            text = file.read(largest + 1)
    except OSError as found:
        raise error(f"{where or path} cannot be read: {found.strerror or found}.") from found
    return parse_json(text, where or path, largest=largest, error=error)


def check_format(row: Any, wanted: str, where: object, hint: str = "", *, error: type[TTSError] = InputError) -> None:
    """Refuse a value that is no object of the format that it must be; `hint` says what to do.

    Raises:
        TTSError: of the class `error`.

    >>> check_format({"format": "x/2"}, "x/1", "x.json")
    Traceback (most recent call last):
    tts_generate.errors.InputError: x.json has format 'x/2'; this version of tts-generate reads 'x/1'.
    """
    found = row.get("format") if isinstance(row, dict) else type(row).__name__
    if found != wanted:
        told = f"{where} has format {found!r:.80}; this version of tts-generate reads {wanted!r}."
        raise error(f"{told} {hint}".rstrip())


def check_shape(value: object, shape: Any, where: object, *, error: type[TTSError] = InputError, at: str = "") -> None:
    """Refuse a value of another shape, naming the first part of it that is wrong.

    Args:
        value: of JSON.
        shape: {"name": shape} for an object with at least these fields, those with a "?" behind their name only where
            they are there; {str: shape} for one with any names; [shape] for a list of them; (shape, shape) for a list
            of just so many; else a type, as `arguments.fits` knows them, `Count`, `Amount` or `Short`.
        where: the file, for messages.
        error: what to raise.
        at: the part of the file that `value` is.

    Raises:
        TTSError: of the class `error`.

    >>> check_shape({"rows": [{"n": 1}, {"n": "x"}]}, {"rows": [{"n": int}]}, "x.json")
    Traceback (most recent call last):
    tts_generate.errors.InputError: x.json: rows[1].n is 'x'; expected is a whole number.
    """
    parts = _parts(value, shape, at)
    if parts is None:
        raise error(f"{where}: {at or 'it'} is {value!r:.80}; expected is {_words(shape)}.")
    for name, part, inner in parts:
        if part is _ABSENT:
            raise error(f"{where}: {name} is not in it.")
        check_shape(part, inner, where, error=error, at=name)


_ABSENT = object()


def _parts(value: Any, shape: Any, at: str) -> list[tuple[str, Any, Any]] | None:
    """What of a value is still to be looked at; None if it is already wrong."""
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return None
        if str in shape:
            return [(f"{at}[{name!r:.80}]", part, shape[str]) for name, part in value.items()]
        named = [(key.removesuffix("?"), inner, key.endswith("?")) for key, inner in shape.items()]
        dot = f"{at}." if at else ""
        return [(dot + n, value.get(n, _ABSENT), inner) for n, inner, maybe in named if not maybe or n in value]
    if isinstance(shape, (list, tuple)):
        if not isinstance(value, (list, tuple)) or (isinstance(shape, tuple) and len(value) != len(shape)):
            return None
        inner = shape if isinstance(shape, tuple) else tuple(shape) * len(value)
        return [(f"{at}[{n}]", part, of) for n, (part, of) in enumerate(zip(value, inner, strict=True))]
    return [] if _is(value, shape) else None


def _is(value: Any, shape: Any) -> bool:
    if get_origin(shape) in (Union, UnionType):
        return any(_is(value, part) for part in get_args(shape))
    tests = shape.__metadata__[1:] if get_origin(shape) is Annotated else ()
    plain = value.replace("\0", "") if isinstance(value, str) else value  # a NUL is text here
    return fits(plain, shape) and all(test(value) for test in tests)


def _words(shape: Any) -> str:
    if isinstance(shape, dict):
        return "an object"
    if isinstance(shape, (list, tuple)):
        return f"a list of {len(shape)}" if isinstance(shape, tuple) else "a list"
    return f"{told(shape)}{f', {shape.__metadata__[0]}' if get_origin(shape) is Annotated else ''}"


def _whole(digits: str, refuse: Callable[[str], NoReturn]) -> int:
    if len(digits) > 21 or not -(1 << 63) <= int(digits) < 1 << 64:
        refuse(f"it holds {digits[:24]}{'…' if digits[24:] else ''}, a whole number of more than 64 bits")
    return int(digits)


def _finite(digits: str, refuse: Callable[[str], NoReturn]) -> float:
    if not math.isfinite(value := float(digits)):
        refuse(f"it holds {digits[:24]}, which is beyond every number")
    return value


def _check_depth(value: Any, refuse: Callable[[str], NoReturn]) -> None:
    """Level by level, so that nothing here can be nested too deeply either."""
    level = [value]
    for _ in range(DEEPEST):
        inner: list[Any] = []
        for part in level:
            if isinstance(part, dict):
                inner += [*part, *part.values()]
            elif isinstance(part, list):
                inner += part
            elif isinstance(part, str) and not part.isascii() and any("\ud800" <= c <= "\udfff" for c in part):
                refuse(f"it holds {part[:80]!r}, in which a character is half of a surrogate pair")
        if not inner:
            return
        level = inner
    refuse(f"it is nested too deeply, beyond {DEEPEST} levels")
