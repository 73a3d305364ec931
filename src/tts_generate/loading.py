"""Controllers from folders: `controller.json` says what the folder is, `controller.py` holds the class.

A folder may hold data only: `builtin` names a controller that ships with this package, and `knobs` the schedules over
beta (`tts_generate.schedule`) with which it runs. No code comes with such a folder, so it needs no trust.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
import types
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError, UnknownNameError, UntrustedCodeError
from tts_generate.published import load_published
from tts_generate.schedule import from_json, scheduled

FORMAT = "tts-controller/1"
DEFAULT_CONTROLLER = "cmc"
"""What generate() runs when it is not told."""
_BUILTIN = Path(__file__).parent / "controllers"
_FIELDS = {"format", "api", "name", "entry", "builtin", "beta", "knobs", "sha256", "requires", "provenance"}
_FIELDS |= {"description"}


def builtin_controllers() -> list[str]:
    """Names of the controllers that ship with the package, sorted.

    >>> "cmc" in builtin_controllers()
    True
    """
    return sorted(folder.name for folder in _BUILTIN.iterdir() if (folder / "controller.json").is_file())


def load_controller(
    controller: str | Path | Controller,
    *,
    beta: float | None = None,
    trust_remote_code: bool = False,
    **knobs: Any,
) -> Controller:
    """A controller ready to run, from its name, its folder, or itself.

    Args:
        controller: a shipped name (`builtin_controllers`), a folder with `controller.json`, a file with a method in
            the interface that AutoTTS published (`LLMDesignedMethod.solve`), or a `Controller`.
        beta: the budget in [0, 1]; the folder's default when left out. A `Controller` object brings its own.
        trust_remote_code: needed to run the code of a folder that did not come with this package.
        **knobs: knobs to set by hand, over what beta says.

    Raises:
        UnknownNameError: no such controller, or no such knob.
        UntrustedCodeError: a folder's code would have to run and `trust_remote_code` is not set.
        ControllerError: the folder is damaged, or of another format.

    >>> load_controller("asc", beta=1.0, threshold=0.9)
    ASC(beta=1, max_samples=64, threshold=0.9, criterion=beta)
    """
    if isinstance(controller, Controller):
        if beta is None and not knobs:
            return controller
        budget = controller.beta if beta is None else beta
        if budget is None:
            return type(controller)(**{**controller.knobs, **knobs})
        return type(controller).from_beta(budget, **knobs)
    if not isinstance(controller, (str, Path)):
        raise InputError(
            f"controller must be a name, a folder or a Controller object, got {type(controller).__name__}."
        )
    if Path(controller).suffix == ".py" and Path(controller).is_file():
        if not trust_remote_code:
            raise UntrustedCodeError(f"{controller} is code; read it, and pass trust_remote_code=True to run it.")
        if knobs:
            raise UnknownNameError.of(f"knob of {controller}", next(iter(knobs)), ("beta",))
        return load_published(Path(controller), beta)
    folder = _BUILTIN / controller if str(controller) in builtin_controllers() else Path(controller)
    if not (folder / "controller.json").is_file():
        hint = "A folder must hold controller.json."
        raise UnknownNameError.of("controller", str(controller), builtin_controllers(), hint)
    if folder.parent != _BUILTIN and not trust_remote_code and "builtin" not in _read_card(folder / "controller.json"):
        raise UntrustedCodeError(
            f"{folder} holds controller code that did not come with this package; read {folder / 'controller.py'} "
            "and pass trust_remote_code=True to run it."
        )
    kind, card = load_class(folder.resolve())
    return kind.from_beta(card["beta"]["default"] if beta is None else beta, **knobs)


def load_class(folder: Path) -> tuple[type[Controller], Mapping[str, Any]]:
    """The class and card of a controller folder (an absolute path); its code is run, once a process and version."""
    text = (folder / "controller.json").read_bytes()
    return _load_class(folder, hashlib.sha256(text).hexdigest())


def builtin_folder(name: str) -> Path:
    """The folder of a controller that ships with this package.

    Raises:
        UnknownNameError: there is none of that name.
    """
    if name not in builtin_controllers():
        raise UnknownNameError.of("controller", name, builtin_controllers())
    return (_BUILTIN / name).resolve()


@lru_cache(maxsize=256)
def _load_class(folder: Path, card_sha256: str) -> tuple[type[Controller], Mapping[str, Any]]:
    card = _read_card(folder / "controller.json")
    kind = _builtin_class(folder, card) if "builtin" in card else _own_class(folder, card)
    if "knobs" in card:
        name = "".join(word.capitalize() for word in str(card["name"]).replace("-", "_").split("_"))
        kind = scheduled(kind, from_json(card["knobs"], folder / "controller.json"), name)
        module = types.ModuleType(f"tts_generate_schedule_{folder.name}_{card_sha256[:12]}")
        kind.__module__ = module.__name__  # a place by which an object of this class can be copied and pickled
        setattr(module, name, kind)
        sys.modules[module.__name__] = module
    return kind, card


def _builtin_class(folder: Path, card: Mapping[str, Any]) -> type[Controller]:
    kind, base = load_class(builtin_folder(str(card["builtin"])))
    if base["sha256"] != card["sha256"]:
        raise ControllerError(
            f"{folder} holds knobs for another version of {card['builtin']} (sha256 {card['sha256']}, this one is "
            f"{base['sha256']}): what was measured does not hold for it. Use the version that it was found with."
        )
    return kind


def _own_class(folder: Path, card: Mapping[str, Any]) -> type[Controller]:
    file_name, _, class_name = str(card["entry"]).partition(":")
    code = folder / file_name
    if code.resolve().parent != folder or not code.is_file():
        raise ControllerError(f"{folder}: entry {card['entry']!r} must name a file in the folder and its class.")
    found = hashlib.sha256(code.read_bytes()).hexdigest()
    if found != card["sha256"]:
        raise ControllerError(
            f"{code} does not match controller.json (sha256 {found}, expected {card['sha256']}): the folder was "
            "edited by hand or damaged. Restore it, or write the new hash if the change is yours."
        )
    # The hash is in the module's name, so that two versions of a controller can live in one process.
    name = f"tts_generate_controller_{folder.name}_{found[:12]}"
    spec = importlib.util.spec_from_file_location(name, code)
    if spec is None or spec.loader is None:
        raise ControllerError(f"{code} cannot be loaded as Python code.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    kind = getattr(module, class_name, None)
    if not (isinstance(kind, type) and issubclass(kind, Controller)):
        raise ControllerError(f"{code} has no Controller class {class_name!r}, which controller.json names.")
    return kind


def _read_card(path: Path) -> Mapping[str, Any]:
    try:
        card = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ControllerError(f"{path} is not JSON: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise ControllerError(f"{path} has format {found!r}; this version of tts-generate reads {FORMAT!r}.")
    missing = {"builtin" if "builtin" in card else "entry", "beta", "sha256", "name"} - set(card)
    if missing:
        raise ControllerError(f"{path} lacks {', '.join(sorted(missing))}.")
    if "builtin" in card and "entry" in card:
        raise ControllerError(f"{path} has both entry and builtin; a folder brings code of its own or it does not.")
    for field in set(card) - _FIELDS:
        raise UnknownNameError.of(f"field of {path}", field, _FIELDS)
    return card
