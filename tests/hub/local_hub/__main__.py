"""`python -m local_hub`: the Hub as a process, until its standard input ends.

It says where it is in one line of JSON, `{"url": ..., "token": ...}`. A line of JSON on its standard input asks it for
something, and is answered by one line:

{"create": {"repo_id": "user/model"}}           make a repository (type, private, gated): {"ok": true}
{"fault": {"path": "*/commit/*", "status": 503}} let something go wrong, see `Fault`: {"ok": true}
{"requests": "*/commit/*"}                       {"requests": [[method, path, status], ...]}
"""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any, TextIO

from local_hub.server import HubServer
from tts_generate.errors import InputError


def main(arguments: list[str] | None = None, asked: TextIO = sys.stdin, told: TextIO = sys.stdout) -> None:
    """Serve, and do what the lines of `asked` say."""
    parser = argparse.ArgumentParser(prog="python -m local_hub", description="A local Hub for tests.")
    parser.add_argument("--port", type=int, default=0, help="0: a free one")
    parser.add_argument("--user", default="user", help="who the token stands for")
    parser.add_argument("--token", default="hf_local")
    chosen = parser.parse_args(arguments)
    with HubServer(chosen.port, user=chosen.user, token=chosen.token) as hub:
        _say(told, {"url": hub.url, "token": hub.token})
        for line in asked:
            try:
                _say(told, _do(hub, json.loads(line)))
            except (InputError, TypeError, ValueError) as error:
                _say(told, {"error": str(error)})


def _do(hub: HubServer, asked: dict[str, Any]) -> dict[str, Any]:
    ((what, value),) = asked.items()
    if what == "create":
        hub.create(**value)
    elif what == "fault":
        hub.fault(**value)
    elif what == "requests":
        return {"requests": [[request.method, request.path, request.status] for request in hub.requests(value)]}
    else:
        raise InputError(f"unknown request {what!r}; known: create, fault, requests.")
    return {"ok": True}


def _say(told: TextIO, value: dict[str, Any]) -> None:
    told.write(json.dumps(value) + "\n")
    told.flush()


if __name__ == "__main__":
    main()
