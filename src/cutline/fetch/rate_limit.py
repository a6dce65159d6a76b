"""Politeness: how many requests a host gets at a time, and how far apart."""

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


class Turns:
    """Who may ask which host when; a host that nobody needs any more is forgotten.

    Args:
        concurrency: requests to one host at a time.
        delay_s: between the beginnings of two.
        counted: whether waiting is part of the time an attempt has.
        closing: set when everybody shall give up.
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
        """Wait for a turn at a host, and hold it."""
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
        """Leave a host alone for a while, because it asks for it."""
        host = re.sub(r"^https?://(.*?)(:\d+)?(/.*)?$", r"\1", url).strip("[]")
        with self._changed:
            if host in self._places:
                self._places[host].next_s = time.monotonic() + seconds

    def wake(self) -> None:
        """Let everybody who waits look again."""
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
