"""A controller as a folder: what `save_pretrained` writes, and the files by which a stock model runs it."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tts_generate.controller import Controller, by_hand
from tts_generate.disk import write_whole
from tts_generate.errors import ControllerError, InputError
from tts_generate.hub.card import API, CARD, FORMAT, check_code, entry_of, parse_card
from tts_generate.hub.source import Source, read_folder
from tts_generate.inert import as_markdown
from tts_generate.loading import is_shipped, source_of
from tts_generate.schedule import Ends, from_json, to_json
from tts_generate.version import __version__

CODE = "controller.py"
RECIPE = "custom_generate/generate.py"
RECIPE_CODE = "custom_generate/controller.py"
RECIPE_REQUIREMENTS = "custom_generate/requirements.txt"
NOT_MEASURED = (
    "Not measured yet: `tts-generate publish FOLDER user/repo --store STORE` measures it and writes this page."
)
_SERIES = ".".join(__version__.split(".")[:2])


def save(controller: Controller, folder: Path, *, name: str | None = None, description: str | None = None) -> Path:
    """Write `controller` into `folder`; see `Controller.save_pretrained`."""
    card, code = as_files(controller, name, description)
    text = card_json(card).encode()
    parse_card(text, CARD)
    if code is not None:
        check_code(card, code, f"{inspect.getfile(type(controller))}, which becomes {CODE}")
    files = {} if code is None else {CODE: code}
    files |= recipe_files(card, code)
    if not (folder / "README.md").exists():
        files["README.md"] = readme(card).encode()
    files[CARD] = text  # last: cut off before it, the folder is what it was, or takes the same save again
    _spare_code(folder, code)
    try:
        if code is None:
            (folder / RECIPE_CODE).unlink(missing_ok=True)  # a copy, which nothing would run any more
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            write_whole(folder / path, content)
    except OSError as error:
        raise InputError(f"cannot write {folder}: {error.strerror}.") from error
    return folder


def _spare_code(folder: Path, code: bytes | None) -> None:
    """Refuse a folder whose code would be lost: code of no earlier save, or any where none is to be written."""
    there = folder / CODE
    if not there.is_file() or (old := there.read_bytes()) == code:
        return
    earlier = (folder / CARD).is_file() and hashlib.sha256(old).hexdigest() in (folder / CARD).read_text("utf-8")
    if code is None or not earlier:
        what = "the code of another controller" if earlier else "no code that was saved"
        raise InputError(f"{there} would be lost: it is {what}. Save into another folder, or delete it first.")


def as_files(
    controller: Controller, name: str | None = None, description: str | None = None
) -> tuple[dict[str, Any], bytes | None]:
    """The card of a controller, and its code; None for one that is data alone.

    Raises:
        ControllerError: its code is not to be had as a file.
    """
    kind, schedule = type(controller), dict[str, Any]()
    while source_of(kind) is None and "own_schedule" in vars(kind):
        schedule = {**vars(kind)["own_schedule"], **schedule}
        kind = kind.__bases__[0]
    source = source_of(kind)
    card, code = _of_source(source) if source is not None else _of_class(kind)
    if source is not None and kind.latency is not None:
        schedule = {**vars(kind)["own_schedule"], **schedule}
    set_here = {**to_json(schedule), **by_hand(controller)}
    knobs = {**card.pop("knobs", {}), **set_here}
    short = {name: knob for name, knob in card.pop("short", {}).items() if name not in set_here}
    default = card["beta"]["default"] if controller.beta is None else controller.beta
    card["beta"] = {**card["beta"], "default": default}
    card |= {"name": name} if name is not None else {}
    card |= {"description": description} if description is not None else {}
    return {**card, **({"knobs": knobs} if knobs else {}), **({"short": short} if short else {})}, code


def _of_source(source: Source) -> tuple[dict[str, Any], bytes | None]:
    """The card of what was loaded; the code of a shipped controller is named instead of copied."""
    card = dict(source.card)
    if source.code is None or not is_shipped(source):
        return card, source.code
    del card["entry"]
    return {**card, "builtin": source.path.name}, None


def _of_class(kind: type[Controller]) -> tuple[dict[str, Any], bytes]:
    """A card for a class that somebody wrote, and the file in which it is."""
    if kind.__module__.startswith("tts_generate.") or "<locals>" in kind.__qualname__:
        raise ControllerError(
            f"{kind.__name__} cannot be saved: it is not a class at the top of a file of its own. A published method "
            "or a sandboxed controller is saved by copying what it was loaded from."
        )
    try:
        code = Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError) as error:
        raise ControllerError(
            f"{kind.__name__} cannot be saved: its code is in no file (a notebook, or text that was run). Write it "
            "into a file of its own and import it from there."
        ) from error
    doc = (inspect.getdoc(kind) or "").partition("\n")[0]
    entry = {"entry": f"{CODE}:{kind.__name__}"}
    return new_card(kind.__name__, doc, entry, hashlib.sha256(code).hexdigest()), code


def new_card(
    name: str,
    description: str,
    code: Mapping[str, str],
    sha256: str,
    *,
    knobs: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What the `controller.json` of a new controller holds, for any budget.

    Args:
        name: of the controller.
        description: one sentence.
        code: whose it is: {"entry": "file.py:Class"}, or {"builtin": name} for a shipped one.
        sha256: of that code.
        knobs: schedules of them.
        provenance: where it comes from, plain JSON values.
    """
    return {
        "format": FORMAT,
        "api": API,
        "name": name,
        "description": description,
        **code,
        "beta": {"default": 0.5, "range": [0.0, 1.0]},
        **({} if knobs is None else {"knobs": dict(knobs)}),
        "sha256": sha256,
        "requires": {"tts_generate": f">={_SERIES}"},
        "provenance": dict(provenance or {}),
    }


