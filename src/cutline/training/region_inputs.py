"""Features of described boxes: the cells of a box, its image's mean feature, and its place.

As in Mao et al. (2016), section 5, the words depend on the region, its image, and its place there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cutline.boxes import place_vector
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
    """The features of every example's box, then its image's mean feature and `place_vector`.

    Args:
        options: the backbone, which stays frozen.
        examples: each with a box.
        folder: the cache, as of `features.extract_features`.
        progress: called with the number of boxes done since the last call.
        unreadable: called for each example whose image is unreadable or whose box lies outside of
            it; without it the first one raises.

    Returns:
        (len(examples), N + 2, D) float16; NaN for an unreadable image.

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

    def decode(example: Example) -> tuple[Pixels, Pixels]:
        image = load_image(example.image)
        assert example.box is not None
        try:
            box = example.box.within(image.size, str(example.image))
        except OptionError as error:
            raise ImageError(str(example.image), str(error)) from error
        pixels = encoder.transform(image.crop(box.crop(MARGIN, image.size)))
        return pixels, place_vector(box, image.size, encoder.width)

    def forward(batch: list[tuple[Pixels, Pixels]]) -> Pixels:
        places = np.stack([place for _, place in batch])
        features = encode([pixels for pixels, _ in batch])
        return np.concatenate([features, places[:, None]], axis=1)

    store = FeatureStore(folder, what, examples, (rows * columns + 1, encoder.width))
    encode = forward_features(encoder.to(DEVICE))
    cells = store.fill(decode, forward, progress, unreadable)
    images = {each.image: replace(each, key="", box=None) for each in examples}
    wholes = extract_features(
        replace(options, features="grid"), [*images.values()], folder, encoder=encoder,
        unreadable=unreadable and (lambda *_: None),
    )  # fmt: skip
    means = np.stack([each.astype(np.float32).mean(0) for each in wholes]).astype(np.float16)
    place = {image: i for i, image in enumerate(images)}
    beside = means[[place[each.image] for each in examples]]
    return np.concatenate([cells[:, :-1], beside[:, None], cells[:, -1:]], axis=1)
