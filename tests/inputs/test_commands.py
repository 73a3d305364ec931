"""Every option of every command: what can be works, what cannot is one line that says so; never a traceback.

Commands and options are found by walking the app, so that a new command without a line in `RUNS` fails, and an option
of a type that nothing is known about does.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import random
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from local_hub import HubServer
from typer.testing import CliRunner

from tts_generate.cli import app


class Option(NamedTuple):
    """An option or an argument of a command."""

    flag: str
    """"" for an argument."""
    kind: Any
    default: Any


def commands(group: Any = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, dict[str, Option]]]:
    """Name and options of every command."""
    for info in group.registered_commands:
        function = inspect.unwrap(info.callback)
        hints = get_type_hints(function, include_extras=True)
        found = {}
        for name, parameter in inspect.signature(function).parameters.items():
            kind, *told = get_args(hints[name]) if get_origin(hints[name]) is Annotated else (hints[name],)
            info_ = told[0] if told else None
            flag = "" if type(info_).__name__ == "ArgumentInfo" else "--" + name.replace("_", "-")
            named = getattr(info_, "param_decls", None) or ()
            found[name] = Option(named[0] if named else flag, kind, parameter.default)
        yield " ".join((*path, info.name or function.__name__)), found
    for info in group.registered_groups:
        yield from commands(info.typer_instance, (*path, info.name or info.typer_instance.info.name))


COMMANDS = dict(commands())
RUNS: dict[str, list[str]] = {
    "history": ["{run}"],
    "import autotts": ["{table}", "--out", "{new}"],
    "record": ["tiny", "--questions", "{questions}", "--branches", "1", "--max-new-tokens", "20", "--out", "{new}"],
    "inspect": ["tiny", "--max-new-tokens", "4"],
    "profile": ["tiny", "--out", "{new}", "--max-rows", "4", "--passes", "1"],
    "demo": ["--out", "{table}"],
    "replay": ["{store}", "--controller", "asc", "--shuffles", "1"],
    "sweep": ["{store}", "--controllers", "asc", "--betas", "0", "--shuffles", "1"],
    "trace": ["{store}", "--controller", "asc"],
    "report": ["{store}", "--controllers", "asc", "--betas", "0.05", "--watch", "asc@0.05", "--shuffles", "1", "--out",
               "{new}/r.html"],
    "search": ["{store}", "--out", "{table}"],
    "publish": ["{empty}", "user/new"],
    "pull": ["user/none", "--out", "{new}"],
    "show": ["asc"],
    "lock": ["user/none", "--file", "{new}"],
    "verify": ["asc"],
    "store push": ["{empty}", "user/new"],
    "store pull": ["user/none", "--out", "{new}"],
    "store check": ["{store}"],
    "store repair": ["{store}"],
    "sandbox check": ["--json", "{table}/x/y"],
    "serve": ["--upstream", "{table}"],
}  # fmt: skip
"""A short run of each; those that would take long, or write somewhere, end early by an argument that cannot be."""
REFUSED = {"demo", "search", "publish", "pull", "lock", "store push", "store pull", "history", "serve"}
SLOW = {"record": 6, "inspect": 3, "profile": 2, "report": 6, "search": 6, "demo": 0, "sandbox check": 0}
"""Commands whose runs take long, and of how many wrong values each of their options is tried."""
MAY_BE_NEGATIVE = {"seed"}
TEXTS = ["", "nonsense", "a,b", "=", "../..", "-", "ü\n", "9" * 400, "{table}"]
PATHS = ["", "/nonexistent/x", "{empty}", "{binary}", "{table}/below", "/dev/null"]


def wrong(name: str, option: Option) -> tuple[list[str], list[str]]:
    """Values that must be refused, and others of which each is either taken or refused.

    Raises:
        NotImplementedError: an option of a type that nothing is known about.
    """
    kind = option.kind
    if get_origin(kind) in (Union, types.UnionType):
        kind = next(part for part in get_args(kind) if part is not type(None))
    if get_origin(kind) is list:
        kind = get_args(kind)[0]
    if kind is bool:
        return [], []
    if get_origin(kind) is Literal:
        return ["nonsense", ""], []
    if kind is int:
        return ["x", "", "1.5", "nan", *(() if name in MAY_BE_NEGATIVE else ("-1",))], ["0"]
    if kind is float:
        return ["x", "", "nan", "-1"], ["inf", "0"]
    if kind is str:
        return [], TEXTS
    if kind is Path:
        return [], PATHS
    raise NotImplementedError(f"{name} is a {kind}")


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """What `{names}` in arguments stand for, and a Hub that has nothing."""
    folder = tmp_path_factory.mktemp("commands")
    row = {"question": "q", "gold_answer": "7", "probe_freq": 500, "final_answers_trace": []}
    branches = [[["1", "7"][: b % 3], 400 + 300 * b, "7"] for b in range(4)]
    (folder / "table").write_text(json.dumps([{**row, "question": f"q{n}", "each_branch": branches} for n in range(3)]))
    (folder / "questions").write_text('{"question_id": "a", "question": "Q: a = 6 ; a ?", "gold_answer": "6"}\n')
    (folder / "binary").write_bytes(random.Random(1).randbytes(300))
    (folder / "empty").mkdir()
    (folder / "run").mkdir()
    made = CliRunner().invoke(app, ["import", "autotts", str(folder / "table"), "--out", str(folder / "store")])
    assert made.exit_code == 0, made.output
    (folder / "here").mkdir()
    with HubServer() as hub, hub.clients(folder / "hub"), contextlib.chdir(folder / "here"):  # what "" stands for
        yield {"folder": folder, "count": 0}


def run(places: dict[str, Any], command: str, options: list[str]) -> Any:
    """A run of a command, in a new folder; what it must not do is an assertion."""
    places["count"] += 1
    folder = places["folder"]
    names = {name: str(folder / name) for name in ("table", "questions", "binary", "empty", "run", "store")}
    names["new"] = str(folder / f"new{places['count']}")
    arguments = [*command.split(), *(_filled(text, names) for text in options)]
    result = CliRunner().invoke(app, arguments)
    told = f"{arguments}: {result.output} {result.exception!r}"
    assert result.exception is None or isinstance(result.exception, SystemExit), told
    assert result.exit_code in (0, 1, 2), told
    if result.exit_code == 1:
        assert "error:" in result.output, told
    if result.exit_code == 2:
        assert "Usage:" in result.output, told
    assert "Traceback" not in result.output, told
    return result


def _filled(text: str, names: dict[str, str]) -> str:
    for name, path in names.items():
        text = text.replace("{" + name + "}", path)
    return text


def replaced(command: str, option: Option, value: str) -> list[str]:
    """The short run of a command with an option at another value."""
    options = list(RUNS[command])
    if option.flag == "":
        return [value, *options[1:]] if options and not options[0].startswith("--") else [value, *options]
    if option.flag in options:
        place = options.index(option.flag)
        return [*options[: place + 1], value, *options[place + 2 :]]
    return [*options, option.flag, value]


def test_every_command_has_a_run() -> None:
    assert set(COMMANDS) == set(RUNS)


@pytest.mark.parametrize("command", [name for name in RUNS if SLOW.get(name) != 0])
def test_what_can_be_works(command: str, places: dict[str, Any]) -> None:
    result = run(places, command, RUNS[command])
    assert result.exit_code == (1 if command in REFUSED else 0), result.output


@pytest.mark.parametrize("command", RUNS)
def test_what_cannot_be_is_said(command: str, places: dict[str, Any]) -> None:
    for name, option in COMMANDS[command].items():
        never, perhaps = wrong(name, option)
        for value in never:
            assert run(places, command, replaced(command, option, value)).exit_code != 0, (command, name, value)
        for value in perhaps[: SLOW.get(command)]:
            run(places, command, replaced(command, option, value))


@pytest.mark.parametrize("command", RUNS)
def test_unknown_options_and_missing_arguments(command: str, places: dict[str, Any]) -> None:
    assert run(places, command, [*RUNS[command], "--no-such-option", "1"]).exit_code == 2
    needed = [o for o in COMMANDS[command].values() if o.default is inspect.Parameter.empty]
    if needed:
        assert run(places, command, []).exit_code == 2


TRIED: list[tuple[str, Callable[[str], list[str]]]] = [
    (command, lambda text, command=command, option=option: replaced(command, option, text))  # type: ignore[misc]
    for command in ("replay", "trace", "show", "verify", "store check", "sweep")
    for name, option in COMMANDS[command].items()
    if wrong(name, option)[1] == TEXTS
]


@settings(max_examples=40, deadline=None)
@given(which=st.sampled_from(TRIED), text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
def test_any_text(which: tuple[str, Callable[[str], list[str]]], text: str, places: dict[str, Any]) -> None:
    command, arguments = which
    run(places, command, arguments(text))
