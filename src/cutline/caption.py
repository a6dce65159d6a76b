"""Captions, caption options and the `Captioner` protocol; imports no inference engine."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Protocol, Self, TypeAlias, overload

import numpy as np
from numpy.typing import NDArray

from cutline.errors import CutlineError, OptionError
from cutline.image import ImageSource, Limits
from cutline.image_kind import ImageKind
from cutline.jsonl import finite
from cutline.options import SearchOptions
from cutline.text import CONTINUES, whole_words

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class Label:
    """One of the 1,000 ImageNet classes, with its probability in 0..1."""

    name: str
    probability: float


@dataclass(frozen=True)
class Alternative:
    """Another caption of the same image, with its mean log-probability per token, nats."""

    text: str
    score: float


@dataclass(frozen=True)
class Attention:
    """Where the model looked at as it chose each word.

    Attributes:
        weights: (T, N), non-negative, for T words over N regions, row by row of the grid.
        grid: rows and columns; their product is N.
        words: the T words.
    """

    weights: Floats = field(compare=False, repr=False)
    grid: tuple[int, int]
    words: tuple[str, ...]

    @classmethod
    def of_pieces(cls, weights: Floats, grid: tuple[int, int], pieces: Sequence[str]) -> Self:
        """Attention by word from attention by piece of a word: the mean over a word's pieces.

        Args:
            weights: (T, N), one row for each piece.
            grid: rows and columns; their product is N.
            pieces: T words or pieces; a piece that continues a word begins with `text.CONTINUES`.
        """
        starts = [i for i, piece in enumerate(pieces) if not (i and piece.startswith(CONTINUES))]
        if len(starts) == len(pieces):
            return cls(weights, grid, tuple(pieces))
        spans = list(pairwise([*starts, len(pieces)]))
        words = tuple("".join(whole_words(pieces[start:end])) for start, end in spans)
        means = np.stack([weights[start:end].mean(axis=0) for start, end in spans])
        return cls(means, grid, words)


@dataclass(frozen=True)
class Caption:
    """What a model says about one image, or why it says nothing.

    Attributes:
        source: the path, or a short description of what else was given.
        text: the sentence; "" if there is an error.
        score: mean log-probability per token, nats; -inf if there is an error, not a number if
            the captioner does not tell.
        model: who says so.
        alternatives: the next best captions, best first.
        labels: the likeliest ImageNet classes, likeliest first.
        attention: what was looked at; None if the model has none.
        embedding: (E,), one vector for the image.
        error: what is wrong with the image.
        note: what is missing of a damaged image that was captioned all the same, or what is odd
            about a chat model's answer, such as its language; "" if nothing.
        kind: photograph, screenshot, chart and so on; None if the model does not tell.
    """

    source: str
    text: str = ""
    score: float = -math.inf
    model: str = ""
    alternatives: tuple[Alternative, ...] = ()
    labels: tuple[Label, ...] = ()
    attention: Attention | None = None
    embedding: Floats | None = field(default=None, compare=False, repr=False)
    error: CutlineError | None = None
    note: str = ""
    kind: ImageKind | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a caption."""
        return self.error is None

    def to_dict(self) -> dict[str, Any]:
        """The object that `--format jsonl` writes: all but attention and embedding.

        Numbers have four decimals; a score that is not a number is None; `note` is there only if
        there is one.
        """
        error = self.error
        row = {
            "source": self.source,
            "status": "ok" if error is None else "error",
            "caption": self.text if error is None else None,
            "score": finite(self.score) if error is None else None,
            "alternatives": [
                {"caption": other.text, "score": finite(other.score)} for other in self.alternatives
            ],
            "labels": [
                {"name": label.name, "probability": finite(label.probability)}
                for label in self.labels
            ],
            "kind": self.kind
            and {"name": self.kind.name, "probability": round(self.kind.probability, 4)},
            "model": self.model,
            "error": error and error.to_dict(),
        }
        return {**row, "note": self.note} if self.note else row


@dataclass(frozen=True)
class InContext:
    """An image with words that stand near it, which its caption may well use.

    Attributes:
        image: the image.
        words: any text; those of its words that the model knows are favoured, function words not.
    """

    image: ImageSource
    words: str = ""


Picture: TypeAlias = "ImageSource | InContext"


