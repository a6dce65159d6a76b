"""CSV and TSV files as people and programs write them: any encoding, delimiter and quoting.

`read_table` sniffs how a file is written from its records, not its lines, so a cell may span
lines. It reads what the `csv` module reads and, beyond that, unescaped quotation marks within a
quoted cell, marks escaped by a backslash, and Excel's `sep=` line. A quotation mark that nothing
closes never swallows the rows below it: its record ends with its line and says so.

`escape_formula` guards cells against spreadsheets that would run them.
"""

from __future__ import annotations

import codecs
import csv
import io
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, product
from pathlib import Path
from typing import Literal, NamedTuple

from cutline.errors import DataError

DELIMITERS = ",;\t|"
_SAMPLE_RECORDS = 200
_SAMPLE_CHARS = 1 << 20
_TITLE_RECORDS = 10  # at most so many records above the header are a title
_MAX_RESCAN = 10  # characters read twice, for each in the file; then records are single lines

# Longest first, since the mark of UTF-32-LE begins with that of UTF-16-LE.
_BYTE_ORDER_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_SEP_LINE = re.compile(r"\"?sep=([^\"\r\n])\"?(?:\r\n|\r|\n|\Z)", re.IGNORECASE)
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)?")
_LINE_ENDS = re.compile(r"\r\n|\r|\n")
_LINE_END = re.compile(r"(?:\r\n|\r|\n)?")
_INVISIBLE = (  # programs remove these, then read a formula
    r"\s\x00-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff"
)
_SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20\ufe66\ufe62\ufe63\ufe6b"  # also full-width and small
_FORMULA = re.compile(rf"'*(?:[{_INVISIBLE}]*[{_SIGNS}]|[\t\r\n])")
_ESCAPED_FORMULA = re.compile(rf"'(?={_FORMULA.pattern})")
_UNCLOSED = "got a quotation mark that nothing closes; expected a pair"
_SHAPES = {
    "url": re.compile(r"(?:https?:)?//\S+\Z", re.IGNORECASE),
    "tag": re.compile(r"<\w"),
    "file": re.compile(r"[^\s\"<>|]+\.[A-Za-z]\w{1,4}(?:#\d+)?\Z"),
    "number": re.compile(r"[\d.,]*\d[\d.,]*\Z"),
}


@dataclass(frozen=True)
class Dialect:
    """How a table is written.

    Attributes:
        encoding: of the file, as Python names it, without a byte order mark.
        byte_order_mark: whether the file begins with one.
        delimiter: between cells; "" where each line is a single cell.
        quotes: whether quotation marks enclose cells; otherwise they are text.
        backslash: whether a backslash escapes a quotation mark.
        preamble: the text above the header: a `sep=` line, titles, blank lines.
        newline: the line ending of the file's first line.
    """

    encoding: str = "utf-8"
    byte_order_mark: bool = False
    delimiter: str = ","
    quotes: bool = True
    backslash: bool = False
    preamble: str = ""
    newline: str = "\n"


class Record(NamedTuple):
    """One record of a table.

    Attributes:
        cells: unquoted; empty for a blank line.
        line: the 1-based line of the file on which it begins.
        raw: the record as it is in the file, with its line ending.
        problem: what is wrong with its quotation marks; "" if nothing is.
    """

    cells: tuple[str, ...]
    line: int
    raw: str
    problem: str = ""


