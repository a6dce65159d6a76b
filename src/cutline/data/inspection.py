"""Checks a collection: missing files, captions, duplicates, leaks between splits."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cutline.data.collection import Collection
from cutline.data.readers import MAX_CAPTION_CHARS
from cutline.errors import ImageError, ImageUnreadableError
from cutline.image import load_image

MAX_DISTANCE = 16
"""Of 128 bits: pictures that differ in no more of them, and little in colour, are near-duplicates.

Measured on Flickr8k: 400 pictures differ from re-encoded and resized copies of themselves in 10
bits at most, from copies that lost a fiftieth on each side in 17 or less in 99 of 100 cases. The
nearest two of its 7,091 pictures that are no copies differ in 19."""

_MAX_COLOUR_DIFFERENCE = 16.0
_TRAINING = {"train": "train", "rest": "train"}


@dataclass(frozen=True, eq=False)
class Fingerprint:
    """Identifies a picture, even if it was re-encoded or resized."""

    sha256: str
    """Of the file's bytes."""
    bits: NDArray[np.bool_]
    """(128,): in an 8 x 8 grid of grey cells, which are lighter than their left and upper
    neighbours; a difference hash."""
    colours: NDArray[np.uint8]
    """(8, 8, 3): the cells in RGB, so that the same thing in red and in blue is told apart."""


@dataclass(frozen=True)
class Pair:
    """Two images of a collection that show the same picture."""

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
    """By name: why the picture cannot be read."""
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


def fingerprint(picture: Path | bytes) -> Fingerprint:
    """The fingerprint of one picture.

    Raises:
        ImageError: it cannot be read.
    """
    image = load_image(picture, around_px=64)
    try:
        content = picture if isinstance(picture, bytes) else picture.read_bytes()
    except OSError as error:
        raise ImageUnreadableError(str(picture), f"cannot be read: {error.strerror}") from error
    small = image.resize((9, 9), Image.Resampling.BOX)
    grey = np.asarray(small.convert("L"), dtype=np.int16)
    across, down = grey[1:, 1:] > grey[1:, :-1], grey[1:, 1:] > grey[:-1, 1:]
    bits = np.concatenate([across.ravel(), down.ravel()])
    return Fingerprint(hashlib.sha256(content).hexdigest(), bits, np.asarray(small)[1:, 1:])


def fingerprints(
    images: Sequence[Path], progress: Callable[[int], None] = lambda _: None
) -> list[Fingerprint | ImageError]:
    """The fingerprints of many pictures, computed in parallel; an unreadable one gives its error.

    Args:
        images: their paths.
        progress: called with the number of pictures done since the last call.
    """

    def attempt(path: Path) -> Fingerprint | ImageError:
        try:
            return fingerprint(path)
        except ImageError as error:
            return error

    found = []
    with ThreadPoolExecutor() as pool:
        for each in pool.map(attempt, images):
            found.append(each)
            progress(1)
    return found


def duplicates(
    prints: Sequence[Fingerprint], max_distance: int = MAX_DISTANCE
) -> Iterator[tuple[int, int, int]]:
    """Pairs of the same picture: their positions, i < j, and their distance in bits.

    Identical files have distance 0. Costs I x I / 2 inner products of 128 numbers.
    """
    if not prints:
        return
    signs = np.stack([each.bits for each in prints]).astype(np.float32) * 2 - 1  # (I,128)
    for start in range(0, len(signs), 256):
        agreement = signs[start : start + 256] @ signs[start:].T
        near = np.argwhere(agreement >= signs.shape[1] - 2 * max_distance)
        for row, column in near[near[:, 0] < near[:, 1]].tolist():
            first, second = prints[start + row], prints[start + column]
            apart = np.abs(first.colours.astype(np.int16) - second.colours).mean()
            if apart <= _MAX_COLOUR_DIFFERENCE:
                distance = int(np.count_nonzero(first.bits != second.bits))
                yield start + row, start + column, distance


def leaks(
    collection: Collection,
    *,
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] = lambda _: None,
) -> list[Pair]:
    """Pictures that are in two splits: identical files and near-duplicates.

    `train` and `rest` count as one. Unreadable pictures are skipped.
    """
    return list(inspect(collection, max_distance=max_distance, progress=progress).leaks)


def inspect(
    collection: Collection,
    *,
    max_distance: int = MAX_DISTANCE,
    progress: Callable[[int], None] = lambda _: None,
) -> Inspection:
    """Check every picture and caption of a collection that was read with `faults="keep"`.

    For leaks and duplicates between collections, pass their `merge`.

    Args:
        collection: what to check.
        max_distance: up to how many of 128 bits make near-duplicates.
        progress: called with the number of images done since the last call.
    """
    members = [(split, each) for split, some in collection.splits.items() for each in some]
    present = [(split, each) for split, each in members if each.image.is_file()]
    progress(len(members) - len(present))
    looked = fingerprints([each.image for _, each in present], progress)
    good = [
        (split, each.name, seen)
        for (split, each), seen in zip(present, looked, strict=True)
        if isinstance(seen, Fingerprint)
    ]
    pairs = []
    for i, j, distance in duplicates([seen for _, _, seen in good], max_distance):
        (split, name, seen), (other_split, other_name, other) = good[i], good[j]
        identical = seen.sha256 == other.sha256
        pairs.append(Pair(name, other_name, (split, other_split), identical, distance))
    across = [len({_TRAINING.get(split, split) for split in pair.splits}) == 2 for pair in pairs]
    return Inspection(
        images=len(members),
        captions=sum(len(each.captions) for _, each in members),
        missing=tuple(each.name for _, each in members if not each.image.is_file()),
        corrupt={
            each.name: seen.reason
            for (_, each), seen in zip(present, looked, strict=True)
            if isinstance(seen, ImageError)
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
