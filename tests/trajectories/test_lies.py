"""Stores that lie, and things that are no files: one clear error, by the same rules in `open`, `check` and replay."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import struct
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from test_check import contents, invoke, recorded
from test_store import MANIFEST, NO_BRANCH, QUESTIONS, ROWS

from tts_generate.errors import InputError, StoreError, StoreFormatError, TTSError
from tts_generate.loading import load_controller
from tts_generate.replay import Recording
from tts_generate.trajectories import (
    Manifest,
    Question,
    StoreWriter,
    Trajectory,
    TrajectoryStore,
    check,
    import_autotts,
    parts,
    repair,
)
from tts_generate.trajectories.schema import (
    SCHEMA,
    questions_from_jsonl,
    questions_sha256,
    questions_to_jsonl,
    to_table,
)

PLAYED = load_controller("self_consistency", max_samples=3)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three branches of each question, in a shard; its manifest tells of three."""
    path = tmp_path_factory.mktemp("whole") / "s"
    with StoreWriter.open(path, dataclasses.replace(MANIFEST, branches=3), QUESTIONS) as writer:
        writer.append([row for row in ROWS if row.branch < 3])
    return path


@pytest.fixture
def store(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "s")


def change(store: Path, **fields: Any) -> None:
    """Change fields of a manifest."""
    card = json.loads((store / "manifest.json").read_text())
    (store / "manifest.json").write_text(json.dumps({**card, **fields}))


def told(store: Path) -> str:
    """Why a store cannot be replayed, in one line; "" if it can: replay and check are of one mind."""
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            recording = Recording.from_store(store)
            for index in range(len(recording.questions)):
                recording.episode(PLAYED, index)
        said = "".join(str(warning.message) for warning in heard)
    except TTSError as error:
        said = str(error)
        assert "\n" not in said
    return said


MANIFEST_LIES: list[tuple[str, Any]] = [
    ("interval_tokens", 0), ("interval_tokens", -5), ("interval_tokens", 10**30), ("interval_tokens", 2**31),
    ("interval_tokens", "10"), ("interval_tokens", 10.0), ("interval_tokens", True), ("interval_tokens", None),
    ("branches", "many"), ("branches", 0), ("branches", -3), ("branches", 10**30), ("branches", [3]), ("branches", {}),
    ("seed", 2**63), ("seed", "3"), ("seed", 0.5), ("model", "m"), ("model", []), ("model", {"name_or_path": 5}),
    ("model", None), ("tokenizer", 1), ("generation_config", "x"), ("generation_config", None), ("probe", [1]),
    ("versions", {"torch": 2}), ("versions", ["2"]), ("source", "guessed"), ("source", 1), ("source", ["recorded"]),
    ("questions_sha256", None), ("questions_sha256", 5), ("questions_sha256", "0" * 64), ("format", 1), ("format", []),
    # whole and in range, and not what the shards hold
    ("interval_tokens", 5), ("interval_tokens", 7), ("interval_tokens", 20), ("interval_tokens", 1), ("branches", 2),
    ("source", "autotts-2"),
]  # fmt: skip


@pytest.mark.parametrize(("field", "value"), MANIFEST_LIES, ids=str)
def test_a_manifest_that_lies(store: Path, field: str, value: Any) -> None:
    change(store, **{field: value})
    assert told(store)
    assert not check(store).sound
    assert "WRONG" in invoke("store", "check", store, code=1)


@pytest.mark.parametrize(
    "text",
    [
        '{"format": "tts-store/1", "format": "tts-store/1"}', '{"format": NaN}', "[" * 100_000, "null", "", "\0",
        '{"format": "tts-store/1", "seed": ' + "9" * 5000 + "}",
    ],
    ids=lambda text: text[:20],
)  # fmt: skip
def test_a_manifest_that_is_no_json(store: Path, text: str) -> None:
    (store / "manifest.json").write_text(text)
    assert "manifest.json" in told(store)
    assert not check(store).sound
    (store / "manifest.json").write_bytes(b"\xff\xfe" + text.encode())
    assert "cannot be read" in told(store)
    assert not check(store).sound


