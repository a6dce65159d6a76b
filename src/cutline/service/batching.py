"""Work of many clients done together: `Batcher` batches it, `Answers` does the same work once.

The batcher is a bounded line, and a few threads that empty it. Captioning has two halves. Looking
at a picture takes as long however many there are; telling captions takes less for each the more are
told together. So a free thread first tells a batch that is full, or that has waited long enough;
else it looks at the next picture; and if none is left and nobody else is looking at one, it tells
its share of what there is, unless more are at the door, for which it waits some milliseconds. A
lone picture waits for nothing, and the busier the service the larger its batches.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Coroutine, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeVar

T = TypeVar("T")


class QueueFullError(Exception):
    """No place is left.

    Attributes:
        retry_s: when there may be one, in whole seconds from now.
    """

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"no place is left; try again in {retry_s} s")
        self.retry_s = retry_s


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How pictures wait and are put together."""

    threads: int
    """Pictures looked at, or batches told, at once."""

    batch_size: int = 16
    """Pictures in one batch."""

    window_s: float = 0.5
    """How long a picture that was looked at waits for others while there are more to look at."""

    linger_s: float = 0.01
    """How long it waits for those at the door when there is nothing else to look at."""

    places: int = 256
    """Pictures accepted and not yet answered."""


class Group(Hashable, Protocol):
    """What is told together; equal groups are one."""

    def encode(self, item: Any) -> Any:
        """The first half, for one item; called on a thread."""
        ...

    def decode(self, seen: Sequence[Any]) -> Sequence[Any]:
        """The second half: an answer for each; called on a thread."""
        ...


@dataclass(eq=False)
class _Waiting:
    group: Group
    item: Any  # what was given; after `encode` what that gave
    answer: asyncio.Future[Any]
    since_s: float = field(default_factory=time.monotonic)


