"""The formats of caption files: COCO, Karpathy's, tokens, tables, JSON, text beside images."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from cutline.data.listing import (
    Listing,
    is_split,
    normalise_name,
    split_in_name,
    split_name,
)
from cutline.data.splits import split_by_lists
from cutline.data.tabular import (
    ColumnNames,
    Columns,
    UnknownFormError,
    find_columns,
    header_of,
    is_image_name,
    json_lines,
    open_table,
    opened,
    parse_json,
    separator_in,
    split_by_flags,
    table_rows,
    texts_in,
)
from cutline.discover import EXTENSIONS, find_images
from cutline.errors import DataError

CONTRIBUTOR = "cutline"
"""The contributor that `write_coco` names, by which its files are recognised."""

LICENCES = {
    "flickr8k": "Flickr8k: research use; captions by Hodosh, Young and Hockenmaier (2013)",
    "flickr30k": "Flickr30k: research use; captions by Young et al. (2014)",
    "coco": "COCO: captions CC BY 4.0 (Chen et al., 2015); images under their Flickr licences",
}
TABLE_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt", ".json")
_GENERAL_STEMS = ("captions", "metadata", "results", "data", "dataset", "index")
_COCO_FILE = re.compile(r"captions_(train|val|test)(2014|2017)")
_TOKEN = re.compile(r"([^\t]+?)#(?:enc#)?\d+\t")


@dataclass(frozen=True)
class ReadOptions:
    """How caption files are read.

    Attributes:
        columns: of tables, where their names are not the usual ones.
        faults: whether damaged records are refused or repaired with a note.
    """

    columns: ColumnNames = field(default_factory=ColumnNames)
    faults: Literal["raise", "repair"] = "raise"


class _Unread(NamedTuple):
    """A table that holds no captions, and why."""

    file: Path
    reason: str


def read_folder(path: Path, options: ReadOptions) -> Listing:
    """Find the caption files of a folder and read them.

    Raises:
        DataError: there are none, or it is not clear which of several is wanted.
    """
    if files := _published_files(path):
        listings = {file: read_file(file, options) for file in files}
        joined = _join(path, listings)
        _check_beside(path, joined, listings, options)
        return joined
    listings, unread = _read_tables(path, options)
    for folder in (path / name for name in ("annotations", "captions") if not listings):
        listings, more = _read_tables(folder, options)
        unread += more
    if listings:
        return _join(path, listings, unread)
    for folder in sorted(each for each in path.iterdir() if each.is_dir() and is_split(each.name)):
        inside, _ = _read_tables(folder, options)
        for listing in inside.values():
            for entry in listing.entries.values():
                entry.name = f"{folder.name}/{entry.name}"
                entry.split = entry.split or split_name(folder.name)
            listing.entries = {(e.source, e.name): e for e in listing.entries.values()}
        listings |= inside
    if listings:
        return _join(path, listings)
    if (beside := _read_sidecars(path)).entries:
        return beside
    raise DataError(
        f"got {path}, where nothing known was found; looked for COCO annotations (captions.json, "
        "annotations/captions_*.json), Karpathy's dataset_*.json, Flickr's *.token files, a CSV, "
        "TSV, TXT, JSON or JSONL with an image and a caption column, or pictures with a .txt of "
        f"the same name{''.join(f'; {each.reason}' for each in unread[:1])}"
    )


def _published_files(path: Path) -> list[Path]:
    """The files of a folder that are named as those of public caption sets; the best form alone."""
    if karpathy := sorted(path.glob("dataset_*.json")):
        _only_one(karpathy, path)
        return karpathy
    for pattern in ("captions_*.json", "annotations/captions_*.json", "captions.json"):
        if files := sorted(path.glob(pattern)):
            return files
    for pattern in ("*.token.txt", "*.token", "*/*.token.txt", "*/*.token"):
        if tokens := [f for f in sorted(path.glob(pattern)) if ".lemma." not in f.name]:
            _only_one(tokens, path)
            return tokens
    return []


def _check_beside(
    folder: Path, joined: Listing, read: Mapping[Path, Listing], options: ReadOptions
) -> None:
    """Refuse tables beside the files that were read if they caption other images.

    Raises:
        DataError: there is such a table.
    """
    known = {PurePosixPath(entry.name).stem for entry in joined.entries.values()}
    tables, _ = _read_tables(folder, options, suffixes=TABLE_SUFFIXES[:4])
    for file, listing in tables.items():
        names = (entry.name for entry in listing.entries.values())
        other = next((name for name in names if PurePosixPath(name).stem not in known), None)
        if other is not None:
            raise DataError(
                f"got {', '.join(each.name for each in read)} and {file.name} in {folder}, which "
                f"alone captions {other}; expected files of one form: name the one you want"
            )


def _only_one(files: list[Path], folder: Path) -> None:
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise DataError(f"got {names} in {folder}; expected one of them: name it")


def _read_tables(
    folder: Path, options: ReadOptions, suffixes: tuple[str, ...] = TABLE_SUFFIXES
) -> tuple[dict[Path, Listing], list[_Unread]]:
    """The tables of a folder that hold captions, and why others do not."""
    listings: dict[Path, Listing] = {}
    unread = []
    for suffix in suffixes:
        for file in sorted(folder.glob(f"*{suffix}")):
            if suffix == ".txt" and any(file.with_suffix(each).exists() for each in EXTENSIONS):
                continue
            try:
                listings[file] = read_file(file, options)
            except UnknownFormError as error:
                unread.append(_Unread(file, str(error)))
    return listings, unread


def _join(folder: Path, listings: dict[Path, Listing], unread: Sequence[_Unread] = ()) -> Listing:
    """Several files as one listing: files of different splits, or of different images.

    Args:
        folder: where they are.
        listings: by file; one at least.
        unread: tables beside them; those named like a split are noted.

    Raises:
        DataError: two files caption the same image, but for files of different splits.
    """
    notes = [
        f"{each.reason}; it was left out"
        for each in unread
        if split_in_name(each.file.stem) and each.file.suffix != ".txt"  # Flickr's lists
    ]
    if len(listings) == 1:
        only = next(iter(listings.values()))
        only.notes += notes
        return only
    official = all(_COCO_FILE.fullmatch(file.stem) for file in listings)
    joined = Listing("coco" if official else folder.resolve().name, notes=notes)
    joined.licence = LICENCES["coco"] if official else ""
    file_splits = {file: split_in_name(file.stem) for file in listings}
    by_split = all(file_splits.values()) and len(set(file_splits.values())) > 1
    first_file: dict[tuple[str, str], Path] = {}
    for file, listing in listings.items():
        joined.notes += [f"{file.name}: {note}" for note in listing.notes]
        for entry in listing.entries.values():
            entry.source = file_splits[file] if by_split else entry.source
            entry.split = entry.split or entry.source
            key = entry.source, entry.name
            if first_file.setdefault(key, file) != file:
                names = ", ".join(each.name for each in listings)
                raise DataError(
                    f"got {names} in {folder}, of which two caption {entry.name}; expected one "
                    "file, or one for each split (train, val, test): name the one you want"
                )
            joined.entries[key] = entry
    return joined


def read_file(path: Path, options: ReadOptions) -> Listing:
    """Read one caption file, and the split lists beside it.

    Raises:
        UnknownFormError: it is of no known form.
        DataError: it is damaged.
    """
    listing = Listing(_name_of(path))
    suffix = path.suffix.lower()
    if suffix == ".json":
        content = parse_json(path.read_bytes(), str(path))
        if isinstance(content, dict) and "annotations" in content:
            _read_coco(content, path, listing)
        else:
            rows = _json_rows(content, path)
            _read_rows(rows, path, listing, options.columns)
    elif suffix in (".jsonl", ".ndjson"):
        _read_rows(json_lines(path), path, listing, options.columns)
    elif is_token_file(path):
        _read_tokens(path, listing)
    else:
        table = open_table(path)
        header, _ = header_of(table)
        if not any(header):
            raise UnknownFormError(f"got {path}, which is empty; expected a header and rows")
        find_columns([dict.fromkeys(header)], path, options.columns)
        notes = listing.notes
        rows = table_rows(table, faults=options.faults, notes=notes)
        _read_rows(rows, path, listing, options.columns)
    if not listing.entries:
        raise UnknownFormError(f"got {path} without a single image; expected captioned images")
    named = split_in_name(path.stem)  # then `train.txt` beside it is another table, not a list
    if not named and not any(entry.split for entry in listing.entries.values()):
        split_by_lists(listing, path.parent)
    listing.licence = listing.licence or LICENCES.get(listing.name, "")
    return listing


def _name_of(path: Path) -> str:
    """A short name: the public set's if the file is named as that set's, else the file's."""
    stem = path.name.lower()
    if re.fullmatch(r"(dataset_)?flickr(_?)8k([._].*)?", stem):
        return "flickr8k"
    if re.fullmatch(r"((dataset_)?flickr_?30k([._].*)?|results_20130124\.token)", stem):
        return "flickr30k"
    if path.stem == "dataset_coco" or _COCO_FILE.fullmatch(path.stem):
        return "coco"
    name = path.name.removesuffix(".txt").removesuffix(".token")
    name = name if name != path.name else path.stem
    general = name.lower() in _GENERAL_STEMS or name.startswith("captions_")
    return path.resolve().parent.name if general else name.removeprefix("dataset_")


