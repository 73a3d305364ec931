"""Controllers by name, from folders and from the Hub: `controller.json` says what one is, `controller.py` holds it.

A folder or repo may hold data only: `builtin` names a controller that ships with this package, and `knobs` the
schedules over beta (`tts_generate.schedule`) with which it runs. No code comes with it, so it needs no trust. Any other
code is checked before it runs, and runs when the caller vouches for it, or where it can reach nothing (`sandbox`).
"""

from __future__ import annotations

import sys
import types
import weakref
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, TypedDict

from tts_generate.arguments import checked, fits, part
from tts_generate.controller import Controller, Knob, by_hand, check_budget, held_to
from tts_generate.errors import ControllerError, InputError, UnknownNameError, UnsupportedError
from tts_generate.hub.card import FORMAT, check_beta, entry_of
from tts_generate.hub.names import repo_of
from tts_generate.hub.source import Source, read_folder
from tts_generate.hub.trust import Trust, check_form, check_trust
from tts_generate.import_rules import compiled
from tts_generate.published import load_published
from tts_generate.schedule import between, from_json, scheduled

__all__ = [
    "DEFAULT_CONTROLLER", "FORMAT", "Trust", "budget_of", "builtin_controllers", "builtin_folder", "class_of",
    "find_source", "is_shipped", "load_class", "load_controller", "source_of",
]  # fmt: skip

DEFAULT_CONTROLLER = "pace"
"""What generate() runs when it is not told."""
_HERE = Path(__file__).resolve().parent
_BUILTIN = next(filter(Path.is_dir, (_HERE / "controllers", _HERE.parents[1] / "controllers")), _HERE)
"""In a wheel beside this file, in a checkout at its top."""
_SOURCES: weakref.WeakKeyDictionary[type[Controller], Source] = weakref.WeakKeyDictionary()


def builtin_controllers() -> list[str]:
    """Names of the controllers that ship with the package, sorted.

    >>> "cmc" in builtin_controllers()
    True
    """
    return sorted(folder.name for folder in _BUILTIN.iterdir() if (folder / "controller.json").is_file())


def load_controller(
    controller: str | Path | Controller,
    *,
    revision: str | None = None,
    beta: float | None = None,
    latency: float | None = None,
    trust_remote_code: Trust = False,
    sandbox: bool = False,
    **knobs: Any,
) -> Controller:
    """A controller ready to run, from its name, its folder, its repo on the Hub, or itself.

    Args:
        controller: a shipped name (`builtin_controllers`), a folder with `controller.json`, a repo of the Hub
            (`user/name`, or `user/name@revision`), a file with a method in the interface that AutoTTS published
            (`LLMDesignedMethod.solve`), or a `Controller`. Of a folder and a repo of one name, the folder is meant.
        revision: the commit of a repo. Another revision, or none, is resolved once a process and warned about, unless
            the lock file (`tts-controllers.lock`) has the repo; with `TTS_REQUIRE_PIN=1` it is refused.
        beta: the budget in [0, 1]; the default of the folder or repo when left out. A `Controller` object brings its
            own.
        latency: of a controller that has schedules for either end: 0 for few tokens, 1 for a short chain of tokens that
            wait for one another, which is little time where rows are free. Left out: 0, and live as the rows allow.
        trust_remote_code: needed to run code that did not come with this package: True, or a list of repos.
        sandbox: run such code in a locked process instead, a step at a time, in replay and live; needs no trust.
        **knobs: knobs to set by hand, over what beta says.

    Raises:
        InputError: a beta or latency that is none, or a latency for a controller that has no schedules for it.
        UnknownNameError: no such controller, or no such knob.
        UntrustedCodeError: code would have to run that nobody vouched for, or a revision may move and must not.
        ControllerError: the folder or repo is damaged, breaks a rule, or is of another format; nothing of it has run.
        HubError: the Hub does not have it, or cannot be reached.
        SandboxUnavailable: this machine cannot lock a process.

    >>> load_controller("asc", beta=1.0, threshold=0.9)
    ASC(beta=1, max_samples=64, threshold=0.9, criterion=beta)
    """
    check_form(trust_remote_code)
    if not isinstance(sandbox, bool):
        raise InputError(f"sandbox must be True or False, got {sandbox!r}.")
    if latency is not None:
        check_budget(latency, "latency", "0 (few tokens) to 1 (a short chain)")
        latency = float(latency)
    if isinstance(controller, Controller):
        if revision is not None or sandbox:
            raise InputError("revision and sandbox are for controllers to be loaded; this one is a Controller object.")
        return _again(controller, beta, latency, knobs)
    if not isinstance(controller, (str, Path)):
        raise InputError(
            f"controller must be a name, a folder, a repo or a Controller object, got {type(controller).__name__}."
        )
    if Path(controller).suffix == ".py" and Path(controller).is_file():
        _check_latency(None, latency, str(controller))
        return _published(Path(controller), revision, beta, trust_remote_code, sandbox, knobs)
    source = find_source(controller, revision)
    budget = budget_of(source, beta)
    _check_latency(source, latency, source.label)
    if source.code is not None and not is_shipped(source):
        if sandbox:
            return _confined(source, budget, latency, knobs)
        check_trust(trust_remote_code, source.repo_id, source.label, source.readable_at)
    return class_of(source, latency).from_beta(budget, **knobs)


