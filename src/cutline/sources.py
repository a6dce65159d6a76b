"""Images that are not local files: at addresses such as s3://, at URLs, and in tables.

Addresses are read by fsspec, which knows S3, Google Cloud Storage, Azure and others, each through a
package of its own; URLs by `cutline.fetch`; Parquet files by pyarrow.
"""

from __future__ import annotations

import glob
import json
import posixpath
import re
import threading
from bisect import bisect_right
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import accumulate
from pathlib import Path, PurePosixPath
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from urllib.request import url2pathname

from cutline.discover import EXTENSIONS, find_images, natural_key
from cutline.errors import (
    CutlineError,
    FetchError,
    ImageError,
    ImageFormatError,
    ImageNotFoundError,
    ImageTooLargeError,
    ImageUnreadableError,
    MissingExtraError,
    OptionError,
)
from cutline.image import Limits, NamedImage, open_file
from cutline.options import is_address
from cutline.tables import parse_table

TABLE_EXTENSIONS = frozenset({".parquet", ".pq", ".csv", ".tsv", ".jsonl", ".ndjson"})
"""Extensions, in lower case, of files in which `find_sources` reads a column."""

READ_THREADS = 16
"""How many images at addresses are read at once."""

HOST_CONCURRENCY = 4
"""How many images are fetched from one web server at once."""

READ_AHEAD = 32
"""How many images at addresses may be in memory before they are captioned."""

_HTTP = re.compile(r"https?://", re.IGNORECASE)
_FILE = re.compile(r"(?:file|local)://", re.IGNORECASE)
_EXTRA = "cloud"
_BATCH_ROWS = 8192
_KEPT_GROUPS = 2


@dataclass(frozen=True)
class ImageReference:
    """An image that is read only when it is captioned.

    Attributes:
        name: what its caption gives as the source: the address, or the cell of a table as it is.
        location: a path, a URL or an address; of the table, if the image is in a cell; "" for an
            empty cell.
        row: the table's row that holds the image's bytes, from 0; None if it is not in a table.
        column: the table's column.
        size_bytes: the file's size, if a listing gave it.
    """

    name: str
    location: str
    row: int | None = None
    column: str = ""
    size_bytes: int | None = None

    def __str__(self) -> str:
        """The name."""
        return self.name


Source: TypeAlias = Path | ImageReference
"""What is to be captioned: a local file, or a reference to something else."""


def find_sources(
    paths: Iterable[str],
    recursive: bool,
    *,
    column: str | None = None,
    passed_over: Counter[str] | None = None,
) -> Iterator[Source]:
    """List the images that paths, addresses and tables name, lazily and in order.

    Local paths are listed by `find_images`. An address of a folder, or with a pattern (`*`, `?`,
    `[`), is listed in the same way; URLs of http and https are never patterns or folders.

    Args:
        paths: files, folders, patterns and addresses; with a column, they name tables.
        recursive: also search subfolders.
        column: the column of Parquet, CSV, TSV or JSON Lines files that holds the images: paths,
            relative to the table's folder, or URLs, addresses, or bytes (also as the field "bytes"
            of a struct). None if the paths are images themselves.
        passed_over: if given, counts files in folders that are no images, by extension.

    Raises:
        OptionError: a path is empty, or a table or its column cannot be read.
        MissingExtraError: a package that reads such addresses or tables is not installed.
    """
    if column is not None:
        for table in _expand(paths, recursive, None, TABLE_EXTENSIONS):
            yield from _read_column(str(table), column)
        return
    for path in paths:
        if PurePosixPath(path).suffix.lower() in (".parquet", ".pq"):
            raise OptionError(
                f"got {path}, which is a table; expected images; add --column NAME to caption the "
                "images that a column names or holds"
            )
        yield from _expand([path], recursive, passed_over, EXTENSIONS)


def is_absent(path: str) -> bool:
    """Whether an address is a pattern that matches nothing."""
    if not is_address(path) or _HTTP.match(path) or not glob.has_magic(path):
        return False
    files, root = filesystem(path)
    with _listing(path):
        return not files.exists(root) and not files.glob(root)


def filesystem(address: str) -> tuple[Any, str]:
    """The fsspec file system of an address or local path, and the path in it.

    Raises:
        MissingExtraError: fsspec is not installed.
        OptionError: fsspec does not know the protocol, or lacks the package for it.
    """
    try:
        import fsspec
    except ModuleNotFoundError as error:
        raise MissingExtraError(f"reading {address}", _EXTRA) from error
    try:
        files, root = fsspec.core.url_to_fs(address)
    except (ImportError, ValueError) as error:
        raise OptionError(
            f"got {address}, which cannot be opened ({str(error).rstrip('.')}); expected an "
            "address that fsspec knows; install the package for it: s3fs, gcsfs or adlfs"
        ) from error
    return files, str(root)


