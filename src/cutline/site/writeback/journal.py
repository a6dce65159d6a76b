"""The journal that `apply` writes and `undo` reads.

Lines of JSON: a header, an entry per page written, a line per entry undone, and a line per entry
of which the destination kept another text. The entry of a page is on the disk before the page is
written, so after a kill the page's own digest tells whether it was.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from cutline.atomic import read_regular
from cutline.errors import OptionError, OutputError
from cutline.site.destination import Edit

_HEADER = {"journal": "cutline site apply", "version": 1}
_LARGEST_BYTES = 1 << 30
_WRONG_FILE = "which is no journal of cutline site apply; name another file"


class JournalError(OutputError):
    """The journal cannot be written, so no file may be written either."""


@dataclass(frozen=True)
class JournalEntry:
    """One page that was written, or was about to be.

    Attributes:
        number: of the line, 0-based.
        path: its short name, such as a path relative to the folder that `apply` was given.
        file: its location in the destination: an absolute path, or a URL.
        before, after: the SHA-256 of its content.
        edits: ordered by part and position.
        problem: why the line cannot be used; "" if it can.
    """

    number: int
    path: str = ""
    file: str = ""
    before: str = ""
    after: str = ""
    edits: tuple[Edit, ...] = ()
    problem: str = ""


class Journal:
    """A journal to read and append to; an incomplete last line is ignored.

    Args:
        path: the file; created with the first line.

    Raises:
        OptionError: it is another kind of file.
        JournalError: it cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
        try:
            if path.exists() and not path.is_file():
                raise OptionError(f"got {path}, {_WRONG_FILE}")
            descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0), 0o666)
            self._file = os.fdopen(descriptor, "a+b", buffering=0)
            status = os.fstat(descriptor)
            content = b""
            if stat.S_ISREG(status.st_mode) and status.st_size <= _LARGEST_BYTES:
                content = read_regular(path, max_bytes=_LARGEST_BYTES)
            else:
                self._file.close()
                raise OptionError(f"got {path}, {_WRONG_FILE}")
        except OSError as error:
            raise JournalError(f"{path}: {error.strerror}; expected a place to write") from error
        whole = content[: content.rfind(b"\n") + 1]
        self.lines: list[Any] = [_parsed(line) for line in whole.splitlines()]
        if (self.lines[:1] or [_HEADER]) != [_HEADER] or (content and not whole):
            self._file.close()
            raise OptionError(f"got {path}, {_WRONG_FILE}")
        self._whole_bytes = len(whole)
        self._file.truncate(self._whole_bytes)

    def __enter__(self) -> Self:
        """Return the journal, which is open."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self._file.close()

    def entries(self) -> Iterator[JournalEntry]:
        """The entries that are not undone, oldest first; damaged lines with their problem."""
        undone = set()
        corrections: dict[int, dict[str, Any]] = {}
        for line in self.lines:
            number = line.get("undone") if isinstance(line, dict) else None
            if type(number) is int:
                undone.add(number)
            number = line.get("corrects") if isinstance(line, dict) else None
            if type(number) is int:
                corrections[number] = line
        for number, line in enumerate(self.lines[1:], 1):
            if number in undone or (isinstance(line, dict) and {"undone", "corrects"} & set(line)):
                continue
            if number in corrections and isinstance(line, dict):
                line |= {name: corrections[number].get(name) for name in ("after", "edits")}
            yield _entry(number, line)

    def add(self, line: dict[str, Any]) -> int:
        """Add a line and bring it to the disk; returns its number.

        Raises:
            JournalError: the disk is full or unavailable; the journal keeps its last complete line.
        """
        added = [line] if self.lines else [_HEADER, line]
        content = "".join(json.dumps(each) + "\n" for each in added).encode()
        try:
            if self._file.write(content) != len(content):
                raise OSError(None, "the disk took only a part of a line")
            os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(self._whole_bytes)
            raise JournalError(f"{self.path}: {error.strerror}; make room") from error
        self.lines += added
        self._whole_bytes += len(content)
        return len(self.lines) - 1

    def add_entry(self, entry: JournalEntry, when: str) -> int:
        """Add the entry of a page that is about to be written; raises as `add` does.

        Args:
            entry: its number does not count.
            when: ISO 8601 in UTC.

        Returns:
            The number of its line.
        """
        digests = {"before": entry.before, "after": entry.after}
        edits = list(map(_record, entry.edits))
        return self.add(
            {"file": entry.file, "path": entry.path, "when": when, **digests, "edits": edits}
        )

    def add_correction(self, number: int, after: str, edits: Sequence[Edit], when: str) -> None:
        """Record what an entry changed in effect, where the destination keeps another text.

        Args:
            number: of the entry's line.
            after: the SHA-256 of the page as it is now.
            edits: what was changed in effect.
            when: ISO 8601 in UTC.

        Raises:
            JournalError: as `add` does.
        """
        records = list(map(_record, edits))
        self.add({"corrects": number, "when": when, "after": after, "edits": records})

    def add_undone(self, entry: JournalEntry, when: str) -> None:
        """Record that an entry was undone; raises as `add` does."""
        self.add({"undone": entry.number, "path": entry.path, "when": when})


def remaining_alts(journal: Path, path: str, folders: Sequence[Path]) -> list[tuple[int, str]]:
    """The alts from a journal's entries that a file still contains.

    Args:
        journal: as `Journal` keeps it.
        path: of the file, as in the entries.
        folders: those that `apply` was given; a file outside of them is not read.

    Returns:
        The line, from 1, and the alt of each, in the file's order; none if it cannot be read.
    """
    with Journal(journal) as lines:
        entries = [each for each in lines.entries() if each.path == path and not each.problem]
    found: dict[int, str] = {}
    content = b""
    roots = [folder.resolve() for folder in folders]
    for entry in entries:
        try:
            file = Path(entry.file).resolve()
            if not any(map(file.is_relative_to, roots)):
                return []
            content = read_regular(file)
        except (OSError, RuntimeError):
            return []
        behind = 0
        for edit in entry.edits if not any(edit.part for edit in entry.edits) else ():
            at = content.find(edit.after, behind)
            if at >= 0:
                behind = at + len(edit.after)
                found[at] = edit.alt
    return [(content.count(b"\n", 0, at) + 1, alt) for at, alt in sorted(found.items())]


def _parsed(line: bytes) -> Any:
    """A line's JSON; None if it is damaged."""
    try:
        return json.loads(line)
    except (ValueError, RecursionError):
        return None


