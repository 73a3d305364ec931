"""JSON of strangers: one clear error for each way in which it can be wrong, wherever it is read; never a traceback."""

from __future__ import annotations

import copy
import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hub_checks import CODE, card
from strangers import evaluation, trace_of
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.cli.base import knobs_of, write_json
from tts_generate.errors import ControllerError, InputError, StoreFormatError, TTSError
from tts_generate.publish.files import curves_csv, read_evaluation
from tts_generate.report.controller_page import controller_page
from tts_generate.report.gather import of_sweep
from tts_generate.report.live import of_traces
from tts_generate.report.page import render
from tts_generate.report.timeline import timeline
from tts_generate.strict_json import Amount, Short, check_shape, parse_json, read_json
from tts_generate.trace import read_traces, write_traces

BAD = {
    "nothing": ("", "is not JSON"),
    "cut off": ('{"a": ', "is not JSON"),
    "two values": ("1 2", "is not JSON"),
    "a byte-order mark": (b"\xef\xbb\xbf1", "is not JSON"),
    "latin-1": (b'"\xe9"', "is not UTF-8 text"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "is not UTF-8 text"),
    "a surrogate in UTF-8": (b'"\xed\xa0\x80"', "is not UTF-8 text"),
    "a line break in a text": ('"a\nb"', "is not JSON"),
    "NaN": ("[NaN]", "holds NaN, which JSON does not have"),
    "Infinity": ('{"a": -Infinity}', "holds -Infinity"),
    "an infinite number": ("1e400", "holds 1e400, which is beyond every number"),
    "too whole": (str(1 << 64), "a whole number of more than 64 bits"),
    "too low": (str(-(1 << 63) - 1), "a whole number of more than 64 bits"),
    "10**4000": ("1" + "0" * 4000, "holds 100000000000000000000000…, a whole number"),
    "10**5000": ("1" + "0" * 5000, "a whole number of more than 64 bits"),
    "twice": ('{"a": {"b": 1, "b": 2}}', "'b' is in it twice"),
    "twice by escapes": (r'{"a": 1, "\u0061": 2}', "'a' is in it twice"),
    "a half": (r'["\ud800"]', "half of a surrogate pair"),
    "a half as a name": (r'{"\udfff": 1}', "half of a surrogate pair"),
    "halves in the wrong order": (r'"\udc00\ud800"', "half of a surrogate pair"),
    "deep": ("[" * 101 + "]" * 101, "nested too deeply, beyond 100 levels"),
    "deeper": ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
    "deepest": ("[" * 1_000_000, "nested too deeply"),
    "large": (" " * 2_000_000, "has 2,000,000 bytes; at most 1,048,576 are read"),
}


@pytest.mark.parametrize(("text", "why"), BAD.values(), ids=BAD)
def test_bad(text: str | bytes, why: str, tmp_path: Path) -> None:
    with pytest.raises(StoreFormatError, match=why) as caught:
        parse_json(text, "x.json", largest=1 << 20, error=StoreFormatError)
    assert str(caught.value).startswith("x.json: ")
    assert len(str(caught.value)) < 300
    (tmp_path / "x").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match="bytes; at most" if "bytes" in why else why):
        read_json(tmp_path / "x", largest=1 << 20)


@pytest.mark.parametrize(
    "value", [None, True, [], {}, "é\0\x85", 1.5, -(1 << 63), (1 << 64) - 1, [[["a"] * 9]], {"": {" ": 0}}, "😀"]
)
def test_good(value: object) -> None:
    for ascii_alone in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_alone), "x") == value
    assert parse_json(json.dumps(value).encode(), "x") == value


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5_000, "1e999", "NaN", '{"a": 1, "a": 2}', "many"])
def test_a_knob_on_the_command_line(text: str) -> None:
    """What is no JSON that we take is a text, which the knob then refuses by its name."""
    assert knobs_of([f"width={text}"]) == {"width": text}
    assert knobs_of(["width=7", "share=0.5", "on=true"]) == {"width": 7, "share": 0.5, "on": True}


@pytest.mark.parametrize("name", ["controller", "beta", "latency", "trust_remote_code", "sandbox", "revision"])
def test_what_is_no_knob_is_not_set_as_one(name: str) -> None:
    """Of serve it was taken over the option itself, trust and sandbox too; of replay it was a TypeError."""
    with pytest.raises(InputError, match=f"--set sets knobs, and {name} is none"):
        knobs_of([f" {name} =1"])
    with pytest.raises(InputError, match="--set sets width twice"):
        knobs_of(["width=7", "width=8"])


