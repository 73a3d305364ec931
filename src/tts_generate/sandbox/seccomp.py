"""A filter of system calls for the process that sets it: what is not on the list does not happen. Linux, by ctypes.

Needs no root and no library. It runs in the child too, so it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

ALLOW, REFUSE, KILL = 0x7FFF0000, 0x00050000, 0x80000000
"""Return values of a filter; `REFUSE` takes an errno in its low bits."""
EPERM = 1
_LOAD, _EQUAL, _AT_LEAST, _ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER, _ARCH, _FIRST_ARGUMENT, _THIRD_ARGUMENT = 0, 4, 16, 32  # places in struct seccomp_data
_PROT_EXEC, _OF_A_PROCESS, _POISON = 4, 1 << 31, 100
_PR_SET_SECCOMP, _MODE_FILTER, _PR_SET_NO_NEW_PRIVS = 22, 2, 38


@dataclass(frozen=True)
class Arch:
    """System calls of one machine: numbers by what a candidate may do with them."""

    audit: int
    allowed: tuple[int, ...]
    """Reading and writing open descriptors, memory, clocks, the process itself and its end; most frequent first."""
    pages: tuple[int, ...]
    """mmap and mprotect: allowed without PROT_EXEC."""
    clocks: tuple[int, ...]
    """clock_gettime, clock_getres, clock_nanosleep: not on the CPU time of a process, which any other may have."""
    advice: tuple[int, ...]
    """madvise: not from 100 on, by which root poisons pages of the machine."""
    compiling: tuple[int, ...]
    """What else compiling needs: getcwd, for messages."""
    killed: tuple[int, ...]
    """No Python program calls these by mistake: ptrace, process_vm_*, bpf, io_uring, mount, unshare, setns, …"""


ARCHES: Mapping[str, Arch] = {
    "x86_64": Arch(
        audit=0xC000003E,
        allowed=(
            0, 1, 202, 7, 11, 12, 25, 3, 5, 8, 13, 14, 15, 19, 20, 24, 35, 39, 60, 96, 98, 100, 131,
            186, 201, 219, 231, 271, 273, 309, 318, 324, 334,
        ),
        pages=(9, 10),
        clocks=(228, 229, 230),
        advice=(28,),
        compiling=(79,),
        killed=(101, 165, 175, 246, 248, 250, 272, 298, 308, 310, 311, 321, 323, 425, 434, 438),
    ),
    "aarch64": Arch(
        audit=0xC00000B7,
        allowed=(
            63, 64, 98, 73, 215, 214, 216, 57, 80, 62, 134, 135, 139, 65, 66, 124, 101, 172, 93, 169,
            165, 153, 132, 178, 128, 94, 99, 168, 278, 283, 293,
        ),
        pages=(222, 226),
        clocks=(113, 114, 115),
        advice=(233,),
        compiling=(17,),
        killed=(117, 40, 105, 104, 217, 219, 97, 241, 268, 270, 271, 280, 282, 425, 434, 438),
    ),
}  # fmt: skip
"""By `os.uname().machine`; aarch64 is written from the kernel's table and not run."""


class _Instruction(ctypes.Structure):
    _fields_ = (("code", ctypes.c_ushort), ("yes", ctypes.c_ubyte), ("no", ctypes.c_ubyte), ("k", ctypes.c_uint))


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.POINTER(_Instruction)))


Line = tuple[int, int, int, int]


def head(arch: Arch) -> list[Line]:
    """Load the call's number; kill what comes by another architecture or by x32."""
    lines: list[Line] = [(_LOAD, 0, 0, _ARCH), (_EQUAL, 1, 0, arch.audit), (_RETURN, 0, 0, KILL)]
    return [*lines, (_LOAD, 0, 0, _NUMBER), (_AT_LEAST, 0, 1, 0x40000000), (_RETURN, 0, 0, KILL)]


def each(calls: Sequence[int], verdict: int) -> list[Line]:
    """Return `verdict` for every one of `calls`, by the number that `head` has loaded."""
    return [line for call in calls for line in ((_EQUAL, 0, 1, call), (_RETURN, 0, 0, verdict))]


def but(calls: Sequence[int], place: int, test: int, value: int) -> list[Line]:
    """Allow every one of `calls`, but with EPERM where the argument at `place` passes the test."""
    verdicts: list[Line] = [(_RETURN, 0, 0, REFUSE | EPERM), (_RETURN, 0, 0, ALLOW)]
    return [
        line for call in calls for line in ((_EQUAL, 0, 4, call), (_LOAD, 0, 0, place), (test, 0, 1, value), *verdicts)
    ]


def allow_list(arch: Arch, exec_pages: bool) -> list[Line]:
    """The filter of a candidate: allowed calls, some that kill, EPERM for all others."""
    lines = [*head(arch), *each(arch.allowed, ALLOW), *but(arch.clocks, _FIRST_ARGUMENT, _ANY_BIT, _OF_A_PROCESS)]
    lines += but(arch.advice, _THIRD_ARGUMENT, _AT_LEAST, _POISON)
    if exec_pages:
        lines += each((*arch.pages, *arch.compiling), ALLOW)
    else:
        lines += but(arch.pages, _THIRD_ARGUMENT, _ANY_BIT, _PROT_EXEC)
    return [*lines, *each(arch.killed, KILL), (_RETURN, 0, 0, REFUSE | EPERM)]


def this_arch() -> Arch | None:
    """The calls of this machine; None where none are known (another system, another processor)."""
    return ARCHES.get(os.uname().machine) if hasattr(os, "uname") and os.uname().sysname == "Linux" else None


def install(lines: Sequence[Line]) -> None:
    """Filter every system call of this thread, and of what it starts, from now on.

    Raises:
        OSError: the kernel refuses.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    listed = (_Instruction * len(lines))(*(_Instruction(*line) for line in lines))
    program = _Program(len(lines), listed)
    for arguments in ((_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), (_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(program))):
        if libc.prctl(*arguments) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"prctl({arguments[0]}): {os.strerror(errno)}")
