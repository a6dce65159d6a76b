"""Crawlers' exports: rows in, image uses out, and the same rows back with new columns beside them.

Screaming Frog, Sitebulb, Ahrefs, Lumar and others write one row per image or per link to one, under
headers in the language of whoever pressed the button, or put whole `<img ...>` tags into a cell.
Columns are known by name where we know the name, else by what stands in them. A row that cannot be
understood is kept and says why.
"""

from __future__ import annotations

import csv
import html
import io
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from urllib.parse import urlsplit

from w3lib.encoding import read_bom

from cutline.atomic import write_whole
from cutline.errors import DataError
from cutline.site.model import ImageUse, Kind
from cutline.site.pages.html import uses_in_html
from cutline.site.urls import normalise_url, printable

_DELIMITERS = ",;\t|"
_LOOKED_AT = 200  # rows, to tell a dialect and columns
_LARGEST_FILE_BYTES = 1 << 30

# Names of columns: English, German, French, Spanish, Italian; the likeliest first.
_IMAGE_NAMES = (
    "image tag|img tag|image url|image src|img src|image source|image|images|img|src|bild url|bild"
    "|url de l image|url de la imagen|imagen|immagine|destination|to|ziel|nach|destino|destinazione"
    "|address|adresse|direccion|indirizzo|url"
).split("|")
_PAGE_NAMES = (
    "page url|source url|source page|source|from|page|found on|found at|found at url|referring page"
    "|url found on|quelle|quell url|von|seite|origine|page source|origen|fuente|pagina|sorgente"
    "|address|adresse|direccion|indirizzo|url"
).split("|")
_ALT_NAMES = (
    "alt text|alt|alt attribute|image alt text|alternativtext|alt texte|texte alternatif|texte alt"
    "|texto alternativo|texto alt|testo alternativo|testo alt"
).split("|")
_TYPE_NAMES = "type|typ|link type|link typ|type de lien|tipo|tipo de enlace".split("|")
_MEDIA_NAMES = (
    "content type|mime type|inhaltstyp|inhalt|type de contenu|tipo de contenido|tipo di contenuto"
).split("|")
_SIZE_NAMES = "dimensions|dimensions in attributes|abmessungen|dimensiones|dimensioni".split("|")
_IMAGE_TYPES = frozenset("image img bild grafik imagen immagine bilder images".split())

_TAG = re.compile(r"<\s*(?:img|image|input|area|svg|object|picture|source)\b", re.IGNORECASE)
_ESCAPED_TAG = re.compile(r"&(?:amp;)*lt;\s*(?:img|input|area|svg|object|picture)\b", re.IGNORECASE)
_URL = re.compile(r"(?:https?:)?//[^\s\"'<>]+|data:image/", re.IGNORECASE)
_PATH = re.compile(r"[^\s\"'<>]*[./][^\s\"'<>]*")
_PICTURE = re.compile(r"\.(?:avif|bmp|gif|heic|ico|jfif|jpe?g|png|svg|tiff?|webp)\Z", re.IGNORECASE)
_RECORD_START = re.compile(r"\s*(\"?(?:https?://|<\w))", re.IGNORECASE)
_DIMENSIONS = re.compile(r"(\d{1,6})\s*[x\u00d7*]\s*(\d{1,6})", re.IGNORECASE)
_LINES = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")


@dataclass(frozen=True)
class Dialect:
    """How a table was written, to write it so again.

    Attributes:
        encoding: of the file; `mark` says whether it begins with a byte order mark.
        delimiter: between cells; "" where every line is one cell, as it stands.
        preamble: what precedes the header, such as Excel's "sep=;".
        newline: at the end of a line, as in most of them.
    """

    encoding: str
    mark: bool
    delimiter: str
    preamble: str
    newline: str


@dataclass(frozen=True)
class Export:
    """A crawler's export.

    Attributes:
        header: the columns' names; empty if the file has none.
        rows: every row below the header, as many cells as it has. A row's number is its index here.
        uses: row number and image use; a row whose cell holds several tags has several.
        problems: row number and why there is no use in it.
        dialect: how it was written.
    """

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    uses: list[tuple[int, ImageUse]]
    problems: list[tuple[int, str]]
    dialect: Dialect
    _raw: tuple[tuple[str, bool], ...]  # every line exactly, and whether there is a row in it


