"""The recording of an ordinary language model that ships here: whole, small, and replayed alike either way."""

from __future__ import annotations

from pathlib import Path

from tts_generate import real
from tts_generate.replay import Recording, replay
from tts_generate.trajectories import TrajectoryStore
from tts_generate.trajectories.health import check

MOST_BYTES = 3_000_000


def test_it_is_whole_small_and_says_where_it_is_from() -> None:
    store, rows = TrajectoryStore.open(real.path()), TrajectoryStore.open(real.path()).trajectories()
    assert check(store.path).sound
    assert len(rows) == len(store.questions) * store.manifest.branches
    assert all(row.token_ids is None for row in rows)
    assert all(question.gold_answer and "<|im_start|>" not in question.question for question in store.questions)
    assert {path.name for path in store.path.iterdir() if path.suffix != ".parquet"} == {
        "manifest.json",
        "questions.jsonl",
    }
    assert sum(path.stat().st_size for path in store.path.iterdir()) <= MOST_BYTES
    card = (real.path().parent / "README.md").read_text("utf-8")
    assert f"{len(rows):,} branches of {len(store.questions)} questions" in card


def test_controllers_replay_on_it() -> None:
    recording = Recording.from_store(real.path())
    for controller in ("cmc", "pace"):
        fast, slow = (
            replay(recording, controller, beta=0.3, max_branches=32, shuffles=2, compiled=way) for way in (True, False)
        )
        assert (fast.answers == slow.answers).all()
        assert (fast.cost == slow.cost).all()


def test_opening_it_leaves_nothing_behind(tmp_path: Path) -> None:
    before = sorted(path.name for path in real.path().iterdir())
    TrajectoryStore.open(real.path()).trajectories()
    assert sorted(path.name for path in real.path().iterdir()) == before
