"""Compiles a controller's hooks, with the rules they run under, by numba: one source, two speeds.

The code compiled is what runs interpreted: the controller's hooks, `rules`, `run_episodes`, and whatever functions they
call. Nothing is patched: each is compiled as a copy that sees compiled copies. The controller becomes a numba class,
made inside the compiled code, as no signature that names it could be found again by another process (`machine_code`);
`State` and `Decision` become records, whose arrays lie in place and are not counted by reference: twice as fast.
"""

from __future__ import annotations

import os
import re
import sys
import threading
import time
import types
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tts_generate.controller import Controller
from tts_generate.errors import warn
from tts_generate.recorded.episodes import Columns, Work, raise_problem, run_episode, run_episodes
from tts_generate.recorded.machine_code import digest_of, kept, named
from tts_generate.recorded.recording import Recording
from tts_generate.state import Decision, State

_HOOKS = ("memory", "begin", "plan", "review", "answer")
_CALLED_COMPILED = {"no_cpython_wrapper": True, "no_cfunc_wrapper": True}
"""Options of functions that only compiled ones call: they compile a sixth faster."""
_lock = threading.RLock()
_functions: dict[types.FunctionType, Any] = {}
_runs: dict[tuple[Any, ...], Any] = {}
_ready: set[tuple[Any, ...]] = set()
_refused: set[type] = set()


class CompileWarning(RuntimeWarning):
    """A controller runs interpreted because numba cannot compile it."""


