"""Addresses of servers, and the key that goes to each: told apart at the door, so that an address can be shown."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from urllib.parse import unquote

import httpx2

from tts_generate.arguments import key
from tts_generate.errors import InputError
from tts_generate.secret import Secret, keep_secret


def addresses(given: Sequence[str], api_key: str | None) -> dict[str, Secret | None]:
    """Addresses as they are put before "/completions", each with its Authorization header.

    Raises:
        InputError: an address or a key that is none; neither's secrets are in the message.

    >>> addresses(["http://host:8000", "https://me:of-mine@other/v2/"], None)
    {'http://host:8000/v1': None, 'https://other/v2': '<secret>'}
    """
    bearer = None if api_key is None else Secret(f"Bearer {key('api_key', api_key)}")
    found: dict[str, Secret | None] = {}
    for text in given:
        url, own = taken_apart(text, "/v1")
        if own is not None and bearer is not None:
            raise InputError(f"{url} comes with a user and a password, and api_key is given: only one can be sent.")
        if found.setdefault(url, own or bearer) != (own or bearer):
            raise InputError(f"{url} is given twice, with different passwords.")
    if not found:
        raise InputError("ServerModel needs the address of at least one server.")
    return found


def taken_apart(text: object, path: str = "") -> tuple[str, Secret | None]:
    """An address without user and password, and these as a header; `path` is put behind one without.

    Raises:
        InputError: it is none, or has parameters.
    """
    shown = f"{re.split('[?#]', text.rpartition('@')[2])[0] if isinstance(text, str) else text!r:.80}"
    try:
        url = httpx2.URL(text if isinstance(text, str) else "")
    except httpx2.InvalidURL:
        url = httpx2.URL("")
    if url.scheme not in ("http", "https") or not url.host or not 0 < (url.port or 1) < 1 << 16:
        raise InputError(f"a server's address looks like http://host:8000/v1, got {shown}.")
    if url.query or url.fragment:
        raise InputError(f"a server's address has nothing behind its path, got {shown}…; give a key as api_key.")
    own = None
    if url.userinfo:
        keep_secret(unquote(url.password) or None, shortest=6)  # "pass" is a word of our messages
        keep_secret(unquote(url.username))  # a token may stand there
        pair = base64.b64encode(f"{url.username}:{url.password}".encode()).decode()
        keep_secret(pair)
        own = Secret(f"Basic {pair}")
    return str(url.copy_with(userinfo=b"", path=url.path.rstrip("/") or path)), own
