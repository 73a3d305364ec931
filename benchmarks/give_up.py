"""Giving up, learnt on a thousand questions of the tiny model: what it saves of `thrift`'s tokens at its accuracy.

    python benchmarks/give_up.py [--few]     # 70 minutes on one core, a third to record; it goes on where it stopped

A third of the questions are as the model knows them, a third have more and harder steps, and in a third the steps stand
in any order, which it never learnt: hopeless ones, which take about the share of the tokens that they take on AIME24
(with `--few` there are none of these, and more of the others). 64 branches each. Four times a fold of them is left out:
knobs of `worth` are searched on the other three, once with its parts that give up (`GIVING_UP`) and once without, and
measured on the fold. A search explores constant knobs for accuracy and tokens; from its frontier the cheapest is taken
that has `thrift`'s accuracy at beta .9, and its bar for a further wave is set for each beta so that, on the three
folds, `thrift`'s accuracy there is kept. Recordings and searches are kept in build/; the published tables, if at hand,
tell what the same does elsewhere.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import typer
from numpy.typing import NDArray
from search_aime24 import MODELS, imported

from tts_generate import tiny
from tts_generate.controller import Controller
from tts_generate.engine import record
from tts_generate.loading import load_controller
from tts_generate.replay import Recording, replay
from tts_generate.search.questions import Part
from tts_generate.search.written.standing import right_shares
from tts_generate.statistics import compare, ratio_interval, saving, tokens_at
from tts_generate.trajectories import Question

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT / "examples"))
from tiny_task import OPERANDS, Program, sample_program  # noqa: E402

FOLDS, BRANCHES = 4, 64
MANY, FEW = {"usual": 88, "hard": 88, "shuffled": 88}, {"usual": 128, "hard": 128}
"""Questions of a fold, by kind: many hopeless ones among them, or few."""
BETAS = (0.8, 0.9, 1.0)
TRIED, ORDERS, MARGIN = 400, 4, 0.1
"""Of a search: candidates, orders of the branches, and points of accuracy that must be more than `thrift`'s."""
REPORTED = {"shuffles": 40, "first_shuffle": 900_000}
FAMILY, THRIFT = type(load_controller("worth")), type(load_controller("thrift"))
GIVING_UP = ("share_power", "wave_share_power", "price")
"""Parts by which a vote that nothing leads, or a question that is long, is worth less."""
WIDE = {
    "share_power": (0.0, 0.5, 1.0, 2.0),
    "wave_share_power": (0.0, 0.6, 1.0, 2.0, 3.0),
    "price": (0.0, 0.6, 1.0, 1.5),
}
"""Where they begin in a search that goes to the ends of their ranges, and tries twice as many."""
Kind = Literal["giving", "never", "wide"]
"""Of a search: with the parts that give up, without them, or with them anywhere."""
Knobs = dict[str, float]
Figures = tuple[NDArray[np.float64], NDArray[np.float64]]
"""Tokens and percent right of each question, means over orders."""


def hard(rng: random.Random) -> Program:
    """A program as long as they come, more than half of it products."""
    steps = (("*" if rng.random() < 0.6 else rng.choice("+-"), rng.choice(OPERANDS)) for _ in range(rng.randint(7, 9)))
    return Program(rng.randint(0, 9), tuple(steps))


def in_any_order(program: Program, rng: random.Random) -> str:
    """The prompt of a program whose lines are shuffled; its answer is the same."""
    *lines, asks = program.prompt().removeprefix("Q: ").split(" ; ")
    rng.shuffle(lines)
    return f"Q: {' ; '.join([*lines, asks])}"


def asked(mix: Mapping[str, int], seed: int = 23, but: Iterable[Question] = ()) -> list[list[Question]]:
    """Questions by fold, so many of each kind; none twice, and none of the shipped sets, nor `but`."""
    rng = random.Random(seed)
    taken = {q.question for q in but} | {q.question for split in tiny.SPLITS for q in tiny.questions(split)}
    folds = []
    for fold in range(FOLDS):
        found: list[Question] = []
        for kind, count in mix.items():
            wanted = len(found) + count
            while len(found) < wanted:
                program = sample_program(rng) if kind == "usual" else hard(rng)
                prompt = in_any_order(program, rng) if kind == "shuffled" else program.prompt()
                if prompt not in taken:
                    taken.add(prompt)
                    found.append(Question(f"fold{fold}-{kind}-{len(found):03}", prompt, str(program.answer())))
        folds.append(found)
    return folds


