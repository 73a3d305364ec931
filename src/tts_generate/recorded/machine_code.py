"""Keeps what numba compiled, so that a later process loads in a blink what took seconds to compile.

Machine code is found by a digest of all that it was made of: bytecode, constants and defaults of every function
reached, the global values they read, and the versions of Python, numba, llvmlite and numpy; numba adds the types of
the arguments and the processor. What no digest can tell, such as a global object, is compiled by each process.
It lies in `NUMBA_CACHE_DIR`, else in the user's own cache folder, as trusted as the `.pyc` files beside it; whatever is
damaged there, or cannot be written, costs the time to compile and nothing else. A sandbox never reads or writes it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import platform
import types
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

_MODULES = ("math", "numpy")
"""Modules whose functions hooks may call: their versions are in every digest."""
_allowed = True


class _Untold(Exception):
    """A value that a digest cannot tell from others."""


def keep_nothing() -> None:
    """From now on neither read nor write the folder in this process and its children."""
    global _allowed
    _allowed = False


def digest_of(*parts: Any) -> str | None:
    """What compiling `parts` depends on, as a name that no others have; None where that cannot be told.

    Args:
        *parts: functions, static methods, numbers, texts, arrays, and tuples and mappings of those.

    >>> one, two, other = (lambda x: x + 1), (lambda x: x + 1), (lambda x: x + 2)
    >>> digest_of(one) == digest_of(two), digest_of(one) == digest_of(other), digest_of(object())
    (True, False, None)
    """
    seen: dict[types.FunctionType, int] = {}
    try:
        told = repr((_versions(), [_told(part, seen) for part in parts]))
    except _Untold:
        return None
    return hashlib.sha256(told.encode("utf-8", "surrogatepass")).hexdigest()[:32]


def named(function: types.FunctionType, digest: str | None) -> types.FunctionType:
    """`function`, by a name that says what it is made of: code of equal names is taken for equal where it is linked."""
    function.__qualname__ = f"{function.__name__}_{digest or uuid.uuid4().hex}"
    return function


def kept(dispatcher: Any, digest: str | None) -> Any:
    """A compiled function that is looked for in the folder before it is compiled, and written there after."""
    if _allowed and digest is not None:
        with contextlib.suppress(ImportError, KeyError):  # a numba that keeps its caches in another way
            dispatcher._cache = _Kept(digest)
    return dispatcher


def _versions() -> tuple[str, ...]:
    import llvmlite  # type: ignore[import-untyped]
    import numba
    from numba.core import config

    versions = platform.python_version(), numba.__version__, llvmlite.__version__, np.__version__
    return *versions, *(f"{name}={getattr(config, name, None)}" for name in ("OPT", "BOUNDSCHECK", "DEBUGINFO_DEFAULT"))


def _told(value: Any, seen: dict[types.FunctionType, int]) -> Any:
    """`value` as something whose `repr` is equal in every process, and differs where what is compiled does."""
    if isinstance(value, types.FunctionType):
        if value in seen:
            return "again", seen[value]
        seen[value] = len(seen)
        cells = [cell.cell_contents for cell in value.__closure__ or ()]
        read = {name: value.__globals__[name] for name in sorted(_names(value.__code__)) if name in value.__globals__}
        given = (value.__code__, value.__defaults__, value.__kwdefaults__, tuple(cells), read)
        return "function", [_told(part, seen) for part in given]
    if isinstance(value, staticmethod):
        return "static", _told(value.__func__, seen)
    if isinstance(value, types.CodeType):
        return "code", *_attributes(value), [_told(constant, seen) for constant in value.co_consts]
    if isinstance(value, Mapping):
        return "mapping", [(name, _told(item, seen)) for name, item in value.items()]
    if type(value) in (tuple, frozenset):  # a named one compiles to something else
        items = [_told(item, seen) for item in value]
        return type(value).__name__, items if isinstance(value, tuple) else sorted(items, key=repr)
    return _plain(value)


def _plain(value: Any) -> Any:
    if isinstance(value, (np.ndarray, np.generic)):
        if value.dtype.hasobject:
            raise _Untold
        return "array", repr(value.dtype), np.shape(value), hashlib.sha256(value.tobytes()).hexdigest()
    if isinstance(value, (bool, int, float, complex, str, bytes, types.NoneType)):
        return repr(value)
    if isinstance(value, types.ModuleType) and value.__name__ in _MODULES:
        return "module", value.__name__
    if isinstance(value, (types.BuiltinFunctionType, type)) and value.__module__ in _MODULES:
        return "of a module", value.__module__, value.__qualname__
    raise _Untold


def _attributes(code: types.CodeType) -> tuple[Any, ...]:
    """What a function does, without where it stands."""
    counts = code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags
    names = code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars
    return code.co_code, code.co_exceptiontable, counts, names


def _names(code: types.CodeType) -> Iterator[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _names(constant)


class _Kept:
    """What numba calls the cache of a function: the results of compiling it, by the types of its arguments."""

    def __init__(self, digest: str) -> None:
        from numba.core import config
        from numba.misc.appdirs import AppDirs

        user: Any = AppDirs
        given = vars(config)["CACHE_DIR"] or user(appname="tts-generate", appauthor=False).user_cache_dir
        self.stem = Path(given, "compiled", digest)

    def load_overload(self, signature: Any, context: Any) -> Any:
        """The result of an earlier process, or None."""
        from numba.core.compiler import CompileResult

        context.refresh()
        with contextlib.suppress(Exception):  # it is not there, or damaged: unpickling raises anything
            told, data = self._path(signature, context).read_bytes().split(b"\n", 1)
            if told.decode() == hashlib.sha256(data).hexdigest():
                rebuild: Any = CompileResult._rebuild
                return rebuild(context, *pickle.loads(data))
        return None

    def save_overload(self, signature: Any, result: Any) -> None:
        """Write a result, where it may be written and holds no address of this process."""
        from numba.core import serialize

        if not result.library.has_dynamic_globals:
            data = vars(serialize)["dumps"](result._reduce())
            with contextlib.suppress(OSError):
                path = self._path(signature, result.target_context)
                path.parent.mkdir(parents=True, exist_ok=True)
                aside = path.with_suffix(f".{uuid.uuid4().hex}")
                aside.write_bytes(hashlib.sha256(data).hexdigest().encode() + b"\n" + data)
                os.replace(aside, path)

    def _path(self, signature: Any, context: Any) -> Path:
        key = repr((signature, context.codegen().magic_tuple()))  # the processor, and what it can do
        return self.stem.with_name(f"{self.stem.name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}")
