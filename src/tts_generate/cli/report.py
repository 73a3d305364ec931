"""`tts-generate report`: one page of what a store, a sweep, a search or a live run holds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from tts_generate.cli.base import Trust, app, console, guarded, names_of, numbers_of, read, write
from tts_generate.errors import InputError
from tts_generate.hub.names import repo_of

_CONTROLLERS = "self_consistency,asc,parallel_probe,cmc"
_BETAS = "0,0.2,0.5,0.8,1"
_WATCHED = ("cmc@0.5", "parallel_probe@0.5", "asc@0.5")
_SHUFFLES = 20
Draw = Callable[[Path, Sequence[str]], Iterator[Path]]
"""Draws the pictures of a page into a folder, with the lanes of the questions named."""


@app.command()
@guarded
def report(
    paths: Annotated[
        list[Path],
        typer.Argument(
            help="Stores, or the JSON of one sweep, or one search's folder, or traces of live runs (.jsonl)."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The page.")] = Path("report.html"),
    controllers: Annotated[
        str | None, typer.Option(help=f"Of stores: what to sweep. [default: {_CONTROLLERS}]")
    ] = None,
    betas: Annotated[str | None, typer.Option(help=f"Of stores: their budgets. [default: {_BETAS}]")] = None,
    watch: Annotated[
        list[str] | None, typer.Option(help="A method whose traces to show, controller@beta; may be given again.")
    ] = None,
    shuffles: Annotated[
        int | None, typer.Option(help=f"Of stores: orders in which branches are opened. [default: {_SHUFFLES}]")
    ] = None,
    votes: Annotated[
        Literal["equal", "math"] | None, typer.Option(help="Which answers are one. [default: equal]")
    ] = None,
    store: Annotated[
        list[Path] | None, typer.Option(help="Of a search: a store of it, to watch what was found; may be given again.")
    ] = None,
    questions: Annotated[
        Path | None, typer.Option(help="Of traces: the questions, JSON lines, for their texts and gold answers.")
    ] = None,
    plots: Annotated[
        Path | None, typer.Option(help="Also write the pictures into this folder, as PNG and SVG.")
    ] = None,
    plot_question: Annotated[
        list[str] | None,
        typer.Option(help="Of --plots: a question to draw, by id, or all; may be given again. [default: the first]"),
    ] = None,
    trust_remote_code: Trust = False,
) -> None:
    """Write one self-contained HTML page: frontiers, tokens by kind, every question, and a viewer of traces."""
    given = Asking(controllers, betas, watch, shuffles, votes)
    named = given._asdict() | {"store": store, "questions": questions, "plots": plots, "plot-question": plot_question}
    kind = kind_of(paths)
    _refuse(kind, {f"--{name}" for name, value in named.items() if value is not None})
    if plot_question and plots is None:
        raise InputError("--plot-question chooses what --plots draws; name the folder with --plots.")
    html, draw = (
        _search(paths[0], store or [], watch, trust_remote_code)
        if kind == "search"
        else _drawn(_page(kind, paths, given, questions, trust_remote_code))
    )
    write(out, html)
    if plots is not None:
        for picture in draw(plots, plot_question or ()):
            console.print(str(picture))
    console.print(f"{out}, {out.stat().st_size:,} bytes")


class Asking(NamedTuple):
    """What was asked for, None where it was left out."""

    controllers: str | None
    betas: str | None
    watch: list[str] | None
    shuffles: int | None
    votes: Literal["equal", "math"] | None


def _page(kind: str, paths: list[Path], given: Asking, questions: Path | None, trust_remote_code: bool) -> Any:
    if kind == "stores":
        return _stores_page(paths, given, trust_remote_code)
    if kind == "sweep":
        from tts_generate.report.gather import of_sweep

        watched = None if given.watch is None else [_watched(text, None, trust_remote_code) for text in given.watch]
        return of_sweep(paths[0], watched, trust_remote_code=trust_remote_code)
    from tts_generate.report.live import of_traces
    from tts_generate.trajectories.schema import questions_from_jsonl

    golds = () if questions is None else questions_from_jsonl(read(questions), questions)
    return of_traces(paths, golds, given.votes or "equal")


def kind_of(paths: Sequence[Path]) -> str:
    """What the paths are: "stores", "sweep", "search" or "traces".

    Raises:
        InputError: they are none of these, or not all of one kind, or more than one sweep or search.
    """
    kinds = {_kind(path) for path in paths}
    if len(kinds) > 1:
        raise InputError(f"one report is of one kind of thing, got {' and '.join(sorted(kinds))}.")
    kind = kinds.pop()
    if kind in ("sweep", "search") and len(paths) > 1:
        raise InputError(f"a report is of one {kind}, got {len(paths)}.")
    return kind


def _kind(path: Path) -> str:
    there = path.exists() or path.suffix in (".json", ".jsonl")
    if (path / "manifest.json").is_file() or (not there and repo_of(str(path)) is not None):
        return "stores"
    if path.is_dir() and ((path / "result.json").is_file() or (path / "search.json").is_file()):
        return "search"
    if path.is_file() and path.suffix in (".json", ".jsonl"):
        return "sweep" if path.suffix == ".json" else "traces"
    raise InputError(
        f"{path} is no trajectory store, no folder of a search that has ended, no JSON file of a sweep and no .jsonl "
        "file of traces."
    )


_OPTIONS = {
    "stores": {"--controllers", "--betas", "--watch", "--shuffles", "--votes", "--plots", "--plot-question"},
    "sweep": {"--watch", "--plots", "--plot-question"},
    "search": {"--store", "--watch", "--plots", "--plot-question"},
    "traces": {"--questions", "--votes", "--plots", "--plot-question"},
}


def _refuse(kind: str, given: set[str]) -> None:
    for name in sorted(given - _OPTIONS[kind]):
        raise InputError(f"{name} means nothing for {kind}; there are {', '.join(sorted(_OPTIONS[kind]))}.")


def _watched(text: str, branches: int | None, trust_remote_code: bool) -> Any:
    name, at, budget = text.rpartition("@")
    budgets = numbers_of("--watch", budget, float) if at else []
    if len(budgets) != 1:
        raise InputError(f"--watch takes controller@beta, got {text!r}.")
    from tts_generate.evaluate import Method

    return Method.at(name, budgets[0], branches, trust_remote_code=trust_remote_code)


def _stores_page(stores: list[Path], given: Asking, trust_remote_code: bool) -> Any:
    from tts_generate.evaluate import Method, baselines
    from tts_generate.recorded.recording import fewest_branches
    from tts_generate.replay import Recording
    from tts_generate.report.gather import models_of, of_recordings

    recordings = [Recording.from_store(store, votes=given.votes or "equal") for store in stores]
    branches = fewest_branches(recordings)
    methods = [
        Method.at(name, beta, branches, trust_remote_code=trust_remote_code)
        for name in names_of(given.controllers or _CONTROLLERS)
        for beta in numbers_of("--betas", given.betas or _BETAS, float)
    ]
    return of_recordings(
        stores,
        recordings,
        methods,
        [_watched(text, branches, trust_remote_code) for text in given.watch or _WATCHED],
        baselines(branches),
        shuffles=_SHUFFLES if given.shuffles is None else given.shuffles,
        votes=given.votes or "equal",
        about=models_of(stores),
        progress=True,
    )


def _drawn(page: Any) -> tuple[str, Draw]:
    from tts_generate.report.page import render
    from tts_generate.report.pictures import draw_page

    return render(page), partial(draw_page, page)


def _search(
    run: Path, stores: Sequence[Path], watch: Sequence[str] | None, trust_remote_code: bool
) -> tuple[str, Draw]:
    """The page of a search and, where its stores are at hand, what it found beside its reference, to be watched."""
    from tts_generate.report.page import Page, viewer
    from tts_generate.report.pictures import draw_search
    from tts_generate.search.run import read_report

    result, held_out, html = read_report(run)
    page = Page("", {})
    if stores:
        page = _found(run, stores, watch, trust_remote_code, result, held_out)
        html = html.replace("</main>", viewer(page) + "</main>")
    elif watch:
        raise InputError("--watch shows what a search found beside others on its recordings; name them with --store.")
    return html, partial(draw_search, result, held_out, page)


def _found(
    run: Path,
    stores: Sequence[Path],
    watch: Sequence[str] | None,
    trust_remote_code: bool,
    result: dict[str, Any],
    held_out: dict[str, Any] | None,
) -> Any:
    """What a search found beside its reference, on every question of its stores."""
    from tts_generate.evaluate import Method, evaluate_method
    from tts_generate.loading import find_source
    from tts_generate.recorded.recording import fewest_branches
    from tts_generate.replay import Recording
    from tts_generate.report.gather import asked_of
    from tts_generate.report.page import Page
    from tts_generate.search.run import check_best, fingerprint

    recordings = [Recording.from_store(store) for store in stores]
    known = {*result["settings"]["stores"].values(), *(held_out or {"stores": {}})["stores"].values()}
    for recording in recordings:
        if fingerprint(recording) not in known:
            raise InputError(f"{recording.name} is none of the stores of {run}: its branches are others.")
    branches = fewest_branches(recordings)
    check_best(find_source(run / "best").card, result, run)
    held = Method.at(run / "best", 0.5, branches, trust_remote_code=trust_remote_code)
    best = replace(held, label="found β=0.5")
    others = watch or [f"{result['settings']['reference']}@0.5"]
    shown = [best, *(_watched(text, branches, trust_remote_code) for text in others)]
    results = [[evaluate_method(recording, method, _SHUFFLES)[1] for method in shown] for recording in recordings]
    return Page("", {}, methods=[m.label for m in shown], asked=asked_of(recordings, shown, results))
