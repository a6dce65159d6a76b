"""Files that list which image is in which split."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from cutline.data.listing import Listing, normalise_name, split_name
from cutline.data.tabular import (
    IMAGE_COLUMNS,
    SPLIT_COLUMNS,
    column_named,
    open_table,
    opened,
    parse_json,
    table_rows,
)
from cutline.errors import DataError


def split_by_lists(listing: Listing, folder: Path) -> None:
    """Read the lists beside a caption file, if there are any, into its listing.

    Lists are Flickr8k's `*_8k.trainImages.txt`, Flickr30k's `train.txt` and `trainImages.txt`.

    Raises:
        DataError: a list names an image without captions, or two lists name the same image.
    """
    listed: set[str] = set()
    for part in ("train", "dev", "val", "test"):
        for file in _first(folder, (f"*.{part}Images.txt", f"{part}Images.txt", f"{part}.txt")):
            with opened(file) as lines:
                names = lines.read().split()
            for rank, line in enumerate(names, 1):
                name = line if ("", line) in listing.entries else f"{line}.jpg"
                if ("", name) not in listing.entries:
                    raise DataError(f"got {line} in {file} without captions; expected some")
                if name in listed:
                    raise DataError(f"got {line} twice in the lists of {folder}; expected it once")
                listed.add(name)
                entry = listing.entries["", name]
                entry.split, entry.rank = split_name(part), rank
    if listed:
        rest = sorted(name for _, name in listing.entries if name not in listed)
        for rank, name in enumerate(rest):
            entry = listing.entries["", name]
            entry.split, entry.rank = "rest", rank


def split_by_file(listing: Listing, path: Path) -> None:
    """Read splits from Karpathy's JSON, `{split: [image]}` or a table into a listing.

    Images that the file does not name are in `rest`.

    Raises:
        DataError: the file is missing or of another form, or names an image in two splits.
    """
    rows: Iterable[Mapping[str, Any]]
    if not path.is_file():
        raise DataError(f"got no split file {path}; expected a JSON or a table")
    if path.suffix.lower() == ".json":
        content = parse_json(path.read_bytes(), str(path))
        if not isinstance(content, dict):
            raise DataError(
                f"got {path}; expected Karpathy's form, or an object of lists of images"
            )
        rows = content.get("images") or [
            {"image": image, "split": split}
            for split, images in content.items()
            for image in images
        ]
    else:
        rows = table_rows(open_table(path))
    chosen: dict[str, str] = {}
    for row in rows:
        image, column = column_named(row, IMAGE_COLUMNS), column_named(row, SPLIT_COLUMNS)
        if image is None or column is None or not row[column]:
            raise DataError(f"got {dict(row)} in {path}; expected an image and its split")
        name = PurePosixPath(normalise_name(str(row[image]))).name
        split = split_name(row[column])
        if chosen.setdefault(name, split) != split:
            raise DataError(f"got {name} in two splits of {path}; expected it in one")
    for entry in listing.entries.values():
        pure = PurePosixPath(entry.name)
        entry.split, entry.rank = chosen.get(pure.name, chosen.get(pure.stem, "rest")), 0


def _first(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of the first pattern that matches."""
    return next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])
