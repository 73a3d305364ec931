"""A desk without what Linux alone has: answers, records and replays there, and says what the sandbox says.

python tests/house/other_desk.py FOLDER

What others wrote is imported first, as they have their own ways on other systems; then the modules and functions that
macOS or Windows lack are taken away, and this package is imported.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import warnings
from pathlib import Path

MODULES = ("crypt", "fcntl", "grp", "posix", "pty", "pwd", "resource", "spwd", "syslog", "termios", "tty")
"""Of the standard library, on Unix only."""
OS = (
    "O_CLOEXEC", "O_DIRECTORY", "O_DSYNC", "O_NOCTTY", "O_NOFOLLOW", "O_NONBLOCK", "O_PATH", "O_SYNC", "O_TMPFILE",
    "WEXITED", "WNOHANG", "WNOWAIT", "chown", "confstr", "eventfd", "fchdir", "fchmod", "fchown", "fdatasync", "fork",
    "forkpty", "fstatvfs", "getegid", "geteuid", "getgid", "getgroups", "getloadavg", "getpgid", "getpriority",
    "getsid", "getuid", "initgroups", "killpg", "lockf", "memfd_create", "mkfifo", "mknod", "nice", "openpty", "pipe2",
    "posix_fadvise", "posix_fallocate", "posix_spawn", "pread", "preadv", "pwrite", "pwritev", "readv",
    "register_at_fork", "sched_getaffinity", "sched_setaffinity", "sched_yield", "sendfile", "set_blocking", "setgid",
    "setpgid", "setsid", "setuid", "splice", "statvfs", "sync", "sysconf", "tcgetpgrp", "ttyname", "uname", "wait",
    "wait3", "wait4", "waitid", "writev",
)  # fmt: skip
SIGNALS = (
    "SIGALRM", "SIGCHLD", "SIGCONT", "SIGHUP", "SIGKILL", "SIGPIPE", "SIGQUIT", "SIGSTOP", "SIGSYS", "SIGTSTP",
    "SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGXFSZ", "alarm", "pthread_kill", "pthread_sigmask", "setitimer", "sigwait",
)  # fmt: skip
THEIRS = (
    "accelerate", "asyncio", "datasets", "filelock", "httpx2", "huggingface_hub", "numba", "numpy", "optuna", "psutil",
    "pyarrow.parquet", "rich.console", "scipy.stats", "torch", "torch._dynamo", "torch.distributed.tensor",
    "transformers.models.qwen3.modeling_qwen3", "typer",
)  # fmt: skip


def leave_linux() -> None:
    """Take away what other systems lack."""
    for name in THEIRS:
        importlib.import_module(name)
    for name in MODULES:
        sys.modules[name] = None  # type: ignore[assignment]  # which makes an import fail
    for module, names in ((os, OS), (signal, SIGNALS)):
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def refused(what: object, *given: object, **more: object) -> str:
    """The error of a call."""
    try:
        what(*given, **more)  # type: ignore[operator]
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return "nothing"


def main(folder: Path) -> None:
    """Every command that needs no sandbox has its module imported too."""
    import tts_generate
    from tts_generate import cli, tiny
    from tts_generate.loading import builtin_controllers, load_controller
    from tts_generate.replay import Recording, replay
    from tts_generate.sandbox import Sandbox
    from tts_generate.trajectories import TrajectoryStore, check, journal

    importlib.import_module("tts_generate.search")
    importlib.import_module("tts_generate.publish")
    importlib.import_module("tts_generate.server")
    assert cli.app
    model, tokenizer = tiny.load()
    tts_generate.enable(model, tokenizer=tokenizer)
    questions = tiny.questions("test")[:2]
    inputs = tokenizer([q.question for q in questions], return_tensors="pt", padding=True, padding_side="left")
    two = {"controller": "self_consistency", "controller_kwargs": {"max_samples": 2}}
    out = model.generate(**inputs, strategy="autotts", seed=0, return_dict_in_generate=True, **two)
    print("answers", len(out.answers))
    how = {"branches": 2, "max_new_tokens": 64, "progress": False}
    store = tts_generate.record(model, tokenizer, questions, folder / "more", **how)
    again = tts_generate.record(model, tokenizer, questions, folder / "more", **how)
    print("recorded", len(store.trajectories()), again.trajectories() == store.trajectories())
    assert not check(folder / "more").findings
    for compiled in (False, True):
        recording = Recording.from_store(TrajectoryStore.open(folder / "more"))
        found = replay(recording, "self_consistency", shuffles=2, compiled=compiled, max_samples=2)
        print("replayed", found.answers.shape)
    print("controllers", len(builtin_controllers()), load_controller("thrift"))
    (folder / "link").symlink_to(folder / "more" / "manifest.json")
    print(refused(journal.read_bytes, folder / "link"))
    print(refused(journal.read_bytes, folder))
    sys.platform = "win32"
    print(refused(Sandbox))
    print(refused(load_controller, folder / "mine", sandbox=True))


if __name__ == "__main__":
    warnings.simplefilter("ignore", DeprecationWarning)
    leave_linux()
    main(Path(sys.argv[1]))