def held_within(controller: Controller, branches: int) -> Controller:
    """A controller like it that opens no more branches than there are.

    >>> held_within(load_controller("self_consistency"), 16)
    SelfConsistency(beta=1, max_samples=16)
    """
    held: dict[str, Any] = dict(held_to(controller.knobs, branches))
    return load_controller(controller, **held)


class ControllerOptions(TypedDict, total=False):
    """What a call says beside its controller's name: options of `load_controller`, and knobs to set by hand."""

    beta: float | None
    latency: float | None
    controller_kwargs: Mapping[str, Any] | None
    revision: str | None
    trust_remote_code: Trust
    sandbox: bool


def chosen(controller: str | Path | Controller, options: Mapping[str, Any]) -> Controller:
    """The controller of a call, by those of its options that are about it."""
    how = part(options, ControllerOptions)
    return load_controller(controller, **set_by_hand(how.pop("controller_kwargs", None)), **how)


def set_by_hand(controller_kwargs: Mapping[str, Any] | None) -> dict[str, Any]:
    """A controller's knobs, none of which is an argument of its own.

    Raises:
        InputError: one is, or it is no mapping of names.
    """
    if not fits(controller_kwargs, Mapping[str, Any] | None):
        raise InputError(f"controller_kwargs must be a mapping of names to knobs, got {controller_kwargs!r:.80}.")
    given = dict(controller_kwargs or {})
    for name in ("controller", *ControllerOptions.__annotations__):
        if name in given:
            raise InputError(f"controller_kwargs sets knobs, and {name} is none; pass {name}= itself.")
    return given


def budget_of(source: Source, beta: float | None) -> float:
    """The budget at which a source is run: as given, else its own default.

    Raises:
        InputError: no budget.
        ControllerError: one outside its range.
    """
    if not isinstance(source, Source):
        raise InputError(f"budget_of takes a Source, as find_source gives it, got {source!r:.80}.")
    budget = source.card["beta"]["default"] if beta is None else beta
    check_budget(budget)
    check_beta(source.card, budget, source.label)
    return float(budget)


@checked
def is_shipped(source: Source) -> bool:
    """Whether a source is part of this package."""
    return source.path.parent == _BUILTIN


@checked
def find_source(controller: str | Path, revision: str | None = None) -> Source:
    """The checked files of a shipped controller, a folder or a repo; nothing of them has run.

    Raises:
        UnknownNameError: there is none of that name.
        ControllerError: its files are not what they must be.
        HubError: the Hub does not have it, or cannot be reached.
    """
    repo = repo_of(controller, revision) if isinstance(controller, str) else None
    if revision is not None and repo is None:
        raise InputError(f"revision={revision!r} is for a repo of the Hub, 'user/name'; {str(controller)!r} is a path.")
    if str(controller) in builtin_controllers():
        return read_folder(_BUILTIN / controller)
    if (Path(controller) / "controller.json").exists() or (repo is not None and Path(controller).is_dir()):
        return read_folder(Path(controller))
    if repo is not None:
        from tts_generate.hub.fetch import read_repo  # late: most controllers are folders, and it is not light

        return read_repo(repo)
    hint = "A folder must hold controller.json; a repo of the Hub is 'user/name'."
    raise UnknownNameError.of("controller", str(controller), builtin_controllers(), hint)


@checked
def load_class(folder: str | Path) -> tuple[type[Controller], Mapping[str, Any]]:
    """The class and card of a controller folder; its code is run, once a process and version."""
    source = read_folder(Path(folder))
    return class_of(source), source.card


@checked
def builtin_folder(name: str) -> Path:
    """The folder of a controller that ships with this package.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in builtin_controllers():
        raise UnknownNameError.of("controller", name, builtin_controllers())
    return (_BUILTIN / name).resolve()


@checked
def source_of(kind: type[Controller]) -> Source | None:
    """The files that a controller class was loaded from; None if it was not loaded from any."""
    return _SOURCES.get(kind)


@checked
def class_of(source: Source, latency: float | None = None) -> type[Controller]:
    """The class of a checked source at a latency; its code is run, once a process and version."""
    return _class_of(source, latency)


@lru_cache(maxsize=256)
def _class_of(source: Source, latency: float | None) -> type[Controller]:
    try:
        kind = _kind_of(source, latency)
    except UnknownNameError as error:
        raise UnknownNameError(f"controller.json of {source.label}: {error}") from None
    _SOURCES[kind] = source
    return kind


def has_latency(source: Source | None) -> bool:
    """Whether a controller's files hold schedules for either end."""
    return source is not None and bool(source.card.get("short"))


