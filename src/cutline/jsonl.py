"""Crash-safe JSON Lines files: incomplete records are ignored."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cutline.atomic import AppendFile
from cutline.errors import DataError


def finite(value: float) -> float | None:
    """Round to four decimals; None for what is no finite number, which JSON and CSV lack."""
    return round(value, 4) if math.isfinite(value) else None


def read_records(path: Path) -> Iterator[tuple[int, Any]]:
    """Read a file of JSON lines that a crash may have cut short.

    A last line without its newline was cut short and does not count.

    Args:
        path: the file; an absent one has no records.

    Yields:
        Each record and where its line ends, in bytes.

    Raises:
        DataError: a whole line is no JSON, or the file is not a regular one or cannot be read.
    """
    if path.exists() and not path.is_file():
        raise DataError(f"got {path}, which is no regular file; expected JSON lines")
    end = 0
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                if not line.endswith(b"\n"):
                    return
                end += len(line)
                try:
                    record = json.loads(line)
                except (ValueError, RecursionError) as error:
                    raise DataError(
                        f"{path}, line {number}: got no JSON ({error}); expected a record; "
                        "remove the line, or the file to start again"
                    ) from error
                yield end, record
    except FileNotFoundError:
        return
    except OSError as error:
        raise DataError(f"{path}: {error.strerror}; expected a file to read") from error


class RecordFile(AppendFile):
    """Appends JSON lines; a record that cannot be written whole is taken back.

    Args:
        path: the file, which is created if it is absent.
        keep_bytes: how much of it to keep, from `read_records`; None keeps all of it.
        synced: whether each record must survive a power cut, not only the end of the process.

    Raises:
        OSError: the file cannot be opened.
    """

    def __init__(self, path: Path, *, keep_bytes: int | None = None, synced: bool = False) -> None:
        super().__init__(path, keep_bytes=keep_bytes, sync_every_s=0.0 if synced else math.inf)

    def append(self, record: Any) -> None:
        """Append one record.

        Raises:
            OSError: the disk is full or gone; the file then ends with the record before.
        """
        self.write(json.dumps(record, ensure_ascii=False).encode() + b"\n")
