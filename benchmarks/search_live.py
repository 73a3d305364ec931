"""Whether controllers beat CMC live, with probes counted: one found as the demo finds it, and a shipped one.

    python benchmarks/search_live.py [OUT.json]      # about 25 minutes on one core

The tiny model records the demo's questions, the demo's search runs on that recording alone (two minutes), and every
kept-aside question is answered live at four budgets. The gain is in points at CMC's costs, generated and probe tokens
together; its interval resamples questions. What was found and answered is kept in build/search_live, and not asked
again.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate import tiny
from tts_generate.controller import Controller
from tts_generate.demo.methods import find
from tts_generate.engine import enable, record
from tts_generate.loading import load_controller
from tts_generate.search.objective import Curve, gain_over
from tts_generate.trajectories import Question

ROOT = Path(__file__).resolve().parent.parent
BETAS = (0.0, 0.3, 0.6, 1.0)
RECORDED, BRANCHES, SEED, MINUTES = 32, 64, 1, 2.0


def main(out: Path) -> None:
    """Record, search, answer, write."""
    folder = ROOT / "build" / "search_live"
    model, tokenizer = tiny.load()
    enable(model, tokenizer=tokenizer)
    asked = tiny.questions("record")[:RECORDED]
    record(model, tokenizer, asked, folder / "store", branches=BRANCHES, seed=SEED)
    kept = folder / "search" / "result.json"
    found = json.loads(kept.read_text()) if kept.exists() else find(folder / "store", folder / "search", MINUTES)
    kept_aside = tiny.questions("test")
    controllers = {"cmc": "cmc", "found": folder / "search" / "best", "thrift": "thrift"}
    curves = {name: answered(model, tokenizer, kept_aside, which, folder) for name, which in controllers.items()}
    told: dict[str, Any] = {}
    for name, curve in curves.items():
        tokens, accuracy = curve.points(np.ones(1))
        told[name] = {"betas": BETAS, "tokens": tokens.tolist(), "accuracy": accuracy.tolist()}
        if name != "cmc":
            told[name]["gain"] = gain_over(curves["cmc"], curve, np.ones(1)).to_dict()
    search = {name: found[name] for name in ("tried", "seconds", "candidates_per_minute", "candidate")}
    result = {
        "format": "tts-search-live/1",
        "questions": {"recorded": RECORDED, "live": len(kept_aside), "branches": BRANCHES},
        "seed": SEED,
        "search": {**search, "gain": found["fresh"]["gain"]},
        "live": told,
    }
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


def answered(model: Any, tokenizer: Any, questions: list[Question], which: str | Path, folder: Path) -> Curve:
    """Accuracy and tokens of every question at every budget, live."""
    right, tokens = [], []
    for beta in BETAS:
        controller = load_controller(which, beta=beta)
        kept = folder / f"{hashlib.sha256(f'{controller} {SEED} {len(questions)}'.encode()).hexdigest()[:16]}.npy"
        if not kept.exists():
            np.save(kept, asked_live(model, tokenizer, questions, controller))
        row = np.load(kept)
        print(f"{controller}: {100 * row[0].mean():.2f} % {row[1].mean():.0f} tokens", flush=True)
        right.append(100.0 * row[0])
        tokens.append(row[1])
    return Curve(BETAS, (np.array(right),), (np.array(tokens),))


def asked_live(model: Any, tokenizer: Any, questions: list[Question], controller: Controller) -> NDArray[np.float64]:
    """(2, questions): whether each is answered right, and its generated and probe tokens."""
    inputs = tokenizer([q.question for q in questions], return_tensors="pt", padding=True)
    output = model.generate(
        input_ids=inputs["input_ids"],
        attention_mask=inputs["attention_mask"],
        strategy="autotts",
        controller=controller,
        seed=SEED,
        return_dict_in_generate=True,
    ).whole()
    right = [answer == question.gold_answer for answer, question in zip(output.answers, questions, strict=True)]
    return np.array([right, [cost.generated_tokens + cost.probe_tokens for cost in output.cost]], np.float64)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "benchmarks" / "results" / "search_live.json")