def _check_latency(source: Source | None, latency: float | None, label: str) -> None:
    if latency is not None and not has_latency(source):
        raise InputError(
            f"latency={latency:g} is for a controller with schedules for few tokens and for a short chain, such as "
            f"{DEFAULT_CONTROLLER!r}; {label} has none. Leave it out."
        )


def _schedule_of(source: Source, latency: float | None) -> dict[str, Any]:
    few, short = (from_json(source.card.get(field, {}), source.label) for field in ("knobs", "short"))
    return between(few, short, latency or 0.0)


def _kind_of(source: Source, latency: float | None) -> type[Controller]:
    card = source.card
    kind = _builtin_class(source) if source.code is None else _own_class(source, source.code)
    if "knobs" in card:
        name = "".join(word.capitalize() for word in str(card["name"]).replace("-", "_").split("_"))
        kind = scheduled(kind, _schedule_of(source, latency), name)
        kind.latency = latency
        where = "" if latency is None else f"_{latency.hex()}".replace(".", "_")
        module = types.ModuleType(f"tts_generate_schedule_{source.mark}{where}")
        kind.__module__ = module.__name__  # a place by which an object of this class can be copied and pickled
        setattr(module, name, kind)
        sys.modules[module.__name__] = module
    return kind


def _builtin_class(source: Source) -> type[Controller]:
    name = str(source.card["builtin"])
    earlier = _BUILTIN / "earlier" / source.card["sha256"][:12]  # what was found with it runs with it
    kind, base = load_class(earlier if earlier.is_dir() else builtin_folder(name))
    if base["sha256"] != source.card["sha256"]:
        raise ControllerError(
            f"controller.json of {source.label} holds knobs for another version of {name} (sha256 "
            f"{source.card['sha256']}, this one is {base['sha256']}): what was measured does not hold for "
            "it. Use the version that it was found with."
        )
    return kind


@lru_cache(maxsize=256)
def _own_class(source: Source, code: bytes) -> type[Controller]:
    """Run the bytes that were checked; the file they came from is named for tracebacks only."""
    file_name, class_name = entry_of(source.card)
    # Version and place are in the module's name, so that two versions of a controller can live in one process.
    module = types.ModuleType(f"tts_generate_controller_{source.mark}")
    module.__file__ = str(source.path / file_name)
    sys.modules[module.__name__] = module
    try:
        exec(compiled(code, module.__file__), module.__dict__)
    except (Exception, SystemExit) as error:
        del sys.modules[module.__name__]
        raise ControllerError(f"{module.__file__} does not load: {type(error).__name__}: {error}.") from error
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Controller)):
        raise ControllerError(
            f"{module.__file__}: {class_name!r}, which controller.json names, is no Controller class."
        )
    return kind


def _again(controller: Controller, beta: float | None, latency: float | None, knobs: Mapping[str, Knob]) -> Controller:
    """A controller object as it is, or with another budget, another latency or other knobs; others set by hand stay.

    A new budget sets all of them anew.
    """
    if beta is None and latency is None and not knobs:
        return controller
    if beta is None and latency is None and (confined := getattr(controller, "with_knobs", None)) is not None:
        return confined(**knobs)  # type: ignore[no-any-return]  # its class is not at hand, here or anywhere
    kept, budget = (by_hand(controller), controller.beta) if beta is None else ({}, beta)
    if latency is not None:
        source = source_of(type(controller))
        _check_latency(source, latency, repr(controller))
        assert source is not None
        if budget is None:
            raise InputError(f"every knob of {controller!r} was set by hand, so latency would change nothing.")
        return class_of(source, latency).from_beta(budget, **{**kept, **knobs})
    if budget is None:
        return type(controller)(**{**controller.knobs, **knobs})
    return type(controller).from_beta(budget, **{**kept, **knobs})


def _published(
    file: Path, revision: str | None, beta: float | None, trust: Trust, sandbox: bool, knobs: Mapping[str, Any]
) -> Controller:
    """A method in the published interface."""
    if revision is not None:
        raise InputError(f"revision={revision!r} is for a repo of the Hub; {file} is a file.")
    if sandbox:
        raise UnsupportedError(
            f"{file} is in the published interface, which needs a thread and the texts of answers: it does not run in "
            "a sandbox. Read it, and pass trust_remote_code=True; or write it as a Controller."
        )
    check_trust(trust, None, str(file), str(file))
    if knobs:
        raise UnknownNameError.of(f"knob of {file}", next(iter(knobs)), ("beta",))
    return load_published(file, beta)


def _confined(source: Source, beta: float, latency: float | None, knobs: Mapping[str, Any]) -> Controller:
    from tts_generate.sandbox.confined import confine  # late: few need one, and it is not light

    assert source.code is not None
    schedule = _schedule_of(source, latency)
    return confine(source.code, entry_of(source.card)[1], schedule, beta, knobs)
