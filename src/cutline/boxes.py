"""Boxes in images: parsing, margins, overlap and non-maximum suppression."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cutline.errors import OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray

_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))\s*(%?)")


@dataclass(frozen=True)
class Box:
    """A rectangle in an image as COCO writes it; the origin is the upper left corner.

    Attributes:
        x: left edge, px or %.
        y: upper edge.
        width: width.
        height: height.
        percent: which of the four numbers, in this order, are percentages of the image's size.

    Raises:
        OptionError: a number is not finite, or the box has no area.
    """

    x: float
    y: float
    width: float
    height: float
    percent: tuple[bool, bool, bool, bool] = (False, False, False, False)

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not all(map(math.isfinite, self.xywh)) or min(self.width, self.height) <= 0:
            raise OptionError(
                f"got box {','.join(f'{value:g}' for value in self.xywh)}; "
                "expected X,Y,WIDTH,HEIGHT with a width and a height above 0"
            )

    @property
    def xywh(self) -> tuple[float, float, float, float]:
        """The four numbers."""
        return self.x, self.y, self.width, self.height

    @classmethod
    def of(cls, numbers: Iterable[float]) -> Box:
        """A box in pixels from its four numbers.

        Raises:
            OptionError: there are more or fewer, or they are no box.
        """
        given = [float(number) for number in numbers]
        if len(given) != 4:
            raise OptionError(f"got a box of {len(given)} numbers; expected x, y, width, height")
        return cls(given[0], given[1], given[2], given[3])

    @classmethod
    def parse(cls, text: str) -> Box:
        """Read `10,20,30,40` (pixels) or `10%,20%,30%,40%` (of the image's size); both may mix.

        Raises:
            OptionError: the text is no box.
        """
        parts = [_NUMBER.fullmatch(part.strip()) for part in text.split(",")]
        if len(parts) != 4 or None in parts:
            raise OptionError(
                f"got box {text!r}; expected X,Y,WIDTH,HEIGHT in pixels, such as 10,20,30,40, "
                "or in percent, such as 10%,20%,30%,40%"
            )
        matches = [part for part in parts if part is not None]
        x, y, width, height = (float(match[1]) for match in matches)
        left, upper, across, down = (bool(match[2]) for match in matches)
        return cls(x, y, width, height, (left, upper, across, down))

    def within(self, size: tuple[int, int], source: str = "the image") -> Box:
        """Convert to pixels and clip to the image.

        Args:
            size: width and height of the image, px.
            source: the image's name, for the error message.

        Raises:
            OptionError: no part of the box lies inside the image.
        """
        scale = (size[0], size[1], size[0], size[1])
        x, y, width, height = (
            value * side / 100 if percent else value
            for value, side, percent in zip(self.xywh, scale, self.percent, strict=True)
        )
        left, upper = max(0.0, x), max(0.0, y)
        right, lower = min(float(size[0]), x + width), min(float(size[1]), y + height)
        if right - left <= 0 or lower - upper <= 0:
            raise OptionError(
                f"got box {x:g},{y:g},{width:g},{height:g}, which lies outside {source}, "
                f"{size[0]} x {size[1]} px; expected a box inside it"
            )
        return Box(left, upper, right - left, lower - upper)

    def crop(self, margin: float, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """The part of an image to look at for this box, in whole pixels.

        Args:
            margin: context on every side, as a fraction of the box's width and height.
            size: width and height of the image, px.

        Returns:
            left, upper, right, lower, clipped to the image and at least 1 px wide and high.
        """
        left = max(0, math.floor(self.x - margin * self.width))
        upper = max(0, math.floor(self.y - margin * self.height))
        right = min(size[0], math.ceil(self.x + (1 + margin) * self.width))
        lower = min(size[1], math.ceil(self.y + (1 + margin) * self.height))
        return min(left, size[0] - 1), min(upper, size[1] - 1), max(right, 1), max(lower, 1)


def overlaps(boxes: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of each box with each other one.

    Args:
        boxes: (M, 4), x, y, width, height.
        others: (N, 4), likewise.

    Returns:
        (M, N), 0..1.
    """
    corner, other = boxes[:, None, :2], others[None, :, :2]
    extent, other_extent = boxes[:, None, 2:], others[None, :, 2:]
    sides = np.minimum(corner + extent, other + other_extent) - np.maximum(corner, other)
    shared = sides.clip(min=0).prod(axis=2)
    union = extent.prod(axis=2) + other_extent.prod(axis=2) - shared
    return np.asarray(shared / np.maximum(union, 1e-12))


def cell_shares(boxes: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """How each box is distributed over the cells of a grid.

    Args:
        boxes: (N, 4), left, top, right, bottom as fractions of the image.
        grid: rows and columns.

    Returns:
        (N, rows * columns), row by row; each row sums to 1.
    """
    rows, columns = grid
    edges = [np.arange(count + 1) / count for count in (columns, rows)]
    lengths = [
        (
            np.minimum(boxes[:, axis + 2, None], edge[1:])
            - np.maximum(boxes[:, axis, None], edge[:-1])
        )
        for axis, edge in enumerate(edges)
    ]
    across, down = (length.clip(1e-6) for length in lengths)
    shares = (down[:, :, None] * across[:, None, :]).reshape(len(boxes), rows * columns)
    scaled: NDArray[np.float32] = (shares / shares.sum(axis=1, keepdims=True)).astype(np.float32)
    return scaled


def place_vector(box: Box | None, size: tuple[int, int], width: int) -> NDArray[np.float32]:
    """The place of a box as a feature: left, top, right, bottom and area, as in Mao et al. (2016).

    Args:
        box: within the image, px; None is the whole image.
        size: width and height of the image, px.
        width: of the feature, at least 5; further entries are 0.

    Returns:
        (width,), fractions of the image times 10, the scale of an encoder's strong features.
    """
    vector = np.zeros(width, np.float32)
    left, top, across, down = (0.0, 0.0, *size) if box is None else box.xywh
    share = across * down / (size[0] * size[1])
    vector[:5] = (left / size[0], top / size[1], (left + across) / size[0], (top + down) / size[1],
                  share)  # fmt: skip
    return 10 * vector


def suppress(
    boxes: NDArray[np.float64], scores: Sequence[float] | NDArray[np.float64], threshold: float
) -> list[int]:
    """Greedy non-maximum suppression.

    Args:
        boxes: (N, 4), x, y, width, height.
        scores: (N,), higher is better.
        threshold: a box is dropped if its overlap with a better one is above this.

    Returns:
        indices of the boxes that are kept, best first.
    """
    waiting = np.argsort(-np.asarray(scores), kind="stable")
    kept = []
    while waiting.size:
        best, waiting = waiting[0], waiting[1:]
        kept.append(int(best))
        shared = overlaps(boxes[best : best + 1], boxes[waiting])[0]
        waiting = waiting[shared <= threshold]
    return kept
