"""`tts-generate sandbox check`: which attacks of a candidate's code are stopped on this machine."""

from __future__ import annotations

import typer
from rich.text import Text

from tts_generate.cli.base import JsonFile, app, console, guarded, plain, write_json

sandbox = typer.Typer(help="The sandbox in which candidates run.", no_args_is_help=True)
app.add_typer(sandbox, name="sandbox")


@sandbox.callback()
def about() -> None:
    """The sandbox in which candidates run."""


@sandbox.command()
@guarded
def check(json_file: JsonFile = None) -> None:
    """Try attacks on this machine; exit code 1 if one is not stopped."""
    from dataclasses import asdict

    from tts_generate.sandbox import Sandbox
    from tts_generate.sandbox.attacks import check as try_all

    with Sandbox() as tried:
        line = tried.line
    outcomes = list(try_all())
    table = plain(line, "a candidate tries to", "stopped", "by any one of", words=3)
    for outcome in outcomes:
        table.add_row(outcome.attack, "yes" if outcome.stopped else Text("NO", "red"), ", ".join(outcome.by))
    console.print(table)
    through = [outcome.attack for outcome in outcomes if not outcome.stopped]
    console.print(f"{len(outcomes) - len(through)} of {len(outcomes)} attacks stopped")
    if json_file is not None:
        write_json(
            json_file, {"format": "tts-sandbox-check/1", "locks": line, "attacks": [asdict(o) for o in outcomes]}
        )
    if through:
        raise typer.Exit(1)
