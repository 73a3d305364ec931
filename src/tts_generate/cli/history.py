"""`tts-generate history`: what a search tried, as a table, as differences, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from tts_generate.cli.base import app, console, given, guarded, names_of, plain
from tts_generate.errors import InputError, UnknownNameError
from tts_generate.inert import inert

_SHOWN = 12


@app.command()
@guarded
def history(
    run: Annotated[Path, typer.Argument(help="Folder of a search.")],
    top: Annotated[int, typer.Option(min=1, help="Candidates to list, best first.")] = _SHOWN,
    diff: Annotated[
        str | None, typer.Option(help="Two candidates by name, separated by a comma: their knobs, or their code.")
    ] = None,
    show: Annotated[str | None, typer.Option(help="A candidate that a model wrote: its lineage and its code.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the frontiers of the listed ones as PNG or SVG.")] = None,
) -> None:
    """List what a search tried, compare two candidates, or plot the best."""
    from tts_generate.report.search_page import axis_of, counted_in
    from tts_generate.search import best_of
    from tts_generate.search.history import read_archive, read_settings

    if len(chosen := given(show=show, diff=diff, plot=plot)) > 1:
        raise InputError(f"{', '.join(f'--{name}' for name in chosen)} show one thing each; give one of them.")
    archive = read_archive(run)
    evaluations = archive.evaluations
    if show is not None:
        _show(archive, show)
        return
    if diff is not None:
        _print_difference(archive, diff)
        return
    if not evaluations and not archive.failures:
        raise InputError(f"{run} holds no evaluated candidate yet.")
    best, settings = best_of(evaluations, top), read_settings(run)
    tried = len({evaluation.candidate.name for evaluation in evaluations})
    console.print(_listed(best, tried, counted_in(settings)))
    _print_failures(archive, top)
    if plot is not None:
        from tts_generate.report.frontier import AXES, Point, plot_frontier

        points = [
            Point(e.candidate.name, tokens, accuracy, (accuracy, accuracy))
            for e in best
            for tokens, accuracy in zip(e.tokens, e.accuracy, strict=True)
        ]
        plot_frontier(points, plot, title=f"The best candidates of {run}", axis=AXES[axis_of(settings)])


def _listed(best: list[Any], tried: int, cost: str) -> Table:
    title = f"{len(best)} best of {tried} candidates, on the questions they were proposed by"
    table = plain(title, "candidate", "from", "rung", "mean gain", "worst", cost, "accuracy %", words=2)
    for e in best:
        spans = (f"{min(e.tokens):,.0f} - {max(e.tokens):,.0f}", f"{e.accuracy[0]:.1f} - {e.accuracy[-1]:.1f}")
        numbers = (str(e.rung), f"{e.mean:+.2f}", f"{min(e.gains):+.2f}")
        table.add_row(e.candidate.name, e.candidate.origin, *numbers, *spans)
    return table


def _print_failures(archive: Any, top: int) -> None:
    """Candidates that failed or were disqualified, and proposals that came to nothing, the last ones."""
    out = [f"{e.candidate.name}: {e.problem}" for e in archive.evaluations if e.problem is not None]
    lost = [f"round {failure.round + 1}: {failure.problem}" for failure in archive.failures]
    for title, lines in (("candidates that failed", out), ("proposals that failed", lost)):
        if lines:
            console.print(f"{len(lines)} {title}, the last ones:")
            for line in lines[-top:]:
                console.print(f"  {line}")


def _show(archive: Any, name: str) -> None:
    if name not in archive.written:
        raise UnknownNameError.of("candidate that a model wrote", name, archive.written)
    for entry in archive.lineage(name):
        last = archive.last(entry.candidate.name)
        gained = "not measured" if last is None else last.problem or f"{last.mean:+.2f} points"
        idea = inert(entry.candidate.idea, lines=False)
        told = f"{entry.candidate.name}  {entry.candidate.origin}, ${entry.usd:.2f}, {gained}\n  {idea}"
        console.print(told)
    console.print(archive.written[name].candidate.code, soft_wrap=True)  # code that was wrapped is none


def _print_difference(archive: Any, names: str) -> None:
    """Two candidates: the knobs that differ, or the lines."""
    known = {name: entry.candidate for name, entry in archive.written.items()}
    known |= {e.candidate.name: e.candidate for e in archive.evaluations}
    pair = names_of(names)
    if len(pair) != 2:
        raise InputError(f"--diff takes two names separated by a comma, got {names!r}.")
    for name in pair:
        if name not in known:
            raise UnknownNameError.of("candidate", name, known)
    one, other = (known[name] for name in pair)
    if pair[0] in archive.written:
        console.print("\n".join(one.difference(other)), soft_wrap=True)
    else:
        console.print(_difference(one, other))


def _difference(one: Any, other: Any) -> Table:
    from tts_generate.schedule import to_json

    ours, theirs = to_json(one.schedule), to_json(other.schedule)
    table = plain("knobs that differ", "knob", one.name, other.name, words=3)
    for knob in ours:
        if ours[knob] != theirs.get(knob):
            table.add_row(knob, _told(ours[knob]), _told(theirs.get(knob)))
    return table


def _told(knob: Any) -> str:
    return f"{knob['start']} to {knob['end']}" if isinstance(knob, dict) else str(knob)
