"""Arguments of public functions, checked against what their signatures say before anything else happens."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import sys
import types
from collections.abc import Callable, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, ParamSpec, TypeVar, Union, Unpack, get_args, get_origin, get_type_hints

from tts_generate.errors import InputError, UnknownNameError
from tts_generate.secret import SAID, Secret, keep_secret, names_secret

CallableABC: Any = Callable
P = ParamSpec("P")
R = TypeVar("R")


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Refuse an argument of another type than the signature names, by its name.

    It knows None, bool, int, float, str, Path, `Literal`, classes, and unions, sequences and mappings of them. What
    else a signature may say, and what a value must be beyond its type, is the function's own business. A float is
    never NaN, and a text never holds a NUL. Of options in a `TypedDict` (`**options: Unpack[...]`) it knows the names.

    >>> @checked
    ... def wait(seconds: float, why: str | None = None) -> float:
    ...     return seconds
    >>> wait("2")
    Traceback (most recent call last):
    tts_generate.errors.InputError: wait: seconds must be a number, got '2'.
    >>> wait(2, why="rain")
    2
    """
    signature = inspect.signature(function)
    where = function.__qualname__.removesuffix(".__init__")

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # to the error that Python has for it
        hints, options = hints_of(function), given.pop("options", {}) if _options(function) else {}
        for name in (name for name in options if name not in hints):
            raise UnknownNameError.of(f"keyword of {where.rpartition('.')[2]}", name, hints)
        for name, value in {**given, **options}.items():
            if name in hints and not fits(value, hints[name]):
                got = SAID if names_secret(name) else f"{value!r:.80}"
                raise InputError(f"{where}: {name} must be {told(hints[name])}, got {got}.")
        return function(*args, **kwargs)

    return run


def key(name: str, text: str) -> Secret:
    """A key or token as it can be sent, without the space around it; from here on it is said nowhere.

    Raises:
        InputError: it is none; the key is not in the message.

    >>> key("api_key", " key-of-mine ") == "key-of-mine"
    True
    >>> key("api_key", "Bearer key-of-mine")
    Traceback (most recent call last):
    tts_generate.errors.InputError: api_key must be printable ASCII without spaces inside; character 7 of 18 is not.
    """
    found = Secret(text.strip())
    keep_secret(found)
    wrong = next((n for n, sign in enumerate(found, 1) if not "!" <= sign <= "~"), None)
    if wrong is not None:
        raise InputError(
            f"{name} must be printable ASCII without spaces inside; character {wrong} of {len(found)} is not."
        )
    if not found:
        raise InputError(
            f"{name} is empty: is the variable that it comes from set? Leave {name} out where none is needed."
        )
    return found


def check_fields(record: Any) -> None:
    """Refuse a dataclass of which a field is not what it is declared to be; for `__post_init__`.

    Raises:
        InputError: naming the first.
    """
    kind: Any = type(record)
    for name, hint in _fields(kind).items():
        value = getattr(record, name)
        if not fits(value, hint):
            raise InputError(f"{type(record).__name__}: {name} must be {told(hint)}, got {value!r:.80}.")


def whole(name: str, value: object, least: int = 1) -> int:
    """A whole number, also one of numpy's, as an int.

    Raises:
        InputError: it is none, or less than `least`.

    >>> whole("branches", True)
    Traceback (most recent call last):
    tts_generate.errors.InputError: branches must be a whole number of at least 1, got True.
    """
    if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}.")
    return int(value)


