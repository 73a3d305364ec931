"""A real language model: controllers replayed on its recording, a search there, live runs on questions kept aside.

    python benchmarks/real_model.py [MODEL] [--task gsm_symbolic] [--minutes 10] [--live 8] [--out OUT.json]

Without MODEL, the recording that ships (`benchmarks/real_store.py` makes it) is replayed and searched, and what was
answered live stays as it was. MODEL is a folder of Qwen2.5-Coder-0.5B-Instruct in float32; the questions come from
`reasoning-gym`, which is not among our requirements. What is recorded, found and answered is kept in build/real_model
and not done again, so that a run that is stopped, or asked for more questions, goes on: recording takes hours. Live
runs answer groups of eight questions, with the same seed for every method.
"""

from __future__ import annotations

import json
import platform
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import transformers
import typer
from transformers import AutoModelForCausalLM, AutoTokenizer

from tts_generate import real
from tts_generate.answers import AnswerFormat
from tts_generate.controller import held_to
from tts_generate.engine import enable, record
from tts_generate.evaluate import BETAS, Method, accuracy_interval, as_dict, baselines, methods, sweep
from tts_generate.loading import load_controller
from tts_generate.publish.live import prompts
from tts_generate.publish.store_summary import summarise
from tts_generate.replay import Recording, replay
from tts_generate.search import Search, Setup
from tts_generate.statistics import compare
from tts_generate.trajectories import Question, TrajectoryStore

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "build" / "real_model"
BRANCHES, STEP, MOST, SEED, GROUP, SHUFFLES = 32, 32, 256, 0, 8, 64
RESULT = ROOT / "benchmarks/results/real_model.json"
SAMPLING = {"max_new_tokens": MOST, "temperature": 0.7, "top_p": 0.95}
TASKS: dict[str, dict[str, Any]] = {
    "basic_arithmetic": {"count": 64, "min_terms": 3, "max_terms": 5, "min_digits": 1, "max_digits": 2},
    "simple_equations": {"count": 75},
    "gsm_symbolic": {"count": 35},
}
"""Families of reasoning-gym: how many questions of each are recorded, and how they are made."""
KEPT_ASIDE_FROM = 1_000_000
"""reasoning-gym makes question i from seed + i, so that seeds must lie further apart than questions."""
CONTROLLERS = (
    "self_consistency", "asc", "esc", "cmc", "thrift", "short_m_at_k", "answer_stability", "parallel_probe", "dynasor",
    "deepconf",
)  # fmt: skip
LIVE_BETA = 0.5
_TURN = "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n"
_EXAMPLES = (
    (
        "A baker fills 7 boxes with 6 rolls each and eats 5 rolls. How many rolls are left?",
        "First, how many rolls the boxes hold: there are 7 boxes with 6 rolls each, so 7 * 6 = 42 rolls.\n"
        "Then the baker eats 5 of them, so 42 - 5 = 37 rolls are left.\nThe answer is \\boxed{37}.",
    ),
    (
        "Ann has 48 marbles. She gives 25% of them to Ben and then buys 3 bags of 15 marbles. "
        "How many does she have now?",
        "First, what she gives away: 25% of 48 is 48 * 0.25 = 12 marbles, so she keeps 48 - 12 = 36.\n"
        "Next, what she buys: 3 bags of 15 marbles are 3 * 15 = 45 marbles.\nTogether she has 36 + 45 = 81 marbles.\n"
        "The answer is \\boxed{81}.",
    ),
    (
        "Solve for x: 12*x + 30 = 282",
        "First, take 30 from both sides: 12*x = 282 - 30 = 252.\nThen divide both sides by 12: x = 252 / 12 = 21.\n"
        "The answer is \\boxed{21}.",
    ),
)
TEMPLATE = (
    "<|im_start|>system\nYou solve problems in a few short steps and put the final number in \\boxed{}.<|im_end|>\n"
    + "".join(_TURN % asked + answer + "<|im_end|>\n" for asked, answer in _EXAMPLES)
    + _TURN % "{question}"
)
"""Three examples, so that a branch is about 80 tokens long, not 250."""


