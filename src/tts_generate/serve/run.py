"""The door opened: looked at what stands behind it, then uvicorn."""

from __future__ import annotations

import asyncio
import socket
import warnings
from collections.abc import Callable

from tts_generate.errors import InputError, TTSError
from tts_generate.serve.desk import Bounds, Desk, Offer

try:
    import uvicorn

    from tts_generate.serve.app import Door
except ImportError as error:
    raise TTSError("serve needs starlette and uvicorn: pip install 'tts-generate[serve]'.") from error

_GRACE = 5
"""Seconds that requests in flight have to end, once the server is told to."""


def serve(
    offer: Offer, bounds: Bounds, name: str | None, host: str, port: int, opened: Callable[[str, str], None]
) -> None:
    """Answer clients until interrupted.

    Args:
        offer: what they are offered.
        bounds: what may come in.
        name: of the model, for clients; that at the servers if left out.
        host: address to listen on.
        port: there; 0 for any.
        opened: told the address and the model's name once clients may come.

    Raises:
        ServerError: no server answers.
        InputError: what is offered is nothing that they can do.
        OSError: somebody else listens there.
    """
    with warnings.catch_warnings(), _listening(host, port) as listening:
        warnings.simplefilter("always", RuntimeWarning)  # of each question that fails, and none of them remembered
        asyncio.run(_serve(offer, bounds, name, listening, opened))


async def _serve(
    offer: Offer, bounds: Bounds, name: str | None, listening: socket.socket, opened: Callable[[str, str], None]
) -> None:
    async with offer.model.connected() as connection:
        desk = Desk(offer, connection)
        found = await desk.look()
        door = Door(desk, name or found or "default", bounds)
        config = uvicorn.Config(
            door,
            log_level="warning",
            access_log=False,
            server_header=False,
            lifespan="off",
            timeout_graceful_shutdown=_GRACE,
        )
        where, port = listening.getsockname()[:2]
        opened(f"http://{f'[{where}]' if ':' in where else where}:{port}/v1", door.name)
        await uvicorn.Server(config).serve(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (socket.gaierror, OverflowError) as error:
        raise InputError(f"cannot listen on {host!r}, port {port}: {error}.") from error
