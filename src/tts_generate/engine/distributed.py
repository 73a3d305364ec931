"""Record into one store, or answer one list of questions, with the processes of a launched job.

A branch's tokens depend on (seed, question, branch, position) only, so it does not matter which process decodes it.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path, PurePath
from typing import Any, cast

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedModel

from tts_generate.controller import Controller, describe
from tts_generate.engine import given, request
from tts_generate.engine.output import AutoTTSOutput
from tts_generate.engine.processes import Processes, line_of, together
from tts_generate.errors import ProcessError, StoreError, UnsupportedError
from tts_generate.live.recordings import Key, missing
from tts_generate.live.rows import suited
from tts_generate.trajectories import Manifest, Question, StoreWriter
from tts_generate.trajectories.writers import DONE, Watch


@contextmanager
def open_store(
    processes: Processes, out: Path, manifest: Manifest, questions: Sequence[Question]
) -> Iterator[tuple[StoreWriter, list[Key], Watch]]:
    """A writer for this process, the branches it has to record, and what to call now and then while it does.

    The missing branches are dealt out one by one, so that every process has an equal part of every question: none
    waits long for the one with the hard questions, and a few questions keep many processes busy. A prompt is
    prefilled in each process. Leaving returns when every process has recorded its part.

    Raises:
        StoreError: as `StoreWriter.open`.
        ProcessError: another process ended early; the watch raises it too.
    """
    if processes.count == 1:
        with StoreWriter.open(out, manifest, questions) as writer:
            yield writer, missing(questions, manifest.branches, writer.done), Watch(out, 0, 1)
        return
    with ExitStack() as stack:
        writers: list[StoreWriter] = []

        def enter(writer: StoreWriter) -> StoreWriter:
            writers.append(stack.enter_context(writer))
            return writer

        def start() -> list[Key]:
            return missing(questions, manifest.branches, enter(StoreWriter.open(out, manifest, questions)).done)

        def join() -> None:
            enter(StoreWriter.join(out, manifest, processes.index))

        keys = processes.agree(lambda: start() if processes.main else [])[0]
        processes.agree(lambda: None if processes.main else join())
        (writer,) = writers
        watch = Watch(out, processes.index, processes.count)
        try:
            yield writer, keys[processes.index :: processes.count], watch
            writer.seal()
            if processes.main:
                watch.wait()
            writer.seat.say(DONE)
            watch.wait()
        except BaseException as error:
            with suppress(StoreError):  # a full disk: the others learn from the lock that this one ended
                writer.seat.say(line_of(error))
            raise


def generate_distributed(
    model: PreTrainedModel,
    *,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    seed: int | None = None,
    **kwargs: Any,
) -> AutoTTSOutput:
    """`model.generate(strategy="autotts", return_dict_in_generate=True)`, the questions shared out over a job.

    Every process calls it with the same arguments and gets the whole output: that of one process, `trace` and
    `branches` included. In a process that was not launched with others it is `model.generate`.

    Args:
        model: an enabled model, on this process's device.
        input_ids: (questions, length) int64, all questions, padded on either side.
        attention_mask: the same shape, 0 on padding.
        seed: as in `AutoTTS`; if None, the main process draws it.
        **kwargs: for `model.generate`.

    Raises:
        ProcessError: a process failed or died, or was given other questions or options.
        UnsupportedError: something that has no meaning over several processes.
    """
    for name in ("streamer", "stream", "synced_gpus", "custom_generate"):
        if kwargs.get(name):
            raise UnsupportedError(
                f"generate_distributed cannot honour {name!r}: each process has some questions only."
            )
    given.check_inputs(input_ids, attention_mask)
    kwargs = {**kwargs, "strategy": "autotts", "return_dict_in_generate": True}
    mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
    with together(model) as processes:
        if processes.count == 1:
            alone: AutoTTSOutput = model.generate(input_ids=input_ids, attention_mask=mask, seed=seed, **kwargs)
            return alone
        mine = {"input_ids": input_ids, "attention_mask": mask, "seed": seed, **kwargs}
        seeds, asked = zip(*processes.gather((given.drawn_seed(seed), _digests(mine))), strict=True)
        if different := sorted({name for each in asked for name in each.items() ^ asked[0].items()}):
            names = ", ".join(dict.fromkeys(name for name, _ in different))
            raise ProcessError(f"the processes were given different {names}; give all of them the same call.")
        recipe = model.generate.recipe(kwargs.get("generation_config") or model.generation_config, kwargs)
        chosen = suited(recipe.controller, recipe.max_rows, len(input_ids))  # as one process with all of them would
        kwargs |= {} if chosen.latency is None else {"latency": chosen.latency}
        numbers = range(len(input_ids))[processes.index :: processes.count]

        def answer() -> tuple[AutoTTSOutput, Tensor] | None:
            if not numbers:
                return None
            rows = torch.tensor(numbers, device=input_ids.device)
            part = {"input_ids": input_ids[rows], "attention_mask": mask[rows]}
            output: AutoTTSOutput = model.generate(**part, seed=seeds[0], **kwargs)
            sequences, output.sequences = cast(Tensor, output.sequences).cpu(), None
            return output, sequences

        parts = [part for part in processes.agree(answer) if part is not None]
    output = _merged([part for part, _ in parts], len(input_ids))
    sequences = _stacked([sequences for _, sequences in parts], len(input_ids), _pad_id(model, kwargs))
    output.sequences = sequences.to(input_ids.device)
    return output


def _digests(call: dict[str, Any]) -> dict[str, str]:
    """A short hash of each argument that is given, by which processes see that they were asked for the same."""
    passed = {name: value for name, value in call.items() if value is not None}
    return {name: hashlib.sha256(repr(_plain(value)).encode()).hexdigest()[:16] for name, value in passed.items()}


def _plain(value: Any) -> Any:
    """A value as the same text in every process: of objects that say nothing of themselves, their class."""
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, Controller):
        return describe(value)
    if isinstance(value, GenerationConfig):
        return value.to_dict()
    if isinstance(value, Mapping):
        return sorted((str(key), repr(_plain(each))) for key, each in value.items())
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    if value is None or isinstance(value, (bool, int, float, str, PurePath)):
        return value
    return type(value).__qualname__


def _merged(parts: Sequence[AutoTTSOutput], count: int) -> AutoTTSOutput:
    """The lists of all parts in the order of the questions, which were dealt out one by one."""
    lists: dict[str, Any] = {
        name: [parts[n % len(parts)][name][n // len(parts)] for n in range(count)]
        for name, value in parts[0].items()
        if isinstance(value, list)
    }
    for number in range(count):
        lists["trace"][number] = dataclasses.replace(lists["trace"][number], question_id=str(number))
        lists["branches"][number] = [
            dataclasses.replace(row, question_id=str(number)) for row in lists["branches"][number]
        ]
    lists["questions"] = list(range(count))
    discarded = sum(part.discarded_tokens or 0 for part in parts)
    same: dict[str, Any] = {"seed": parts[0].seed, "answer_pattern": parts[0].answer_pattern}
    return AutoTTSOutput(**lists, **same, discarded_tokens=discarded)


def _stacked(parts: Sequence[Tensor], count: int, pad_id: int) -> Tensor:
    """The rows of all parts in the order of the questions, padded on the right."""
    whole = torch.full((count, max(part.shape[1] for part in parts)), pad_id, dtype=parts[0].dtype)
    for first, part in enumerate(parts):
        whole[first :: len(parts), : part.shape[1]] = part
    return whole


def _pad_id(model: PreTrainedModel, kwargs: dict[str, Any]) -> int:
    """That of a call: as it says, else its generation config, else the model's own."""
    own, config = model.generation_config, copy.copy(kwargs.get("generation_config") or model.generation_config)
    for name in ("pad_token_id", "eos_token_id"):
        kept = getattr(config, name)
        setattr(config, name, kwargs.get(name, getattr(own, name) if kept is None else kept))
    return request.pad_id(config)
