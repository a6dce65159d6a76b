from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from cutline.parallel import map_in_order


def test_results_come_in_order_and_items_are_taken_late() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for number in range(20):
            taken.append(number)
            yield number

    later = threading.Event()

    def work(number: int) -> int:
        if number == 0:
            later.wait(5)
        if number == 1:
            later.set()
        return number * number

    results = map_in_order(work, items(), threads=2, ahead=4)
    assert next(results) == 0
    assert len(taken) == 4
    assert list(results) == [n * n for n in range(1, 20)]


def test_the_number_taken_ahead_may_grow() -> None:
    taken: list[int] = []
    ahead = 1
    results = map_in_order(
        lambda n: n, (taken.append(n) or n for n in range(20)), threads=2, ahead=lambda: ahead
    )
    assert next(results) == 0
    assert len(taken) == 1
    ahead = 5
    assert next(results) == 1
    assert len(taken) == 6
    assert list(results) == list(range(2, 20))


def test_an_error_is_raised_in_its_place_and_nothing_more_is_begun() -> None:
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        if number == 2:
            raise ValueError("two")
        return number

    results = map_in_order(work, range(100), threads=1, ahead=3)
    assert [next(results), next(results)] == [0, 1]
    with pytest.raises(ValueError, match="two"):
        next(results)
    assert len(begun) < 10
