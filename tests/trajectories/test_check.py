"""`store check` names what is wrong, file by file; `store repair` keeps what can be read and deletes nothing."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from test_store import MANIFEST, QUESTIONS, ROWS
from typer.testing import CliRunner

from tts_generate.cli import app
from tts_generate.errors import StoreError, StoreFormatError
from tts_generate.trajectories import StoreWriter, Trajectory, TrajectoryStore, check, repair
from tts_generate.trajectories.parts import write_part
from tts_generate.trajectories.schema import questions_sha256

GOOD = dataclasses.replace(MANIFEST, questions_sha256=questions_sha256(QUESTIONS))


def recorded(path: Path, *sealed: list[Trajectory], journalled: list[Trajectory] | None = None) -> list[Path]:
    """A store with a shard for each list, and a journal."""
    writer = StoreWriter.open(path, GOOD, QUESTIONS)
    for rows in sealed:
        writer.append(rows)
        writer.seal()
    for row in journalled or []:
        writer.append([row])
    writer._leave()  # as a kill leaves it: not sealed
    return sorted(path.glob("part-*.parquet"))


def contents(path: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in path.iterdir()}


def invoke(*arguments: object, code: int = 0) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == code, result.output + str(result.exception)
    return " ".join(result.output.split())


def test_a_sound_store(tmp_path: Path) -> None:
    recorded(tmp_path / "s", ROWS[:5], journalled=ROWS[5:7])
    before = contents(tmp_path / "s")
    assert "nothing is wrong; 7 of 80 branches can be read" in invoke("store", "check", tmp_path / "s")
    assert "nothing is wrong" in invoke("store", "repair", tmp_path / "s")
    assert contents(tmp_path / "s") == before


def test_while_it_is_written_and_after_a_kill(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path / "s", GOOD, QUESTIONS) as writer:
        writer.append(ROWS[:3])
        assert check(tmp_path / "s").sound
    recorded(tmp_path / "s", journalled=ROWS[3:5])
    journal = tmp_path / "s" / "journal"
    journal.write_bytes(journal.read_bytes()[:-9])
    (tmp_path / "s" / "part-00001-x.tmp").write_bytes(b"half")
    output = invoke("store", "check", tmp_path / "s")
    assert "note: journal:" in output
    assert "writing was cut off" in output
    assert "note: part-00001-x.tmp" in output
    assert "4 of 80 branches" in output


def test_a_shard_cut_short(tmp_path: Path) -> None:
    first, second = recorded(tmp_path / "s", ROWS[:5], ROWS[5:9], journalled=ROWS[9:11])
    data = second.read_bytes()[:-50]
    second.write_bytes(data)
    output = invoke("store", "check", tmp_path / "s", code=1)
    assert f"WRONG: {second.name}:" in output
    assert "damaged; 7 of 80 branches" in output
    output = invoke("store", "repair", tmp_path / "s")
    assert f"mended: {second.name}" in output
    assert "nothing is wrong; 7 of 80" in output
    assert (tmp_path / "s" / f"{second.name}.damaged-0").read_bytes() == data
    assert first.is_file()
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[:5] + ROWS[9:11]
    with StoreWriter.open(tmp_path / "s", GOOD, QUESTIONS) as writer:
        writer.append(ROWS[:11])
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[:11]


def test_the_first_of_two_shards_is_lost_and_recorded_again(tmp_path: Path) -> None:
    """The branches are then those that there were when the second was named; the new shard needs another name."""
    first, second = recorded(tmp_path / "s", ROWS[:5], ROWS[5:9])
    first.write_bytes(b"")
    repair(tmp_path / "s")
    with StoreWriter.open(tmp_path / "s", GOOD, QUESTIONS) as writer:
        writer.append(ROWS[:9])
    assert second.is_file()
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[:9]


def test_a_journal_damaged_in_the_middle(tmp_path: Path) -> None:
    recorded(tmp_path / "s", journalled=ROWS[:4])
    journal = tmp_path / "s" / "journal"
    data = bytearray(journal.read_bytes())
    data[len(data) // 2] ^= 4
    journal.write_bytes(data)
    assert "3 records are whole" in invoke("store", "check", tmp_path / "s", code=1)
    invoke("store", "repair", tmp_path / "s")
    assert check(tmp_path / "s").branches == 3
    assert (tmp_path / "s" / "journal.damaged-0").read_bytes() == data


def test_a_shard_that_contradicts_another_is_moved_aside(tmp_path: Path) -> None:
    """What it alone holds is kept; the branch that stands twice stays as it was recorded first."""
    recorded(tmp_path / "s", ROWS[:5])
    write_part([dataclasses.replace(ROWS[0], final_answer="5"), ROWS[6]], tmp_path / "s" / "part-00001-copied.parquet")
    with pytest.raises(StoreFormatError, match="stands twice"):
        TrajectoryStore.open(tmp_path / "s").trajectories()
    before, after = repair(tmp_path / "s")
    assert [finding.file for finding in before.findings] == ["part-00001-copied.parquet"]
    assert after.sound
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == [*ROWS[:5], ROWS[6]]


@pytest.mark.parametrize("columns", [{"a": [1]}, {"question_id": ["a"], "branch": [0]}])
def test_a_shard_of_something_else(tmp_path: Path, columns: dict[str, list[object]]) -> None:
    recorded(tmp_path / "s", ROWS[:5])
    pq.write_table(pa.table(columns), tmp_path / "s" / "part-00001-foreign.parquet")
    assert "other columns" in invoke("store", "check", tmp_path / "s", code=1)
    repair(tmp_path / "s")
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[:5]


def test_a_shard_with_holes_in_its_rows(tmp_path: Path) -> None:
    (part,) = recorded(tmp_path / "s", ROWS[:5])
    rows = pq.read_table(part)
    holes = rows.set_column(4, rows.schema.field("tokens"), pa.array([None] * 5, pa.int32()))
    pq.write_table(holes, part)
    with pytest.raises(StoreFormatError, match="no trajectories"):
        TrajectoryStore.open(tmp_path / "s").trajectories()
    assert not check(tmp_path / "s").sound


@pytest.mark.parametrize(
    ("name", "text"),
    [("manifest.json", "{"), ("questions.jsonl", "{}"), ("questions.jsonl", ""), ("manifest.json", None)],
)
def test_what_is_made_once_cannot_be_repaired(tmp_path: Path, name: str, text: str | None) -> None:
    recorded(tmp_path / "s", ROWS[:5])
    (tmp_path / "s" / name).unlink()
    if text is not None:
        (tmp_path / "s" / name).write_text(text)
    before = contents(tmp_path / "s")
    assert f"WRONG: {name}" in invoke("store", "check", tmp_path / "s", code=1)
    assert f"cannot be repaired: {name}" in invoke("store", "repair", tmp_path / "s", code=1)
    assert contents(tmp_path / "s") == before


def test_no_store(tmp_path: Path) -> None:
    assert "is not a trajectory store" in invoke("store", "check", tmp_path, code=1)
    assert "is not a trajectory store" in invoke("store", "repair", tmp_path / "none", code=1)


def test_not_while_another_process_writes(tmp_path: Path) -> None:
    (part,) = recorded(tmp_path / "s", ROWS[:5])
    with StoreWriter.open(tmp_path / "s", GOOD, QUESTIONS):
        part.write_bytes(b"")
        with pytest.raises(StoreError, match="being written by another process"):
            repair(tmp_path / "s")
    assert part.read_bytes() == b""


FULL = """
import resource, signal, sys
from tts_generate.errors import StoreError
from tts_generate.trajectories import check, repair
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64))
print(check({path!r}).branches)
try:
    repair({path!r})