def read_image(image: ImageReference, limits: Limits | None = None) -> NamedImage:
    """Read the file that a reference names; what goes wrong becomes the content.

    Raises:
        MissingExtraError: a package that reads such addresses is not installed.
    """
    most = (limits or Limits()).max_bytes
    name = image.name
    try:
        if not image.location:
            raise ImageNotFoundError(name, "got an empty cell; expected an image")
        if image.size_bytes is not None and image.size_bytes > most:
            reason = f"got {image.size_bytes:,} bytes; expected at most {most:,}"
            raise ImageTooLargeError(name, reason)
        if image.row is not None:
            return NamedImage(name, _read_cell(image))
        if _HTTP.match(image.location):
            return NamedImage(name, _fetch(name, image.location, most))
        if is_address(image.location) and not _FILE.match(image.location):
            return NamedImage(name, _read_address(name, image.location))
        with open_file(_local_path(image.location)) as file:
            return NamedImage(name, file.read(most + 1))
    except ImageError as error:
        return NamedImage(name, type(error)(name, error.reason))


def read_ahead(
    images: Iterable[Source | NamedImage],
    limits: Limits | None = None,
    *,
    threads: int = READ_THREADS,
) -> Iterator[Path | NamedImage]:
    """Read referenced images on several threads while earlier ones are captioned.

    What is no reference is passed on as it is. Order is kept, and at most `READ_AHEAD` images are
    in memory.

    Args:
        images: references and others.
        limits: files of more than `max_bytes` are refused.
        threads: how many are read at once.

    Raises:
        MissingExtraError: a package that reads such addresses is not installed.
    """
    pending: deque[Path | NamedImage | Future[NamedImage]] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for image in images:
            if not isinstance(image, ImageReference):
                if not pending:
                    yield image
                    continue
                pending.append(image)
            else:
                pool = pool or ThreadPoolExecutor(threads, thread_name_prefix="cutline-read")
                pending.append(pool.submit(read_image, image, limits))
            if len(pending) >= READ_AHEAD:
                yield _result(pending.popleft())
        while pending:
            yield _result(pending.popleft())
    finally:
        if pool is not None:
            pool.shutdown(cancel_futures=True)


def _result(image: Path | NamedImage | Future[NamedImage]) -> Path | NamedImage:
    return image.result() if isinstance(image, Future) else image


def _expand(
    paths: Iterable[str],
    recursive: bool,
    passed_over: Counter[str] | None,
    extensions: frozenset[str],
) -> Iterator[Source]:
    for path in paths:
        if not is_address(path):
            yield from find_images(
                [path], recursive, passed_over=passed_over, extensions=extensions
            )
        elif _FILE.match(path):
            local = find_images(
                [_local_path(path)], recursive, passed_over=passed_over, extensions=extensions
            )
            yield from (ImageReference(one.absolute().as_uri(), str(one)) for one in local)
        elif _HTTP.match(path):
            yield ImageReference(path, path)
        else:
            with _listing(path):
                yield from _list_address(path, recursive, passed_over, extensions)


@contextmanager
def _listing(address: str) -> Iterator[None]:
    """Turn the errors of storage clients, which are of many kinds, into one of ours.

    Raises:
        OptionError: the address cannot be listed.
    """
    try:
        yield
    except CutlineError:
        raise
    except Exception as error:
        raise OptionError(
            f"got {address}, which cannot be listed ({type(error).__name__}: {str(error)[:200]}); "
            "expected an address that you may list: check it and your credentials"
        ) from error


def _list_address(
    address: str, recursive: bool, passed_over: Counter[str] | None, extensions: frozenset[str]
) -> Iterator[ImageReference]:
    try:
        files, root = filesystem(address)
    except OptionError:
        if glob.has_magic(address):
            raise
        yield ImageReference(address, address)  # reading it reports the reason
        return
    roots = [root]
    if glob.has_magic(root) and not files.exists(root):
        found = files.glob(root)
        if not posixpath.basename(root).startswith("."):
            found = [path for path in found if not posixpath.basename(path).startswith(".")]
        roots = sorted(found, key=natural_key)
    for one in roots:
        if files.isdir(one):
            yield from _walk(files, one, recursive, passed_over, extensions)
        else:
            name = files.unstrip_protocol(one) if one != root else address
            yield ImageReference(name, name)


