"""Grounding: each noun of a caption gets the box that its attention gives."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cutline.boxes import Box
from cutline.caption import Caption
from cutline.regions.model import Grounding

_BREAKS = frozenset(  # words that end a noun phrase
    """about above across after against along among and around as at away back behind below beside
    between beyond by down during for from front in inside into is are was were be being been near
    next of off on onto or out outside over past that the through to together toward towards under
    up upon while with without a an his her its their it them they he she who which other another
    some several two three four five six seven eight nine ten many each while near nearby top
    """.split()
)
_NOT_NOUNS = frozenset(
    """black white red green blue yellow orange brown gray grey pink purple tan dark light bright
    small large big little tiny young old long short tall wooden metal open empty busy sunny
    cloudy wet dry dirty snowy sandy grassy rocky beautiful different various stuffed plastic
    colorful very other one all both there not has have had does do looks look wears holds sits
    stands walks runs rides jumps plays swims eats watches stand sit walk run ride jump play eat
    wear hold covered filled parked surrounded topped made dressed seated lined attached piled
    decorated mounted lies lays lay flies leads pulls leaps set full swings hits throws kicks
    catches talks poses waits drives cuts feeds shows holding next group pair bunch couple
    number lot variety row piece slice kind side front back top end
    """.split()
)
_ING_NOUNS = frozenset("building ceiling clothing evening ring string wing king railing".split())


def nouns(words: Sequence[str]) -> list[int]:
    """Positions of the nouns among a caption's words, by simple rules for English captions.

    A noun is the last word of a run of words between function words, unless the run ends with
    a verb form, a colour or another adjective of a short list.

    Args:
        words: lower case.
    """
    found = []
    for position, word in enumerate(words):
        after = words[position + 1] if position + 1 < len(words) else ""
        if word in _BREAKS or word in _NOT_NOUNS or not word.isalpha():
            continue
        if word.endswith("ing") and word not in _ING_NOUNS:
            continue
        verb_follows = after.endswith("ing") and after not in _ING_NOUNS
        if not after or after in _BREAKS or verb_follows or after in _NOT_NOUNS:
            found.append(position)
    return found


def ground(caption: Caption, size: tuple[int, int]) -> tuple[Grounding, ...]:
    """The nouns of a caption with boxes.

    Args:
        caption: of an image; without attention there is nothing to ground.
        size: width and height of the upright image, px.
    """
    attention = caption.attention
    if attention is None:
        return ()
    scale = np.array([*size, *size])
    return tuple(
        Grounding(word, position, Box.of(box * scale))
        for position in nouns(attention.words)
        for word, box in [
            (attention.words[position], peak_box(attention.weights[position], attention.grid))
        ]
    )


def peak_box(weights: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float64]:
    """The bounding box of the connected cells around the peak with at least half its weight.

    Args:
        weights: (N,), row by row of the grid.
        grid: rows and columns; their product is N.

    Returns:
        (4,), x, y, width, height as fractions of the image.
    """
    rows, columns = grid
    cells = weights.reshape(grid)
    strong = cells >= 0.5 * cells.max()
    start = np.unravel_index(int(cells.argmax()), grid)
    row, column = int(start[0]), int(start[1])
    reached = {(row, column)}
    waiting = deque(reached)
    while waiting:
        row, column = waiting.popleft()
        for near in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
            inside = 0 <= near[0] < rows and 0 <= near[1] < columns
            if inside and near not in reached and strong[near]:
                reached.add(near)
                waiting.append(near)
    places = np.array(sorted(reached))
    upper, left = places.min(axis=0)
    lower, right = places.max(axis=0) + 1
    return np.array(
        [left / columns, upper / rows, (right - left) / columns, (lower - upper) / rows]
    )
