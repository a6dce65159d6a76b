"""The actor that captions blocks of a data set: it loads the model once."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from cutline.caption import Caption, CaptionOptions
from cutline.caption_files import computation_of
from cutline.distributed.model import ModelSource
from cutline.image import NamedImage
from cutline.options import Format
from cutline.shards import ShardRows, caption_schema
from cutline.sources import ImageReference, read_ahead

if TYPE_CHECKING:
    import pyarrow

_ROWS = 64
"""Captions leave a worker in tables of so many rows."""

REFERENCE = "reference"
"""The column of a block that holds `ImageReference`s as structs."""


class CaptionWorker:
    """Captions blocks of rows; Ray Data runs one in each actor.

    Args:
        source: the model.
        options: how images are captioned; None is the default.
        column: the column with paths, URLs, addresses or bytes; None for `REFERENCE` blocks.
        name_column: the column that names images that are bytes; None numbers them.
    """

    def __init__(
        self,
        source: ModelSource,
        options: CaptionOptions | None = None,
        column: str | None = None,
        name_column: str | None = None,
    ) -> None:
        self._captioner = source.load()
        self._options = options or CaptionOptions()
        self._column = column
        self._name_column = name_column
        self._rows = ShardRows(Format.PARQUET, computation_of(self._captioner))
        self._metrics = _Metrics(self._captioner.name)

    def __call__(self, table: pyarrow.Table) -> Iterator[pyarrow.Table]:
        """Caption one block: a row for every row of the table, in order."""
        import pyarrow as pa

        images = read_ahead(self._images(table), self._options.limits)
        captions = self._captioner.stream(images, self._options)
        kept = table.drop_columns([REFERENCE if self._column is None else self._column])
        began_s, at, schema = time.monotonic(), 0, caption_schema()
        kept = kept.drop_columns([name for name in kept.column_names if name in schema.names])
        for some in _batched(captions, _ROWS):
            rows = pa.Table.from_pylist([self._rows.encode(each) for each in some], schema=schema)
            for name in kept.column_names:
                rows = rows.append_column(name, kept[name].slice(at, len(some)))
            at += len(some)
            self._metrics.count(some, time.monotonic() - began_s)
            began_s = time.monotonic()
            yield rows
        if not at:  # an empty block
            yield pa.Table.from_pylist([], schema=schema)

    def _images(self, table: pyarrow.Table) -> Iterator[ImageReference | NamedImage]:
        if self._column is None:
            for cell in table[REFERENCE].to_pylist():
                yield ImageReference(**cell)
            return
        names = table[self._name_column].to_pylist() if self._name_column else None
        for row, value in enumerate(table[self._column]):
            cell = value.as_py()
            content = cell.get("bytes") if isinstance(cell, dict) else cell
            if isinstance(cell, dict) and content is None:
                content = cell.get("path")
            name = str(names[row]) if names else ""
            if isinstance(content, bytes):
                yield NamedImage(name or f"<bytes: {len(content)} B>", content)
            else:
                text = str(content or "").strip()
                yield ImageReference(name or text or "<empty cell>", text)


class _Metrics:
    """What Ray's dashboard and Prometheus show of a worker."""

    def __init__(self, model: str) -> None:
        from ray.util import metrics

        self._images = metrics.Counter(
            "cutline_images", "Images captioned, by status.", tag_keys=("model", "status")
        )
        self._seconds = metrics.Histogram(
            "cutline_image_seconds",
            "Seconds that an image took on average, over each batch of a worker.",
            boundaries=[0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30],
            tag_keys=("model",),
        )
        self._model = model

    def count(self, captions: Iterable[Caption], seconds: float) -> None:
        """Count a batch."""
        captions = list(captions)
        failed = sum(each.error is not None for each in captions)
        for status, count in (("ok", len(captions) - failed), ("error", failed)):
            if count:
                self._images.inc(count, tags={"model": self._model, "status": status})
        self._seconds.observe(seconds / len(captions), tags={"model": self._model})


def _batched(captions: Iterable[Caption], size: int) -> Iterator[list[Caption]]:
    waiting = iter(captions)
    while batch := list(islice(waiting, size)):
        yield batch
