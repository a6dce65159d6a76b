"""Captions of an unfinished evaluation, kept in a file so that the next run continues with them."""

from __future__ import annotations

import math
from pathlib import Path

from cutline.caption import Caption
from cutline.errors import DataError, OutputError
from cutline.jsonl import RecordFile, read_records


class PartialCaptions:
    """Captions by model and image in a file of JSON lines, which the first new caption creates.

    Failed images are not kept, so the next run tries them again.

    Attributes:
        path: the file.

    Raises:
        DataError: the file exists and holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._captions: dict[tuple[str, str], tuple[Caption, float]] = {}
        self._file: RecordFile | None = None
        self._end = 0
        for end, record in read_records(path):
            try:
                score = math.nan if record["score"] is None else float(record["score"])
                caption = Caption(record["source"], record["caption"], score, record["model"])
                key = (record["model"], record["source"])
                self._captions[key] = caption, float(record["seconds"])
            except (LookupError, TypeError, ValueError) as error:
                raise DataError(
                    f"got {path}, which holds no captions of an evaluation; expected such a file "
                    "or none: move it away"
                ) from error
            self._end = end

    def __len__(self) -> int:
        """The number of captions in the file."""
        return len(self._captions)

    def get(self, model: str, image: Path) -> tuple[Caption, float] | None:
        """The caption that a model gave an image, and how long it took in seconds."""
        return self._captions.get((model, str(image)))

    def add(self, model: str, image: Path, caption: Caption, seconds: float) -> None:
        """Keep a caption, unless it is an error.

        Raises:
            OutputError: the file cannot be written.
        """
        if caption.error is not None:
            return
        record = {
            "model": model,
            "source": str(image),
            "caption": caption.text,
            "score": caption.score if math.isfinite(caption.score) else None,
            "seconds": seconds,
        }
        try:
            if self._file is None:
                self._file = RecordFile(self.path, keep_bytes=self._end)
            self._file.append(record)
        except OSError as error:
            raise OutputError(f"{self.path}: {error.strerror}; expected a writable file") from error
        self._captions[model, str(image)] = caption, seconds

    def close(self) -> None:
        """Close the file and keep it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def remove(self) -> None:
        """Delete the file: the evaluation is complete."""
        self.close()
        self.path.unlink(missing_ok=True)
