"""Dynamic batching: work of many clients is encoded one by one and decoded in batches.

`Batcher` is a bounded queue and the threads that empty it. Captioning has two halves. Encoding an
image takes as long however many there are; decoding takes less for each image the more are decoded
together. So a free thread first decodes a batch that is full or has waited long enough. Otherwise
it encodes the next image. If none is left and no other thread is encoding, it decodes its share of
what there is, unless requests are arriving, for which it waits some milliseconds. So a single image
waits for nothing, and batches grow with the load.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol


class QueueFullError(Exception):
    """The queue is full.

    Attributes:
        retry_s: when to try again, in whole seconds from now.
    """

    def __init__(self, retry_s: int) -> None:
        super().__init__(f"the queue is full; try again in {retry_s} s")
        self.retry_s = retry_s


@dataclass(frozen=True, kw_only=True)
class BatchLimits:
    """How images are queued and batched."""

    threads: int
    """Images encoded, or batches decoded, at once."""

    batch_size: int = 16
    """Images in one batch."""

    max_batch_wait_s: float = 0.5
    """How long an encoded image waits for its batch to fill while more images are queued."""

    arrival_grace_s: float = 0.01
    """How long it waits for requests that are arriving when nothing is queued."""

    places: int = 256
    """Images accepted and not yet answered."""


class Group(Hashable, Protocol):
    """Work that can be decoded together; equal groups share their batches."""

    def encode(self, item: Any) -> Any:
        """Encode one item; called on a worker thread."""
        ...

    def decode(self, encoded: Sequence[Any]) -> Sequence[Any]:
        """Decode a batch, one result for each item; called on a worker thread."""
        ...


@dataclass(eq=False)
class _Waiting:
    group: Group
    item: Any  # as submitted, then as encoded
    answer: asyncio.Future[Any]
    since_s: float = field(default_factory=time.monotonic)


class Batcher:
    """Encodes items one by one and decodes them in batches by group; used on one event loop.

    Args:
        limits: sizes and waiting times.
        observe: called on the event loop with each batch's size and its decoding time in seconds.
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
        self._queued: deque[_Waiting] = deque()
        self._encoded: dict[Group, deque[_Waiting]] = {}
        self._encoding = 0
        self._decoding = 0
        self._closed = False
        self._incoming = 0
        self._encode_seconds = self._seconds_each = 0.05  # recent, of one thread for one item
        self.taken = 0
        """Places reserved."""
        self._threads = [
            threading.Thread(target=self._run, name=f"cutline-{number}", daemon=True)
            for number in range(limits.threads)
        ]
        for thread in self._threads:
            thread.start()

    @contextmanager
    def places(self, count: int) -> Iterator[None]:
        """Reserve places in the queue while the block runs.

        Raises:
            QueueFullError: not that many are left.
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
    def incoming(self) -> Iterator[None]:
        """Announce that items are about to be submitted while the block runs."""
        with self._changed:
            self._incoming += 1
        try:
            yield
        finally:
            with self._changed:
                self._incoming -= 1
                self._changed.notify()

    async def submit(self, group: Group, item: Any) -> Any:
        """Return the item's result; a cancelled caller leaves the queue."""
        waiting = _Waiting(group, item, self._loop.create_future())
        with self._changed:
            self._queued.append(waiting)
            self._changed.notify()
        return await waiting.answer

    def close(self) -> None:
        """End the threads after their current work."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        for thread in self._threads:
            thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while (task := self._next()) is None:
                    if self._closed and not self._encoded:
                        return
                    self._changed.wait(self._limits.arrival_grace_s if self._encoded else None)
            task()

    def _next(self) -> Callable[[], None] | None:
        """The next task of a free thread; None to wait until something changes."""
        for each, line in list(self._encoded.items()):
            self._encoded[each] = deque(
                waiting for waiting in line if not waiting.answer.cancelled()
            )
            if not self._encoded[each]:
                del self._encoded[each]
        while self._queued and self._queued[0].answer.cancelled():
            self._queued.popleft()
        oldest = min(self._encoded, key=lambda group: self._encoded[group][0].since_s, default=None)
        full = (g for g, line in self._encoded.items() if len(line) >= self._limits.batch_size)
        if (group := next(full, None)) is not None:
            return self._batch(group, self._share(group))
        waited_s = 0.0 if oldest is None else time.monotonic() - self._encoded[oldest][0].since_s
        if oldest is not None and self._queued and waited_s > self._limits.max_batch_wait_s:
            return self._batch(oldest, self._limits.batch_size)
        if self._queued:
            self._encoding += 1
            waiting = self._queued.popleft()
            return lambda: self._encode(waiting)
        if oldest is None or self._encoding:
            return None
        if self._incoming and waited_s < self._limits.arrival_grace_s:
            return None
        return self._batch(oldest, self._share(oldest))

    def _share(self, group: Group) -> int:
        """The size of one thread's batch: as large as possible, but no thread stays idle."""
        others_encode = bool(self._queued)
        decoders = 1 if others_encode else self._limits.threads - self._decoding
        return min(math.ceil(len(self._encoded[group]) / decoders), self._limits.batch_size)

    def _batch(self, group: Group, size: int) -> Callable[[], None]:
        line = self._encoded[group]
        batch = [line.popleft() for _ in range(min(size, len(line)))]
        if not line:
            del self._encoded[group]
        self._decoding += 1
        return lambda: self._decode(group, batch)

    def _encode(self, waiting: _Waiting) -> None:
        began_s = time.monotonic()
        failed: list[tuple[_Waiting, Any]] = []
        try:
            waiting.item = waiting.group.encode(waiting.item)
        except Exception as error:
            failed = [(waiting, error)]
        with self._changed:
            self._encoding -= 1
            if not failed:
                waiting.since_s = time.monotonic()
                self._encoded.setdefault(waiting.group, deque()).append(waiting)
            self._changed.notify_all()
        self._deliver(failed, 0, time.monotonic() - began_s)

    def _decode(self, group: Group, batch: list[_Waiting]) -> None:
        began_s = time.monotonic()
        decoded: list[tuple[_Waiting, Any]]
        try:
            decoded = list(zip(batch, group.decode([each.item for each in batch]), strict=True))
        except Exception as error:
            decoded = [(waiting, error) for waiting in batch]
        with self._changed:
            self._decoding -= 1
            self._changed.notify()
        self._deliver(decoded, len(batch), time.monotonic() - began_s)

    def _deliver(self, answers: list[tuple[_Waiting, Any]], decoded: int, seconds: float) -> None:
        def deliver() -> None:
            for waiting, answer in answers:
                if waiting.answer.cancelled():
                    continue
                if isinstance(answer, Exception):
                    waiting.answer.set_exception(answer)
                else:
                    waiting.answer.set_result(answer)
            if decoded:
                self._observe(decoded, seconds)
                each = self._encode_seconds + seconds / decoded
                self._seconds_each += 0.1 * (each - self._seconds_each)
            else:
                self._encode_seconds = seconds

        self._loop.call_soon_threadsafe(deliver)