def read_export(path: Path) -> Export:
    """A crawler's CSV, TSV or list of URLs, whatever its language, encoding and columns.

    A use has kind `row`, its row number for position, and for page what the row names, or the
    file's name where no row names one. An empty alt cell is an alt that is missing: an export does
    not tell it from `alt=""`. A whole tag in a cell is taken at its word.

    Raises:
        DataError: the file is not there, cannot be read, or is no text.
    """
    try:
        if path.stat().st_size > _LARGEST_FILE_BYTES:
            raise DataError(f"got {path}, more than {_LARGEST_FILE_BYTES >> 20} MB; split it")
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"got {path}: {error.strerror}; expected a crawler's CSV file") from error
    text, encoding, mark = _decode(content)
    preamble = found[0] if (found := re.match(r"sep=(.)\r?\n?", text)) else ""
    lines = _LINES.findall(text, len(preamble))
    delimiter = found[1] if found else _delimiter(lines)
    records = list(_records(lines, delimiter))
    cells = [tuple(row) for row, _ in records if row]
    headed = bool(cells) and _is_header(cells[0])
    header, rows = (cells[0], tuple(cells[1:])) if headed else ((), tuple(cells))
    ends = [end for end in ("\r\n", "\n", "\r") if any(line.endswith(end) for line in lines[:9])]
    dialect = Dialect(encoding, mark, delimiter, preamble, ends[0] if ends else "\n")
    reader = _Rows(header, rows, path.name, delimiter)
    for number, row in enumerate(rows):
        reader.read(number, row)
    raw = tuple((line, bool(row)) for row, line in records)
    return Export(header, rows, reader.uses, reader.problems, dialect, raw)


