"""The proxy for the tests: in a thread of this process, or as the command that users start."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn
from local_servers import OPTIONS, end
from token_server import TokenServer

from tts_generate import ServerModel
from tts_generate.controller import Controller
from tts_generate.loading import load_controller
from tts_generate.serve.app import ProxyApp
from tts_generate.serve.responder import Bounds, ProxySettings, Responder
from tts_generate.serve.run import listening

ASKING = {name: OPTIONS[name] for name in ("max_probe_tokens", "probe_suffix", "temperature")}
"""How the tiny model is asked; steps and lengths are fields of their own."""
MOST, STEP = OPTIONS["max_new_tokens"], OPTIONS["interval_tokens"]


def settings_of(*servers: TokenServer | str, controller: Controller | None = None, **how: Any) -> ProxySettings:
    """What an operator offers on such servers."""
    fields = {name: how.pop(name) for name in ("interval_tokens", "max_new_tokens", "max_branches") if name in how}
    urls = [each if isinstance(each, str) else each.url for each in servers]
    how.setdefault("tokenizer", next((each.tokenizer for each in servers if isinstance(each, TokenServer)), None))
    return ProxySettings(
        model=ServerModel(urls, **how),
        controller=controller or load_controller("self_consistency", max_samples=3),
        options=ASKING,
        **{"interval_tokens": STEP, "max_new_tokens": MOST, **fields},
    )


class Opened:
    """A proxy in a thread; `with` it."""

    def __init__(self, settings: ProxySettings, bounds: Bounds | None = None) -> None:
        self.settings, self.bounds = settings, bounds or Bounds()
        self.ready = threading.Event()
        self.problem: Exception | None = None

    def __enter__(self) -> Opened:
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()))
        self._thread.start()
        assert self.ready.wait(60)
        if self.problem is not None:
            raise self.problem
        return self

    def __exit__(self, *error: object) -> None:
        if self.problem is None:
            self.server.should_exit = True
        self._thread.join()

    async def _serve(self) -> None:
        try:
            async with self.settings.model.connected() as self.connection:
                self.responder = Responder(self.settings, self.connection)
                name = await self.responder.look()
                app = ProxyApp(self.responder, str(name), self.bounds)
                config = uvicorn.Config(app, log_level="warning", access_log=False, lifespan="off")
                self.server = uvicorn.Server(config)
                with listening("127.0.0.1", 0) as sock:
                    self.url = f"http://127.0.0.1:{sock.getsockname()[1]}"
                    self.ready.set()
                    await self.server.serve(sockets=[sock])
        except Exception as error:
            self.problem = error
            self.ready.set()


@contextlib.contextmanager
def commanded(log: Path, *options: str, **environment: str) -> Iterator[str]:
    """The address of a proxy that the command opened, in a process of its own, which writes to `log`."""
    command = [sys.executable, "-m", "tts_generate.cli", "serve", "--port", "0", *options]
    with (
        log.open("w") as out,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=out, env={**os.environ, **environment}) as process,
    ):
        try:
            assert process.stdout is not None
            line = process.stdout.readline().decode()
            assert "is served at" in line, line + log.read_text()
            yield line.split("is served at ")[1].split(",")[0].removesuffix("/v1")
        finally:
            end(process, 10)