def recorded(folds: Sequence[Sequence[Question]], folder: Path) -> list[Recording]:
    """Every fold, recorded where it is not yet."""
    torch.set_num_threads(1)
    model, tokenizer = tiny.load()
    return [
        Recording.from_store(
            record(model, tokenizer, questions, folder / f"fold{k}", branches=BRANCHES, seed=23, max_rows=512)
        )
        for k, questions in enumerate(folds)
    ]


def drawn(rng: random.Random, kind: Kind) -> Knobs:
    """Knobs anywhere: small waves or large ones, each part off or on."""
    knobs = {
        "n_init": rng.choice((2, 3, 4, 5, 6, 8)), "widen": rng.choice((1, 1, 2, 3, 4, 6)),
        "max_branches": rng.choice((32, 48, 64)), "read_bar": 10 ** rng.uniform(-3.0, -0.5),
        "wave_bar": 10 ** rng.uniform(-2.0, -0.3), "depth_power": 0.0,
        "relative_power": rng.choice((0.0, 1.0, 2.0, 3.0, 4.0)), "open_power": rng.choice((0.0, 0.5, 1.0)),
        "share_power": rng.choice((0.0, 0.5, 1.0)), "wave_share_power": rng.choice((0.0, 0.3, 0.6, 1.0)),
        "price": rng.choice((0.0, 0.3, 0.6)), "length_power": rng.choice((0.0, 0.3, 0.6, 1.0)),
    }  # fmt: skip
    if kind == "wide":
        return {**knobs, **{name: rng.choice(powers) for name, powers in WIDE.items()}}
    return {**knobs, **dict.fromkeys(GIVING_UP, 0.0)} if kind == "never" else knobs


def nudged(knobs: Knobs, rng: random.Random, kind: Kind) -> Knobs:
    """One to three of the knobs changed a little, or drawn anew."""
    found = dict(knobs)
    moving = sorted(name for name in knobs if name != "depth_power" and (kind != "never" or name not in GIVING_UP))
    for name in rng.sample(moving, rng.choice((1, 1, 2, 3))):
        if name.endswith("_bar"):
            found[name] *= 10 ** rng.gauss(0.0, 0.15)
        elif name in ("n_init", "widen", "max_branches"):
            least = 1 if name == "widen" else 2
            moved = round(found[name] * 2 ** rng.gauss(0.0, 0.4)) + rng.choice((-1, 0, 1))
            found[name] = min(BRANCHES, max(least, moved))
        else:
            anew = rng.random() < 0.3
            found[name] = drawn(rng, kind)[name] if anew else max(0.0, found[name] + rng.gauss(0.0, 0.3))
    return found


def figures(controller: Controller, recordings: Sequence[Recording], **orders: int) -> Figures:
    """What a controller does on each question."""
    how: dict[str, Any] = orders or {"shuffles": ORDERS, "first_shuffle": 1_000}
    rows = [replay(recording, controller, compiled=True, threads=1, **how) for recording in recordings]
    tokens = np.concatenate([np.asarray(row.cost, np.float64).mean(axis=0) for row in rows])
    return tokens, 100 * np.concatenate([row.correct.mean(axis=0) for row in rows])


def means(found: Figures) -> tuple[float, float]:
    """Tokens and accuracy."""
    return float(found[0].mean()), float(found[1].mean())


def made(knobs: Mapping[str, Any]) -> Controller:
    """The controller with these knobs."""
    return FAMILY(**knobs)


def frontier(recordings: Sequence[Recording], seed: int, kind: Kind) -> list[tuple[float, float, Knobs]]:
    """Tokens, accuracy and knobs of those that nothing beats, of all that a search tries."""
    rng, pool = random.Random(seed), list[tuple[float, float, Knobs]]()
    bounds = [means(figures(THRIFT.from_beta(beta), recordings))[0] for beta in (0.5, 1.0)]
    front: list[tuple[float, float, Knobs]] = []
    for tried in range(TRIED if kind != "wide" else 2 * TRIED):
        first = tried < 60 or not front or rng.random() < 0.1
        knobs = drawn(rng, kind) if first else nudged(rng.choice(front)[2], rng, kind)
        pool.append((*means(figures(made(knobs), recordings)), knobs))
        front = []
        for row in sorted(pool, key=lambda row: (row[0], -row[1])):
            if bounds[0] < row[0] < bounds[1] and (not front or row[1] > front[-1][1] + 0.03):
                front.append(row)
    return front


