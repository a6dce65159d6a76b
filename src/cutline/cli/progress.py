"""What a terminal shows during long commands: one progress bar, and captions for reading."""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

from cutline.progress import Progress
from cutline.terminal import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as RichProgress
    from rich.progress import TaskID


class ProgressBar:
    """A progress bar on a terminal; call it with a `Progress`. One bar serves all commands.

    Args:
        enabled: whether there is a bar; None asks whether standard error is a terminal.
        console: where to draw; None is standard error.
    """

    def __init__(self, enabled: bool | None = None, console: Console | None = None) -> None:
        self._enabled = sys.stderr.isatty() if enabled is None else enabled
        self._given_console = console
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None
        self._step = ""

    def __enter__(self) -> Self:
        """Prepare the bar; it appears with the first progress."""
        return self

    def __exit__(self, *_: object) -> None:
        """Remove the bar."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def __call__(self, progress: Progress) -> None:
        """Show how far a step has come."""
        if not self._enabled:
            return
        bar = self._bar = self._bar or self._started()
        if self._task is None or progress.step != self._step:
            if self._task is not None:
                bar.remove_task(self._task)
            self._step = progress.step
            self._task = bar.add_task(progress.step, total=progress.total, rate="", failed="")
        speed = bar.tasks[0].speed
        bar.update(
            self._task,
            completed=progress.done,
            total=progress.total,
            rate=f"{speed:.1f}/s" if speed else "",
            failed=f"{progress.failed} failed" if progress.failed else "",
        )

    def print(self, text: str) -> None:
        """Print a line of text of any origin to standard error, above the bar."""
        line = _encodable(printable(text))
        if self._bar is None:
            print(line, file=sys.stderr, flush=True)
        else:
            self._bar.console.print(line, soft_wrap=True, markup=False)

    def _started(self) -> RichProgress:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        bar = RichProgress(
            TextColumn("{task.description:<10}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("{task.fields[failed]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._given_console or Console(stderr=True, highlight=False),
            transient=True,
        )
        bar.start()
        return bar


class View:
    """What is shown while files are processed: a bar for a person, plain lines for a pipe.

    Args:
        total: how many files there are; None if that is not known.
        bar: show a progress bar.
        lines: show each result for reading.
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
        self._lines = lines
        self._doing = doing
        self._readable = readable or _readable
        self._done = self._failed = 0
        self._console: Console | None = None
        if bar or lines:
            from rich.console import Console

            self._console = Console(stderr=not lines, highlight=False)
        self._bar = ProgressBar(bar, self._console)

    def __enter__(self) -> Self:
        """Show the bar, if there is one."""
        self._bar(Progress(self._doing, 0, self._total))
        return self

    def __exit__(self, *error: Any) -> None:
        """Remove the bar."""
        self._bar.__exit__(*error)

    def show(self, result: Any) -> None:
        """Show the result for one file, such as a caption."""
        if result.error is not None:
            self._problem(f"{printable(result.source)}: {printable(result.error.message)}")
        elif getattr(result, "note", ""):
            self._problem(f"{printable(result.source)}: captioned, but {printable(result.note)}")
        if (result.error is None or getattr(result, "partial", False)) and self._lines:
            self._print(self._readable(result))
        self._done += 1
        self._failed += result.error is not None
        self._bar(Progress(self._doing, self._done, self._total, self._failed))

    def _problem(self, line: str) -> None:
        if self._console is None or not sys.stderr.isatty():
            print(line, file=sys.stderr, flush=True)
        else:
            from rich.text import Text

            self._print(Text(_encodable(line), style="red"))

    def _print(self, text: Any) -> None:
        assert self._console is not None
        self._console.print(text, soft_wrap=True)


def is_file(descriptor: int) -> bool:
    """Whether this descriptor leads to a file rather than to another program."""
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


def _readable(caption: Any) -> Any:
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
