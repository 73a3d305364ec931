"""Messages between the host and a candidate: a length, JSON, and raw bytes where the JSON announces some.

Runs in the child too: standard library only. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping
from typing import Any, NoReturn

MAX_REQUEST = 64 << 20
"""Bytes of JSON that a child takes."""
LENGTH = struct.Struct("<I")


def pack(message: Mapping[str, Any], raw: bytes = b"") -> bytes:
    """The bytes of a message; `raw` follows its JSON, which says how long it is.

    Raises:
        ValueError: NaN, or infinity, which JSON does not have.
    """
    told = {**message, "raw": len(raw)} if raw else message
    text = json.dumps(told, allow_nan=False, separators=(",", ":")).encode()
    return LENGTH.pack(len(text)) + text + raw


def unpack(text: bytes) -> dict[str, Any]:
    """The object that JSON text stands for.

    Raises:
        ValueError: anything but a JSON object; NaN and infinity are not JSON.
        RecursionError: it is nested too deep.
    """
    message = json.loads(text.decode("utf-8"), parse_constant=_refuse)
    if type(message) is not dict:
        raise ValueError(f"a {type(message).__name__} where a JSON object is expected")
    return message


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


def read(descriptor: int) -> tuple[dict[str, Any], bytes] | None:
    """The next message of a trusted sender; None when it has gone.

    Raises:
        ValueError: the sender is not one of ours.
    """
    head = _read(descriptor, LENGTH.size)
    if head is None:
        return None
    (length,) = LENGTH.unpack(head)
    if length > MAX_REQUEST:
        raise ValueError(f"a message of {length} bytes, at most {MAX_REQUEST} are taken")
    text = _read(descriptor, length)
    if text is None:
        return None
    message = unpack(text)
    raw = _read(descriptor, int(message.pop("raw", 0)))
    return None if raw is None else (message, raw)


def _read(descriptor: int, count: int) -> bytes | None:
    parts = bytearray()
    while len(parts) < count:
        part = os.read(descriptor, min(1 << 20, count - len(parts)))
        if not part:
            return None
        parts += part
    return bytes(parts)


def write(descriptor: int, message: bytes) -> None:
    """Write the whole of a packed message."""
    rest = memoryview(message)
    while rest:
        rest = rest[os.write(descriptor, rest) :]
