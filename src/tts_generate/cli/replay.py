"""`tts-generate replay | sweep | trace`: controllers on recorded branches."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tts_generate.cli.base import (
    Beta,
    Confined,
    Controller,
    JsonFile,
    Knobs,
    Latency,
    Shuffles,
    Store,
    Threads,
    Trust,
    VotesBy,
    app,
    console,
    given,
    guarded,
    knobs_of,
    names_of,
    numbers_of,
    plain,
    refuse,
    table_of,
    write_csv,
    write_json,
)  # fmt: skip
from tts_generate.errors import InputError
from tts_generate.loading import DEFAULT_CONTROLLER

if TYPE_CHECKING:
    from tts_generate.trace import Trace


@app.command()
@guarded
def replay(
    store: Store,
    controller: Controller = DEFAULT_CONTROLLER,
    beta: Beta = None,
    latency: Latency = None,
    shuffles: Shuffles = 100,
    knobs: Knobs = None,
    votes: VotesBy = "equal",
    json_file: JsonFile = None,
    episodes: Annotated[Path | None, typer.Option(help="Write every episode's answer and cost as npz.")] = None,
    trust_remote_code: Trust = False,
    sandbox: Confined = False,
) -> None:
    """Run one controller on recorded branches."""
    from tts_generate.evaluate import Method, as_dict, evaluate_method
    from tts_generate.replay import Recording

    method = Method(controller, controller, beta, _set(knobs, latency), trust_remote_code, sandbox)
    row, result = evaluate_method(Recording.from_store(store, votes=votes), method, shuffles)
    console.print(table_of([row], f"{store}, {max(1, shuffles)} orders of the branches"))
    if json_file is not None:
        write_json(json_file, {"format": "tts-replay/1", "store": str(store), "shuffles": shuffles, **as_dict(row)})
    if episodes is not None:
        result.save_episodes(episodes)


def _set(knobs: list[str] | None, latency: float | None) -> dict[str, Any]:
    return knobs_of(knobs or []) | ({} if latency is None else {"latency": latency})


@app.command()
@guarded
def sweep(
    stores: Annotated[list[Path], typer.Argument(help="Folders of trajectory stores.")],
    controllers: Annotated[
        str, typer.Option(help="Names, folders or published .py files, separated by commas.")
    ] = "self_consistency,asc,cmc",
    betas: Annotated[str, typer.Option(help="Budgets, separated by commas.")] = "0,0.2,0.5,0.8,1",
    shuffles: Shuffles = 20,
    votes: VotesBy = "equal",
    at_k: Annotated[str, typer.Option(help="pass@k, maj@k, avg@k for these k, separated by commas.")] = "",
    json_file: JsonFile = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the frontier as PNG or SVG.")] = None,
    threads: Threads = None,
    profile: Annotated[
        Path | None, typer.Option(help="A device's profile, of tts-generate profile: tell seconds on it, too.")
    ] = None,
    prompts: Annotated[
        str | None, typer.Option(help="With --profile: prompts of a call, separated by commas (1,8,96).")
    ] = None,
    max_rows: Annotated[
        int | None, typer.Option(min=1, help="With --profile: branches of one pass at most (256).")
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Replay several controllers over their budgets and compare them with each other, SC@64 and ASC@64."""
    from tts_generate import evaluate
    from tts_generate.profile import Profile
    from tts_generate.recorded.recording import fewest_branches
    from tts_generate.replay import Recording

    if profile is None and (alone := given(prompts=prompts, max_rows=max_rows)):
        raise InputError(f"--{next(iter(alone)).replace('_', '-')} needs --profile; without it, it would be ignored.")
    device, counts = Profile.of(profile), numbers_of("--prompts", prompts or "1,8,96", int)
    budgets, ks = numbers_of("--betas", betas, float), numbers_of("--at-k", at_k, int)
    if not counts or min(counts) < 1:
        raise InputError(f"--prompts takes whole numbers from 1 on, separated by commas, got {prompts!r}.")
    recordings = [Recording.from_store(store, votes=votes) for store in stores]
    branches = fewest_branches(recordings)
    against = evaluate.baselines(branches)
    found = evaluate.sweep(
        recordings,
        evaluate.methods(names_of(controllers), budgets, trust_remote_code, branches),
        shuffles,
        against=against,
        threads=threads,
        progress=True,
    )
    metrics = [evaluate.at_k(recording, ks, shuffles) for recording in recordings]
    for store, cell, told in zip(stores, found.cells, metrics, strict=True):
        console.print(table_of(list(cell.rows), str(store)))
        for name, value in told.items():
            console.print(f"{name} {value:.1f} %")
    if len(stores) > 1:
        console.print(table_of(list(found.average), f"average of {len(stores)} stores"))
    how = counts, max_rows or 256, votes, trust_remote_code
    seconds = {} if device is None else _seconds(stores, found, device, *how)
    baseline = against[0].label
    frontiers = found.frontiers(baseline)
    for line in _worth(frontiers, baseline):
        console.print(line)
    if json_file is not None:
        told = _sweep_json(stores, found, frontiers, metrics, shuffles, votes)
        write_json(json_file, {**told, **({"seconds": seconds} if seconds else {})})
    if csv_file is not None:
        write_csv(csv_file, _cells(stores, found))
    if plot is not None:
        _plot_sweep(found, plot, shuffles)


