"""Captioning: images in, captions out, in order. The main path, top to bottom."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Protocol, overload

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.bundle import Bundle, find
from cutline.errors import CutlineError, OptionError
from cutline.image import ImageSource, describe, load_image
from cutline.runtime import Encoded, Runtime
from cutline.search import Hypothesis, SearchOptions, search
from cutline.text import detokenise


@dataclass(frozen=True)
class Label:
    """One of the encoder's ImageNet classes with its probability (0 to 1)."""

    name: str
    probability: float


@dataclass(frozen=True)
class Alternative:
    """Another caption, with its mean log-probability per token in nats."""

    text: str
    score: float


@dataclass(frozen=True)
class Attention:
    """Where the model looked at each word.

    Attributes:
        words: the T words, as the decoder told them.
        weights: (T,N) float32, of each region at each word, non-negative, summing to 1 over N.
        grid: rows and columns of the N regions; the whole picture, squashed to a square.
    """

    words: tuple[str, ...]
    weights: NDArray[np.float32]
    grid: tuple[int, int]


@dataclass(frozen=True)
class Caption:
    """What a model says of one image, or why it could not.

    Attributes:
        source: the image's path, or a short description of what was given.
        text: the caption, a sentence; "" if there was an error.
        score: mean log-probability per token of the caption, eos included, nats; at most 0.
        model: the bundle's name.
        alternatives: the captions behind the best, best first.
        labels: what the picture shows by ImageNet's classes, likeliest first.
        attention: where the model looked, if it can say.
        embedding: (D,) float32, the encoder's mean feature, for comparing images.
        error: what was wrong with the image.
    """

    source: str
    text: str
    score: float
    model: str
    alternatives: tuple[Alternative, ...] = ()
    labels: tuple[Label, ...] = ()
    attention: Attention | None = field(default=None, compare=False, repr=False)
    embedding: NDArray[np.float32] | None = field(default=None, compare=False, repr=False)
    error: CutlineError | None = None

    @property
    def ok(self) -> bool:
        """Whether there is a caption."""
        return self.error is None


@dataclass(frozen=True)
class CaptionOptions:
    """How to caption.

    Attributes:
        search: how to search; None takes the model's own defaults.
        labels: how many labels to tell; 0 saves their cost.
        batch_size: images encoded at once, per thread.
    """

    search: SearchOptions | None = None
    labels: int = 5
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        if self.labels < 0:
            raise OptionError(f"got labels {self.labels}; expected 0 or more")
        if self.batch_size < 1:
            raise OptionError(f"got batch_size {self.batch_size}; expected 1 or more")


