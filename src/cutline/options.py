"""Options of captioning, described once: the help of commands and of the REST API comes from here.

Imports no arrays, so that `cutline --help` is quick.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from enum import StrEnum
from numbers import Integral
from pathlib import Path, PurePath
from typing import Any

from cutline.errors import OptionError

ENGINE_FORMS = "auto|onnxruntime|openvino[:float32|:bfloat16]"
"""The values of --engine."""

_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.]+(?:::[A-Za-z0-9+.]+)*://")


def is_address(path: object) -> bool:
    """Whether a path is a URL or an fsspec address, such as s3://bucket/key."""
    return isinstance(path, str) and _ADDRESS.match(path) is not None


def help_of(options: type, name: str) -> str:
    """The help text of an options class's field."""
    [found] = [each for each in fields(options) if each.name == name]
    text: str = found.metadata["help"]
    return text


def _option(default: Any, help_: str) -> Any:
    return field(default=default, metadata={"help": help_})


@dataclass(frozen=True)
class SearchOptions:
    """How captions are searched for; each field's metadata holds its help text.

    Raises:
        OptionError: an option is out of its range.
    """

    beam_size: int = _option(5, "Hypotheses that the beam search keeps; 1 is greedy search.")
    n_best: int = _option(1, "Captions for each image, best first.")
    length_penalty: float = _option(
        1.0,
        "Rank captions by log-probability / length ** penalty: 0 favors short captions, 1 is "
        "the mean per word, above 1 favors long captions.",
    )
    min_tokens: int = _option(1, "Minimum number of words in a caption.")
    max_tokens: int = _option(20, "Maximum number of words in a caption; longer ones are cut.")
    early_stop: bool = _option(
        False,
        "Stop when the finished captions rank above the current score of every unfinished one, "
        "instead of when no unfinished one can still outrank them.",
    )
    no_repeat_ngram: int = _option(
        3, "No sequence of this many words occurs twice in a caption; 0 allows all."
    )
    temperature: float | None = _option(
        None, "Sample captions instead of searching; higher is more random."
    )
    top_p: float = _option(
        1.0, "When sampling, use only the most likely words with this total probability."
    )
    seed: int | None = _option(
        None,
        "When sampling, the same seed gives the same captions; without one, Cutline uses 0, and a "
        "server chooses its own.",
    )

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        for name, least, most in (
            ("beam_size", 1, 1000),
            ("n_best", 1, 10_000),
            ("min_tokens", 0, math.inf),
            ("max_tokens", 1, math.inf),
            ("no_repeat_ngram", 0, math.inf),
            ("seed", 0, math.inf),
        ):
            value = getattr(self, name)
            if name == "seed" and value is None:
                continue
            fits = isinstance(value, Integral) and least <= int(value) <= most
            to = "up" if most == math.inf else f"to {most}"
            self._need(name, fits, f"a whole number from {least} {to}")
        self._need("length_penalty", 0 <= self.length_penalty <= 10, "a number from 0 to 10")
        self._need("top_p", 0 < self.top_p <= 1, "a number above 0, at most 1")
        self._need(
            "min_tokens",
            self.min_tokens <= self.max_tokens,
            f"at most max_tokens {self.max_tokens}",
        )
        if self.temperature is not None:
            self._need(
                "temperature",
                0 < self.temperature < math.inf,
                "a finite number above 0; for the likeliest word each time set beam_size 1 instead",
            )
        else:
            self._need(
                "n_best",
                self.n_best <= self.beam_size,
                f"at most beam_size {self.beam_size}; raise beam_size or set a temperature",
            )

    def _need(self, name: str, holds: bool, expected: str) -> None:
        if not holds:
            raise OptionError(f"got {name} {getattr(self, name)!r}; expected {expected}")


class Format(StrEnum):
    """How captions are written."""

    TEXT = "text"
    JSONL = "jsonl"
    CSV = "csv"
    PARQUET = "parquet"


@dataclass(frozen=True)
class FileOptions:
    """Which files are captioned, how, and where captions go; metadata holds the help texts.

    Raises:
        OptionError: an option is out of its range, or options do not fit each other.
    """

    recursive: bool = _option(False, "Search subfolders too.")
    column: str | None = _option(
        None,
        "Caption the images in this column of Parquet, CSV or JSON Lines files: paths, URLs or "
        "bytes.",
    )
    output: Path | str | None = field(
        default=None,
        metadata={
            "help": "Write to this file, or address such as s3://, instead of standard output. "
            "Parquet, and results at an address, are a folder of files."
        },
    )
    format: Format | None = field(
        default=None, metadata={"help": "Default: from the output file's extension, else text."}
    )
    resume: bool = _option(
        False,
        "Continue a jsonl, csv or parquet output: caption what is missing and retry what failed.",
    )
    force: bool = _option(False, "Replace an existing output or existing sidecars.")
    sidecar: bool = _option(False, "Also write each caption to a .txt file next to its image.")
    skip_existing: bool = _option(False, "Skip images that have a .txt file next to them.")
    n_best: int = _option(1, "Captions for each image, best first by score and length penalty.")
    labels: int | None = _option(
        None, "ImageNet labels for each image. Default: 5, none in text format."
    )
    batch_size: int = _option(16, "Images processed together.")
    search: dict[str, Any] = field(
        default_factory=dict,
        metadata={"help": "Fields of `SearchOptions` that differ from the model's defaults."},
    )

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if isinstance(self.output, str) and not is_address(self.output):
            object.__setattr__(self, "output", Path(self.output))
        if self.n_best < 1:
            raise OptionError(f"got n_best {self.n_best}; expected at least 1")
        if unknown := self.search.keys() - {each.name for each in fields(SearchOptions)}:
            raise OptionError(f"got search option {min(unknown)}; expected fields of SearchOptions")
        resumable = self.output is not None and self.rows_format is not Format.TEXT
        if self.resume and (self.force or not resumable):
            raise OptionError(
                "got --resume; expected a jsonl, csv or parquet --output, and no --force"
            )
        if self.rows_format is Format.PARQUET and self.output is None:
            raise OptionError("got --format parquet; expected an --output too")
        if self.is_sharded and self.rows_format not in (Format.PARQUET, Format.JSONL):
            raise OptionError(
                f"got --output {self.output} in {self.rows_format} format; expected parquet or "
                "jsonl at an address"
            )

    @property
    def rows_format(self) -> Format:
        """The format, from the output's extension if none is given."""
        if self.format is not None:
            return self.format
        extension = PurePath(self.output).suffix.lower().lstrip(".") if self.output else ""
        known = (Format.JSONL, Format.CSV, Format.PARQUET)
        return Format(extension) if extension in known else Format.TEXT

    @property
    def is_sharded(self) -> bool:
        """Whether the output is a folder of files instead of one file."""
        return self.rows_format is Format.PARQUET or isinstance(self.output, str)

    @property
    def label_count(self) -> int:
        """How many labels each image gets."""
        if self.labels is not None:
            return self.labels
        return 0 if self.rows_format is Format.TEXT else 5
