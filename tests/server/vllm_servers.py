"""Real vLLM servers on this machine, from an environment of its own (`tools/vllm_env.sh`); named by VLLM_PYTHON."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from local_servers import end, wait_until_healthy

KEY = "sk-of-the-server"


@dataclass
class Vllm:
    """A server of the tiny model, called "tiny", that wants the key."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def wait(self, seconds: float = 900.0) -> Vllm:
        """Wait until it answers."""
        wait_until_healthy(f"{self.root}/health", self.process, self.log, seconds)
        return self

    @property
    def root(self) -> str:
        """Its address before "/v1"."""
        return self.url.removesuffix("/v1")

    def counted(self) -> dict[str, int]:
        """What it counted until it came to rest: tokens of prompts, decoded ones, those found in the prefix cache.

        A request that was called off decodes a little further before it notices.
        """
        last, now = {}, self._counts()
        while now != last:
            time.sleep(0.5)
            last, now = now, self._counts()
        return now

    def _counts(self) -> dict[str, int]:
        names = {"prompt": "prompt_tokens", "decoded": "generation_tokens", "cached": "prefix_cache_hits"}
        text = urllib.request.urlopen(f"{self.root}/metrics", timeout=30).read().decode()
        return {
            name: round(sum(map(float, re.findall(rf"^vllm:{counter}_total(?:{{.*}})? (\S+)$", text, re.MULTILINE))))
            for name, counter in names.items()
        }


@contextlib.contextmanager
def vllm_serve(model: Path, port: int, log: Path, *options: str) -> Iterator[Vllm]:
    """A vLLM process with a model on this machine's CPU; it may still be starting."""
    command = [
        *(os.environ["VLLM_PYTHON"], "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)),
        *("--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--api-key", KEY),
        *("--dtype", "float32", "--max-model-len", "512", "--block-size", "32", *options),
    ]
    with started(command, port, log) as server:
        yield server


@contextlib.contextmanager
def started(command: list[str], port: int, log: Path, folder: Path | None = None) -> Iterator[Vllm]:
    """The server that a command starts, in a folder."""
    settings = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    settings |= {"VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_NUM_THREADS": "1"}
    how: dict[str, Any] = {"env": {**os.environ, **settings}, "cwd": folder, "start_new_session": True}
    with log.open("w") as out, subprocess.Popen(command, stdout=out, stderr=out, **how) as process:
        try:
            yield Vllm(f"http://127.0.0.1:{port}/v1", process, log)
        finally:
            end(process, 30)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # a killed server leaves its engine behind