def made(task: str, seed: int, count: int) -> list[Question]:
    """Questions of reasoning-gym in the template."""
    import reasoning_gym  # type: ignore[import-not-found]

    extra = " Give the result as your final answer. Do not include units."
    how = {name: value for name, value in TASKS[task].items() if name != "count"}
    found = reasoning_gym.create_dataset(task, seed=seed, size=count, **how)
    texts = [found[number]["question"].strip().replace(extra, "") for number in range(count)]
    return [
        Question(f"{task}-{seed}-{number}", TEMPLATE.replace("{question}", text), str(found[number]["answer"]))
        for number, text in enumerate(texts)
    ]


def recorded(model: Any, tokenizer: Any, task: str) -> TrajectoryStore:
    """The recording of a task, gone on with where it is not whole."""
    count = TASKS[task]["count"]
    asked = made(task, 1, count)
    assert not {q.question for q in asked} & {q.question for q in made(task, KEPT_ASIDE_FROM, count)}
    how: dict[str, Any] = {"branches": BRANCHES, "seed": SEED, "interval_tokens": STEP, **SAMPLING}
    return record(model, tokenizer, asked, FOLDER / task, **how)


def replayed() -> dict[str, Any]:
    """Every controller over its budgets on the recording that ships, beside SC@32 and ASC@32; their frontiers."""
    store = TrajectoryStore.open(real.path())
    against = baselines(BRANCHES)
    chosen = methods(CONTROLLERS, BETAS, max_branches=BRANCHES)
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


def ways() -> dict[str, dict[str, Any]]:
    """What is compared live, by name."""

    def held(name: str | Path) -> Any:
        usual = load_controller(name, beta=LIVE_BETA)
        return load_controller(usual, **held_to(usual.knobs, BRANCHES))

    def of(name: str, count: int) -> Any:
        return load_controller(name, max_samples=count)

    return {
        "self_consistency": {"controller": of("self_consistency", BRANCHES)},
        "self_consistency_8": {"controller": of("self_consistency", 8)},
        "asc": {"controller": of("asc", BRANCHES)},
        **{name: {"controller": held(name)} for name in ("cmc", "pace", "short_m_at_k")},
        "found": {"controller": held(FOLDER / "search" / "best")},
        "generate": {},
    }


def answer(model: Any, tokenizer: Any, asked: Sequence[Question], how: dict[str, Any]) -> dict[str, Any]:
    """Answer a group of questions in one call; by transformers' own `generate` and a vote where `how` is empty."""
    inputs = prompts(model, tokenizer, asked)
    start = time.perf_counter()
    if not how:
        return by_generate(model, tokenizer, asked, inputs, start)
    output = model.generate(
        **inputs, strategy="autotts", seed=1, interval_tokens=STEP, return_dict_in_generate=True, **SAMPLING, **how
    )
    seconds = time.perf_counter() - start
    numbered = [Question(str(number), "") for number in range(len(asked))]
    decoded = [branch for branches in output.branches for branch in branches]
    again = replay(Recording.of(numbered, decoded, STEP, source="live"), how["controller"], shuffles=0, traces=True)
    same = [
        trace.events == other.events and cost.generated_tokens + cost.probe_tokens == spent
        for trace, other, cost, spent in zip(output.trace, again.traces, output.cost, again.cost[0], strict=True)
    ]
    return {
        "seconds": seconds,
        "answers": output.answers,
        "tokens": [cost.generated_tokens + cost.probe_tokens for cost in output.cost],
        "probe_tokens": [cost.probe_tokens for cost in output.cost],
        "chain": again.sequential_tokens[0].tolist(),
        "branches": again.opened[0].tolist(),
        "live_is_replay": [bool(each) for each in same],
    }