@dataclass(frozen=True)
class CaptionOptions:
    """How images are captioned.

    Raises:
        OptionError: an option is out of its range.
    """

    search: SearchOptions | None = None
    """How captions are searched for; None is the model's own way."""

    labels: int = 5
    """How many labels each image gets; 0 saves their cost."""

    batch_size: int = 16
    """Images that one thread works on together."""

    context_nats: float = 1.0
    """How much each word of an `InContext` gains wherever words are chosen; 0 is not at all."""

    limits: Limits = field(default_factory=Limits)
    """How much one image may ask for before it is refused by its header."""

    scores: bool = False
    """Request log-probabilities from a server, for `Caption.score`; other models always score."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.labels < 0:
            raise OptionError(f"got labels {self.labels}; expected at least 0")
        if self.batch_size < 1:
            raise OptionError(f"got batch_size {self.batch_size}; expected at least 1")
        if not 0 <= self.context_nats < math.inf:
            raise OptionError(f"got context_nats {self.context_nats}; expected 0 or a little more")


class Captioner(Protocol):
    """Whatever can caption images; safe to use from several threads.

    Attributes:
        name: of the model, as its captions give it.
        search: how it searches unless the options say otherwise.
    """

    name: str
    search: SearchOptions

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: Picture, options: CaptionOptions | None = None
    ) -> Caption: ...

    @overload
    def caption(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> list[Caption]: ...

    def caption(
        self, images: Picture | Iterable[Picture], options: CaptionOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption one image, or several.

        Args:
            images: a path, the bytes of a file, a Pillow image or an array; or any number of them.
            options: how; None is the default.

        Returns:
            A caption for one image; for several a list in their order, where one that cannot be
            read is an item with its error.

        Raises:
            ImageError: the one image asked for cannot be read.
            EngineError: inference failed.
        """
        ...

    def encode(self, image: Picture, options: CaptionOptions) -> Any:
        """Read and encode one image on the calling thread: the first half of captioning.

        Returns:
            An input for `decode`.

        Raises:
            ImageError: the image cannot be read.
            EngineError: inference failed.
        """
        ...

    def decode(self, encoded: Sequence[Any], options: CaptionOptions) -> list[Caption]:
        """Caption a batch of encoded images on the calling thread: the second half.

        Args:
            encoded: results of `encode` with the same options.
            options: the caption options.

        Returns:
            One caption for each encoded image, in order.

        Raises:
            EngineError: inference failed.
        """
        ...

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images in little memory, in order, each as soon as it is ready.

        Images are asked for a few batches ahead. Closing the iterator ends its threads.

        Args:
            images: as for `caption`.
            options: how; None is the default.

        Raises:
            EngineError: inference failed.
        """
        ...


@dataclass(frozen=True)
class EncodedImage:
    """One image after the encoder.

    Attributes:
        source: as in `Caption.source`.
        features: (1, N, D), a vector for each region.
        embedding: (E,), one vector for the image.
        labels: the likeliest, likeliest first.
        context: ids of the words that stand near it.
        checksum: of its pixels, on which draws depend.
        note: as in `Caption.note`.
        kind: what kind of image it is; None if the model does not tell.
        boxes: (N, 4), left, top, right, bottom of each region as fractions of the image; None if
            the regions are cells of a grid.
    """

    source: str
    features: Floats
    embedding: Floats
    labels: tuple[Label, ...]
    context: tuple[int, ...]
    checksum: int
    note: str = ""
    kind: ImageKind | None = None
    boxes: Floats | None = None


class BaseCaptioner:
    """Implements `caption`, `encode` and `decode` on top of `stream`.

    Captioners with two real steps override `encode` and `decode`.

    Attributes:
        language: the only language in which it writes, such as "en"; "" if that is not known.
    """

    language: str = ""

    @abstractmethod
    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of images in order: see `Captioner.stream`."""

    def encode(self, image: Picture, options: CaptionOptions) -> Any:
        """Return the image itself: `decode` reads it."""
        return image

    def decode(self, encoded: Sequence[Any], options: CaptionOptions) -> list[Caption]:
        """Caption the images together: see `Captioner.decode`."""
        return list(self.stream(encoded, options))

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        [caption] = self.stream([image], options)
        return caption

    @overload
    def caption(  # type: ignore[overload-overlap]
        self, images: Picture, options: CaptionOptions | None = None
    ) -> Caption: ...

    @overload
    def caption(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> list[Caption]: ...

    def caption(
        self, images: Picture | Iterable[Picture], options: CaptionOptions | None = None
    ) -> Caption | list[Caption]:
        """Caption one image, or several: see `Captioner.caption`."""
        if isinstance(images, Iterable) and not isinstance(images, str | bytes | np.ndarray):
            return list(self.stream(images, options))
        caption = self._one(images, options)
        if caption.error is not None:
            raise caption.error
        return caption
