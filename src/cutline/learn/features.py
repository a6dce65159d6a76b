"""The frozen trunk's output for every training image, once, to disk."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from cutline.data import Example
from cutline.image import Transform, load_image
from cutline.learn.encoders import Backbone, weights_file

BATCH = 32


@dataclass(frozen=True)
class View:
    """One way of looking at every image: view 0 is plain, 1 mirrored, the others are crops."""

    number: int
    min_area: float = 0.7
    max_stretch: float = 1.25

    def __call__(self, image: Image.Image, name: str) -> Image.Image:
        """The view of one image; its randomness depends on name and number alone."""
        if self.number == 0:
            return image
        if self.number == 1:
            return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        seed = hashlib.sha256(f"{self.number}/{name}".encode()).digest()
        rng = np.random.default_rng(list(seed))
        area = rng.uniform(self.min_area, 1.0)
        stretch = self.max_stretch ** rng.uniform(-1, 1)
        w = min(1.0, (area * stretch) ** 0.5)
        h = min(1.0, (area / stretch) ** 0.5)
        x, y = rng.uniform(0, 1 - w), rng.uniform(0, 1 - h)
        box = (x * image.width, y * image.height, (x + w) * image.width, (y + h) * image.height)
        crop = image.resize(image.size, Image.Resampling.BICUBIC, box=box)
        return crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if rng.random() < 0.5 else crop


def extract(
    backbone: Backbone,
    transform: Transform,
    examples: Sequence[Example],
    view: View,
    folder: Path,
    progress: Callable[[int], None] = lambda _: None,
) -> NDArray[np.float16]:
    """The trunk's output for one view of every example, from `folder` if it was written before.

    The file's name is keyed by weights, transform, view and images, so nothing stale is ever
    read. A killed run goes on where it stopped.

    Returns:
        (len(examples), C, H, W) float16, memory-mapped.
    """
    key = hashlib.sha256(
        json.dumps(
            [
                hashlib.sha256(weights_file(backbone.name).read_bytes()).hexdigest(),
                len(backbone.trunk),
                repr(transform),
                repr(view),
                [example.name for example in examples],
            ]
        ).encode()
    ).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    final, partial = folder / f"{key}.npy", folder / f"{key}.partial.npy"
    count = folder / f"{key}.count"
    if final.exists():
        progress(len(examples))
        return np.load(final, mmap_mode="r")

    side = transform.side_px
    shape = (len(examples), *backbone.trunk(torch.zeros(1, 3, side, side)).shape[1:])
    done = int(count.read_text()) if count.exists() and partial.exists() else 0
    store = np.lib.format.open_memmap(
        partial, mode="r+" if done else "w+", dtype=np.float16, shape=shape
    )
    trunk = backbone.trunk.to(memory_format=torch.channels_last)

    def pixels(example: Example) -> NDArray[np.float32]:
        image = transform.squash(load_image(example.image))
        return transform.normalise(view(image, example.name))

    progress(done)
    with ThreadPoolExecutor() as pool, torch.inference_mode():
        for start in range(done, len(examples), BATCH):
            batch = np.stack(list(pool.map(pixels, examples[start : start + BATCH])))
            tensor = torch.from_numpy(batch).to(memory_format=torch.channels_last)
            store[start : start + len(batch)] = trunk(tensor).half().numpy()
            store.flush()
            count.write_text(str(start + len(batch)))
            progress(len(batch))
    partial.rename(final)
    count.unlink(missing_ok=True)
    return np.load(final, mmap_mode="r")
