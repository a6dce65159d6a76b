"""What commands over many files share: listing, resuming, writing rows, progress, exit code."""

from __future__ import annotations

import csv
import io
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Any, BinaryIO

from cutline.atomic import refuse_existing
from cutline.errors import OptionError
from cutline.tables import escape_formula, unescape_formula
from cutline.writers import (
    Answered,
    ResultFile,
    StreamWriter,
    drop_failed,
    read_answered,
)


@dataclass(frozen=True)
class TextLines:
    """Lines of text for each result; none for one without content."""

    lines: Callable[[Any], list[str]]
    header = b""

    def encode(self, result: Any) -> bytes:
        """The lines of one result."""
        from cutline.terminal import printable

        cells = (line.split("\t") for line in self.lines(result))
        text = "".join("\t".join(map(printable, row)) + "\n" for row in cells)
        return text.encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class JsonLines:
    """One JSON object a line; can be resumed."""

    header = b""
    opening = b'{"source": "'

    def encode(self, result: Any) -> bytes:
        """One line in UTF-8."""
        return _json(result.to_dict(), None)

    def records(self, file: BinaryIO) -> Iterator[bytes]:
        """The file's lines."""
        yield from file

    def decode(self, record: bytes) -> dict[str, str]:
        """The fields that resuming needs."""
        row = json.loads(record)
        return {name: row[name] for name in ("source", "status", "model")}


@dataclass
class JsonDocument:
    """One JSON object for one input, an array for several."""

    several: bool
    header: bytes = b""
    _written: int = 0

    def encode(self, result: Any) -> bytes:
        """One element."""
        before = (b",\n" if self._written else b"[\n") if self.several else b""
        self._written += 1
        return before + _json(result.to_dict(), None if self.several else 1).removesuffix(
            b"\n" if self.several else b""
        )

    @property
    def footer(self) -> bytes:
        """The end of the array."""
        if not self.several:
            return b""
        return b"\n]\n" if self._written else b"[]\n"


@dataclass(frozen=True)
class Document:
    """A single result as a document of its own.

    Attributes:
        text: formats the result.
    """

    text: Callable[[Any], str]
    header = b""

    def encode(self, result: Any) -> bytes:
        """The document; nothing for a result that failed and has no content."""
        empty = result.error is not None and not result.partial
        return b"" if empty else self.text(result).encode("utf-8", "replace")


@dataclass(frozen=True)
class CsvGroups:
    """Several CSV rows for each result, numbered by two columns; can be resumed.

    Attributes:
        columns: the header; `source`, `status` and `model` are among them.
        rows: the cells of one result.
        number: the column that counts the rows of one result from 1.
        count: the column with how many there are; 0 marks a result with a single row.
    """

    columns: tuple[str, ...]
    rows: Callable[[Any], list[list[Any]]]
    number: str
    count: str

    @property
    def header(self) -> bytes:
        """The column names."""
        return _csv([list(self.columns)])

    @property
    def opening(self) -> bytes:
        """The header."""
        return self.header

    def encode(self, result: Any) -> bytes:
        """All rows of one result."""
        return _csv(self.rows(result))

    def records(self, file: BinaryIO) -> Iterator[bytes]:
        """The header, then all rows of one result together; an incomplete group has no newline."""
        lines: list[bytes] = []
        quoted = False
        start = 0
        for line in file:
            lines.append(line)
            quoted ^= line.count(b'"') % 2 == 1
            if quoted:
                continue
            row = _parsed(b"".join(lines[start:]))
            start = len(lines)
            cells = dict(zip(self.columns, row, strict=False))
            if (
                cells.get(self.count) in (None, self.count)
                or cells[self.number] == cells[self.count]
            ):
                yield b"".join(lines)
                lines, start = [], 0
        if lines:
            yield b"".join(lines).rstrip(b"\n")

    def decode(self, record: bytes) -> dict[str, str]:
        """The fields of the group's first row that resuming needs."""
        cells = dict(zip(self.columns, _parsed(record), strict=True))
        return {name: unescape_formula(cells[name]) for name in ("source", "status", "model")}


class Format(StrEnum):
    """How results are written."""

    TEXT = "text"
    JSON = "json"
    JSONL = "jsonl"
    CSV = "csv"


def format_of(output: Path | None, known: Iterable[str]) -> str:
    """The format that an output's ending names, if it is among those known; else text."""
    ending = output.suffix.lower().lstrip(".") if output else ""
    return ending if ending in known else "text"


