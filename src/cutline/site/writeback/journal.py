"""Files replaced as a whole, and a journal from which that can be taken back.

A journal is lines of JSON. The line of a file is on the disk before the file is, so after a kill
the file's own digest tells whether the line came true.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cutline.errors import OptionError, OutputError

_HEADER = {"journal": "cutline site apply", "version": 1}


class JournalError(OutputError):
    """The journal cannot be written, so nothing that it should tell of may be done."""


class Journal:
    """A journal to read and to add to; a line that a crash cut short does not count.

    Args:
        path: the file; made with the first line, if it is not there.

    Raises:
        OptionError: it is some other file.
        JournalError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file = path.open("a+b", buffering=0)
            self._file.seek(0)
            content = self._file.read()
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}; expected a place to write") from error
        whole = content[: content.rfind(b"\n") + 1]
        try:
            self.lines: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            self.lines = [{}]
        if (self.lines[:1] or [_HEADER]) != [_HEADER] or (content and not whole):
            self._file.close()
            raise OptionError(
                f"got {path}, which is no journal of cutline site apply; name another"
            )
        self._whole_bytes = len(whole)
        self._file.truncate(self._whole_bytes)

    def __enter__(self) -> Self:
        """Nothing: it is open."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close it."""
        self._file.close()

    def add(self, line: dict[str, Any]) -> None:
        """Add a line and bring it to the disk.

        Raises:
            JournalError: the disk is full or gone; the journal then ends with the last whole line.
        """
        added = [line] if self.lines else [_HEADER, line]
        content = "".join(json.dumps(each) + "\n" for each in added).encode()
        try:
            if self._file.write(content) != len(content):
                raise OSError(None, "the disk took a part of a line only")
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._whole_bytes)
            raise JournalError(f"{self.path}: {error.strerror}; make room") from error
        self.lines += added
        self._whole_bytes += len(content)


def standing(journal: Path, path: str) -> list[tuple[int, str]]:
    """What a journal's entries put into a file, as far as it still stands there.

    Args:
        journal: as `Journal` keeps it.
        path: the file's, as the entries have it.

    Returns:
        The line, from 1, and the alt of each, in the file's order; none if it cannot be read.
    """
    with Journal(journal) as lines:
        undone = {line["undone"] for line in lines.lines if "undone" in line}
        entries = [
            line
            for number, line in enumerate(lines.lines)
            if line.get("path") == path and "edits" in line and number not in undone
        ]
    found: dict[int, str] = {}
    for entry in entries:
        try:
            content = Path(entry["file"]).read_bytes()
        except OSError:
            return []
        behind = 0
        for edit in entry["edits"]:
            written = edit["is"].encode("utf-8", "surrogateescape")
            at = content.find(written, behind)
            if at >= 0:
                behind = at + len(written)
                found[at] = edit["alt"]
    return [(content.count(b"\n", 0, at) + 1, alt) for at, alt in sorted(found.items())]


@contextmanager
def replacing(file: Path, content: bytes) -> Iterator[Callable[[], object]]:
    """A file's next content, on the disk under a temporary name beside it.

    Args:
        file: what is to be replaced; no symbolic link.
        content: what it is to hold.

    Yields:
        What puts the new file in place at once, with the mode, the owner and the extended
        attributes of the old one. Without a call to it, all is as it was.

    Raises:
        OutputError: the file's owner cannot be kept.
        OSError: the folder or the disk refuses.
    """
    old = file.stat()
    descriptor, name = tempfile.mkstemp(prefix=".cutline-", suffix=".tmp", dir=file.parent)
    temporary = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as handle:
            handle.write(content)
            handle.flush()
            try:
                os.fchown(descriptor, old.st_uid, old.st_gid)
            except PermissionError as error:
                raise OutputError("it belongs to somebody else; run this as its owner") from error
            os.fchmod(descriptor, old.st_mode & 0o7777)
            with suppress(OSError, AttributeError):  # not every system has or keeps them
                for attribute in os.listxattr(file):
                    os.setxattr(descriptor, attribute, os.getxattr(file, attribute))
            os.fsync(descriptor)

        yield partial(temporary.replace, file)
    finally:
        temporary.unlink(missing_ok=True)