@dataclass(frozen=True)
class Table:
    """A table in memory; iterating over it yields every record below the preamble.

    Attributes:
        name: the file's path, for messages.
        text: all of the file, decoded; bytes that are no text are surrogate escapes.
    """

    name: str
    text: str = field(repr=False)
    dialect: Dialect

    def __iter__(self) -> Iterator[Record]:
        """Every record from the header on, blank lines included."""
        return iter(_Reader(self.text, self.dialect))

    @property
    def header(self) -> tuple[str, ...]:
        """The cells of the first record that is not blank, stripped; () for an empty file."""
        first = next((record for record in self if any(map(str.strip, record.cells))), None)
        return tuple(cell.strip() for cell in first.cells) if first else ()

    def rows(self, *, problems: Literal["raise", "repair"] = "raise") -> Iterator[dict[str, str]]:
        """Each record below the header by column name; blank records are left out.

        Cells that a record lacks are "". A column without a name, and one whose name an earlier
        column has, are left out.

        Args:
            problems: what to do about an unclosed quotation mark and about more cells than
                columns. "repair" ends a record with its line and adds surplus cells to the last
                column.

        Raises:
            DataError: such a record was found; the message gives the line.
        """
        records = (record for record in self if any(map(str.strip, record.cells)))
        names = self.header
        next(records, None)
        for record in records:
            cells = list(record.cells)
            problem = record.problem
            while len(cells) > len(names) and not cells[-1].strip():
                cells.pop()
            if len(cells) > len(names):
                problem = problem or f"got {len(cells)} cells; expected {len(names)}"
            if problem and problems == "raise":
                raise DataError(f"{self.name}, line {record.line}: {problem}")
            if surplus := cells[len(names) :]:
                joined = self.dialect.delimiter.join([cells[len(names) - 1], *surplus])
                cells[len(names) - 1 :] = [joined]
            cells += [""] * (len(names) - len(cells))
            row: dict[str, str] = {}
            for name, cell in zip(names, cells, strict=True):
                if name:
                    row.setdefault(name, cell)
            yield row


def read_table(
    path: Path,
    *,
    delimiter: str | None = None,
    quotes: bool | None = None,
    encodings: Sequence[str] = ("utf-8",),
    max_bytes: int | None = None,
) -> Table:
    """Read a CSV or TSV file, or a list with an entry on each line.

    Args:
        path: the file.
        delimiter: between cells; None sniffs it.
        quotes: whether quotation marks enclose cells; None sniffs it.
        encodings: tried in turn on a file without a byte order mark. UTF-16 without one is
            recognised too.
        max_bytes: larger files are refused.

    Raises:
        DataError: the file is missing, cannot be read, is too large or is in no such encoding.
    """
    try:
        if max_bytes is not None and path.stat().st_size > max_bytes:
            raise DataError(f"got {path}, over {max_bytes >> 20} MB; expected less: split it")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"got {path}: {error.strerror}; expected a table") from error
    return parse_table(content, str(path), delimiter=delimiter, quotes=quotes, encodings=encodings)


def parse_table(
    content: bytes,
    name: str = "the table",
    *,
    delimiter: str | None = None,
    quotes: bool | None = None,
    encodings: Sequence[str] = ("utf-8",),
) -> Table:
    """Read a table from a file's bytes; see `read_table`.

    Raises:
        DataError: the content is in none of the encodings.
    """
    text, encoding, mark = decode(content, name, encodings)
    preamble = ""
    if found := _SEP_LINE.match(text):
        preamble, delimiter = found[0], delimiter if delimiter is not None else found[1]
    end = _LINE_ENDS.search(text)
    dialect = Dialect(encoding, mark, ",", True, False, preamble, end[0] if end else "\n")
    if delimiter is None:
        dialect = replace(dialect, delimiter=_sniff_delimiter(text, dialect))
    else:
        dialect = replace(dialect, delimiter=delimiter)
    if not dialect.delimiter:
        quotes = False
    if quotes is None:
        quotes = dialect.delimiter not in "\t|" or _has_quoted_cell(text, dialect.delimiter)
    dialect = replace(dialect, quotes=quotes)
    if quotes and '\\"' in text:
        dialect = replace(dialect, backslash=_sniff_backslash(text, dialect))
    return Table(name, text, replace(dialect, preamble=_preamble(text, dialect)))


def decode(content: bytes, name: str, encodings: Sequence[str]) -> tuple[str, str, bool]:
    """Decode a text file.

    Args:
        content: the file's bytes.
        name: for the message.
        encodings: tried in turn if there is no byte order mark and no sign of UTF-16. "cp1252"
            fits any content: bytes that it does not define become surrogate escapes.

    Returns:
        The text without a byte order mark, the encoding, and whether there was a mark.

    Raises:
        DataError: none of the encodings fits.
    """
    mark, marked = next(
        ((mark, name) for mark, name in _BYTE_ORDER_MARKS if content.startswith(mark)), (b"", "")
    )
    candidates = [marked] if marked else []
    if not marked and content[:2000].count(0) > len(content[:2000]) / 4:
        candidates.append("utf-16-be" if content[:1] == b"\0" else "utf-16-le")
    body = content[len(mark) :]
    for encoding in (*candidates, *encodings):
        errors = "surrogateescape" if encoding == "cp1252" else "strict"
        try:
            text = body.decode(encoding, errors)
            if text.encode(encoding, errors) == body:
                return text, encoding, encoding == marked
        except (LookupError, UnicodeError):
            continue
    raise DataError(f"got {name}, which is not {' or '.join(encodings)} text; expected that")


