"""One event loop on a background thread, on which all requests to servers run."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")

_lock = threading.Lock()
_loops: dict[int, asyncio.AbstractEventLoop] = {}


def background_loop() -> asyncio.AbstractEventLoop:
    """The process's loop; its daemon thread ends with the process and delays nothing."""
    with _lock:
        loop = _loops.get(os.getpid())
        if loop is None or loop.is_closed():
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="cutline-http", daemon=True).start()
            _loops[os.getpid()] = loop
        return loop


def submit(coroutine: Coroutine[Any, Any, T]) -> Future[T]:
    """Start a coroutine; cancelling the future cancels it and closes its connection."""
    return asyncio.run_coroutine_threadsafe(coroutine, background_loop())


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from another thread; an interrupt here cancels it."""
    future = submit(coroutine)
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise
