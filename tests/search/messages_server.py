"""A server on this machine that speaks the Messages API, as strictly as the real one, and says what a script says."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

KEY = "sk-test"
GEO = "inference_geo"
MODELS = ("claude-sonnet-5-5", "claude-haiku-5-5")
SAMPLING = {"temperature", "top_p", "top_k", "thread", "stream"}


@dataclass(frozen=True)
class Reply:
    """What the model says: text, or calls of tools as (name, arguments)."""

    text: str = ""
    calls: Sequence[tuple[str, dict[str, Any]]] = ()
    stop: str = ""
    output_tokens: int = 200
    cached: int = 0
    """Of the prompt's tokens, those read from the cache."""
    changed: dict[str, Any] = field(default_factory=dict)
    """Fields of the message as they are said instead; of its usage, where they are such."""


@dataclass(frozen=True)
class Fault:
    """An answer that is none: a status, or a connection that is closed in the middle ("cut") or a body as it stands."""

    status: int = 500
    body: str = ""
    headers: dict[str, str] = field(default_factory=lambda: {"retry-after-ms": "1"})
    cut: bool = False


Turn = Reply | Fault
Script = Callable[[dict[str, Any], int], Turn]
"""What is answered to a request, and how many replies there were before."""


def script(*turns: Turn) -> Script:
    """One after the other, faults too; then the model has nothing more to say."""
    rest = list(turns)
    return lambda body, number: rest.pop(0) if rest else Reply("I am done.")


def by_place(*rounds: Sequence[Turn], end: Turn | None = None) -> Script:
    """What is said depends on the round and on how far its conversation is, so that it can be gone on with anywhere."""

    def turn(body: dict[str, Any], number: int) -> Turn:
        opened = body["messages"][0]["content"]
        place = int(opened.partition("round ")[2].partition(".")[0]) - 1
        call = len(body["messages"]) // 2
        turns = rounds[place] if place < len(rounds) else ()
        return turns[call] if call < len(turns) else end or Reply("I am done.")

    return turn


class MessagesServer:
    """`with MessagesServer(script) as server:`; its address is `server.url`."""

    def __init__(self, turns: Script) -> None:
        self.turns = turns
        self.requests: list[dict[str, Any]] = []
        self.replies = 0
        """Requests that were answered, and would have been charged."""
        self.problems: list[str] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *arguments: object) -> None:
                """Quiet."""

            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                key = self.headers.get("x-api-key") or self.headers.get("authorization", "").removeprefix("Bearer ")
                status, text, headers = server.answer(self.path, key, body)
                if status == 0:
                    self.connection.shutdown(2)
                    return
                self.send_response(status)
                for name, value in {"content-type": "application/json", **headers}.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, key: str, body: dict[str, Any]) -> tuple[int, str, dict[str, str]]:
        """Status, body and headers."""
        if key != KEY:
            return 401, _error("authentication_error", "invalid x-api-key"), {}
        if body["model"] not in MODELS:
            return 404, _error("not_found_error", f"model: {body['model']}"), {}
        problem = _problem(path, body)
        if problem:
            self.problems.append(problem)
            return 400, _error("invalid_request_error", problem), {}
        self.requests.append(body)
        turn = self.turns(body, self.replies)
        if isinstance(turn, Fault):
            return (0 if turn.cut else turn.status), turn.body or _error("api_error", "a fault"), turn.headers
        self.replies += 1
        return 200, json.dumps(_message(turn, body, self.replies)), {}


def results(body: dict[str, Any]) -> list[dict[str, Any]]:
    """What the tools answered in the last message of a request."""
    content = body["messages"][-1]["content"]
    return [block for block in content if block["type"] == "tool_result"] if isinstance(content, list) else []


def said(body: dict[str, Any]) -> str:
    """The same as one text."""
    return "\n".join(str(block["content"]) for block in results(body))


def _message(turn: Reply, body: dict[str, Any], number: int) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "text", "text": turn.text}] if turn.text else []
    content += [
        {"type": "tool_use", "id": f"toolu_{number}_{k}", "name": name, "input": arguments}
        for k, (name, arguments) in enumerate(turn.calls)
    ]
    usage = {"input_tokens": len(json.dumps(body)) // 4 - turn.cached, "output_tokens": turn.output_tokens}
    usage |= {"cache_read_input_tokens": turn.cached, "cache_creation_input_tokens": 0}
    usage |= {name: value for name, value in turn.changed.items() if name.endswith("_tokens") or name == GEO}
    message = {
        "id": f"msg_{number}", "type": "message", "role": "assistant", "model": body["model"], "content": content,
        "stop_reason": turn.stop or ("tool_use" if turn.calls else "end_turn"), "stop_sequence": None, "usage": usage,
    }  # fmt: skip
    return message | {name: value for name, value in turn.changed.items() if name in message}


def _error(kind: str, text: str) -> str:
    return json.dumps({"type": "error", "error": {"type": kind, "message": text}})


def _problem(path: str, body: dict[str, Any]) -> str:
    """What the API would refuse."""
    if path.partition("?")[0] != "/v1/messages":
        return f"no such path: {path}"
    if SAMPLING & set(body):
        return f"not accepted: {sorted(SAMPLING & set(body))}"
    if body.get("cache_control") != {"type": "ephemeral"}:
        return "nothing would be cached"
    messages = body["messages"]
    if [message["role"] for message in messages] != ["user", "assistant"] * (len(messages) // 2) + ["user"]:
        return "roles must alternate"
    for before, after in zip(messages[1::2], messages[2::2], strict=True):
        if not before["content"]:
            return "an assistant message must not be empty"
        asked = [block["id"] for block in before["content"] if block["type"] == "tool_use"]
        given = [block["tool_use_id"] for block in after["content"] if block["type"] == "tool_result"]
        if asked != given:
            return f"tool_use {asked} without their results, {given}"
    return ""
