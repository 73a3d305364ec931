"""A program that answers in the place of the API: JSON lines on its standard input and output.

It is the user's own and runs as the user; what it writes goes the way of a model's replies.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import shlex
import subprocess
import time
from typing import Any, NoReturn

from tts_generate.errors import InputError, ServerError
from tts_generate.search.agent.ledger import Ended
from tts_generate.secret import without_secrets
from tts_generate.server.failures import shown

FORMAT = "tts-proposer/1"
_SECONDS = 1800.0
"""For one answer."""
_BYTES = 1 << 24
"""Of one answer."""


class Program:
    """`program(request)` is its answer to a request, as a message of the Messages API.

    Raises:
        InputError: it cannot be started.
    """

    def __init__(self, command: str) -> None:
        self._command = command
        try:
            self._process = subprocess.Popen(shlex.split(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        except (OSError, ValueError, IndexError) as error:
            raise InputError(f"--program {command!r} cannot be started: {error}.") from error

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        """Send a request in a line, and read the answer.

        Raises:
            Ended: it has ended, and all was well.
            ServerError: it failed, or answered something that is no message.
        """
        assert self._process.stdin is not None
        line = json.dumps({"format": FORMAT, **request}, ensure_ascii=False)
        with contextlib.suppress(BrokenPipeError):  # it may have answered before it ended
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        answer = self._line() or self._gone()
        try:
            content = json.loads(answer)["content"]
            blocks = [
                _block(block, f"call_{request['round']}_{request['call']}_{k}") for k, block in enumerate(content)
            ]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ServerError(
                f"the program answered something that is no message ({type(error).__name__}: {error}): "
                f'{shown(str(answer), 200)!r}; {{"content": [blocks]}} is expected in a line.'
            ) from error
        calls = any(block["type"] == "tool_use" for block in blocks)
        return {
            "id": f"msg_{request['round']}_{request['call']}", "type": "message", "role": "assistant",
            "model": without_secrets(self._command), "content": blocks,
            "stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None,
            "usage": {"input_tokens": 0, "output_tokens": 0},
        }  # fmt: skip

    def close(self) -> None:
        """End it."""
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _line(self) -> str:
        """Its next line; "" if it has ended."""
        assert self._process.stdout is not None
        found, end = bytearray(), time.monotonic() + _SECONDS
        while not found.endswith(b"\n"):
            if not select.select([self._process.stdout], [], [], max(0.0, end - time.monotonic()))[0]:
                raise ServerError(f"the program has not answered in {_SECONDS:g} s.")
            part = os.read(self._process.stdout.fileno(), 1 << 16)
            found += part
            if not part or len(found) > _BYTES:
                break
        return found.decode("utf-8", "replace").strip()

    def _gone(self) -> NoReturn:
        code = self._process.wait()
        if code:
            raise ServerError(f"the program ended with exit code {code}. Run the same command again to go on.")
        raise Ended("the program has ended, which ends the search.")


def _block(block: dict[str, Any], name: str) -> dict[str, Any]:
    """A block of an answer: a text, or a call of a tool, which is given an id if it has none."""
    if block["type"] == "text":
        return {"type": "text", "text": str(block["text"])}
    if block["type"] != "tool_use" or not isinstance(block["input"], dict):
        raise TypeError("a block is a text or a tool_use")
    return {"type": "tool_use", "id": str(block.get("id", name)), "name": str(block["name"]), "input": block["input"]}
