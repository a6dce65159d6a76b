"""Several collections for one training run: merged, and without leaks between them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from cutline.data.collection import Collection, merge
from cutline.similarity import MAX_DISTANCE, Fingerprint, duplicates, fingerprints


@dataclass(frozen=True)
class Combined:
    """Collections that are ready for training together.

    Attributes:
        collection: their merge, without training images that are in another split, too.
        left_out: names of these images, each with the image that it equals.
        duplicates: pairs of training images of two collections that show the same picture.
    """

    collection: Collection
    left_out: tuple[tuple[str, str], ...]
    duplicates: int

    @property
    def lines(self) -> list[str]:
        """What to tell the user."""
        lines = []
        if self.left_out:
            first, second = self.left_out[0]
            lines.append(
                f"left out {len(self.left_out)} training images that are in a dev or test split of "
                f"a collection, too: {first} is {second} ..."
            )
        if self.duplicates:
            lines.append(f"{self.duplicates} training images are in two collections")
        return lines


def combine(
    collections: Sequence[Collection],
    weights: Sequence[float] = (),
    *,
    train: Sequence[str] = ("train", "rest"),
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] = lambda _: None,
) -> Combined:
    """Merge collections for training; see `merge`.

    Training images that are identical to, or near-duplicates of, an image of any other split of
    any collection are left out. A single collection is not compared with itself: `inspect` does.

    Args:
        collections: at least one.
        weights: of the collections, see `merge`.
        train: names of the splits that belong to training.
        max_distance: bits of 128 by which near-duplicates may differ.
        progress: called with the number of images done since the last call.

    Raises:
        OptionError: see `merge`.
    """
    merged = merge(collections, weights)
    if len(collections) < 2:
        return Combined(merged, (), 0)
    members = [(split, each) for split, some in merged.splits.items() for each in some]
    prints = fingerprints([each.image for _, each in members], progress)
    known = [(m, p) for m, p in zip(members, prints, strict=True) if isinstance(p, Fingerprint)]
    left_out: dict[str, str] = {}
    twice = 0
    for i, j, _ in duplicates([p for _, p in known], max_distance):
        (split, first), (other, second) = known[i][0], known[j][0]
        if (split in train) == (other in train):
            apart = first.name.partition("/")[0] != second.name.partition("/")[0]
            twice += split in train and apart
        elif split in train:
            left_out[first.name] = second.name
        else:
            left_out[second.name] = first.name
    splits = {
        split: tuple(each for each in some if split not in train or each.name not in left_out)
        for split, some in merged.splits.items()
    }
    return Combined(replace(merged, splits=splits), tuple(left_out.items()), twice)
