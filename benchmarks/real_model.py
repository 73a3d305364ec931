"""A real language model: controllers replayed on the recording that ships, a search there, and its live runs told.

    python benchmarks/real_model.py [--minutes 10] [--live build/real_live [--live-alone]] [--out OUT.json]

Needs no model: `benchmarks/real_store.py` made the recording that ships. What `benchmarks/real_live.py` answered on
questions kept aside is told if its folder is there; else what the file holds of it stays. What the search found is kept
in build/real_model and not looked for again.
"""

from __future__ import annotations

import json
import platform
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from real_live import questions

from tts_generate import real
from tts_generate.evaluate import BETAS, Method, accuracy_interval, as_dict, baselines, methods, sweep
from tts_generate.publish.store_summary import summarise
from tts_generate.replay import Recording
from tts_generate.search import Search, Setup
from tts_generate.statistics import compare
from tts_generate.trajectories import TrajectoryStore

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "real_model"
SHUFFLES = 64
RESULT = ROOT / "benchmarks/results/real_model.json"
CONTROLLERS = (
    "self_consistency", "asc", "esc", "cmc", "thrift", "short_m_at_k", "answer_stability", "parallel_probe", "dynasor",
    "deepconf",
)  # fmt: skip


def replayed() -> dict[str, Any]:
    """Every controller over its budgets on the recording that ships, beside SC and ASC of all branches; frontiers."""
    store = TrajectoryStore.open(real.path())
    branches = store.manifest.branches
    against = baselines(branches)
    chosen = methods(CONTROLLERS, BETAS, max_branches=branches)
    few = Method("SC@8", "self_consistency", None, {"max_samples": 8})
    told = sweep([Recording.from_store(store)], [few, *chosen], SHUFFLES, against=against, progress=True)
    shown = {f"{row.controller}_{row.beta:g}".replace(".", "_"): row for row in told.average if row.beta is not None}
    shown |= {row.label.lower().replace("@", "_"): row for row in told.average if row.beta is None}
    return {
        "shuffles": SHUFFLES,
        "store": summarise(store.manifest, store.questions, store.trajectories()),
        "tasks": dict(Counter(question.question_id.split("-")[0] for question in store.questions)),
        "rows": [as_dict(row) for row in told.average],
        "at": {name: as_dict(row) for name, row in shown.items()},
        "frontiers": told.frontiers(against[0].label),
    }


def searched(minutes: float) -> dict[str, Any]:
    """What a search on that recording finds; its controller is in build/real_model/search/best."""
    folder = FOLDER / "search"
    if not (folder / "result.json").exists():
        setup = Setup((real.path(),), controller="worth", seed=1)
        Search(setup).run(folder, minutes=minutes, command=" ".join(["python", *sys.argv[:1]]))
    result = json.loads((folder / "result.json").read_text("utf-8"))
    return {name: result[name] for name in ("tried", "seconds", "candidate", "selected", "fresh")}


def answered(folder: Path) -> dict[str, Any]:
    """What was answered live in one call of all questions kept aside, each way told; and how it ran."""
    lines = [json.loads(line) for line in (folder / "live.jsonl").read_text("utf-8").splitlines()]
    gold = {question.question_id: question.gold_answer for question in questions("aside")}
    most = max(len(line["ids"]) for line in lines)
    whole = [line for line in lines if len(line["ids"]) == most and not line["static"]]
    return {
        "questions": most,
        "machine": json.loads((folder / "machine.json").read_text("utf-8")),
        **{line["way"]: told([line], [gold[each] for each in line["ids"]]) for line in whole},
    }


def told(lines: Sequence[dict[str, Any]], gold: Sequence[str | None]) -> dict[str, Any]:
    """One way: accuracy with its interval, and means a question."""
    right = np.array([a == g for a, g in zip((a for line in lines for a in line["answers"]), gold, strict=True)])
    low, high = accuracy_interval(right)
    means = {
        name: float(np.mean([each for line in lines for each in line[name]]))
        for name in ("tokens", "probe_tokens", "chain", "branches")
    }
    same = [each for line in lines for each in line.get("live_is_replay", [])]
    return {
        "controller": lines[0]["controller"],
        "right": right.tolist(),
        "accuracy": 100 * float(right.mean()),
        "accuracy_ci": [100 * low, 100 * high],
        **means,
        "seconds": sum(line["seconds"] for line in lines) / len(right),
        **({"live_is_replay": {"episodes": len(same), "equal": sum(same)}} if same else {}),
    }


def beside(rows: dict[str, Any]) -> dict[str, Any]:
    """Each way against self-consistency of all branches, question by question."""
    full = rows["self_consistency"]
    found = {}
    for name, row in rows.items():
        if isinstance(row, dict) and "right" in row and name != "self_consistency":
            points, interval = compare(np.array(row["right"]), np.array(full["right"]))
            found[name] = {
                "points": 100 * points,
                "points_ci": [100 * each for each in interval],
                **{kind: row[kind] / full[kind] for kind in ("tokens", "chain", "seconds")},
            }
    return found


def main(
    minutes: Annotated[float, typer.Option(help="Of the search; 0: what the file has of one stays.")] = 10.0,
    live: Annotated[Path, typer.Option(help="Folder that real_live.py wrote.")] = ROOT / "build" / "real_live",
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULT,
    live_alone: Annotated[
        bool, typer.Option("--live-alone", help="Leave replay and search as the file has them.")
    ] = False,
) -> None:
    """Replay, search, tell, write."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"format": "tts-real-model/1"}
    if not live_alone:
        result["replay"] = replayed()
        result["search"] = searched(minutes) if minutes else result["search"]
    if (live / "machine.json").exists():
        result["live"] = answered(live)
        result["live_against_sc"] = beside(result["live"])
    result["machine"] = {"python": platform.python_version()}
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