def _seconds(
    stores: list[Path], found: Any, device: Any, counts: list[int], max_rows: int, votes: Any, trust: Any
) -> dict[str, Any]:
    """What every method takes on a device, by store and label, one entry a number of prompts; printed as it comes."""
    from tts_generate.engine.predict import predict
    from tts_generate.loading import load_controller
    from tts_generate.trajectories import TrajectoryStore

    told: dict[str, Any] = {}
    for path, cell in zip(stores, found.cells, strict=True):
        columns = ("method", *(f"{count} prompts: answer (95 %)" for count in counts), "question")
        store, table = (
            TrajectoryStore.open(path),
            plain(f"{path}: predicted seconds, {max_rows} rows at most", *columns),
        )
        for row in cell.rows:
            controller = load_controller(row.controller, beta=row.beta, trust_remote_code=trust, **row.knobs)
            how = {"max_rows": max_rows, "votes": votes}
            each = [predict(store, controller, device, prompts=n, **how).to_dict() for n in counts]
            told.setdefault(str(path), {})[row.label] = each
            seen = [f"{one['seconds']:.1f} ({one['p95']:.1f})" for one in each]
            table.add_row(row.label, *seen, f"{each[-1]['seconds_a_question']:.2f}")
        console.print(table)
    return told


def _cells(stores: list[Path], found: Any) -> list[dict[str, Any]]:
    from tts_generate.evaluate import as_dict

    return [
        {"store": str(store), **as_dict(row)}
        for store, cell in zip(stores, found.cells, strict=True)
        for row in cell.rows
    ]


def _sweep_json(
    stores: list[Path],
    found: Any,
    frontiers: dict[str, Any],
    metrics: list[dict[str, float]],
    shuffles: int,
    votes: str,
) -> dict[str, Any]:
    from tts_generate.evaluate import as_dict

    return {
        "format": "tts-sweep/2",
        "shuffles": shuffles,
        "votes": votes,
        "default": DEFAULT_CONTROLLER,
        "cells": _cells(stores, found),
        "average": [as_dict(row) for row in found.average],
        "frontiers": frontiers,
        "at_k": {str(store): told for store, told in zip(stores, metrics, strict=True)},
    }


def _worth(frontiers: dict[str, Any], baseline: str) -> list[str]:
    """A line a controller: what its frontier is worth against the baseline."""
    lines = []
    for name, told in frontiers.items():
        if name == baseline:
            continue
        area = "" if told["area"] is None else f"area under the frontier {told['area']:.1f} %, "
        tokens, saved = told["tokens_at_baseline"], told["saving_at_baseline"]
        if tokens is None:
            reaches = f"never reaches the accuracy of {baseline}"
        else:
            more_or_less = "fewer" if saved >= 0 else "more"
            reaches = f"the accuracy of {baseline} at {tokens:,.0f} tokens, {100 * abs(saved):.1f} % {more_or_less}"
            reaches += f", with a chain of {told['chain_at_baseline']:,.0f}"
        lines.append(f"{name}: {area}{reaches}")
    return lines


def _plot_sweep(found: Any, path: Path, shuffles: int) -> None:
    from tts_generate.evaluate import as_dict
    from tts_generate.report.frontier import Point, plot_frontier

    rows = found.average if len(found.cells) > 1 else found.cells[0].rows
    points = [Point.of(as_dict(row)) for row in rows]
    stores = "" if len(found.cells) == 1 else f", average of {len(found.cells)} stores"
    plot_frontier(points, path, title=f"Replay, {max(1, shuffles)} orders of the branches{stores}")


@app.command()
@guarded
def trace(
    source: Annotated[Path, typer.Argument(help="A trajectory store, or a .jsonl file of traces.")],
    controller: Controller = DEFAULT_CONTROLLER,
    beta: Beta = None,
    latency: Latency = None,
    question: Annotated[str | None, typer.Option(help="Id of a question, or its number; all if left out.")] = None,
    shuffle: Annotated[
        int | None, typer.Option(min=0, help="Seed of the order; the recorded order if left out.")
    ] = None,
    knobs: Knobs = None,
    jsonl: Annotated[Path | None, typer.Option(help="Write the traces as JSON lines instead of printing.")] = None,
    trust_remote_code: Trust = False,
    sandbox: Confined = False,
) -> None:
    """Print what a controller does on a recorded question, round by round."""
    from tts_generate.loading import load_controller
    from tts_generate.replay import Recording, shuffled_orders
    from tts_generate.report.timeline import timeline
    from tts_generate.trace import read_traces, write_traces

    if source.is_file():
        told = given(beta=beta, latency=latency, shuffle=shuffle, set=knobs or None, sandbox=sandbox or None)
        refuse(
            told | ({} if controller == DEFAULT_CONTROLLER else {"controller": controller}), "for a store to be run on"
        )
        traces: Iterable[Trace] = read_traces(source)
        if question is not None:
            traces = [found for found in traces if found.question_id == question]
            if not traces:
                raise InputError(f"{source} holds no trace of question {question!r}.")
    else:
        recording = Recording.from_store(source)
        chosen = load_controller(
            controller, beta=beta, trust_remote_code=trust_remote_code, sandbox=sandbox, **_set(knobs, latency)
        )
        recording.check(chosen)
        orders = {
            n: None if shuffle is None else shuffled_orders(1, recording.questions[n].branches, shuffle)[0]
            for n in recording.numbers(question)
        }
        traces = (recording.trace(chosen, n, order) for n, order in orders.items())
    if jsonl is not None:
        console.print(f"{write_traces(jsonl, traces)} traces in {jsonl}")
    else:
        for found in traces:
            for line in timeline(found):
                console.print(line, soft_wrap=True)
