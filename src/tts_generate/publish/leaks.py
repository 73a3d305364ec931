"""What must not be published by accident: tokens, the home folder's name, pickles and weights."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from tts_generate.errors import ControllerError
from tts_generate.secret import SHAPES

_SECRETS = {
    **SHAPES,
    "a private key": re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"),
    "the path of a home folder": re.compile(r"(?:/home|/Users)/[^/\s\"']+/|[A-Za-z]:\\{1,2}Users\\"),
}
_BINARY = (".png",)
_REFUSED = {
    ".bin", ".ckpt", ".dill", ".gguf", ".h5", ".joblib", ".msgpack", ".npy", ".npz", ".onnx", ".pickle", ".pkl",
    ".pt", ".pth", ".safetensors", ".so", ".pyd", ".dll", ".dylib", ".exe", ".zip", ".7z", ".tar", ".gz",
}  # fmt: skip


def check_leaks(files: Mapping[str, bytes]) -> None:
    """Refuse to publish a secret.

    Raises:
        ControllerError: naming the file, the line, and what stands there; not the secret.

    >>> check_leaks({"controller.py": b"x = 1 # hf_" + b"a" * 30})
    Traceback (most recent call last):
    tts_generate.errors.ControllerError: controller.py, line 1: looks like a Hugging Face token; it is not published.
    """
    patterns = {**_SECRETS, "the path of your home folder": re.compile(re.escape(f"{Path.home()}/"))}
    for path, content in files.items():
        if path.endswith(_BINARY):
            continue
        for number, line in enumerate(content.decode("utf-8", "replace").splitlines(), 1):
            for what, pattern in patterns.items():
                if pattern.search(line):
                    raise ControllerError(f"{path}, line {number}: looks like {what}; it is not published.")


def check_kinds(paths: Iterable[str], where: object) -> None:
    """Refuse a folder with weights, pickles, programs or archives in it: a controller is text.

    Raises:
        ControllerError: naming the file.
    """
    for path in paths:
        if PurePosixPath(path).suffix.lower() in _REFUSED:
            raise ControllerError(
                f"{where}/{path}: a controller's repo holds no weights, pickles, programs or archives; take it out."
            )
