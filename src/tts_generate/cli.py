"""The command line: `tts-generate record | replay | sweep | trace | import | demo`."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from tts_generate.errors import InputError, TTSError

app = typer.Typer(
    help="Test-time scaling for transformers: record trajectories, replay controllers on them, answer live.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
importers = typer.Typer(help="Make a trajectory store from somebody else's recording.", no_args_is_help=True)
app.add_typer(importers, name="import")
console = Console(width=None if sys.stdout.isatty() else 110)
complaints = Console(stderr=True)

Store = Annotated[Path, typer.Argument(help="Folder of a trajectory store.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")]
Shuffles = Annotated[int, typer.Option(help="Orders in which branches are opened; 0: the recorded order alone.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the code of a controller folder of your own.")]

Controller = Annotated[str, typer.Option(help="A controller's name, its folder, or a published method's .py file.")]
Beta = Annotated[float | None, typer.Option(help="Budget, 0 to 1; the controller's default if left out.")]
Knobs = Annotated[list[str] | None, typer.Option("--set", help="A knob by hand: name=value.")]
VotesBy = Annotated[
    Literal["equal", "math"], typer.Option(help="Which answers are one: equal texts, or the same mathematics.")
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """One line for an error of ours, exit code 1; 130 for Ctrl-C."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except TTSError as error:
            complaints.print(f"[red]error:[/red] {error}", soft_wrap=True, highlight=False)
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            complaints.print("interrupted; run the same command again to go on", highlight=False)
            raise typer.Exit(130) from None

    return run


@importers.command("autotts")
@guarded
def import_autotts(
    json_file: Annotated[Path, typer.Argument(help="A published table, e.g. Qwen3-4B/aime24.json.")],
    out: Annotated[Path, typer.Option(help="Folder of the new store.")],
    model: Annotated[str | None, typer.Option(help="Model name to note; the file's folder if left out.")] = None,
) -> None:
    """Import a table that the authors of AutoTTS published."""
    from tts_generate.trajectories import import_autotts as run

    store = run(json_file, out, model=model)
    console.print(f"{len(store.trajectories())} branches of {len(store.questions)} questions in {out}")


@app.command()
@guarded
def record(
    model: Annotated[str, typer.Argument(help="A model's folder or Hub id; 'tiny' for the one that ships here.")],
    out: Annotated[Path, typer.Option(help="Folder of the store; an unfinished one is gone on with.")],
    questions: Annotated[Path | None, typer.Option(help="JSON lines: question_id, question, gold_answer.")] = None,
    branches: Annotated[int, typer.Option(help="Branches a question.")] = 64,
    seed: Annotated[int, typer.Option(help="Seed of the branches' randomness.")] = 0,
    interval_tokens: Annotated[int | None, typer.Option(help="Tokens of one step.")] = None,
    max_new_tokens: Annotated[int | None, typer.Option(help="Tokens of a branch at most.")] = None,
    temperature: Annotated[float | None, typer.Option(help="Sampling temperature.")] = None,
    top_p: Annotated[float | None, typer.Option(help="Nucleus sampling.")] = None,
    top_k: Annotated[int | None, typer.Option(help="Top-k sampling; 0 for none.")] = None,
    max_rows: Annotated[int, typer.Option(help="Branches decoded in one forward pass at most.")] = 256,
    chat: Annotated[bool, typer.Option("--chat", help="Wrap questions into the model's chat template.")] = False,
    dtype: Annotated[str, typer.Option(help="Number type of the weights.")] = "float32",
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1 …")] = "cpu",
) -> None:
    """Record trajectories of a question set, probed at every step."""
    from tts_generate.engine import record as run
    from tts_generate.trajectories import Question

    asked: list[Question]
    loaded, tokenizer, asked = _load(model, questions, dtype, device)
    store = run(
        loaded,
        tokenizer,
        asked,
        out,
        branches=branches,
        seed=seed,
        interval_tokens=interval_tokens,
        max_rows=max_rows,
        chat=chat,
        **_given(max_new_tokens=max_new_tokens, temperature=temperature, top_p=top_p, top_k=top_k),
    )
    rows = store.trajectories()
    tokens = sum(row.tokens for row in rows)
    probes = sum(sum(row.probe_tokens) for row in rows)
    console.print(f"{len(rows)} branches of {len(asked)} questions in {out}: {tokens:,} tokens, {probes:,} for probes")