def _lost(lines: list[str]) -> list[str]:
    return lines[:1]


def _edited(lines: list[str]) -> list[str]:
    return [lines[0].replace('"gold_answer": "2"', '"gold_answer": "3"'), *lines[1:]]


@pytest.mark.parametrize(
    "change_lines", [_lost, _edited, lambda lines: lines[::-1], lambda lines: [*lines, lines[0].replace('"a"', '"c"')]]
)
def test_questions_that_were_changed(store: Path, change_lines: Callable[[list[str]], list[str]]) -> None:
    """A right answer, and a question with its branches: nobody would notice by the rows."""
    file = store / "questions.jsonl"
    file.write_text("".join(change_lines(file.read_text().splitlines(keepends=True))))
    (part,) = store.glob("part-*")
    rows = [row for row in ROWS if row.branch < 3 and (change_lines is not _lost or row.question_id == "a")]
    pq.write_table(to_table(rows), part)
    assert "questions_sha256 differs" in told(store)
    assert not check(store).sound
    with pytest.raises(StoreFormatError, match="questions_sha256 differs"):
        StoreWriter.open(store, dataclasses.replace(MANIFEST, branches=3), QUESTIONS)


def test_a_question_without_branches_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    recorded(tmp_path / "s", ROWS[:40])
    assert len(Recording.from_store(tmp_path / "s").questions) == 1
    assert "40 of 80 branches are recorded; 1 of 2 questions have none (first 'b')" in caplog.text


ROW = ROWS[0].to_row()
ROW_LIES: list[dict[str, Any]] = [
    {"branch": -1}, {"branch": 3}, {"branch": 2**31 - 1}, {"branch": None}, {"prompt_tokens": -1}, {"tokens": None},
    {"tokens": 2**31 - 1}, {"tokens": 2**31 - 1, "token_ids": None}, {"tokens": -2**31, "token_ids": None},
    {"tokens": 2**31 - 1, "token_ids": None, "step_logprobs": []}, {"question_id": "c"}, {"question_id": None},
    {"probe_positions": [10, 30]}, {"probe_positions": [10, 2**31 - 1]}, {"probe_positions": [11, 20]},
    {"probe_positions": [-10, 20]}, {"probe_positions": [20, 10]}, {"probe_positions": [10, None]},
    {"probe_positions": None}, {"probe_positions": [10]}, {"probe_tokens": [3, -3]}, {"probe_tokens": [3, None]},
    {"probe_logprobs": [float("nan"), None]}, {"step_logprobs": [float("inf")] * 3}, {"step_logprobs": [-1.0] * 99},
    {"step_logprobs": [-1.0]}, {"finish_reason": "tired"}, {"finish_reason": None}, {"token_ids": [1]},
    {"token_ids": [-1] * 25}, {"token_ids": [None] * 25},
]  # fmt: skip


@pytest.mark.parametrize("lie", ROW_LIES, ids=str)
def test_a_shard_that_lies(store: Path, lie: dict[str, Any]) -> None:
    (part,) = store.glob("part-*")
    good = [row.to_row() for row in ROWS[1:3]]
    pq.write_table(pa.Table.from_pylist([{**ROW, **lie}, *good], schema=SCHEMA), part)
    start = time.process_time()
    assert told(store)
    assert not check(store).sound
    with pytest.raises(StoreFormatError):
        StoreWriter.open(store, dataclasses.replace(MANIFEST, branches=3), QUESTIONS)
    assert time.process_time() - start < 5


@pytest.mark.parametrize("lie", [{"branch": 3}, {"question_id": "c"}, {"probe_positions": (10, 30)}])
def test_what_could_not_be_read_back_is_not_acknowledged(store: Path, lie: dict[str, Any]) -> None:
    with StoreWriter.open(store, dataclasses.replace(MANIFEST, branches=3), QUESTIONS) as writer:
        writer.done.clear()
        with pytest.raises(StoreFormatError):
            writer.append([dataclasses.replace(ROWS[0], **lie)])
        assert not writer.done
    assert check(store).sound


