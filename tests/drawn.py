"""Pictures of one colour each, with captions that name it."""

from pathlib import Path

import numpy as np
from PIL import Image

from cutline.data import Collection, Example

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


def draw(folder: Path) -> Collection:
    rng = np.random.default_rng(0)
    examples = []
    for number in range(30):
        word, colour = list(COLOURS.items())[number % 3]
        pixels = np.clip(rng.normal(colour, 20, (64, 64, 3)), 0, 255).astype(np.uint8)
        path = folder / f"{number:02}.png"
        Image.fromarray(pixels).save(path)
        examples.append(Example(path, (f"a {word} wall .", f"the wall is {word}")))
    splits = {"train": tuple(examples[:24]), "dev": tuple(examples[24:])}
    return Collection("colours", "made up", splits)
