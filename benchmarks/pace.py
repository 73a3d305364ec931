"""Accuracy, tokens and the longest chain of controllers on tables that no search has seen: AIME25 and HMMT25.

    AUTOTTS_DATA=FOLDER python benchmarks/pace.py      # FOLDER/replay/MODEL/aime25.json and hmmt25.json

The published tables of four Qwen3 models, the mean of the eight; the schedules of `pace` were final before they were
looked at. The result goes to benchmarks/results/pace.json.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from search_aime24 import DATA, MODELS, ROOT
from search_folds import at_accuracy

from tts_generate.evaluate import BETAS, Method, baselines, sweep
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.search.candidate import KnobCandidate
from tts_generate.search.questions import Part
from tts_generate.trajectories import import_autotts

SETS = ("aime25", "hmmt25")
ENDS = (0.0, 0.5, 1.0)
SHUFFLES = 60


def main() -> None:
    """Import, replay, write."""
    recordings = []
    for name in SETS:
        for model in MODELS:
            store = ROOT / "build" / name / model
            if not store.exists():
                import_autotts(DATA / "replay" / model / f"{name}.json", store)
            recordings.append(Recording.from_store(store))
    others = [Method(f"{name} β={beta:g}", name, beta) for name in ("thrift", "cmc", "short_m_at_k") for beta in BETAS]
    ours = [Method(f"pace {end:g} β={beta:g}", "pace", beta, {"latency": end}) for end in ENDS for beta in BETAS]
    found = sweep(recordings, [*others, *ours], SHUFFLES, against=baselines(64), compiled=True, threads=1)
    numbers = ("accuracy", "tokens", "sequential_tokens", "branches")
    rows = {row.label: {name: round(getattr(row, name), 2) for name in numbers} for row in found.average}
    part = Part.of(recordings)
    families: dict[str, Any] = {f"pace_{end:g}".replace(".", "_"): load_controller("pace", latency=end) for end in ENDS}
    families |= {name: load_controller(name) for name in ("thrift", "cmc", "short_m_at_k")}
    few = json.loads((ROOT / "benchmarks" / "results" / "search_folds_few.json").read_text("utf-8"))["whole"]
    families["few"] = KnobCandidate.from_dict(few["candidate"]).family(type(load_controller("worth"))).from_beta()
    told = {name: at_accuracy([(part, type(family))], SHUFFLES) for name, family in families.items()}
    result = {
        "format": "tts-pace/1",
        "questions": int(np.sum([len(recording.questions) for recording in recordings])),
        "shuffles": SHUFFLES,
        "rows": rows,
        "at_accuracy": told,
    }
    (ROOT / "benchmarks" / "results" / "pace.json").write_text(json.dumps(result, indent=2) + "\n", "utf-8")
    for name, row in rows.items():
        print(name, row)
    for name, each in told.items():
        print(name, {key: value for key, value in each.items() if key != "curve"})


if __name__ == "__main__":
    main()
