"""`tts-generate publish | pull | show | lock | verify`: controllers on the Hub."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from tts_generate.cli.base import Private, Threads, Trust, app, console, given, guarded, numbers_of, plain
from tts_generate.errors import ControllerError, InputError
from tts_generate.strict_json import read_json

Revision = Annotated[str | None, typer.Option(help="A commit, branch or tag.")]
LockFile = Annotated[Path | None, typer.Option(help="The lock file; tts-controllers.lock if left out.")]
Named = Annotated[str, typer.Argument(help="A repo of the Hub, user/name or user/name@revision.")]


@app.command()
@guarded
def publish(
    folder: Annotated[Path, typer.Argument(help="Folder of a controller, or of a search.")],
    repo: Annotated[str, typer.Argument(help="The repo, user/name; made where it does not exist.")],
    store: Annotated[
        list[str] | None, typer.Option(help="A store to measure it on; may be given again. Of a search: its own.")
    ] = None,
    benchmark: Annotated[
        list[str] | None,
        typer.Option(
            help="STORE=user/dataset[:task], the benchmark that a store's questions are from; for leaderboards."
        ),
    ] = None,
    live: Annotated[Path | None, typer.Option(help="JSON list of live rows, as `measure_live` returns them.")] = None,
    betas: Annotated[str, typer.Option(help="Budgets to measure, separated by commas; eleven if left out.")] = "",
    shuffles: Annotated[int | None, typer.Option(help="Orders in which branches are opened (100).")] = None,
    threads: Threads = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="Even if it does not beat what is published there.")
    ] = False,
    private: Private = False,
    licence: Annotated[
        str | None, typer.Option("--license", help="Its licence; what its README says, else apache-2.0.")
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Publish a controller, measured, in one commit; or what a search found. Nothing newer is ever overwritten."""
    from tts_generate import publish as publishing

    how: dict[str, Any] = {
        "stores": store or (),
        "benchmarks": dict(map(_benchmark, benchmark or [])),
        "live": _rows(live) if live is not None else (),
        "replace": replace,
        "private": private or None,
        "licence": licence,
        **given(shuffles=shuffles, threads=threads, trust_remote_code=trust_remote_code or None),
        **({"betas": numbers_of("--betas", betas, float)} if betas else {}),
    }
    door = publishing.publish_run if publishing.is_run(folder) else publishing.publish
    tell(door(folder, repo, **how))


def tell(done: Any) -> None:
    """Say what was published, and how it is loaded."""
    if done.verdict is not None:
        console.print(f"Over what was there: {done.verdict}.")
    console.print(f"{done}\n{done.url}", soft_wrap=True)
    console.print(f'load_controller("{done.repo_id}", revision="{done.commit}")', soft_wrap=True)


@app.command()
@guarded
def pull(
    controller: Named,
    out: Annotated[Path, typer.Option(help="Folder for its files; must not exist or be empty.")],
    revision: Revision = None,
) -> None:
    """Copy a controller's repo into a folder. Its files are checked; none of its code runs."""
    from tts_generate.hub.fetch import pull as fetch

    source = fetch(controller, revision, out)
    console.print(f"{source.label}\n{out}", soft_wrap=True)


@app.command()
@guarded
def show(
    controller: Annotated[str, typer.Argument(help="A controller's name, its folder, or its repo on the Hub.")],
    revision: Revision = None,
) -> None:
    """Say what a controller is, whether it brings code, and what was measured. None of its code runs."""
    from tts_generate.loading import find_source, is_shipped
    from tts_generate.publish import evaluation_of
    from tts_generate.publish.measuring import rows_of

    source = find_source(controller, revision)
    card = source.card
    console.print(Text(card["name"], "bold"), f" {source.label}", soft_wrap=True)
    for line in card.get("description", "").split("\n"):
        console.print(f"  {line}", soft_wrap=True)  # not to be taken for one of ours
    if source.code is None:
        console.print(f"data alone, for {card['builtin']}: loads without trust")
    elif not is_shipped(source):
        console.print(f"code: {source.readable_at}\nneeds trust_remote_code, or sandbox", soft_wrap=True)
    for name, sha256 in source.files.items():
        console.print(f"{sha256}  {name}", soft_wrap=True)
    for name, knob in card.get("knobs", {}).items():
        console.print(f"  {name} = {json.dumps(knob)}")
    evaluation = evaluation_of(source)
    if evaluation is None:
        console.print("not measured")
        return
    for store in evaluation["stores"]:
        console.print(_curve(store, rows_of(evaluation, store)))


@app.command()
@guarded
def lock(
    controllers: Annotated[list[str] | None, typer.Argument(help="Repos, user/name or user/name@revision.")] = None,
    file: LockFile = None,
) -> None:
    """Write down the commit and the hashes of repos; without names, resolve those of the lock file again."""
    from tts_generate.hub.fetch import lock as write

    for entry in write(controllers or [], file):
        console.print(f"{entry.repo_id}@{entry.revision}  {entry.commit}", soft_wrap=True)


@app.command()
@guarded
def verify(
    controllers: Annotated[
        list[str] | None, typer.Argument(help="Folders or repos; those of the lock file if left out.")
    ] = None,
    file: LockFile = None,
) -> None:
    """Check every file of a controller against its card and the lock file. None of its code runs."""
    from tts_generate.hub.lock import lock_path, read_lock
    from tts_generate.publish import verify as check

    if file is not None and not file.is_file():
        raise InputError(f"{file} is not there; make a lock file ('tts-generate lock --file {file}'), or leave it out.")
    entries = read_lock(file or lock_path())
    names = controllers or [f"{entry.repo_id}@{entry.commit}" for entry in entries.values()]
    if not names:
        raise InputError(
            "there is nothing to verify: name a folder or a repo, or make a lock file ('tts-generate lock')."
        )
    for name in names:
        source = check(name, entries)
        console.print(f"{source.label}: as it says", soft_wrap=True)


def _benchmark(text: str) -> tuple[str, Any]:
    from tts_generate.publish import Benchmark

    store, equals, told = text.partition("=")
    dataset, _, task = told.partition(":")
    if not equals or "/" not in dataset:
        raise InputError(f"--benchmark takes STORE=user/dataset or STORE=user/dataset:task, got {text!r}.")
    return store, Benchmark(dataset, task or "default")


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ControllerError(f"{path} must hold a list of rows, as tts_generate.publish.measure_live returns them.")
    return rows


def _curve(store: dict[str, Any], own: Sequence[Any]) -> Table:
    title = f"{store['name']}: {store['questions']} questions, {store['model']['name_or_path']}, replay"
    table = plain(title, "method", "accuracy % (95 %)", "tokens", "probe", "wasted")
    for row in store["rows"]:
        low, high = row["accuracy_ci"]
        numbers = (f"{row[column]:,.0f}" for column in ("tokens", "probe_tokens", "wasted_tokens"))
        style = "bold" if any(row is mine for mine in own) else None
        table.add_row(row["label"], f"{row['accuracy']:.1f} ({low:.1f} - {high:.1f})", *numbers, style=style)
    return table
