from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from cutline.service.batching import Batcher, BatchLimits, QueueFullError
from cutline.service.result_cache import ResultCache


@dataclass(eq=False)
class Doubler:
    """Looks by adding nothing, tells by doubling; `gate` holds every look back until it is set."""

    look_s: float = 0.0
    told: list[list[Any]] = field(default_factory=list)
    seen: list[Any] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    threads: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.gate.set()

    def encode(self, item: Any) -> Any:
        assert self.gate.wait(10)
        self.seen.append(item)
        self.threads.add(threading.current_thread().name)
        time.sleep(self.look_s)
        if item == "unreadable":
            raise ValueError("unreadable")
        return item

    def decode(self, seen: Sequence[Any]) -> list[Any]:
        self.told.append(list(seen))
        self.threads.add(threading.current_thread().name)
        if "poison" in seen:
            raise RuntimeError("poison")
        return [item * 2 for item in seen]


def run(
    test: Callable[[Batcher], Awaitable[None]], observe: Any = lambda *_: None, **limits: Any
) -> None:
    async def main() -> None:
        batcher = Batcher(
            BatchLimits(**{"threads": 1, "max_batch_wait_s": 10.0, **limits}), observe
        )
        try:
            await asyncio.wait_for(test(batcher), 10)
        finally:
            await asyncio.to_thread(batcher.close)

    asyncio.run(main())


def test_a_lone_item_waits_for_nothing() -> None:
    group = Doubler()

    async def test(batcher: Batcher) -> None:
        began_s = time.monotonic()
        assert await batcher.submit(group, 4) == 8
        assert time.monotonic() - began_s < 5  # the window is 10 s

    run(test)
    assert group.told == [[4]]


def test_items_of_many_clients_are_told_together_and_each_gets_its_own_answer() -> None:
    group = Doubler(look_s=0.002)
    sizes: list[int] = []

    async def test(batcher: Batcher) -> None:
        answers = await asyncio.gather(*(batcher.submit(group, number) for number in range(40)))
        assert answers == [2 * number for number in range(40)]

    run(test, lambda size, seconds: sizes.append(size), threads=2, batch_size=8)
    assert sorted(item for batch in group.told for item in batch) == list(range(40))
    assert max(sizes) == 8
    assert len(sizes) <= 10
    assert len(group.threads) == 2
    assert all(name.startswith("cutline-") for name in group.threads)


def test_a_full_batch_is_shared_where_a_thread_would_stand_by() -> None:
    both = threading.Barrier(2)

    @dataclass(eq=False)
    class Together(Doubler):
        def decode(self, seen: Sequence[Any]) -> list[Any]:
            both.wait(10)
            return super().decode(seen)

    group = Together()

    async def test(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.submit(group, number) for number in range(8)))

    run(test, threads=2, batch_size=8)
    assert [len(batch) for batch in group.told] == [4, 4]


def test_those_at_the_door_are_waited_for_but_not_long() -> None:
    group = Doubler()

    async def test(batcher: Batcher) -> None:
        with batcher.incoming():
            first = asyncio.ensure_future(batcher.submit(group, 1))
            await asyncio.sleep(0.05)
            assert not first.done()
            second = asyncio.ensure_future(batcher.submit(group, 2))
            await asyncio.sleep(0)
        assert await asyncio.gather(first, second) == [2, 4]

    run(test, arrival_grace_s=60.0)
    assert group.told == [[1, 2]]

    async def slow(batcher: Batcher) -> None:
        with batcher.incoming():
            assert await batcher.submit(group, 3) == 6

    run(slow, arrival_grace_s=0.01)


def test_groups_are_not_mixed() -> None:
    one, other = Doubler(), Doubler()

    async def test(batcher: Batcher) -> None:
        await asyncio.gather(
            *(batcher.submit(one if number % 2 else other, number) for number in range(12))
        )

    run(test)
    assert {item % 2 for batch in one.told for item in batch} == {1}
    assert {item % 2 for batch in other.told for item in batch} == {0}


def test_a_rare_group_is_told_within_the_window_though_others_keep_coming() -> None:
    rare, busy = Doubler(), Doubler(look_s=0.005)

    async def test(batcher: Batcher) -> None:
        flood = [asyncio.ensure_future(batcher.submit(busy, number)) for number in range(10)]
        alone = asyncio.ensure_future(batcher.submit(rare, 1))
        flood += [asyncio.ensure_future(batcher.submit(busy, number)) for number in range(200)]
        await alone
        assert sum(each.done() for each in flood) < 200
        for each in flood:
            each.cancel()

    run(test, max_batch_wait_s=0.05, batch_size=1000)


def test_one_that_cannot_be_seen_fails_alone_and_one_batch_that_cannot_be_told_together() -> None:
    group = Doubler()

    async def test(batcher: Batcher) -> None:
        group.gate.clear()
        items = [1, "unreadable", 2]
        waiting = [asyncio.ensure_future(batcher.submit(group, item)) for item in items]
        await asyncio.sleep(0)
        group.gate.set()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert [found[0], found[2]] == [2, 4]
        assert isinstance(found[1], ValueError)
        with pytest.raises(RuntimeError, match="poison"):
            await batcher.submit(group, "poison")
        assert await batcher.submit(group, 3) == 6

    run(test)


