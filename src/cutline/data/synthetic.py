"""Synthetic pictures with captions, to try training without any data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cutline.atomic import replacing
from cutline.data import Collection, Example

COLOURS = {
    "red": (215, 45, 40),
    "green": (50, 160, 70),
    "blue": (45, 85, 210),
    "yellow": (240, 205, 50),
    "black": (25, 25, 30),
}
SHAPES = ("circle", "square", "triangle")
PLACES = {"left": 0.25, "middle": 0.5, "right": 0.75}
SIDE_PX = 160


def shapes(folder: Path, count: int, seed: int = 0) -> Collection:
    """Pictures of one coloured shape on a noisy background, with three captions each.

    Args:
        folder: for the pictures; existing ones are kept.
        count: how many; a fifth of them is the dev split.
        seed: another seed gives other pictures.
    """
    folder.mkdir(parents=True, exist_ok=True)
    examples = []
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        colour, shape, place = (str(rng.choice([*each])) for each in (COLOURS, SHAPES, PLACES))
        path = folder / f"{number:04}.png"
        if not path.exists():
            with replacing(path, synced=False) as file:
                _draw(rng, colour, shape, place).save(file, "PNG")
        captions = (
            f"a {colour} {shape} on the {place}",
            f"there is a {colour} {shape} on the {place} of the picture",
            f"the {place} of the picture shows a {colour} {shape}",
        )
        examples.append(Example(path, captions))
    dev = count // 5
    splits = {"train": tuple(examples[dev:]), "dev": tuple(examples[:dev])}
    return Collection("shapes", "CC0-1.0", splits)


def _draw(rng: np.random.Generator, colour: str, shape: str, place: str) -> Image.Image:
    ground = rng.normal(rng.uniform(170, 230), 8, (SIDE_PX, SIDE_PX, 3))
    image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
    x = SIDE_PX * (PLACES[place] + rng.uniform(-0.05, 0.05))
    y = SIDE_PX * rng.uniform(0.35, 0.65)
    half = SIDE_PX * rng.uniform(0.13, 0.2)
    box = (x - half, y - half, x + half, y + half)
    pencil = ImageDraw.Draw(image)
    if shape == "circle":
        pencil.ellipse(box, COLOURS[colour])
    elif shape == "square":
        pencil.rectangle(box, COLOURS[colour])
    else:
        pencil.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], COLOURS[colour])
    return image
