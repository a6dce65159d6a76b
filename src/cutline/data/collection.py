"""Captioned images in memory, split by image and never by caption."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from cutline.errors import DataError, OptionError

FRACTIONS: Mapping[str, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""How a collection without splits of its own is divided, unless one says otherwise."""


@dataclass(frozen=True)
class Example:
    """One image and what people said of it."""

    image: Path
    captions: tuple[str, ...]
    key: str = ""
    """Identifies the image where another of its collection has the same file name."""

    @property
    def name(self) -> str:
        """What identifies the image within its collection: the file's name, or `key`."""
        return self.key or self.image.name


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


def split_by_image(
    collection: Collection, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> Collection:
    """Divide all images of a collection anew, each by a hash of its name and the seed.

    Neither the order of the images nor others that join or leave move an image to another split,
    so what a model was once tested on is never trained on later. The price is that sizes are
    only about right. A split that chance left empty gets the nearest image of the largest one.

    Args:
        collection: whatever splits it has are put together first, in order.
        fractions: the share of each split, positive, with the sum 1.
        seed: another seed divides otherwise.

    Raises:
        OptionError: the fractions are not positive, or do not add up to 1.
    """
    if min(fractions.values(), default=0) <= 0 or not math.isclose(sum(fractions.values()), 1):
        raise OptionError(f"got fractions {dict(fractions)}; expected positive ones that sum to 1")
    examples = collection.split(*collection.splits)
    chance = {example.name: _chance(f"{seed}/{example.name}") for example in examples}
    ends = dict(zip(fractions, accumulate(fractions.values()), strict=True))
    ends[[*ends][-1]] = 1.0
    splits: dict[str, list[Example]] = {name: [] for name in fractions}
    for example in examples:
        splits[next(name for name, end in ends.items() if chance[example.name] < end)].append(
            example
        )
    for name, members in splits.items():
        largest = max(splits.values(), key=len)
        if not members and len(largest) > 1:
            middle = ends[name] - fractions[name] / 2
            nearest = min(largest, key=lambda example: abs(chance[example.name] - middle))
            largest.remove(nearest)
            members.append(nearest)
    return replace(collection, splits={name: tuple(each) for name, each in splits.items()})


def _chance(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