def _walk(
    files: Any,
    folder: str,
    recursive: bool,
    passed_over: Counter[str] | None,
    extensions: frozenset[str],
) -> Iterator[ImageReference]:
    """The visible images in a folder, those of its subfolders after them."""
    entries = [
        (posixpath.basename(entry["name"].rstrip("/")), entry)
        for entry in files.ls(folder, detail=True)
        if entry["name"].rstrip("/") != folder.rstrip("/")
    ]
    entries = [(name, entry) for name, entry in entries if name and not name.startswith(".")]
    entries.sort(key=lambda each: natural_key(each[0]))
    images = {PurePosixPath(name).stem for name, _ in entries if _ends(name, extensions)}
    for name, entry in entries:
        if entry["type"] == "directory":
            continue
        if _ends(name, extensions):
            address = files.unstrip_protocol(entry["name"])
            yield ImageReference(address, address, size_bytes=entry.get("size"))
        elif passed_over is not None:
            suffix = PurePosixPath(name).suffix.lower()
            if suffix != ".txt" or PurePosixPath(name).stem not in images:
                passed_over[suffix] += 1
    if recursive:
        for _, entry in entries:
            if entry["type"] == "directory":
                yield from _walk(files, entry["name"], True, passed_over, extensions)


def _ends(name: str, extensions: frozenset[str]) -> bool:
    return PurePosixPath(name).suffix.lower() in extensions


def _read_column(table: str, column: str) -> Iterator[ImageReference]:
    """A reference for every row of a table."""
    suffix = PurePosixPath(table).suffix.lower()
    if suffix not in TABLE_EXTENSIONS:
        known = ", ".join(sorted(TABLE_EXTENSIONS))
        raise OptionError(f"got {table} with a column; expected a table, one of {known}")
    if suffix in (".parquet", ".pq"):
        yield from _read_parquet_column(table, column)
        return
    values = _csv_cells(table, column) if suffix in (".csv", ".tsv") else _json(table, column)
    for row, value in enumerate(values):
        yield _reference(table, row, value)


def _reference(table: str, row: int, value: object) -> ImageReference:
    """The reference in a cell, relative to the table's folder."""
    text = value.strip() if isinstance(value, str) else ""
    if not text:
        return ImageReference(f"{table}#{row}", "")
    if is_address(text):
        return ImageReference(text, text)
    if is_address(table) and not _FILE.match(table):
        return ImageReference(text, f"{table.rpartition('/')[0]}/{text.lstrip('/')}")
    return ImageReference(text, str(Path(_local_path(table)).absolute().parent / text))


def _csv_cells(table: str, column: str) -> Iterator[str]:
    with _open_table(table) as file:
        parsed = parse_table(file.read(), table, encodings=("utf-8", "cp1252"))
    _check_column(table, column, parsed.header)
    return (row[column] for row in parsed.rows(problems="repair"))


def _json(table: str, column: str) -> Iterator[object]:
    """The values of one key of JSON lines."""
    found = False
    with _open_table(table) as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise OptionError(f"{table}, line {number}: got no JSON ({error})") from error
            if not isinstance(row, dict):
                raise OptionError(f"{table}, line {number}: got {type(row).__name__}; expected an "
                                  "object")  # fmt: skip
            if not found:
                _check_column(table, column, tuple(row))
                found = True
            yield row.get(column)


def _read_parquet_column(table: str, column: str) -> Iterator[ImageReference]:
    with _ParquetFile(table) as opened:
        schema = opened.file.schema_arrow
        _check_column(table, column, tuple(schema.names))
        if opened.holds_bytes(column):
            for row in range(opened.file.metadata.num_rows):
                yield ImageReference(f"{table}#{row}", table, row, column)
            return
        row = 0
        for batch in opened.file.iter_batches(batch_size=_BATCH_ROWS, columns=[column]):
            for value in batch.column(0).to_pylist():
                yield _reference(table, row, value)
                row += 1


def row_groups(table: str) -> Sequence[int]:
    """The first row of every row group of a Parquet file, from 0."""
    return _open_parquet(table).starts


def _check_column(table: str, column: str, names: Sequence[str]) -> None:
    if column not in names:
        shown = ", ".join(names[:20]) or "none"
        raise OptionError(f"got column {column!r} of {table}; expected one of: {shown}")


