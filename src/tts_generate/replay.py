"""Replay: controllers run on recorded branches, no token is decoded; interpreted, or compiled over all episodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tts_generate.arguments import checked
from tts_generate.controller import Controller
from tts_generate.loading import Trust, load_controller
from tts_generate.processors import BranchProcessorList
from tts_generate.recorded.recording import RecordedQuestion, Recording
from tts_generate.recorded.run import ReplayResult, run_recorded, shuffled_orders
from tts_generate.trajectories import TrajectoryStore

__all__ = ["RecordedQuestion", "Recording", "ReplayResult", "replay", "shuffled_orders"]


@checked
def replay(
    recording: Recording | TrajectoryStore | str | Path,
    controller: str | Path | Controller,
    *,
    beta: float | None = None,
    shuffles: int = 100,
    first_shuffle: int = 0,
    processors: BranchProcessorList | None = None,
    traces: bool = False,
    compiled: bool | None = None,
    threads: int | None = None,
    trust_remote_code: Trust = False,
    **knobs: Any,
) -> ReplayResult:
    """Run a controller on every recorded question, once per shuffle of its branches.

    Args:
        recording: a `Recording`, or a store to read one from.
        controller: see `load_controller`.
        beta: the budget in [0, 1]; the controller's default when left out.
        shuffles: orders in which the branches are opened; 0 for the recorded order alone.
        first_shuffle: seed of the first order; the others follow it. Another start makes fresh orders.
        processors: limits chained around the controller; they run interpreted.
        traces: also keep every episode's trace, for few episodes; they run interpreted.
        compiled: run the hooks compiled by numba, over all cores, or interpreted; None: compiled where it pays. The
            results are the same. A controller that does not compile runs interpreted, with a warning that says why.
        threads: of a compiled run; all cores if left out.
        trust_remote_code: as in `load_controller`.
        **knobs: knobs to set by hand.

    Raises:
        InputError: a negative number of shuffles, or more than the branches have orders.
        ControllerError: the controller wants more branches than were recorded, or stalls.
        StoreError: the controller reads what was not recorded.

    Source: AutoTTS (arXiv 2605.08083); exact on its published tables.
    """
    if not isinstance(recording, Recording):
        recording = Recording.from_store(recording)
    return run_recorded(
        recording,
        load_controller(controller, beta=beta, trust_remote_code=trust_remote_code, **knobs),
        shuffles=shuffles,
        first_shuffle=first_shuffle,
        processors=processors,
        traces=traces,
        compiled=compiled,
        threads=threads,
    )
