"""Bundles as captioners: from images to captions, in order.

A run is cut into batches. One thread takes a batch from end to end (read, look, search) while
others do the same with the next ones, so that reading, looking and searching overlap, no core
waits for another, and at most a few batches are in memory. Pictures are looked at one by one and
searched for by themselves, and what is drawn at random depends on their pixels, so neither the
batch, nor the number of threads, nor the other pictures of a run change a caption.
"""

from __future__ import annotations

import math
import threading
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from cutline.boxes import Box, cell_shares, place_vector
from cutline.bundle import find
from cutline.caption import (
    Alternative,
    Attention,
    Caption,
    CaptionOptions,
    EncodedImage,
    Floats,
    InContext,
    Label,
    Picture,
)
from cutline.errors import BundleError, ImageError, OptionError
from cutline.image import ImageSource, decode_image, describe
from cutline.image_kind import softmax
from cutline.options import SearchOptions
from cutline.parallel import map_in_order
from cutline.regions.describe import RegionCaptioner
from cutline.runtime import Encoded, Runtime
from cutline.search import Hypothesis, search
from cutline.text import detokenise, normalise

_FUNCTION_WORDS = frozenset(
    """a about after all an and another any are as at be been before being between but by can
    could did do does down each for from had has have he her here him his how i if in into is it
    its just may me more most my n't no nor not of off on one only or other our out over own 's she
    so some such than that the their them then there these they this those through to too under
    until up us very was we were what when where which while who why will with would you your
    """.split()
)


def load(
    model: str | Path | None = None, *, engine: str = "auto", threads: int | None = None
) -> BundleCaptioner:
    """Make a captioner ready.

    Args:
        model: a name among `cutline models`, or a bundle's folder; None is the embedded default.
        engine: "auto", "onnxruntime" or "openvino"; "openvino:float32" sets the precision, too.
        threads: how many pictures are worked on at once; None is one for each core.

    Raises:
        BundleNotFoundError: there is no such model; the message lists those there are.
        BundleError: it is damaged or of an unknown kind.
        MissingExtraError: the engine is not installed.
        OptionError: there is no such engine or precision, or less than one thread.
    """
    return BundleCaptioner(Runtime(find(model), engine, threads))


