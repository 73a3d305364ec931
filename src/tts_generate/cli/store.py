"""`tts-generate store push | pull | check | repair`: trajectory stores as datasets of the Hub, and their health."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tts_generate.cli.base import Private, Store, app, console, guarded, read
from tts_generate.errors import InputError

if TYPE_CHECKING:
    from tts_generate.trajectories import CheckedStore

stores = typer.Typer(
    help="Share trajectory stores as datasets of the Hub; check and repair them.", no_args_is_help=True
)
app.add_typer(stores, name="store")
Repo = Annotated[str, typer.Argument(help="A dataset of the Hub: user/name.")]


@stores.command()
@guarded
def push(
    store: Store,
    repo_id: Repo,
    tag: Annotated[str | None, typer.Option(help="Tag for the commit.")] = None,
    private: Private = False,
    replace: Annotated[
        bool, typer.Option("--replace", help="Though the store there has branches or settings that this one has not.")
    ] = False,
    licence: Annotated[
        str | None, typer.Option("--license", "--licence", help="Identifier such as apache-2.0.")
    ] = None,
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
        description=read(description) if description is not None else None,
        message=message,
    )
    console.print(str(made), soft_wrap=True)
    console.print(made.url, soft_wrap=True)


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


@stores.command()
@guarded
def check(store: Store) -> None:
    """Read every file of a store and say what is wrong with which; writes nothing. Exit code 1 if anything is."""
    from tts_generate.trajectories import check as run

    found = run(store)
    _show(found)
    if not found.sound:
        console.print(f"tts-generate store repair {store} keeps what can be read.", soft_wrap=True)
        raise typer.Exit(1)


@stores.command()
@guarded
def repair(store: Store) -> None:
    """Keep every branch that can be read and move damaged files aside; nothing is deleted."""
    from tts_generate.trajectories import repair as run

    before, after = run(store)
    for finding in before.findings if before is not after else ():
        if finding.wrong:
            console.print(f"mended: {finding}", soft_wrap=True)
    _show(after)
    if after.branches < after.expected:
        console.print("Run the command that recorded it again: it fills in what is missing.")


def _show(found: CheckedStore) -> None:
    for finding in found.findings:
        kind = "WRONG" if finding.wrong else "note"
        console.print(f"{kind}: {finding}", soft_wrap=True)
    of = f" of {found.expected}" if found.expected else ""
    verdict = "nothing is wrong" if found.sound else "damaged"
    console.print(f"{found.path}: {verdict}; {found.branches}{of} branches can be read", soft_wrap=True)
