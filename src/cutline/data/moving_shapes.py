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
    """

    frames: NDArray[np.uint8]
    caption: str


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
        yield MovingShape(_frames(rng, colour, shape, move, ending), caption)


def _frames(
    rng: np.random.Generator, colour: str, shape: str, move: str, ending: str
) -> NDArray[np.uint8]:
    half = FRAMES // 2
    speed = rng.uniform(1.2, 1.8)
    onward = {"stops": 0.0, "comes back": -1.0, "goes on": 1.0}[ending]
    steps = np.concatenate([np.ones(half - 1), np.full(FRAMES - half, onward)]) * speed
    path = np.concatenate([[0.0], steps.cumsum()])
    direction = np.array(MOVES[move])
    middle = SIDE_PX / 2 + rng.uniform(-5, 5, 2) - direction * path.mean()
    y, x = np.mgrid[0:SIDE_PX, 0:SIDE_PX]
    radius = rng.uniform(3.0, 4.5)
    frames = rng.normal(rng.uniform(180, 225), 6, (FRAMES, SIDE_PX, SIDE_PX, 3))
    for frame, distance in zip(frames, path, strict=True):
        across, down = middle + direction * distance
        if shape == "circle":
            inside = (x - across) ** 2 + (y - down) ** 2 <= radius**2
        else:
            inside = np.maximum(abs(x - across), abs(y - down)) <= 0.85 * radius
        frame[inside] = COLOURS[colour]
    return frames.clip(0, 255).round().astype(np.uint8)
