"""Writers of captions: rows of text, JSON or CSV, files that can be resumed, sidecars."""

from __future__ import annotations

import csv
import errno
import io
import json
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Protocol

from cutline.atomic import AppendFile, refuse_existing, replacing, write_whole
from cutline.errors import OutputError
from cutline.jsonl import finite
from cutline.options import is_address
from cutline.tables import escape_formula, unescape_formula
from cutline.terminal import printable

if TYPE_CHECKING:
    from cutline.caption import Caption

SYNC_EVERY_S = 10.0
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@dataclass
class Answered:
    """What an output file already holds."""

    sources: Counter[str] = field(default_factory=Counter)
    """How many captions each source has."""
    failed: int = 0
    """Rows whose status is `error`."""
    model: str | None = None
    """The model named by the rows with a caption; None if there is none yet."""
    whole_bytes: int = 0
    """Where the last complete row ends; anything after it is truncated."""


class Rows(Protocol):
    """A way to write captions as records of bytes."""

    @property
    def header(self) -> bytes:
        """What precedes the first row; may be empty."""

    def encode(self, caption: Caption) -> bytes:
        """One whole record, its newline included; empty if this caption gets no row."""


class ResumableRows(Rows, Protocol):
    """Rows that can be read back, failures included."""

    @property
    def opening(self) -> bytes:
        """The bytes that every file of this format begins with."""

    def records(self, file: BinaryIO) -> Iterator[bytes]:
        """The file's records, the header too; one that was cut short has no newline at its end."""

    def decode(self, record: bytes) -> dict[str, str]:
        """`source`, `status` and `model` of a whole record.

        Raises:
            ValueError, LookupError, TypeError: this is no such record.
        """


@dataclass(frozen=True)
class TextRows:
    """`path<TAB>caption`, then a field for each alternative and label; failures get no row."""

    header = b""

    def encode(self, caption: Caption) -> bytes:
        """One line, or nothing for an image that failed."""
        if caption.error is not None:
            return b""
        cells = [caption.source, caption.text]
        cells += [other.text for other in caption.alternatives]
        cells += [f"{label.name} {label.probability:.2f}" for label in caption.labels]
        return ("\t".join(map(printable, cells)) + "\n").encode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class JsonRows:
    """One JSON object a line."""

    header = b""
    opening = b'{"source": "'

    def encode(self, caption: Caption) -> bytes:
        """One line in UTF-8; a name that is not valid Unicode is written with escapes."""
        row = caption.to_dict()
        try:
            return (json.dumps(row, ensure_ascii=False) + "\n").encode()
        except UnicodeEncodeError:
            return (json.dumps(row) + "\n").encode()

    def records(self, file: BinaryIO) -> Iterator[bytes]:
        """The file's lines."""
        yield from file

    def decode(self, record: bytes) -> dict[str, str]:
        """The object on the line, cut to what resuming needs."""
        row = json.loads(record)
        return {name: row[name] for name in ("source", "status", "model")}


