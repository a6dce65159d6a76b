"""Synthetic clips of a moving shape whose captions need the order of the frames."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

COLOURS = {"red": (215, 45, 40), "green": (50, 160, 70), "blue": (45, 85, 210)}
SHAPES = ("circle", "square")
MOVES = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1)}
ENDINGS = ("stops", "comes back", "goes on")
FRAMES, SIDE_PX = 8, 32


@dataclass(frozen=True)
class MovingShape:
    """One clip.

    Attributes:
        frames: (FRAMES, SIDE_PX, SIDE_PX, 3), RGB.
        caption: such as "the red circle moves left , then stops".
        colour: the shape's colour, one of `COLOURS`.
        shape: one of `SHAPES`.
        centres: (FRAMES, 2), x and y of the shape's centre in pixels.
    """

    frames: NDArray[np.uint8]
    caption: str
    colour: str
    shape: str
    centres: NDArray[np.float32]


def moving_shapes(count: int, seed: int = 0) -> Iterator[MovingShape]:
    """Clips of one shape that moves for half of the time, then stops, comes back or goes on.

    Args:
        count: how many.
        seed: another seed gives other clips.
    """
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        colour, shape, move, ending = (
            str(rng.choice([*each])) for each in (COLOURS, SHAPES, MOVES, ENDINGS)
        )
        caption = f"the {colour} {shape} moves {move} , then {ending}"
        frames, centres = _frames(rng, colour, shape, move, ending)
        yield MovingShape(frames, caption, colour, shape, centres)


def _frames(
    rng: np.random.Generator, colour: str, shape: str, move: str, ending: str
) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The frames of one clip, and the centres of its shape."""
    half = FRAMES // 2
    speed = rng.uniform(1.2, 1.8)
    onward = {"stops": 0.0, "comes back": -1.0, "goes on": 1.0}[ending]
    steps = np.concatenate([np.ones(half - 1), np.full(FRAMES - half, onward)]) * speed
    path = np.concatenate([[0.0], steps.cumsum()])
    direction = np.array(MOVES[move])
    middle = SIDE_PX / 2 + rng.uniform(-5, 5, 2) - direction * path.mean()
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    radius = rng.uniform(3.0, 4.5)
    centres = middle + direction * path[:, None]
    frames = rng.normal(rng.uniform(180, 225), 6, (FRAMES, SIDE_PX, SIDE_PX, 3))
    for frame, (across, down) in zip(frames, centres, strict=True):
        if shape == "circle":
            inside = (x - across) ** 2 + (y - down) ** 2 <= radius**2
        else:
            inside = np.maximum(abs(x - across), abs(y - down)) <= 0.85 * radius
        frame[inside] = COLOURS[colour]
    return frames.clip(0, 255).round().astype(np.uint8), centres.astype(np.float32)
