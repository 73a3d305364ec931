"""What a search's gain is worth on questions that it has not seen: three searches, each without a third of AIME24.

    python benchmarks/search_folds.py [composed | worth] [ROUNDS]      # about 4 minutes on one core for 3 rounds

Each fold leaves ten of the thirty questions (in all four tables) out, searches on the others, and measures its choice
on those left out. `composed` is searched by the settings of `waves` with a price and votes by length; `worth` in all
its knobs, without the last of its starting points, which has seen all thirty questions. Needs the stores that
`search_aime24.py` imports.
"""

from __future__ import annotations

import json
import shutil
import sys

import numpy as np
from search_aime24 import KNOBS, ROOT, imported

from tts_generate.evaluate import BETAS
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.schedule import ranges_of
from tts_generate.search import Fidelity, best_of
from tts_generate.search.bench import Families
from tts_generate.search.choice import Contest, choose
from tts_generate.search.history import History
from tts_generate.search.knobs import starts
from tts_generate.search.loop import Judge, search
from tts_generate.search.parameters import ParametersProposer
from tts_generate.search.questions import Part, folds

FRESH = Fidelity(BETAS, 40, 700_000)
FINALISTS, ROUNDS = 10, 3


KEPT = {"composed": "search_folds.json", "worth": "search_folds_worth.json"}


def main(family: str, rounds: int) -> None:
    """Search on each fold's complement, measure on the fold, write."""
    whole = Part.of([Recording.from_store(store) for store in imported()])
    kind, reference = (type(load_controller(name)) for name in (family, "cmc"))
    ranges = dict(ranges_of(kind))
    if family == "composed":
        ranges = {name: ranges[name] for name in (*KNOBS.split(","), "price", "length_power")}
    contest = Contest(Families(kind), reference, threads=1)
    told = []
    for number, (rest, fold) in enumerate(folds(whole, 3, seed=0)):
        folder = ROOT / "build" / f"fold_{family}{number}"
        shutil.rmtree(folder, ignore_errors=True)
        history = History(folder, {"fold": number})
        first = starts(kind, ranges)
        proposer = ParametersProposer(ranges, first if family == "composed" else first[:2], number)
        search(Judge(rest, Families(kind), reference, threads=1), proposer, history, seconds=1e9, max_rounds=rounds)
        chosen = choose(best_of(history.evaluations, FINALISTS), rest, rest, contest, FRESH)[0].candidate
        history.close()
        seen, unseen = (contest.measure(part, chosen, FRESH).gain for part in (rest, fold))
        told.append({"candidate": chosen.to_dict(), "searched": seen.to_dict(), "left_out": unseen.to_dict()})
        print(f"fold {number}: {seen.mean:+.2f} on its questions, {unseen.mean:+.2f} left out", flush=True)
    result = {
        "format": "tts-search-folds/1",
        "controller": family,
        "rounds": rounds,
        "mean": float(np.mean([fold["left_out"]["mean"] for fold in told])),
        "searched": float(np.mean([fold["searched"]["mean"] for fold in told])),
        "folds": told,
    }
    out = ROOT / "benchmarks" / "results" / KEPT[family]
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "worth", int(sys.argv[2]) if len(sys.argv) > 2 else ROUNDS)