class Captioner(Protocol):
    """Whatever can caption images."""

    name: str
    search: SearchOptions

    def stream(
        self, images: Iterable[ImageSource], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """A caption or an error for every image, in order, as they come."""
        ...


class BundleCaptioner:
    """A model bundle that captions; safe to use from several threads.

    Args:
        bundle: the model.
        engine: "auto", "onnxruntime" or "openvino".
        threads: images are captioned on this many cores; None takes all there are.

    Attributes:
        name: the bundle's name.
        search: the model's search defaults.
    """

    def __init__(self, bundle: Bundle, engine: str = "auto", threads: int | None = None) -> None:
        if threads is not None and threads < 1:
            raise OptionError(f"got threads {threads}; expected 1 or more")
        self.threads = threads or len(os.sched_getaffinity(0))
        self.bundle, self.name = bundle, bundle.manifest.name
        self.search = SearchOptions(**bundle.manifest.search)
        self.runtime = Runtime(bundle, engine, self.threads)
        self._transform = bundle.transform

    @overload
    def caption(
        self, images: ImageSource, options: CaptionOptions | None = None
    ) -> Caption: ...
    @overload
    def caption(
        self, images: Sequence[ImageSource], options: CaptionOptions | None = None
    ) -> list[Caption]: ...
    def caption(
        self,
        images: ImageSource | Sequence[ImageSource],
        options: CaptionOptions | None = None,
    ) -> Caption | list[Caption]:
        """Caption one image, or a list of them.

        Args:
            images: one image (path, bytes, Pillow image or array), or a list or tuple of them.
            options: how; None takes the defaults.

        Returns:
            A caption for one image. For several, a list in the same order, in which an image that
            cannot be read has a caption with an `error`.

        Raises:
            ImageError: the one image cannot be read.
        """
        if isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray)):
            (only,) = self.stream([images], options)
            if only.error is not None:
                raise only.error
            return only
        return list(self.stream(images, options))

    def stream(
        self, images: Iterable[ImageSource], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption images as they come; memory does not grow with their number.

        Every thread takes a batch through decoding, encoding and search, so that all cores are
        busy until the last batch. The first batches are small: something to see soon.

        Args:
            images: any iterable; read a few batches ahead.
            options: how; None takes the defaults.

        Yields:
            One caption an image, in order; an image that cannot be read has one with an `error`.
        """
        options = options or CaptionOptions()
        waiting, size, taken = iter(images), 1, 0
        pending: deque[Future[list[Caption]]] = deque()
        pool = ThreadPoolExecutor(self.threads, thread_name_prefix="cutline")
        try:
            while batch := list(islice(waiting, size)):
                pending.append(pool.submit(self._batch, batch, options, taken))
                taken += len(batch)
                size = min(options.batch_size, 2 * size)
                if len(pending) > self.threads:
                    yield from pending.popleft().result()
            while pending:
                yield from pending.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _batch(
        self, images: Sequence[ImageSource], options: CaptionOptions, first: int
    ) -> list[Caption]:
        captions: dict[int, Caption] = {}
        pixels: dict[int, NDArray[np.float32]] = {}
        for place, image in enumerate(images):
            try:
                pixels[place] = self._transform(
                    load_image(image, around_px=self._transform.via_px)
                )
            except CutlineError as error:
                captions[place] = Caption(describe(image), "", 0.0, self.name, error=error)
        if pixels:
            encoded = self.runtime.encode(np.stack(list(pixels.values())))
            labels = self._labels(encoded, options.labels)
            found = search(
                self.runtime,
                self.runtime.start(encoded.features),
                len(pixels),
                options.search or self.search,
                bos=self.bundle.vocabulary.bos,
                eos=self.bundle.vocabulary.eos,
                banned=self.bundle.vocabulary.unsayable,
                bias=self.bundle.bias,
                first_image=first,
            )
            for row, place in enumerate(pixels):
                captions[place] = self._caption(
                    describe(images[place]), found[row], labels[row], encoded.embedding[row]
                )
        return [captions[place] for place in range(len(images))]

    def _caption(
        self,
        source: str,
        found: Sequence[Hypothesis],
        labels: tuple[Label, ...],
        embedding: NDArray[np.float32],
    ) -> Caption:
        best, *others = found
        words = tuple(self.bundle.vocabulary.decode(best.tokens))
        attention = None
        if best.attention is not None:
            attention = Attention(words, best.attention, self.bundle.manifest.grid)
        decode = self.bundle.vocabulary.decode
        return Caption(
            source=source,
            text=detokenise(words),
            score=best.score,
            model=self.name,
            alternatives=tuple(Alternative(detokenise(decode(h.tokens)), h.score) for h in others),
            labels=labels,
            attention=attention,
            embedding=embedding,
        )

    def _labels(self, encoded: Encoded, count: int) -> list[tuple[Label, ...]]:
        if not count:
            return [()] * len(encoded.mid)
        logits = self.runtime.logits(encoded.mid)
        odds = np.exp(logits - logits.max(axis=1, keepdims=True))
        odds /= odds.sum(axis=1, keepdims=True)
        likeliest = np.argsort(-odds, axis=1, kind="stable")[:, :count]
        names = self.bundle.labels
        return [
            tuple(Label(names[k], float(row[k])) for k in best)
            for row, best in zip(odds, likeliest, strict=True)
        ]


def load(
    model: str | Path | None = None, *, engine: str = "auto", threads: int | None = None
) -> BundleCaptioner:
    """Open a captioner.

    Args:
        model: a bundle's name or folder; None is the embedded default.
        engine: "auto" (OpenVINO if installed, else ONNX Runtime), "onnxruntime" or "openvino".
        threads: how many cores to use; None takes all there are.

    Raises:
        BundleNotFoundError: there is no such model; the message lists those there are.
        BundleError: the model's files are damaged.
        OptionError, MissingExtraError, EngineError: the engine is unknown, absent or fails.
    """
    return BundleCaptioner(find(model), engine, threads)


