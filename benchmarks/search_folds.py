"""What a search's gain is worth on questions that it has not seen: three searches, each without a third of AIME24.

    python benchmarks/search_folds.py [worth | few | short] [ROUNDS]      # 0: measures again what was found

Each fold leaves ten of the thirty questions (in all four tables) out, searches on the others, and measures its choice
on those left out. `worth` is searched in all its knobs, without the last of its starting points, which has seen all
thirty questions. `few` and `short` are `worth` with its longest chain held to that of self-consistency of 64, or to
0.45 of it, beginning with round numbers; a last search on all thirty questions gives what ships (`short`: as `pace` at
latency 1). Needs the stores that `search_aime24.py` imports.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from search_aime24 import ROOT, imported

from tts_generate.controller import Controller
from tts_generate.evaluate import BETAS
from tts_generate.loading import load_controller
from tts_generate.replay import Recording, replay
from tts_generate.schedule import Ends, Schedule, ranges_of
from tts_generate.search import Fidelity, best_of
from tts_generate.search.bench import Families
from tts_generate.search.candidate import KnobCandidate
from tts_generate.search.choice import Contest, choose
from tts_generate.search.history import History
from tts_generate.search.knobs import starts
from tts_generate.search.loop import Judge, search
from tts_generate.search.objective import Objective, curve_of
from tts_generate.search.parameters import ParametersProposer
from tts_generate.search.questions import Part, folds

FRESH = Fidelity(BETAS, 40, 700_000)
FINALISTS, ROUNDS = 10, 10
WORTH = type(load_controller("worth"))
OBJECTIVES: dict[str, Objective] = {"few": "balanced", "short": "latency"}
_POWERS = {
    "read_bar": Ends(0.05, 0.02, "log"), "wave_bar": Ends(0.3, 0.1, "log"), "relative_power": 1.0, "open_power": 1.0,
    "share_power": 2.0, "wave_share_power": 1.0, "length_power": 0.5, "price": 0.0,
}  # fmt: skip
_WAVES = {
    "few": {"n_init": Ends(4, 8, "log"), "widen": Ends(6, 24, "log"), "max_branches": Ends(10, 64, "log")},
    "short": {"n_init": Ends(8, 48, "log"), "widen": Ends(6, 16, "log"), "max_branches": Ends(16, 64, "log")},
}
STARTS = {end: [{**waves, **_POWERS, "depth_power": power} for power in (2.0, 4.0)] for end, waves in _WAVES.items()}
"""Round numbers, few branches first or many; the powers are near those of `thrift`, which saw all thirty questions."""
UNUSED = {"few": ("price", "relative_power", "wave_share_power"), "short": ("price",)}
"""Parts that stay off: the fewer knobs, the less thirty questions can fit."""


def main(family: str, rounds: int) -> None:
    """Search on each fold's complement, measure on the fold, write."""
    out = ROOT / "benchmarks" / "results" / f"search_folds_{family}.json"
    before = json.loads(out.read_text("utf-8")) if rounds == 0 else {}
    kept = [*before.get("folds", ()), before.get("whole")]
    whole = Part.of([Recording.from_store(store) for store in imported()])
    objective = OBJECTIVES.get(family, "tokens")
    contest = Contest(Families(WORTH), type(load_controller("cmc")), objective, threads=1)
    parts = folds(whole, 3, seed=0) + [(whole, whole)] * (family in OBJECTIVES)
    told, unseen = [], []
    for number, (rest, fold) in enumerate(parts):
        found = kept[number] if before else searched(family, rest, number, rounds, contest)
        chosen = KnobCandidate.from_dict(found["candidate"])
        seen, left_out = (contest.measure(part, chosen, FRESH) for part in (rest, fold))
        unseen.append((fold, chosen.family(WORTH)))
        told.append({
            **{name: found[name] for name in ("candidate", "tried", "rounds") if name in found},
            "searched": seen.gain.to_dict(), "left_out": left_out.gain.to_dict(),
            "at_accuracy": at_accuracy(unseen[-1:]),
        })  # fmt: skip
        print(f"{family} {number}: {seen.gain.mean:+.2f}, {left_out.gain.mean:+.2f} left out", flush=True)
        print(found["candidate"], told[-1]["at_accuracy"], flush=True)
    result: dict[str, Any] = {
        "format": "tts-search-folds/1",
        "controller": family,
        "rounds": rounds or before["rounds"],
        "mean": float(np.mean([fold["left_out"]["mean"] for fold in told[:3]])),
        "searched": float(np.mean([fold["searched"]["mean"] for fold in told[:3]])),
        "folds": told[:3],
        "at_accuracy": at_accuracy(unseen[:3]),
        **({"whole": told[3]} if len(told) > 3 else {}),
    }
    print(result["at_accuracy"], flush=True)
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def searched(family: str, part: Part, number: int, rounds: int, contest: Contest) -> dict[str, Any]:
    """What a search on `part` chooses, and how many candidates it tried."""
    ranges = dict(ranges_of(WORTH))
    if family in OBJECTIVES:
        ranges = {name: room for name, room in ranges.items() if name not in UNUSED[family]}
    first: Sequence[Schedule] = STARTS.get(family) or starts(WORTH, ranges)[:2]
    first = [{name: start[name] for name in ranges} for start in first]
    folder = ROOT / "build" / f"fold_{family}{number}"
    shutil.rmtree(folder, ignore_errors=True)
    history = History(folder, {"fold": number})
    judge = Judge(part, contest)
    done = search(judge, ParametersProposer(ranges, first, number), history, seconds=1e9, max_rounds=rounds)
    chosen = choose(best_of(history.evaluations, FINALISTS), part, part, contest, FRESH)[0].candidate
    history.close()
    return {"candidate": chosen.to_dict(), "tried": done.tried, "rounds": done.round}


def at_accuracy(found: Sequence[tuple[Part, type[Controller]]], shuffles: int = 400) -> dict[str, Any]:
    """Tokens and chain where families have the accuracy of self-consistency of 64, and as shares of its; pooled.

    Between two budgets lies what a mixture of both does. Where the accuracy is never reached, the highest budget.
    """
    points, bar = np.zeros((3, len(BETAS))), np.zeros(3)
    look = Fidelity(BETAS, shuffles, 800_000)
    orders: dict[str, Any] = {"shuffles": shuffles, "first_shuffle": look.first_shuffle}
    for part, family in found:
        curve = curve_of(part, family, look)
        for values, row in zip((curve.accuracy, curve.cost, curve.chain), points, strict=True):
            row += part.weights @ np.stack([each.mean(axis=1) for each in values]) / len(found)
        every = [replay(each, "self_consistency", compiled=True, max_samples=64, **orders) for each in part.recordings]
        figures = [(100 * each.accuracy, each.tokens, each.sequential_tokens.mean()) for each in every]
        bar += part.weights @ np.array(figures) / len(found)
    accuracy = np.maximum.accumulate(points[0])
    tokens, chain = (float(np.interp(bar[0], accuracy, row)) for row in points[1:])
    return {
        "accuracy": float(bar[0]), "reached": bool(accuracy[-1] >= bar[0]), "tokens": tokens, "chain": chain,
        "share_of_tokens": float(tokens / bar[1]), "share_of_chain": float(chain / bar[2]),
        "curve": dict(zip(("accuracy", "tokens", "chain"), points.tolist(), strict=True)),
    }  # fmt: skip


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "worth", int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS)