def _json_rows(content: Any, path: Path) -> Iterable[Mapping[str, Any]]:
    """The rows of a JSON file.

    They are a list of objects, `{"images": [...]}`, `{split: [...]}` or `{image: captions}`.
    """
    if isinstance(content, dict) and content and all(map(is_split, content)):
        lists = [each if isinstance(each, list) else [None] for each in content.values()]
        if all(isinstance(row, dict) for each in lists for row in each):
            return [{"split": name, **row} for name, each in content.items() for row in each]
    rows = content.get("images", content.get("data")) if isinstance(content, dict) else content
    if rows is None and isinstance(content, dict) and content:
        texts = all(isinstance(each, (str, list)) for each in content.values())
        if texts and any(map(is_image_name, content)):
            return [{"image": name, "caption": each} for name, each in content.items()]
    if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
        raise UnknownFormError(
            f"got {path}; expected COCO's or Karpathy's form, or a list of images"
        )
    return rows


def _read_coco(content: dict[str, Any], path: Path, listing: Listing) -> None:
    """COCO's captions; the split is in each image's `split`, else in the file's name.

    Ids that are numbers are compared as such: 1, "1", "0001" and 1.0 are the same.
    """
    in_name = re.search(r"(train|val|test)\d{4}", path.stem)
    names: dict[str, str] = {}
    stray: list[str] = []
    try:
        info = content.get("info") or {}
        if isinstance(info, dict) and info.get("contributor") == CONTRIBUTOR:
            listing.name = str(info["description"])
            listing.licence = str(content["licenses"][0]["name"])
        for each in content["images"]:
            number, name = _id(each["id"]), normalise_name(str(each["file_name"]))
            if names.setdefault(number, name) != name:
                raise DataError(
                    f"got image id {number} twice in {path}, for {names[number]} and {name}; "
                    "expected an id for each image"
                )
            entry = listing.entry(name)
            entry.split = split_name(each.get("split") or (in_name[1] if in_name else ""))
        incomplete = 0
        for each in content["annotations"]:
            if "image_id" not in each or "caption" not in each:
                incomplete += 1
                missing = "image_id" if "image_id" not in each else "caption"
                if incomplete == len(content["annotations"]):
                    raise KeyError(missing)
                continue
            number = _id(each["image_id"])
            if number not in names:
                stray.append(number)
                continue
            texts = texts_in(each["caption"])
            listing.entry(names[number]).add(texts, str(each.get("written_by") or ""))
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"got {path}, which lacks {error}; expected COCO captions: images with id and "
            "file_name, annotations with image_id and caption"
        ) from error
    if incomplete:
        listing.notes.append(
            f"got {incomplete} of {len(content['annotations'])} annotations of {path} without "
            "image_id or caption; they were left out"
        )
    if stray:
        listing.notes.append(
            f"got {len(stray)} of {len(content['annotations'])} annotations of {path} for images "
            f"that are not there, first id {stray[0]}; they were left out"
        )


