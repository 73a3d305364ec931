"""Imports go one way, whatever way they are written: by layer, and by file without any circle."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).resolve().parents[2] / "src" / "tts_generate"

# Lower layers first; a module imports its own layer and those before it.
LAYERS = [
    {"disk", "inert", "secret", "version", "above"},
    {"errors", "votes"},
    {"arguments"},
    {"strict_json"},
    {"boxes"},
    {"answer_formats"},
    {"answers", "state", "statistics", "equivalence"},
    {"rules", "controller", "processors", "trace"},
    {"schedule"},
    {"import_rules"},
    {"hub"},
    {"runner", "published", "trajectories"},
    {"question_sets", "profile"},
    {"recorded"},
    {"sandbox"},
    {"loading"},
    {"saving"},
    {"tracking"},
    {"live"},
    {"replay", "engine", "server", "tiny", "real"},
    {"recipe"},
    {"evaluate", "report", "testing", "metrics"},
    {"harness", "serve"},
    {"search"},
    {"publish"},
    {"demo"},
    {"cli"},
]
ONLY_IN = {
    "torch": {"engine", "tiny", "demo", "cli", "harness"},
    "transformers": {"engine", "recipe", "tiny", "demo", "cli", "harness", "tracking"},
    "accelerate": {"engine"},
    "datasets": {"question_sets", "harness", "metrics"},
    "psutil": {"engine"},
    "scipy": {"statistics"},
    "numba": {"recorded"},
    "math_verify": {"equivalence"},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "huggingface_hub": {"hub"},
    "httpx2": {"server", "hub", "search"},
    "anthropic": {"search"},
    "optuna": {"search"},
    "lm_eval": {"harness"},
    "inspect_ai": {"harness"},
    "trackio": {"tracking"},
    "tqdm": {"tracking", "hub"},
    "starlette": {"serve"},
    "uvicorn": {"serve"},
    "filelock": {"trajectories"},
}
UNNAMED = {
    "__init__.py",  # the package's own names and what it hands down: every module that its tables name is counted
    "import_rules.py",  # of its list, which is counted
    "sandbox/keeper.py",  # of that list, and of one of its own
}
"""Files that may import a module whose name does not stand in the call."""
WRITTEN = {"saving.py": {"tts_generate.recipe"}}
"""What stands in the text of a file that a stock model runs, and is no import of ours."""

_PLACE = re.compile(r"(tts_generate(?:\.\w+)+)(?::\w+)?")
_CODE = re.compile(r"\b(?:from|import)\s+(tts_generate(?:\.\w+)*)")


def modules() -> dict[str, Path]:
    """Every file of the package by the name it is imported by."""
    found = {}
    for path in sorted(SOURCE.rglob("*.py")):
        found[".".join(path.relative_to(SOURCE.parent).with_suffix("").parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


def names_in(tree: ast.Module, file: str) -> Iterator[str]:
    """Every dotted name that code imports, wherever and however it does; of types alone, only where names are lazy."""
    lazy = any(isinstance(node, ast.FunctionDef) and node.name == "__getattr__" for node in tree.body)
    passed: set[int] = set()  # texts that nothing is done with, and imports that never run
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test) and not lazy:
            passed |= {id(inner) for line in node.body for inner in ast.walk(line)}
        elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            passed.add(id(node.value))
    for node in (node for node in ast.walk(tree) if id(node) not in passed):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file} imports its neighbours by dots; write the module's name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield from named_in(node.value, file, lazy)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
            yield called(node, file)


def named_in(text: str, file: str, lazy: bool) -> Iterator[str]:
    """What a text names: a module, or one in code that it holds."""
    if whole := _PLACE.fullmatch(text):
        yield whole[1]
    yield from set(_CODE.findall(text)) - WRITTEN.get(file, set())
    if lazy and f"tts_generate.{text}" in MODULES:
        yield f"tts_generate.{text}"


def called(node: ast.Call, file: str) -> str:
    """The module that a call imports."""
    told = node.args[0] if node.args else None
    assert isinstance(told, ast.Constant) or file in UNNAMED, (
        f"line {node.lineno} of {file} does not say what it imports"
    )
    return str(told.value) if isinstance(told, ast.Constant) else ""


def reached(module: str, tree: ast.Module, file: str) -> set[str]:
    """The modules of this package that a file has Python load, with the `__init__` of packages that are not its own."""
    found = set()
    for name in names_in(tree, file):
        if name.split(".")[0] != "tts_generate":
            continue
        while name not in MODULES:  # a class or function of the module before it
            name = name.rpartition(".")[0]
        found.add(name)
        while (name := name.rpartition(".")[0]) not in ("", "tts_generate"):
            if not f"{module}.".startswith(f"{name}."):
                found.add(name)
    return found - {module}


@cache
def of_file(module: str) -> set[str]:
    path = MODULES[module]
    return reached(module, ast.parse(path.read_text("utf-8")), path.relative_to(SOURCE).as_posix())


@pytest.mark.parametrize("module", sorted(set(MODULES) - {"tts_generate"}))
def test_imports_go_one_way(module: str) -> None:
    part = module.split(".")[1]
    place = next(number for number, layer in enumerate(LAYERS) if part in layer)
    allowed = set().union(*LAYERS[: place + 1])
    for other in of_file(module):
        assert other != "tts_generate", f"{module} imports the package, which stands above all; name the module"
        assert other.split(".")[1] in allowed, f"{module} imports {other}"
    path = MODULES[module]
    for name in names_in(ast.parse(path.read_text("utf-8")), path.relative_to(SOURCE).as_posix()):
        word = name.split(".")[0]
        assert part in ONLY_IN.get(word, {part}), f"{word} is imported in {part}"


def test_no_file_is_in_a_circle() -> None:
    try:
        TopologicalSorter({module: of_file(module) for module in MODULES}).prepare()
    except CycleError as error:
        pytest.fail(" <- ".join(error.args[1]))


def test_every_module_is_in_a_layer() -> None:
    parts = {module.split(".")[1] for module in MODULES if module != "tts_generate"}
    assert parts == set().union(*LAYERS)
    assert sum(map(len, LAYERS)) == len(parts)


@pytest.mark.parametrize(
    "code",
    [
        "import tts_generate.engine.loop",
        "from tts_generate.engine import loop",
        "from tts_generate.engine.loop import Loop",
        "def late():\n    from tts_generate.engine.loop import Loop",
        "if True:\n    from tts_generate.engine.loop import Loop",
        "importlib.import_module('tts_generate.engine.loop')",
        "__import__('tts_generate.engine.loop')",
        "sys.modules['tts_generate.engine.loop']",
        "WHERE = {'a': 'tts_generate.engine.loop:Loop'}",
        "BOOT = '''import sys\nfrom tts_generate.engine.loop import Loop\n'''",
    ],
)
def test_every_way_to_write_it_is_seen(code: str) -> None:
    """With the `__init__` of the package that it is in, which Python runs first."""
    engine = {"tts_generate.engine", "tts_generate.engine.loop"}
    assert reached("tts_generate.votes", ast.parse(code), "votes.py") == engine
    assert reached("tts_generate.engine.rows", ast.parse(code), "engine/rows.py") == {"tts_generate.engine.loop"}


def test_names_that_are_looked_up_later_are_seen() -> None:
    code = "TABLE = {'a': 'engine.loop'}\n"
    lazy = f"{code}def __getattr__(name):\n    return import_module(f'tts_generate.{{TABLE[name]}}')"
    assert "tts_generate.engine.loop" in reached("tts_generate", ast.parse(lazy), "__init__.py")
    with pytest.raises(AssertionError, match=r"line 3 of votes\.py does not say what it imports"):
        reached("tts_generate.votes", ast.parse(lazy), "votes.py")
    types = "if TYPE_CHECKING:\n    from tts_generate.engine.loop import Loop"
    assert reached("tts_generate.votes", ast.parse(types), "votes.py") == set()
    assert reached("tts_generate.votes", ast.parse('"""See tts_generate.engine.loop."""'), "votes.py") == set()
    with pytest.raises(AssertionError, match="by dots"):
        reached("tts_generate.votes", ast.parse("from . import state"), "votes.py")


def test_a_name_is_one_class() -> None:
    """A reader who meets a class's name knows which it is."""
    places: dict[str, list[str]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(path.relative_to(SOURCE).as_posix())
    assert {name: where for name, where in places.items() if len(where) > 1} == {}
