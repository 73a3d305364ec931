"""`tts-generate search`: controllers found on recorded branches."""

from __future__ import annotations

import contextlib
import math
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.live import Live
from rich.table import Table

from tts_generate.cli.base import Trust, app, console, guarded, names_of, numbers_of, plain
from tts_generate.errors import InputError, UnknownNameError


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
        str | None, typer.Option(help="Whose knobs to search: a name, or a folder; worth if left out.")
    ] = None,
    knobs: Annotated[str, typer.Option(help="Which of its knobs, separated by commas; all if left out.")] = "",
    reference: Annotated[str, typer.Option(help="The controller to beat at equal cost.")] = "cmc",
    held_out: Annotated[
        list[Path] | None, typer.Option(help="A store to open once, after the choice; may be given again.")
    ] = None,
    objective: Annotated[
        Literal["tokens", "balanced", "latency", "sequential"],
        typer.Option(
            help="Gain at equal tokens; with a chain no longer than SC's, or .45 of it; or at an equal chain."
        ),
    ] = "tokens",
    share: Annotated[
        float, typer.Option(help="Of the questions, which only choose and are not learnt from; 0: all do both.")
    ] = 1 / 3,
    weights: Annotated[str, typer.Option(help="How much each store counts, separated by commas.")] = "",
    rounds: Annotated[int | None, typer.Option(help="End after so many rounds, before the time is up.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Candidates tried at once; all cores if left out.")] = None,
    push_to: Annotated[
        str | None, typer.Option(help="Publish what is found as this repo, user/name, unless what is there is as good.")
    ] = None,
    trust_remote_code: Trust = False,
    proposer: Annotated[
        Literal["parameters", "anthropic", "command"],
        typer.Option(help="Who proposes: Optuna, or a model that writes code; of your own by --program."),
    ] = "parameters",
    program: Annotated[
        str | None, typer.Option(help="Command: a program that answers as a model would, in lines of JSON.")
    ] = None,
    conversation: Annotated[
        Path | None, typer.Option(help="Folder of a search whose replies answer once more, without a key.")
    ] = None,
    max_cost_usd: Annotated[
        float | None, typer.Option(help="Agent: what it may spend, earlier sittings counted.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="Agent: the model, claude-sonnet-5-5 if left out.")] = None,
    effort: Annotated[str | None, typer.Option(help="Agent: how much it thinks, low to max.")] = None,
    prices: Annotated[Path | None, typer.Option(help="Agent: a price table, instead of the one that ships.")] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Agent: a device's profile, of tts-generate profile: seconds on it are told too."),
    ] = None,
    calls: Annotated[int | None, typer.Option(help="Agent: requests of a round at most, 16 if left out.")] = None,
    max_tokens: Annotated[int | None, typer.Option(help="Agent: tokens of a reply at most, 16000 if left out.")] = None,
    without: Annotated[str, typer.Option(help="Agent: an ablation: traces, beta, or both separated by a comma.")] = "",
    without_lock: Annotated[
        list[str] | None, typer.Option(help="Agent: a lock of the sandbox to leave off; may be given again.")
    ] = None,
    sandbox_prefix: Annotated[
        str | None, typer.Option(help="Agent: a command that starts a container around it.")
    ] = None,
) -> None:
    """Search for a controller that beats a reference at equal cost, by replay: no model runs on the questions.

    By default nothing is charged. `--proposer anthropic` has a language model write controllers; it needs
    ANTHROPIC_API_KEY and --max-cost-usd. `--proposer command` asks a program of yours, `--conversation` a file.
    """
    from tts_generate.search import Search, SearchProgress, Setup, write_report
    from tts_generate.tracking import bars_shown

    given = {
        "controller": controller, "knobs": knobs, "program": program, "conversation": conversation, "without": without,
        "max_cost_usd": max_cost_usd, "model": model, "effort": effort, "prices": prices, "calls": calls,
        "max_tokens": max_tokens, "profile": profile, "without_lock": without_lock, "sandbox_prefix": sandbox_prefix,
    }  # fmt: skip
    agent = _agent(proposer, {name: value for name, value in given.items() if value not in (None, "", [])})
    setup = Setup(
        tuple(stores),
        controller=controller or "worth",
        knobs=tuple(names_of(knobs)) or None,
        reference=reference,
        seed=seed,
        objective=objective,
        share=share,
        weights=tuple(numbers_of("--weights", weights, float)) or None,
        trust_remote_code=trust_remote_code,
    )
    if push_to is not None:
        from tts_generate.hub.commit import check_login
        from tts_generate.hub.names import check_repo_id

        check_repo_id(push_to)  # now, not after the search
        check_login(push_to)
    found = Search(setup, agent, box := _box(without_lock, sandbox_prefix))
    with box or contextlib.nullcontext(), Live(console=console, transient=True, refresh_per_second=2) as live:

        def watch(progress: SearchProgress) -> None:
            if bars_shown():
                live.update(_standing(progress, objective))

        result = found.run(
            out,
            minutes=minutes if minutes is not None else 10.0 if agent is None else math.inf,
            max_rounds=rounds,
            threads=threads,
            held_out=held_out or (),
            command=shlex.join(["tts-generate", *sys.argv[1:]]),
            watch=watch,
            say=lambda line: console.print(line, soft_wrap=True),
        )
    _conclude(result, reference, objective, write_report(out), out / "best")
    if push_to is not None:
        from tts_generate.cli.hub import tell
        from tts_generate.publish import publish_run

        tell(publish_run(out, push_to, threads=threads, trust_remote_code=trust_remote_code))


