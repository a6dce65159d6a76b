"""Captioned images in memory, split by image and never by caption."""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate
from pathlib import Path

from cutline.boxes import Box
from cutline.errors import DataError, OptionError

FRACTIONS: Mapping[str, float] = {"train": 0.8, "dev": 0.1, "test": 0.1}
"""Default shares of a seeded split."""


@dataclass(frozen=True)
class Example:
    """One image with its captions."""

    image: Path
    captions: tuple[str, ...]
    key: str = ""
    """Identifies the image where another one of its collection has the same file name."""
    written_by: tuple[str, ...] = ()
    """The author of each caption, or empty if the source does not name authors."""
    weight: float = 1.0
    """How often training draws the image in each epoch, on average."""
    box: Box | None = None
    """The region that the captions describe; None if they describe the whole image."""

    @property
    def name(self) -> str:
        """What identifies the image within its collection: `key`, or the file's name."""
        return self.key or self.image.name


@dataclass(frozen=True)
class Collection:
    """Captioned images by split.

    No image is in two splits, except in a collection that was read with `faults="keep"`.

    Attributes:
        name: a short name, for reports.
        licence: the terms of use; "unknown" if the source does not state them.
        splits: the examples of each split, in order.
        notes: what the reader could not use or had to repair, one sentence each.
    """

    name: str
    licence: str
    splits: dict[str, tuple[Example, ...]]
    notes: tuple[str, ...] = ()

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
    """SHA-256 over image names and captions, in order: identifies training or test data."""
    sha = hashlib.sha256()
    for example in examples:
        box = () if example.box is None else (str(example.box.xywh),)
        sha.update("\x1f".join((example.name, *box, *example.captions)).encode())
        sha.update(b"\x1e")
    return sha.hexdigest()


def merge(collections: Sequence[Collection], weights: Sequence[float] = ()) -> Collection:
    """Several collections as one, for training on all of them.

    Splits of the same name are joined in order. Each image's `key` begins with the name of its
    collection, so that names stay unique.

    Args:
        collections: at least one; a single one with weight 1 is returned unchanged.
        weights: how often an image of each collection is drawn in an epoch, on average; by
            default 1 for all.

    Raises:
        OptionError: there is no collection, or a weight is missing, negative or not finite.
    """
    weights = list(weights) or [1.0] * len(collections)
    if not collections or len(weights) != len(collections):
        raise OptionError(
            f"got {len(collections)} collections and {len(weights)} weights; expected one weight "
            "for each of at least one collection"
        )
    if not all(0 <= weight < math.inf for weight in weights):
        raise OptionError(f"got weights {weights}; expected numbers that are at least 0")
    if len(collections) == 1 and weights == [1.0]:
        return collections[0]
    names = _unique_names([each.name for each in collections])
    splits: dict[str, list[Example]] = {}
    for name, collection, weight in zip(names, collections, weights, strict=True):
        for split, examples in collection.splits.items():
            splits.setdefault(split, []).extend(
                replace(each, key=f"{name}/{each.name}", weight=weight * each.weight)
                for each in examples
            )
    return Collection(
        " + ".join(names),
        "; ".join(dict.fromkeys(each.licence for each in collections)),
        {split: tuple(examples) for split, examples in splits.items()},
        tuple(f"{n}: {note}" for n, each in zip(names, collections, strict=True)
              for note in each.notes),
    )  # fmt: skip


def _unique_names(names: Sequence[str]) -> list[str]:
    """The same names, with numbers behind those that occur more than once."""
    total, count = Counter(names), Counter[str]()
    unique = []
    for name in names:
        count[name] += 1
        unique.append(name if total[name] == 1 else f"{name}-{count[name]}")
    return unique


def split_by_image(
    collection: Collection, fractions: Mapping[str, float] = FRACTIONS, seed: int = 0
) -> Collection:
    """Divide all images of a collection into new splits, by a hash of the image name and the seed.

    The split of an image does not depend on the order of the images, nor on images that are added
    or removed later, so an image that a model was tested on is never trained on later. Therefore
    the sizes are only approximate. A split that would be empty gets the nearest image of the
    largest split.

    Args:
        collection: its splits are joined first, in order.
        fractions: the share of each split; positive, with the sum 1.
        seed: another seed gives another division.

    Raises:
        OptionError: the fractions are not positive, or their sum is not 1.
    """
    if min(fractions.values(), default=0) <= 0 or not math.isclose(sum(fractions.values()), 1):
        raise OptionError(f"got fractions {dict(fractions)}; expected positive ones that sum to 1")
    examples = collection.split(*collection.splits)
    position = {example.name: _position(f"{seed}/{example.name}") for example in examples}
    ends = dict(zip(fractions, accumulate(fractions.values()), strict=True))
    ends[[*ends][-1]] = 1.0
    splits: dict[str, list[Example]] = {name: [] for name in fractions}
    for example in examples:
        splits[next(name for name, end in ends.items() if position[example.name] < end)].append(
            example
        )
    for name, members in splits.items():
        largest = max(splits.values(), key=len)
        if not members and len(largest) > 1:
            middle = ends[name] - fractions[name] / 2
            nearest = min(largest, key=lambda example: abs(position[example.name] - middle))
            largest.remove(nearest)
            members.append(nearest)
    return replace(collection, splits={name: tuple(each) for name, each in splits.items()})


def _position(text: str) -> float:
    """A number in [0, 1) that depends on the text alone."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big") / 2**48