class BundleCaptioner(RegionCaptioner):
    """A model bundle as a `Captioner`.

    Raises:
        BundleError: the bundle's words or search defaults do not fit.
    """

    def __init__(self, runtime: Runtime) -> None:
        self.runtime = runtime
        manifest = runtime.bundle.manifest
        self.name = manifest.name
        try:
            self.search = SearchOptions(**manifest.search)
        except (TypeError, OptionError) as error:
            raise BundleError(f"{runtime.bundle.folder}: search defaults: {error}") from error
        self._transform = manifest.preprocessing
        self._grid = manifest.grid
        self._input = manifest.input
        self._vocabulary = runtime.bundle.vocabulary()
        self._labels = runtime.bundle.labels()
        self._bias = runtime.bundle.bias()
        self._kinds = runtime.bundle.kinds()

    @property
    def computation(self) -> dict[str, Any]:
        """How captions are computed: "engine", "precision" and "threads"."""
        runtime = self.runtime
        return {
            "engine": runtime.engine,
            "precision": runtime.precision,
            "threads": runtime.threads,
        }

    def _one(self, image: Picture, options: CaptionOptions | None) -> Caption:
        [caption] = self._caption([image], options or CaptionOptions(), threading.Event())
        return caption

    def stream(
        self, images: Iterable[Picture], options: CaptionOptions | None = None
    ) -> Iterator[Caption]:
        """Caption any number of pictures in order, in little memory: see `Captioner.stream`."""
        options = options or CaptionOptions()
        threads = self.runtime.threads
        stop = threading.Event()
        work = partial(self._caption, options=options, stop=stop)
        batches = _batches(images, options.batch_size, threads)
        captions = map_in_order(work, batches, threads=threads, ahead=2 * threads)
        try:
            for batch in captions:
                yield from batch
        finally:
            stop.set()
            captions.close()

    def _caption(
        self, images: list[Picture], options: CaptionOptions, stop: threading.Event
    ) -> list[Caption]:
        """Caption the pictures of one batch."""
        encoded: list[EncodedImage | ImageError] = []
        for image in images:
            if stop.is_set():
                return []
            try:
                encoded.append(self.encode(image, options))
            except ImageError as error:
                encoded.append(error)
        captions: list[Caption] = []
        for readable, run in groupby(encoded, lambda each: isinstance(each, EncodedImage)):
            if readable:
                good = [each for each in run if isinstance(each, EncodedImage)]
                captions += self.decode(good, options)
            else:
                bad = [each for each in run if isinstance(each, ImageError)]
                captions += [Caption(each.source, model=self.name, error=each) for each in bad]
        return captions

    def encode(self, image: Picture, options: CaptionOptions) -> EncodedImage:
        """Read and encode one picture, on the calling thread: the first half of captioning.

        Raises:
            ImageError: it cannot be read.
            EngineError: inference failed.
            BundleError: the encoder returns other regions than the manifest says.
        """
        bare = _bare(image)
        decoded = decode_image(bare, around_px=self._transform.via_px, limits=options.limits)
        square = self._transform.squash(decoded.image)
        output = self.runtime.encode(self._transform.normalise(square)[None])
        features = self._checked(output)
        labels: tuple[Label, ...] = ()
        if options.labels and self._labels:
            probabilities = softmax(self.runtime.logits(output)[0])
            likeliest = np.argsort(-probabilities, kind="stable")[: options.labels]
            labels = tuple(Label(self._labels[i], float(probabilities[i])) for i in likeliest)
        context: tuple[int, ...] = ()
        if isinstance(image, InContext) and options.context_nats:
            near = set(normalise(image.words)) - _FUNCTION_WORDS
            context = tuple(set(self._vocabulary.encode(near)) - {self._vocabulary.unk})
        return EncodedImage(
            describe(bare),
            features,
            output.embedding[0],
            labels,
            context,
            zlib.crc32(square.tobytes()),
            decoded.note,
            self._kinds.classify(output.embedding[0]) if self._kinds else None,
            None if output.boxes is None else output.boxes[0],
        )

    def _checked(self, output: Encoded) -> Floats:
        """The features (1, N, D) that the decoder takes, from the encoder's output for one image.

        Raises:
            BundleError: the encoder returns other regions than the manifest says.
        """
        if (output.boxes is None) == (self._input == "detector"):
            raise BundleError(
                f"{self.runtime.bundle.folder}: got an encoder "
                f"{'without' if output.boxes is None else 'with'} boxes; expected one that fits "
                f"the manifest's input {self._input!r}"
            )
        if output.boxes is None and output.features.shape[1] != math.prod(self._grid):
            raise BundleError(
                f"{self.runtime.bundle.folder}: got {output.features.shape[1]} regions; expected "
                f"the manifest's grid of {self._grid[0]} x {self._grid[1]}"
            )
        if self._input == "box":  # a whole image is the box of itself
            place = place_vector(None, (1, 1), output.features.shape[2])
            rows = [output.features, output.embedding[:, None], place[None, None]]
            return np.concatenate(rows, axis=1)
        return output.features

    @property
    def _needs_whole(self) -> bool:
        return self._input == "box"

    def _caption_boxes(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        margin: float,
        whole: EncodedImage | None,
        options: CaptionOptions,
    ) -> Iterator[Caption]:
        if self._input != "box" or whole is None:
            yield from super()._caption_boxes(image, boxes, margin, whole, options)
            return
        for first in range(0, len(boxes), options.batch_size):
            encoded = []
            for box in boxes[first : first + options.batch_size]:
                one = self.encode(image.crop(box.crop(margin, image.size)), options)
                place = place_vector(box, image.size, one.features.shape[2])
                rows = [one.features[:, :-2], whole.features[:, -2:-1], place[None, None]]
                encoded.append(replace(one, features=np.concatenate(rows, axis=1)))
            yield from self.decode(encoded, options)

    def _on_grid(self, encoded: EncodedImage, weights: Floats) -> Floats:
        """Attention (T, N) over the decoder's regions -> over the cells of the manifest's grid."""
        if encoded.boxes is not None:
            cells: Floats = weights @ cell_shares(encoded.boxes, self._grid)
            return cells
        if self._input == "box":
            cells = weights[:, :-2]
            cells = cells / np.maximum(cells.sum(axis=1, keepdims=True), np.float32(1e-12))
            return cells
        return weights

    def decode(self, encoded: Sequence[EncodedImage], options: CaptionOptions) -> list[Caption]:
        """Caption what was looked at, together, on the calling thread: the second half.

        Args:
            encoded: from `encode`, with the same options.
            options: how.

        Raises:
            EngineError: inference failed.
        """
        words = self._vocabulary
        state = self.runtime.start(np.concatenate([each.features for each in encoded]))
        found = search(
            self.runtime,
            state,
            len(encoded),
            options.search or self.search,
            bos=words.bos,
            eos=words.eos,
            bias=self._favour(encoded, options.context_nats),
            banned=(words.pad, words.bos, words.unk),
            draw_keys=[each.checksum for each in encoded],
        )
        return list(map(self._to_caption, encoded, found))

    def _favour(self, encoded: Sequence[EncodedImage], context_nats: float) -> Floats | None:
        """What is added to each word of each picture (B, V), nats; or of all (V,); or nothing."""
        if not any(each.context for each in encoded):
            return self._bias
        bias = np.zeros((len(encoded), len(self._vocabulary)), np.float32)
        if self._bias is not None:
            bias += self._bias
        for row, each in zip(bias, encoded, strict=True):
            row[list(each.context)] += context_nats
        return bias

    def _to_caption(self, encoded: EncodedImage, found: list[Hypothesis]) -> Caption:
        if not found:
            raise OptionError(
                "got search options that no caption can satisfy; expected looser ones"
            )
        best, *others = found
        words = self._vocabulary.decode(best.tokens)
        attention = None
        if best.attention is not None:
            attention = Attention.of_pieces(
                self._on_grid(encoded, best.attention), self._grid, words
            )
        return Caption(
            encoded.source,
            detokenise(words),
            best.score,
            self.name,
            tuple(
                Alternative(detokenise(self._vocabulary.decode(other.tokens)), other.score)
                for other in others
            ),
            encoded.labels,
            attention,
            encoded.embedding,
            note=encoded.note,
            kind=encoded.kind,
        )


def _bare(image: Picture) -> ImageSource:
    return image.image if isinstance(image, InContext) else image


def _batches(images: Iterable[Picture], size: int, threads: int) -> Iterator[list[Picture]]:
    """Cut a run into batches: one picture for each thread, then two, four, up to `size`.

    So the first captions are soon there, and short runs occupy all threads.
    """
    waiting = iter(images)
    length = 1
    while True:
        for _ in range(threads):
            batch = list(islice(waiting, length))
            if not batch:
                return
            yield batch
        length = min(2 * length, size)