def run_compiled(
    recording: Recording,
    controller: Controller,
    orders: Mapping[int, NDArray[np.int64]],
    out: NDArray[np.int64],
    threads: int | None,
) -> float | None:
    """Fill `out`, the `Columns` of every episode.

    Returns:
        The seconds that compiling took; None, and nothing filled in, where the controller must run interpreted.

    An episode that cannot go on is run again interpreted, which raises what is wrong with it.
    """
    from numba.core import config

    if not controller.compiles or type(controller) in _refused or vars(config)["DISABLE_JIT"]:
        return None
    try:
        run, seconds = _compiled(controller, recording)
    except _Unsupported as error:
        _refused.add(type(controller))
        warn(str(error), CompileWarning, stacklevel=3)
        return None
    work = Work.of(recording.questions, orders, controller, recording.interval_tokens)
    episodes = out[0].size
    threads = min(threads or os.cpu_count() or 1, -(-episodes // 64))
    bounds = np.linspace(0, episodes, 4 * threads + 1).astype(np.int64) if threads > 1 else np.array([0, episodes])

    def part(k: int) -> int:
        return run(work, out, bounds[k], bounds[k + 1])

    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            problems = list(pool.map(part, range(len(bounds) - 1)))
    else:
        problems = [part(0)]
    for e in problems:
        if e >= 0:
            s, q = divmod(e, len(recording.questions))
            raise_problem(recording, controller, q, orders[recording.questions[q].branches][s])
    return seconds


def _compiled(controller: Controller, recording: Recording) -> tuple[Callable[..., int], float]:
    """What runs a part of the work compiled, and the seconds spent on compiling what was not yet."""
    started = time.perf_counter()
    shape = (recording.max_branches, recording.max_depth, recording.interval_tokens, recording.max_probe_tokens)
    room = (_bucket(recording.max_branches), _bucket(recording.max_depth), 1, 0)
    states, decisions = _dtype_of(State(*room)), _dtype_of(Decision(room[0]))
    spec = _fields(controller.for_episode(recording.max_branches))
    methods = _methods(type(controller))
    key = (*methods.items(), *spec.items())  # classes that differ in their schedule only are one

    def run(work: Work, out: NDArray[np.int64], first: int, last: int) -> int:
        mine = controller.for_episode(recording.max_branches)  # no two threads share what it remembers
        held = (getattr(mine, name) for name in spec)
        values = tuple(np.ascontiguousarray(value) if isinstance(value, np.ndarray) else value for value in held)
        episode = _record(states, State(*shape)), _record(decisions, None)
        return int(_runs[key](values, *episode, recording.table, work, out, first, last))

    with _lock:
        if key not in _runs:
            _runs[key] = _entry(type(controller).__name__, spec, methods)
        if (key, room) not in _ready:
            orders = {q.branches: np.arange(q.branches)[None] for q in recording.questions}
            work = Work.of(recording.questions, orders, controller, recording.interval_tokens)
            try:
                run(work, Columns.empty(1, 1), 0, 0)
            except Exception as error:  # numba raises many kinds, of which none is part of its interface
                raise _Unsupported.because(controller, error) from error
            _ready.add((key, room))
    return run, time.perf_counter() - started


class _Unsupported(Exception):
    """Why a controller cannot be compiled, in a sentence for its author."""

    @classmethod
    def because(cls, controller: Controller, error: Exception) -> _Unsupported:
        """Name the line of the controller's own file that numba stumbled on, where it says so."""
        file = type(controller).plan.__code__.co_filename
        text = re.sub(r"\x1b\[[0-9;]*m| at 0x\w+|instance\.jitclass\.(\w+)_\w+#\w+<[^>]*>", r"\1", str(error))
        found = re.findall(r'File "([^"]*)", line (\d+)', text)
        name = os.path.basename(file)
        lines = [line for path, line in found if os.path.basename(path) == name]
        where = f", line {lines[0]}" if lines else ""
        return cls(
            f"{type(controller).__name__} runs interpreted, about a hundred times slower: numba cannot compile "
            f"{file}{where}: {_reason(text) or repr(error)}. Hooks compile when they are plain loops over numbers and "
            "numpy arrays, and all that changes is made in `memory`."
        )


def _reason(text: str) -> str:
    r"""What numba says is wrong, out of all the places that it came by.

    >>> _reason("Failed in nopython mode pipeline\nNo implementation found for signature:\n >>> f(none)\nDuring: x")
    'No implementation found for signature: >>> f(none)'
    """
    said = [line for line in map(str.strip, text.splitlines()) if line]
    passing = ("Failed in", "During:", "File", "- Resolution failure")
    first = next((number for number, line in enumerate(said) if not line.startswith(passing)), len(said))
    signature = [line for line in said[first + 1 : first + 2] if line.startswith(">>>")]
    closer = [line for line in said if re.match(r"\w+Error: (?!Failed in)", line)]
    return " ".join([*said[first : first + 1], *signature, *closer[:1]]).rstrip(".")


def _bucket(size: int) -> int:
    """Room for `size` entries, in sizes so few that recordings of different sizes share what was compiled."""
    return max(64, 1 << (size - 1).bit_length())


def _dtype_of(instance: object) -> np.dtype[Any]:
    """A record with the fields of `instance`, arrays in place."""
    fields = []
    for name, value in vars(instance).items():
        if value is not None:
            array = np.asarray(value)
            kind = np.int8 if array.dtype == np.bool_ and array.ndim else array.dtype  # numba nests no boolean arrays
            fields.append((name, kind, array.shape))
    return np.dtype(fields, align=True)


def _record(dtype: np.dtype[Any], values: object | None) -> Any:
    record = np.zeros(1, dtype)
    for name in dtype.names or ():
        value = getattr(values, name, None)
        if isinstance(value, np.ndarray):
            record[name] = value.flat[0] if value.size else 0  # as State fills it
        elif value is not None:
            record[name] = value
    return record[0]


def _methods(kind: type[Controller]) -> dict[str, Any]:
    """The hooks of a controller and the methods it adds for itself."""
    methods: dict[str, Any] = {name: getattr(Controller, name) for name in _HOOKS}
    for base in reversed(kind.__mro__[: kind.__mro__.index(Controller)]):
        for name, value in vars(base).items():
            own = isinstance(value, (types.FunctionType, staticmethod))
            if own and name != "schedule" and not name.startswith("__"):
                methods[name] = value
    return methods


_OF_ANY_CLASS: dict[str, Any] = (
    {"__firstlineno__": 0, "__static_attributes__": ()} if sys.version_info >= (3, 13) else {}
)
"""What a class statement of Python 3.13 leaves in a class, and numba takes out."""


def _entry(name: str, spec: Mapping[str, Any], methods: Mapping[str, Any]) -> Any:
    """`run_episodes`, compiled, of a controller that it makes from the values of its fields."""
    import numba
    from numba.experimental import jitclass  # type: ignore[attr-defined]

    digest = digest_of({field: str(kind) for field, kind in spec.items()}, methods, run_episodes)
    body: dict[str, Any] = {}
    sets = "".join(f"    self.{field} = {field}\n" for field in spec)
    exec(f"def __init__(self, {', '.join(spec)}):\n{sets}", body)
    members = {"__init__": named(body["__init__"], digest), **_OF_ANY_CLASS}
    for hook, method in methods.items():
        static = isinstance(method, staticmethod)
        rebuilt = named(_rebuilt(method.__func__ if static else method), digest)
        members[hook] = staticmethod(rebuilt) if static else rebuilt
    called = f"{name}_{digest}" if digest else name
    kind: Any = jitclass(list(spec.items()))(type(called, (), members))
    for compiled in (*kind.class_type.jit_methods.values(), *kind.class_type.jit_static_methods.values()):
        compiled.targetoptions.update(_CALLED_COMPILED)
    body = {"kind": kind, "run": _function(run_episodes), "__name__": __name__}
    values = "".join(f"values[{k}], " for k in range(len(spec)))
    exec(
        "def entry(values, state, do, table, work, out, first, last):\n"
        f"    return run(kind({values}), state, do, table, work, out, first, last)\n",
        body,
    )
    return kept(numba.njit(named(body["entry"], digest), nogil=True), digest)


def _fields(instance: object) -> dict[str, Any]:
    """The numba type of every attribute."""
    import numba

    spec: dict[str, Any] = {}
    for name, value in vars(instance).items():
        if isinstance(value, np.ndarray):
            spec[name] = numba.typeof(np.ascontiguousarray(value))
        elif isinstance(value, (bool, np.bool_)):
            spec[name] = numba.boolean
        elif isinstance(value, (int, np.integer)):
            spec[name] = numba.int64
        elif isinstance(value, (float, np.floating)):
            spec[name] = numba.float64
        elif isinstance(value, str):
            spec[name] = numba.types.unicode_type
        elif value is not None:
            raise _Unsupported(
                f"{type(instance).__name__} runs interpreted, about a hundred times slower: its {name} is a "
                f"{type(value).__name__}; numba compiles numbers, names and numpy arrays."
            )
    return spec


def compiled_function(function: Any) -> Any:
    """A function of plain loops over records (`records_of`) and arrays, compiled, to be called from Python."""
    return _function(function, entered=True)


def records_of(
    count: int, branches: int, depth: int, interval_tokens: int, max_probe_tokens: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """`count` states and decisions of episodes that have not begun, as compiled loops take them."""
    room = (_bucket(branches), _bucket(depth), 1, 0)
    states, decisions = _dtype_of(State(*room)), _dtype_of(Decision(room[0]))
    begun = _record(states, State(branches, depth, interval_tokens, max_probe_tokens))
    return np.full(count, begun, states), np.zeros(count, decisions)


def _function(function: Any, entered: bool = False) -> Any:
    """`function` compiled, and the functions it calls; made once."""
    import numba

    with _lock:
        if function not in _functions:
            inlined = not entered and function not in (run_episodes, run_episode)
            options: dict[str, Any] = {"forceinline": inlined} | ({} if entered else _CALLED_COMPILED)
            digest = digest_of(function)
            compiled = numba.njit(named(_rebuilt(function), digest), nogil=True, **options)
            _functions[function] = kept(compiled, digest) if entered else compiled
        return _functions[function]


def _rebuilt(function: Any) -> types.FunctionType:
    """A copy of `function` whose global functions are compiled ones."""
    seen = dict(function.__globals__)
    for name in function.__code__.co_names:
        value = seen.get(name)
        if isinstance(value, types.FunctionType) and value is not function:
            seen[name] = _function(value)
    copy = types.FunctionType(function.__code__, seen, function.__name__, function.__defaults__, function.__closure__)
    copy.__module__ = function.__module__
    return copy
