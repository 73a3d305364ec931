"""Controllers from folders: `controller.json` says what the folder is, `controller.py` holds the class."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import sys
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from tts_generate.controller import Controller
from tts_generate.errors import ControllerError, InputError, UnknownNameError, UntrustedCodeError
from tts_generate.published import load_published

FORMAT = "tts-controller/1"
DEFAULT_CONTROLLER = "cmc"
"""What generate() runs when it is not told."""
_BUILTIN = Path(__file__).parent / "controllers"
_FIELDS = {"format", "api", "name", "entry", "beta", "knobs", "sha256", "requires", "provenance", "description"}


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
    if folder.parent != _BUILTIN and not trust_remote_code:
        raise UntrustedCodeError(
            f"{folder} holds controller code that did not come with this package; read {folder / 'controller.py'} "
            "and pass trust_remote_code=True to run it."
        )
    kind, card = _load_class(folder.resolve())
    return kind.from_beta(card["beta"]["default"] if beta is None else beta, **knobs)


@lru_cache(maxsize=256)
def _load_class(folder: Path) -> tuple[type[Controller], Mapping[str, Any]]:
    """The class and card of a controller folder, loaded once a process."""
    card = _read_card(folder / "controller.json")
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
    return kind, card


def _read_card(path: Path) -> Mapping[str, Any]:
    try:
        card = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ControllerError(f"{path} is not JSON: {error}") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        found = card.get("format") if isinstance(card, dict) else type(card).__name__
        raise ControllerError(f"{path} has format {found!r}; this version of tts-generate reads {FORMAT!r}.")
    missing = {"entry", "beta", "sha256", "name"} - set(card)
    if missing:
        raise ControllerError(f"{path} lacks {', '.join(sorted(missing))}.")
    for field in set(card) - _FIELDS:
        raise UnknownNameError.of(f"field of {path}", field, _FIELDS)
    return card
