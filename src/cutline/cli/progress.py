"""What a person at the terminal sees while captions are made."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from cutline.caption import Caption, Captioner, CaptionOptions
from cutline.cli.writers import reason
from cutline.evaluation.baselines import embeddings
from cutline.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

T = TypeVar("T")


class View:
    """What is seen while pictures are captioned: a bar for a person, plain lines for a pipe.

    Args:
        total: how many pictures there are; None if that is not known.
        bar: show a progress bar.
        lines: show each caption for reading.
        doing: the bar's label.
        readable: formats one result for reading; None formats captions.
    """

    def __init__(
        self,
        *,
        total: int | None = None,
        bar: bool = False,
        lines: bool = False,
        doing: str = "captioning",
        readable: Callable[[Any], Any] | None = None,
    ) -> None:
        self._total = total
        self._bar = bar
        self._lines = lines
        self._doing = doing
        self._readable = readable or _readable
        self._console: Console | None = None
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Self:
        """Start the bar, if there is one."""
        if not (self._bar or self._lines):
            return self
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )

        self._console = Console(stderr=not self._lines, highlight=False)
        if self._bar:
            self._progress = Progress(
                TextColumn(self._doing),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn() if self._total is None else TimeRemainingColumn(),
                console=self._console,
                transient=True,
            )
            self._task = self._progress.add_task("", total=self._total, rate="")
            self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the bar away."""
        if self._progress:
            self._progress.stop()

    def show(self, caption: Any) -> None:
        """One picture is done."""
        if caption.error is not None:
            self._problem(f"{printable(caption.source)}: {printable(reason(caption.error))}")
        elif getattr(caption, "note", ""):
            self._problem(f"{printable(caption.source)}: captioned, but {printable(caption.note)}")
        if (caption.error is None or getattr(caption, "partial", False)) and self._lines:
            self._print(self._readable(caption))
        if self._progress and self._task is not None:
            self._progress.advance(self._task)
            speed = self._progress.tasks[0].speed
            self._progress.update(self._task, rate=f"{speed:.1f}/s" if speed else "")

    def _problem(self, line: str) -> None:
        if self._console is None or not sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)
        else:
            from rich.text import Text

            self._print(Text(_encodable(line), style="red"))

    def _print(self, text: Any) -> None:
        assert self._console is not None
        self._console.print(text, soft_wrap=True)


class Watched:
    """A captioner whose progress a person at the terminal can see, for evaluation.

    Args:
        captioner: who captions.
    """

    def __init__(self, captioner: Captioner) -> None:
        self.name = captioner.name
        self._captioner = captioner

    def stream(self, images: Iterable[Path]) -> Iterator[Caption]:
        """Its captions, in order."""
        pictures = list(images)
        options = CaptionOptions(labels=0)
        return _tracked("captioning", self._captioner.stream(pictures, options), len(pictures))

    def embed(self, images: Sequence[Path]) -> NDArray[np.float32]:
        """Images -> (B, D) embeddings.

        Raises:
            ImageError: one of them cannot be read.
            OptionError: this captioner has no embeddings.
        """
        found = embeddings(self._captioner, images)
        return np.stack(list(_tracked("embedding", found, len(images))))


def is_file(descriptor: int) -> bool:
    """Whether this descriptor leads to a file rather than to another program."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _readable(caption: Caption) -> Any:
    from rich.text import Text

    text = Text.assemble(
        (_encodable(printable(caption.source)), "cyan"), "  ", (caption.text, "bold")
    )
    for other in caption.alternatives:
        text.append(f"\n    {other.text}", style="dim")
    if caption.labels:
        labels = (f"{label.name} {label.probability:.0%}" for label in caption.labels)
        text.append("\n    " + ", ".join(labels), style="dim italic")
    return text


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode()


def _tracked(doing: str, items: Iterator[T], total: int) -> Iterator[T]:
    if not sys.stderr.isatty():
        return items
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return iter(track(items, doing, total, console=console, transient=True))
