"""`tts-generate search | history`: controllers found on recorded branches."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.live import Live
from rich.table import Table

from tts_generate.cli.base import Trust, app, console, guarded, numbers_of
from tts_generate.errors import InputError, UnknownNameError

_SHOWN = 12


@app.command()
@guarded
def search(
    stores: Annotated[list[Path], typer.Argument(help="Folders of the trajectory stores to search on.")],
    out: Annotated[Path, typer.Option(help="Folder of the search; an unfinished one is gone on with.")],
    minutes: Annotated[float, typer.Option(help="Time for trying candidates, earlier sittings counted.")] = 10.0,
    seed: Annotated[int, typer.Option(help="The same seed, the same candidates.")] = 0,
    controller: Annotated[str, typer.Option(help="Whose knobs to search: a name, or a folder.")] = "composed",
    knobs: Annotated[str, typer.Option(help="Which of its knobs, separated by commas; all if left out.")] = "",
    reference: Annotated[str, typer.Option(help="The controller to beat at equal cost.")] = "cmc",
    held_out: Annotated[
        list[Path] | None, typer.Option(help="A store to open once, after the choice; may be given again.")
    ] = None,
    cost: Annotated[Literal["tokens", "sequential"], typer.Option(help="What a budget is counted in.")] = "tokens",
    share: Annotated[
        float, typer.Option(help="Of the questions, which only choose and are not learnt from; 0: all do both.")
    ] = 1 / 3,
    weights: Annotated[str, typer.Option(help="How much each store counts, separated by commas.")] = "",
    rounds: Annotated[int | None, typer.Option(help="End after so many rounds, before the time is up.")] = None,
    threads: Annotated[int | None, typer.Option(help="Candidates tried at once; all cores if left out.")] = None,
    push_to: Annotated[
        str | None, typer.Option(help="Publish what is found as this repo, user/name, unless what is there is as good.")
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Search for a controller that beats a reference at equal cost, by replay alone: no model, no charge."""
    from tts_generate.search import Progress, Search, Setup, write_report

    setup = Setup(
        tuple(stores),
        controller=controller,
        knobs=tuple(name.strip() for name in knobs.split(",") if name.strip()) or None,
        reference=reference,
        seed=seed,
        cost=cost,
        share=share,
        weights=tuple(numbers_of("--weights", weights, float)) or None,
        trust_remote_code=trust_remote_code,
    )
    if push_to is not None:
        from tts_generate.hub.commit import check_login

        check_login(push_to)  # now, not after the search
    found = Search(setup)
    with Live(console=console, transient=True, refresh_per_second=2) as live:

        def watch(progress: Progress) -> None:
            live.update(_standing(progress))

        result = found.run(
            out,
            minutes=minutes,
            max_rounds=rounds,
            threads=threads,
            held_out=held_out or (),
            command=shlex.join(["tts-generate", *sys.argv[1:]]),
            watch=watch,
        )
    report = write_report(out)
    gain = result["fresh"]["gain"]
    console.print(
        f"{result['tried']} candidates, {result['candidates_per_minute']:.0f} a minute; chosen "
        f"{result['candidate']['name']}: {gain['mean']:+.2f} points over {reference} at equal {cost} "
        f"(95 % interval {gain['interval'][0]:+.2f} to {gain['interval'][1]:+.2f}, worst cost {gain['worst']:+.2f}) "
        f"on the search set, fresh orders.\n{report}\n{out / 'best'}",
        highlight=False,
    )
    if push_to is not None:
        from tts_generate.cli.hub import tell
        from tts_generate.publish import publish_run

        tell(publish_run(out, push_to, threads=threads, trust_remote_code=trust_remote_code))


def _standing(progress: Any) -> Table:
    """The best frontier so far, as a live table."""
    title = (
        f"round {progress.round} · {progress.tried} candidates · {progress.seconds:.0f} s spent, $0 · "
        f"{progress.seconds_left:.0f} s left"
    )
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("best frontier so far", "tokens", "accuracy %"):
        table.add_column(name, justify="right")
    best = progress.best
    if best is not None:
        for number, (tokens, accuracy) in enumerate(zip(best.tokens, best.accuracy, strict=True)):
            first = f"{best.candidate.name}: {best.mean:+.2f} points" if number == 0 else ""
            table.add_row(first, f"{tokens:,.0f}", f"{accuracy:.2f}")
    return table


@app.command()
@guarded
def history(
    run: Annotated[Path, typer.Argument(help="Folder of a search.")],
    top: Annotated[int, typer.Option(help="Candidates to list, best first.")] = _SHOWN,
    diff: Annotated[str | None, typer.Option(help="Two candidates by name, separated by a comma: their knobs.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the frontiers of the listed ones as PNG or SVG.")] = None,
) -> None:
    """List what a search tried, compare two candidates, or plot the best."""
    from tts_generate.search import best_of, read_history

    evaluations = read_history(run)
    if not evaluations:
        raise InputError(f"{run} holds no evaluated candidate yet.")
    if diff is not None:
        console.print(_difference(evaluations, diff))
        return
    best = best_of(evaluations, top)
    console.print(_listed(best, len({evaluation.candidate.name for evaluation in evaluations})))
    if plot is not None:
        from tts_generate.report.frontier import Point, plot_frontier

        points = [
            Point(e.candidate.name, tokens, accuracy, (accuracy, accuracy))
            for e in best
            for tokens, accuracy in zip(e.tokens, e.accuracy, strict=True)
        ]
        plot_frontier(points, plot, title=f"The best candidates of {run}")


def _listed(best: list[Any], tried: int) -> Table:
    title = f"{len(best)} best of {tried} candidates, on the questions they were proposed by"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("candidate", "from", "rung", "mean gain", "worst", "tokens", "accuracy %"):
        table.add_column(name, justify="left" if name in ("candidate", "from") else "right")
    for e in best:
        spans = (f"{min(e.tokens):,.0f} - {max(e.tokens):,.0f}", f"{e.accuracy[0]:.1f} - {e.accuracy[-1]:.1f}")
        numbers = (str(e.rung), f"{e.mean:+.2f}", f"{min(e.gains):+.2f}")
        table.add_row(e.candidate.name, e.candidate.origin, *numbers, *spans)
    return table


def _difference(evaluations: list[Any], names: str) -> Table:
    from tts_generate.schedule import to_json

    known = {e.candidate.name: e.candidate for e in evaluations}
    pair = [name.strip() for name in names.split(",")]
    if len(pair) != 2:
        raise InputError(f"--diff takes two names separated by a comma, got {names!r}.")
    for name in pair:
        if name not in known:
            raise UnknownNameError.of("candidate", name, known)
    ours, theirs = (to_json(known[name].schedule) for name in pair)
    table = Table(title="knobs that differ", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("knob", *pair):
        table.add_column(name)
    for knob in ours:
        if ours[knob] != theirs.get(knob):
            table.add_row(knob, _told(ours[knob]), _told(theirs.get(knob)))
    return table


def _told(knob: Any) -> str:
    return f"{knob['start']} to {knob['end']}" if isinstance(knob, dict) else str(knob)
