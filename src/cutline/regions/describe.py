"""Describing regions: boxes given, detected or proposed, each with the words of a captioner."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from cutline.boxes import Box, suppress
from cutline.caption import (
    BaseCaptioner,
    Caption,
    CaptionOptions,
    EncodedImage,
    InContext,
    Picture,
)
from cutline.errors import ImageError, OptionError
from cutline.image import decode_image, describe
from cutline.regions.grounding import ground
from cutline.regions.model import Detection, Detector, ImageRegions, Region, RegionOptions
from cutline.regions.proposals import propose, windows

if TYPE_CHECKING:
    from PIL import Image

_ALIKE_WORDS = 0.6  # from this F1 of their words on, two phrases may be about the same object
_COVERED = 0.4  # two boxes with such phrases are one object if they share so much of the smaller


class RegionCaptioner(BaseCaptioner):
    """A captioner that describes regions too, by captioning the part of the image around each."""

    name: str

    def _caption_boxes(
        self,
        image: Image.Image,
        boxes: Sequence[Box],
        margin: float,
        whole: Any,
        options: CaptionOptions,
    ) -> Iterator[Caption]:
        """Caption parts of an image.

        Args:
            image: RGB.
            boxes: of the parts, px.
            margin: as in `RegionOptions`.
            whole: the image after `encode`; None if it was not encoded.
            options: how.
        """
        crops = [image.crop(box.crop(margin, image.size)) for box in boxes]
        return self.stream(crops, options)

    @property
    def _needs_whole(self) -> bool:
        """Whether phrases depend on the whole image too."""
        return False

    def regions(
        self,
        image: Picture,
        boxes: Sequence[Box | Sequence[float]] | None = None,
        options: RegionOptions | None = None,
        detector: Detector | None = None,
    ) -> ImageRegions:
        """Describe regions of one image.

        Args:
            image: a path, the bytes of a file, a Pillow image or an array.
            boxes: exactly these regions, each a `Box` or x, y, width, height in pixels of the
                upright image; None finds regions.
            options: how; None is the default.
            detector: finds the boxes; None takes the proposals of `cutline.regions.proposals`.

        Returns:
            the regions, best first; for given boxes one for each, in their order.

        Raises:
            ImageError: the image cannot be read.
            OptionError: a box has no area or lies outside the image.
            EngineError: inference failed.
        """
        [found] = self.stream_regions([image], boxes, options, detector)
        if found.error is not None:
            raise found.error
        return found

    def stream_regions(
        self,
        images: Iterable[Picture],
        boxes: Sequence[Box | Sequence[float]] | None = None,
        options: RegionOptions | None = None,
        detector: Detector | None = None,
    ) -> Iterator[ImageRegions]:
        """Describe regions of any number of images, in order and in little memory.

        An image that cannot be read, or that no given box fits, is an item with its error. The
        arguments are those of `regions`.

        Raises:
            EngineError: inference failed.
        """
        options = options or RegionOptions()
        given = None if boxes is None else [_box(each) for each in boxes]
        for image in images:
            bare = image.image if isinstance(image, InContext) else image
            try:
                decoded = decode_image(bare, limits=options.limits)
                rgb = decoded.image
                fitted = given and [box.within(rgb.size, describe(bare)) for box in given]
            except (ImageError, OptionError) as error:
                yield ImageRegions(describe(bare), model=self.name, error=error)
                continue
            found = self._describe(describe(bare), rgb, fitted, options, detector)
            yield replace(found, note=decoded.note)

    def _describe(
        self,
        source: str,
        rgb: Image.Image,
        boxes: Sequence[Box] | None,
        options: RegionOptions,
        detector: Detector | None,
    ) -> ImageRegions:
        chosen = CaptionOptions(options.search, labels=1, batch_size=options.batch_size)
        whole: Caption | None = None
        encoded: Any = None
        if (boxes is None and detector is None) or options.caption or self._needs_whole:
            encoded = self.encode(rgb, chosen)
            if options.caption:
                [whole] = self.decode([encoded], chosen)
        labels: list[Detection | None]
        if boxes is not None:
            found, labels = list(boxes), [None] * len(boxes)
        elif detector is not None:
            detections = _merged_detections(detector(rgb), rgb.size, options)
            found, labels = [each.box for each in detections], [*detections]
        else:
            found = _proposals(encoded, rgb.size, options)
            labels = [None] * len(found)
        captions = self._caption_boxes(rgb, found, options.margin, encoded, chosen)
        regions = [_region(*each) for each in zip(found, captions, labels, strict=True)]
        if boxes is None:
            regions = best(regions, options)
        return ImageRegions(
            source,
            rgb.width,
            rgb.height,
            tuple(regions),
            whole.text if whole else "",
            ground(whole, rgb.size) if whole else (),
            self.name,
        )


def best(regions: Sequence[Region], options: RegionOptions) -> list[Region]:
    """Order regions by confidence and merge those that show the same thing.

    Args:
        regions: in any order.
        options: `max_regions`, `max_overlap` and `min_confidence` are used.

    Returns:
        the regions kept, best first.
    """
    boxes = _array([region.box for region in regions])
    kept: list[int] = []
    for index in suppress(boxes, [region.confidence for region in regions], options.max_overlap):
        region = regions[index]
        if region.confidence < options.min_confidence or len(kept) == options.max_regions:
            break
        if not any(_same_object(region, regions[other]) for other in kept):
            kept.append(index)
    return [regions[index] for index in kept]


def _same_object(region: Region, other: Region) -> bool:
    """Whether two boxes that overlap are described in much the same words."""
    across = _shared(region.box.x, region.box.width, other.box.x, other.box.width)
    down = _shared(region.box.y, region.box.height, other.box.y, other.box.height)
    smaller = min(region.box.width * region.box.height, other.box.width * other.box.height)
    words, others = set(region.phrase.split()), set(other.phrase.split())
    alike = 2 * len(words & others) / max(1, len(words) + len(others))
    return alike >= _ALIKE_WORDS and across * down > _COVERED * smaller * (alike < 1)


def _shared(start: float, length: float, other: float, other_length: float) -> float:
    return max(0.0, min(start + length, other + other_length) - max(start, other))


def phrase_of(caption: str) -> str:
    """A caption as a phrase: no capital letter at its start, no full stop at its end."""
    text = caption.removesuffix(".")
    first, space, rest = text.partition(" ")
    return f"{first.lower() if first[1:].islower() or len(first) == 1 else first}{space}{rest}"


def _region(box: Box, caption: Caption, detection: Detection | None) -> Region:
    if caption.error is not None:
        raise caption.error
    sure = math.exp(min(0.0, caption.score)) if math.isfinite(caption.score) else 0.0
    name, probability = "", 0.0
    if caption.labels:
        name, probability = caption.labels[0].name, caption.labels[0].probability
    if detection is not None:
        name, probability = detection.label or name, detection.score
        sure = detection.score
    return Region(box, phrase_of(caption.text), name, sure, probability, caption.score)


def _proposals(encoded: Any, size: tuple[int, int], options: RegionOptions) -> list[Box]:
    """Boxes in pixels: the encoder's, or from its grid, else a fixed set of windows."""
    side = 0
    if isinstance(encoded, EncodedImage) and encoded.boxes is not None:
        corners = np.unique(encoded.boxes.astype(np.float64), axis=0, return_index=True)
        left, top, right, bottom = encoded.boxes[np.sort(corners[1])].astype(np.float64).T
        found = np.stack([left, top, right - left, bottom - top], 1) * [*size, *size]
        solid = found[(found[:, 2:] >= 1).all(1)][: options.proposals]
        return [Box.of(row) for row in solid]
    if isinstance(encoded, EncodedImage):  # two vectors for the whole image may follow the cells
        side = math.isqrt(encoded.features.shape[1])
    if side > 2 and encoded.features.shape[1] - side * side in (0, 2):
        cells = encoded.features[0, : side * side]
        fractions = propose(cells.reshape(side, side, -1), options.proposals)
    else:
        fractions = windows()[: options.proposals]
    scale = np.array([*size, *size])
    return [Box.of(row) for row in fractions * scale]


def _merged_detections(
    found: Iterable[Detection], size: tuple[int, int], options: RegionOptions
) -> list[Detection]:
    detections = []
    for each in found:
        try:
            box = each.box.within(size)
        except OptionError:
            continue
        detections.append(Detection(box, each.label, each.score))
    boxes = _array([each.box for each in detections])
    kept = suppress(boxes, [each.score for each in detections], options.max_overlap)
    return [detections[index] for index in kept[: options.proposals]]


def _box(given: Box | Sequence[float]) -> Box:
    if isinstance(given, Box):
        return given
    return Box.of(given)


def _array(boxes: Sequence[Box]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([box.xywh for box in boxes], np.float64).reshape(-1, 4)