def write_export(export: Export, columns: Mapping[int, Mapping[str, str]], target: Path) -> None:
    """The same rows in the same order and dialect, with new columns after the old ones.

    What was there stays byte for byte wherever it can be read back so. A new column whose name is
    taken gets a number. In a file without a header the new names get one. Where the new words
    cannot be said in the file's encoding, all of it becomes UTF-8.

    Args:
        export: as read.
        columns: row number -> column's name -> cell. Rows not named get empty cells.
        target: where to; written whole or not at all.

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
    for raw, holds in export._raw:
        if not holds:
            lines.append(raw)
        elif headed:
            lines.append(_line(export.header, raw, width, titles, dialect))
            headed = False
        else:
            number, row = next(rows)
            added = [columns.get(number, {}).get(name, "") for name in names]
            lines.append(_line(row, raw, width, added, dialect))
    text = "".join(lines)
    encoding = dialect.encoding
    try:
        content = text.encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        encoding, content = "utf-8", printable(text).encode()
    if dialect.mark or encoding != dialect.encoding:
        content = "\ufeff".encode(encoding) + content
    write_whole(target, content)


class _Rows:
    """Understands rows one by one, knowing the table's columns."""

    def __init__(
        self, header: Sequence[str], rows: Sequence[Sequence[str]], name: str, delimiter: str
    ) -> None:
        self.uses: list[tuple[int, ImageUse]] = []
        self.problems: list[tuple[int, str]] = []
        self._name, self._delimiter, self._width = name, delimiter, len(header)
        titles = [_plain(one) for one in header]
        sample = rows[:_LOOKED_AT]
        width = max((len(row) for row in sample), default=0)
        columns = [
            [row[i].strip() for row in sample if i < len(row) and row[i].strip()]
            for i in range(width)
        ]

        def named(known: Sequence[str], other: int | None = None) -> int | None:
            found = (titles.index(one) for one in known if one in titles)
            return next((column for column in found if column != other), None)

        def holding(test: Callable[[str], object], other: int | None = None) -> int | None:
            shares = [
                (sum(bool(test(cell)) for cell in column) / len(column), -i)
                for i, column in enumerate(columns)
                if column and i != other
            ]
            share, column = max(shares, default=(0.0, 0))
            return -column if share > 0.5 else None

        image = named(_IMAGE_NAMES)
        if image is not None and not any(map(_PATH.search, chain(*columns[image : image + 1]))):
            image = None  # a number of images, say
        choices = (holding(_tagged), image, holding(_is_picture), holding(_URL.match))
        self._image = next((one for one in choices if one is not None), 0 if width == 1 else None)
        self._page = named(_PAGE_NAMES, self._image)
        if not header:
            self._page = holding(re.compile(r"https?://\S+\Z", re.IGNORECASE).match, self._image)
        self._alt, self._type = named(_ALT_NAMES), named(_TYPE_NAMES)
        self._media, self._size = named(_MEDIA_NAMES), named(_SIZE_NAMES)

    def read(self, number: int, row: Sequence[str]) -> None:
        """Note a row's uses, or why it has none."""

        def cell(column: int | None) -> str:
            return row[column].strip() if column is not None and column < len(row) else ""

        page = cell(self._page)
        base = normalise_url(page)
        image = cell(self._image)
        kind, media = _plain(cell(self._type)), cell(self._media).lower()
        torn = len(row) > self._width and _tagged(image) and not re.search(">|&gt;", image)
        tags = image if _tagged(image) and not torn else self._delimiter.join(row)
        uses = _tags(tags, printable(page) or self._name, base)
        if not uses:
            url = normalise_url(image, base) if _is_address(image) else ""
            if not any(one.strip() for one in row):
                problem = "got an empty row; expected an image's URL or its tag"
            elif kind and not _IMAGE_TYPES & set(kind.split()):
                problem = f"got a row of type {cell(self._type)!r}; expected an image"
            elif media and not media.startswith(("image/", "application/octet-stream")):
                problem = f"got content of type {media!r}; expected an image"
            elif not url and not image.lower().startswith("data:image/"):
                problem = f"got {image[:80]!r}; expected an image's absolute URL or its tag"
            elif url.startswith("file:"):
                problem = f"got {image[:80]!r}; expected a URL on the web"
            else:
                problem = ""
            if problem:
                self.problems.append((number, printable(problem)))
                return
            size = _DIMENSIONS.search(cell(self._size))
            alt = row[self._alt] if self._alt is not None and self._alt < len(row) else ""
            uses = [
                ImageUse(
                    printable(page) or self._name,
                    number,
                    Kind.ROW,
                    printable(image),
                    url,
                    alt=printable(alt) or None,
                    width_px=int(size[1]) if size else None,
                    height_px=int(size[2]) if size else None,
                )
            ]
        for use in uses:
            self.uses.append((number, replace(use, position=number, kind=Kind.ROW, offset=-1)))


def _tags(cell: str, page: str, base: str) -> list[ImageUse]:
    """The images whose tags stand in a cell: escaped, with any quotes, even cut short."""
    for _ in range(3):
        if not _ESCAPED_TAG.search(cell):
            break
        cell = html.unescape(cell)
    if not _TAG.search(cell):
        return []
    if re.search(r"=\s*\\[\"']", cell):
        cell = re.sub(r"\\([\"'/])", r"\1", cell)
    for end in ("", ">", '">', "'>"):
        _, uses = uses_in_html(cell + end, page=page, base=base)
        named = [use for use in uses if use.kind is not Kind.CSS and (use.source or use.alt)]
        if named:
            return [replace(use, before="", after="", heading="") for use in named]
    return []


def _tagged(cell: str) -> bool:
    return bool(_TAG.search(cell) or _ESCAPED_TAG.search(cell))


def _is_picture(cell: str) -> bool:
    """Whether a cell is a path or URL that ends as pictures do."""
    try:
        return bool(_PATH.fullmatch(cell) and _PICTURE.search(urlsplit(cell).path))
    except ValueError:
        return False


def _is_address(cell: str) -> bool:
    return bool(_URL.match(cell)) or _is_picture(cell)


def _is_header(row: Sequence[str]) -> bool:
    return not any(_is_address(cell.strip()) or _tagged(cell) for cell in row)


