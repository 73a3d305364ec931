"""Records trajectories at servers: branches read to their end, probed at every step, each on the disk once it ends."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from tts_generate.arguments import checked
from tts_generate.errors import ServerError
from tts_generate.live import recordings
from tts_generate.live.branch import Branch
from tts_generate.live.task import Task
from tts_generate.live.unanswered import Unanswered
from tts_generate.processors import BranchProcessorList
from tts_generate.secret import stored
from tts_generate.server.options import Call, RecordOptions
from tts_generate.server.question import Served
from tts_generate.server.requests import ServerLoop
from tts_generate.server.wait import wait_for
from tts_generate.tracking import Recorded
from tts_generate.trajectories import Question, StoreWriter, TrajectoryStore

if TYPE_CHECKING:
    from tts_generate.server.model import ServerModel


@checked
def record(
    model: ServerModel,
    questions: Sequence[Question],
    out: str | Path,
    *,
    branches: int = 64,
    seed: int | None = None,
    interval_tokens: int | None = None,
    max_new_tokens: int | None = None,
    chat: bool | Mapping[str, Any] = False,
    progress: bool = True,
    stop_strings: str | Sequence[str] = (),
    **options: Unpack[RecordOptions],
) -> TrajectoryStore:
    """Read `branches` branches of every question to their end, probing at every step, into a trajectory store.

    Run again with the same arguments, it goes on where it stopped; the servers may be other ones with the same model.

    Args:
        model: the servers.
        questions: at least one; `question_id`s must differ.
        out: folder of the store.
        branches: branches a question.
        seed: of the branches' requests; left out, none is sent, see `ServerModel.generate`.
        interval_tokens: tokens of one step, see `ServerModel.generate`.
        max_new_tokens: tokens of a branch at most; left out, what the server says its context holds.
        chat: wrap each question into the tokenizer's chat template, as a user's turn; or the arguments with which to do
            so, such as {"enable_thinking": False}.
        progress: show a bar, with the tokens so far.
        stop_strings: text that ends a branch.
        **options: of the probe and of sampling, see `ServerModel.generate`; `votes` is of replay.

    Raises:
        InputError: nothing to record, or an argument out of range.
        ServerError: some branches could not be recorded; what was, is kept.
        StoreError: the store cannot be written, or holds a recording made with other settings.
    """
    recordings.check_recording(questions, branches, options)
    prompts = recordings.prompts(model.tokenizer, questions, chat)

    def missing(done: Container[recordings.Key] = ()) -> list[Task]:
        keys = recordings.missing(questions, branches, done)
        return recordings.tasks(questions, prompts, keys, BranchProcessorList())

    call = Call(
        seed=seed,
        interval_tokens=interval_tokens,
        max_new_tokens=max_new_tokens,
        max_branches=branches,
        stop_strings=stop_strings,
        options=options,
        probe_every_step=True,
    )

    async def ask() -> tuple[list[Served], Unanswered]:
        def keep(question: Served, branch: Branch) -> None:
            row = question.row(branch)
            writer.append([row])  # it is on the disk when this returns
            bar.add(row)

        async with model.connected() as connection:
            loop = await connection.loop(missing(), call, on_branch=keep)
            facts = _facts(model, loop)
            manifest = recordings.manifest(
                questions, branches, loop.settings, loop.reader.format, model.tokenizer, chat, facts
            )
            with (
                StoreWriter.open(Path(out), manifest, questions) as writer,
                Recorded(branches * len(questions), shown=progress, initial=len(writer.done)) as bar,
            ):
                served = await loop.run(missing(writer.done), lambda question: None)
            return served, Unanswered(loop.reader, served)

    done, unanswered = wait_for(ask)
    if any(each.finish_reason == "interrupted" for each in done):
        raise KeyboardInterrupt
    failed = [each for each in done if each.error is not None]
    if failed:
        raise ServerError(
            f"{len(failed)} of {len(questions)} questions could not be recorded to their end; what was recorded is "
            f"kept, and the same command goes on with it. Question {failed[0].task.question_id!r}: {failed[0].error}"
        ) from failed[0].error
    unanswered.tell()  # everything is on the disk, should it raise
    return TrajectoryStore.open(out)


def _facts(model: ServerModel, loop: ServerLoop) -> dict[str, Any]:
    """What only servers know of a recording."""
    others = {"stop_strings": list(loop.stop), "extra_body": stored(model.extra_body)}
    return {
        "model": {"name_or_path": stored(loop.wire.model), "served": loop.wire.dialect},
        "generation_config": {
            **loop.wire.sampling,
            **{name: value for name, value in others.items() if value},
            "max_new_tokens": loop.settings.max_new_tokens,
        },
        "versions": {"httpx2": version("httpx2")},
    }
