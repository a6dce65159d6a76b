"""Crawlers' exports: rows in, image occurrences out, and the same rows back with new columns.

Screaming Frog, Sitebulb, Ahrefs, Lumar and others write a row for each image or link to one, with
headers in the user's language, or put whole `<img ...>` tags into a cell; shops write a row for
each product. `crawler_columns` recognises the columns, `cutline.tables` the dialect. A row that
cannot be understood is kept and says why.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from cutline.atomic import write_whole
from cutline.errors import DataError
from cutline.site.model import ImageOccurrence, Kind
from cutline.site.pages.crawler_columns import (
    ESCAPED_TAG,
    TAG,
    find_columns,
    is_address,
    is_image_type,
    is_known_header,
    is_tagged,
    split_addresses,
)
from cutline.site.pages.html import occurrences_in_html
from cutline.site.urls import normalise_url, without_surrogates
from cutline.tables import (
    Dialect,
    Table,
    escape_formula,
    format_record,
    parse_record,
    parse_table,
    read_table,
)

_MAX_BYTES = 1 << 30
# Tried where a file is not Unicode; the one in which most column names are known is taken.
_ENCODINGS = (
    *("cp1252", "cp932", "cp1251", "cp1250", "gb18030", "big5", "euc_kr", "euc_jp", "cp1254"),
    *("cp1253", "cp1257", "koi8_r"),
)
_normalise = lru_cache(1024)(normalise_url)  # pages repeat, and each URL is checked first
_NOT_IMAGE = re.compile(
    r"\.(?:pdf|docx?|xlsx?|pptx?|odt|zip|gz|7z|rar|mp3|mp4|m4a|mov|avi|webm|ogg|wav|css|js|xml|json)\Z",
    re.IGNORECASE,
)
_DIMENSIONS = re.compile(r"(\d{1,6})\s*[x\u00d7*]\s*(\d{1,6})", re.IGNORECASE)


@dataclass(frozen=True)
class Export:
    """A crawler's export.

    Attributes:
        header: the columns' names; empty if the file has none.
        rows: every row below the header, as many cells as it has. A row's number is its index here.
        occurrences: row number and image occurrence; a row that names several images has several.
        problems: row number and why it has no occurrence.
        dialect: how it was written.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    occurrences: list[tuple[int, ImageOccurrence]]
    problems: list[tuple[int, str]]
    dialect: Dialect
    _raw: tuple[tuple[str, bool], ...]  # each record as it stands, and whether it has cells


def read_export(path: Path) -> Export:
    """Read a crawler's CSV, TSV or list of URLs, whatever its language, encoding and columns.

    An occurrence has kind `row`, its row number as position, and as page what the row names, or the
    file's name where no row names one. An empty alt cell is an alt that is missing: an export does
    not distinguish it from `alt=""`. A whole tag in a cell is read as HTML. Several URLs in a cell,
    and several image columns, are several occurrences; a URL that a row has twice is one.

    Raises:
        DataError: the file is missing, cannot be read, or is larger than 1 GB.
    """
    table = _read(path)
    records = list(table)
    cells = [record.cells for record in records if record.cells]
    headed = bool(cells) and not any(is_address(one.strip()) or is_tagged(one) for one in cells[0])
    header, rows = (cells[0], tuple(cells[1:])) if headed else ((), tuple(cells))
    reader = _Rows(header, rows, path.name, table.dialect.delimiter)
    for number, row in enumerate(rows):
        reader.read(number, row)
    raw = tuple((record.raw, bool(record.cells)) for record in records)
    return Export(header, rows, reader.occurrences, reader.problems, table.dialect, raw)


def _read(path: Path) -> Table:
    """The table, in the encoding in which the most column names are known."""
    table = read_table(path, encodings=("utf-8", "cp1252"), max_bytes=_MAX_BYTES)
    if table.dialect.encoding != "cp1252":
        return table
    content = table.text.encode("cp1252", "surrogateescape")
    best, most = table, is_known_header(table.header)
    for encoding in _ENCODINGS[1:]:
        try:
            other = parse_table(content, str(path), encodings=(encoding,))
        except DataError:
            continue
        if (known := is_known_header(other.header)) > most:
            best, most = other, known
    return best


def write_export(export: Export, columns: Mapping[int, Mapping[str, str]], target: Path) -> None:
    """Write the same rows in the same order and dialect, with new columns after the old ones.

    What was there stays byte for byte wherever it can be read back so. A new column whose name is
    taken gets a number. In a file without a header the new names get one. A new cell that a
    spreadsheet would run as a formula begins with an apostrophe. If the file's encoding lacks a
    character, the file becomes UTF-8.

    Args:
        export: as read.
        columns: row number -> column's name -> cell. Rows not named get empty cells.
        target: the file to write, atomically.

    Raises:
        OutputError: it cannot be written.
    """
    dialect = export.dialect
    names = list(dict.fromkeys(name for cells in columns.values() for name in cells))
    width = max((len(row) for row in (export.header, *export.rows)), default=0)
    taken = {name.strip().casefold() for name in export.header}
    titles = [_free(name, taken) for name in names]
    rows = iter(enumerate(export.rows))
    lines = [dialect.preamble]
    if names and not export.header:
        lines.append(_line(["image"][:width], "", width, titles, dialect))
    headed = bool(export.header)
    for raw, filled in export._raw:
        if not filled:
            lines.append(raw)
        elif headed:
            lines.append(_line(export.header, raw, width, titles, dialect))
            headed = False
        else:
            number, row = next(rows)
            added = [escape_formula(columns.get(number, {}).get(name, "")) for name in names]
            lines.append(_line(row, raw, width, added, dialect))
    text = "".join(lines)
    encoding = dialect.encoding
    try:
        content = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        encoding, content = "utf-8", without_surrogates(text).encode()
    if dialect.byte_order_mark or encoding != dialect.encoding:
        content = "\ufeff".encode(encoding) + content
    write_whole(target, content)


