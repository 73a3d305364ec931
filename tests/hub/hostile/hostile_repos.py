"""Controllers' repos that are damaged or mean harm, and what is said of each; none of their code may run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

from hub_checks import CODE, card, good

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 9\n"
WORTH = {"entry": None, "builtin": "worth"}


@dataclass(frozen=True)
class Hostile:
    """A repo by its files, and words of the error: the file's name, and the reason."""

    name: str
    files: Mapping[str, bytes]
    file: str
    reason: str

    def __str__(self) -> str:
        return self.name


def text(name: str, content: bytes, reason: str) -> Hostile:
    """A `controller.json` of these bytes."""
    return Hostile(name, {**good(), "controller.json": content}, "controller.json", reason)


def field(name: str, reason: str, /, **fields: object) -> Hostile:
    """A `controller.json` with these fields; None takes one out."""
    return Hostile(name, good(**fields), "controller.json", reason)


def code(name: str, source: bytes, reason: str) -> Hostile:
    """A `controller.py` of this source, its hash right."""
    return Hostile(name, good(source), "controller.py", reason)


def line(name: str, source: bytes, reason: str) -> Hostile:
    """A `controller.py` with this line before the good code."""
    return code(name, source + b"\n" + CODE, reason)


WHOLE = json.dumps(card())
REPOS = [
    Hostile("no card", {"controller.py": CODE}, "controller.json", r"is not there; beside it are: .*controller\.py"),
    text("broken JSON", b'{"format": ', "is not JSON: .*line 1 column"),
    text("a list", b"[]", "format is 'list'"),
    text("a word", b'"tts-controller/1"', "format is 'str'"),
    text("empty", b"", "is not JSON"),
    text("latin-1", WHOLE.encode().replace(b"few", b"f\xe9w"), "is not UTF-8 text"),
    text("a byte-order mark", b"\xef\xbb\xbf" + WHOLE.encode(), "is not JSON"),
    text("a field twice", WHOLE[:-1].encode() + b', "sha256": "0"}', "'sha256' is in it twice"),
    text("NaN", WHOLE.replace("0.5", "NaN").encode(), "holds NaN"),
    text("Infinity", WHOLE.replace("0.5", "Infinity").encode(), "holds Infinity"),
    text("an infinite float", WHOLE.replace("0.5", "1e999").encode(), "1e999, which is beyond every number"),
    text("a number of 100,000 digits", WHOLE.replace("0.5", "9" * 100_000).encode(), "of more than 64 bits"),
    text("a number of 4,001 digits", WHOLE.replace("0.5", "1" + "0" * 4_000).encode(), "of more than 64 bits"),
    text("a number of 4,301 digits", WHOLE.replace("0.5", "-" + "1" * 4_301).encode(), "of more than 64 bits"),
    text("half of a pair", WHOLE.replace("Reads a few", r"\ud800 a few").encode(), "half of a surrogate pair"),
    text("half of a pair in a name", WHOLE[:-1].encode() + rb', "\udc00": 1}', "half of a surrogate pair"),
    text("nested too deeply", b"[" * 100_000, "nested too deeply"),
    text("nested a little too deeply", b'{"provenance": ' + b"[" * 300 + b"]" * 300 + b"}", "nested too deeply"),
    text("twice within", WHOLE.replace('"default"', '"range": [0, 1], "default"').encode(), "'range' is in it twice"),
    text("300 kB", WHOLE[:-1].encode() + b" " * 300_000 + b"}", "300,[0-9]{3} bytes; at most 262,144|262,145 bytes"),
    text("a pointer", POINTER, "pointer of a file kept in Git LFS"),
    text("a pickle", b"\x80\x04cos\nsystem\n(S'echo RAN'\ntR.", "is not UTF-8 text"),
    field("a newer format", "format is 'tts-controller/99'; this version", format="tts-controller/99"),
    field("another format", "format is 'tts-store/1'", format="tts-store/1"),
    field("no format", "format is None", format=None),
    field("a newer interface", "api is 2; expected is 1", api=2),
    field("an interface that is true", "api is True", api=True),
    field("a misspelt field", "'bta': did you mean 'beta'", bta={}),
    field("a field that grants trust", "'trust_remote_code'", trust_remote_code=True),
    field("a field of transformers' loader", "'auto_map'", auto_map={"AutoModel": "evil--x.Y"}),
    field("beta as text", "beta is '0.5'; expected is", beta="0.5"),
    field("a default outside the range", "beta is .*expected is", beta={"default": 0.9, "range": [0.0, 0.5]}),
    field("a range turned round", "beta is .*expected is", beta={"default": 0.5, "range": [1.0, 0.0]}),
    field("more of beta", "beta is .*expected is", beta={"default": 0.5, "code": "x"}),
    field("an entry above", "entry is '../../x.py:X'", entry="../../x.py:X"),
    field("an absolute entry", "entry is '/etc/x.py:X'", entry="/etc/x.py:X"),
    field("an entry in a folder", "entry is 'custom_generate/generate.py:generate'",
          entry="custom_generate/generate.py:generate"),
    field("an entry of another repo", "entry is 'evil/repo--controller.py:X'", entry="evil/repo--controller.py:X"),
    field("an entry at an address", "entry is 'https://", entry="https://evil.example/controller.py:X"),
    field("an entry that is a pickle", "entry is 'model.pkl:X'", entry="model.pkl:X"),
    field("an entry that is a library", "entry is 'fast.so:X'", entry="fast.so:X"),
    field("an entry with a look-alike", "entry is 'с", entry="сontroller.py:Few"),  # noqa: RUF001
    field("an entry without a class", "entry is 'controller.py'", entry="controller.py"),
    field("both code and none", "both entry and builtin", builtin="cmc"),
    field("neither", "lacks entry", entry=None),
    field("no hash", "lacks sha256", sha256=None),
    field("a hash in capitals", "sha256 is 'ABAB", sha256="AB" * 32),
    field("a name that is a path", r"name is '../../x'", name="../../x"),
    field("a name with an escape", r"name is 'a\\x1b\[31m'", name="a\x1b[31m"),
    field("a description that is none", "description is {}", description={}),
    field("100 kB of description", "description is 'aaa", description="a" * 100_000),
    field("provenance that is none", r"provenance is \[\]", provenance=[]),
    field("a version to come", "requires tts_generate>=99, and this is", requires={"tts_generate": ">=99"}),
    field("another transformers", "requires transformers>=99, and this is", requires={"transformers": ">=99"}),
    field("a package that is not here", "'no_such_thing' is not installed|no_such_thing.* not installed",
          requires={"no_such_thing": ">=1"}),
    field("no version at all", "requires 'numpy' is 'the newest'", requires={"numpy": "the newest"}),
    field("no shipped controller", "unknown controller 'evil'", entry=None, builtin="evil"),
    field("a shipped controller by a path", r"builtin is '../cmc'", entry=None, builtin="../cmc"),
    field("knobs for another version", "another version of worth", **WORTH),
    field("a knob that is a list", "knobs is", knobs={"width": [1]}),
    field("a knob that is endless", "knob width must be a value, or", knobs={"width": {"start": 1}}),
    field("a logarithm of nothing", "above 0 for log", knobs={"width": {"start": 0, "end": 1, "scale": "log"}}),
    field("a knob of 4,001 digits", "of more than 64 bits", knobs={"width": 10**4_000}),
    field("a knob of 64 bits", "knobs is .*expected is", knobs={"width": 1 << 63}),
    field("a knob that grows too far", "knob width must be", knobs={"width": {"start": 1, "end": 1 << 63}}),
    field("a logarithm too far", "knob width must be", knobs={"width": {"start": 1.0, "end": 1e308, "scale": "log"}}),
    field("1,000 knobs", "knobs is", knobs={f"k{number}": 1 for number in range(1000)}),
    field("a knob that is no name", "knobs is", knobs={"__import__('os')": 1}),
    Hostile("no code", {"controller.json": json.dumps(card()).encode()}, "controller.py", "the entry .* names, is not"),
    Hostile("other code", {**good(), "controller.py": CODE + b"#"}, "controller.py", "edited by hand or damaged"),
    Hostile("code cut short", {**good(), "controller.py": CODE[:80]}, "controller.py", "edited by hand or damaged"),
    Hostile("code in LFS", good(POINTER), "controller.py", "pointer of a file kept in Git LFS"),
    code("no such class", CODE.replace(b"class Few", b"class Others"), "has no class 'Few'"),
    code("a function for a class", CODE.replace(b"class Few(Controller)", b"def Few(x)"), "no class 'Few'"),
    code("a syntax error", CODE + b"def (:\n", "is not Python"),
    code("latin-1 code", CODE + b"# \xe9\n", "is not UTF-8 text"),
    code("a zero byte", CODE + b"\0\n", "is not Python"),
    code("5 MB", CODE + b"#" * 5_000_000, "bytes; at most 262,144"),
    code("nested code", CODE + b"x = " + b"(" * 5_000 + b")" * 5_000 + b"\n", "is not Python"),
    line("a call in a comment", b"# coding: unicode_escape\n# \\u000aprint('RAN')", "line 1: .* 'unicode-escape'"),
    line("a call in UTF-7", b"#!\n# coding=utf_7\n# +AAo-print('RAN')", "line 2: the code declares .* 'utf-7'"),
    line("the system", b"import os", "line 1: .* may not import 'os'"),
    line("a process", b"from subprocess import run", "may not import 'subprocess'"),
    line("a pickle's module", b"import pickle", "may not import 'pickle'"),
    line("a socket", b"import socket", "may not import 'socket'"),
    line("machine code", b"import ctypes", "may not import 'ctypes'"),
    line("chance", b"import random", "decide the same every time"),
    line("torch", b"import torch", "may not import 'torch'"),
    line("a neighbour", b"from .evil import x", "one file; it cannot import its neighbours"),
    line("everything of ours", b"from tts_generate import engine", "import by name"),
    line("import by name", b"__import__('os').system('echo RAN')", "may not use '__import__'"),
    line("eval", b"eval('print(1)')", "may not use 'eval'"),
    line("a file", b"open('/etc/passwd').read()", "may not use 'open'"),
    line("subclasses", b"().__class__.__base__.__subclasses__()", "may not use the attribute '__"),
    line("frames", b"x = (i for i in ()).gi_frame", "may not use the attribute 'gi_frame'"),
    line("numpy's pickles", b"import numpy as np; np.load('x')", "may not use the attribute 'load'"),
    line("builtins by name", b"__builtins__['open']", "may not use '__builtins__'"),
]  # fmt: skip