def _plain(name: str) -> str:
    """A column's name without case, accents and punctuation."""
    letters = unicodedata.normalize("NFKD", name.replace("\ufeff", "")).casefold()
    kept = "".join(
        one if one.isalnum() else " " for one in letters if not unicodedata.combining(one)
    )
    return " ".join(kept.split())


def _decode(content: bytes) -> tuple[str, str, bool]:
    """Text without its byte order mark, encoding, whether there was one."""
    encoding, mark = read_bom(content)
    if encoding is None and content[:2000].count(0) > len(content[:2000]) / 4:
        encoding = "utf-16-be" if content[:1] == b"\0" else "utf-16-le"
    body = content[len(mark or b"") :]
    for name in (encoding, "utf-8"):
        try:
            if name and (text := body.decode(name)).encode(name) == body:
                return text, name, bool(mark)
        except (LookupError, UnicodeError):
            continue
    return body.decode("cp1252", "surrogateescape"), "cp1252", False


def _delimiter(lines: Sequence[str]) -> str:
    """What stands between cells; "" if each line is one, such as a bare tag or URL."""
    sample = [line for line in lines[:_LOOKED_AT] if line.strip()]
    bare = sum(line.lstrip()[:1] == "<" for line in sample)
    if 2 * bare > len(sample):
        return ""
    best, most = "", 0.0
    for delimiter in _DELIMITERS:
        rows = [row for row, _ in _records(sample, delimiter)]
        width = len(rows[0]) if rows else 0
        if width > 1:
            headed = _is_header(rows[0])  # below one, a cell may have been torn
            fitting = sum(len(row) == width or (headed and len(row) > width) for row in rows)
            alike = fitting / len(rows)
            if alike > max(most, 0.6):
                best, most = delimiter, alike
    quoted = any(line.lstrip()[:1] == '"' for line in sample)
    return best or ("," if quoted else "")


def _records(lines: Sequence[str], delimiter: str) -> Iterator[tuple[list[str], str]]:
    """Each record's cells, and its lines as they stand; a quote never closed ends with its line."""
    if not delimiter:
        for line in lines:
            cell = line.rstrip("\r\n")
            yield [cell] if cell else [], line
        return
    limit = csv.field_size_limit(1 << 30)
    try:
        at = 0
        while at < len(lines):
            taken, row = _record(lines, at, delimiter)
            yield row, "".join(lines[at : at + taken])
            at += taken
    finally:
        csv.field_size_limit(limit)


def _record(lines: Sequence[str], at: int, delimiter: str) -> tuple[int, list[str]]:
    reader = csv.reader((lines[i] for i in range(at, len(lines))), delimiter=delimiter)
    row = next(reader)
    taken = reader.line_num
    if taken > 1:
        first = _RECORD_START.match(lines[at])
        swallowed = first and any(
            (again := _RECORD_START.match(line)) and again[1] == first[1]
            for line in lines[at + 1 : at + taken]
        )
        if swallowed or sum(line.count('"') for line in lines[at : at + taken]) % 2:
            return 1, _cells(lines[at], delimiter)
    return taken, row


def _cells(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter), [])
    except csv.Error:  # a line end outside quotes
        return []


def _line(
    cells: Sequence[str], raw: str, width: int, added: Sequence[str], dialect: Dialect
) -> str:
    """A row's line with cells added: what stood there untouched, if it can be read back so."""
    padded = [*cells, *[""] * (width - len(cells)), *added]
    if raw and not added:
        return raw
    body = raw.rstrip("\r\n")
    delimiter = dialect.delimiter or ","
    line = body + _written(["", *padded[len(cells) :]], delimiter)
    if not raw or _cells(line, delimiter) != padded:
        line = _written(padded, delimiter)
    return line + (raw[len(body) :] or dialect.newline)


def _written(cells: Sequence[str], delimiter: str) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, lineterminator="").writerow(cells)
    return buffer.getvalue()


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 2
    while free.casefold() in taken:
        free, number = f"{name} ({number})", number + 1
    taken.add(free.casefold())
    return free
