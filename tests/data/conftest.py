from pathlib import Path

import numpy as np
import pytest
from drawn import draw
from PIL import Image

from cutline.data import Collection


def picture(seed: int, side: int = 48) -> Image.Image:
    """A picture of coarse blocks that looks like no other seed's."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.BICUBIC)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Six pictures, a.jpg to f.jpg, in Images/ of an otherwise empty folder."""
    folder = tmp_path / "set"
    (folder / "Images").mkdir(parents=True)
    for seed, name in enumerate("abcdef"):
        picture(seed).save(folder / "Images" / f"{name}.jpg")
    return folder


@pytest.fixture
def colours(tmp_path: Path) -> Collection:
    """Thirty noisy pictures of one colour each, with two captions that name it."""
    return draw(tmp_path)
