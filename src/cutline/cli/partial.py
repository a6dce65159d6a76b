"""Captions that `evaluate` and `compare` keep until they are complete."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.evaluation.partial import PartialCaptions


@contextmanager
def keep_captions(output: Path) -> Iterator[PartialCaptions]:
    """Keep the captions in OUTPUT.partial.jsonl until the block ends without an error.

    A later run with the same output uses them. A line on standard error says so in both runs.

    Raises:
        DataError: the file exists and holds something else.
    """
    from cutline.evaluation.partial import PartialCaptions

    partial = PartialCaptions(output.with_name(output.name + ".partial.jsonl"))
    path = printable(str(partial.path))
    if len(partial):
        print(
            f"Found {len(partial)} captions of an unfinished run in {path}. Delete the file to "
            "start over.",
            file=sys.stderr,
        )
    try:
        yield partial
    except BaseException:
        partial.close()
        if len(partial):
            print(
                f"Kept {len(partial)} captions in {path}. Run the same command to continue.",
                file=sys.stderr,
            )
        raise
    partial.remove()