except StoreError as error:
    print("ERROR", error)
"""


def test_on_a_full_disk(tmp_path: Path) -> None:
    """Checking works; repairing says what is missing, and everything is as it was."""
    recorded(tmp_path / "s", ROWS[:5], journalled=ROWS[7:9])
    write_part([dataclasses.replace(ROWS[0], final_answer="5"), ROWS[6]], tmp_path / "s" / "part-00001-copied.parquet")
    before = contents(tmp_path / "s")
    command = [sys.executable, "-c", FULL.format(path=str(tmp_path / "s"))]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    first, second = done.stdout.splitlines()
    assert first == "8"
    assert second.startswith("ERROR cannot write")
    assert "bytes free" in second
    assert contents(tmp_path / "s") == before


@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_on_a_read_only_mount(tmp_path: Path) -> None:
    (part,) = recorded(tmp_path / "s", ROWS[:5], journalled=ROWS[5:7])
    part.write_bytes(b"")
    cli = f"{sys.executable} -m tts_generate.cli store"
    inside = (
        f"mount --bind {tmp_path} {tmp_path} && mount -o remount,ro,bind {tmp_path} || exit 77; cd /; "
        f"{cli} check {tmp_path / 's'}; echo code $?; {cli} repair {tmp_path / 's'}; echo code $?"
    )
    done = subprocess.run(["unshare", "--mount", "sh", "-c", inside], capture_output=True, text=True, check=False)
    if done.returncode in (1, 77):
        pytest.skip(f"no mounts here: {done.stderr}")
    assert "2 of 80 branches can be read" in done.stdout
    assert "Read-only file system" in done.stderr
    assert done.stdout.count("code 1") == 2
