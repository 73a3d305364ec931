"""Searches, and conversations that are paid for, killed at any moment and gone on with: what was redone, what lost.

Run as a program it is a nursery of both (tests/trajectories/nursery.py). Its searches are interpreted: nothing has to
be compiled, and there are no threads when it forks.
"""

from __future__ import annotations

import random
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "trajectories"))
import anthropic
from messages_server import KEY, MessagesServer, Reply
from nursery import Nursery, serve
from search_stores import make_store, setup

from tts_generate.search import Fidelity, Search, read_history
from tts_generate.search.agent.ledger import JOURNAL, Ledger
from tts_generate.search.agent.prices import price_of
from tts_generate.search.bench import Families
from tts_generate.search.history import RESULT, SETTINGS, History, read_json
from tts_generate.trajectories.journal import read_journal

RUNGS = (Fidelity((0.5,), 1, 1_000), Fidelity((0.0, 1.0), 1, 2_000))
ENDS: dict[str, Any] = {"select": Fidelity((0.0, 1.0), 1, 5_000), "fresh": Fidelity((0.0, 1.0), 1, 0)}
MODEL = "claude-haiku-5-5"
TURNS = 4
GO_ON = [{"type": "text", "text": "Go on."}]
Key = tuple[str, int]


class Searched:
    """What a search kept and looked at, over its sittings."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.kept: set[Key] = set()

    def note(self, told: dict[str, Any], found: dict[str, int]) -> None:
        """Count what a sitting looked at though it was kept before, and what it kept that is not there."""
        looked = {(name, rung) for what, name, rung in told["told"] if what == "looked"}
        found["redone"] += len(looked & self.kept)
        kept = self.kept | {(name, rung) for what, name, rung in told["told"] if what == "kept"}
        there: set[Key] = set()
        if (self.path / SETTINGS).is_file():
            there = {(one.candidate.name, one.rung) for one in read_history(self.path)}
        found["lost"] += len(kept - there)
        self.kept = kept | there


def search_kills(folder: Path, points: int, count: int, seed: int) -> dict[str, int]:
    """Kill a search before its calls that change the disk, `points` of them at most, and `count` times at random.

    Returns:
        `kills`; `calls` that a search makes; `evaluations` kept by all searches; `redone`, those made once more;
        `lost`; `unlike_uninterrupted`, searches that ended otherwise than one that nobody killed.
    """
    rng, store = random.Random(seed), make_store(folder / "store", 3, 4)
    names = ("kills", "calls", "evaluations", "redone", "lost", "unlike_uninterrupted")
    found = dict.fromkeys(names, 0)
    with Nursery(__file__, NUMBA_DISABLE_JIT="1") as nursery:

        def sit(path: Path, **how: Any) -> dict[str, Any]:
            return nursery.work(path, kind="search", where=str(store), **how)

        found["calls"] = sit(folder / "whole")["calls"]
        points = min(points, found["calls"])
        whole = _ended(folder / "whole")
        steps: list[dict[str, Any]]
        steps = [{"at": 1 + found["calls"] * n // points} for n in range(points)]
        steps += [{"ready": True, "seconds": rng.uniform(0, 0.25)} for _ in range(count)]
        for number, how in enumerate(steps):
            searched = Searched(folder / f"search-{number}")
            told = sit(searched.path, **how)
            searched.note(told, found)
            found["kills"] += told["killed"]
            searched.note(sit(searched.path), found)
            found["evaluations"] += len(searched.kept)
            found["unlike_uninterrupted"] += _ended(searched.path) != whole
    return found


def _ended(path: Path) -> Any:
    """What a search came to, without its clock."""
    result = read_json(path / RESULT) or {}
    return [one.to_dict() for one in read_history(path)], result.get("candidate"), result.get("fresh")


def paid_kills(folder: Path, count: int, seed: int) -> dict[str, int]:
    """Kill a conversation before every call that changes the disk, and `count` times at random.

    Returns:
        `kills`; `replies` that the server gave; `redone`, requests for replies that were on the disk; `lost` replies;
        `used_early`, replies that were used before they were on the disk; `unaccounted`, requests that were answered
        and not written down before; `on_the_way`, replies that a kill kept from the disk: they are asked for again.
    """
    rng = random.Random(seed)
    names = ("kills", "replies", "redone", "lost", "used_early", "unaccounted", "on_the_way", "unlike_uninterrupted")
    found = dict.fromkeys(names, 0)
    with Nursery(__file__) as nursery:
        for at in range(1, 1000):
            if not _killed_talk(nursery, folder / f"talk-{at}", found, at=at):
                break  # it makes no more calls than that
        for number in range(count):
            _killed_talk(nursery, folder / f"random-{number}", found, ready=True, seconds=rng.uniform(0, 0.1))
    return found


def _killed_talk(nursery: Nursery, path: Path, found: dict[str, int], **how: Any) -> bool:
    """Kill a conversation and go on with it, and count; whether it was killed."""
    with MessagesServer(lambda body, replies: Reply(f"reply {replies}")) as server:
        told = nursery.work(path, kind="paid", where=server.url, **how)
        before, asked = _replies(path), len(server.requests)
        again = nursery.work(path, kind="paid", where=server.url)["told"]
        after = _replies(path)
    found["kills"] += told["killed"]
    found["replies"] += server.replies
    found["redone"] += sum(len(body["messages"]) // 2 < len(before) for body in server.requests[asked:])
    found["lost"] += sum(mine != theirs for mine, theirs in zip(before, after, strict=False))
    found["used_early"] += len({name for name in told["told"] if name} - set(before))
    found["unaccounted"] += max(0, server.replies - _rows(path, "asked"))
    found["on_the_way"] += server.replies - len(after)
    found["unlike_uninterrupted"] += [name for name in again if name] != after or len(after) != TURNS
    return bool(told["killed"])


def _rows(path: Path, kind: str) -> int:
    return sum(row["kind"] == kind for rows, _, _ in read_journal(path / JOURNAL) for row in rows)


def _replies(path: Path) -> list[str]:
    rows = [row for rows, _, _ in read_journal(path / JOURNAL) for row in rows]
    return [row["reply"]["id"] for row in rows if row["kind"] == "reply"]


def _search(tell: Callable[[Any], None], path: Path, store: Path) -> None:
    """Search, and say which candidate is looked at, and which look is kept."""
    look, add = Families.look, History.add

    def looked(self: Families, part: Any, candidate: Any, fidelity: Fidelity, **how: Any) -> Any:
        if fidelity in RUNGS:
            tell(["looked", candidate.name, RUNGS.index(fidelity)])
        return look(self, part, candidate, fidelity, **how)

    def added(self: History, new: Any) -> None:
        add(self, new)
        tell(["kept", new.candidate.name, new.rung])

    Families.look, History.add = looked, added  # type: ignore[method-assign, assignment]
    warnings.simplefilter("ignore")  # that it is not compiled
    chosen = setup(store, knobs=("n_init", "read_bar"), rungs=RUNGS, **ENDS)
    Search(chosen).run(path, minutes=1, max_rounds=1, threads=1)


def _talk(tell: Callable[[Any], None], path: Path, url: str) -> None:
    """Have a conversation, and use each reply: say its name."""
    path.mkdir(exist_ok=True)
    tell("")
    ledger = Ledger(path, price_of(MODEL), budget=100.0)
    ledger.client = anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)
    client = ledger.client.with_options(middleware=[ledger])
    ledger.begin(0)
    messages: list[Any] = [{"role": "user", "content": "This is round 1."}]
    for _ in range(TURNS):
        reply = client.beta.messages.create(
            model=MODEL, max_tokens=100, messages=messages, cache_control={"type": "ephemeral"}
        )
        tell(reply.id)
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": GO_ON}]
    ledger.close()


def _work(tell: Callable[[Any], None], enter: Callable[[str], None], path: Path, kind: str, where: str) -> None:
    {"search": lambda: _search(tell, path, Path(where)), "paid": lambda: _talk(tell, path, where)}[kind]()


if __name__ == "__main__":
    serve(_work)
