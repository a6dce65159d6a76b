"""Features of described boxes: the cells of a box, and a vector for the whole image beside them.

As in Mao et al. (2016), section 5, the words of a region depend on the region and on its image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.data import Example
from cutline.errors import DataError, ImageError, OptionError
from cutline.image import load_image
from cutline.regions.model import RegionOptions
from cutline.training.encoders import EncoderOptions, load_encoder
from cutline.training.features import (
    DEVICE,
    FeatureStore,
    Pixels,
    Progress,
    Unreadable,
    extract_features,
    forward_features,
)

MARGIN = RegionOptions().margin
"""Context around a box in training, as in `cutline regions`."""


def box_features(
    options: EncoderOptions,
    examples: Sequence[Example],
    folder: Path,
    *,
    progress: Progress | None = None,
    unreadable: Unreadable | None = None,
) -> NDArray[np.float16]:
    """The features of the box of every example, with the mean feature of its image as the last row.

    Args:
        options: the backbone, which stays frozen.
        examples: each with a box.
        folder: the cache, as of `features.extract_features`.
        progress: called with the number of boxes done since the last call.
        unreadable: called for each example whose image is unreadable or whose box lies outside of
            it; without it the first one raises.

    Returns:
        (len(examples), N + 1, D) float16; NaN for an unreadable image.

    Raises:
        DataError: an example has no box.
        ImageError: an image is unreadable, and there is no `unreadable`.
    """
    if missing := next((each.name for each in examples if each.box is None), None):
        raise DataError(f"got {missing} without a box; expected described regions")
    encoder = load_encoder(
        options.backbone,
        weights=Path(options.weights) if options.weights else None,
        side_px=options.side_px or None,
    )
    rows, columns = encoder.grid
    what = {
        "backbone": encoder.name,
        "weights": encoder.checksum,
        "transform": asdict(encoder.transform),
        "boxes": [each.box.xywh for each in examples if each.box is not None],
        "margin": MARGIN,
    }

    def decode(example: Example) -> Pixels:
        image = load_image(example.image)
        assert example.box is not None
        try:
            box = example.box.within(image.size, str(example.image))
        except OptionError as error:
            raise ImageError(str(example.image), str(error)) from error
        return encoder.transform(image.crop(box.crop(MARGIN, image.size)))

    store = FeatureStore(folder, what, examples, (rows * columns, encoder.width))
    forward = forward_features(encoder.to(DEVICE))
    cells = store.fill(decode, forward, progress, unreadable)
    images = {each.image: replace(each, key="", box=None) for each in examples}
    wholes = extract_features(
        replace(options, features="grid"), [*images.values()], folder, encoder=encoder,
        unreadable=unreadable and (lambda *_: None),
    )  # fmt: skip
    means = np.stack([each.astype(np.float32).mean(0) for each in wholes]).astype(np.float16)
    place = {image: i for i, image in enumerate(images)}
    beside = means[[place[each.image] for each in examples]]
    return np.concatenate([cells, beside[:, None]], axis=1)
