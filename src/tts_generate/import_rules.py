"""The import rules: what controller code may import and name, checked before it runs, with the line that breaks a rule.

They are a lint for whoever writes candidates of a search, a language model above all, and for what is published: a
clear error early. They protect nothing, and nothing relies on them: Python offers ways around every list of names. What
they check is the tree that is compiled, whatever encoding the file declares.
"""

from __future__ import annotations

import ast
import codecs
import difflib
import re
import string
import sys
import threading
import types
from functools import lru_cache
from importlib import import_module

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
    "breakpoint", "compile", "delattr", "eval", "exec", "exit", "getattr", "globals", "help", "input", "locals",
    "memoryview", "open", "quit", "setattr", "vars",
}  # fmt: skip
_ATTRIBUTES = {
    "Formatter", "ForwardRef", "ag_frame", "attrgetter", "cr_frame", "ctypes", "ctypeslib", "dump", "dumps", "f_back",
    "f_builtins", "f_globals", "f_locals", "format_map", "frombuffer", "fromfile", "fromregex", "genfromtxt",
    "get_type_hints", "gi_frame", "load", "loadtxt", "make_dataclass", "memmap", "methodcaller", "open_memmap",
    "random", "save", "savetxt", "savez", "savez_compressed", "seterrcall", "show_config", "tb_frame", "tb_next",
    "tofile", "update_wrapper", "wraps",
}  # fmt: skip
"""Of anything, and of imports by name: files, other code's variables, attributes named by text, text that is code."""
_DUNDERS = {"__init__", "__name__", "__doc__", "__slots__", "__version__", "__all__", "__debug__"}
_WHY = dict.fromkeys(("random", "time", "secrets"), "a controller must decide the same every time")
_COOKIE = re.compile(rb"[ \t\f]*#.*?coding[:=][ \t]*([-\w.]+)")
_UTF8 = re.compile(r"(utf-?8|u8|utf-8-.*)")

_PARSING = threading.Lock()
"""CPython 3.11 counts the depth of `ast.parse` for all threads together, and fails when two parse at once."""


def parse(source: bytes) -> ast.Module:
    """The syntax tree of a controller's code, whatever other threads load meanwhile.

    Raises:
        SyntaxError: it is no Python.
        CandidateError: it is no UTF-8 text, or says that it is another.
    """
    lines = re.split(rb"\r\n|\r|\n", source.removeprefix(codecs.BOM_UTF8), maxsplit=2)
    for number, line in enumerate(lines[:2], 1):
        declared = _COOKIE.match(line)
        name = "" if declared is None else declared[1].decode().lower().replace("_", "-")
        if name and not _UTF8.fullmatch(name):
            raise _broken(number, f"the code declares the encoding {name!r}; it is read as UTF-8: leave that line out")
    try:
        text = source.removeprefix(codecs.BOM_UTF8).decode("utf-8")
    except UnicodeDecodeError as error:
        raise _broken(None, f"the code is not UTF-8 text ({error.reason} at byte {error.start})") from None
    with _PARSING:
        return ast.parse(text, "controller.py")


def compiled(source: bytes, file: str) -> types.CodeType:
    """Controller code as what runs: the tree that the rules are checked on, and nothing else that its bytes may be.

    Raises:
        SyntaxError: it is no Python.
        CandidateError: it is no UTF-8 text, or says that it is another.
    """
    tree = parse(source)
    with _PARSING:
        return compile(tree, file, "exec", dont_inherit=True)


@lru_cache(32)
def check_source(source: bytes) -> None:
    r"""Refuse code that breaks a rule.

    Raises:
        CandidateError: naming the line, what stands there, and what may.

    >>> check_source(b"import maths")
    Traceback (most recent call last):
    tts_generate.errors.CandidateError: line 1: a candidate may not import 'maths': did you mean 'math'?
    >>> check_source(b"from tts_generate import Controller")
    Traceback (most recent call last):
    tts_generate.errors.CandidateError: line 1: import by name: from tts_generate.controller import Controller.
    >>> check_source(b"import collections\nfound = collections._sys.modules")
    Traceback (most recent call last):
    tts_generate.errors.CandidateError: line 2: a candidate may not use 'collections._sys'.
    """
    if len(source) > MAX_SOURCE:
        raise _broken(None, f"the code has {len(source)} bytes; at most {MAX_SOURCE} are read")
    try:
        tree = parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise CandidateError("import", f"the code is not Python: {error}", line=line) from None
    _check_all(tree, _modules(tree))


Modules = dict[str, str]
"""By name in the code: the module that an import binds to it."""


def _modules(tree: ast.AST) -> Modules:
    found: Modules = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                top = alias.name.partition(".")[0]
                found[alias.asname or top] = alias.name if alias.asname else top
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                if f"{node.module}.{alias.name}" in ALLOWED_MODULES:
                    found[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return found


def _check_all(tree: ast.AST, modules: Modules) -> None:
    """Check every node once: a module's name only together with the attributes that are taken from it."""
    texts = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}  # nothing can be done with them
    ends = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    for node in ast.walk(tree):
        _check(node)
        if isinstance(node, (ast.Name, ast.Attribute)) and id(node) not in ends:
            _check_chain(node, modules)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in texts:
            if re.search(r"__\w+__", node.value):
                raise _broken(node.lineno, f"a candidate may not name {node.value!r:.80} in a text")
        for name in ("annotation", "returns"):
            if (annotation := getattr(node, name, None)) is not None:
                _check_annotation(annotation, modules)


