"""How long-running functions report their progress: one type and one callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True)
class Progress:
    """How far a step of a long run has come."""

    step: str
    """What is being done, as one word or two: "crawling", "captioning"."""

    done: int
    """Items finished, those that failed included."""

    total: int | None = None
    """All items of the step; None if that is not known yet."""

    failed: int = 0
    """How many of the finished items failed."""


OnProgress: TypeAlias = Callable[[Progress], None]
"""Called after every item, on the thread that runs the step. It should return quickly."""


def ignore(progress: Progress) -> None:
    """Do nothing: the callback of a caller who wants no progress."""


def of_step(step: str, progress: OnProgress) -> Callable[[int, int], None]:
    """A callback for counts, done and total, that reports them as progress of a step."""
    return lambda done, total: progress(Progress(step, done, total))
