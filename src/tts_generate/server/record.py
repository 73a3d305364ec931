"""Records trajectories at servers: branches read to their end, probed at every step, each on the disk once it ends."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tts_generate.engine.branch import Branch
from tts_generate.engine.settings import Settings
from tts_generate.errors import InputError, ServerError
from tts_generate.loading import load_controller
from tts_generate.processors import BranchProcessorList
from tts_generate.secret import stored
from tts_generate.server.asked import Asked
from tts_generate.server.connect import Session
from tts_generate.server.options import Call, check_sampling, max_tokens, probing
from tts_generate.server.wire import Prompt
from tts_generate.tracking import Recorded
from tts_generate.trajectories import Manifest, Question, StoreWriter, TrajectoryStore
from tts_generate.trajectories.schema import questions_sha256

if TYPE_CHECKING:
    from tts_generate.server.model import ServerModel


def record(
    model: ServerModel,
    questions: Sequence[Question],
    out: str | Path,
    *,
    branches: int = 64,
    seed: int = 0,
    interval_tokens: int = 500,
    max_new_tokens: int | None = None,
    max_probe_tokens: int = 20,
    chat: bool = False,
    progress: bool = True,
    probe_suffix: str | None = None,
    think_end: str | None = None,
    answer_pattern: str | None = None,
    stop_strings: str | Sequence[str] = (),
    **sampling: Any,
) -> TrajectoryStore:
    """Read `branches` branches of every question to their end, probing at every step, into a trajectory store.

    Run again with the same arguments, it goes on where it stopped; the servers may be other ones with the same model.

    Args:
        model: the servers.
        questions: at least one; `question_id`s must differ.
        out: folder of the store.
        branches: branches a question.
        seed: of the branches' requests.
        interval_tokens: tokens of one step.
        max_new_tokens: tokens of a branch at most; left out, what the server says its context holds.
        max_probe_tokens: tokens of a probed answer at most.
        chat: wrap each question into the tokenizer's chat template, as a user's turn.
        progress: show a bar, with the tokens so far.
        probe_suffix: see `ServerModel.generate`, as for the next three.
        think_end: text that ends the model's thinking.
        answer_pattern: how answers are read.
        stop_strings: text that ends a branch.
        **sampling: see `ServerModel.generate`.

    Raises:
        InputError: nothing to record, or an argument out of range.
        ServerError: some branches could not be recorded; what was, is kept.
        StoreError: the store cannot be written, or holds a recording made with other settings.
    """
    if not questions:
        raise InputError("there is no question to record.")
    if branches < 1:
        raise InputError(f"branches must be at least 1, got {branches}.")
    asks: list[Any] = [q.question for q in questions]
    prompts = model.prompts([[{"role": "user", "content": text}] for text in asks] if chat else asks)
    call = Call(
        settings=Settings(
            seed=seed,
            interval_tokens=interval_tokens,
            max_new_tokens=max_tokens(max_new_tokens),
            eos_token_ids=(),
            pad_token_id=0,
            max_branches=branches,
            probe_every_step=True,
        ),
        probing=probing(probe_suffix, think_end, answer_pattern, max_probe_tokens),
        sampling=check_sampling(sampling),
        stop=(stop_strings,) if isinstance(stop_strings, str) else tuple(stop_strings),
    )
    with ExitStack() as stack:
        recorder = _Recorder(model, questions, prompts, branches, call)
        recorder.open = lambda manifest: stack.enter_context(StoreWriter.open(Path(out), manifest, questions))
        recorder.chat = chat
        recorder.bar = stack.enter_context(Recorded(None, shown=progress))
        done = model.run(recorder.tasks(), replace(call, on_branch=recorder.keep, prepared=recorder.prepare))
        if done.interrupted:
            raise KeyboardInterrupt
        failed = [each for each in done.asked if each.error is not None]
        if failed:
            raise ServerError(
                f"{len(failed)} of {len(questions)} questions could not be recorded to their end; what was recorded is "
                f"kept, and the same command goes on with it. Question {failed[0].question_id!r}: {failed[0].error}"
            ) from failed[0].error
    return TrajectoryStore.open(out)


@dataclass
class _Recorder:
    """Opens the store once it is known how the servers are spoken to, and writes branches down as they end."""

    model: ServerModel
    questions: Sequence[Question]
    prompts: Sequence[Prompt]
    branches: int
    call: Call
    open: Callable[[Manifest], StoreWriter] = field(init=False)
    chat: bool = field(init=False)
    bar: Recorded = field(init=False)
    writer: StoreWriter = field(init=False)
    session: Session = field(init=False)

    def tasks(self, done: Collection[tuple[str, int]] = ()) -> list[Asked]:
        """One task a question, for the branches that are not recorded yet."""
        found = []
        for index, (question, prompt) in enumerate(zip(self.questions, self.prompts, strict=True)):
            missing = [n for n in range(self.branches) if (question.question_id, n) not in done]
            if missing:
                controller = load_controller("self_consistency", max_samples=len(missing))
                task = Asked(index, question.question_id, prompt, controller, BranchProcessorList(), missing)
                task.prompt_tokens = len(prompt.ids or ())
                found.append(task)
        return found

    def prepare(self, session: Session, settings: Settings) -> list[Asked]:
        """Open the store, and say what is missing in it."""
        tokenizer = self.model.tokenizer
        self.session = session
        others = {"stop_strings": list(self.call.stop), "extra_body": stored(self.model.extra_body)}
        manifest = Manifest(
            interval_tokens=settings.interval_tokens,
            branches=self.branches,
            seed=settings.seed,
            model={"name_or_path": stored(session.wire.model), "served": session.wire.dialect},
            tokenizer={
                "class": None if tokenizer is None else type(tokenizer).__name__,
                "vocab_size": None if tokenizer is None else len(tokenizer),
                "chat": self.chat,
            },
            generation_config={
                **self.call.sampling,
                **{name: value for name, value in others.items() if value},
                "max_new_tokens": settings.max_new_tokens,
            },
            probe=asdict(self.call.probing),
            versions={"httpx2": version("httpx2")},
            source="recorded",
            questions_sha256=questions_sha256(self.questions),
        )
        self.writer = self.open(manifest)
        self.bar.found(self.branches * len(self.questions), len(self.writer.done))
        return self.tasks(self.writer.done)

    def keep(self, asked: Asked, branch: Branch) -> None:
        """Write a finished branch down; it is on the disk when this returns."""
        seed = self.call.settings.seed
        row = self.session.wire.trajectory(branch, asked.question_id, seed, asked.prompt_tokens)
        self.writer.append([row])
        self.bar.add(row)
