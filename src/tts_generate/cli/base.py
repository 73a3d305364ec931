"""What every command shares: the app, its consoles, how errors end, and how options and results are written."""

from __future__ import annotations

import csv
import functools
import io
import json
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich import box
from rich.console import Console
from rich.protocol import is_renderable
from rich.table import Table
from rich.text import Text
from typer.core import TyperGroup

from tts_generate.errors import InputError, TTSError
from tts_generate.inert import inert
from tts_generate.loading import ControllerOptions
from tts_generate.strict_json import parse_json

_UsageError: Any = typer.BadParameter.__bases__[0]


class PlainConsole(Console):
    """A console that shows every text as it is and inert, in lines, tables and titles: no markup, no emoji codes."""

    def __init__(self, **how: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **how)

    def render_str(self, text: str, *args: Any, **how: Any) -> Text:
        """Where rich takes any text: of `print`, and of a table's cells and titles."""
        return super().render_str(inert(text), *args, **how)

    def print(self, *objects: Any, **how: Any) -> None:
        """Print what can be drawn as it is, anything else as its text."""
        super().print(*(one if is_renderable(one) else str(one) for one in objects), **how)


class _Commands(TyperGroup):
    """Commands whose complaints about their usage are inert: what they repeat may be the name of a stranger's file."""

    def main(self, *args: Any, **how: Any) -> Any:
        """As before; what the terminal's encoding does not have is written out as well."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="backslashreplace")
        return super().main(*args, **how)

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As before."""
        return _inertly(super().parse_args, ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """As before."""
        return _inertly(super().invoke, ctx)


def _inertly(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except _UsageError as error:
        error.message = inert(error.message)
        raise


app = typer.Typer(
    cls=_Commands,
    rich_markup_mode=None,  # brackets in helps are brackets
    help="Test-time scaling for transformers: record trajectories, replay controllers on them, answer live.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
importers = typer.Typer(help="Make a trajectory store from somebody else's recording.", no_args_is_help=True)
app.add_typer(importers, name="import")
console = PlainConsole(width=None if sys.stdout.isatty() else 110)
complaints = PlainConsole(stderr=True)

Store = Annotated[Path, typer.Argument(help="Folder of a trajectory store.")]
JsonFile = Annotated[Path | None, typer.Option("--json", help="Write the result as JSON.")]
Shuffles = Annotated[int, typer.Option(help="Orders in which branches are opened; 0: the recorded order alone.")]
Trust = Annotated[bool, typer.Option("--trust-remote-code", help="Run code of others; read it first.")]
Confined = Annotated[bool, typer.Option("--sandbox", help="Run such code where it can reach nothing instead.")]

Controller = Annotated[str, typer.Option(help="A controller's name, folder, repo (user/name@commit), or .py file.")]
Beta = Annotated[float | None, typer.Option(help="Budget, 0 to 1; the controller's default if left out.")]
Latency = Annotated[
    float | None, typer.Option(help="0: few tokens, 1: a short chain; of a controller with schedules for both.")
]
Knobs = Annotated[list[str] | None, typer.Option("--set", help="A knob by hand: name=value.")]
IntervalTokens = Annotated[int | None, typer.Option(min=1, help="Tokens of one step.")]
ProbeSuffix = Annotated[str | None, typer.Option(help="Text that makes the model state its answer.")]
ThinkEnd = Annotated[str | None, typer.Option(help="Text that ends the model's thinking.")]
AnswerPattern = Annotated[
    str | None,
    typer.Option(
        help="Answers look: auto, boxed, hashes, tag, sentence, choice, number, text, json:KEY, or a pattern (auto)"
    ),
]
MaxProbeTokens = Annotated[int | None, typer.Option(min=1, help="Tokens of a probed answer at most.")]
Temperature = Annotated[float | None, typer.Option(help="Sampling temperature.")]
TopP = Annotated[float | None, typer.Option(help="Nucleus sampling.")]
TopK = Annotated[int | None, typer.Option(min=0, help="Top-k sampling; 0 for none.")]
Dtype = Annotated[str | None, typer.Option(help="Number type of the weights (float32).")]
Tokenizer = Annotated[str | None, typer.Option(help="With --server: folder or Hub id of the tokenizer.")]
MaxInFlight = Annotated[int | None, typer.Option(min=1, help="With --server: requests at once, each (16).")]
ApiKey = Annotated[
    str | None, typer.Option(envvar="TTS_API_KEY", show_envvar=True, help="With --server: bearer token.")
]
ModelHereOrThere = Annotated[
    str | None, typer.Argument(help="A model's folder or Hub id ('tiny' ships here); with --server, its name there.")
]
Threads = Annotated[int | None, typer.Option(min=1, help="Threads of compiled replay; all cores if left out.")]
Private = Annotated[bool, typer.Option("--private", help="Make a new repo private.")]
VotesBy = Annotated[
    Literal["equal", "math"], typer.Option(help="Which answers are one: equal texts, or the same mathematics.")
]


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """One line for an error of ours, or of the system about a file; exit code 1. 130 for Ctrl-C, 143 for SIGTERM."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        came: list[int] = []
        try:
            with _heeding_sigterm() as came:
                command(*args, **kwargs)
        except TTSError as error:
            _complain(error)
            raise typer.Exit(1) from None
        except OSError as error:
            where = f"{error.filename!s:.200}: " if error.filename else ""
            _complain(f"{where}{error.strerror or error}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            _end_at_once_from_now_on()
            how, code = ("terminated", 143) if came else ("interrupted", 130)
            complaints.print(f"{how}; run the same command again to go on")
            raise typer.Exit(code) from None

    return run


def _complain(error: object) -> None:
    complaints.print(Text("error:", "red"), str(error), soft_wrap=True)


def _end_at_once_from_now_on() -> None:
    """What is finished is written down: another Ctrl-C ends this process, and interrupts no library's own ending."""
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_DFL)


@contextmanager
def _heeding_sigterm() -> Iterator[list[int]]:
    """End by SIGTERM as by Ctrl-C, so that what is finished is written down; in the main thread, as signals want it.

    Yields the signals that came: a library that heeds Ctrl-C may have made a KeyboardInterrupt of its own of them.
    """
    came: list[int] = []

    def end(number: int, frame: object) -> None:
        came.append(number)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield came
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield came
    finally:
        signal.signal(signal.SIGTERM, before)


def knobs_of(settings: list[str]) -> dict[str, Any]:
    """`name=value` pairs, values as JSON where they are."""
    knobs: dict[str, Any] = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not name:
            raise InputError(f"--set takes name=value, got {setting!r}.")
        name = name.strip()
        if name == "controller" or name in ControllerOptions.__annotations__:
            raise InputError(f"--set sets knobs, and {name} is none; --help names the options.")
        if name in knobs:
            raise InputError(f"--set sets {name} twice; leave one out.")
        try:
            knobs[name] = parse_json(value, "--set")
        except InputError:
            knobs[name] = value
    return knobs


def object_of(option: str, text: str) -> dict[str, Any]:
    """The JSON object that an option is."""
    found = parse_json(text, option)
    if not isinstance(found, dict):
        raise InputError(f'{option} must be a JSON object, such as {{"ignore_eos": true}}.')
    return dict(found)


def names_of(text: str) -> list[str]:
    """Names separated by commas, with space around them or not.

    >>> names_of("asc, cmc,")
    ['asc', 'cmc']
    """
    return [name.strip() for name in text.split(",") if name.strip()]


def numbers_of(option: str, text: str, kind: Callable[[str], Any]) -> list[Any]:
    """Numbers separated by commas; none where there is none."""
    try:
        return [kind(part) for part in names_of(text)]
    except ValueError:
        raise InputError(f"{option} takes numbers separated by commas, got {text!r}.") from None


def given(**options: Any) -> dict[str, Any]:
    """The options that were given."""
    return {name: value for name, value in options.items() if value is not None}


def refuse(options: dict[str, Any], why: str) -> None:
    """Nothing given is silently ignored."""
    for name in options:
        raise InputError(f"--{name.replace('_', '-')} is {why}; leave it out.")


def plain(title: str, *columns: str, words: int = 1) -> Table:
    """An empty table as every command shows one: the first columns are `words`, the others numbers on the right."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < words else "right", no_wrap=not 0 < number < words)
    return table


def table_of(rows: list[Any], title: str) -> Table:
    """Rows of a sweep as a table."""
    table = plain(title, "method", "accuracy % (95 %)", "tokens", "longest chain", "probe", "wasted", "branches")
    for row in rows:
        low, high = row.accuracy_ci
        numbers = (row.tokens, row.sequential_tokens, row.probe_tokens, row.wasted_tokens)
        accuracy = f"{row.accuracy:.1f} ({low:.1f} - {high:.1f})"
        table.add_row(row.label, accuracy, *(f"{number:,.0f}" for number in numbers), f"{row.branches:.1f}")
    return table


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write indented JSON."""
    write(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def write_csv(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write rows as CSV, nested values as JSON."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    for row in rows:
        writer.writerow({k: json.dumps(v) if isinstance(v, (dict, list)) else v for k, v in row.items()})
    write(path, text.getvalue())


def read(path: Path) -> str:
    """The text of a file.

    Raises:
        InputError: it cannot be read, or is no text.
    """
    try:
        return path.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}.") from error


def write(path: Path, text: str) -> None:
    """Write a file, making its folder."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, "utf-8", errors="backslashreplace")  # half of a pair, as JSON escapes it
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}.") from error