def parse_record(raw: str, dialect: Dialect) -> tuple[str, ...]:
    """The cells of a text if it is exactly one record of that dialect, else ()."""
    records = list(islice(_Reader(raw, replace(dialect, preamble="")), 2))
    return records[0].cells if len(records) == 1 and not records[0].problem else ()


def format_record(cells: Sequence[str], dialect: Dialect | None = None) -> str:
    """A record without a line ending, its cells quoted where needed (RFC 4180).

    Args:
        cells: the cells.
        dialect: how the table is written; None is RFC 4180. One without quotation marks has no
            form for the delimiter and line breaks: they become spaces.
    """
    dialect = dialect or Dialect()
    delimiter = dialect.delimiter or ","
    if dialect.delimiter and not dialect.quotes:
        return delimiter.join(re.sub(rf"[{re.escape(delimiter)}\r\n]", " ", one) for one in cells)
    if dialect.backslash:
        special = re.compile(rf"[{re.escape(delimiter)}\"\r\n]")
        return delimiter.join(
            '"' + re.sub(r"([\\\"])", r"\\\1", cell) + '"' if special.search(cell) else cell
            for cell in cells
        )
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue()[:-2]


def escape_formula(text: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula.

    A formula begins with =, +, - or @, also in full width and after white space, or with a tab or
    line break (OWASP, "CSV Injection"). Apostrophes before such a beginning count as part of it,
    so that `unescape_formula` restores every text.
    """
    return f"'{text}" if _FORMULA.match(text) else text


def unescape_formula(cell: str) -> str:
    """The text that `escape_formula` made this cell of."""
    return cell[1:] if _ESCAPED_FORMULA.match(cell) else cell


class _Reader:
    """Iterates over the records of a text."""

    def __init__(self, text: str, dialect: Dialect) -> None:
        self._text, self._dialect = text, dialect
        delimiter = re.escape(dialect.delimiter)
        self._plain = re.compile(rf"[^\r\n{delimiter}]*")
        end = rf"\ *+(?:{delimiter}|[\r\n]|\Z)"
        escaped = r"|\\[\\\"]" if dialect.backslash else ""
        letters = r"[^\"\\]++|\\(?![\\\"])" if dialect.backslash else r'[^"]++'
        self._quoted = re.compile(
            rf'\ *+"((?>{letters}{escaped}|""|"(?!{end}))*+)"(?={end})\ *+', re.DOTALL
        )
        self._unescape = re.compile(r"\\([\\\"])|\"(\")" if dialect.backslash else r"()\"(\")")
        self._rescanned = 0
        self._width = 0
        self._shapes: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Record]:
        text = self._text
        at = len(self._dialect.preamble)
        line = 1 + len(_LINE_ENDS.findall(text, 0, at))
        if self._dialect.quotes:
            self._width, self._shapes = self._sample(at)
        while at < len(text):
            cells, end, problem = self._record(at)
            raw = text[at:end]
            yield Record(cells, line, raw, problem)
            line += len(_LINE_ENDS.findall(raw))
            at = end

    def _record(self, at: int) -> tuple[tuple[str, ...], int, str]:
        """The record that begins at an offset: cells, where it ends, what is wrong with it."""
        text, delimiter = self._text, self._dialect.delimiter
        found = _LINE.match(text, at)
        assert found is not None  # it matches everywhere
        line = found[0].rstrip("\r\n")
        if not line:
            return (), found.end(), ""
        if not delimiter:
            return (line,), found.end(), ""
        if not self._dialect.quotes or '"' not in line:
            return tuple(line.split(delimiter)), found.end(), ""
        odd = line.count('"') % 2 == 1
        if self._rescanned <= _MAX_RESCAN * len(text):
            cells, end, regular = self._scan(at, len(text))
            if cells and end <= found.end():
                suspect = odd and self._width and len(cells) != self._width
                return cells, end, _UNCLOSED if suspect else ""
            if cells and not self._swallows(cells, regular, found.end(), end):
                return cells, end, ""
            self._rescanned += end - at
        cells, _, _ = self._scan(at, at + len(line))
        return cells or self._repair(line), found.end(), _UNCLOSED if odd else ""

    def _repair(self, line: str) -> tuple[str, ...]:
        """The cells of a line on which a quoted cell is not closed."""
        literal = tuple(line.split(self._dialect.delimiter))
        try:
            lenient = tuple(next(csv.reader([line], delimiter=self._dialect.delimiter)))
        except csv.Error:  # a cell longer than the module allows
            return literal
        closed = line.count('"') % 2 == 0  # then the marks belong to the text
        if len(literal) == self._width and (closed or len(lenient) != self._width):
            return literal
        return lenient

    def _scan(self, at: int, stop: int) -> tuple[tuple[str, ...], int, bool]:
        """Read a record that may span lines.

        Returns:
            Its cells, none if a quoted cell is not closed; where it ends; whether all marks within
            quoted cells are escaped.
        """
        text, delimiter = self._text, self._dialect.delimiter
        cells = []
        regular = True
        while True:
            if (found := self._quoted.match(text, at, stop)) is not None:
                cells.append(self._unescape.sub(r"\1\2", found[1]))
                regular = regular and '"' not in self._unescape.sub("", found[1])
            else:
                found = self._plain.match(text, at, stop)
                assert found is not None  # it matches everywhere
                if found[0].lstrip(" ").startswith('"'):
                    return (), stop, False
                cells.append(found[0])
            at = found.end()
            if text[at : at + 1] != delimiter or at >= stop:
                break
            at += 1
        end = _LINE_END.match(text, at)
        return tuple(cells), end.end() if end else at, regular

    def _swallows(self, cells: tuple[str, ...], regular: bool, at: int, end: int) -> bool:
        """Whether one of a record's further lines, from `at` to `end`, is a record by itself."""
        width = self._width
        while width and at < end:
            found = _LINE.match(self._text, at)
            assert found is not None  # it matches everywhere
            line, at = found[0].rstrip("\r\n"), found.end()
            stop = found.start() + len(line)
            if line.count('"') % 2:
                if regular:  # the line on which the quoted cell ends
                    inside = line[: line.rindex('"')].split(self._dialect.delimiter)
                    if line.count(self._dialect.delimiter) + 1 == width and self._is_alike(inside):
                        return True
                    continue
                stop = end
                self._rescanned += end - at
            parts, _, unbroken = self._scan(found.start(), stop)
            if len(parts) != width or (stop == end and not unbroken):
                continue
            if (not regular and len(cells) != width) or self._is_alike(parts):
                return True
        return False

    def _is_alike(self, cells: Sequence[str]) -> bool:
        """Whether a record's first cells have the shapes of the columns, one at least."""
        alike = [
            shape == _shape(cell.strip())
            for cell, shape in zip(cells, self._shapes, strict=False)
            if shape
        ]
        return bool(alike) and all(alike)

    def _sample(self, at: int) -> tuple[int, tuple[str, ...]]:
        """The usual number of cells, and the shapes of the columns, "" where they vary."""
        rows: list[tuple[str, ...]] = []
        stop = min(len(self._text), at + _SAMPLE_CHARS)
        while at < stop and len(rows) < _SAMPLE_RECORDS:
            cells, at, problem = self._record(at)
            if any(cells) and not problem:
                rows.append(cells)
        self._rescanned = 0
        width = _usual_width(rows)
        shapes = []
        for column in zip(*(row for row in rows[1:] if len(row) == width), strict=True):
            shape, count = Counter(_shape(cell.strip()) for cell in column).most_common(1)[0]
            shapes.append(shape if count > len(column) / 2 else "")
        return width, tuple(shapes)


def _shape(cell: str) -> str:
    """What kind of value a cell holds: "url", "tag", "file", "number", or "" for other text."""
    return next((name for name, known in _SHAPES.items() if known.match(cell)), "")


def _sample(text: str, dialect: Dialect) -> list[Record]:
    """The first records that are not blank."""
    reader = iter(_Reader(text[: len(dialect.preamble) + _SAMPLE_CHARS], dialect))
    return [record for record in islice(reader, _SAMPLE_RECORDS) if any(record.cells)]


def _sniff_delimiter(text: str, dialect: Dialect) -> str:
    """The delimiter by which most records have the same number of cells, two at least.

    Returns:
        "" if each line is a single cell, such as a bare tag or URL.
    """
    best, most = "", (-1.0, 0.0)
    bare = 0
    escapes = (False, True) if '\\"' in text else (False,)
    for delimiter, backslash in product(DELIMITERS, escapes):
        sample = _sample(text, replace(dialect, delimiter=delimiter, backslash=backslash))
        rows = [record.cells for record in sample]
        bare += bool(rows) and 2 * sum(row[0].lstrip()[:1] == "<" for row in rows) > len(rows)
        # A line of a cell that spans several has one mark where the delimiter is wrong.
        marks = (record.raw.count('"') - backslash * record.raw.count('\\"') for record in sample)
        odd = sum(number % 2 for number in marks) / max(1, len(rows))
        widths = Counter(map(len, rows))
        for width in {len(rows[0]), _usual_width(rows)} - {1} if rows else ():
            start = next(i for i, row in enumerate(rows) if len(row) == width)
            # Rows may have more cells than the header where a bare tag holds the delimiter.
            fitting = sum(len(row) >= width for row in rows[start:]) / len(rows[start:])
            share = widths[width] / len(rows)
            plausible = start <= _TITLE_RECORDS and share > 0.3 and fitting > 0.6
            if plausible and (fitting - odd, share) > most:
                best, most = delimiter, (fitting - odd, share)
    if bare == len(DELIMITERS) * len(escapes):
        return ""
    quoted = re.compile(r'^ *"', re.MULTILINE).search(text, 0, _SAMPLE_CHARS)
    return best or ("," if quoted else "")


def _usual_width(rows: Sequence[tuple[str, ...]]) -> int:
    """The most frequent number of cells, of two the first but for title lines; 0 without rows."""
    counts = Counter(map(len, rows))
    titles = not any(_shape(row[0].strip()) for row in rows if len(row) == 1)
    return max(counts, key=lambda width: (counts[width], titles and width > 1)) if rows else 0


def _has_quoted_cell(text: str, delimiter: str) -> bool:
    edge = rf"[{re.escape(delimiter)}\r\n]"
    return bool(re.search(rf'(?:\A|(?<={edge}))"(?>[^"]|"")*+"(?={edge}|\Z)', text))


def _sniff_backslash(text: str, dialect: Dialect) -> bool:
    """Whether backslashes escape quotation marks: then records fit better, or none is doubled."""
    fits = []
    for backslash in (False, True):
        sample = _sample(text, replace(dialect, backslash=backslash))
        widths = Counter(len(record.cells) for record in sample)
        fits.append(max(widths.values()) / len(sample) if sample else 0.0)
    if fits[0] != fits[1]:
        return fits[1] > fits[0]
    escaped = len(re.findall(r'(?<!\\)\\"(?!")', text))
    return escaped > len(re.findall(r'[^",;\t|\r\n]""[^",;\t|\r\n]', text))


def _preamble(text: str, dialect: Dialect) -> str:
    """The lines above the header: a `sep=` line, titles and blank lines."""
    at = len(dialect.preamble)
    if not dialect.delimiter:
        return dialect.preamble
    width = _usual_width([record.cells for record in _sample(text, dialect)])
    top = list(islice(_Reader(text, dialect), _TITLE_RECORDS))
    for number, record in enumerate(top):
        filled = [cell for cell in map(str.strip, record.cells) if cell]
        headed = len(record.cells) < width and _has_header_below(top[number + 1 :], width)
        narrow = len(record.cells) < width and (len(filled) <= max(1, width // 2) or headed)
        title = narrow or (len(filled) == 1 and width > 2)
        address = any(map(_shape, filled)) and not (headed and len(filled) == 1)
        if filled and (not title or address):
            return text[:at]
        at += len(record.raw)
    return dialect.preamble


def _has_header_below(records: Sequence[Record], width: int) -> bool:
    """Whether a record of this width with names alone is above the first one with values."""
    for record in records:
        if any(_shape(cell.strip()) for cell in record.cells):
            return False
        if len(record.cells) == width and all(map(str.strip, record.cells)):
            return True
    return False