def _check(node: ast.AST) -> None:
    if isinstance(node, ast.Import):
        for alias in node.names:
            _check_module(node.lineno, alias.name)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise _broken(node.lineno, "a candidate is one file; it cannot import its neighbours")
        _check_from(node)
    elif isinstance(node, ast.Name) and (node.id in _NAMES or _is_dunder(node.id)):
        raise _broken(node.lineno, f"a candidate may not use {node.id!r}")
    elif isinstance(node, ast.Attribute):
        _check_attribute(node.lineno, node.attr)
        _check_text_of(node)
    elif isinstance(node, ast.MatchClass):
        for name in node.kwd_attrs:
            _check_attribute(node.lineno, name)


def _check_text_of(node: ast.Attribute) -> None:
    """Refuse the texts of answers, and templates that read attributes."""
    if node.attr == "text" and isinstance(node.value, ast.Name) and node.value.id == "state":
        raise _broken(node.lineno, "state.text is not there: texts of answers never enter the sandbox; compare ids")
    if node.attr == "format" and not (isinstance(node.value, ast.Constant) and _is_plain(str(node.value.value))):
        raise _broken(node.lineno, "write an f-string where str.format would read attributes by text")


def _check_attribute(line: int, name: str) -> None:
    if name in _ATTRIBUTES or _is_dunder(name):
        raise _broken(line, f"a candidate may not use the attribute {name!r}")


def _is_dunder(name: str) -> bool:
    return name.startswith("__") and name.endswith("__") and name not in _DUNDERS


def _is_plain(template: str, within: int = 2) -> bool:
    """Whether the fields of a template name no attributes and no items, those within their formats too."""
    try:
        fields = [(name or "", form or "") for _, name, form, _ in string.Formatter().parse(template)]
    except ValueError:  # no template: it raises when it is filled in, as one that is nested deeper does
        return True
    inner = within > 0
    return not any("." in name or "[" in name or (inner and not _is_plain(form, within - 1)) for name, form in fields)


def _check_from(node: ast.ImportFrom) -> None:
    module = node.module or ""
    _check_module(node.lineno, module)
    for alias in node.names:
        if alias.name == "*":
            raise _broken(node.lineno, f"import by name from a module, such as {ALLOWED_MODULES[-3]}")
        if alias.name in _ATTRIBUTES and module == "numpy":
            raise _broken(node.lineno, f"a candidate may not use numpy's {alias.name!r}")
        _check_attribute(node.lineno, alias.name)
        if f"{module}.{alias.name}" not in ALLOWED_MODULES and not _is_its_own(module, alias.name):
            raise _broken(node.lineno, f"a candidate may not use '{module}.{alias.name}'")


def _check_module(line: int, module: str) -> None:
    if module in ALLOWED_MODULES:
        return
    if module == "tts_generate":
        raise _broken(line, "import by name: from tts_generate.controller import Controller")
    if module in _WHY:
        raise _broken(line, f"a candidate may not import {module!r}: {_WHY[module]}")
    near = difflib.get_close_matches(module, ALLOWED_MODULES, n=1, cutoff=0.75)
    hint = f"did you mean {near[0]!r}?" if near else f"it may import {', '.join(ALLOWED_MODULES)}"
    raise _broken(line, f"a candidate may not import {module!r}: {hint}")


def _check_chain(node: ast.Name | ast.Attribute, modules: Modules) -> None:
    """Refuse a name that leads from a module to another one, and a module that is handed on as a value."""
    names: list[str] = []
    root: ast.expr = node
    while isinstance(root, ast.Attribute):
        names.insert(0, root.attr)
        root = root.value
    if not isinstance(root, ast.Name) or root.id not in modules or not isinstance(root.ctx, ast.Load):
        return
    module = modules[root.id]
    while names and f"{module}.{names[0]}" in ALLOWED_MODULES:
        module = f"{module}.{names.pop(0)}"
    if not names:
        raise _broken(node.lineno, f"the module {module} may only be used by its functions and classes, not handed on")
    if not _is_its_own(module, names[0]):
        raise _broken(node.lineno, f"a candidate may not use '{module}.{names[0]}'")


def _is_its_own(module: str, name: str) -> bool:
    """Whether a module that may be imported offers this by itself: no other module, and nothing of another one."""
    if module == "__future__":
        return True
    if module not in ALLOWED_MODULES or name.startswith("_"):
        return False
    found = vars(import_module(module)).get(name, sys)
    if isinstance(found, types.ModuleType) or not callable(found):
        return not isinstance(found, types.ModuleType)
    owner = getattr(found, "__module__", None) or module
    if module.startswith("tts_generate."):
        return owner in ALLOWED_MODULES
    tops = {"builtins", *(allowed.partition(".")[0] for allowed in ALLOWED_MODULES)}
    return owner.partition(".")[0].lstrip("_") in tops


def _check_annotation(annotation: ast.expr, modules: Modules) -> None:
    """A text in an annotation is code to `typing`: check it as such; the names of a `Literal` are none."""
    literal = {
        id(inner)
        for node in ast.walk(annotation)
        if isinstance(node, ast.Subscript)
        and (getattr(node.value, "attr", None) or getattr(node.value, "id", None)) == "Literal"
        for inner in ast.walk(node.slice)
    }
    for node in ast.walk(annotation):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in literal:
            try:
                with _PARSING:
                    inner = ast.parse(node.value, mode="eval")
            except (SyntaxError, ValueError, RecursionError, MemoryError):
                continue
            ast.increment_lineno(inner, node.lineno - 1)
            _check_all(inner, modules)


def _broken(line: int | None, text: str) -> CandidateError:
    where = "" if line is None else f"line {line}: "
    return CandidateError("rules", f"{where}{text}{'' if text.endswith('?') else '.'}", line=line)
