from datetime import UTC, datetime

import pytest

from cutline.http_retry import is_temporary, retry_after

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7.0),
        (" 0.5 ", 0.5),
        ("Thu, 01 Jan 2026 12:00:30 GMT", 30.0),
        ("Thu, 01 Jan 2026 11:00:00 GMT", 0.0),
        ("-1", None),
        ("inf", None),
        ("soon", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(value: str, seconds: float | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == seconds


def test_milliseconds_come_first_and_no_header_is_none() -> None:
    assert retry_after({"retry-after-ms": "1500", "retry-after": "9"}) == 1.5
    assert retry_after({}) is None


def test_temporary_statuses() -> None:
    assert [status for status in (0, 200, 301, 403, 404, 408, 410, 425, 429, 500, 503)
            if is_temporary(status)] == [0, 408, 425, 429, 500, 503]  # fmt: skip
