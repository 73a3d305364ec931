"""The locks of a candidate's process, set just before its code runs, and what each of them stops.

Runs in the child: standard library only.
"""

from __future__ import annotations

import ctypes
import os
import resource
import struct
from collections.abc import Mapping
from typing import Any

from tts_generate.sandbox.seccomp import allow_list, install, this_arch

_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 1, 4, 38
_CAPABILITIES = 0x20080522  # version 3 of their layout
_SIGKILL = 9
_CREATE_RULESET, _RESTRICT_SELF = 444, 446  # the same numbers on every architecture
_MAX_DESCRIPTORS = 16


def landlock_abi() -> int:
    """The version of Landlock that this kernel offers; 0 for none."""
    version = _libc().syscall(_CREATE_RULESET, None, 0, 1)
    return max(0, int(version))


def _libc() -> Any:
    return ctypes.CDLL(None, use_errno=True)


def _landlock() -> int:
    """Refuse every file, TCP port, abstract socket and signal out of this process; the ABI, 0 where there is none."""
    abi = landlock_abi()
    if abi < 1:
        return 0
    files = (1 << 13) - 1 | (1 << 13 if abi >= 2 else 0) | (1 << 14 if abi >= 3 else 0) | (1 << 15 if abi >= 5 else 0)
    size = 8 if abi < 4 else 16 if abi < 6 else 24
    attributes = struct.pack("<QQQ", files, 3, 3)[:size]
    libc = _libc()
    ruleset = libc.syscall(_CREATE_RULESET, attributes, size, 0)
    if ruleset < 0 or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"Landlock: {os.strerror(errno)}")
    os.close(ruleset)
    return abi


def _limits(memory: int, cpu_seconds: int) -> None:
    """Limit what the process may take, on top of the memory that it holds now."""
    with open("/proc/self/statm") as file:
        held = int(file.read().split()[0]) * resource.getpagesize()
    for kind, limit in (
        (resource.RLIMIT_AS, held + memory),
        (resource.RLIMIT_CPU, cpu_seconds),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_STACK, 8 << 20),
        (resource.RLIMIT_NPROC, 0),
        (resource.RLIMIT_NOFILE, _MAX_DESCRIPTORS),
    ):
        hard = resource.getrlimit(kind)[1]
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        spare = int(kind == resource.RLIMIT_CPU and (hard == resource.RLIM_INFINITY or limit < hard))
        resource.setrlimit(kind, (limit, limit + spare))  # a signal that says why, and a second later SIGKILL


def die_with_parent() -> None:
    """Have this process end with the one that forked it, let no other look into it, and take root's powers off it.

    Raises:
        OSError: the kernel refuses.
    """
    libc = _libc()
    for option, value in ((_PR_SET_PDEATHSIG, _SIGKILL), (_PR_SET_DUMPABLE, 0), (_PR_SET_NO_NEW_PRIVS, 1)):
        if libc.prctl(option, value, 0, 0, 0) != 0:
            errno = ctypes.get_errno()
            raise OSError(errno, f"prctl({option}): {os.strerror(errno)}")
    if libc.capset(struct.pack("<Ii", _CAPABILITIES, 0), bytes(24)) != 0:
        errno = ctypes.get_errno()
        raise OSError(errno, f"capset: {os.strerror(errno)}")


def lock(wanted: Mapping[str, Any]) -> dict[str, Any]:
    """Set every lock that is wanted, for good; what came of each.

    Args:
        wanted: `without` (names of locks to leave off), `memory` (bytes), `cpu_seconds`, `exec_pages`.

    Returns:
        By name: True or a version where the lock is in force, else a text that says why it is not.
    """
    told: dict[str, Any] = {}
    without = wanted["without"]
    die_with_parent()
    if "limits" not in without:
        _limits(int(wanted["memory"]), int(wanted["cpu_seconds"]))
        told["limits"] = True
    if "landlock" not in without:
        try:
            told["landlock"] = _landlock() or "this kernel has no Landlock"
        except OSError as error:
            told["landlock"] = str(error)
    if "seccomp" not in without:
        arch = this_arch()
        try:
            if arch is None:
                told["seccomp"] = f"no list of system calls for {os.uname().machine}"
            else:
                install(allow_list(arch, bool(wanted["exec_pages"])))
                told["seccomp"] = sum(map(len, (arch.allowed, arch.pages, arch.clocks, arch.advice)))
        except OSError as error:
            told["seccomp"] = str(error)
    return told