def test_more_steps_than_fit_into_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is in range: two branches with many steps, and many branches with one that has many."""
    long = dataclasses.replace(ROWS[0], tokens=10**7, token_ids=None, step_logprobs=())
    monkeypatch.setenv("TTS_STORE_MEMORY_GB", "0.1")
    for rows in ([long, dataclasses.replace(long, branch=1)], [long, *ROWS[1:40]]):
        with pytest.raises(StoreError, match=r"at most 0\.1 are given to a store.*TTS_STORE_MEMORY_GB"):
            Recording.of(QUESTIONS, rows, 10)
    with pytest.raises(InputError, match="interval_tokens must be at least 1"):
        Recording.of(QUESTIONS, ROWS, 0)
    with pytest.raises(StoreError, match="cannot be replayed: it was probed elsewhere"):
        Recording.of(QUESTIONS, ROWS, 7)
    monkeypatch.setenv("TTS_STORE_MEMORY_GB", "plenty")
    with pytest.raises(InputError, match="must be a number of gigabytes, got 'plenty'"):
        Recording.of(QUESTIONS, ROWS, 10)


def _repeated(name: str, values: pa.Array) -> pa.Table:
    table = to_table([ROWS[0]] * (1 if pa.types.is_list(values.type) else len(values)))
    return table.set_column(SCHEMA.get_field_index(name), SCHEMA.field(name), values)


BOMBS: dict[str, Callable[[], pa.Table]] = {
    "a number, over and over": lambda: _repeated(
        "token_ids", pa.ListArray.from_arrays(pa.array([0, 10**6], pa.int32()), pa.array(np.zeros(10**6, "i4")))
    ),
    "a text, over and over": lambda: _repeated("final_answer", pa.array(["x" * 100_000] * 300)),
    "a text in lists": lambda: _repeated("probe_answers", pa.array([["x" * 100_000] * 300], pa.list_(pa.string()))),
    "rows": lambda: pa.concat_tables([to_table([ROWS[0]])] * 60_000),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_shard_that_unpacks_to_more_than_fits(store: Path, bomb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some of them a few kilobytes: refused before they are written out, by reader, check and writer alike."""
    (part,) = store.glob("part-*")
    pq.write_table(BOMBS[bomb]().combine_chunks(), part, compression="zstd")
    monkeypatch.setenv("TTS_STORE_MEMORY_GB", "0.02")
    before = contents(store)
    for attempt in (
        TrajectoryStore.open(store).trajectories,
        lambda: check(store),
        lambda: repair(store),
        lambda: StoreWriter.open(store, dataclasses.replace(MANIFEST, branches=3), QUESTIONS),
    ):
        with pytest.raises(StoreError, match=r"part-.* GB of memory, and at most 0\.02"):
            attempt()
    assert contents(store) == before


@pytest.mark.parametrize("bomb", ["a number, over and over", "rows"])
def test_what_its_metadata_says_is_too_much_is_not_read(
    store: Path, bomb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (part,) = store.glob("part-*")
    pq.write_table(BOMBS[bomb]().combine_chunks(), part, compression="zstd")
    data = bytearray(part.read_bytes())
    footer = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    data[4:footer] = bytes(footer - 4)  # whoever reads them finds no pages
    part.write_bytes(data)
    with pytest.raises(StoreError, match="cannot be read"):
        TrajectoryStore.open(store).trajectories()
    monkeypatch.setenv("TTS_STORE_MEMORY_GB", "0.02")
    with pytest.raises(StoreError, match=r"part-.* GB of memory, and at most 0\.02"):
        TrajectoryStore.open(store).trajectories()


def test_many_shards_count_together(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = shutil.copytree(whole, tmp_path / "s")
    (part,) = store.glob("part-*")
    for number in range(10):
        shutil.copy(part, store / f"part-0000{number}-copy.parquet")
    assert check(store).sound
    monkeypatch.setenv("TTS_STORE_MEMORY_GB", "0.00008")
    with pytest.raises(StoreError, match="GB of memory"):
        check(store)
    with pytest.raises(StoreError, match="GB of memory"):
        TrajectoryStore.open(store).trajectories()


def test_texts_count_as_often_as_they_stand_there() -> None:
    """As a dictionary, as they were asked for, or as a shard says that it has them."""
    texts = pa.chunked_array([["a", "bc", "a", None]])
    assert parts._written_out(texts) == parts._written_out(texts.dictionary_encode()) == 4


json_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=4), st.sampled_from([0, 1, 2**31])
    ),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