@dataclass
class Batch:
    """A run over many files with one row of output, or several, for each.

    Attributes:
        sources: lists the inputs again at each call.
        output: where to write; None is standard output.
        rows: the format.
        resume: whether to continue an output.
        force: whether to replace an output.
        quiet: whether to print no progress.
        what: the plural noun for messages, such as "pictures".
    """

    sources: Callable[[], Iterator[Path]]
    output: Path | None
    rows: Any
    resume: bool = False
    force: bool = False
    quiet: bool = False
    what: str = "files"
    answered: Answered = field(default_factory=Answered)

    def __post_init__(self) -> None:
        """Read what the output holds, or check that it may be written.

        Raises:
            OptionError: the options do not fit, or the output exists.
            OutputError: the output cannot be read.
        """
        resumable = hasattr(self.rows, "decode")
        if self.resume:
            if self.force or self.output is None or not resumable:
                raise OptionError("got --resume; expected a jsonl or csv --output, and no --force")
            self.answered = read_answered(self.output, self.rows)
        elif self.output is not None and not self.force:
            refuse_existing(self.output, resumable=resumable)

    def waiting(self) -> Iterator[Path]:
        """The inputs that the output lacks."""
        rest = Counter(self.answered.sources)
        for source in self.sources():
            if rest[str(source)]:
                rest[str(source)] -= 1
            else:
                yield source

    def first(self, hint: str) -> Iterator[Path] | None:
        """The waiting inputs; None if there is nothing left to do.

        Args:
            hint: ends the error message.

        Raises:
            OptionError: there is no input at all.
        """
        if next(self.sources(), None) is None:
            raise OptionError(f"got no {self.what}; expected at least one{hint}")
        waiting = self.waiting()
        head = next(waiting, None)
        return None if head is None else chain([head], waiting)

    def check_model(self, name: str) -> None:
        """Refuse to continue the output of another model.

        Raises:
            OptionError: the model differs.
        """
        if self.answered.model not in (None, "", name):
            raise OptionError(
                f"got model {name} to continue {self.output}, begun with {self.answered.model}; "
                "expected the same one"
            )

    def deliver(self, results: Iterator[Any], *, doing: str, readable: Callable[[Any], Any]) -> int:
        """Write results as they come and return the exit code.

        Args:
            results: each with `source`, `error` and what the rows need.
            doing: the progress bar's label.
            readable: formats a result for a terminal.
        """
        from cutline.caption_files import Summary, deliver
        from cutline.cli.interrupts import until_stopped
        from cutline.cli.progress import View, is_file

        lines = isinstance(self.rows, TextLines) and self.output is None and sys.stdout.isatty()
        sink: ResultFile | StreamWriter | None = None
        resumable = hasattr(self.rows, "decode")
        if self.output is not None:
            kept = self.answered.whole_bytes if self.resume else None
            if self.answered.failed:
                kept = drop_failed(self.output, self.rows)
            sink = ResultFile(
                self.output,
                self.rows.header,
                resumable=resumable,
                force=self.force,
                keep_bytes=kept,
            )
        elif not lines:
            sink = StreamWriter(sys.stdout.buffer, self.rows.header)
        terminal = not self.quiet and sys.stderr.isatty()
        bar = terminal and (lines or self.output is not None or is_file(1))
        total = sum(1 for _ in self.waiting()) if bar else None
        view = View(total=total, bar=bar, lines=lines, doing=doing, readable=readable)
        summary = Summary()

        with until_stopped() as interrupts, view:
            deliver(results, self.rows, sink, None, summary, view.show, interrupts.held)
        stopped = interrupts.exit_code
        if stopped in (130, 143):
            words = [word for word in sys.argv[1:] if word not in ("--force", "--resume")]
            again = " To go on: " + shlex.join(["cutline", *words, "--resume"])
            goes_on = again if resumable and self.output is not None else ""
            print(f"Stopped; done: {summary.done}.{goes_on}", file=sys.stderr)
        return stopped or (1 if summary.failed else 0)


def _json(row: dict[str, Any], indent: int | None) -> bytes:
    try:
        return (json.dumps(row, ensure_ascii=False, indent=indent) + "\n").encode()
    except UnicodeEncodeError:
        return (json.dumps(row, indent=indent) + "\n").encode()


def _csv(rows: list[list[Any]]) -> bytes:
    text = io.StringIO()
    safe = (
        [escape_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerows(safe)
    return text.getvalue().encode("utf-8", "surrogateescape")


def _parsed(record: bytes) -> list[str]:
    text = io.StringIO(record.decode("utf-8", "surrogateescape"), newline="")
    return next(csv.reader(text), [])