@dataclass(frozen=True)
class CsvRows:
    """Comma-separated values under one header; lists become numbered columns.

    A text that a spreadsheet would run as a formula begins with an apostrophe.
    """

    n_best: int = 1
    labels: int = 0

    @property
    def columns(self) -> list[str]:
        """The header's names; they depend on how many captions and labels a row has room for."""
        names = ["source", "status", "caption", "score", "model", "error_type", "error_message"]
        for rank in range(2, self.n_best + 1):
            names += [f"caption_{rank}", f"score_{rank}"]
        for rank in range(1, self.labels + 1):
            names += [f"label_{rank}", f"probability_{rank}"]
        return names

    @property
    def header(self) -> bytes:
        """The column names."""
        return self._line(self.columns)

    @property
    def opening(self) -> bytes:
        """The header."""
        return self.header

    def encode(self, caption: Caption) -> bytes:
        """One record, every string quoted: a newline in a name stays within its quotes."""
        error = caption.error
        cells: list[str | float] = [caption.source]
        if error is None:
            cells += ["ok", caption.text, _number(caption.score), caption.model, "", ""]
        else:
            cells += ["error", "", "", caption.model, type(error).__name__, error.message]
        for other in caption.alternatives:
            cells += [other.text, _number(other.score)]
        cells += [""] * (5 + 2 * self.n_best - len(cells))
        for label in caption.labels:
            cells += [label.name, _number(label.probability)]
        cells += [""] * (len(self.columns) - len(cells))
        return self._line(cells)

    def records(self, file: BinaryIO) -> Iterator[bytes]:
        """Lines, joined while a quote is open."""
        lines: list[bytes] = []
        within_quotes = False
        for line in file:
            lines.append(line)
            within_quotes ^= line.count(b'"') % 2 == 1
            if not within_quotes:
                yield b"".join(lines)
                lines = []
        if lines:
            yield b"".join(lines).rstrip(b"\n")

    def decode(self, record: bytes) -> dict[str, str]:
        """The record by column name, cut to what resuming needs."""
        (cells,) = csv.reader(io.StringIO(record.decode("utf-8", "surrogateescape"), newline=""))
        row = dict(zip(self.columns, cells, strict=True))
        return {name: unescape_formula(row[name]) for name in ("source", "status", "model")}

    def _line(self, cells: list[Any]) -> bytes:
        cells = [escape_formula(cell) if isinstance(cell, str) else cell for cell in cells]
        text = io.StringIO()
        csv.writer(text, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").writerow(cells)
        return text.getvalue().encode("utf-8", "surrogateescape")


def _number(value: float) -> float | str:
    """A number with four decimals; an empty cell for what is no finite number."""
    rounded = finite(value)
    return "" if rounded is None else rounded


def read_answered(path: Path, rows: ResumableRows) -> Answered:
    """What a file begun earlier already holds; an absent or empty file holds nothing.

    A last record without its newline was cut short by a crash and does not count.

    Raises:
        OutputError: the file cannot be read, or holds something else.
    """
    answered = Answered()
    if not path.is_file():
        return answered
    try:
        with path.open("rb") as file:
            if not rows.opening.startswith(file.read(len(rows.opening))):
                raise ValueError("another opening")
            file.seek(0)
            for record in rows.records(file):
                if not record.endswith(b"\n"):
                    break
                if record != rows.header or answered.whole_bytes:
                    row = rows.decode(record)
                    if row["status"] == "error":
                        answered.failed += 1
                    else:
                        answered.sources[row["source"]] += 1
                        answered.model = row["model"]
                answered.whole_bytes += len(record)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; expected a file to continue") from error
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise OutputError(
            f"got {path}, which these options did not write; expected the --format, --n-best and "
            "--labels it was begun with, or the name of another file"
        ) from error
    return answered


def drop_failed(path: Path, rows: ResumableRows) -> int:
    """Rewrite a file that `read_answered` could read without its failures: whole or not at all.

    Returns:
        How many bytes it has now; a last record that was cut short is gone too.

    Raises:
        OutputError: the file cannot be replaced; it is then as it was.
    """
    try:
        with replacing(path) as new, path.open("rb") as old:
            for record in rows.records(old):
                if not record.endswith(b"\n"):
                    break
                header = record == rows.header and not new.tell()
                if header or rows.decode(record)["status"] != "error":
                    new.write(record)
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; expected a file to continue") from error
    return path.stat().st_size


class ResultFile:
    """A file of rows that is complete after every row, whenever the process ends.

    Args:
        path: the file; refused if it has content, unless `force` or `keep_bytes` is given.
        header: written first if the file is empty.
        resumable: whether --resume could continue it.
        force: replace an existing file.
        keep_bytes: continue an existing file after this many bytes.

    Raises:
        OptionError: the file exists.
        OutputError: it cannot be opened.
    """

    def __init__(
        self,
        path: Path,
        header: bytes,
        *,
        resumable: bool = True,
        force: bool = False,
        keep_bytes: int | None = None,
    ) -> None:
        self.path = path
        self._resumable = resumable
        if not force and keep_bytes is None:
            refuse_existing(path, resumable=resumable)
        try:
            self._file = AppendFile(path, keep_bytes=keep_bytes or 0, sync_every_s=SYNC_EVERY_S)
        except OSError as error:
            raise OutputError(f"{path}: {error.strerror}; expected a place to write") from error
        if self._file.is_empty:
            try:
                self.write(header)
            except OutputError:
                with suppress(OSError):
                    self._file.close()
                raise

    def write(self, row: bytes) -> None:
        """Append one whole row.

        Raises:
            OutputError: the disk is full or gone; the file then ends with the last whole row.
            BrokenPipeError: the path is a pipe and its reader has left.
        """
        try:
            self._file.write(row)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise self._refusal(error) from error

    def close(self) -> None:
        """Bring the rows to the disk and close the file.

        Raises:
            OutputError: the disk is full or gone.
        """
        try:
            self._file.close()
        except OSError as error:
            raise self._refusal(error) from error

    def _refusal(self, error: OSError) -> OutputError:
        again = ", then run the same command with --resume" if self._resumable else ""
        return OutputError(
            f"{self.path}: {error.strerror}; earlier rows are complete: make room{again}"
        )


class StreamWriter:
    """Rows for the reader of a stream, such as standard output.

    Args:
        stream: a binary stream; on a terminal, control characters are written as escapes.
        header: written before the first row.
    """

    def __init__(self, stream: BinaryIO, header: bytes) -> None:
        self._stream = stream
        self._terminal = stream.isatty()
        self._header = header

    def write(self, row: bytes) -> None:
        """Write one whole row at once.

        Raises:
            OutputError: the disk behind it is full or gone.
            BrokenPipeError: the reader has left.
        """
        if self._terminal:
            text = printable(row.decode("utf-8", "surrogateescape"), keep="\t\n\r")
            row = text.encode("utf-8", "surrogateescape")
        try:
            self._stream.write(self._header + row)
            self._header = b""
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"standard output: {error.strerror}") from error

    def close(self) -> None:
        """Do nothing: the stream stays open."""