class _Rows:
    """Understands rows one by one, knowing the table's columns."""

    def __init__(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], name: str, delimiter: str
    ) -> None:
        self.occurrences: list[tuple[int, ImageOccurrence]] = []
        self.problems: list[tuple[int, str]] = []
        self._name, self._delimiter, self._width = name, delimiter, len(header)
        self._columns = find_columns(header, rows)

    def read(self, number: int, row: Sequence[str]) -> None:
        """Add a row's occurrences, or why it has none."""
        page = without_surrogates(_cell(row, self._columns.page))
        base = _normalise(page)
        occurrences: list[ImageOccurrence] = []
        problem = ""
        for image_column, alt_column in self._columns.images or ((len(row), None),):
            cell = _cell(row, image_column)
            # A bare tag that holds the delimiter is torn into several cells.
            torn = len(row) > self._width and not re.search(">|&gt;", cell) and not is_address(cell)
            found = _tags(self._delimiter.join(row) if torn else cell, page or self._name, base)
            refused = "" if found else self._refused(row, cell, base)
            problem = problem or refused
            if not refused:
                occurrences += found or self._images(
                    row, cell, alt_column, page or self._name, base
                )
        different = {
            (occurrence.url or occurrence.source, occurrence.kind, occurrence.offset): occurrence
            for occurrence in reversed(occurrences)
        }
        for occurrence in reversed(different.values()):
            self.occurrences.append(
                (number, replace(occurrence, position=number, kind=Kind.ROW, offset=-1))
            )
        if not different:
            self.problems.append((number, without_surrogates(problem)))

    def _images(
        self, row: Sequence[str], cell: str, alt_column: int | None, page: str, base: str
    ) -> Iterator[ImageOccurrence]:
        """The images that a cell without tags names."""
        sources = split_addresses(cell)
        size = _DIMENSIONS.search(_cell(row, self._columns.size))
        alt = row[alt_column] if alt_column is not None and alt_column < len(row) else ""
        for source, text in zip(sources, _split_alts(alt, len(sources)), strict=True):
            yield ImageOccurrence(
                without_surrogates(page),
                0,
                Kind.ROW,
                without_surrogates(source),
                _normalise(source, base) if is_address(source) else "",
                alt=without_surrogates(text) or None,
                width_px=int(size[1]) if size else None,
                height_px=int(size[2]) if size else None,
            )

    def _refused(self, row: Sequence[str], cell: str, base: str) -> str:
        """Why a cell names no image on the web; "" if it does."""
        kind = _cell(row, self._columns.type)
        media = _cell(row, self._columns.media_type).lower()
        if not any(one.strip() for one in row):
            return "got an empty row; expected an image's URL or its tag"
        if kind and self._columns.type is not None and not is_image_type(kind):
            return f"got a row of type {kind!r}; expected an image"
        if "/" in media and not media.startswith(("image/", "application/octet-stream")):
            return f"got content of type {media!r}; expected an image"
        for source in split_addresses(cell) or [""]:
            url = _normalise(source, base) if is_address(source) else ""
            if not source:
                return "got no image; expected its absolute URL or its tag"
            if not url and not source.lower().startswith("data:image/"):
                return f"got {source[:80]!r}; expected an image's absolute URL or its tag"
            if _NOT_IMAGE.search(source.partition("?")[0].partition("#")[0]):
                return f"got {source[:80]!r}; expected an image"
            if url.startswith("file:"):
                return f"got {source[:80]!r}; expected a URL on the web"
        return ""


def _cell(row: Sequence[str], column: int | None) -> str:
    return row[column].strip() if column is not None and column < len(row) else ""


def _split_alts(cell: str, count: int) -> list[str]:
    """The alts of so many images in one cell; if they do not match, they are the first one's."""
    for separator in ("|", "\n", ";", ","):
        parts = [part.strip() for part in cell.split(separator)]
        if len(parts) == count:
            return parts
    return [cell, *[""] * (count - 1)]


def _tags(cell: str, page: str, base: str) -> list[ImageOccurrence]:
    """The images whose tags are in a cell: escaped, with any quotes, even cut short."""
    for _ in range(3):
        if not ESCAPED_TAG.search(cell):
            break
        cell = html.unescape(cell)
    if not TAG.search(cell):
        return []
    if re.search(r"=\s*\\[\"']", cell):
        cell = re.sub(r"\\([\"'/])", r"\1", cell)
    for end in ("", ">", '">', "'>"):
        _, occurrences = occurrences_in_html(cell + end, page=page, base=base)
        named = [
            occurrence
            for occurrence in occurrences
            if occurrence.kind is not Kind.CSS and (occurrence.source or occurrence.alt)
        ]
        if named:
            return [replace(occurrence, before="", after="", heading="") for occurrence in named]
    return []


def _line(
    cells: Sequence[str], raw: str, width: int, added: Sequence[str], dialect: Dialect
) -> str:
    """A record with cells added; existing cells stay unchanged if they can be read back."""
    padded = [*cells, *[""] * (width - len(cells)), *added]
    if raw and not added:
        return raw
    if not dialect.delimiter:
        dialect = replace(dialect, delimiter=",", quotes=True)
    body = raw.rstrip("\r\n")
    line = body + format_record(["", *padded[len(cells) :]], dialect)
    if not raw or list(parse_record(line, dialect)) != padded:
        line = format_record(padded, dialect)
    return line + (raw[len(body) :] or dialect.newline)


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free.casefold() in taken:
        free, number = f"{name} ({number})", number + 1
    taken.add(free.casefold())
    return free
