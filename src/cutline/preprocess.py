"""Preprocessing: an RGB image becomes the pixels that a model takes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from cutline.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Transform:
    """The way from an RGB image to a model's pixels: squash to a square, resize, normalise.

    Raises:
        OptionError: a side or number that no image can be turned into.
    """

    side_px: int = 260
    """Side of the square the model sees."""

    via_px: int = 224
    """Side of the square every image is squashed to first, as the training images were."""

    mean: float = 127.0
    """Taken from each 8-bit value."""

    scale: float = 128.0
    """Each difference is divided by it."""

    def __post_init__(self) -> None:
        """Refuse what no image can be turned into."""
        if self.side_px < 1 or self.via_px < 1:
            raise OptionError(
                f"got sides of {self.via_px} and {self.side_px} px; expected 1 or more"
            )
        if not 0 < self.scale < math.inf or not math.isfinite(self.mean):
            raise OptionError(
                f"got mean {self.mean} and scale {self.scale}; expected finite ones, scale above 0"
            )

    def squash(self, image: Image.Image) -> Image.Image:
        """Resize to a square without keeping the aspect ratio.

        Args:
            image: RGB, any size.

        Returns:
            RGB, `via_px` x `via_px`; the same object if it already has that size.
        """
        square = (self.via_px, self.via_px)
        return image if image.size == square else image.resize(square, Image.Resampling.BICUBIC)

    def normalise(self, image: Image.Image) -> NDArray[np.float32]:
        """Turn a squashed image into what the model takes.

        Args:
            image: RGB, from `squash`.

        Returns:
            (3, side_px, side_px) float32, contiguous, (value - mean) / scale.
        """
        square = image.resize((self.side_px, self.side_px), Image.Resampling.BICUBIC)
        pixels = np.empty((3, self.side_px, self.side_px), dtype=np.float32)
        planes = np.asarray(square).transpose(2, 0, 1)
        np.subtract(planes, np.float32(self.mean), out=pixels, dtype=np.float32)
        pixels /= np.float32(self.scale)
        return pixels

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Squash, then normalise: RGB of any size to (3, side_px, side_px) float32."""
        return self.normalise(self.squash(image))


@dataclass(frozen=True)
class DetectorTransform:
    """Preprocessing of a detector: an RGB image in its own aspect ratio, values from 0 to 1.

    Raises:
        OptionError: a side is out of range.
    """

    shorter_px: int = 800
    """The shorter side of the image that the detector takes."""

    longer_px: int = 1333
    """The longest side; long images get a shorter side below `shorter_px`."""

    multiple_px: int = 32
    """Both sides are rounded to multiples of it, so that no padding is needed."""

    def __post_init__(self) -> None:
        """Refuse sides that no image can have."""
        if not 1 <= self.multiple_px <= self.shorter_px <= self.longer_px:
            raise OptionError(
                f"got sides of {self.shorter_px} to {self.longer_px} px in steps of "
                f"{self.multiple_px}; expected the steps to be the smallest, from 1"
            )

    @property
    def via_px(self) -> int:
        """The side that images are decoded at or above."""
        return self.shorter_px

    @property
    def side_px(self) -> int:
        """The side of a square image after resizing."""
        return max(1, round(self.shorter_px / self.multiple_px)) * self.multiple_px

    def squash(self, image: Image.Image) -> Image.Image:
        """Resize, with the aspect ratio kept to within `multiple_px`.

        Args:
            image: RGB, any size.
        """
        factor = min(self.shorter_px / min(image.size), self.longer_px / max(image.size))
        width, height = (
            max(1, round(side * factor / self.multiple_px)) * self.multiple_px
            for side in image.size
        )
        return image.resize((width, height), Image.Resampling.BILINEAR)

    def normalise(self, image: Image.Image) -> NDArray[np.float32]:
        """A resized image as (3, H, W) float32, 0 to 1."""
        planes = np.asarray(image).transpose(2, 0, 1)
        return np.ascontiguousarray(planes, np.float32) / np.float32(255)

    def __call__(self, image: Image.Image) -> NDArray[np.float32]:
        """Resize, then normalise: RGB of any size to (3, H, W) float32."""
        return self.normalise(self.squash(image))
