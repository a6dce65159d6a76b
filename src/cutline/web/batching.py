"""Pictures of many clients, captioned together: a bounded line, and a few threads that empty it.

All state belongs to the event loop, so nothing here takes a lock; only `Work` runs on threads.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")
R = TypeVar("R")


class QueueFullError(Exception):
    """No place is left.

    Attributes:
        retry_s: when there may be one, in whole seconds from now.
    """

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"no place is left; try again in {retry_s} s")
        self.retry_s = retry_s


@dataclass(frozen=True)
class BatchLimits:
    """How pictures wait and are put together."""

    threads: int
    """Batches that are worked on at once."""

    batch_size: int = 16
    """Pictures in one batch."""

    window_s: float = 0.005
    """How long an idle thread waits for more pictures to come."""

    places: int = 256
    """Pictures accepted and not yet answered."""


@dataclass(eq=False)
class _Waiting(Generic[T, R]):
    item: T
    answer: asyncio.Future[R]
    since_s: float = field(default_factory=time.monotonic)


class Batcher(Generic[T, R]):
    """Puts items of one group together and works on a few groups at once, oldest first.

    Args:
        work: takes a group and its items and gives an answer for each; called on a thread.
        limits: how many, how long.
        observe: told the size of every batch and the seconds it took.
    """

    def __init__(
        self,
        work: Callable[[Hashable, Sequence[T]], Sequence[R]],
        limits: BatchLimits,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._work = work
        self._limits = limits
        self._observe = observe
        self._pool = ThreadPoolExecutor(limits.threads, thread_name_prefix="cutline")
        self._lines: dict[Hashable, deque[_Waiting[T, R]]] = {}
        self._idle = limits.threads
        self._timer: asyncio.TimerHandle | None = None
        self._seconds_each = 0.05  # a moving average of what one item takes
        self.taken = 0
        """Places taken."""

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Hold as many places while the block runs.

        Raises:
            QueueFullError: so many are not left.
        """
        if self.taken + count > self._limits.places:
            ahead = self.taken * self._seconds_each / self._limits.threads
            raise QueueFullError(max(1, math.ceil(ahead)))
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

    async def submit(self, group: Hashable, item: T) -> R:
        """Wait in line and give the item's answer; one that is cancelled leaves the line."""
        waiting = _Waiting[T, R](item, asyncio.get_running_loop().create_future())
        self._lines.setdefault(group, deque()).append(waiting)
        self._look()
        return await waiting.answer

    def close(self) -> None:
        """End the threads, after what they are working on."""
        self._pool.shutdown()

    def _look(self) -> None:
        """Start a batch if a thread is idle and the batch is full or has waited long enough."""
        while self._idle and (group := self._next()) is not None:
            line = self._lines[group]
            due_s = line[0].since_s + self._limits.window_s - time.monotonic()
            if due_s > 0 and len(line) < self._limits.batch_size:
                if self._timer is None:
                    self._timer = asyncio.get_running_loop().call_later(due_s, self._alarm)
                return
            self._start(group, line)

    def _alarm(self) -> None:
        self._timer = None
        self._look()

    def _next(self) -> Hashable | None:
        """The group whose first item has waited longest; those who left are forgotten."""
        for group, line in list(self._lines.items()):
            while line and line[0].answer.cancelled():
                line.popleft()
            if not line:
                del self._lines[group]
        return min(self._lines, key=lambda group: self._lines[group][0].since_s, default=None)

    def _start(self, group: Hashable, line: deque[_Waiting[T, R]]) -> None:
        share = math.ceil(len(line) / self._idle)
        batch: list[_Waiting[T, R]] = []
        while line and len(batch) < min(share, self._limits.batch_size):
            if not (first := line.popleft()).answer.cancelled():
                batch.append(first)
        self._idle -= 1
        began_s = time.monotonic()
        working = asyncio.get_running_loop().run_in_executor(
            self._pool, self._work, group, [each.item for each in batch]
        )

        def done(worked: asyncio.Future[Sequence[R]]) -> None:
            self._idle += 1
            seconds = time.monotonic() - began_s
            self._seconds_each += 0.1 * (seconds / len(batch) - self._seconds_each)
            self._observe(len(batch), seconds)
            failed = worked.exception()
            for place, each in enumerate(batch):
                if each.answer.cancelled():
                    continue
                if failed is not None:
                    each.answer.set_exception(failed)
                else:
                    each.answer.set_result(worked.result()[place])
            self._look()

        working.add_done_callback(done)
