"""Random replies to the host, and what the host sends: figures for benchmarks/reliability.py, and tests."""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
import threading
from collections.abc import Callable, Iterable
from typing import Any
from unittest.mock import patch

from hostile_runner import GOLD, recording

from tts_generate.errors import CandidateError
from tts_generate.sandbox import Limits, Sandbox
from tts_generate.sandbox.channel import Channel

EXPECTED = 16
"""Raw bytes that every request of the fuzzing expects."""
VALUES: tuple[Any, ...] = (None, True, 0, 1, 2, -1, 10**40, 1.5, "", "x", "1", [], [[[]]], {}, "\x00", "\U0001d7d9")


def fuzz(count: int, seed: int) -> dict[str, int]:
    """Answer `count` requests at random: with noise, or with a good reply in which something is changed.

    Returns:
        `replies`; `refused`, by one clear error of the candidate; `taken`, as valid; `taken_wrongly`, of these those
        that are no reply to what was asked; `not_ours`, other exceptions; `left`, descriptors.
    """
    rng = random.Random(seed)
    found = dict.fromkeys(("replies", "refused", "taken", "taken_wrongly", "not_ours", "left"), 0)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(count):
        sent = _reply(rng)
        found["replies"] += 1
        try:
            message, raw = _ask(sent, early=rng.random() < 0.05)
        except CandidateError as error:
            clear = (
                str(error)
                and "\n" not in str(error)
                and error.reason in ("protocol", "ended", "raised", "memory", "decision")
            )
            found["refused" if clear else "not_ours"] += 1
        except Exception as error:
            print(f"not ours: {type(error).__name__}: {error} of {sent!r}")
            found["not_ours"] += 1
        else:
            found["taken"] += 1
            found["taken_wrongly"] += type(message) is not dict or message.get("t") != 1 or len(raw) != EXPECTED
    found["left"] = len(os.listdir("/proc/self/fd")) - before
    return found


def _ask(sent: bytes, early: bool) -> tuple[dict[str, Any], bytes]:
    """One request to a candidate that sends this, and closes; `early`: before it was asked."""
    ours, theirs = socket.socketpair()
    errors, write = os.pipe()
    os.close(write)
    channel = Channel(ours, errors, Limits(seconds=5, reply_bytes=4096), lambda patience: 0)

    def answer() -> None:
        with theirs, contextlib.suppress(OSError):  # it was ended already
            theirs.recv(1000)
            theirs.sendall(sent)

    if early:
        theirs.sendall(sent or b"\x00")
    thread = threading.Thread(target=answer)
    thread.start()
    try:
        return channel.ask("replay", {}, expects=EXPECTED)
    finally:
        channel.close()
        thread.join()


def _framed(text: bytes) -> bytes:
    return len(text).to_bytes(4, "little") + text


def _good(rng: random.Random, raw: int = EXPECTED) -> bytes:
    return _framed(json.dumps({"t": 1, "raw": raw, "done": rng.random()}).encode()) + rng.randbytes(raw)


def _fields(rng: random.Random) -> bytes:
    """A reply whose fields are anything."""
    names = ("t", "raw", "error", "type", "text", "line", "a")
    reply: dict[str, Any] = {"t": 1, "raw": EXPECTED}
    for name in rng.sample(names, rng.randrange(len(names))):
        reply[name] = rng.choice(VALUES)
    if rng.random() < 0.3:
        reply["error"] = {name: rng.choice(VALUES) for name in rng.sample(("type", "text", "line", "more"), 3)}
    return _framed(json.dumps(reply).encode()) + rng.randbytes(EXPECTED)


def _noise_as_json(rng: random.Random) -> bytes:
    texts = (
        b"[" * 2000,
        b"NaN",
        b'{"t": NaN}',
        b"1" * 4000,
        b'{"t": 1',
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"t": 1, "t": 2}',
    )
    return _framed(rng.choice(texts)) + rng.randbytes(rng.randrange(EXPECTED))


def _changed(rng: random.Random) -> bytes:
    data = bytearray(_good(rng))
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def _cut(rng: random.Random) -> bytes:
    data = _good(rng)
    return data[: rng.randrange(len(data))]


def _long(rng: random.Random) -> bytes:
    return rng.choice((0, 4097, 1 << 20, 1 << 31, (1 << 32) - 1)).to_bytes(4, "little") + rng.randbytes(8)


KINDS: tuple[Callable[[random.Random], bytes], ...] = (
    lambda rng: rng.randbytes(rng.randrange(64)), _fields, _noise_as_json, _changed, _cut, _long,
    lambda rng: _good(rng, rng.randrange(64)), _good,
)  # fmt: skip


def _reply(rng: random.Random) -> bytes:
    return rng.choice(KINDS)(rng)


def gold_in_what_is_sent(sources: Iterable[str], mode: Any = "strict") -> dict[str, int]:
    """Replay controllers in the sandbox and look through every byte that their processes get.

    Returns:
        `controllers`; `bytes` sent; `texts` looked for: gold answers, questions and their names; `found` of them.
    """
    sent: list[bytes] = []
    real = Channel._send

    def listened(self: Channel, message: bytes) -> None:
        sent.append(bytes(message))
        real(self, message)

    branches, count = recording(64), 0
    secrets = {
        GOLD,
        *(q.question.question for q in branches.questions),
        *(q.question.question_id for q in branches.questions),
    }
    with Sandbox(Limits(seconds=60)) as box, patch.object(Channel, "_send", listened):
        for code in sources:
            count += 1
            box.evaluate(code, branches, mode=mode, shuffles=2)
    everything = b"".join(sent)
    quoted = {json.dumps(text).encode() for text in secrets} | {GOLD.encode()}
    return {
        "controllers": count,
        "bytes": len(everything),
        "texts": len(secrets),
        "found": sum(text in everything for text in quoted),
    }