class Batcher:
    """Looks at items one by one and tells answers by groups; made and used on one event loop.

    Args:
        limits: how many, how long.
        observe: told the size of every batch and what its telling took, s; on the event loop.
    """

    def __init__(
        self,
        limits: BatchLimits,
        observe: Callable[[int, float], None] = lambda size, seconds: None,
    ) -> None:
        self._limits = limits
        self._observe = observe
        self._loop = asyncio.get_running_loop()
        self._changed = threading.Condition()
        self._unseen: deque[_Waiting] = deque()
        self._seen: dict[Group, deque[_Waiting]] = {}
        self._looking = 0
        self._telling = 0
        self._closed = False
        self._at_door = 0
        self._look_seconds = self._seconds_each = 0.05  # of one thread, for one item, lately
        self.taken = 0
        """Places taken."""
        self._threads = [
            threading.Thread(target=self._run, name=f"cutline-{number}", daemon=True)
            for number in range(limits.threads)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Hold as many places while the block runs.

        Raises:
            QueueFullError: so many are not left.
        """
        if self.taken + count > self._limits.places:
            ahead_s = self.taken * self._seconds_each / self._limits.threads
            raise QueueFullError(max(1, math.ceil(ahead_s)))
        self.taken += count
        try:
            yield
        finally:
            self.taken -= count

    @contextmanager
    def at_door(self) -> Iterator[None]:
        """While the block runs, items are about to come."""
        with self._changed:
            self._at_door += 1
        try:
            yield
        finally:
            with self._changed:
                self._at_door -= 1
                self._changed.notify()

    async def submit(self, group: Group, item: Any) -> Any:
        """The item's answer; a caller who is cancelled leaves the line."""
        waiting = _Waiting(group, item, self._loop.create_future())
        with self._changed:
            self._unseen.append(waiting)
            self._changed.notify()
        return await waiting.answer

    def close(self) -> None:
        """End the threads, each after what it is doing."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (task := self._next()) is None:
                    if self._closed and not self._seen:
                        return
                    self._changed.wait(self._limits.linger_s if self._seen else None)
            task()

    def _next(self) -> Callable[[], None] | None:
        """What a free thread does now; None is wait until something changes."""
        for each, line in list(self._seen.items()):
            self._seen[each] = deque(waiting for waiting in line if not waiting.answer.cancelled())
            if not self._seen[each]:
                del self._seen[each]
        while self._unseen and self._unseen[0].answer.cancelled():
            self._unseen.popleft()
        oldest = min(self._seen, key=lambda group: self._seen[group][0].since_s, default=None)
        full = (g for g, line in self._seen.items() if len(line) >= self._limits.batch_size)
        if (group := next(full, None)) is not None:
            return self._batch(group, self._share(group))
        waited_s = 0.0 if oldest is None else time.monotonic() - self._seen[oldest][0].since_s
        if oldest is not None and self._unseen and waited_s > self._limits.window_s:
            return self._batch(oldest, self._limits.batch_size)
        if self._unseen:
            self._looking += 1
            waiting = self._unseen.popleft()
            return lambda: self._look(waiting)
        if oldest is None or self._looking:
            return None
        if self._at_door and waited_s < self._limits.linger_s:
            return None
        return self._batch(oldest, self._share(oldest))

    def _share(self, group: Group) -> int:
        """How many of a line one thread tells: as many as may be, but no thread has to stand by."""
        others_look = bool(self._unseen)
        tellers = 1 if others_look else self._limits.threads - self._telling
        return min(math.ceil(len(self._seen[group]) / tellers), self._limits.batch_size)

    def _batch(self, group: Group, size: int) -> Callable[[], None]:
        line = self._seen[group]
        batch = [line.popleft() for _ in range(min(size, len(line)))]
        if not line:
            del self._seen[group]
        self._telling += 1
        return lambda: self._tell(group, batch)

    def _look(self, waiting: _Waiting) -> None:
        began_s = time.monotonic()
        failed: list[tuple[_Waiting, Any]] = []
        try:
            waiting.item = waiting.group.encode(waiting.item)
        except Exception as error:
            failed = [(waiting, error)]
        with self._changed:
            self._looking -= 1
            if not failed:
                waiting.since_s = time.monotonic()
                self._seen.setdefault(waiting.group, deque()).append(waiting)
            self._changed.notify_all()
        self._deliver(failed, 0, time.monotonic() - began_s)

    def _tell(self, group: Group, batch: list[_Waiting]) -> None:
        began_s = time.monotonic()
        told: list[tuple[_Waiting, Any]]
        try:
            told = list(zip(batch, group.decode([each.item for each in batch]), strict=True))
        except Exception as error:
            told = [(waiting, error) for waiting in batch]
        with self._changed:
            self._telling -= 1
            self._changed.notify()
        self._deliver(told, len(batch), time.monotonic() - began_s)

    def _deliver(self, answers: list[tuple[_Waiting, Any]], told: int, seconds: float) -> None:
        def deliver() -> None:
            for waiting, answer in answers:
                if waiting.answer.cancelled():
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)
            if told:
                self._observe(told, seconds)
                each = self._look_seconds + seconds / told
                self._seconds_each += 0.1 * (each - self._seconds_each)
            else:
                self._look_seconds = seconds

        self._loop.call_soon_threadsafe(deliver)


@dataclass(eq=False)
class _Making(Generic[T]):
    task: asyncio.Task[T]
    waiting: int = 0


class Answers(Generic[T]):
    """Answers by key: the latest are kept, and one that is being made is waited for by all.

    Args:
        size: how many are kept.
        observe: told for every one asked for whether it was a "hit", "shared" or a "miss".
    """

    def __init__(self, size: int, observe: Callable[[str], None] = lambda result: None) -> None:
        self._size = size
        self._observe = observe
        self._kept: OrderedDict[Hashable, T] = OrderedDict()
        self._making: dict[Hashable, _Making[T]] = {}

    async def get(self, key: Hashable, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """The answer that is kept or being made, or a new one.

        A caller who is cancelled takes nothing from the others; with the last, the making ends.

        Raises:
            Exception: what making it raised, to all who wait; none of that is kept.
        """
        if key in self._kept:
            self._observe("hit")
            self._kept.move_to_end(key)
            return self._kept[key]
        making = self._making.get(key)
        self._observe("miss" if making is None else "shared")
        if making is None:
            making = self._making[key] = _Making(asyncio.ensure_future(make()))
        making.waiting += 1
        try:
            answer = await asyncio.shield(making.task)
        finally:
            making.waiting -= 1
            current = self._making.get(key) is making
            if current and (making.task.done() or not making.waiting):
                del self._making[key]
            if not making.waiting:
                making.task.cancel()
        if current:
            self._keep(key, answer)
        return answer

    def clear(self) -> None:
        """Forget all; what is being made reaches those who wait, and is not kept."""
        self._kept.clear()
        self._making.clear()

    def _keep(self, key: Hashable, answer: T) -> None:
        self._kept[key] = answer
        while len(self._kept) > self._size:
            self._kept.popitem(last=False)