mutations = st.one_of(
    st.tuples(st.just("manifest"), st.sampled_from([f.name for f in dataclasses.fields(Manifest)]), json_values),
    st.tuples(st.just("journal"), st.sampled_from(SCHEMA.names), json_values),
    st.tuples(st.just("shard"), st.sampled_from(SCHEMA.names), st.integers(-(2**31), 2**31 - 1)),
    st.tuples(st.just("bytes"), st.sampled_from(["manifest.json", "questions.jsonl", "part"]), st.integers(0, 10**6)),
)


@settings(max_examples=120, deadline=2000, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mutation=mutations)
@example(mutation=("journal", "question_id", float("inf")))
@example(mutation=("bytes", "part", 820952))  # its own schema says that texts are no dictionary
def test_any_lie_is_told_or_changes_nothing_that_is_not_said(whole: Path, tmp_path: Path, mutation: Any) -> None:
    """A value replaced: it replays, or is refused by one error of ours; and `check` finds it just then."""
    shutil.rmtree(tmp_path / "s", ignore_errors=True)
    store = shutil.copytree(whole, tmp_path / "s")
    what, name, value = mutation
    (part,) = store.glob("part-*")
    if what == "manifest":
        change(store, **{name: value})
    elif what == "journal":
        write_record(store, json.dumps([{**ROWS[0].to_row(), name: value}]).encode())
    elif what == "shard":
        spoil(part, name, value)
    else:
        file = part if name == "part" else store / name
        data = bytearray(file.read_bytes())
        data[value % len(data)] ^= 1 << value % 8
        file.write_bytes(data)
    said = told(store)
    found = check(store)
    unprobed = "was not probed at" in said or "was not recorded beyond" in said or "numbered from 0" in said
    hashless = any("has no hash" in str(finding) for finding in found.findings)
    if what == "journal" and any("bytes are damaged" in str(finding) for finding in found.findings):
        assert "are damaged: the branches in them are missing" in said
        assert not found.sound
        return
    assert found.sound == (not said or unprobed) or hashless


def spoil(part: Path, name: str, value: int) -> None:
    """Put a number, or what it becomes as text, into the first row of a column."""
    rows = [row.to_row() for row in ROWS if row.branch < 3]
    kind = SCHEMA.field(name).type
    inner = kind.value_type if pa.types.is_list(kind) else kind
    one = str(value) if pa.types.is_string(inner) else float(value) if pa.types.is_floating(inner) else value
    rows[0][name] = [one] if pa.types.is_list(kind) else one
    pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), part)


def write_record(store: Path, payload: bytes) -> None:
    """Append a record with a checksum that is right."""
    with open(store / "journal", "ab") as file:
        file.write(struct.pack("<II", len(payload), zlib.crc32(payload)) + payload)


FOREIGN_ROWS = [
    "[{}]", '[{"branch": 0}]', '[{"a": 1}]', json.dumps([{**ROW, "extra": 1}]), json.dumps([{**ROW, "tokens": "25"}]),
    json.dumps([{**ROW, "branch": [1]}]), json.dumps([{**ROW, "probe_answers": "ab"}]),
    json.dumps([{**ROW, "token_ids": {"a": 1}}]), json.dumps([{**ROW, "question_id": "\ud800"}]),
    json.dumps([{**ROW, "tokens": 10**300}]), json.dumps([{**ROW, "step_logprobs": [10**400]}]),
]  # fmt: skip
NO_ROWS = [
    "[{", "[{]", "[{}, 5]", "[{}, []]", '[{"a": NaN}]', '[{"a": -Infinity}]', '[{"a": 1, "a": 2}]',
    '[{"a": ' + "9" * 5000 + "}]", '[{"a": ' + "[" * 100_000, '[{"a": ' + "[" * 5000 + "]" * 5000 + "}]", "[{\0}]",
]  # fmt: skip