def _entry(number: int, line: Any) -> JournalEntry:
    try:
        texts = {name: line[name] for name in ("path", "file", "before", "after")}
        for each in texts.values():
            if not isinstance(each, str) or "\0" in each:
                raise TypeError
            os.fsencode(each)
        edits = tuple(_edit(each) for each in line["edits"])
    except (TypeError, KeyError, AttributeError, UnicodeError):
        return JournalEntry(
            number, problem=f"line {number + 1} of the journal is damaged; it was left out"
        )
    return JournalEntry(number, **texts, edits=edits)


def _record(edit: Edit) -> dict[str, Any]:
    record = {
        "use": edit.occurrence,
        "at": edit.start,
        "alt": edit.alt,
        "was": edit.before.decode("utf-8", "surrogateescape"),
        "is": edit.after.decode("utf-8", "surrogateescape"),
    }
    return record | ({"part": edit.part} if edit.part else {})


def _edit(record: Any) -> Edit:
    occurrence, start, alt = record["use"], record["at"], record["alt"]
    part = record.get("part", "")
    if (
        type(occurrence) is not int
        or type(start) is not int
        or not isinstance(alt, str)
        or not isinstance(part, str)
        or start < 0
    ):
        raise TypeError
    before, after = (record[name].encode("utf-8", "surrogateescape") for name in ("was", "is"))
    return Edit(occurrence, start, before, after, alt, part)
