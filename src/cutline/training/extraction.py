"""Computes features for `cutline features`: of a frozen backbone, or of detected regions."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.data import Example
from cutline.errors import ImageError
from cutline.training import encoders
from cutline.training.detectors import DETECTORS, detector_name
from cutline.training.encoders import EncoderOptions
from cutline.training.features import extract_features
from cutline.training.regions import detect
from cutline.training.regions import regions as read_regions

DETECTOR = "faster-rcnn"
"""The name of the backbone that detects regions."""


@dataclass
class Extracted:
    """The result of `extract`.

    Attributes:
        features: (I,N,D) float16, memory-mapped; NaN for an unreadable image.
        unreadable: the error of each unreadable image, by its position.
        images_per_s: without images that were there before; 0 if all were.
    """

    features: NDArray[np.float16]
    unreadable: dict[int, ImageError] = field(default_factory=dict)
    images_per_s: float = 0.0


def extract(
    options: EncoderOptions,
    examples: Sequence[Example],
    folder: Path,
    *,
    regions: Path | None = None,
    view: int = 0,
    progress: Callable[[int], None] = lambda _: None,
) -> Extracted:
    """Compute the features of images, or read them from a folder.

    Args:
        options: the backbone; `DETECTOR` detects regions with torchvision's Faster R-CNN.
        examples: whose images.
        folder: the cache.
        regions: published bottom-up-attention features to read instead.
        view: see `View`.
        progress: called with the number of images done since the last call.

    Raises:
        DataError: there are no images, or the regions of one are missing.
        RecipeError, WeightsError, MissingExtraError: as `load_encoder`.
    """
    unreadable: dict[int, ImageError] = {}
    steps: list[int] = []

    def count(number: int) -> None:
        steps.append(number)
        progress(number)

    began_s = time.monotonic()
    if regions is not None:
        features = read_regions(regions, examples, folder, progress=count).features
    elif options.backbone in (DETECTOR, *DETECTORS):
        weights = Path(options.weights) if options.weights else None
        features = detect(
            examples, folder, name=detector_name(options.backbone), weights=weights,
            side_px=options.side_px, progress=count, unreadable=unreadable.setdefault,
        ).features  # fmt: skip
    else:
        encoder = encoders.load_encoder(
            options.backbone,
            pooled=options.pooled,
            weights=Path(options.weights) if options.weights else None,
            side_px=options.side_px or None,
        )
        began_s = time.monotonic()
        features = extract_features(
            options, examples, folder, view=view, progress=count,
            unreadable=unreadable.setdefault, encoder=encoder,
        )  # fmt: skip
    speed = sum(steps[1:]) / (time.monotonic() - began_s)
    return Extracted(features, unreadable, speed)