def test_half_of_a_pair_is_written_as_json_has_it(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", {"store": "a\udc9b"})
    assert json.loads((tmp_path / "x.json").read_text("utf-8")) == {"store": "a\udc9b"}
    write_traces(tmp_path / "t.jsonl", [trace_of("a\udc9b")])
    file = tmp_path / "u.jsonl"
    write_traces(file, [trace_of("a")])
    whole = file.read_bytes()
    assert write_traces(file, read_traces(file)) == 1, "it was emptied before it was read"
    assert file.read_bytes() == whole
    with pytest.raises(InputError, match=r"t\.jsonl, line 1: it holds .* half of a surrogate pair"):
        list(read_traces(tmp_path / "t.jsonl"))


def test_what_is_no_file(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none", tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(InputError, match="is not a file"):
            read_json(path)


@pytest.mark.parametrize(
    ("value", "shape", "why"),
    [
        ({}, {"a": int}, "x: a is not in it"),
        ({"a": {}}, {"a": {"b": {"c": int}}}, "x: a.b is not in it"),
        ([1, "2"], [int], r"x: \[1\] is '2'; expected is a whole number"),
        ({"a": True}, {"a": int}, "x: a is True; expected is a whole number"),
        ({"a": None}, {"a?": str}, "x: a is None; expected is a text"),
        ({"a": [1]}, {"a": (int, int)}, r"x: a is \[1\]; expected is a list of 2"),
        ({"a": {"b": []}}, {"a": {str: {}}}, r"x: a\['b'\] is \[\]; expected is an object"),
        ({"a": -0.5}, {"a": Amount}, "expected is a number, 0 or more"),
        ({"a": "x" * 4001}, {"a": Short | None}, "expected is a text or None"),
        ("x" * 90, {}, "x: it is 'xxx.*; expected is an object"),
    ],
)
def test_shapes(value: object, shape: Any, why: str) -> None:
    with pytest.raises(InputError, match=f"^{why}" if why.startswith("x:") else why) as caught:
        check_shape(value, shape, "x")
    assert len(str(caught.value)) < 200


JUNK: list[Any] = [None, True, -1, 1 << 63, 0.5, "", "a" * 9_000, [], [[]], {}, {"a": {}}, [1, 2, 3]]


def spoilt(value: Any, where: tuple[Any, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every part of `value` in turn as every kind of junk, or taken away."""

    def walk(part: Any, at: tuple[Any, ...]) -> Iterator[tuple[Any, ...]]:
        yield at
        inner = part.items() if isinstance(part, dict) else enumerate(part[:1]) if isinstance(part, list) else ()
        for name, one in inner:
            yield from walk(one, (*at, name))

    for place in list(walk(value, ()))[1:]:
        for junk in [*JUNK, KeyError]:
            changed = copy.deepcopy(value)
            holder = changed
            for step in place[:-1]:
                holder = holder[step]
            if junk is KeyError:
                del holder[place[-1]]
            else:
                holder[place[-1]] = junk
            yield f"{place} as {junk!r:.40}", changed


def outcomes(value: Any, file: Path, use: Any, ending: str = "") -> list[str]:
    """What each spoilt value comes to: "taken", or an error of ours; any other fails the test."""
    found = []
    for told, changed in spoilt(value):
        file.write_text(json.dumps(changed) + ending, "utf-8")
        try:
            use()
        except TTSError as error:
            found.append("refused" if len(str(error)) < 500 else str(error))
        except Exception as error:
            pytest.fail(f"{told}: {type(error).__name__}: {error}")
        else:
            found.append("taken")
    assert set(found) <= {"refused", "taken"}
    return found


def test_an_evaluation_spoilt_in_every_place(tmp_path: Path) -> None:
    of = card(name="x")
    good = evaluation(of, "x")
    del good["stores"][1], good["stores"][0]["rows"][1]

    def use() -> None:
        told = read_evaluation(tmp_path / "s.json", "s.json")
        controller_page(of, told, repo_id="me/x", knobs="", own_words="")
        assert len(list(csv.reader(io.StringIO(curves_csv(told))))) > 0

    found = outcomes(good, tmp_path / "s.json", use)
    assert found.count("refused") > 3 * found.count("taken") > 0


@pytest.mark.parametrize(
    "text",
    [
        "{}", "[]", "null", "[" * 100_000, '{"format": "tts-evaluation/1"}', '{"format": NaN}',
        '{"format": "tts-evaluation/1", "stores": "many", "controller": "x"}', "1" * 5000, '{"format": {"a": [[[]]]}}',
    ],
)  # fmt: skip
def test_show_with_a_hostile_summary(text: str, tmp_path: Path) -> None:
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "controller.json").write_text(json.dumps(card()))
    (tmp_path / "controller.py").write_bytes(CODE)
    (tmp_path / "evaluation" / "summary.json").write_text(text)
    shown = CliRunner().invoke(app, ["show", str(tmp_path)])
    assert shown.exit_code == 1, shown.output
    assert isinstance(shown.exception, SystemExit)
    assert "summary.json" in shown.output.rpartition("error: ")[2]
    with pytest.raises(ControllerError, match=r"summary\.json"):
        read_evaluation(tmp_path / "evaluation" / "summary.json", "summary.json")


def test_traces_spoilt_in_every_place(tmp_path: Path) -> None:
    def use() -> None:
        for trace in read_traces(tmp_path / "t.jsonl"):
            list(timeline(trace))
        render(of_traces([tmp_path / "t.jsonl"]))

    good = json.loads(json.dumps(trace_of("x").to_dict()))
    found = outcomes(good, tmp_path / "t.jsonl", use, "\n")
    assert found.count("refused") > found.count("taken") > 0


def test_a_sweep_spoilt_in_every_place(tmp_path: Path) -> None:
    row: dict[str, Any] = {"label": "SC", "controller": "asc", "beta": None, "knobs": {"max_samples": 4}}
    row |= {"accuracy": 50.0, "accuracy_ci": [40.0, 60.0], "against": {}}
    kinds = ("tokens", "generated_tokens", "probe_tokens", "wasted_tokens", "sequential_tokens", "branches", "rounds")
    row |= dict.fromkeys(kinds, 10.0)
    row["against"] = {"SC": {"points": 0.0, "points_ci": [0.0, 0.0], "saving": 0.0}}
    good = {
        "format": "tts-sweep/2",
        "shuffles": 1,
        "votes": "equal",
        "cells": [{**row, "store": "gone"}],
        "average": [row],
    }
    found = outcomes(good, tmp_path / "s.json", lambda: render(of_sweep(tmp_path / "s.json", None)))
    assert found.count("refused") > found.count("taken") > 0
