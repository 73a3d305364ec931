"""The proxy started: a look at the servers behind it, then uvicorn."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import ExitStack

from tts_generate.errors import InputError, TTSError
from tts_generate.serve.responder import Bounds, ProxySettings, Responder

try:
    import uvicorn

    from tts_generate.serve.app import ProxyApp
except ImportError as error:
    raise TTSError("serve needs starlette and uvicorn: pip install 'tts-generate[serve]'.") from error

_WAITING = 2048
"""Connections that wait to be taken."""
_IDLE = 75
"""Seconds for which a connection is kept that says nothing; longer than clients keep theirs."""
_GRACE = 5
"""Seconds that requests in flight have to end, once the server is told to."""


def serve(
    settings: ProxySettings, bounds: Bounds, name: str | None, host: str, port: int, opened: Callable[[str, str], None]
) -> None:
    """Answer clients until interrupted.

    Args:
        settings: what clients are offered.
        bounds: what may come in.
        name: of the model, for clients; that at the servers if left out.
        host: address to listen on.
        port: there; 0 for any.
        opened: told the address and the model's name once clients may come.

    Raises:
        ServerError: no server answers.
        InputError: the servers cannot do what is offered.
        OSError: somebody else listens there.
    """
    fastest = uvicorn.Config("").get_loop_factory()
    with listening(host, port) as sock, asyncio.Runner(loop_factory=fastest) as runner:
        runner.run(_serve(settings, bounds, name, sock, opened))


async def _serve(
    settings: ProxySettings, bounds: Bounds, name: str | None, sock: socket.socket, opened: Callable[[str, str], None]
) -> None:
    async with settings.model.connected() as connection:
        responder = Responder(settings, connection)
        found = await responder.look()
        app = ProxyApp(responder, name or found or "default", bounds)
        config = uvicorn.Config(
            app,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            proxy_headers=False,
            timeout_keep_alive=_IDLE,
            timeout_graceful_shutdown=_GRACE,
        )
        where, port = sock.getsockname()[:2]
        opened(f"http://{f'[{where}]' if ':' in where else where}:{port}/v1", app.name)
        await uvicorn.Server(config).serve(sockets=[sock])


def listening(host: str, port: int) -> socket.socket:
    """A socket that clients may connect to; by its protocol asyncio knows that it must not wait for more to send.

    Raises:
        InputError: no such address.
        OSError: it is taken.
    """
    with ExitStack() as unless_all_went_well:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        opened = unless_all_went_well.enter_context(socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP))
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            opened.bind((host, port))
        except (socket.gaierror, OverflowError) as error:
            raise InputError(f"cannot listen on {host!r}, port {port}: {error}.") from error
        opened.listen(_WAITING)
        unless_all_went_well.pop_all()
    return opened
