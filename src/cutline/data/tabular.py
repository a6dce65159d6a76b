"""Rows of tables and of JSON lines: which column is what, and the captions in a cell."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Any, Literal, TextIO

from cutline.data.listing import is_split, normalise_name, split_name
from cutline.discover import EXTENSIONS
from cutline.errors import DataError
from cutline.tables import Record, Table, read_table

IMAGE_COLUMNS = (
    *("image", "image_name", "image_path", "image_file", "file_name", "filename", "file_path"),
    *("filepath", "file", "path", "img", "img_path", "img_name", "photo", "picture"),
    *("image_url", "url", "image_id", "img_id"),
)
"""Names of image columns, best first; case, spaces and hyphens do not matter."""

CAPTION_COLUMNS = (
    *("caption", "captions", "comment", "comments", "sentence", "sentences", "description"),
    *("text", "raw", "alt", "alt_text", "title"),
)
"""Names by which a column of captions is recognised; `caption_1`, `caption_2` ... count too."""

SPLIT_COLUMNS = ("split", "splits", "set", "subset", "partition", "usage")
"""Names of split columns; `has_splits` tells whether one of them is meant so."""

SPLIT_FLAGS = {
    "train": ("is_train", "is_training", "train", "training", "in_train"),
    "dev": ("is_val", "is_valid", "is_validation", "is_dev", "val", "validation", "dev"),
    "test": ("is_test", "is_testing", "test", "testing", "in_test", "held_out"),
}
"""Names of columns that say whether an image is in one split, by 1 and 0 or "true" and "false"."""

AUTHOR_COLUMNS = ("written_by", "author", "annotator", "caption_author", "worker_id")

_NUMBERED = re.compile(
    r"(?i)(caption|sentence|comment|description|text|raw|alt|title|ref|reference|annotation)s?"
    r"[ _./\[-]*(\d+\]?|[ _./-][a-e])"
)
_PLURAL = re.compile(r"(?i)(caption|sentence|comment|description|text|reference|annotation)s")
_SEPARATORS = ("||", "|", "###", "<sep>", "[SEP]")
_SEPARATORS_IN_TEXT = (";", "\n")
_LITERAL = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_LITERALS = re.compile(rf"\[\s*{_LITERAL}(?:\s+{_LITERAL})+\s*\]", re.DOTALL)
_ARRAY = re.compile(r"(?:np\.|numpy\.)?array\((\[.*\])(?:,\s*dtype=[^()\[\]]*)?\)", re.DOTALL)


class UnknownFormError(DataError):
    """A file is of no known form, so another file may be the one that is wanted."""


@dataclass(frozen=True)
class Columns:
    """Which columns of a table hold what.

    Attributes:
        image, captions, split, written_by: their names; None where there is none.
        flags: by split, the column that says whether an image is in it.
    """

    image: str
    captions: tuple[str, ...]
    split: str | None = None
    written_by: str | None = None
    flags: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class ColumnNames:
    """The columns that the user named; None is found by its name.

    Attributes:
        image: the column with the image's path, URL or id; a name, or a number from 1.
        caption: the column with the caption.
        split: the column with the split.
    """

    image: str | None = None
    caption: str | None = None
    split: str | None = None


USUAL_COLUMNS = ColumnNames()


def find_columns(rows: Sequence[Mapping[str, Any]], path: Path, names: ColumnNames) -> Columns:
    """Tell the columns apart by their names, and the split column also by its values.

    Args:
        rows: all of them, by column name; of a table, its header alone tells image and captions.
        path: for the message.
        names: what the user says.

    Raises:
        UnknownFormError: there is no column for the image, or none for the caption.
        DataError: there is no split column of the name that the user says.
    """
    header = dict.fromkeys(column for row in rows for column in row)
    image, texts = _image_and_captions(header, path, names)
    author = column_named(header, AUTHOR_COLUMNS)
    others = [column for column in header if column not in (image, author, *texts)]
    if names.split is None:
        split = split_column(rows, others)
    else:
        split = column_of(header, names.split, ())
        if split is None:
            raise DataError(
                f"got columns {', '.join(map(str, header))} in {path}; expected {names.split}, "
                "the split column that you named"
            )
    flags = {} if split is not None else _flags(rows, others)
    return Columns(image, texts, split, author, flags)


def _image_and_captions(
    header: Mapping[str, Any], path: Path, names: ColumnNames
) -> tuple[str, tuple[str, ...]]:
    """The column of the image, and those of its captions."""
    if "filename" in header and "sentences" in header and not (names.image or names.caption):
        return "filename", ("sentences",)
    numbered = [column for column in header if _NUMBERED.fullmatch(str(column))]
    image = column_of(header, names.image, IMAGE_COLUMNS)
    others = [column for column in header if column != image]
    text = column_of(header if names.caption else others, names.caption, CAPTION_COLUMNS)
    if text == image:
        text = None
    texts = numbered if numbered and not names.caption else [text] if text is not None else []
    if text is not None and numbered and not names.caption and text not in numbered:
        texts = [column for column in header if column == text or column in numbered]
    if image is None or not texts:
        raise UnknownFormError(
            f"got columns {', '.join(map(str, header))} in {path}; expected one for the image "
            f"({names.image or ', '.join(IMAGE_COLUMNS[:5]) + ' ...'}) and one for the caption "
            f"({names.caption or ', '.join(CAPTION_COLUMNS[:4]) + ' ...'}): name them with "
            "--image-column and --caption-column"
        )
    return image, tuple(texts)


def _flags(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> dict[str, str]:
    """The column of each split that says whether an image is in it."""
    named = {name: column_named(columns, flags) for name, flags in SPLIT_FLAGS.items()}
    found = {name: column for name, column in named.items() if column is not None}
    cells = (row.get(column) for row in rows for column in found.values())
    return found if all(flag_of(cell) is not None for cell in cells) else {}


def flag_of(cell: object) -> bool | None:
    """Whether a cell says yes; None if it says neither yes nor no."""
    text = str(cell if cell is not None else "").strip().lower()
    if text in ("1", "1.0", "true", "t", "yes", "y", "x"):
        return True
    return False if text in ("0", "0.0", "false", "f", "no", "n", "", "nan") else None


def has_splits(column: str, values: Iterable[object]) -> bool:
    """Whether a column says in which split each image is.

    One called `split` does, one with another of `SPLIT_COLUMNS` does if a value is a usual name
    of a split, and any other column does if all values are, training among them.
    """
    if column_named([column], SPLIT_COLUMNS[:2]) is not None:
        return True
    filled = {text for value in values if value == value and (text := str(value or "").strip())}
    if column_named([column], SPLIT_COLUMNS) is not None:
        return any(map(is_split, filled))
    return len(filled) > 1 and all(map(is_split, filled)) and "train" in map(split_name, filled)


def split_column(rows: Sequence[Mapping[str, Any]], columns: Iterable[str]) -> str | None:
    """The column of these that says in which split each image is; None if none does."""
    candidates = [*columns]
    usual = [column_named([column], SPLIT_COLUMNS) is None for column in candidates]
    for _, column in sorted(zip(usual, candidates, strict=True), key=itemgetter(0)):
        if has_splits(column, (row.get(column) for row in rows)):
            return column
    return None


def split_by_flags(row: Mapping[str, Any], flags: Mapping[str, str]) -> str:
    """The split that a row's flags say; "" if they leave it open.

    What is not in the only split that has a column is in the other: training or test.
    """
    yes = [split for split, column in flags.items() if flag_of(row.get(column))]
    if len(yes) == 1:
        return yes[0]
    if not yes and len(flags) == 1:
        return "test" if "train" in flags else "train"
    return ""


def column_of(row: Iterable[str], given: str | None, names: Sequence[str]) -> str | None:
    """The column that the user named, by name or number; else the first with a usual name."""
    columns = [*row]
    if given is None:
        return column_named(columns, names)
    if (found := column_named(columns, [given])) is not None:
        return found
    return columns[int(given) - 1] if given.isdigit() and 1 <= int(given) <= len(columns) else None


def column_named(row: Iterable[str], names: Iterable[str]) -> str | None:
    """The column with the first of these names; case, spaces and hyphens do not matter."""

    def plain(name: str) -> str:
        return re.sub(r"[\s_-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip())).lower()

    columns: dict[str, str] = {}
    for column in row:
        columns.setdefault(plain(str(column)), column)
    return next((columns[plain(name)] for name in names if plain(name) in columns), None)


def texts_in(cell: Any, separator: str = "") -> list[str]:
    """The captions in a cell: a text, a list of texts, or Karpathy's sentences.

    The list may also be written as text, as JSON, Python, NumPy and pandas do. A null and a NaN
    are no caption.

    Args:
        cell: a cell of a table, or a value of JSON.
        separator: between the captions of a text, see `separator_in`; "" is none.
    """
    if cell is None or cell != cell:
        return []
    if isinstance(cell, (list, tuple)):
        return [text for each in cell for text in texts_in(each)]
    if isinstance(cell, dict):
        found = next((cell[name] for name in _TEXT_KEYS if name in cell), None)
        return texts_in(found)
    text = str(cell)
    parsed = _parse_list(text.strip())
    if parsed is not None:
        return parsed
    if separator:
        return [part for part in map(str.strip, text.split(separator)) if part]
    return [text]


_TEXT_KEYS = ("raw", "caption", "captions", "text", "sentence", "sentences", "value")


def separator_in(column: str, cells: Iterable[object]) -> str:
    """What separates the captions in the cells of a column; "" if each cell is one caption.

    Half of the cells have it if it is one that no text has, such as `||`, or if the column's name
    is a plural. Otherwise all cells, two at least, have a semicolon; a line break then is a space.
    """
    texts = [text for cell in cells if isinstance(cell, str) and (text := cell.strip())]
    texts = [text for text in texts if _parse_list(text) is None]
    plural = _PLURAL.fullmatch(column.strip())
    half, most = max(1, len(texts) / 2), max(2, len(texts))
    for separator in (*_SEPARATORS, *_SEPARATORS_IN_TEXT[: 2 if plural else 1]):
        least = half if plural or separator in _SEPARATORS else most
        if sum(separator in text.removesuffix(separator) for text in texts) >= least:
            return separator
    return ""


def _parse_list(text: str) -> list[str] | None:
    """The texts of a list in JSON, in Python, or in NumPy's form; None for anything else."""
    if array := _ARRAY.fullmatch(text):
        text = array[1]
    if text[:1] + text[-1:] not in ("[]", "()", "{}"):
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        values = _literal(text)
    if isinstance(values, dict):
        return texts_in(values) if any(name in values for name in _TEXT_KEYS) else None
    if isinstance(values, list) and all(map(_holds_texts, values)):
        return texts_in(values)
    return None