def searched(recordings: Sequence[Recording], seed: int, kind: Kind) -> dict[str, Any]:
    """Knobs that keep `thrift`'s accuracy at beta .9 for fewest tokens, and the bar for a wave at each beta."""
    aims = [means(figures(THRIFT.from_beta(beta), recordings))[1] + MARGIN for beta in BETAS]
    front = frontier(recordings, seed, kind)
    enough = [row for row in front if row[1] >= aims[1]] or front[-1:]
    knobs = enough[0][2]
    bars, waves = np.geomspace(2.5, 0.3, 16) * knobs["wave_bar"], []
    curve = [means(figures(made({**knobs, "wave_bar": float(bar)}), recordings))[1] for bar in bars]
    for aim in aims:
        reached = [k for k, accuracy in enumerate(curve) if accuracy >= aim]
        waves.append(float(bars[reached[0] if reached else int(np.argmax(curve))]))
    falling = np.minimum.accumulate(waves)
    return {"knobs": knobs, "wave_bars": [float(f"{bar:.4g}") for bar in falling], "front": [row[:2] for row in front]}


def kept(path: Path, recordings: Sequence[Recording], seed: int, kind: Kind) -> dict[str, Any]:
    """A search that is not made twice."""
    path = path.with_name(f"{path.name}_{kind}.json")
    if not path.exists():
        path.write_text(json.dumps(searched(recordings, seed, kind), indent=1) + "\n", "utf-8")
    found: dict[str, Any] = json.loads(path.read_text("utf-8"))
    print(path.name, found["knobs"], found["wave_bars"], flush=True)
    return found


def beside(ours: Sequence[Figures], theirs: Sequence[Figures], kinds: Mapping[str, NDArray[np.bool_]]) -> list[Any]:
    """At each beta what was saved, pairs of questions resampled, and of which questions."""
    rows = []
    for beta, (tokens, right), (other, others_right) in zip(BETAS, ours, theirs, strict=True):
        low, high = ratio_interval(tokens, other)
        apart, interval = compare(right, others_right)
        saved = (other - tokens).sum()
        rows.append({
            "beta": beta, "tokens": tokens.mean(), "thrift_tokens": other.mean(), "accuracy": right.mean(),
            "thrift_accuracy": others_right.mean(), "saving": saving(tokens.sum(), other.sum()),
            "saving_interval": [1 - high, 1 - low], "accuracy_difference": apart, "accuracy_interval": interval,
            "saved_by_kind": {kind: float((other - tokens)[mine].sum() / saved) for kind, mine in kinds.items()},
            "saving_of_kind": {kind: saving(tokens[mine].sum(), other[mine].sum()) for kind, mine in kinds.items()},
        })  # fmt: skip
    points = [means(found) for found in ours]
    for row in rows:
        found = tokens_at(points, row["thrift_accuracy"])
        row["saving_at_accuracy"] = None if found is None else saving(found, row["thrift_tokens"])
    return rows


def left_out(
    recordings: Sequence[Recording],
    theirs: Sequence[Figures],
    kinds: Mapping[str, NDArray[np.bool_]],
    kind: Kind,
    folder: Path,
) -> dict[str, Any]:
    """Each fold by what was found on the others, all questions together beside `thrift`."""
    folds, ours = [], list[list[Figures]]()
    for k, fold in enumerate(recordings):
        found = kept(folder / f"without{k}", [one for one in recordings if one is not fold], k, kind)
        knobs = [{**found["knobs"], "wave_bar": bar} for bar in found["wave_bars"]]
        ours.append([figures(made(each), [fold], **REPORTED) for each in knobs])
        folds.append({**found, "left_out": [means(each) for each in ours[-1]]})
    pooled = []
    for at_beta in zip(*ours, strict=True):
        tokens, right = (np.concatenate(parts) for parts in zip(*at_beta, strict=True))
        pooled.append((tokens, right))
    rows = beside(pooled, theirs, kinds)
    print(kind, *rows, sep="\n", flush=True)
    return {"left_out": rows, "folds": folds}


def headroom(theirs: Sequence[Figures], kinds: Mapping[str, NDArray[np.bool_]], branch: NDArray[np.float64]) -> Any:
    """What `thrift` spends on each kind, and what an oracle saves that gives up after one branch where it is lost."""
    rows = []
    for beta, (tokens, right) in zip(BETAS, theirs, strict=True):
        lost = right < 10.0
        oracle = np.where(lost, np.minimum(branch, tokens), tokens)
        rows.append({
            "beta": beta, "questions": {kind: float(mine.mean()) for kind, mine in kinds.items()},
            "tokens": {kind: float(tokens[mine].sum() / tokens.sum()) for kind, mine in kinds.items()},
            "accuracy": {kind: float(right[mine].mean()) for kind, mine in kinds.items()},
            "lost": {"questions": lost.mean(), "tokens": tokens[lost].sum() / tokens.sum()},
            "oracle_saving": saving(oracle.sum(), tokens.sum()),
        })  # fmt: skip
    return rows


