"""A CUDA device without one: tensors that say "cuda:0" and are held on the CPU, under CUDA's rules.

Every operation goes through a dispatch mode that refuses what a GPU would refuse (operands of two devices, whatever
makes the host wait while a graph is being captured) and counts what would make the host wait for the device. A graph
remembers the operations of its capture and runs them again over the same addresses, as a CUDA graph does.

What it cannot show: kernels of a GPU and their rounding, speed, memory, and races between streams.
"""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

CUDA = torch.device("cuda:0")
_aten = torch.ops.aten
_COPIES = {_aten._to_copy.default, _aten.copy_.default}
_LOOKS = {_aten._local_scalar_dense.default, _aten.nonzero.default, _aten.masked_select.default}
_INDEXED = {_aten.index.Tensor, _aten.index_put_.default, _aten.index_put.default}


class OnDevice(Tensor):
    """A tensor "on" the device; `held` has its values."""

    held: Tensor

    @staticmethod
    def __new__(cls, held: Tensor) -> OnDevice:
        """Wrap a CPU tensor; sizes and strides are its own."""
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, held.size(), strides=held.stride(), storage_offset=held.storage_offset(), dtype=held.dtype, device=CUDA
        )
        made.held = held
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Outside the mode there is no device."""
        raise AssertionError(f"{func} outside of a PretendCuda")

    def __repr__(self) -> str:  # type: ignore[override]
        return f"OnDevice({self.held})"

    def tolist(self) -> Any:
        """Values, waited for."""
        return self.cpu().tolist()

    def __deepcopy__(self, memo: Any) -> OnDevice:
        return OnDevice(self.held.clone())

    def data_ptr(self) -> int:
        """The address on the "device"."""
        return self.held.data_ptr()


class Graph:
    """Stands in for `torch.cuda.CUDAGraph`."""

    def __init__(self) -> None:
        self._recorded: list[tuple[Any, Any, Any, list[tuple[int, Tensor]]]] = []

    def record(self, func: Any, args: Any, kwargs: Any, found: Any) -> None:
        """Remember an operation, and which of what it gave is new: the others it wrote, or looks at."""
        taken = {tensor.untyped_storage().data_ptr() for tensor in _tensors((args, kwargs))}
        given = list(enumerate(_tensors(found)))
        new = [(k, tensor) for k, tensor in given if tensor.untyped_storage().data_ptr() not in taken]
        self._recorded.append((func, args, kwargs, new))

    def replay(self) -> None:
        """Run what was captured again, over the same addresses."""
        for func, args, kwargs, new in self._recorded:
            again = _tensors(_run(func, args, kwargs))
            for k, tensor in new:
                tensor.copy_(again[k])


def _tensors(value: Any) -> list[Tensor]:
    """Those in what an operation takes or gives: lists, tuples and dictionaries, of which torch's own tree is slow."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [tensor for part in value for tensor in _tensors(part)] if isinstance(value, (list, tuple)) else []


def _mapped(change: Callable[[Any], Any], value: Any) -> Any:
    """The same with each tensor changed; one that is overlooked is refused, as one outside of the mode is."""
    if isinstance(value, Tensor):
        return change(value)
    if type(value) in (list, tuple):
        return type(value)([_mapped(change, part) for part in value])
    return {name: _mapped(change, part) for name, part in value.items()} if type(value) is dict else value


def _held(value: Tensor) -> Tensor:
    return value.held if isinstance(value, OnDevice) else value