def fits(value: object, hint: Any) -> bool:
    """Whether a value is what a hint says; yes, where the hint is one that this does not know.

    >>> fits(1, int | None), fits(True, int), fits("ab", Sequence[str]), fits(["a", 1], Sequence[str])
    (True, False, False, False)
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin in (Union, types.UnionType):
        return any(fits(value, part) for part in inner)
    if origin is Literal:
        return any(type(value) is type(part) and value == part for part in inner)
    if origin is None:
        return _is(value, hint)
    if not isinstance(origin, type):
        return True
    if issubclass(origin, Mapping):
        return isinstance(value, Mapping) and all(fits(key, inner[0]) for key in value)
    if issubclass(origin, Sequence):
        several = hasattr(value, "__len__") and hasattr(value, "__getitem__")
        if isinstance(value, (str, bytes, Mapping)) or not several:
            return False
        items: Iterable[Any] = value  # type: ignore[assignment]
        return (len(inner) > 1 and inner[1] is not ...) or all(fits(item, inner[0]) for item in items)
    if issubclass(origin, Iterable):
        return isinstance(value, Iterable) and not isinstance(value, (str, bytes))
    return callable(value) if origin is CallableABC else isinstance(value, origin)


def _is(value: object, hint: Any) -> bool:
    if hint is None or hint is type(None):
        return value is None
    if hint is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if hint is float:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if hint is Path:
        return isinstance(value, Path) and "\0" not in str(value)
    if hint is str:
        return isinstance(value, str) and "\0" not in value
    if hint is Any or not isinstance(hint, type) or getattr(hint, "_is_protocol", False):
        return True
    return isinstance(value, hint)


_WORDS = {int: "a whole number", float: "a number", bool: "True or False", str: "a text", Path: "a path", None: "None"}


def told(hint: Any) -> str:
    """A hint in words.

    >>> told(str | Path | None), told(Sequence[Sequence[float]]), told(Literal["equal", "math"])
    ('a text, a path or None', 'a sequence of sequences of numbers', "'equal' or 'math'")
    """
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _either([told(part) for part in inner])
    if origin is Literal:
        return _either([repr(part) for part in inner])
    if origin is Annotated:
        return told(inner[0])
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return "a mapping"
    if isinstance(origin, type) and issubclass(origin, Iterable):
        return f"a sequence of {_several(told(inner[0]))}"
    if hint is type(None):
        return "None"
    return _WORDS.get(hint) or f"of type {getattr(hint, '__name__', hint)}"


def _several(item: str) -> str:
    if item.startswith("a sequence of "):
        return "sequences" + item.removeprefix("a sequence")
    return f"{item.removeprefix('a ')}s" if item.startswith("a ") else item.removeprefix("of type ")


def _either(parts: Sequence[str]) -> str:
    return " or ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))


@functools.cache
def hints_of(function: Callable[..., Any]) -> Mapping[str, Any]:
    """The hints of a function's named parameters and `options`; names that only type checkers import fit everything."""
    found, names = {}, inspect.unwrap(function).__globals__
    for name, parameter in inspect.signature(function).parameters.items():
        named = parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if named and parameter.annotation is not parameter.empty:
            found[name] = _read(parameter.annotation, names)
    return found | _options(function)


@functools.cache
def _options(function: Callable[..., Any]) -> dict[str, Any]:
    """The hints of a function's `options`, if a `TypedDict` says what they may be."""
    rest = inspect.signature(function).parameters.get("options")
    hint = None if rest is None else _read(rest.annotation, inspect.unwrap(function).__globals__)
    return get_type_hints(get_args(hint)[0]) if get_origin(hint) is Unpack else {}


def part(options: Mapping[str, Any], kind: type) -> dict[str, Any]:
    """Those of the options that a `TypedDict` names."""
    return {name: value for name, value in options.items() if name in kind.__annotations__}


@functools.lru_cache(maxsize=256)
def _fields(kind: Any) -> Mapping[str, Any]:
    names = vars(sys.modules[kind.__module__])
    return {field.name: _read(field.type, names) for field in dataclasses.fields(kind) if field.init}


def _read(annotation: Any, names: dict[str, Any]) -> Any:
    if not isinstance(annotation, str):
        return annotation
    try:
        return eval(annotation, names)
    except (NameError, TypeError):
        return Any
