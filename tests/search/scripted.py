"""A program for `--proposer command`: says what a script says, and writes down what it was told.

    python scripted.py SCRIPT LOG

SCRIPT is JSON: by round, by turn, the calls of tools as [name, input]; whatever is asked beyond it is answered by words.
"""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any


def program(folder: Path, *rounds: Any) -> str:
    """A command that says what it is given: by round, by turn, calls as [name, input]."""
    (folder / "script.json").write_text(json.dumps(rounds))
    return shlex.join([sys.executable, __file__, str(folder / "script.json"), str(folder / "told.jsonl")])


def told(folder: Path) -> list[Any]:
    """What the tools answered it, one after the other."""
    lines = map(json.loads, (folder / "told.jsonl").read_text("utf-8").splitlines())
    return [block for content in lines if isinstance(content, list) for block in content]


def main(script: Path, log: Path) -> None:
    rounds = json.loads(script.read_text("utf-8"))
    for line in sys.stdin:
        request = json.loads(line)
        assert request["format"] == "tts-proposer/1"
        with log.open("a", encoding="utf-8") as file:
            file.write(json.dumps(request["messages"][-1]["content"]) + "\n")
        if request["round"] > len(rounds):
            return
        turns = rounds[request["round"] - 1]
        calls = turns[request["call"] - 1] if request["call"] <= len(turns) else []
        content = [{"type": "tool_use", "name": name, "input": given} for name, given in calls]
        print(json.dumps({"content": content or [{"type": "text", "text": "I am done."}]}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
