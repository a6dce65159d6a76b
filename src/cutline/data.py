"""Collections of captioned images and their splits."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from cutline.errors import DataError


@dataclass(frozen=True)
class Example:
    """One image and what people said of it."""

    image: Path
    captions: tuple[str, ...]

    @property
    def name(self) -> str:
        """The file's name, which identifies the image within its collection."""
        return self.image.name


@dataclass(frozen=True)
class Collection:
    """Captioned images, split by image: no image stands in two splits."""

    name: str
    licence: str
    splits: dict[str, tuple[Example, ...]]

    def split(self, *names: str) -> tuple[Example, ...]:
        """The examples of the named splits, in order.

        Raises:
            DataError: a split of that name is not in this collection.
        """
        for name in names:
            if name not in self.splits:
                raise DataError(
                    f"got split {name!r}; expected one of {', '.join(self.splits)} of {self.name}"
                )
        return tuple(example for name in names for example in self.splits[name])


def digest(examples: Iterable[Example]) -> str:
    """SHA-256 over image names and captions, in order: what a model was trained or judged on."""
    sha = hashlib.sha256()
    for example in examples:
        sha.update("\x1f".join((example.name, *example.captions)).encode())
        sha.update(b"\x1e")
    return sha.hexdigest()


def read_flickr8k(root: Path | str) -> Collection:
    """Flickr8k (Hodosh, Young and Hockenmaier, 2013) in its Kaggle layout.

    `root` holds `Images/`, `captions.txt` (`image,caption` rows) and the release's split lists
    `Flickr_8k.{train,dev,test}Images.txt`, of which any may be missing. Images that no list
    names form the split `rest`: training data only if the test list is there to tell them apart.

    Raises:
        DataError: a file is missing, or a listed image has no captions or no picture.
    """
    root = Path(root)
    captions: dict[str, list[str]] = {}
    for row in _rows(root / "captions.txt"):
        captions.setdefault(row["image"], []).append(row["caption"].strip())

    lists = {
        split: path.read_text().split()
        for split in ("train", "dev", "test")
        if (path := root / f"Flickr_8k.{split}Images.txt").is_file()
    }
    if not lists:
        raise DataError(f"got {root} without split lists; expected Flickr_8k.trainImages.txt there")
    listed = {name for names in lists.values() for name in names}
    if sum(map(len, lists.values())) != len(listed):
        raise DataError(f"got an image in two splits of {root}; expected each in one")
    lists["rest"] = sorted(captions.keys() - listed)

    def example(name: str) -> Example:
        image = root / "Images" / name
        if not captions.get(name) or not image.is_file():
            raise DataError(f"got {name} without captions or picture; expected both in {root}")
        return Example(image, tuple(captions[name]))

    return Collection(
        name="flickr8k",
        licence="Flickr8k: research use; captions by Hodosh, Young and Hockenmaier (2013)",
        splits={split: tuple(map(example, names)) for split, names in lists.items()},
    )


def _rows(path: Path) -> Iterator[dict[str, str]]:
    if not path.is_file():
        raise DataError(f"got no file {path}; expected the captions there")
    with path.open(newline="", encoding="utf-8") as file:
        rows = csv.DictReader(file)
        if rows.fieldnames is None or not {"image", "caption"} <= set(rows.fieldnames):
            raise DataError(f"got columns {rows.fieldnames} in {path}; expected image,caption")
        yield from rows