@pytest.mark.parametrize("text", FOREIGN_ROWS, ids=lambda text: text[:40])
def test_rows_of_a_journal_that_are_no_branches(tmp_path: Path, text: str) -> None:
    """Refused by name; repaired, the good rows before and behind them are there."""
    path = tmp_path / "s"
    recorded(path, journalled=ROWS[:2])
    write_record(path, text.encode())
    write_record(path, json.dumps([ROWS[2].to_row()]).encode())
    for attempt in (TrajectoryStore.open(path).trajectories, lambda: StoreWriter.open(path, MANIFEST, QUESTIONS)):
        with pytest.raises(StoreFormatError, match=r"journal cannot be read .*store repair"):
            attempt()
    assert not check(path).sound
    assert repair(path)[1].sound
    assert TrajectoryStore.open(path).trajectories() == ROWS[:3]


@pytest.mark.parametrize("text", NO_ROWS, ids=lambda text: text[:20])
def test_records_of_a_journal_that_no_writer_made(tmp_path: Path, text: str) -> None:
    """Damage, though the checksum is right: passed over, named, and kept aside."""
    path = tmp_path / "s"
    recorded(path, journalled=ROWS[:2])
    write_record(path, text.encode())
    write_record(path, json.dumps([ROWS[2].to_row()]).encode())
    data = (path / "journal").read_bytes()
    with pytest.warns(RuntimeWarning, match="bytes of .*journal are damaged.* 3 whole records are read"):
        assert TrajectoryStore.open(path).trajectories() == ROWS[:3]
    assert not check(path).sound
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as writer:
        assert writer.done == {row.key for row in ROWS[:3]}
    assert (path / "journal.damaged-0").read_bytes() == data


def test_a_journal_made_to_keep_its_reader_busy(tmp_path: Path) -> None:
    """Each of its 100,000 heads tells of a record up to the end: read each time, that is 50 GB."""
    path = tmp_path / "s"
    recorded(path, journalled=ROWS[:2])
    size = 1_000_000
    with open(path / "journal", "ab") as file:
        file.write(b"".join(struct.pack("<II", size - at - 10, 7) + b"[{" for at in range(0, size, 10)))
    start = time.process_time()
    with pytest.warns(RuntimeWarning, match="1,000,000 bytes of .*journal are damaged"):
        assert TrajectoryStore.open(path).trajectories() == ROWS[:2]
    assert not check(path).sound
    assert repair(path)[1].sound
    assert time.process_time() - start < 10
    assert TrajectoryStore.open(path).trajectories() == ROWS[:2]


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _link(path: Path) -> None:
    (path.parent.parent / "mine").write_text("precious")
    path.symlink_to("../mine")


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


