"""Synthetic images of several shapes with their boxes, captions and phrases."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from cutline.data.synthetic import COLOURS, SHAPES

SIZE_PX = (160, 128)
SIZES = {"small": (9, 12), "large": (18, 24)}
CLASSES = ("background", *SHAPES)
"""Classes of a detector, by id."""


@dataclass(frozen=True)
class Shape:
    """One shape in a scene.

    Attributes:
        box: x, y, width, height, px.
        kind: one of `synthetic.SHAPES`.
        colour: one of `synthetic.COLOURS`.
        size: one of `SIZES`.
    """

    box: tuple[int, int, int, int]
    kind: str
    colour: str
    size: str

    @property
    def phrase(self) -> str:
        """Such as "a small red circle"."""
        return f"a {self.size} {self.colour} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """An image of two or three shapes that do not overlap.

    Attributes:
        image: RGB, `SIZE_PX`.
        shapes: from left to right.
    """

    image: Image.Image
    shapes: tuple[Shape, ...]

    @property
    def caption(self) -> str:
        """The phrases from left to right, without the sizes."""
        return " and ".join(f"a {each.colour} {each.kind}" for each in self.shapes)

    def phrase(self, shape: Shape) -> str:
        """A phrase for a shape that depends on its whole image: its place among the others."""
        place = self.shapes.index(shape)
        last = len(self.shapes) - 1
        side = "left" if place == 0 else "right" if place == last else "middle"
        return f"{shape.phrase} on the {side}"


def scenes(count: int, seed: int = 0) -> Iterator[Scene]:
    """Scenes of two or three shapes.

    Args:
        count: how many.
        seed: another seed gives other scenes.
    """
    for number in range(count):
        rng = np.random.default_rng([seed, number])
        width, height = SIZE_PX
        ground = rng.normal(rng.uniform(170, 230), 8, (height, width, 3))
        image = Image.fromarray(ground.clip(0, 255).astype(np.uint8))
        pencil = ImageDraw.Draw(image)
        members = int(rng.integers(2, 4))
        shapes = []
        for column in range(members):
            kind, colour, size = (str(rng.choice([*each])) for each in (SHAPES, COLOURS, SIZES))
            half = int(rng.integers(*SIZES[size]))
            left, right = width * column // members, width * (column + 1) // members
            x = int(rng.integers(left + half, right - half + 1))
            y = int(rng.integers(half, height - half))
            _draw(pencil, kind, colour, (x, y), half)
            shapes.append(Shape((x - half, y - half, 2 * half, 2 * half), kind, colour, size))
        yield Scene(image, tuple(shapes))


def write_scenes(folder: Path, count: int, seed: int = 0) -> Path:
    """Write scenes as JPEG files with captions and with described regions.

    Args:
        folder: gets `NUMBER.jpg`, `captions.csv` with splits, and
            `region_descriptions.json` in Visual Genome's.
        count: how many; the last fifth is the dev split.
        seed: as for `scenes`.

    Returns:
        `captions.csv`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    captioned, described = [], []
    region = 0
    for number, scene in enumerate(scenes(count, seed), 1):
        name = f"{number}.jpg"
        scene.image.save(folder / name, quality=92)
        split = "train" if number <= count - count // 5 else "dev"
        captioned.append(f"{name},{scene.caption},{split}\n")
        rows = []
        for shape in scene.shapes:
            region += 1
            x, y, width, height = shape.box
            rows.append(
                {
                    "region_id": region, "image_id": number, "phrase": scene.phrase(shape),
                    "x": x, "y": y, "width": width, "height": height,
                }
            )  # fmt: skip
        described.append({"id": number, "regions": rows})
    captions = folder / "captions.csv"
    captions.write_text("image,caption,split\n" + "".join(captioned), encoding="utf-8")
    (folder / "region_descriptions.json").write_text(json.dumps(described), encoding="utf-8")
    return captions


def _draw(
    pencil: ImageDraw.ImageDraw, kind: str, colour: str, centre: tuple[int, int], half: int
) -> None:
    x, y = centre
    box = (x - half, y - half, x + half, y + half)
    if kind == "circle":
        pencil.ellipse(box, COLOURS[colour])
    elif kind == "square":
        pencil.rectangle(box, COLOURS[colour])
    else:
        pencil.polygon([(x, y - half), (x - half, y + half), (x + half, y + half)], COLOURS[colour])