NAMES: list[tuple[str, list[str], str]] = [
    ("back and up", ["evaluation/a\\..\\b"], r"named 'evaluation/a\\\\\.\.\\\\b', which has"),
    ("back alone", ["a\\..\\b"], "which has"),
    ("a drive", ["C:evil.py"], "which has ':' in it"),
    ("a stream", ["controller.py:x"], "which has ':' in it"),
    ("a device", ["evaluation/NUL"], "is a device on Windows"),
    ("a device with an ending", ["custom_generate/con.py"], "is a device on Windows"),
    ("a port", ["evaluation/com1 .txt"], "is a device on Windows"),
    ("a dot at its end", ["evaluation/x."], "ends with a dot"),
    ("a space at its end", ["evaluation/x.json "], "begins or ends with a space"),
    ("a line break", ["evaluation/x\n.json"], "that nobody sees"),
    ("turned round", ["evaluation/\u202egnp.x"], "that nobody sees"),
    ("no width", ["contro\u200bller.py"], "that nobody sees"),
    ("an escape", ["evaluation/\x1b[31m"], "that nobody sees"),
    ("a pattern", ["evaluation/*"], r"which has '\*' in it"),
    ("capitals", ["CONTROLLER.PY"], "'controller.py', which is 'CONTROLLER.PY' on some systems"),
    ("a folder in capitals", ["evaluation/x", "Evaluation/y"], "'evaluation/x', which is 'Evaluation' on some systems"),
    ("two spellings", ["evaluation/\xe9", "evaluation/e\u0301"], "on some systems"),
    ("256 letters", ["evaluation/" + "a" * 256], "is too long for a file"),
]
"""Files beside a good controller's, and what `pull` and `verify` say of their names."""