def by_generate(
    model: Any, tokenizer: Any, asked: Sequence[Question], inputs: dict[str, Any], start: float
) -> dict[str, Any]:
    """32 samples of each question and the majority of what they say, the first seen where two have as many."""
    torch.manual_seed(1)
    out = model.generate(**inputs, do_sample=True, num_return_sequences=BRANCHES, **SAMPLING)
    new = out[:, inputs["input_ids"].shape[1] :]
    ends = (new == tokenizer.eos_token_id).int().cumsum(1)
    length = ((ends == 0).sum(1) + (ends > 0).any(1)).tolist()
    reader = AnswerFormat(think_end="")
    texts = tokenizer.batch_decode(new, skip_special_tokens=True)
    said = [reader.find(text, ended=count < MOST) for text, count in zip(texts, length, strict=True)]
    groups = [said[k * BRANCHES : (k + 1) * BRANCHES] for k in range(len(asked))]
    votes = [Counter(each for each in group if each is not None).most_common(1) for group in groups]
    tokens = np.array(length).reshape(len(asked), BRANCHES)
    return {
        "seconds": time.perf_counter() - start,
        "answers": [vote[0][0] if vote else None for vote in votes],
        "tokens": tokens.sum(1).tolist(),
        "probe_tokens": [0] * len(asked),
        "chain": tokens.max(1).tolist(),
        "branches": [BRANCHES] * len(asked),
    }


def live(model: Any, tokenizer: Any, tasks: Sequence[str], count: int) -> dict[str, Any]:
    """The first `count` questions kept aside of each task, by every way; told per way."""
    asked = [question for task in tasks for question in made(task, KEPT_ASIDE_FROM, count)]
    kept = FOLDER / "live.jsonl"
    lines = [json.loads(line) for line in kept.read_text("utf-8").splitlines()] if kept.exists() else []
    done = {(line["way"], tuple(line["ids"]), line["controller"]): line for line in lines}
    rows: dict[str, list[dict[str, Any]]] = {}
    for first in range(0, len(asked), GROUP):
        group = asked[first : first + GROUP]
        for name, how in ways().items():
            key = (name, tuple(q.question_id for q in group), str(how.get("controller", "")))
            if key not in done:
                line = {"way": name, "ids": list(key[1]), "controller": key[2], **answer(model, tokenizer, group, how)}
                with kept.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(line) + "\n")
                done[key] = line
                print(name, f"{line['seconds']:.0f} s", flush=True)
            rows.setdefault(name, []).append(done[key])
    gold = [question.gold_answer for question in asked]
    return {"questions": len(asked), "groups_of": GROUP, **{name: told(found, gold) for name, found in rows.items()}}


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
        if isinstance(row, dict) and name != "self_consistency":
            points, interval = compare(np.array(row["right"]), np.array(full["right"]))
            found[name] = {
                "points": 100 * points,
                "points_ci": [100 * each for each in interval],
                **{kind: row[kind] / full[kind] for kind in ("tokens", "chain", "seconds")},
            }
    return found


def main(
    model: Annotated[
        Path | None, typer.Argument(help="Folder of the model; without one only replay and search.")
    ] = None,
    task: Annotated[list[str] | None, typer.Option(help="Tasks to record; all of them if left out.")] = None,
    minutes: Annotated[float, typer.Option(help="Of the search.")] = 10.0,
    live_questions: Annotated[int, typer.Option("--live", help="Questions kept aside to answer live.")] = 8,
    live_task: Annotated[list[str] | None, typer.Option(help="Tasks they are of; the first if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Where the result goes.")] = RESULT,
) -> None:
    """Record what is not recorded; replay and search the recording that ships; answer live; write."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = json.loads(out.read_text("utf-8")) if out.exists() else {"format": "tts-real-model/1"}
    tasks = task or list(TASKS)
    network = tokenizer = None
    if model is not None:
        network = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        tokenizer = AutoTokenizer.from_pretrained(model)
        enable(network, tokenizer=tokenizer)
        print([recorded(network, tokenizer, each).name for each in tasks])
    result["replay"], result["search"] = replayed(), searched(minutes)
    if model is not None:
        result["live"] = live(network, tokenizer, live_task or tasks[:1], live_questions)
        result["live_against_sc"] = beside(result["live"])
    result["machine"] = {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "threads": torch.get_num_threads(),
    }
    out.write_text(json.dumps(result, indent=2) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