def _literal(text: str) -> Any:
    """A list, tuple, set or dictionary as Python or NumPy writes it; None for anything else."""
    if _LITERALS.fullmatch(text):  # NumPy puts no commas
        text = re.sub(rf"({_LITERAL})", r"\1,", text, flags=re.DOTALL)
    try:
        tree = _NullNames().visit(ast.parse(text, mode="eval")).body
        if isinstance(tree, ast.List | ast.Tuple | ast.Set):
            return [ast.literal_eval(each) for each in tree.elts]
        return ast.literal_eval(tree) if isinstance(tree, ast.Dict) else None
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return None


class _NullNames(ast.NodeTransformer):
    """Replaces the names by which pandas and JSON write a missing value."""

    def visit_Name(self, node: ast.Name) -> ast.AST:
        return ast.Constant(None) if node.id in ("nan", "NaN", "null", "NA") else node


def _holds_texts(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_holds_texts, value))
    return value is None or value != value or isinstance(value, str | dict)


def is_image_name(text: str) -> bool:
    """Whether a text looks like the path or URL of an image."""
    text = text.strip()
    if re.match(r"https?://\S+$", text, re.IGNORECASE):
        return True
    return PurePosixPath(normalise_name(text)).suffix.lower() in EXTENSIONS


def header_of(table: Table) -> tuple[tuple[str, ...], bool]:
    """The names of a table's columns, and whether they are in the file.

    Names are made up for a table whose first record is data: it holds the name of an image.
    """
    first = table.header
    if not any(map(is_image_name, first)) or column_named(first, IMAGE_COLUMNS) is not None:
        return _unique(first), True
    sample = [record.cells for _, record in zip(range(50), table, strict=False) if record.cells]
    columns = [[row[i].strip() for row in sample if i < len(row)] for i in range(len(first))]
    image = next(i for i, cell in enumerate(first) if is_image_name(cell))
    names, texts = [], 0
    for number, cells in enumerate(columns):
        filled = [cell for cell in cells if cell]
        if number == image:
            names.append("image")
        elif filled and all(map(is_split, filled)):
            names.append("split")
        elif any(re.search(r"[^\W\d_]", cell) for cell in filled):
            texts += 1
            names.append(f"caption_{texts}")
        else:
            names.append(f"column_{number + 1}")
    return tuple(names), False


