"""Box proposals without a trained detector, from the features that a captioner's encoder gives.

Each rectangle of grid cells is scored by how alike its cells are, how much they differ from the
cells around it, and its size; greedy non-maximum suppression then takes the best ones. One encoder
run gives all of them. `docs/regions.md` compares this with the alternatives that were measured.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from cutline.boxes import suppress

Boxes = NDArray[np.float64]

_COHESION, _CONTRAST, _SIZE = 0.5, 0.5, 0.8  # weights
_MIN_CELLS = 2
_OVERLAP = 0.5
_CANDIDATES = 600  # the best-scored rectangles, which is plenty for 100 proposals


def propose(features: NDArray[np.float32], count: int) -> Boxes:
    """Propose boxes, best first.

    Args:
        features: (R, C, D), the encoder's grid.
        count: how many boxes at most.

    Returns:
        (n, 4), x, y, width, height as fractions of the image.
    """
    rows, columns, _ = features.shape
    rectangles = _rectangles(rows, columns)
    scores = _scores(features, rectangles)
    upper, left, lower, right = rectangles.T
    boxes = np.stack([left, upper, right - left, lower - upper], axis=1)
    boxes = boxes / np.array([columns, rows, columns, rows])
    top = np.argsort(-scores, kind="stable")[:_CANDIDATES]
    kept = suppress(boxes[top], scores[top], _OVERLAP)[:count]
    return np.asarray(boxes[top][kept])


@cache
def windows() -> Boxes:
    """Windows of fixed sizes and shapes, large ones first, for captioners without a grid.

    Returns:
        (n, 4), x, y, width, height as fractions of the image.
    """
    found = []
    for side in (1.0, 0.7, 0.5, 0.35):
        for shape in (1.0, 0.5, 2.0):
            width, height = min(1.0, side * shape**0.5), min(1.0, side / shape**0.5)
            lefts = np.linspace(0, 1 - width, 1 + round(2 * (1 - width) / width))
            uppers = np.linspace(0, 1 - height, 1 + round(2 * (1 - height) / height))
            found += [(x, y, width, height) for y in uppers for x in lefts]
    return np.array(list(dict.fromkeys(found)))


@cache
def _rectangles(rows: int, columns: int) -> NDArray[np.int64]:
    """(n, 4): upper, left, lower, right of every rectangle of at least `_MIN_CELLS` a side."""
    return np.array(
        [
            (upper, left, lower, right)
            for upper in range(rows)
            for left in range(columns)
            for lower in range(upper + _MIN_CELLS, rows + 1)
            for right in range(left + _MIN_CELLS, columns + 1)
        ]
    )


def _scores(features: NDArray[np.float32], rectangles: NDArray[np.int64]) -> NDArray[np.float64]:
    """(n,) for n rectangles: cohesion within, contrast with the ring around, and size."""
    rows, columns, _ = features.shape
    cells = features.astype(np.float64)
    cells -= cells.mean(axis=(0, 1))
    cells /= np.maximum(np.linalg.norm(cells, axis=2, keepdims=True), 1e-6)
    sums = np.pad(cells.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0), (0, 0)))

    def total(rectangle: NDArray[np.int64]) -> NDArray[np.float64]:
        upper, left, lower, right = rectangle
        inside = sums[lower, right] - sums[upper, right] - sums[lower, left] + sums[upper, left]
        return np.asarray(inside)

    upper, left, lower, right = rectangles.T
    around = np.stack(
        [
            np.maximum(upper - 1, 0),
            np.maximum(left - 1, 0),
            np.minimum(lower + 1, rows),
            np.minimum(right + 1, columns),
        ]
    )
    inside = total(rectangles.T)
    ring = total(around) - inside
    area = (lower - upper) * (right - left)
    cohesion = np.linalg.norm(inside, axis=1) / area
    lengths = np.linalg.norm(inside, axis=1) * np.linalg.norm(ring, axis=1)
    contrast = 1 - (inside * ring).sum(axis=1) / np.maximum(lengths, 1e-6)
    size = np.sqrt(area / (rows * columns))
    return np.asarray(_COHESION * cohesion + _CONTRAST * contrast + _SIZE * size)