class PretendCuda(TorchDispatchMode):
    """Runs operations, on whichever device their tensors say they are.

    Attributes:
        waits: of each operation, how often it made the host wait for the device.
        capturing: the graph that is being captured.
        graphs: how many have been captured.
    """

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[str] = Counter()
        self.capturing: Graph | None = None
        self.graphs = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        tensors = _tensors((args, kwargs))
        here = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        device = kwargs.get("device")
        target = torch.device(device).type if device is not None else None
        on_device = target == "cuda" if target is not None else bool(here)
        if func in _COPIES:
            self._check_copy(func, args, kwargs, on_device)
        else:
            self._check(func, args, here, [t for t in tensors if t.dim() and not isinstance(t, OnDevice)])
        if target is not None:
            kwargs["device"] = torch.device("cpu")
        if func is _aten._pin_memory.default or not (here or on_device):
            return func(*args, **kwargs)
        arguments, options = _mapped(_held, args), _mapped(_held, kwargs)
        found = _run(func, arguments, options)
        if self.capturing is not None:
            self.capturing.record(func, arguments, options, found)
        if func in {_aten.copy_.default, _aten.index_put_.default}:
            return args[0]
        by_held = {id(tensor.held): tensor for tensor in here}
        if not on_device:
            return found
        return _mapped(lambda held: by_held[id(held)] if id(held) in by_held else OnDevice(held), found)

    def _check_copy(self, func: Any, args: Any, kwargs: Any, on_device: bool) -> None:
        """To the host, the host waits for the values; to the device, unless it is told not to."""
        if func is _aten.copy_.default:
            target, source, asynchronous = isinstance(args[0], OnDevice), args[1], args[2:3] == (True,)
        else:
            target, source, asynchronous = on_device, args[0], bool(kwargs.get("non_blocking"))
        if target != isinstance(source, OnDevice):
            self._not_captured(func)
            if not (target and asynchronous):
                self._wait(func)

    def _check(self, func: Any, args: Any, here: list[OnDevice], elsewhere: list[Tensor]) -> None:
        """Operands of two devices are refused, but indices on the CPU, which the host sends and waits for."""
        indexed = func in _INDEXED and isinstance(args[0], OnDevice)
        if here and elsewhere:
            indices = indexed and not any(t.is_floating_point() for t in elsewhere)
            assert indices, f"{func}: operands on cuda:0 and on the CPU"
            self._wait(func)
        chosen = indexed and any(index is not None and index.dtype == torch.bool for index in args[1])
        if here and (func in _LOOKS or chosen):
            self._wait(func)

    def _wait(self, func: Any) -> None:
        self._not_captured(func)
        self.waits[str(func)] += 1

    def _not_captured(self, func: Any) -> None:
        if self.capturing is not None:
            raise RuntimeError(f"CUDA error: operation not permitted when stream is capturing ({func})")


def _run(func: Any, args: Any, kwargs: Any) -> Any:
    """Run an operation on CPU tensors; some are known to CUDA only."""
    if func is _aten.bmm.dtype:
        return torch.bmm(args[0].float(), args[1].float())
    if func is _aten.histc.default:  # of whole numbers too
        return func(args[0].double(), *args[1:], **kwargs).to(args[0].dtype)
    return func(*args, **kwargs)


_CUDA, _META = 1, 14
"""Numbers of device types in torch's C++."""


def _guards() -> Any:
    """torch's table of device guards; builds without CUDA have none for it, and refuse its tensors for that."""
    library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
    return (ctypes.c_void_p * (_META + 1)).in_dll(library, "_ZN3c104impl26device_guard_impl_registryE")


class _Nothing:
    """Stands in for streams and for the choice of a device."""

    def __init__(self, *_: Any) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...

    def wait_stream(self, other: Any) -> None: ...


@contextmanager
def pretend_cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[PretendCuda]:
    """A block in which there is a CUDA device "cuda:0"."""
    mode = PretendCuda()

    @contextmanager
    def graph(captured: Graph, **_: Any) -> Iterator[None]:
        mode.capturing, mode.graphs = captured, mode.graphs + 1
        try:
            yield
        finally:
            mode.capturing = None

    instead = {
        "_lazy_init": lambda: None, "mem_get_info": lambda *_: (1 << 30, 1 << 30), "memory_reserved": lambda *_: 0,
        "memory_allocated": lambda *_: 0, "empty_cache": lambda: None, "current_stream": _Nothing, "Stream": _Nothing,
        "stream": _Nothing, "device": _Nothing, "get_device_capability": lambda *_: (7, 0),
        "graph": graph, "CUDAGraph": Graph, "graph_pool_handle": object,
    }  # fmt: skip
    lifted = torch._C._only_lift_cpu_tensors()
    guards = _guards()
    before = guards[_CUDA]
    guards[_CUDA] = guards[_META]  # the guard that does nothing, which torch itself puts there in builds with CUDA
    torch._C._set_only_lift_cpu_tensors(True)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with monkeypatch.context() as patch:
            for name, value in instead.items():
                patch.setattr(torch.cuda, name, value)
            with mode:
                yield mode
    finally:
        torch._C._set_only_lift_cpu_tensors(lifted)
        torch.__future__.set_overwrite_module_params_on_conversion(False)
        guards[_CUDA] = before
