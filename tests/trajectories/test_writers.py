"""Several writers of one store: disjoint journals, one store, and nothing lost whoever is killed when."""

from __future__ import annotations

import dataclasses
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from test_store import MANIFEST, QUESTIONS, ROWS

from tts_generate.errors import ProcessError, StoreError, StoreFormatError
from tts_generate.trajectories import StoreWriter, TrajectoryStore
from tts_generate.trajectories.parts import read_parts
from tts_generate.trajectories.writers import DONE, Watch


def names(path: Path) -> set[str]:
    return {file.name for file in path.iterdir() if not file.name.startswith("part-")}


TIDY = {"LOCK", "journal", "manifest.json", "questions.jsonl"}


def test_writers_side_by_side_make_one_store(tmp_path: Path) -> None:
    with (
        StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as main,
        StoreWriter.join(tmp_path / "s", MANIFEST, 1) as other,
        StoreWriter.join(tmp_path / "s", MANIFEST, 2) as third,
    ):
        for first in range(0, len(ROWS), 3):
            for writer, row in zip((main, other, third), ROWS[first : first + 3], strict=False):
                writer.append([row])
            if first % 9 == 0:
                other.seal()
            assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS[: first + 3]
        for writer in (main, other, third):
            writer.seat.say(DONE)
    assert TrajectoryStore.open(tmp_path / "s").trajectories() == ROWS
    assert len(read_parts(tmp_path / "s")) == len(ROWS)
    assert names(tmp_path / "s") == TIDY


CHILD = """
import sys
sys.path.insert(0, {here!r})
from test_store import MANIFEST, QUESTIONS, ROWS
from tts_generate.trajectories import StoreWriter
main = StoreWriter.open({path!r}, MANIFEST, QUESTIONS)
writers = [main, *(StoreWriter.join({path!r}, MANIFEST, n) for n in range(1, {count}))]
missing = [row for row in ROWS if row.key not in main.done]
print(len(missing), flush=True)
for number, row in enumerate(missing):
    writers[number % {count}].append([row])
    print("%s %s" % row.key, flush=True)  # one write, also where nothing is buffered
    if number % 7 == 6:
        writers[number % {count}].seal()
for writer in reversed(writers):
    writer.seat.say("done")
    writer.close()
"""


@pytest.mark.long
def test_killed_at_random_times_with_changing_numbers_of_writers(tmp_path: Path) -> None:
    """SIGKILL, again and again: what was acknowledged is there, is not asked for again, and stands in shards once."""
    rng, path, acknowledged = random.Random(2), tmp_path / "s", set[tuple[str, int]]()
    for round_ in range(8):
        code = CHILD.format(here=str(Path(__file__).parent), path=str(path), count=rng.randint(1, 4))
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            assert int(child.stdout.readline()) <= len(ROWS) - len(acknowledged)
            lines = [child.stdout.readline() for _ in range(rng.randint(1, 9))]
            time.sleep(rng.uniform(0, 0.003))
            if round_ < 7:
                child.send_signal(signal.SIGKILL)
            lines += child.stdout.read().splitlines()
        acknowledged |= {(line.split()[0], int(line.split()[1])) for line in lines if line.strip()}
        assert acknowledged <= {row.key for row in TrajectoryStore.open(path).trajectories()}
    assert child.returncode == 0
    assert TrajectoryStore.open(path).trajectories() == ROWS
    assert len(read_parts(path)) == len(ROWS)
    assert names(path) == TIDY


def test_taken_over_twice(tmp_path: Path) -> None:
    """Killed between copying a leftover journal and removing it: its rows are not kept twice."""
    path = tmp_path / "s"
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as main:
        main.append(ROWS[:2])
        other = StoreWriter.join(path, MANIFEST, 1)
        other.append(ROWS[2:5])
        left = (path / "journal-1").read_bytes()
        other.close()
    (path / "journal-1").write_bytes(left + b"torn")
    (path / "LOCK-1").touch()
    assert TrajectoryStore.open(path).trajectories() == ROWS[:5]
    with StoreWriter.open(path, MANIFEST, QUESTIONS) as main:
        assert main.done == {row.key for row in ROWS[:5]}
        assert names(path) == TIDY
    assert len(read_parts(path)) == 5


def test_another_job_waits_for_every_writer(tmp_path: Path) -> None:
    """The main process of a job is gone, another one is still writing: nobody takes its journal away."""
    main = StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS)
    other = StoreWriter.join(tmp_path / "s", MANIFEST, 1)
    with pytest.raises(StoreError, match="another process"):
        StoreWriter.join(tmp_path / "s", MANIFEST, 1)
    main.close()
    with pytest.raises(StoreError, match="being written by another process"):
        StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS)
    other.append(ROWS[:1])
    other.close()
    with StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS) as main:
        assert main.done == {ROWS[0].key}


def test_joining_needs_the_same_store_and_the_same_settings(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="not a trajectory store"):
        StoreWriter.join(tmp_path / "not shared", MANIFEST, 1)
    wrong = dataclasses.replace(MANIFEST, seed=9)
    with (
        StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS),
        pytest.raises(StoreFormatError, match=r"other settings \(seed"),
    ):
        StoreWriter.join(tmp_path / "s", wrong, 1)


def test_a_watch_tells_work_from_done_from_death(tmp_path: Path) -> None:
    main = StoreWriter.open(tmp_path / "s", MANIFEST, QUESTIONS)
    others = [StoreWriter.join(tmp_path / "s", MANIFEST, n) for n in (1, 2)]
    watches = [Watch(tmp_path / "s", n, 3) for n in range(3)]
    Watch(tmp_path / "s", 0, 1).wait()  # alone, there is nobody to wait for
    for watch in watches:
        watch._look()  # all at work
    for writer in others:
        writer.seat.say(DONE)
    watches[0].wait()
    main.seat.say(DONE)
    watches[1].wait()
    main.seat.say("")
    watches[0] = Watch(tmp_path / "s", 0, 3)
    others[0].seat.say("RuntimeError: broken")
    with pytest.raises(
        ProcessError, match=r"process 1 of 3 ended early: RuntimeError: broken\. What was recorded is kept"
    ):
        watches[0].wait()
    main.seat.say("process 1 of 3 ended early: RuntimeError: broken.")
    with pytest.raises(ProcessError, match=r"^process 1 of 3 ended early: RuntimeError: broken\.$"):
        watches[2].wait()
    main.seat.say("")
    main.close()
    with pytest.raises(ProcessError, match="process 0 of 3 ended early: it was killed"):
        watches[2].wait()
    for writer in others:
        writer.close()
