"""`tts-generate search | history`: controllers found on recorded branches."""

from __future__ import annotations

import difflib
import math
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
    minutes: Annotated[
        float | None, typer.Option(help="Time for trying candidates, earlier sittings counted: 10; an agent: no end.")
    ] = None,
    seed: Annotated[int, typer.Option(help="The same seed, the same candidates.")] = 0,
    controller: Annotated[
        str | None, typer.Option(help="Whose knobs to search: a name, or a folder; composed if left out.")
    ] = None,
    knobs: Annotated[str, typer.Option(help="Which of its knobs, separated by commas; all if left out.")] = "",
    reference: Annotated[str, typer.Option(help="The controller to beat at equal cost.")] = "cmc",
    held_out: Annotated[
        list[Path] | None, typer.Option(help="A store to open once, after the choice; may be given again.")
    ] = None,
    cost: Annotated[Literal["tokens", "sequential"], typer.Option(help="What a budget is counted in.")] = "tokens",
    weights: Annotated[str, typer.Option(help="How much each store counts, separated by commas.")] = "",
    rounds: Annotated[int | None, typer.Option(help="End after so many rounds, before the time is up.")] = None,
    threads: Annotated[int | None, typer.Option(help="Candidates tried at once; all cores if left out.")] = None,
    trust_remote_code: Trust = False,
    proposer: Annotated[
        Literal["parameters", "anthropic"], typer.Option(help="Who proposes: Optuna, or a model that writes code.")
    ] = "parameters",
    max_cost_usd: Annotated[
        float | None, typer.Option(help="Agent: what it may spend, earlier sittings counted.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Agent: the model, claude-sonnet-5-5 if left out.")] = None,
    effort: Annotated[str | None, typer.Option(help="Agent: how much it thinks, low to max.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Agent: a price table, instead of the one that ships.")] = None,
    calls: Annotated[int | None, typer.Option(help="Agent: requests of a round at most, 16 if left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Agent: tokens of a reply at most, 16000 if left out.")] = None,
    without: Annotated[
        list[Literal["traces", "beta"]] | None, typer.Option(help="Agent: an ablation; may be given again.")
    ] = None,
    without_lock: Annotated[
        list[str] | None, typer.Option(help="Agent: a lock of the sandbox to leave off; may be given again.")
    ] = None,
    sandbox_prefix: Annotated[
        str | None, typer.Option(help="Agent: a command that starts a container around it.")
    ] = None,
) -> None:
    """Search for a controller that beats a reference at equal cost, by replay: no model runs on the questions.

    By default nothing is charged. `--proposer anthropic` has a language model write controllers; it needs
    ANTHROPIC_API_KEY and --max-cost-usd.
    """
    from tts_generate.search import Progress, Search, Setup, write_report

    agent = _agent(
        proposer,
        {"max_cost_usd": max_cost_usd, "model": model, "effort": effort, "prices": prices, "calls": calls}
        | {
            "max_tokens": max_tokens,
            "without": without,
            "without_lock": without_lock,
            "sandbox_prefix": sandbox_prefix,
        },
        {"controller": controller, "knobs": knobs or None},
    )
    setup = Setup(
        tuple(stores),
        controller=controller or "composed",
        knobs=tuple(name.strip() for name in knobs.split(",") if name.strip()) or None,
        reference=reference,
        seed=seed,
        cost=cost,
        weights=tuple(numbers_of("--weights", weights, float)) or None,
        trust_remote_code=trust_remote_code,
    )
    found = Search(setup, agent)
    with Live(console=console, transient=True, refresh_per_second=2) as live:

        def watch(progress: Progress) -> None:
            live.update(_standing(progress))

        result = found.run(
            out,
            minutes=minutes if minutes is not None else 10.0 if agent is None else math.inf,
            max_rounds=rounds,
            threads=threads,
            held_out=held_out or (),
            command=shlex.join(["tts-generate", *sys.argv[1:]]),
            watch=watch,
            say=lambda line: console.print(line, highlight=False, soft_wrap=True),
        )
    _conclude(result, reference, cost, write_report(out), out / "best")


def _agent(proposer: str, given: dict[str, Any], others: dict[str, Any]) -> Any:
    """The agent that the options ask for; None for the parameters proposer.

    Raises:
        InputError: an option of the other proposer, or no budget.
    """
    foreign = given if proposer == "parameters" else others
    for name, value in foreign.items():
        if value:
            other = "anthropic" if proposer == "parameters" else "parameters"
            raise InputError(f"--{name.replace('_', '-')} is for --proposer {other}; this is {proposer}.")
    if proposer == "parameters":
        return None
    if given["max_cost_usd"] is None:
        raise InputError("--proposer anthropic spends money: say how much it may spend by --max-cost-usd.")
    from tts_generate.search.agent import Agent

    off = given.pop("without") or ()
    locks, prefix = given.pop("without_lock") or (), given.pop("sandbox_prefix")
    kept = {name: value for name, value in given.items() if value is not None}
    return Agent(
        **kept,
        traces="traces" not in off,
        beta="beta" not in off,
        without_locks=tuple(locks),
        sandbox_prefix=tuple(shlex.split(prefix or "")),
    )