class _ParquetFile:
    """A Parquet file from which single cells are read; keeps a few row groups in memory.

    Args:
        table: its path or address.

    Raises:
        OptionError: it cannot be read as Parquet.
        MissingExtraError: pyarrow is not installed.
    """

    def __init__(self, table: str) -> None:
        try:
            import pyarrow
            from pyarrow import parquet
        except ModuleNotFoundError as error:
            raise MissingExtraError(f"reading {table}", _EXTRA) from error
        remote = is_address(table) and not _FILE.match(table)
        source = _open_table(table) if remote else _local_path(table)
        try:
            self.file = parquet.ParquetFile(source)
        except (OSError, pyarrow.ArrowInvalid) as error:
            raise OptionError(f"got {table}, which cannot be read as Parquet: {error}") from error
        metadata = self.file.metadata
        counts = [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)]
        self.starts = list(accumulate(counts, initial=0))[:-1]
        self._lock = threading.Lock()
        self._groups: dict[tuple[int, str], Any] = {}

    def __enter__(self) -> _ParquetFile:
        """Return the file."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close the file."""
        self.file.close(force=True)

    def holds_bytes(self, column: str) -> bool:
        """Whether a column holds bytes, by itself or as the field "bytes" of a struct.

        Raises:
            OptionError: it holds neither bytes nor text.
        """
        from pyarrow import types

        kind = self.file.schema_arrow.field(column).type
        if types.is_dictionary(kind):
            kind = kind.value_type
        if types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
            kind = kind.field("bytes").type
        if types.is_binary(kind) or types.is_large_binary(kind) or types.is_binary_view(kind):
            return True
        if types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind):
            return False
        raise OptionError(f"got column {column!r} of {kind}; expected paths, URLs or bytes")

    def cell(self, row: int, column: str) -> bytes | None:
        """The bytes in one cell."""
        group = bisect_right(self.starts, row) - 1
        with self._lock:
            if (group, column) not in self._groups:
                while len(self._groups) >= _KEPT_GROUPS:
                    del self._groups[next(iter(self._groups))]
                self._groups[group, column] = self.file.read_row_group(group, columns=[column])
            values = self._groups[group, column].column(0)
        value = values[row - self.starts[group]].as_py()
        content: bytes | None = value["bytes"] if isinstance(value, dict) else value
        return content


@lru_cache(maxsize=4)
def _open_parquet(table: str) -> _ParquetFile:
    return _ParquetFile(table)


def _read_cell(image: ImageReference) -> bytes:
    assert image.row is not None
    content = _open_parquet(image.location).cell(image.row, image.column)
    if content is None:
        raise ImageNotFoundError(image.name, "got an empty cell; expected an image")
    return content


def _read_address(name: str, address: str) -> bytes:
    """The bytes at an fsspec address.

    Raises:
        ImageError: there is nothing, or it cannot be read.
    """
    try:
        files, root = filesystem(address)
    except OptionError as error:
        raise ImageUnreadableError(name, str(error)) from error
    try:
        content: bytes = files.cat_file(root)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageNotFoundError(name, "no such file") from error
    except IsADirectoryError as error:
        raise ImageFormatError(name, "is a folder; expected an image") from error
    except PermissionError as error:
        raise ImageUnreadableError(name, f"access is denied ({error})") from error
    except Exception as error:  # storage clients raise their own kinds
        reason = f"cannot be read ({type(error).__name__}: {str(error)[:200]})"
        raise ImageUnreadableError(name, reason) from error
    return content


def _fetch(name: str, url: str, max_bytes: int) -> bytes:
    try:
        return bytes(_fetcher(max_bytes).fetch(url).content)
    except MissingExtraError as error:
        raise MissingExtraError(f"reading {url}", _EXTRA) from error
    except FetchError as error:
        kind = ImageNotFoundError if error.status in (404, 410) else ImageUnreadableError
        raise kind(name, error.reason) from error


@cache
def _fetcher(max_bytes: int) -> Any:
    from cutline.fetch import Fetcher, FetchOptions

    return Fetcher(
        FetchOptions(max_bytes=max_bytes, images_only=False, host_concurrency=HOST_CONCURRENCY)
    )


def _open_table(table: str) -> Any:
    """Open a table for reading; local ones need no fsspec.

    Raises:
        OptionError: it cannot be opened.
    """
    try:
        if is_address(table) and not _FILE.match(table):
            files, root = filesystem(table)
            return files.open(root, "rb")
        return Path(_local_path(table)).open("rb")
    except CutlineError:
        raise
    except Exception as error:  # storage clients raise their own kinds
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise OptionError(f"got {table}: {reason}; expected a table") from error


def _local_path(path: str) -> str:
    return url2pathname(urlsplit(path).path) if _FILE.match(path) else path