def elsewhere(knobs: Mapping[str, Any], bars: Sequence[float]) -> Any:
    """The same on the published tables, each counting as much: tokens and accuracy beside `thrift`'s."""
    tables = [Recording.from_store(store) for store in imported()]
    rows = {"thrift": [means(figures(THRIFT.from_beta(b), tables, **REPORTED)) for b in (0.4, 0.6, *BETAS)]}
    rows["found"] = [means(figures(made({**knobs, "wave_bar": bar}), tables, **REPORTED)) for bar in bars]
    found = [{"tokens": t, "accuracy": a, "thrift_at_it": tokens_at(rows["thrift"], a)} for t, a in rows["found"]]
    return {"tables": MODELS, "thrift": rows["thrift"], "found": found}


def by_votes(recordings: Sequence[Recording]) -> dict[str, NDArray[np.bool_]]:
    """Which questions are sure, hopeless, or between, by the share of their branches that are right."""
    shares = np.concatenate(right_shares(Part.of(recordings)))
    return {"sure": shares >= 0.75, "between": (shares >= 0.1) & (shares < 0.75), "hopeless": shares < 0.1}


def branch_tokens(recordings: Sequence[Recording]) -> NDArray[np.float64]:
    """Of each question, the mean of its branches."""
    return np.concatenate([
        one.table.branches["tokens"].reshape(len(one.questions), BRANCHES).mean(axis=1) for one in recordings
    ])  # fmt: skip


def fresh(recordings: Sequence[Recording], folder: Path) -> dict[str, Any]:
    """Knobs searched anywhere on all the folds, measured on as many questions again as two folds have, made anew.

    With the parts that give up, and without them; by kind of question as it was made.
    """
    new = recorded(asked(MANY, 24, but=[q for fold in asked(MANY) for q in fold])[:2], folder / "fresh")
    theirs = [figures(THRIFT.from_beta(beta), new, **REPORTED) for beta in BETAS]
    made_as = np.concatenate([[each.question.question_id.split("-")[1] for each in one.questions] for one in new])
    kinds = {kind: made_as == kind for kind in MANY}
    told: dict[str, Any] = {"questions": len(made_as), "headroom": headroom(theirs, kinds, branch_tokens(new))}
    searches: tuple[Kind, ...] = ("wide", "never")
    for kind in searches:
        found = kept(folder / "all", recordings, 9, kind)
        ours = [figures(made({**found["knobs"], "wave_bar": bar}), new, **REPORTED) for bar in found["wave_bars"]]
        told[kind] = {**found, "rows": beside(ours, theirs, kinds)}
        print(kind, *told[kind]["rows"], sep="\n", flush=True)
    return told


def main(
    out: Annotated[Path | None, typer.Argument(help="JSON file to write.")] = None,
    few: Annotated[bool, typer.Option(help="Few of the questions are hopeless.")] = False,
) -> None:
    """Record, search, measure, write."""
    name = "give_up_few" if few else "give_up"
    mix, folder = FEW if few else MANY, ROOT / "build" / name
    recordings = recorded(asked(mix), folder)
    kinds = by_votes(recordings)
    theirs = [figures(THRIFT.from_beta(beta), recordings, **REPORTED) for beta in BETAS]
    told: dict[str, Any] = {
        "format": "tts-give-up/1", "questions": len(kinds["sure"]), "branches": BRANCHES, "folds": FOLDS,
        "tried": TRIED, "headroom": headroom(theirs, kinds, branch_tokens(recordings)),
    }  # fmt: skip
    told["giving_up"] = left_out(recordings, theirs, kinds, "giving", folder)
    if few:
        whole = kept(folder / "whole", recordings, 9, "giving")
        told["whole"] = {**whole, "published_tables": elsewhere(whole["knobs"], whole["wave_bars"])}
        told["never_giving_up"] = left_out(recordings, theirs, kinds, "never", folder)
    else:
        told["fresh"] = fresh(recordings, folder)
    out = out or ROOT / "benchmarks" / "results" / f"{name}.json"
    out.write_text(json.dumps(told, indent=1, default=float) + "\n", "utf-8")


if __name__ == "__main__":
    typer.run(main)