def card_json(card: Mapping[str, Any]) -> str:
    """The text of a `controller.json`."""
    return json.dumps(card, indent=2, ensure_ascii=False) + "\n"


def recipe_files(card: Mapping[str, Any], code: bytes | None) -> dict[str, bytes]:
    """The folder `custom_generate/`, by which transformers runs a controller on any model; it follows from the others.

    transformers fetches the files beside `generate.py` that it imports relatively, and no others of the repo: so the
    card is written into it, and the code is there once more.
    """
    # Text of a card cannot end the literal: JSON has no three quotes in a row, and no line break within a string.
    told = json.dumps(card, indent=2, ensure_ascii=True).replace("\\", "\\\\")
    imports, path = "", "None"
    if code is not None:
        imports = (
            "from pathlib import Path\nfrom typing import TYPE_CHECKING\n\nfrom tts_generate.recipe import answer\n\n"
            f"if TYPE_CHECKING:  # transformers fetches what is imported here; it is checked before it runs\n"
            f"    from .controller import {entry_of(card)[1]}\n"
        )
        path = 'Path(__file__).with_name("controller.py")'
    else:
        imports = "from tts_generate.recipe import answer\n"
    text = f'''"""This repo's controller on any model: generate(custom_generate="user/repo", trust_remote_code=True).

Written by tts-generate from controller.json and controller.py; `tts-generate verify` says whether they still match.
"""

{imports}
CARD = """{told}"""


def generate(model, **arguments):
    """Takes the arguments of transformers' `generate` and of `tts_generate.AutoTTS`, such as beta=0.5 and seed=1."""
    return answer(model, CARD, {path}, arguments)
'''
    files = {RECIPE: text.encode(), RECIPE_REQUIREMENTS: b"tts-generate\n"}
    return files if code is None else {**files, RECIPE_CODE: code}


def check_recipe(folder: Path, source: Source) -> None:
    """Refuse a folder whose `custom_generate/` does not do what its card says.

    Raises:
        ControllerError: naming the file.
    """
    for path, content in recipe_files(source.card, source.code).items():
        if not (folder / path).is_file() or (folder / path).read_bytes() != content:
            raise ControllerError(
                f"{folder / path} is not what follows from {CARD} and {CODE}: a stock model would run something else. "
                "Save or publish the controller again."
            )


def readme(card: Mapping[str, Any], words: str = NOT_MEASURED) -> str:
    """The README of a controller that is not published yet: what its card says, then `words`."""
    lines = [
        "---\nlibrary_name: tts_generate\nlicense: apache-2.0",
        "tags: [tts-controller, test-time-scaling, custom_generate]\n---\n",
        f"# {card['name']}\n",
        f"{as_markdown(card.get('description', ''))}\n".lstrip(),
        *knob_table(card),
        words,
    ]
    return "\n".join(lines) + "\n"


def knob_table(card: Mapping[str, Any]) -> list[str]:
    """The knobs that a card sets, as lines of Markdown; none where beta sets them all."""
    lines = []
    for field, told in (("knobs", "knob"), ("short", "knob at latency 1")):
        schedule = from_json(card.get(field, {}), CARD)
        lines += [f"| {told} | at β = 0 | at β = 1 |", "|---|---|---|"] if schedule else []
        for name, knob in schedule.items():
            start, end = (knob.start, knob.end) if isinstance(knob, Ends) else (knob, knob)
            lines.append(f"| `{name}` | {as_markdown(start)} | {as_markdown(end)} |")
        lines += [""] if schedule else []
    return lines


def saved(folder: Path) -> Source:
    """What `save` wrote, read back and checked."""
    source = read_folder(folder)
    check_recipe(folder, source)
    return source
