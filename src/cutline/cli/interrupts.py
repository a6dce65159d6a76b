"""Captions delivered one by one, in order, until they end or someone stops them."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, Self

from cutline.cli.writers import disk_full
from cutline.errors import OutputError

if TYPE_CHECKING:
    from cutline.caption import Caption
    from cutline.cli.progress import View
    from cutline.cli.writers import ResultFile, Sidecars, StandardOutput

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
    """

    def __init__(self) -> None:
        self._held = False
        self._pending: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        """Take the signals over."""
        for signum in (signal.SIGINT, signal.SIGTERM):
            self._before[signum] = signal.signal(signum, self._stop)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
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


@dataclass
class Outcome:
    """How a delivery went."""

    done: int = 0
    """Captions delivered, those that failed included."""
    failed: int = 0
    """Pictures without a caption, or whose sidecar could not be written."""
    elapsed_s: float = 0.0
    stopped: int = 0
    """0 if all were delivered, else the exit code that says why not."""


def deliver(
    captions: Iterator[Any],
    rows: Any,
    sink: ResultFile | StandardOutput | None,
    sidecars: Sidecars | None,
    view: View,
) -> Outcome:
    """Write each caption as it comes: sidecar, row, then what a person sees.

    A signal never falls between a picture's sidecar and its row.

    Raises:
        OutputError: the disk is full or gone.
    """
    outcome = Outcome()
    began_s = time.monotonic()
    try:
        with Interrupts() as interrupts, view:
            for caption in captions:
                with interrupts.held():
                    if sidecars is not None and caption.error is None:
                        caption = _with_sidecar(caption, sidecars)
                    if sink is not None:
                        sink.write(rows.encode(caption))
                    view.show(caption)
                    outcome.done += 1
                    outcome.failed += caption.error is not None
    except Interrupted as interrupted:
        outcome.stopped = interrupted.exit_code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        outcome.stopped = BROKEN_PIPE
    finally:
        if sink is not None:
            if footer := getattr(rows, "footer", b""):
                sink.write(footer)
            sink.close()
        outcome.elapsed_s = time.monotonic() - began_s
    return outcome


def _with_sidecar(caption: Caption, sidecars: Sidecars) -> Caption:
    try:
        sidecars.write(caption)
    except OutputError as error:
        if disk_full(error):
            raise
        return replace(caption, error=error)
    return caption
