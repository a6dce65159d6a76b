"""Writing the captions of a result file into the images they describe."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from cutline.errors import DataError, ImageNotFoundError, MetadataError
from cutline.metadata.write import MetadataJournal, MetadataOptions, Written, write_text
from cutline.options import is_address
from cutline.progress import OnProgress, Progress, ignore


@dataclass(frozen=True)
class BatchResult:
    """What a batch of writes did.

    Attributes:
        written: the files that were written, with notes.
        unchanged: images that had the text already.
        failed: images that were refused, with the reason.
    """

    written: list[Written] = field(default_factory=list)
    unchanged: list[Path] = field(default_factory=list)
    failed: list[tuple[str | Path, str]] = field(default_factory=list)


class CaptionWriter:
    """Writes captions into image files; an image that is refused does not end the run.

    Args:
        options: see `MetadataOptions`.
        journal: records the writes for `undo`.
    """

    def __init__(
        self, options: MetadataOptions | None = None, journal: MetadataJournal | None = None
    ) -> None:
        self.result = BatchResult()
        self._options, self._journal = options, journal

    def write(self, source: str | Path, text: str) -> bool:
        """Write one caption; returns whether the image has it now. The reason is in `result`.

        Args:
            source: the image file. A URL or address is refused.
            text: the caption.

        Raises:
            MissingExtraError: exiv2 is not installed.
            OSError: the journal cannot be written.
        """
        path = Path(source)
        if is_address(source):
            self.result.failed.append((source, "it is not a file on this machine"))
            return False
        try:
            written = write_text(path, text, options=self._options, journal=self._journal)
        except (MetadataError, ImageNotFoundError) as error:
            self.result.failed.append((path, error.reason))
            return False
        if written.changed:
            self.result.written.append(written)
        else:
            self.result.unchanged.append(path)
        return True


def read_captions(path: str | Path) -> Iterator[tuple[Path, str]]:
    """Read images and captions from a JSON Lines or CSV file that `cutline caption` wrote.

    Rows with an error are skipped.

    Raises:
        DataError: the file is missing or of another form.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
    if path.suffix.lower() == ".csv":
        rows: Iterable[dict[str, object]] = csv.DictReader(text.splitlines(keepends=True))
    else:
        rows = _json_lines(path, text)
    for number, row in enumerate(rows, 1):
        if "source" not in row or "caption" not in row:
            raise DataError(
                f"{path}: row {number} has no source and caption; expected a file that "
                "`cutline caption -o` wrote"
            )
        if row.get("status", "ok") == "ok" and row["caption"]:
            yield Path(str(row["source"])), str(row["caption"])


def write_captions(
    captions: Iterable[tuple[Path, str]],
    *,
    options: MetadataOptions | None = None,
    journal: MetadataJournal | None = None,
    on_progress: OnProgress = ignore,
) -> BatchResult:
    """Write a caption into each image; an image that is refused does not end the batch.

    Args:
        captions: pairs of image path and caption.
        options: see `MetadataOptions`.
        journal: records the writes for `undo`.
        on_progress: called after each image.

    Raises:
        MissingExtraError: exiv2 is not installed.
        OSError: the journal cannot be written.
    """
    writer = CaptionWriter(options, journal)
    for done, (path, text) in enumerate(captions, 1):
        writer.write(path, text)
        on_progress(Progress("writing", done, failed=len(writer.result.failed)))
    return writer.result


def _json_lines(path: Path, text: str) -> Iterator[dict[str, object]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise DataError(f"{path}: line {number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise DataError(f"{path}: line {number} is not a JSON object")
        yield row