def _conclude(result: dict[str, Any], reference: str, cost: str, report: Path, best: Path) -> None:
    """What was found, and where it is."""
    gain = result["fresh"]["gain"]
    paid = f", ${result['usd']:.2f}" if result["usd"] else ""
    console.print(
        f"{result['tried']} candidates, {result['candidates_per_minute']:.0f} a minute{paid}; chosen "
        f"{result['candidate']['name']}: {gain['mean']:+.2f} points over {reference} at equal {cost} "
        f"(95 % interval {gain['interval'][0]:+.2f} to {gain['interval'][1]:+.2f}, worst cost {gain['worst']:+.2f}) "
        f"on the search set, fresh orders.\n{report}\n{best}",
        highlight=False,
    )


def _standing(progress: Any) -> Table:
    """The best frontier so far, as a live table."""
    left = f" · {progress.seconds_left:.0f} s left" if math.isfinite(progress.seconds_left) else ""
    spent = f"{progress.seconds:.0f} s and ${progress.usd:.2f} spent"
    title = f"round {progress.round} · {progress.tried} candidates · {spent}{left}"
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
    diff: Annotated[
        str | None, typer.Option(help="Two candidates by name, separated by a comma: their knobs, or their code.")
    ] = None,
    show: Annotated[str | None, typer.Option(help="A candidate that a model wrote: its lineage and its code.")] = None,
    plot: Annotated[Path | None, typer.Option(help="Write the frontiers of the listed ones as PNG or SVG.")] = None,
) -> None:
    """List what a search tried, compare two candidates, or plot the best."""
    from tts_generate.search import best_of
    from tts_generate.search.history import read_archive

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
    best = best_of(evaluations, top)
    console.print(_listed(best, len({evaluation.candidate.name for evaluation in evaluations})))
    _print_failures(archive, top)
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


def _print_failures(archive: Any, top: int) -> None:
    """Candidates that failed or were disqualified, and proposals that came to nothing, the last ones."""
    out = [f"{e.candidate.name}: {e.problem}" for e in archive.evaluations if e.problem is not None]
    lost = [f"round {failure.round + 1}: {failure.problem}" for failure in archive.failures]
    for title, lines in (("candidates that failed", out), ("proposals that failed", lost)):
        if lines:
            console.print(f"{len(lines)} {title}, the last ones:", highlight=False)
            for line in lines[-top:]:
                console.print(f"  {line}", highlight=False, markup=False)


def _show(archive: Any, name: str) -> None:
    """A candidate's ancestors with their ideas, and its code."""
    if name not in archive.written:
        raise UnknownNameError.of("candidate that a model wrote", name, archive.written)
    for entry in archive.lineage(name):
        last = archive.last(entry.candidate.name)
        gained = "not measured" if last is None else last.problem or f"{last.mean:+.2f} points"
        told = f"{entry.candidate.name}  {entry.candidate.origin}, ${entry.usd:.2f}, {gained}\n  {entry.candidate.idea}"
        console.print(told, highlight=False, markup=False)
    console.print(archive.written[name].candidate.code, highlight=False, markup=False)


def _print_difference(archive: Any, names: str) -> None:
    """Two candidates: the knobs that differ, or the lines."""
    known = {name: entry.candidate for name, entry in archive.written.items()}
    known |= {e.candidate.name: e.candidate for e in archive.evaluations}
    pair = [name.strip() for name in names.split(",")]
    if len(pair) != 2:
        raise InputError(f"--diff takes two names separated by a comma, got {names!r}.")
    for name in pair:
        if name not in known:
            raise UnknownNameError.of("candidate", name, known)
    one, other = (known[name] for name in pair)
    if pair[0] in archive.written:
        lines = difflib.unified_diff(one.code.splitlines(), other.code.splitlines(), *pair, lineterm="")
        console.print("\n".join(lines), highlight=False, markup=False)
    else:
        console.print(_difference(one, other))


def _difference(one: Any, other: Any) -> Table:
    from tts_generate.schedule import to_json

    ours, theirs = to_json(one.schedule), to_json(other.schedule)
    table = Table(title="knobs that differ", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("knob", one.name, other.name):
        table.add_column(name)
    for knob in ours:
        if ours[knob] != theirs.get(knob):
            table.add_row(knob, _told(ours[knob]), _told(theirs.get(knob)))
    return table


def _told(knob: Any) -> str:
    return f"{knob['start']} to {knob['end']}" if isinstance(knob, dict) else str(knob)
