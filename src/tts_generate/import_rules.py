"""The import rules: what controller code may import and name, checked before it runs, with the line that breaks a rule.

They are a lint for whoever writes candidates of a search, a language model above all, and for what is published: a
clear error early. They protect nothing, and nothing relies on them: Python offers ways around every list of names.
"""

from __future__ import annotations

import ast
import difflib
import threading

from tts_generate.errors import CandidateError

ALLOWED_MODULES = (
    "__future__", "abc", "bisect", "cmath", "collections", "collections.abc", "copy", "dataclasses", "decimal", "enum",
    "fractions", "functools", "heapq", "itertools", "math", "numpy", "numpy.typing", "operator", "statistics", "string",
    "typing", "tts_generate.controller", "tts_generate.errors", "tts_generate.schedule", "tts_generate.state",
    "tts_generate.votes",
)  # fmt: skip
"""What it may import; a candidate's process has these in memory, and can open no file to import others."""
MAX_SOURCE = 256 << 10
"""Bytes of a candidate's code."""
_NAMES = {
    "__builtins__", "__import__", "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals",
    "help", "input", "locals", "memoryview", "open", "quit", "setattr", "vars",
}  # fmt: skip
_ATTRIBUTES = {
    "ag_frame", "cr_frame", "ctypeslib", "f_back", "f_builtins", "f_globals", "f_locals", "fromfile", "frombuffer",
    "fromregex", "genfromtxt", "gi_frame", "load", "loadtxt", "memmap", "open_memmap", "random", "save", "savetxt",
    "savez", "savez_compressed", "tb_frame", "tofile",
}  # fmt: skip
_WHY = {
    "random": "a controller must decide the same every time",
    "time": "a controller must decide the same every time",
    "secrets": "a controller must decide the same every time",
}

_PARSING = threading.Lock()
"""CPython 3.11 counts the depth of `ast.parse` for all threads together, and fails when two parse at once."""


def parse(source: bytes) -> ast.Module:
    """The syntax tree of a controller's code, whatever other threads load meanwhile.

    Raises:
        SyntaxError: it is no Python.
        UnicodeDecodeError: it is no text.
    """
    with _PARSING:
        return ast.parse(source.decode("utf-8"), "controller.py")


def check_source(source: bytes) -> None:
    """Refuse code that breaks a rule.

    Raises:
        CandidateError: naming the line, what stands there, and what may.

    >>> check_source(b"import maths")
    Traceback (most recent call last):
    tts_generate.errors.CandidateError: line 1: a candidate may not import 'maths': did you mean 'math'?
    """
    if len(source) > MAX_SOURCE:
        raise _broken(None, f"the code has {len(source)} bytes; at most {MAX_SOURCE} are read")
    try:
        tree = parse(source)
    except UnicodeDecodeError as error:
        raise _broken(None, f"the code is not UTF-8 text ({error.reason} at byte {error.start})") from None
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise CandidateError("import", f"the code is not Python: {error}", line=line) from None
    for node in ast.walk(tree):
        _check(node)


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            _check_module(node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise _broken(node.lineno, "a candidate is one file; it cannot import its neighbours")
        _check_from(node)
    elif isinstance(node, ast.Name) and node.id in _NAMES:
        raise _broken(node.lineno, f"a candidate may not use {node.id!r}")
    elif isinstance(node, ast.Attribute):
        if node.attr == "text" and isinstance(node.value, ast.Name) and node.value.id == "state":
            raise _broken(node.lineno, "state.text is not there: texts of answers never enter the sandbox; compare ids")
        if node.attr in _ATTRIBUTES or (node.attr.startswith("__") and node.attr not in ("__init__", "__name__")):
            raise _broken(node.lineno, f"a candidate may not use the attribute {node.attr!r}")


def _check_from(node: ast.ImportFrom) -> None:
    module = node.module or ""
    for alias in node.names:
        if module == "tts_generate" or alias.name == "*":
            raise _broken(node.lineno, f"import by name from a module, such as {ALLOWED_MODULES[-3]}")
        if alias.name in _ATTRIBUTES and module == "numpy":
            raise _broken(node.lineno, f"a candidate may not use numpy's {alias.name!r}")
    _check_module(node.lineno, module)


def _check_module(line: int, module: str) -> None:
    if module in ALLOWED_MODULES:
        return
    if module in _WHY:
        raise _broken(line, f"a candidate may not import {module!r}: {_WHY[module]}")
    near = difflib.get_close_matches(module, ALLOWED_MODULES, n=1, cutoff=0.75)
    hint = f"did you mean {near[0]!r}?" if near else f"it may import {', '.join(ALLOWED_MODULES)}"
    raise _broken(line, f"a candidate may not import {module!r}: {hint}")


def _broken(line: int | None, text: str) -> CandidateError:
    where = "" if line is None else f"line {line}: "
    return CandidateError("rules", f"{where}{text}{'' if text.endswith('?') else '.'}", line=line)
