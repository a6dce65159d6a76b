"""Results as a folder of shards: Parquet or JSON Lines files, on a disk or at any fsspec address.

A shard is written under a temporary name and renamed, or, in object storage, appears when its
upload ends. So a folder holds whole shards only, whenever a process is killed. The rows since the
last shard are lost then; `--resume` captions their images again.
"""

from __future__ import annotations

import json
import posixpath
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from cutline.errors import MissingExtraError, OptionError, OutputError
from cutline.options import Format
from cutline.sources import filesystem
from cutline.writers import Answered

if TYPE_CHECKING:
    import pyarrow

    from cutline.caption import Caption

SHARD_ROWS = 4096
"""A shard has at most so many rows."""

SHARD_S = 20.0
"""Rows wait at most so long for others to share their shard, seconds."""

_NAME = re.compile(r"part-(\d{6,})\.(parquet|jsonl)\Z")


def caption_schema() -> pyarrow.Schema:
    """The columns of captions in Arrow: those of JSON rows, and how they were computed.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    pa = _arrow()
    number, text = pa.float64(), pa.string()
    named = pa.struct([("name", text), ("probability", number)])
    return pa.schema(
        [
            ("source", text),
            ("status", text),
            ("caption", text),
            ("score", number),
            ("alternatives", pa.list_(pa.struct([("caption", text), ("score", number)]))),
            ("labels", pa.list_(named)),
            ("kind", named),
            ("model", text),
            ("error", pa.struct([("type", text), ("message", text)])),
            ("note", text),
            ("engine", text),
            ("precision", text),
            ("threads", pa.int32()),
        ]
    )


class ShardRows:
    """Rows for shards: objects that hold what JSON rows do, and how they were computed.

    Args:
        format: Parquet, or JSON Lines.
        computation: "engine", "precision" and "threads" of the captioner, for every row.
    """

    header = b""

    def __init__(self, format: Format, computation: Mapping[str, Any] | None = None) -> None:
        self.format = format
        self.computation = dict(computation or {})

    def encode(self, caption: Caption) -> dict[str, Any]:
        """One row."""
        row = caption.to_dict()
        return {**row, "source": self.key(row["source"]), **self.computation}

    @staticmethod
    def key(source: str) -> str:
        """The source as rows give it: bytes that are not Unicode are escaped."""
        encoded = source.encode("utf-8", "surrogateescape")
        return encoded.decode("utf-8", "backslashreplace")


class ShardFolder:
    """A folder of shards.

    Args:
        location: a local path or an fsspec address.
        format: Parquet, or JSON Lines.

    Raises:
        MissingExtraError: fsspec or pyarrow is not installed.
        OptionError: fsspec cannot open such an address.
    """

    def __init__(self, location: Path | str, format: Format) -> None:
        self.location = str(location)
        self.format = format
        self._files, self._root = filesystem(self.location)
        self._local = isinstance(location, Path)
        if format is Format.PARQUET:
            _arrow()

    def check_new(self, *, force: bool) -> None:
        """Check that there are no results yet; with `force` delete those there are.

        Raises:
            OptionError: there are some.
            OutputError: the storage refuses.
        """
        with self._storage():
            if self._files.isfile(self._root):
                if not force:
                    raise OptionError(
                        f"got {self.location}, which is a file; expected the name of a new folder "
                        "for results; add --force to replace it"
                    )
                self._files.rm_file(self._root)
            shards = list(self._shards())
            if shards and not force:
                raise OptionError(
                    f"got {self.location}, which exists; add --resume to continue it, or --force "
                    "to replace it"
                )
            for path in shards:
                self._files.rm_file(path)

    def read_answered(self) -> Answered:
        """Which images have results.

        Raises:
            OutputError: a shard cannot be read.
        """
        answered = Answered()
        with self._storage():
            for path in self._shards():
                for row in self._read(path, ["source", "status", "model"]):
                    if row["status"] == "error":
                        answered.failed += 1
                    else:
                        answered.sources[row["source"]] += 1
                        answered.model = row["model"]
        return answered

    def drop_failed(self) -> None:
        """Rewrite each shard that has failed rows without them.

        Raises:
            OutputError: a shard cannot be read or written; it is then as it was.
        """
        with self._storage():
            for path in self._shards():
                rows = list(self._read(path, None))
                kept = [row for row in rows if row["status"] != "error"]
                if kept and len(kept) < len(rows):
                    self.write(posixpath.basename(path), kept)
                elif not kept:
                    self._files.rm_file(path)

    def rows(self) -> Iterator[dict[str, Any]]:
        """All rows of all shards.

        Raises:
            OutputError: a shard cannot be read.
        """
        with self._storage():
            for path in self._shards():
                yield from self._read(path, None)

    def next_number(self) -> int:
        """The number of the next shard."""
        with self._storage():
            numbers = [_number(path) for path in self._shards()]
        return max(numbers, default=-1) + 1

    def write(self, name: str, rows: list[dict[str, Any]]) -> None:
        """Write one shard, whole or not at all.

        Raises:
            OutputError: the disk is full or gone, or the storage refuses.
        """
        path = posixpath.join(self._root, name)
        with self._storage():
            if not self._local:
                with self._files.open(path, "wb") as file:
                    self._encode(rows, file)
                return
            self._files.makedirs(self._root, exist_ok=True)
            from cutline.atomic import replacing

            with replacing(Path(path)) as local:
                self._encode(rows, local)

    def _encode(self, rows: list[dict[str, Any]], file: BinaryIO) -> None:
        if self.format is Format.JSONL:
            for row in rows:
                file.write((json.dumps(row, ensure_ascii=False) + "\n").encode())
            return
        pa = _arrow()
        from pyarrow import parquet

        table = pa.Table.from_pylist(rows, schema=caption_schema())
        parquet.write_table(table, file, compression="zstd")

    def _shards(self) -> Iterator[str]:
        """Paths of the shards, in order."""
        try:
            self._files.invalidate_cache()  # another process may have written since
            entries = self._files.ls(self._root, detail=False)
        except (FileNotFoundError, NotADirectoryError):
            return
        found = [path for path in entries if _NAME.match(posixpath.basename(path))]
        yield from sorted(found, key=_number)

    def _read(self, path: str, columns: list[str] | None) -> Iterator[dict[str, Any]]:
        if path.endswith(".jsonl"):
            with self._files.open(path, "rb") as file:
                yield from map(json.loads, file)
            return
        from pyarrow import parquet

        with self._files.open(path, "rb") as file:
            for batch in parquet.ParquetFile(file).iter_batches(columns=columns):
                yield from batch.to_pylist()

    def _storage(self) -> _StorageErrors:
        return _StorageErrors(self.location)


class ShardWriter:
    """Collects rows and writes them as shards; safe to use from several threads.

    Args:
        folder: where.
        shard_rows: a shard is written when there are so many rows.
        shard_s: or when the first of them has waited so long, seconds.
    """

    def __init__(
        self, folder: ShardFolder, *, shard_rows: int = SHARD_ROWS, shard_s: float = SHARD_S
    ) -> None:
        self._folder = folder
        self._shard_rows = shard_rows
        self._shard_s = shard_s
        self._rows: list[dict[str, Any]] = []
        self._began_s = 0.0
        self._number = folder.next_number()
        self._lock = threading.Lock()

    def write(self, row: dict[str, Any]) -> None:
        """Add one row.

        Raises:
            OutputError: the disk is full or gone, or the storage refuses.
        """
        if not row:
            return
        with self._lock:
            if not self._rows:
                self._began_s = time.monotonic()
            self._rows.append(row)
            late = time.monotonic() - self._began_s >= self._shard_s
            if len(self._rows) >= self._shard_rows or late:
                self._flush()

    def close(self) -> None:
        """Write the last shard.

        Raises:
            OutputError: the disk is full or gone, or the storage refuses.
        """
        with self._lock:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            name = f"part-{self._number:06}.{self._folder.format}"
            self._folder.write(name, self._rows)
            self._number += 1
            self._rows = []


class _StorageErrors:
    """Turns what a storage client raises into one kind of error."""

    def __init__(self, location: str) -> None:
        self._location = location

    def __enter__(self) -> None:
        """Do nothing."""

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        """Raise an OutputError for a failure of the storage."""
        if error is None or isinstance(error, OptionError | OutputError | MissingExtraError):
            return
        if isinstance(error, Exception):
            reason = getattr(error, "strerror", None) or f"{type(error).__name__}: {error}"
            refusal = OutputError(
                f"{self._location}: {reason}; the rows of all whole shards are safe: put it right, "
                "then run the same command with --resume"
            )
            with suppress(AttributeError):
                refusal.errno = getattr(error, "errno", None)
            raise refusal from error


def _number(path: str) -> int:
    found = _NAME.match(posixpath.basename(path))
    return int(found[1]) if found else -1


def _arrow() -> Any:
    try:
        import pyarrow
    except ModuleNotFoundError as error:
        raise MissingExtraError("Parquet", "cloud") from error
    return pyarrow
