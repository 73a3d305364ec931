"""`tts-generate store push | pull`: trajectory stores as datasets of the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tts_generate.cli.base import Store, app, console, guarded
from tts_generate.errors import InputError

stores = typer.Typer(help="Share trajectory stores as datasets of the Hub.", no_args_is_help=True)
app.add_typer(stores, name="store")
Repo = Annotated[str, typer.Argument(help="A dataset of the Hub: user/name.")]


@stores.command()
@guarded
def push(
    store: Store,
    repo_id: Repo,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit.")] = None,
    private: Annotated[bool, typer.Option("--private", help="Make a new repo private.")] = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Though the store there has branches or settings that this one has not.")
    ] = False,
    licence: Annotated[str | None, typer.Option(help="Identifier such as apache-2.0.")] = None,
    description: Annotated[Path | None, typer.Option(help="Markdown file for the page.")] = None,
    message: Annotated[str | None, typer.Option(help="Of the commit.")] = None,
) -> None:
    """Publish what is recorded so far, in one commit on what is there."""
    from tts_generate.publish import publish_store

    if description is not None and not description.is_file():
        raise InputError(f"{description} is not a file.")
    made = publish_store(
        store,
        repo_id,
        tag=tag,
        private=private or None,
        replace=replace,
        licence=licence,
        description=description.read_text("utf-8") if description is not None else None,
        message=message,
    )
    console.print(str(made), highlight=False, soft_wrap=True)
    console.print(made.url, highlight=False, soft_wrap=True)


@stores.command()
@guarded
def pull(
    repo_id: Annotated[str, typer.Argument(help="A dataset of the Hub: user/name, or user/name@revision.")],
    out: Annotated[Path, typer.Option(help="Folder for the copy; it must not be there, or be empty.")],
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit (main).")] = None,
) -> None:
    """Copy a store of the Hub into a folder, every file checked by its hash."""
    from tts_generate.hub.names import repo_of
    from tts_generate.trajectories import pull as run

    repo = repo_of(repo_id, revision)
    if repo is None:
        raise InputError(f"{repo_id!r} is no dataset of the Hub; expected is 'user/name'.")
    store = run(repo.repo_id, out, revision=repo.revision)
    console.print(f"{len(store.trajectories())} branches of {len(store.questions)} questions in {out}", soft_wrap=True)
