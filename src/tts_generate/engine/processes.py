"""The processes of a launched job (`accelerate launch`, torchrun), and how they come to an agreement.

What they tell each other is small and goes over gloo, also where the job itself uses NCCL: gloo's connections break
when a process ends, so a death is noticed at once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
from accelerate import PartialState
from accelerate.utils.environment import get_cpu_distributed_information
from torch import distributed as dist
from torch.distributed.tensor import DTensor
from transformers import PreTrainedModel

from tts_generate.errors import InputError, ProcessError, UnsupportedError

T = TypeVar("T")
_ARRIVAL = timedelta(minutes=30)
"""How long the first process waits for the last one to come."""
_WORK = timedelta(days=7)
"""How long it then waits for results of one that is alive."""


@dataclasses.dataclass(frozen=True, slots=True)
class Processes:
    """This process among those of a job; alone if none was launched."""

    index: int = 0
    count: int = 1
    group: Any = None

    @property
    def main(self) -> bool:
        """Whether this is the one that speaks for all."""
        return self.index == 0

    def gather(self, value: T) -> list[T]:
        """What every process gives, in every process; all must call it.

        Raises:
            ProcessError: a process ended instead.
        """
        found: list[Any] = [None] * self.count
        try:
            dist.all_gather_object(found, value, group=self.group)
        except RuntimeError as error:
            raise ProcessError(f"another process of this job ended early: {str(error).splitlines()[0]}") from error
        return found

    def agree(self, step: Callable[[], T]) -> list[T]:
        """Take a step in every process; its results in every process, or an error in all where it failed in one."""
        try:
            mine, failed = step(), None
        except Exception as error:
            mine, failed = None, error
        found = self.gather((mine, line_of(failed) if failed else ""))
        if failed:
            raise failed
        for index, (_, why) in enumerate(found):
            if why:
                raise ProcessError(f"process {index} of {self.count} failed: {why}")
        return [result for result, _ in found]  # type: ignore[misc]


def launched() -> Processes:
    """This process as accelerate sees it, setting accelerate up if a launcher started several and nobody has yet.

    Raises:
        InputError: several were started, but accelerate was set up for one.
    """
    count = get_cpu_distributed_information().world_size  # of torchrun's variables, or of an MPI's
    if count < 2 and not PartialState._shared_state and not (dist.is_available() and dist.is_initialized()):
        return Processes()
    # Without an accelerator, accelerate takes every process for the only one unless it is told `cpu=True`.
    state = PartialState() if PartialState._shared_state else PartialState(cpu=not torch.accelerator.is_available())
    if count > 1 and state.num_processes != count:
        raise InputError(
            f"{count} processes were launched, but accelerate was set up for {state.num_processes}; on a machine "
            "without accelerators make it Accelerator(cpu=True) or PartialState(cpu=True)."
        )
    return Processes(state.process_index, state.num_processes)


@contextmanager
def together(model: PreTrainedModel) -> Iterator[Processes]:
    """The processes of the job, able to exchange values; every one of them must enter.

    Raises:
        ProcessError: one did not come within half an hour.
        UnsupportedError: they have one model between them.
    """
    alone = launched()
    if alone.count == 1:
        yield alone
        return
    if any(isinstance(weight, DTensor) for weight in model.parameters()):
        raise UnsupportedError(
            "this model's weights are spread over the processes of the job (tensor parallel, or FSDP), so they cannot "
            "share questions out; load a copy in each process, or one with device_map='auto' in a single process."
        )
    try:
        arrival = dist.new_group(backend="gloo", timeout=_ARRIVAL)
        dist.all_gather_object([None] * alone.count, alone.index, group=arrival)
        group = dist.new_group(backend="gloo", timeout=_WORK)
    except RuntimeError as error:
        raise ProcessError(
            f"the {alone.count} processes of this job did not come together ({str(error).splitlines()[0]}); each of "
            "them must make this call, with the same arguments."
        ) from error
    try:
        yield dataclasses.replace(alone, group=group)
    finally:
        dist.destroy_process_group(group)
        dist.destroy_process_group(arrival)


def own_device(device: str) -> str:
    """The device of this process: in a launched job, "cuda" is another GPU for each."""
    several = launched().count > 1 and torch.device(device).type != "cpu" and torch.device(device).index is None
    return str(PartialState().device) if several else device


def line_of(error: BaseException) -> str:
    """An error in one line, for other processes; what is said of a third process is handed on as it is."""
    text = str(error).splitlines()[0] if str(error) else ""
    return text if isinstance(error, ProcessError) else f"{type(error).__name__}: {text}".removesuffix(": ")
