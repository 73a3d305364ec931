"""Records trajectories through the generate() path that answers questions: self-consistency, probed at every step."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import GenerationMixin

from tts_generate.answers import AnswerOptions
from tts_generate.arguments import checked
from tts_generate.engine import request
from tts_generate.engine.asked import with_our_ways
from tts_generate.engine.cards import model_card, sampling_card, shapers_card
from tts_generate.engine.device import input_device
from tts_generate.engine.distributed import open_store
from tts_generate.engine.generate import AutoTTS, run
from tts_generate.engine.given import padded
from tts_generate.engine.processes import Processes, together
from tts_generate.engine.request import Prepared
from tts_generate.engine.settings import Settings
from tts_generate.engine.wrapped import inside
from tts_generate.errors import InputError, TTSError
from tts_generate.live import recordings
from tts_generate.live.branch import Branch
from tts_generate.live.task import Task
from tts_generate.live.unanswered import Unanswered
from tts_generate.loading import load_controller
from tts_generate.processors import BranchProcessorList
from tts_generate.tracking import Recorded
from tts_generate.trajectories import Manifest, Question, StoreWriter, Trajectory, TrajectoryStore

_FLUSH_SECONDS = 1.0
RECORDED = {"interval_tokens", "max_rows", *AnswerOptions.__annotations__}
"""Arguments of `AutoTTS` that mean something for a recording."""


class Recorder(AutoTTS):
    """A `custom_generate` callable that reads branches to their end, probes them at every step and writes them down."""

    def __init__(
        self,
        questions: Sequence[Question],
        out: Path,
        branches: int,
        chat: Any,
        shapers: Mapping[str, list[str]],
        **options: Any,
    ) -> None:
        super().__init__(load_controller("self_consistency", max_samples=branches), **options)
        self.questions, self.out, self.branches, self.chat = questions, out, branches, chat
        self.shapers = shapers

    def answer(self, call: Prepared) -> Tensor:
        """Record what is missing of every question; returns the prompts unchanged."""
        settings = dataclasses.replace(self.settings(call), probe_every_step=True)
        unanswered, failed = Unanswered(self.reader(call.config)), []
        with (
            together(call.model) as processes,
            open_store(processes, self.out, self._manifest(call, settings), self.questions) as (
                writer,
                missing,
                watch,
            ),
            self._bar(processes, len(missing)) as bar,
            _flushing(writer) as rows,
        ):
            limits, criteria = request.deadline(BranchProcessorList(), call.criteria)
            tasks = recordings.tasks(self.questions, call.prompts, missing, limits)

            def keep(task: Task, branch: Branch) -> None:
                row = branch.trajectory(task.question_id, settings.seed, len(task.prompt.ids))
                rows.add(row)
                bar.add(row)

            if tasks:
                loop = self.loop(call, settings, tasks, criteria, on_branch=keep, before_step=watch)
                for running in loop.run():
                    unanswered.add(running)
                    failed += [running.task.question_id] if running.finish_reason == "error" else []
        if failed:
            raise TTSError(
                f"{len(failed)} of {len(self.questions)} questions could not be recorded to their end, question "
                f"{failed[0]!r} first, as the warnings say; what was recorded is kept, and the same call goes on."
            )
        unanswered.tell()  # everything is on the disk, should it raise
        return call.input_ids

    def _manifest(self, call: Prepared, settings: Settings) -> Manifest:
        stops = {"stop_strings": self.stop_strings} if self.stop_strings else {}  # they shape branches too
        facts = {
            "model": model_card(call.model),
            "generation_config": {**sampling_card(call.config, settings.max_new_tokens), **stops, **self.shapers},
            "versions": {"torch": torch.__version__, "transformers": transformers.__version__},
        }
        asked = self.reader(call.config).format
        return recordings.manifest(self.questions, self.branches, settings, asked, self.tokenizer, self.chat, facts)

    def _bar(self, processes: Processes, missing: int) -> Recorded:
        """A bar over this process's branches, shown by the main one; those recorded before count as done."""
        total = self.branches * len(self.questions) // processes.count
        return Recorded(
            total,
            "recording" if processes.count == 1 else f"recording (process 0 of {processes.count})",
            shown=self.progress and processes.main,
            initial=max(0, total - missing),
        )


