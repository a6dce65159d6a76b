"""Reads captioned images in any known form into a `Collection`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from operator import itemgetter
from pathlib import Path, PurePosixPath
from typing import Literal

from cutline.data.collection import FRACTIONS, Collection, Example, split_by_image
from cutline.data.formats import LICENCES, ReadOptions, read_file, read_folder
from cutline.data.image_finder import ImageFinder
from cutline.data.listing import Entry, Listing
from cutline.data.splits import split_by_file
from cutline.data.tabular import USUAL_COLUMNS, ColumnNames
from cutline.errors import DataError

MAX_CAPTION_CHARS = 2000
"""Longer texts are taken for damage, such as rows within an unbalanced quotation mark."""


def read(
    path: Path | str,
    *,
    split_file: Path | str | None = None,
    images: Path | str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    split_column: str | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    unsplit: bool = False,
    faults: Literal["refuse", "drop", "keep"] = "refuse",
) -> Collection:
    """Read captioned images in any supported format.

    Recognised are COCO captions (Chen et al., 2015; `captions_*.json` of 2014 or 2017, or one
    file), Karpathy's split file (`dataset_coco.json` and its like; Karpathy and Fei-Fei, 2015),
    Flickr8k and Flickr30k in their original and their Kaggle form, tables (CSV, TSV, JSON,
    JSONL) with a row for each caption or image, with or without a header, and pictures beside
    texts of the same name, a caption a line. Splits come from a column, from the files' names
    (`train.csv` with `val.csv`) or from lists, else from `split_by_image`; `val` is called
    `dev`. `rest` holds what belongs to training beside `train`; it may be empty.

    Args:
        path: a folder, or the file with the captions.
        split_file: says which image is in which split: Karpathy's JSON, `{split: [image]}`, or
            a table with an image and a split column; images it does not name are in `rest`.
        images: the folder with the pictures; by default the usual places near the captions.
        image_column: of a table, where its name is unusual; a name, or a number from 1.
        caption_column: likewise.
        split_column: likewise.
        fractions: the shares of a seeded split, where the files name none.
        seed: of that split.
        unsplit: put all images into one split `all`, in the order of the captions.
        faults: "refuse" raises if a picture or all captions of one are missing, if a record is
            damaged, or if an image is in two splits; "drop" leaves such images out, and keeps an
            image of two splits out of training; "keep" keeps them, and blank captions too, for
            `inspect`.

    Raises:
        DataError: nothing known is there, or something is missing or damaged.
    """
    path = Path(path)
    columns = ColumnNames(image_column, caption_column, split_column)
    listing = read_listing(path, columns, repair=faults != "refuse", split_file=split_file)
    found = _find_images(listing, path, ImageFinder(_folder(path), images), faults)
    splits: dict[str, list[tuple[int, Example]]] = {}
    for entry, example in found:
        split, rank = ("all", 0) if unsplit else (entry.split, entry.rank)
        splits.setdefault(split, []).append((rank, example))
    collection = Collection(
        listing.name,
        listing.licence or LICENCES.get(listing.name, "unknown"),
        {
            split: tuple(example for _, example in sorted(each, key=itemgetter(0)))
            for split, each in splits.items()
        },
        tuple(listing.notes),
    )
    if unsplit:
        return collection
    if set(splits) == {""}:
        collection = split_by_image(collection, fractions, seed)
    return replace(collection, splits=_in_order(collection.splits))


def read_listing(
    path: Path,
    columns: ColumnNames = USUAL_COLUMNS,
    *,
    repair: bool = False,
    split_file: Path | str | None = None,
) -> Listing:
    """What the caption files at a path say, without a look at the image files.

    Args:
        path: a folder, or a caption file.
        columns: of tables, where their names are unusual.
        repair: whether damaged records are repaired with a note, instead of refused.
        split_file: see `read`.

    Raises:
        DataError: nothing known is there, or a record is damaged.
    """
    if not path.exists():
        raise DataError(f"got {path}, which does not exist; expected a folder or a caption file")
    options = ReadOptions(columns, "repair" if repair else "raise")
    listing = read_file(path, options) if path.is_file() else read_folder(path, options)
    if split_file is not None:
        split_by_file(listing, Path(split_file))
    return listing


def _folder(path: Path) -> Path:
    return path if path.is_dir() else path.parent


def _find_images(
    listing: Listing,
    path: Path,
    finder: ImageFinder,
    faults: Literal["refuse", "drop", "keep"],
) -> list[tuple[Entry, Example]]:
    """Each entry with its image file; entries of the same file are joined."""
    shared = Counter(PurePosixPath(entry.name).name for entry in listing.entries.values())
    twice = Counter(name for _, name in listing.entries)
    found: dict[tuple[str, Path], tuple[Entry, Example]] = {}
    lacking: list[str] = []
    for entry in listing.entries.values():
        file_name = PurePosixPath(entry.name).name
        unique = shared[file_name] == 1
        picture = finder.find(
            entry.name,
            anywhere=unique or twice[entry.name] == shared[file_name],
            split=entry.source,
        )
        captions = [" ".join(caption.split()) for caption in entry.captions]
        pairs = list(zip(captions, entry.written_by, strict=True))
        if faults != "keep":
            pairs = [(text, author) for text, author in pairs if text]
            pairs = _without_long(pairs, entry.name, path, listing.notes, faults)
            if not pairs or not picture.is_file():
                lacking.append(f"{entry.name} has no {'picture' if pairs else 'captions'}")
                continue
        key = "" if unique else PurePosixPath(entry.name).as_posix()
        if twice[entry.name] > 1:
            key = f"{entry.source}/{entry.name}"
        authors = tuple(author for _, author in pairs)
        example = Example(
            picture, tuple(text for text, _ in pairs), key, authors if any(authors) else ()
        )
        place = entry.source, picture
        if place in found and picture.is_file():
            entry, example = _joined(found[place], (entry, example), path)
        found[place if picture.is_file() else (entry.source, Path(f"/{len(found)}"))] = (
            entry, example,
        )  # fmt: skip
    if lacking and (faults == "refuse" or not found):
        raise DataError(
            f"got {len(lacking)} of {len(listing.entries)} images of {path} without picture or "
            f"captions: {lacking[0]}; expected both; `cutline data check` lists them all"
        )
    return _without_leaks([*found.values()], path, faults)


def _without_long(
    pairs: list[tuple[str, str]],
    name: str,
    path: Path,
    notes: list[str],
    faults: Literal["refuse", "drop", "keep"],
) -> list[tuple[str, str]]:
    """The captions that are not too long to be one."""
    for text, _ in pairs:
        if len(text) > MAX_CAPTION_CHARS:
            problem = (
                f"got a caption of {len(text):,} characters for {name} in {path}; expected at most "
                f"{MAX_CAPTION_CHARS:,}: look for an unbalanced quotation mark"
            )
            if faults == "refuse":
                raise DataError(problem)
            notes.append(problem)
    return [(text, author) for text, author in pairs if len(text) <= MAX_CAPTION_CHARS]


def _joined(
    first: tuple[Entry, Example], second: tuple[Entry, Example], path: Path
) -> tuple[Entry, Example]:
    """Two entries that name the same file, as one."""
    (entry, example), (other, more) = first, second
    if entry.split and other.split and entry.split != other.split:
        raise DataError(
            f"got {example.name} in the splits {entry.split} and {other.split} of {path}; expected "
            "it in one"
        )
    entry.split = entry.split or other.split
    authors = (
        *(example.written_by or [""] * len(example.captions)),
        *(more.written_by or [""] * len(more.captions)),
    )
    joined = replace(
        example,
        captions=(*example.captions, *more.captions),
        written_by=authors if any(authors) else (),
    )
    return entry, joined


def _without_leaks(
    found: list[tuple[Entry, Example]], path: Path, faults: Literal["refuse", "drop", "keep"]
) -> list[tuple[Entry, Example]]:
    """Refuse or leave out training images whose very file is in another split, too.

    Raises:
        DataError: there are some, and faults are refused.
    """
    splits: dict[Path, set[str]] = {}
    for entry, example in found:
        splits.setdefault(example.image, set()).add(entry.split)
    if faults == "keep":
        return found
    kept = []
    for entry, example in found:
        others = splits[example.image] - {entry.split}
        if not others or not example.image.is_file():
            kept.append((entry, example))
        elif faults == "refuse":
            raise DataError(
                f"got {example.image.name} in the splits {entry.split or 'none'} and "
                f"{', '.join(sorted(others))} of {path}; expected it in one; "
                "`cutline data check` lists all leaks"
            )
        elif entry.split not in ("train", "rest", ""):
            kept.append((entry, example))
    return kept


def read_flickr8k(root: Path | str) -> Collection:
    """Flickr8k (Hodosh, Young and Hockenmaier, 2013) with the release's split lists.

    `root` holds `Images/`, `captions.txt` (`image,caption` rows) and the lists
    `Flickr_8k.{train,dev,test}Images.txt`, of which any may be missing. Images that no list
    names form the split `rest`: training data only if the test list is there to tell them apart.

    Raises:
        DataError: a file is missing, or a listed image has no captions or no picture.
    """
    if not any(next(Path(root).glob(each), None) for each in ("*_8k.*Images.txt", "*/*_8k.*.txt")):
        raise DataError(f"got {root} without split lists; expected Flickr_8k.trainImages.txt there")
    return replace(read(root), name="flickr8k", licence=LICENCES["flickr8k"])


def _in_order(splits: dict[str, tuple[Example, ...]]) -> dict[str, tuple[Example, ...]]:
    """Train, dev, test, then others; what had no split joins `rest`, which is always there."""
    rest = (*splits.pop("rest", ()), *splits.pop("", ()))
    known = [(name, splits.pop(name)) for name in ("train", "dev", "test") if name in splits]
    return {**dict(known), **splits, "rest": rest}
