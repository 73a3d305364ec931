"""`controller.json`, checked field by field, and the code it names, checked before it may run."""

from __future__ import annotations

import ast
import hashlib
import json
import re
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.version import Version

from tts_generate.errors import CandidateError, ControllerError, UnknownNameError
from tts_generate.import_rules import MAX_SOURCE, check_source, parse
from tts_generate.schedule import between, from_json, is_number
from tts_generate.strict_json import parse_json
from tts_generate.version import __version__

FORMAT = "tts-controller/1"
API = 1
"""The controller interface of this version."""
CARD = "controller.json"
MAX_CARD = 256 << 10
"""Bytes of a `controller.json`."""
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,99}")
ENTRY = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}\.py:[A-Za-z_][A-Za-z0-9_]{0,99}")
SHA256 = re.compile(r"[0-9a-f]{64}")

_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_MAX_TEXT = 4000
_MAX_KNOBS = 256

Card = Mapping[str, Any]


def parse_card(text: bytes, where: object) -> Card:
    """The card in `text`, every field of it what it must be.

    Raises:
        ControllerError: naming `where`, the field, what it holds and what it should.
        UnknownNameError: a field that this format does not have, or a knob in a form that is none.

    >>> parse_card(b'{"format": "tts-controller/7"}', "controller.json")
    Traceback (most recent call last):
    tts_generate.errors.ControllerError: controller.json: format is 'tts-controller/7'; this version of tts-generate \
(0.1.0.dev0) reads 'tts-controller/1'.
    """
    card = _json(text, where)
    found = card.get("format") if isinstance(card, dict) else type(card).__name__
    if not isinstance(card, dict) or found != FORMAT:
        _refuse(where, f"format is {found!r:.80}; this version of tts-generate ({__version__}) reads {FORMAT!r}")
    for field in sorted(set(card) - set(_FIELDS)):
        raise UnknownNameError.of(f"field of {where}", field[:80], _FIELDS)
    if "builtin" in card and "entry" in card:
        _refuse(where, "it has both entry and builtin; a controller brings code of its own or it does not")
    missing = {"builtin" if "builtin" in card else "entry", "beta", "sha256", "name"} - set(card)
    if missing:
        _refuse(where, f"it lacks {', '.join(sorted(missing))}")
    for field, value in card.items():
        wanted, holds = _FIELDS[field]
        if not holds(value):
            _refuse(where, f"{field} is {_shown(value)}; expected is {wanted}")
    knobs, short = (from_json(card.get(field, {}), where) for field in ("knobs", "short"))
    try:
        between(knobs, short, 0.5)
    except ControllerError as error:
        _refuse(where, str(error).rstrip("."))
    _check_requires(card.get("requires", {}), where)
    return card


def check_code(card: Card, code: bytes, where: object) -> None:
    """Refuse code that is not what its card says, or breaks the import rules; it is read and not run.

    Raises:
        ControllerError: naming `where` and the reason.
    """
    if code.startswith(_LFS_POINTER):
        _refuse(where, "it is the pointer of a file kept in Git LFS and not the file; controller code is plain text")
    found = hashlib.sha256(code).hexdigest()
    if found != card["sha256"]:
        _refuse(
            where,
            f"it does not match controller.json (sha256 {found}, expected {card['sha256']}): it was edited by hand or "
            "damaged. Restore it, or write the new hash if the change is yours",
        )
    try:
        check_source(code)
    except CandidateError as error:
        raise ControllerError(f"{where}: {error}") from None
    class_name = entry_of(card)[1]
    if not has_class(code, class_name):
        _refuse(where, f"it has no class {class_name!r}, which controller.json names")


def identity(card: Card) -> str:
    """A hash of what a controller does: its code and its knobs, at either end of latency, whatever it is called."""
    parts = {name: card.get(name) for name in ("sha256", "builtin", "entry", "knobs")}
    parts |= {"short": card["short"]} if card.get("short") else {}  # most cards have none, and had no place for it
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def entry_of(card: Card) -> tuple[str, str]:
    """The file and the class that a card names.

    >>> entry_of({"entry": "controller.py:CMC"})
    ('controller.py', 'CMC')
    """
    file, _, class_name = str(card["entry"]).partition(":")
    return file, class_name