NO_FILES: dict[str, Callable[[Path], None]] = {
    "pipe": _pipe,
    "link": _link,
    "device": _device,
    "folder": Path.mkdir,
    "loop": lambda p: p.symlink_to(p),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("kind", NO_FILES)
@pytest.mark.parametrize("name", ["journal", "journal-1", "LOCK", "LOCK-1", "manifest.json", "questions.jsonl", "part"])
def test_what_is_no_file(whole: Path, tmp_path: Path, name: str, kind: str) -> None:
    """Nothing waits, nothing is written through a link, and what stands there is named."""
    store = shutil.copytree(whole, tmp_path / "s")
    path = next(store.glob("part-*")) if name == "part" else store / name
    path.unlink(missing_ok=True)
    NO_FILES[kind](path)
    told(store)
    check(store)
    with pytest.raises(StoreError, match=f"{path.name}|not a trajectory store") as error:
        StoreWriter.open(store, dataclasses.replace(MANIFEST, branches=3), QUESTIONS)
    assert "\n" not in str(error.value)
    assert not check(store).sound or (name == "manifest.json" and kind == "loop")
    if name in ("journal", "journal-1", "part"):
        assert repair(store)[1].sound
    assert not (tmp_path / "mine").exists() or (tmp_path / "mine").read_text() == "precious"


@pytest.mark.parametrize("name", ["journal.tmp", "questions.tmp", "manifest.tmp"])
def test_temporary_files_are_written_through_no_link(tmp_path: Path, name: str) -> None:
    path = tmp_path / "s"
    path.mkdir()
    if name == "journal.tmp":
        recorded(path, journalled=ROWS[:3])
        data = bytearray((path / "journal").read_bytes())
        data[len(data) // 2] ^= 1
        (path / "journal").write_bytes(data)
    _link(path / name)
    repair(path) if name == "journal.tmp" else recorded(path)
    assert (tmp_path / "mine").read_text() == "precious"
    assert check(path).sound


@pytest.mark.parametrize("text", ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c", "\r", "\r\n", "\n"])
def test_any_end_of_a_line_in_a_text(tmp_path: Path, text: str) -> None:
    questions = [Question(f"a{text}", f"1{text}+ 1", f"{text}2"), Question("b", text, text)]
    assert questions_from_jsonl(questions_to_jsonl(questions), "q") == tuple(questions)


ANY_TEXT = st.text(st.characters(codec=None, exclude_categories=()), max_size=8)


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(ANY_TEXT, min_size=4, max_size=4))
def test_any_text_survives_or_is_refused_at_the_door(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str]
) -> None:
    if any("\0" in text or text != text.encode("utf-8", "ignore").decode() for text in texts[:3]):
        with pytest.raises(InputError, match=r"must be (a text|text that UTF-8 can hold)"):
            Question(*texts[:3])
        return
    question = Question(*texts[:3])
    row = dataclasses.replace(
        ROWS[0], question_id=question.question_id, final_answer=texts[3], probe_answers=(*texts[2:],)
    )
    manifest = dataclasses.replace(
        MANIFEST, branches=1, questions_sha256=questions_sha256([question]), probe={"suffix": texts[1]}
    )
    path = tmp_path_factory.mktemp("texts") / "s"
    with StoreWriter.open(path, manifest, [question]) as writer:
        writer.append([row])
        assert TrajectoryStore.open(path).trajectories() == [row]
    store = TrajectoryStore.open(path)
    assert (store.questions, store.manifest, store.trajectories()) == ((question,), manifest, [row])
    assert check(path).sound
    recording = Recording.from_store(path)
    assert recording.trace(load_controller("self_consistency", max_samples=1), 0)
    assert recording.questions[0].book.text(0) == row.final_answer


def test_what_utf_8_cannot_hold() -> None:
    for field in ("question_id", "question", "gold_answer"):
        with pytest.raises(InputError, match=f"{field} must be text that UTF-8 can hold"):
            dataclasses.replace(QUESTIONS[0], **{field: "a\ud800"})
    with pytest.raises(StoreFormatError, match=r"q, line 1: .*UTF-8 can hold"):
        questions_from_jsonl('{"question_id": "a", "question": "\\ud800", "gold_answer": null}', "q")
    with pytest.raises(StoreFormatError, match="model must be a JSON object"):
        dataclasses.replace(MANIFEST, model={"name_or_path": "\udcff"})
    row = dataclasses.replace(ROWS[0], final_answer="\ud83d\ude00\udfff", probe_answers=("\ud800", None))
    assert (row.final_answer, row.probe_answers) == ("\U0001f600\ufffd", ("\ufffd", None))


def test_a_store_that_an_earlier_version_could_not_read(tmp_path: Path) -> None:
    """Recorded before D.17 was mended: six questions with an end of a line of Unicode's, half of the rows sealed."""
    path = shutil.copytree(Path(__file__).parent / "stores" / "line_ends", tmp_path / "s")
    ends = ["\u2028", "\u2029", "\x85", "\x0b", "\x0c", "\x1c"]
    store = TrajectoryStore.open(path)
    assert [question.question for question in store.questions] == [f"before {end} after" for end in ends]
    assert [row.final_answer for row in store.trajectories()[1::2]] == [f"{end}{n}" for n, end in enumerate(ends)]
    assert "nothing is wrong; 12 of 12 branches" in invoke("store", "repair", path)
    with StoreWriter.open(path, store.manifest, store.questions) as writer:
        assert len(writer.done) == 12
    assert len(Recording.from_store(path).questions) == 6


def test_many_questions_are_read_in_linear_time() -> None:
    """Before, so many took 13 seconds."""
    text = questions_to_jsonl([Question(f"q{n}", "?", "1") for n in range(30_000)])
    start = time.process_time()
    assert len(questions_from_jsonl(text, "q")) == 30_000
    assert time.process_time() - start < 5
    with pytest.raises(StoreFormatError, match="question_id 'q7' stands twice"):
        questions_from_jsonl(text + text.splitlines(keepends=True)[7], "q")


TABLE_LIES: list[dict[str, Any]] = [
    {"probe_freq": 0}, {"probe_freq": -5}, {"probe_freq": 10**30}, {"probe_freq": "5"}, {"probe_freq": 5.5},
    {"probe_freq": [5]}, {"probe_freq": None}, {"probe_freq": True}, {"each_branch": []}, {"each_branch": "ab"},
    {"each_branch": 5}, {"each_branch": {"a": 1}}, {"each_branch": [["ab", 10, "1"]]}, {"each_branch": [[["1"], 10]]},
    {"each_branch": [[["1"], -1, "1"]]}, {"each_branch": [[["1"], 2**31, "1"]]}, {"each_branch": [[["1"], "9", "1"]]},
    {"each_branch": [[["1"], 10, ["1"]]]}, {"each_branch": [[[["1"]], 10, "1"]]}, 
    {"each_branch": [[["1"], 1e400, "1"]]},
    {"each_branch": [[["1"], None, "1"]]}, {"question": ["x"]}, {"question": "\ud800"}, {"gold_answer": {"a": 1}},
]  # fmt: skip


@pytest.mark.parametrize("lie", TABLE_LIES, ids=str)
def test_tables_that_lie(tmp_path: Path, lie: dict[str, Any]) -> None:
    entry = {**NO_BRANCH, "each_branch": [[["1", "2"], 12, "1"]]}
    (tmp_path / "t.json").write_text(json.dumps([entry]))
    assert len(import_autotts(tmp_path / "t.json", tmp_path / "good").trajectories()) == 1
    (tmp_path / "t.json").write_text(json.dumps([{**entry, **lie}]))
    with pytest.raises(StoreFormatError):
        import_autotts(tmp_path / "t.json", tmp_path / "s")
    assert not (tmp_path / "s" / "manifest.json").exists()


@pytest.mark.parametrize("make", [*NO_FILES.values(), lambda path: path.write_text("[" * 100_000)])
def test_a_table_that_is_no_file(tmp_path: Path, make: Callable[[Path], Any]) -> None:
    (tmp_path / "x").mkdir()
    make(tmp_path / "x" / "t.json")
    with pytest.raises(StoreFormatError, match=r"t\.json"):
        import_autotts(tmp_path / "x" / "t.json", tmp_path / "s")


def test_a_text_of_another_class_is_a_text() -> None:
    """As `torch.__version__` is one."""
    version = type("Version", (str,), {})("2.13")
    assert dataclasses.replace(MANIFEST, versions={"torch": version}).versions == {"torch": "2.13"}
    assert dataclasses.replace(ROWS[0], final_answer=version, probe_answers=(version, None)).final_answer == "2.13"


def test_numbers_that_python_does_not_print() -> None:
    with pytest.raises(StoreFormatError, match=r"tokens must be a whole number .* got int of too many digits to show"):
        dataclasses.replace(ROWS[0], tokens=10**5000)
    with pytest.raises(StoreFormatError, match="interval_tokens must be a whole number"):
        dataclasses.replace(MANIFEST, interval_tokens=10**5000)
    assert isinstance(ROWS[0], Trajectory)
