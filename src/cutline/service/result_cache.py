"""A cache of results in which concurrent requests for one key share one computation."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

T = TypeVar("T")


@dataclass(eq=False)
class _Computation(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class ResultCache(Generic[T]):
    """Results by key: the latest are kept, and concurrent calls for one key share its computation.

    Args:
        size: how many are kept.
        observe: called for each request with "hit", "shared" or "miss".
    """

    def __init__(self, size: int, observe: Callable[[str], None] = lambda result: None) -> None:
        self._size = size
        self._observe = observe
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._computation: dict[Hashable, _Computation[T]] = {}

    async def get(self, key: Hashable, compute: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Return the kept result, or wait for the one being computed, or compute it.

        A cancelled caller does not affect the others; the computation ends with the last of them.

        Raises:
            Exception: what the computation raised, in each caller that waits; it is not kept.
        """
        if key in self._kept:
            self._observe("hit")
            self._kept.move_to_end(key)
            return self._kept[key]
        computation = self._computation.get(key)
        self._observe("miss" if computation is None else "shared")
        if computation is None:
            computation = self._computation[key] = _Computation(asyncio.ensure_future(compute()))
        computation.waiting += 1
        try:
            result = await asyncio.shield(computation.task)
        finally:
            computation.waiting -= 1
            current = self._computation.get(key) is computation
            if current and (computation.task.done() or not computation.waiting):
                del self._computation[key]
            if not computation.waiting:
                computation.task.cancel()
        if current:
            self._keep(key, result)
        return result

    def clear(self) -> None:
        """Drop all results; those being computed reach their callers and are not kept."""
        self._kept.clear()
        self._computation.clear()

    def _keep(self, key: Hashable, result: T) -> None:
        self._kept[key] = result
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
