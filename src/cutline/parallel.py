"""Work on a pool of threads, with results in order and bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def map_in_order(
    work: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int | None = None,
    ahead: int | Callable[[], int] = 64,
) -> Generator[R, None, None]:
    """Apply a function to items on several threads and yield the results in order.

    Items are taken at most `ahead` before their result is asked for, so that any number of them
    fits in memory. Closing the iterator cancels the items that have not begun, and waits for those
    that have.

    Args:
        work: called on the pool's threads; what it raises is raised here, in its place.
        items: taken on the calling thread.
        threads: how many calls run at once; None is four more than the machine has cores.
        ahead: how many items are taken before the first result is yielded; a function if their
            number changes on the way.
    """
    pending: deque[Future[R]] = deque()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="cutline")
    try:
        for item in items:
            pending.append(pool.submit(work, item))
            if len(pending) >= (ahead() if callable(ahead) else ahead):
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)
