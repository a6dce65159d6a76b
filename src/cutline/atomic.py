"""Files that are there whole or not at all, whatever happens while they are written."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cutline.errors import OptionError, OutputError


@contextmanager
def replacing(path: Path, *, synced: bool = True) -> Iterator[BinaryIO]:
    """A file's next content, written beside it and put in its place when all went well.

    A link stays one and a file keeps its mode. What is no file, like /dev/null, is written to.

    Args:
        path: the file to be; its folder exists.
        synced: whether it must outlast a power cut; otherwise only the end of the process.

    Raises:
        OSError: the folder or the disk refuses; what was there is as it was.
    """
    if path.exists() and not path.is_file():
        with path.open("wb") as file:
            yield file
        return
    target = path.resolve()
    temporary = target.with_name(f".cutline-{secrets.token_hex(8)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            if synced:
                file.flush()
                os.fsync(file.fileno())
        if target.exists():
            shutil.copymode(target, temporary)
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, content: str | bytes, *, synced: bool = True) -> None:
    """Write a file as by `replacing`.

    Raises:
        OutputError: the folder is missing or the disk refuses.
    """
    try:
        with replacing(path, synced=synced) as file:
            file.write(content.encode() if isinstance(content, str) else content)
    except OSError as error:
        refusal = OutputError(f"{path}: {error.strerror}; expected a place to write")
        refusal.errno = error.errno
        raise refusal from error


def refuse_existing(path: Path, *, resumable: bool = False) -> None:
    """Check that writing to a path replaces nothing: it is absent, empty, or no regular file.

    Args:
        path: where something is to be written.
        resumable: whether `--resume` could continue it.

    Raises:
        OptionError: a file with content exists there.
    """
    if path.is_file() and path.stat().st_size:
        resume = "--resume to continue it, or " if resumable else ""
        raise OptionError(f"got {path}, which exists; add {resume}--force to replace it")
