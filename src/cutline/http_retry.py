"""Which HTTP responses are temporary, and how long a server asks clients to wait."""

from __future__ import annotations

import math
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

BUSY = frozenset({408, 425, 429, 503, 529})
"""Statuses by which a server asks to come back later."""

GATEWAY = frozenset({502, 504})
"""Statuses of a proxy whose server gave no answer; the same request may succeed in a moment."""


def is_temporary(status: int) -> bool:
    """Whether a later request may succeed: no response (0), a busy server or its failure (5xx)."""
    return status == 0 or status in BUSY or status >= 500


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that a server asks to wait; None if its headers do not say.

    Args:
        headers: `retry-after-ms`, or `retry-after` in seconds or as a date (RFC 9110, 10.2.3); a
            date that has passed is 0.
        now: the time; None takes the clock's.
    """
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        try:
            seconds = float(headers.get(name, "").strip()) * unit_s
        except ValueError:
            continue
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    value = headers.get("retry-after", "").strip()
    if not value or value.replace(".", "").lstrip("-").isdigit():
        return None
    try:
        then = parsedate_to_datetime(value)
        then = then if then.tzinfo else then.replace(tzinfo=UTC)
        return max(0.0, (then - (now or datetime.now(UTC))).total_seconds())
    except (TypeError, ValueError, OverflowError):
        return None
