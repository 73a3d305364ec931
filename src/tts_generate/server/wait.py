"""Asynchronous work from ordinary code."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

T = TypeVar("T")


def wait_for(main: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine to its end from ordinary code, also where an event loop runs already (a notebook)."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        with asyncio.Runner() as runner:  # Ctrl-C cancels `main`, which ends with what it has
            return runner.run(main())
    handle: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[Any]]] = []

    async def held() -> T:
        task = asyncio.current_task()
        assert task is not None
        handle.append((asyncio.get_running_loop(), task))
        return await main()

    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(lambda: asyncio.run(held()))
        try:
            return future.result()
        except KeyboardInterrupt:
            for loop, task in handle:
                loop.call_soon_threadsafe(task.cancel)
            return future.result()