def _id(value: Any) -> str:
    text = str(value).strip()
    return str(int(text.partition(".")[0])) if re.fullmatch(r"\d+(\.0+)?", text) else text


def is_token_file(path: Path) -> bool:
    """Whether a file begins with `image.jpg#0<TAB>`."""
    with opened(path) as file:
        return _TOKEN.match(file.readline()) is not None


def _read_tokens(path: Path, listing: Listing) -> None:
    """`image.jpg#0<TAB>caption` lines: the original Flickr8k and Flickr30k.

    Flickr8k's release has one name with a stray ending, `.jpg.1`, for which it has no picture.
    """
    with opened(path) as file:
        for line in file:
            name, tab, caption = line.partition("\t")
            image, _, number = name.rpartition("#")
            if tab and number.strip().isdigit() and not image.endswith(".jpg.1"):
                listing.entry(normalise_name(image)).add([caption])


def _read_rows(
    rows: Iterable[Mapping[str, Any]], path: Path, listing: Listing, names: ColumnNames
) -> None:
    """A row for each caption, or for each image with several in a list or in several columns.

    A row that names no image counts as one whose picture is missing, unless it is empty.
    """
    rows = [*rows]
    if not rows:
        return
    columns = find_columns(rows, path, names)
    separator = ""
    if len(columns.captions) == 1:
        [column] = columns.captions
        separator = separator_in(column, (row.get(column) for row in rows))
    for number, row in enumerate(rows, 1):
        name = str(row.get(columns.image) or "").strip()
        cells = [row.get(column) for column in columns.captions]
        texts = [text for cell in cells for text in texts_in(cell, separator)]
        if len(columns.captions) > 1:  # an image may have fewer captions than others
            texts = list(filter(str.strip, texts))
        if not name and not any(map(str.strip, texts)):
            continue
        if columns.captions == ("sentences",) and row.get("filepath"):  # Karpathy's, of COCO
            name = f"{row['filepath']}/{name}"
        name = normalise_name(name) if name else f"row {number}, which names no image,"
        entry = listing.entry(name)
        author = row.get(columns.written_by) if columns.written_by else ""
        entry.add(texts, str(author or "").strip())
        split = _split_of(row, columns)
        if split and entry.split not in ("", split):
            raise DataError(
                f"got {name} in the splits {entry.split} and {split} of {path}; expected it in one"
            )
        entry.split = split or entry.split


def _split_of(row: Mapping[str, Any], columns: Columns) -> str:
    if columns.flags:
        return split_by_flags(row, columns.flags)
    value = row.get(columns.split or "")
    return "" if value is None or value != value else split_name(value)


def _read_sidecars(folder: Path) -> Listing:
    """Pictures beside texts of the same name; subfolders named like splits are splits."""
    listing = Listing(folder.resolve().name)
    for picture in find_images([folder], recursive=True):
        sidecar = picture.with_suffix(".txt")
        if sidecar.is_file():
            place = picture.relative_to(folder)
            entry = listing.entry(place.as_posix())
            with opened(sidecar) as file:
                entry.add([line for line in file.read().splitlines() if line.strip()])
            entry.split = split_name(place.parts[0]) if is_split(place.parts[0]) else ""
    return listing
