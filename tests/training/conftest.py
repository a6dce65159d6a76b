from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cutline.data import Collection, Example

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220)}


@pytest.fixture
def colours(tmp_path: Path) -> Collection:
    """Thirty noisy pictures of one colour each, every one with two captions that say which."""
    return draw(tmp_path)


@pytest.fixture(scope="session")
def all_colours(tmp_path_factory: pytest.TempPathFactory) -> Collection:
    """The same, for those who change nothing about them."""
    return draw(tmp_path_factory.mktemp("colours"))


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