def has_class(code: bytes, name: str) -> bool:
    r"""Whether a card can name this class of a file of code: it stands at its top, by a name that an entry may have.

    >>> has_class(b"class CMC: pass", "CMC"), has_class(b"if 1:\n  class CMC: pass", "CMC")
    (True, False)
    """
    if not ENTRY.fullmatch(f"controller.py:{name}"):
        return False
    return any(isinstance(node, ast.ClassDef) and node.name == name for node in parse(code).body)


def check_beta(card: Card, beta: float, where: object) -> None:
    """Refuse a budget outside the range that a card gives.

    Raises:
        ControllerError: naming both.
    """
    low, high = card["beta"].get("range", (0.0, 1.0))
    if not low <= beta <= high:
        _refuse(where, f"it is for beta from {low:g} to {high:g}, got {beta:g}")


def _json(text: bytes, where: object) -> Any:
    if text.startswith(_LFS_POINTER):
        _refuse(where, "it is the pointer of a file kept in Git LFS and not the file")
    return parse_json(text, where, largest=MAX_CARD, error=ControllerError)


def _is_text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= _MAX_TEXT


def _matches(pattern: re.Pattern[str]) -> Callable[[object], bool]:
    return lambda value: isinstance(value, str) and pattern.fullmatch(value) is not None


def _is_beta(value: object) -> bool:
    if not isinstance(value, dict) or not {"default"} <= set(value) <= {"default", "range"}:
        return False
    room = value.get("range", [0.0, 1.0])
    numbers = [*room, value["default"]] if isinstance(room, list) and len(room) == 2 else [None]
    return all(map(is_number, numbers)) and 0 <= room[0] <= value["default"] <= room[1] <= 1


def _are_knobs(value: object) -> bool:
    if not isinstance(value, dict) or len(value) > _MAX_KNOBS or not all(name.isidentifier() for name in value):
        return False
    plain = [knob for knob in value.values() if not isinstance(knob, dict)]  # `from_json` checks the others
    return all(isinstance(knob, bool) or is_number(knob) or (_is_text(knob) and len(knob) <= 100) for knob in plain)


_FIELDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "format": (f"{FORMAT!r}", _is_text),
    "api": (f"{API}, the controller interface of this version", lambda value: type(value) is int and value == API),
    "name": ("letters, digits, '_', '.' and '-', beginning with a letter, at most 100", _matches(NAME)),
    "description": (f"a text of at most {_MAX_TEXT} characters", _is_text),
    "entry": ("'<file>.py:<class>', a file of this folder", _matches(ENTRY)),
    "builtin": ("the name of a shipped controller", _matches(NAME)),
    "beta": ('{"default": number, "range": [low, high]} with 0 <= low <= default <= high <= 1', _is_beta),
    "knobs": (f"knobs by name, at most {_MAX_KNOBS}: a finite number, true, false, a name or an object", _are_knobs),
    "short": ("knobs by name as at latency 1, those of knobs that differ from latency 0", _are_knobs),
    "sha256": ("64 hexadecimal digits in lower case", _matches(SHA256)),
    "requires": (
        "versions by package, such as {'tts_generate': '>=0.1'}",
        lambda value: isinstance(value, dict) and len(value) <= 20 and all(map(_is_text, value.values())),
    ),
    "provenance": ("an object", lambda value: isinstance(value, dict)),
}


def _check_requires(requires: Mapping[str, str], where: object) -> None:
    for package, wanted in requires.items():
        try:
            specifier = SpecifierSet(wanted)
        except InvalidSpecifier:
            _refuse(where, f"requires {package[:80]!r} is {wanted[:80]!r}; expected is a version such as '>=0.1'")
        try:
            found = __version__ if package in ("tts_generate", "tts-generate") else version(package)
        except (PackageNotFoundError, ValueError):
            _refuse(where, f"it requires {package[:80]}{wanted[:80]}, and {package[:80]} is not installed")
        # A development version counts as the release that it leads to.
        if not specifier.contains(Version(found).base_version, prereleases=True):
            _refuse(where, f"it requires {package}{wanted}, and this is {found}; install another version")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _refuse(where: object, text: str) -> NoReturn:
    raise ControllerError(f"{where}: {text}.")


def check_size(size: int, where: object) -> None:
    """Refuse a code file that is larger than is ever read.

    Raises:
        ControllerError: naming both sizes.
    """
    if size > MAX_SOURCE:
        _refuse(where, f"it has {size:,} bytes; at most {MAX_SOURCE:,} of code are read")