def test_a_group_that_tells_too_few_fails_its_batch_and_nothing_else() -> None:
    class Short(Doubler):
        def decode(self, seen: Sequence[Any]) -> list[Any]:
            return super().decode(seen)[1:]

    async def test(batcher: Batcher) -> None:
        with pytest.raises(ValueError, match="shorter"):
            await batcher.submit(Short(), 1)
        assert await batcher.submit(Doubler(), 2) == 4

    run(test)


def test_who_goes_away_leaves_the_line() -> None:
    group = Doubler()

    async def test(batcher: Batcher) -> None:
        group.gate.clear()
        first = asyncio.ensure_future(batcher.submit(group, "first"))
        gone = asyncio.ensure_future(batcher.submit(group, "gone"))
        last = asyncio.ensure_future(batcher.submit(group, "last"))
        await asyncio.sleep(0.05)
        gone.cancel()
        await asyncio.sleep(0)
        group.gate.set()
        assert await asyncio.gather(first, last) == ["firstfirst", "lastlast"]

    run(test)
    assert group.seen == ["first", "last"]


def test_who_goes_away_after_the_look_is_not_told() -> None:
    group, other = Doubler(), Doubler()

    async def test(batcher: Batcher) -> None:
        other.gate.clear()
        looked = asyncio.ensure_future(batcher.submit(group, "looked"))
        held = asyncio.ensure_future(batcher.submit(other, "held"))
        while "looked" not in group.seen:
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.05)
        looked.cancel()
        await asyncio.sleep(0)
        other.gate.set()
        assert await held == "heldheld"

    run(test)
    assert group.told == []


def test_places_are_bounded_and_given_back() -> None:
    async def test(batcher: Batcher) -> None:
        with batcher.places(3):
            assert batcher.taken == 3
            with pytest.raises(QueueFullError) as refused, batcher.places(2):
                pass
            assert refused.value.retry_s >= 1
            with batcher.places(1):
                assert batcher.taken == 4
        assert batcher.taken == 0
        with pytest.raises(ZeroDivisionError), batcher.places(4):
            1 / 0  # noqa: B018
        assert batcher.taken == 0

    run(test, places=4)


def test_closing_answers_what_has_begun() -> None:
    group = Doubler(look_s=0.05)

    async def main() -> Any:
        batcher = Batcher(BatchLimits(threads=1))
        waiting = asyncio.ensure_future(batcher.submit(group, 5))
        await asyncio.sleep(0.01)
        await asyncio.to_thread(batcher.close)
        return await asyncio.wait_for(waiting, 5)

    assert asyncio.run(main()) == 10


class Maker:
    """Makes 1, 2, 3, ... once it is let; negative numbers are raised."""

    def __init__(self, *made: int) -> None:
        self.to_make = list(made) or [1, 2, 3]
        self.begun = self.cancelled = 0
        self.gate = asyncio.Event()

    async def __call__(self) -> int:
        self.begun += 1
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        made = self.to_make.pop(0)
        if made < 0:
            raise ValueError(str(made))
        return made


def ask(
    answers: ResultCache[int], key: str, make: Maker, times: int = 1
) -> list[asyncio.Task[int]]:
    return [asyncio.ensure_future(answers.get(key, make)) for _ in range(times)]


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


def test_the_same_is_made_once_for_all_who_ask_meanwhile_and_kept() -> None:
    async def main() -> None:
        seen: list[str] = []
        answers, make = ResultCache[int](1, seen.append), Maker()
        asking = ask(answers, "a", make, 3)
        await settle()
        assert make.begun == 1
        make.gate.set()
        assert await asyncio.gather(*asking) == [1, 1, 1]
        assert await answers.get("a", make) == 1
        assert await answers.get("b", make) == 2
        assert await answers.get("a", make) == 3  # the one place went to b
        assert seen == ["miss", "shared", "shared", "hit", "miss", "miss"]

    asyncio.run(main())


def test_who_goes_away_takes_nothing_from_the_others() -> None:
    async def main() -> None:
        answers, make = ResultCache[int](9), Maker()
        first, *others = ask(answers, "a", make, 3)
        await settle()
        first.cancel()
        await settle()
        make.gate.set()
        assert await asyncio.gather(*others) == [1, 1]
        assert (make.begun, make.cancelled) == (1, 0)

    asyncio.run(main())


def test_with_the_last_who_waits_the_making_ends_and_is_begun_anew_by_the_next() -> None:
    async def main() -> None:
        answers, make = ResultCache[int](9), Maker()
        gone = ask(answers, "a", make, 2)
        await settle()
        for each in gone:
            each.cancel()
        await asyncio.wait(gone)
        [late] = ask(answers, "a", make)
        await settle()
        assert (make.begun, make.cancelled) == (2, 1)
        make.gate.set()
        assert await late == 1

    asyncio.run(main())


def test_a_failure_is_told_to_all_and_not_kept() -> None:
    async def main() -> None:
        answers, make = ResultCache[int](9), Maker(-1, 2)
        asking = ask(answers, "a", make, 2)
        await settle()
        make.gate.set()
        found = await asyncio.gather(*asking, return_exceptions=True)
        assert list(map(str, found)) == ["-1", "-1"]
        assert await answers.get("a", make) == 2

    asyncio.run(main())


def test_what_is_being_made_when_all_is_forgotten_is_not_kept() -> None:
    async def main() -> None:
        answers, make = ResultCache[int](9), Maker()
        [old] = ask(answers, "a", make)
        await settle()
        answers.clear()
        [new] = ask(answers, "a", make)
        await settle()
        make.gate.set()
        assert {await old, await new} == {1, 2}
        assert await answers.get("a", make) == new.result()

    asyncio.run(main())
