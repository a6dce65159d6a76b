"""Ctrl-C and SIGTERM: one handler for all commands."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, Self

import typer

BROKEN_PIPE = 141


class Interrupted(BaseException):
    """The process was asked to stop by a signal.

    Attributes:
        exit_code: 130 after Ctrl-C, 143 after SIGTERM.
    """

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.exit_code = 128 + signum


class Interrupts:
    """Turns Ctrl-C and SIGTERM into `Interrupted`, but never within `held`.

    A second signal ends the process at once.

    Attributes:
        exit_code: what stopped the work within `until_stopped`: 130 or 143 after a signal, 141 if
            the reader of standard output is gone; 0 if nothing did.
    """

    def __init__(self) -> None:
        self.exit_code = 0
        self._held = False
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals over."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        """Give the signals back."""
        for signum, before in self._before.items():
            signal.signal(signum, before)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Finish what is within before a signal counts."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        if self._pending is not None:
            raise Interrupted(self._pending)

    def _stop(self, signum: int, frame: FrameType | None) -> None:
        for each in self._before:
            signal.signal(each, signal.SIG_DFL)
        if not self._held:
            raise Interrupted(signum)
        self._pending = signum


@contextmanager
def until_stopped() -> Iterator[Interrupts]:
    """Run what is within until it ends or something stops it; `exit_code` says what did.

    Yields:
        The handler of signals, whose `held` protects steps that belong together.
    """
    interrupts = Interrupts()
    try:
        with interrupts:
            yield interrupts
    except Interrupted as interrupted:
        interrupts.exit_code = interrupted.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        interrupts.exit_code = BROKEN_PIPE


@contextmanager
def interruptible(hint: str = "To continue, run the same command again.") -> Iterator[None]:
    """End a command that a signal stops with one line instead of a traceback.

    Args:
        hint: how to continue.
    """
    try:
        with Interrupts():
            yield
    except (Interrupted, KeyboardInterrupt) as stopped:
        print(f"Stopped; everything so far is saved. {hint}", file=sys.stderr)
        raise typer.Exit(getattr(stopped, "exit_code", 130)) from stopped
