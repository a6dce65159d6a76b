"""Rate limits for each host: concurrent requests and the delay between them."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cutline.fetch.ssrf import Clock, Refusal


@dataclass
class _Place:
    busy: int = 0
    waiting: int = 0
    next_s: float = 0.0


class HostLimiter:
    """Schedules requests to each host; idle hosts are dropped.

    Args:
        concurrency: requests to one host at a time.
        delay_s: between the starts of two requests.
        counted: whether waiting counts against the timeout of an attempt.
        closing: set when all waiting calls must give up.
    """

    def __init__(
        self, concurrency: int, delay_s: float, counted: bool, closing: threading.Event
    ) -> None:
        self._concurrency = concurrency
        self._delay_s = delay_s
        self._counted = counted
        self._closing = closing
        self._places: dict[str, _Place] = {}
        self._changed = threading.Condition()

    @contextmanager
    def turn(self, host: str, clock: Clock) -> Iterator[None]:
        """Wait until a request to the host may start, and hold its place."""
        began_s = time.monotonic()
        with self._changed:
            self._forget()
            place = self._places.setdefault(host, _Place())
            place.waiting += 1
            try:
                while (wait_s := self._wait_s(place)) > 0:
                    left_s = clock.left_s() if self._counted else wait_s
                    self._changed.wait(min(wait_s, left_s))
                    if self._closing.is_set():
                        raise Refusal("closed", "fetching was stopped")
            finally:
                place.waiting -= 1
            place.busy += 1
            place.next_s = time.monotonic() + self._delay_s
        if not self._counted:
            clock.ends_s += time.monotonic() - began_s
        try:
            yield
        finally:
            with self._changed:
                place.busy -= 1
                self._changed.notify_all()

    def pause(self, url: str, seconds: float) -> None:
        """Pause requests to a host, as it asked for with Retry-After."""
        host = re.sub(r"^https?://(.*?)(:\d+)?(/.*)?$", r"\1", url).strip("[]")
        with self._changed:
            if host in self._places:
                self._places[host].next_s = time.monotonic() + seconds

    def wake(self) -> None:
        """Wake all waiting calls."""
        with self._changed:
            self._changed.notify_all()

    def _wait_s(self, place: _Place) -> float:
        if place.busy >= self._concurrency:
            return 60.0  # whoever leaves wakes us
        return place.next_s - time.monotonic()

    def _forget(self) -> None:
        now_s = time.monotonic()
        for host in [
            host
            for host, place in self._places.items()
            if not place.busy and not place.waiting and place.next_s <= now_s
        ]:
            del self._places[host]
