"""The command line: `tts-generate record | replay | sweep | import | demo`."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer
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
console = Console()
complaints = Console(stderr=True)

Store = Annotated[Path, typer.Argument(help="Folder of a trajectory store.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")]
Shuffles = Annotated[int, typer.Option(help="Orders in which branches are opened; 0: the recorded order alone.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run the code of a controller folder of your own.")]


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
    controller: Annotated[str, typer.Option(help="A controller's name, or its folder.")] = "cmc",
    beta: Annotated[float | None, typer.Option(help="Budget, 0 to 1; the controller's default if left out.")] = None,
    shuffles: Shuffles = 100,
    knobs: Annotated[list[str] | None, typer.Option("--set", help="A knob by hand: name=value.")] = None,
    json_file: JsonFile = None,
    episodes: Annotated[Path | None, typer.Option(help="Write every episode's answer and cost as npz.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Run one controller on recorded branches."""
    from tts_generate.evaluate import Method, as_dict, evaluate_method
    from tts_generate.replay import Recording

    method = Method(controller, controller, beta, _knobs(knobs or []), trust_remote_code)
    row, result = evaluate_method(Recording.from_store(store), method, shuffles)
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
        str, typer.Option(help="Names or folders, separated by commas.")
    ] = "self_consistency,asc,cmc",
    betas: Annotated[str, typer.Option(help="Budgets, separated by commas.")] = "0,0.2,0.5,0.8,1",
    shuffles: Shuffles = 20,
    json_file: JsonFile = None,
    csv_file: Annotated[Path | None, typer.Option("--csv", help="Write the rows as CSV.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the frontier as PNG or SVG.")] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Replay several controllers over their budgets and compare."""
    from tqdm.auto import tqdm

    from tts_generate.evaluate import as_dict, average, evaluate_method, methods
    from tts_generate.replay import Recording

    try:
        budgets = [float(beta) for beta in betas.split(",")]
    except ValueError:
        raise InputError(f"--betas must be numbers separated by commas, got {betas!r}.") from None
    chosen = methods(controllers.split(","), budgets, trust_remote_code)
    cells = []
    for store in stores:
        recording = Recording.from_store(store)
        bar = tqdm(chosen, desc=recording.name, unit="method")
        rows = [evaluate_method(recording, method, shuffles)[0] for method in bar]
        console.print(_table(rows, str(store)))
        cells.append(rows)
    named = list(zip(stores, cells, strict=True))
    if json_file is not None:
        result = {
            "format": "tts-sweep/1",
            "shuffles": shuffles,
            "default": chosen[-1].controller,
            "cells": [{"store": str(store), "rows": [as_dict(row) for row in rows]} for store, rows in named],
            "average": average(cells),
        }
        _write_json(json_file, result)
    if csv_file is not None:
        _write_csv(csv_file, [{"store": str(store), **as_dict(row)} for store, rows in named for row in rows])
    if plot is not None:
        from tts_generate.report.frontier import Point, plot_frontier

        points = [
            Point(
                f"{row.controller}{'' if len(stores) == 1 else f' · {store.name}'}",
                row.tokens,
                row.accuracy,
                row.accuracy_ci,
            )
            for store, rows in named
            for row in rows
        ]
        plot_frontier(points, plot, title=f"Replay, {max(1, shuffles)} orders of the branches")


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
    table = Table(title=title, title_justify="left")
    table.add_column("method")
    for name in ("accuracy %", "95 % interval", "tokens", "probe", "wasted", "branches"):
        table.add_column(name, justify="right")
    for row in rows:
        low, high = row.accuracy_ci
        cells = [f"{row.accuracy:.1f}", f"{low:.1f} - {high:.1f}", f"{row.tokens:,.0f}"]
        cells += [f"{row.probe_tokens:,.0f}", f"{row.wasted_tokens:,.0f}", f"{row.branches:.1f}"]
        table.add_row(row.label, *cells)
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