class Sidecars:
    """A `.txt` file of the same name next to each image, one caption per line, best first.

    Args:
        force: replace sidecars that existed before.
    """

    def __init__(self, *, force: bool = False) -> None:
        self._force = force
        self._written: set[Path] = set()

    @staticmethod
    def path(picture: str | Path) -> Path:
        """The path of an image's sidecar."""
        return Path(picture).parent / f"{Path(picture).stem}.txt"

    @classmethod
    def stands_beside(cls, picture: Path) -> bool:
        """Whether the image has a sidecar already."""
        try:
            return cls.path(picture) != picture and cls.path(picture).exists()
        except OSError:
            return False

    def write(self, caption: Caption) -> None:
        """Write one caption to its image's sidecar, under a temporary name first.

        Raises:
            OutputError: the folder refuses it, or it holds another text; `errno` is that of
                the system's refusal.
        """
        if is_address(caption.source):
            raise OutputError("an image at an address gets no sidecar; expected a local file")
        path = self.path(caption.source)
        texts = [caption.text, *(other.text for other in caption.alternatives)]
        content = "\n".join(texts) + "\n"
        replaceable = self._force and path not in self._written and path != Path(caption.source)
        if not replaceable and (there := _content(path)) is not None:
            if there == content.encode():
                return
            raise OutputError(f"{path} holds another text; it was left as it is")
        write_whole(path, content)
        self._written.add(path)


def _content(path: Path) -> bytes | None:
    """A file's content; None if there is no such file."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OutputError(f"{path}: {error.strerror}; expected a place to write") from error


def disk_full(error: OSError) -> bool:
    """Whether every further write must fail as well."""
    return error.errno in _NO_SPACE