def _unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Column names with `.1`, `.2` ... after those that occur again, as pandas names them."""
    seen: Counter[str] = Counter()
    unique = []
    for name in names:
        unique.append(f"{name}.{seen[name]}" if name and seen[name] else name)
        seen[name] += 1
    return tuple(unique)


def table_rows(
    table: Table, *, faults: Literal["raise", "repair"] = "raise", notes: list[str] | None = None
) -> Iterator[dict[str, str]]:
    """The rows of a table by column name; blank lines are left out.

    Args:
        table: with or without a header.
        faults: "raise" refuses a quotation mark that nothing closes and more cells than columns;
            "repair" ends the record with its line, and joins surplus cells.
        notes: gets a sentence for each repair.

    Raises:
        DataError: such a record was found; the message gives the line.
    """
    names, in_file = header_of(table)
    if not any(names):
        raise UnknownFormError(f"got {table.name}, which is empty; expected a header and rows")
    below_header = not in_file
    for record in table:
        if not record.cells or not (below_header or any(map(str.strip, record.cells))):
            continue
        cells = _check(record, table, len(names), faults, notes)
        if not below_header:
            below_header = True
            continue
        row: dict[str, str] = {}
        for name, cell in zip(names, cells, strict=False):
            if name:
                row.setdefault(name, cell.strip())
        yield {name: "" for name in names if name} | row


def _check(
    record: Record,
    table: Table,
    width: int,
    faults: Literal["raise", "repair"],
    notes: list[str] | None,
) -> list[str]:
    """The cells of a record, if there is nothing wrong with it or it may be repaired."""
    cells = list(record.cells)
    while len(cells) > width and not cells[-1].strip():
        cells.pop()
    delimiter = table.dialect.delimiter
    problem = ""
    if record.problem:
        problem = (
            f"got line {record.line} of {table.name} with {record.problem.removeprefix('got ')}"
        )
    elif len(cells) > width:
        problem = (
            f"got line {record.line} of {table.name} with more cells than its header; expected "
            f"{width}: put a cell with {delimiter!r} in it between quotation marks"
        )
    if problem and faults == "raise":
        raise DataError(problem)
    if problem and notes is not None:
        notes.append(problem)
    if len(cells) > width:
        cells[width - 1 :] = [delimiter.join(cells[width - 1 :])]
    return cells


def open_table(path: Path) -> Table:
    """Read a table; see `cutline.tables`.

    Raises:
        DataError: it is no UTF-8 or UTF-16 text.
    """
    try:
        table = read_table(path)
        if "\0" in table.text[:4096]:
            raise DataError(f"got {path}, which is no text; expected CSV, TSV or JSON Lines")
        named = column_named(table.header, IMAGE_COLUMNS) or any(map(is_image_name, table.header))
        if not named or len(table.header) == 1:  # the delimiter may be another one
            first = next((record.raw for record in table if record.cells), "")
            for delimiter in "\t;|,":
                name, found, rest = first.partition(delimiter)
                if found and rest.strip() and is_image_name(name):
                    return read_table(path, delimiter=delimiter)
        return table
    except DataError as error:
        if "text; expected" in str(error):
            raise DataError(
                f"got {path}, which is no UTF-8 text; expected captions in UTF-8"
            ) from error
        raise


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one on each line.

    Raises:
        DataError: a line holds something else.
    """
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = parse_json(line, f"line {number} of {path}")
                if not isinstance(row, dict):
                    raise DataError(
                        f"got {line.strip():.40} in line {number} of {path}; expected an object"
                    )
                yield row


@contextmanager
def opened(path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8, with or without a byte order mark, or in UTF-16 with one.

    Raises:
        DataError: it cannot be read, or is no such text.
    """
    try:
        with path.open("rb") as binary:
            utf16 = binary.read(2) in (b"\xff\xfe", b"\xfe\xff")
        with path.open(newline="", encoding="utf-16" if utf16 else "utf-8-sig") as file:
            yield file
    except UnicodeError as error:
        raise DataError(
            f"got {path}, which is no UTF-8 text; expected captions in UTF-8"
        ) from error
    except OSError as error:
        raise DataError(f"got {path}: {error.strerror}; expected a file of captions") from error


def parse_json(text: str | bytes, what: str) -> Any:
    """A JSON value.

    Raises:
        DataError: it is none.
    """
    try:
        if isinstance(text, bytes) and text[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            text = text.decode("utf-8-sig")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"got {what}, which is no JSON: {error}; expected JSON") from error
