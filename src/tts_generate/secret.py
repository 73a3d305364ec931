"""The one redactor: keys and tokens are in nothing that is printed, logged or stored.

Known ones are taken out wherever they stand, as they are or as an address, JSON or Python writes them; and so is what
looks like one: the user and password of an address, a key among its parameters, the makes of `SHAPES`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

SHAPES = {
    "a Hugging Face token": re.compile(r"\bhf_[A-Za-z0-9]{20,}"),
    "an API key": re.compile(r"\bsk-[A-Za-z0-9_-]{20,}"),
    "an AWS key": re.compile(r"\bAKIA[0-9A-Z]{16}\b"),
}
"""What keys of well-known makers look like."""
SAID = "<secret>"
_SHORTEST = 8
_WORDS = {
    "apikey", "auth", "authorization", "bearer", "cookie", "credential", "credentials", "key", "passwd", "password",
    "salt", "secret", "sig", "signature", "token",
}  # fmt: skip
_USER = re.compile(r"(?<=://)[^\s/?#'\"<>]+@")
_PARAMETER = re.compile(rf"([?&;][\w.-]*(?:{'|'.join(sorted(_WORDS))})=)[^&;\s'\"#<>]+", re.IGNORECASE)
_known: set[str] = set()


class Secret(str):
    """A text that does not show itself among the variables of a traceback.

    >>> Secret("key-of-mine"), len(Secret("key-of-mine"))
    ('<secret>', 11)
    """

    __slots__ = ()

    def __repr__(self) -> str:
        return repr(SAID)


def keep_secret(text: str | None, shortest: int = _SHORTEST) -> None:
    """Never say a token or key, nor a part of it between spaces; one of fewer than `shortest` characters is a word."""
    for part in {str(text or ""), *(text or "").split()}:
        if len(part) >= shortest:
            _known.update((part, quote(part), quote(part, safe=""), ascii(part)[1:-1], json.dumps(part)[1:-1]))


def without_known(text: str) -> str:
    """A text without the tokens and keys that are known here; else as it is."""
    for known in sorted(_known, key=len, reverse=True):
        text = text.replace(known, SAID)
    return text


def without_secrets(text: str) -> str:
    """A text with every token and key taken out that is known here or looks like one.

    >>> keep_secret("key-of-mine")
    >>> without_secrets("401: 'key-of-mine' is no key")
    "401: '<secret>' is no key"
    >>> without_secrets("http://me:pass@host/v1?api_key=abc&page=2")
    'http://<secret>@host/v1?api_key=<secret>&page=2'
    """
    text = without_known(text)
    for shape in SHAPES.values():
        text = shape.sub(SAID, text)
    return _PARAMETER.sub(rf"\g<1>{SAID}", _USER.sub(f"{SAID}@", text))


def clean_errors(error: BaseException | None) -> None:
    """Take secrets out of what an error says, and those that it comes from: a server may have repeated them."""
    seen: set[int] = set()
    errors = [error]
    while errors:
        one = errors.pop()
        if one is not None and id(one) not in seen:
            seen.add(id(one))
            said = tuple(without_secrets(told) if isinstance(told, str) else told for told in one.args)
            if said != one.args:
                one.args = said
            errors += [one.__cause__, one.__context__]


def names_secret(name: str) -> bool:
    """Whether a field's name says that it holds a key.

    >>> [names_secret(name) for name in ("api_key", "X-Api-Key", "hfToken", "max_tokens", "tokenizer", "keyword")]
    [True, True, True, False, False, False]
    """
    return not _WORDS.isdisjoint(word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name))


def held(value: Any, secret: bool = False) -> Any:
    """JSON values with the texts in fields whose names say so kept secret, and those in which a known key stands.

    >>> held({"headers": {"Authorization": ["Bearer of-mine"]}, "stop_token": 3, "seed": "x"})
    {'headers': {'Authorization': ['<secret>']}, 'stop_token': 3, 'seed': 'x'}
    """
    if isinstance(value, Mapping):
        return {name: held(inner, secret or names_secret(str(name))) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [held(inner, secret) for inner in value]
    if secret and isinstance(value, str):
        keep_secret(value)
        return Secret(value)
    return Secret(value) if isinstance(value, str) and without_known(value) != value else value


def stored(value: Any) -> Any:
    """What `held` returned as it may be stored.

    >>> stored(held({"api_key": "key-of-mine", "user": "me, key-of-mine", "top_a": 0.1}))
    {'api_key': '<secret>', 'user': '<secret>', 'top_a': 0.1}
    """
    if isinstance(value, dict):
        return {name: stored(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [stored(inner) for inner in value]
    if isinstance(value, str):
        return SAID if isinstance(value, Secret) else without_secrets(value)
    return value
