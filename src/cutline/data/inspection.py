"""Checks a collection: missing files, captions, duplicates, leaks between splits."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

from cutline.data.collection import Collection
from cutline.data.readers import MAX_CAPTION_CHARS
from cutline.errors import ImageError
from cutline.similarity import MAX_DISTANCE, Fingerprint, duplicates, fingerprints

_TRAINING = {"train": "train", "rest": "train"}


@dataclass(frozen=True)
class Pair:
    """Two images of a collection that look the same."""

    first: str
    second: str
    splits: tuple[str, str]
    identical: bool
    """Byte by byte; otherwise near-duplicates."""
    distance: int
    """In bits of 128."""


@dataclass(frozen=True)
class Inspection:
    """The findings of `inspect`."""

    images: int
    captions: int
    missing: tuple[str, ...]
    """Names of images without a file."""
    corrupt: dict[str, str]
    """By name: why the image cannot be read."""
    uncaptioned: tuple[str, ...]
    """Names of images without captions, or with blank ones among them."""
    duplicates: tuple[Pair, ...]
    """Within one split, `train` and `rest` being one."""
    leaks: tuple[Pair, ...]
    """Across splits."""
    too_long: tuple[str, ...] = ()
    """Names of images with a caption of more than `MAX_CAPTION_CHARS` characters, which is likely
    to be several rows of a damaged file."""
    notes: tuple[str, ...] = ()
    """What the reader could not use or had to repair, one sentence each."""

    @property
    def sound(self) -> bool:
        """Whether nothing was found."""
        return not (
            *self.missing, *self.corrupt, *self.uncaptioned, *self.duplicates, *self.leaks,
            *self.too_long, *self.notes,
        )  # fmt: skip

    def to_json(self) -> str:
        """All findings, as one JSON object."""
        return json.dumps(asdict(self), indent=2, ensure_ascii=False)

    def lines(self, most: int = 20) -> list[str]:
        """The findings as text, with at most so many of each kind."""
        findings = {
            "missing": list(self.missing),
            "corrupt": [f"{name}: {reason}" for name, reason in self.corrupt.items()],
            "without captions, or with a blank one": list(self.uncaptioned),
            f"captions of more than {MAX_CAPTION_CHARS:,} characters": list(self.too_long),
            "unreadable records": list(self.notes),
            "duplicates": [f"{p.first} and {p.second}{_distance(p)}" for p in self.duplicates],
            "leaks": [
                f"{p.first} ({p.splits[0]}) and {p.second} ({p.splits[1]}){_distance(p)}"
                for p in self.leaks
            ],
        }
        lines = []
        for what, each in findings.items():
            lines.append(f"{what}: {len(each) or 'none'}")
            lines += [f"  {line}" for line in each[:most]]
            if len(each) > most:
                lines.append(f"  and {len(each) - most} more; --json lists them all")
        return lines


def _distance(pair: Pair) -> str:
    return ", identical" if pair.identical else f", {pair.distance} bits apart"


def leaks(
    collection: Collection,
    *,
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Pair]:
    """Images that are in two splits: identical files and near-duplicates.

    `train` and `rest` count as one. Unreadable images are skipped.
    """
    return list(inspect(collection, max_distance=max_distance, progress=progress).leaks)


def inspect(
    collection: Collection,
    *,
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """Check every image and caption of a collection that was read with `faults="keep"`.

    For leaks and duplicates between collections, pass their `merge`.

    Args:
        collection: what to check.
        max_distance: up to how many of 128 bits make near-duplicates.
        progress: called with the number of images done since the last call.
    """
    members = [(split, each) for split, some in collection.splits.items() for each in some]
    present = [(split, each) for split, each in members if each.image.is_file()]
    progress(len(members) - len(present))
    prints = fingerprints([each.image for _, each in present], progress)
    good = [
        (split, each.name, found)
        for (split, each), found in zip(present, prints, strict=True)
        if isinstance(found, Fingerprint)
    ]
    pairs = []
    for i, j, distance in duplicates([found for _, _, found in good], max_distance):
        (split, name, found), (other_split, other_name, other) = good[i], good[j]
        identical = found.sha256 == other.sha256
        pairs.append(Pair(name, other_name, (split, other_split), identical, distance))
    across = [len({_TRAINING.get(split, split) for split in pair.splits}) == 2 for pair in pairs]
    return Inspection(
        images=len(members),
        captions=sum(len(each.captions) for _, each in members),
        missing=tuple(each.name for _, each in members if not each.image.is_file()),
        corrupt={
            each.name: found.reason
            for (_, each), found in zip(present, prints, strict=True)
            if isinstance(found, ImageError)
        },
        uncaptioned=tuple(
            each.name for _, each in members if not each.captions or not all(each.captions)
        ),
        duplicates=tuple(pair for pair, leak in zip(pairs, across, strict=True) if not leak),
        leaks=tuple(pair for pair, leak in zip(pairs, across, strict=True) if leak),
        too_long=tuple(
            each.name
            for _, each in members
            if any(len(caption) > MAX_CAPTION_CHARS for caption in each.captions)
        ),
        notes=collection.notes,
    )