class _Rows:
    """Trajectories on their way to the journal: written together, at the latest after `_FLUSH_SECONDS`."""

    def __init__(self, writer: StoreWriter) -> None:
        self.writer = writer
        self.rows: list[Trajectory] = []
        self.flushed = time.monotonic()

    def add(self, row: Trajectory) -> None:
        self.rows.append(row)
        if time.monotonic() - self.flushed > _FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        rows, self.rows = self.rows, []
        if rows:
            self.writer.append(rows)
        self.flushed = time.monotonic()


@contextmanager
def _flushing(writer: StoreWriter) -> Iterator[_Rows]:
    rows = _Rows(writer)
    try:
        yield rows
    finally:  # also on Ctrl-C: nothing decoded is lost
        rows.flush()


@checked
def record(
    model: Any,
    tokenizer: Any,
    questions: Sequence[Question],
    out: str | Path,
    *,
    branches: int = 64,
    seed: int = 0,
    chat: bool | Mapping[str, Any] = False,
    progress: bool = True,
    **generate_kwargs: Any,
) -> TrajectoryStore:
    """Read `branches` branches of every question to their end, probing at every step, into a trajectory store.

    Run again with the same arguments, it goes on where it stopped: what is recorded stays, and the finished store has
    the same rows as that of an uninterrupted run.

    In a job of several processes (`accelerate launch`, torchrun) all of them call it with the same arguments, each with
    the model on its own device; they share the branches out and make one store, with the same rows as one process
    would, and each returns when all are done. `out` must be one folder for all.

    Args:
        model: a causal language model of transformers.
        tokenizer: its tokenizer; it needs no pad token.
        questions: at least one; `question_id`s must differ.
        out: folder of the store.
        branches: branches a question.
        seed: of the branches' randomness.
        chat: wrap each question into the tokenizer's chat template, as a user's turn; or the arguments with which to do
            so, such as {"enable_thinking": False}.
        progress: show a bar, with the tokens so far.
        **generate_kwargs: `interval_tokens`, `max_rows`, `probe_suffix`, `think_end`, `answer_pattern`,
            `max_probe_tokens` and `force_answer` of `AutoTTS`; `votes` is of replay; all others are for
            `model.generate`, such as `temperature`, `top_p` or `max_new_tokens`.

    Raises:
        InputError: nothing to record, or an argument out of range.
        ProcessError: another process of the job ended early; what was recorded is kept.
        StoreError: the store cannot be written, or holds a recording made with other settings.
        TTSError: the model gave NaN logits for some branches; what was recorded is kept.
    """
    recordings.check_recording(questions, branches, generate_kwargs)
    if not isinstance(model, GenerationMixin):
        raise InputError(
            f"record() takes a transformers model that can generate, got {type(model).__name__}.{inside(model)}"
        )
    own = {name: generate_kwargs.pop(name) for name in RECORDED & generate_kwargs.keys()}
    shapers = shapers_card(**{name: generate_kwargs.get(name) for name in ("logits_processor", "stopping_criteria")})
    how = {"progress": progress, "tokenizer": tokenizer, "seed": seed, **own}
    recorder = Recorder(questions, Path(out), branches, chat, shapers, **how)
    prompts = recordings.prompts(tokenizer, questions, chat)
    ids, mask = padded([prompt.ids for prompt in prompts], input_device(model))
    ways = with_our_ways(model.generation_config, generate_kwargs)
    run(model, recorder, input_ids=ids, attention_mask=mask, **ways)
    return TrajectoryStore.open(out)