def _given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def _load(model: str, questions: Path | None, dtype: str, device: str) -> tuple[Any, Any, list[Any]]:
    import torch

    from tts_generate import tiny
    from tts_generate.trajectories.schema import questions_from_jsonl

    if questions is None and model != "tiny":
        raise InputError("--questions is needed: JSON lines with question_id, question, gold_answer.")
    if questions is not None and not questions.is_file():
        raise InputError(f"{questions} is not a file.")
    asked = tiny.questions("record") if questions is None else None
    if questions is not None:
        asked = list(questions_from_jsonl(questions.read_text("utf-8"), questions))
    kind = getattr(torch, dtype, None)
    if not isinstance(kind, torch.dtype):
        raise InputError(f"--dtype must be a torch type such as float32 or bfloat16, got {dtype!r}.")
    if model == "tiny":
        loaded, tokenizer = tiny.load()
    else:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        try:
            tokenizer = AutoTokenizer.from_pretrained(model)
            loaded = AutoModelForCausalLM.from_pretrained(model, dtype=kind)
        except (OSError, ValueError) as error:
            raise InputError(f"model {model!r} cannot be loaded: {str(error).splitlines()[0]}") from error
    return loaded.to(device=device, dtype=kind).eval(), tokenizer, list(asked or [])


@app.command()
@guarded
def replay(
    store: Store,
    controller: Controller = "cmc",
    beta: Beta = None,
    shuffles: Shuffles = 100,
    knobs: Knobs = None,
    votes: VotesBy = "equal",
    json_file: JsonFile = None,
    episodes: Annotated[Path | None, typer.Option(help="Write every episode's answer and cost as npz.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Run one controller on recorded branches."""
    from tts_generate.evaluate import Method, as_dict, evaluate_method
    from tts_generate.replay import Recording

    method = Method(controller, controller, beta, _knobs(knobs or []), trust_remote_code)
    row, result = evaluate_method(Recording.from_store(store, votes=votes), method, shuffles)
    console.print(_table([row], f"{store}, {max(1, shuffles)} orders of the branches"))
    if json_file is not None:
        _write_json(json_file, {"format": "tts-replay/1", "store": str(store), "shuffles": shuffles, **as_dict(row)})
    if episodes is not None:
        result.save_episodes(episodes)


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
    threads: Annotated[int | None, typer.Option(help="Threads of compiled replay; all cores if left out.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Replay several controllers over their budgets and compare them with each other, SC@64 and ASC@64."""
    from tqdm.auto import tqdm

    from tts_generate import evaluate
    from tts_generate.replay import Recording

    budgets, ks = _numbers("--betas", betas, float), _numbers("--at-k", at_k, int)
    recordings = [Recording.from_store(store, votes=votes) for store in stores]
    against = evaluate.baselines(min(recording.max_branches for recording in recordings))
    found = evaluate.sweep(
        recordings,
        evaluate.methods(controllers.split(","), budgets, trust_remote_code),
        shuffles,
        against=against,
        threads=threads,
        bar=lambda methods, name: tqdm(list(methods), desc=name, unit="method"),
    )
    metrics = [evaluate.at_k(recording, ks, shuffles) for recording in recordings]
    for store, cell, told in zip(stores, found.cells, metrics, strict=True):
        console.print(_table(list(cell.rows), str(store)))
        for name, value in told.items():
            console.print(f"{name} {value:.1f} %", highlight=False)
    if len(stores) > 1:
        console.print(_table(list(found.average), f"average of {len(stores)} stores"))
    baseline = against[0].label
    frontiers = found.frontiers(baseline)
    for line in _worth(frontiers, baseline):
        console.print(line, highlight=False)
    if json_file is not None:
        _write_json(json_file, _sweep_json(stores, found, frontiers, metrics, shuffles, votes))
    if csv_file is not None:
        _write_csv(csv_file, _cells(stores, found))
    if plot is not None:
        _plot_sweep(found, plot, shuffles)


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
    from tts_generate.loading import DEFAULT_CONTROLLER

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
        lines.append(f"{name}: {area}{reaches}")
    return lines


def _plot_sweep(found: Any, path: Path, shuffles: int) -> None:
    from tts_generate.report.frontier import Point, plot_frontier

    rows = found.average if len(found.cells) > 1 else found.cells[0].rows
    points = [
        Point(row.label if row.beta is None else row.controller, row.tokens, row.accuracy, row.accuracy_ci)
        for row in rows
    ]
    stores = "" if len(found.cells) == 1 else f", average of {len(found.cells)} stores"
    plot_frontier(points, path, title=f"Replay, {max(1, shuffles)} orders of the branches{stores}")


def _numbers(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    try:
        return [kind(part) for part in text.split(",") if part.strip()]
    except ValueError:
        raise InputError(f"{option} takes numbers separated by commas, got {text!r}.") from None


@app.command()
@guarded
def trace(
    source: Annotated[Path, typer.Argument(help="A trajectory store, or a .jsonl file of traces.")],
    controller: Controller = "cmc",
    beta: Beta = None,
    question: Annotated[str | None, typer.Option(help="Id of a question, or its number; all if left out.")] = None,
    shuffle: Annotated[int | None, typer.Option(help="Seed of the order; the recorded order if left out.")] = None,
    knobs: Knobs = None,
    jsonl: Annotated[Path | None, typer.Option(help="Write the traces as JSON lines instead of printing.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Print what a controller does on a recorded question, round by round."""
    from tts_generate.loading import load_controller
    from tts_generate.replay import Recording, shuffled_orders
    from tts_generate.report.timeline import timeline
    from tts_generate.trace import read_traces, write_traces

    if source.is_file():
        traces = (found for found in read_traces(source) if question in (None, found.question_id))
    else:
        recording = Recording.from_store(source)
        chosen = load_controller(controller, beta=beta, trust_remote_code=trust_remote_code, **_knobs(knobs or []))
        recording.check(chosen)
        orders = {
            n: None if shuffle is None else shuffled_orders(shuffle + 1, recording.questions[n].branches)[shuffle]
            for n in recording.numbers(question)
        }
        traces = (recording.trace(chosen, n, order) for n, order in orders.items())
    if jsonl is not None:
        console.print(f"{write_traces(jsonl, traces)} traces in {jsonl}")
    else:
        for found in traces:
            for line in timeline(found):
                console.print(line, highlight=False, soft_wrap=True)


@app.command()
@guarded
def demo(
    out: Annotated[Path, typer.Option(help="Folder of what the demo writes.")] = Path("build/demo"),
    recorded: Annotated[int, typer.Option(help="Questions to record.")] = 32,
    live: Annotated[int, typer.Option(help="Kept-aside questions to answer live.")] = 96,
    branches: Annotated[int, typer.Option(help="Branches a question, in the recording and of the baseline.")] = 64,
) -> None:
    """The main job, end to end, with the tiny model that ships here: record, replay, answer live."""
    from tts_generate.demo import run

    run(out, recorded=recorded, live=live, branches=branches, console=console)


def _knobs(settings: list[str]) -> dict[str, Any]:
    """`name=value` pairs, values as JSON where they are."""
    knobs: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes name=value, got {setting!r}.")
        try:
            knobs[name.strip()] = json.loads(value)
        except ValueError:
            knobs[name.strip()] = value
    return knobs


def _table(rows: list[Any], title: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("method", no_wrap=True)
    for name in ("accuracy % (95 %)", "tokens", "probe", "wasted", "sequential", "branches"):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        low, high = row.accuracy_ci
        numbers = (row.tokens, row.probe_tokens, row.wasted_tokens, row.sequential_tokens)
        accuracy = f"{row.accuracy:.1f} ({low:.1f} - {high:.1f})"
        table.add_row(row.label, accuracy, *(f"{number:,.0f}" for number in numbers), f"{row.branches:.1f}")
    return table


def _write_json(path: Path, value: dict[str, Any]) -> None:
    _write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def _write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    import csv
    import io

    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in row.items()})
    _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8")
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error