_BOXED = {"without_lock", "sandbox_prefix"}
_OF_AGENTS = {"calls", "max_tokens", "without", "profile", *_BOXED}
_TAKEN: dict[str, set[str]] = {
    "parameters": {"controller", "knobs"},
    "anthropic": {"max_cost_usd", "model", "effort", "prices", *_OF_AGENTS},
    "command": {"program", *_OF_AGENTS},
    "a conversation on file": {"conversation", *_BOXED},
}
"""The options that are for some proposers only."""


def _agent(proposer: str, given: dict[str, Any]) -> Any:
    """The agent that the options ask for; None where knobs are searched."""
    replayed = "conversation" in given
    who = "a conversation on file" if replayed else proposer
    for name in (name for name in given if name not in _TAKEN[who]):
        owners = [f"--proposer {other}" for other in ("anthropic", "command", "parameters") if name in _TAKEN[other]]
        owner = "another search" if replayed else owners[0]
        raise InputError(f"--{name.replace('_', '-')} is for {owner}; this is {who}.")
    if who == "parameters":
        return None
    from tts_generate.search.agent import Agent

    if replayed:
        return Agent.of(given["conversation"])
    if proposer == "command" and "program" not in given:
        raise InputError("--proposer command asks a program: name it by --program.")
    off = names_of(given.pop("without", ""))
    for name in off:
        if name not in ("traces", "beta"):
            raise UnknownNameError.of("ablation", name, ("traces", "beta"))
    options = {name: value for name, value in given.items() if name not in _BOXED}
    return Agent(**options, traces="traces" not in off, beta="beta" not in off)


def _box(without_lock: list[str] | None, sandbox_prefix: str | None) -> Any:
    if not without_lock and not sandbox_prefix:
        return None
    from tts_generate.sandbox import Sandbox

    return Sandbox(without=without_lock or (), prefix=shlex.split(sandbox_prefix or ""))


def _conclude(result: dict[str, Any], reference: str, objective: str, report: Path, best: Path) -> None:
    gain = result["fresh"]["gain"]
    paid = f", ${result['usd']:.2f}" if result["usd"] else ""
    console.print(
        f"{result['tried']} candidates, {result['candidates_per_minute']:.0f} a minute{paid}; chosen "
        f"{result['candidate']['name']}: {gain['mean']:+.2f} points over {reference} at equal cost "
        f"(objective {objective}; 95 % interval {gain['interval'][0]:+.2f} to {gain['interval'][1]:+.2f}, "
        f"worst cost {gain['worst']:+.2f}) "
        f"on the search set, fresh orders.\n{report}\n{best}",
    )


def _standing(progress: Any, objective: str) -> Table:
    """The best frontier so far, as a live table."""
    from tts_generate.report.search_page import counted_in

    left = f" · {progress.seconds_left:.0f} s left" if math.isfinite(progress.seconds_left) else ""
    spent = f"{progress.seconds:.0f} s and ${progress.usd:.2f} spent"
    title = f"round {progress.round} · {progress.tried} candidates · {spent}{left}"
    title = f"{title}\nthe best {progress.saved}" if progress.saved else title
    cost = counted_in({"objective": objective})
    table = plain(title, "best frontier so far", cost, "accuracy %", words=0)
    best = progress.best
    if best is not None:
        for number, (tokens, accuracy) in enumerate(zip(best.tokens, best.accuracy, strict=True)):
            first = f"{best.candidate.name}: {best.mean:+.2f} points" if number == 0 else ""
            table.add_row(first, f"{tokens:,.0f}", f"{accuracy:.2f}")
    return table
