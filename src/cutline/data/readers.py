"""The file formats of captioned images, told apart by what is found, read into one form."""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from operator import itemgetter
from pathlib import Path, PurePath
from typing import Any, Literal, TextIO

from cutline.data.collection import FRACTIONS, Collection, Example, split_by_image
from cutline.discover import EXTENSIONS, find_images
from cutline.errors import DataError

IMAGE_COLUMNS = (
    *("image", "image_name", "image_path", "image_file", "file_name", "filename", "file_path"),
    *("filepath", "file", "path", "img", "img_path", "photo", "picture", "image_url", "url"),
)
"""Names by which a column of images is recognised, best first; case, spaces and hyphens aside."""

CAPTION_COLUMNS = (
    *("caption", "captions", "comment", "sentence", "sentences", "description", "text", "raw"),
    *("alt", "alt_text", "title"),
)
"""Names by which a column of captions is recognised; `caption_1`, `caption_2` ... count too."""

_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "val", "valid", "validation"), "dev"),
    **dict.fromkeys(("test", "testing"), "test"),
    **dict.fromkeys(("rest", "restval"), "rest"),
}
_FOLDERS = (
    *("images", "Images", "image", "img", "photos", "pictures", "Flicker8k_Dataset"),
    *("Flickr8k_Dataset", "flickr30k_images", "flickr30k-images"),
    "flickr30k_images/flickr30k_images",
    *("train2014", "val2014", "train2017", "val2017", "images/train2014", "images/val2014"),
    *("images/train2017", "images/val2017", "train", "val", "test"),
)  # fmt: skip
CONTRIBUTOR = "cutline"
"""By which a COCO file that `write_coco` wrote is known."""

_PLAIN_STEMS = ("captions", "metadata", "results", "data", "dataset", "index")
_LICENCES = {
    "flickr8k": "Flickr8k: research use; captions by Hodosh, Young and Hockenmaier (2013)",
    "flickr30k": "Flickr30k: research use; captions by Young et al. (2014)",
    "coco": "COCO: captions CC BY 4.0 (Chen et al., 2015); images under their Flickr licences",
}
_LOOKED_FOR = (
    "COCO annotations (captions.json, annotations/captions_*.json), Karpathy's dataset_*.json, "
    "Flickr's *.token files, a CSV, TSV, TXT, JSON or JSONL with an image and a caption column, "
    "or pictures with a .txt of the same name"
)


class _UnknownFormError(DataError):
    """A file is of no known form, so what is looked for may be in another."""


@dataclass
class _Found:
    """What a format says of one image, before its file is looked for."""

    captions: list[str] = field(default_factory=list)
    split: str = ""
    rank: int = 0
    """Its place in its split's list, where there is one."""


@dataclass
class _Listing:
    """What the files say: images by the name they go by there, in order."""

    name: str
    images: dict[str, _Found]
    licence: str = ""

    def image(self, name: str) -> _Found:
        return self.images.setdefault(name, _Found())


def read(
    path: Path | str,
    *,
    split_file: Path | str | None = None,
    images: Path | str | None = None,
    image_column: str | None = None,
    caption_column: str | None = None,
    fractions: Mapping[str, float] = FRACTIONS,
    seed: int = 0,
    unsplit: bool = False,
    faults: Literal["refuse", "drop", "keep"] = "refuse",
) -> Collection:
    """Read captioned images in whichever known form they are.

    Recognised are COCO captions (Chen et al., 2015; `captions_*.json` of 2014 or 2017, or one
    file), Karpathy's split file (`dataset_coco.json` and its like; Karpathy and Fei-Fei, 2015),
    Flickr8k and Flickr30k in their original and their Kaggle form, tables (CSV, TSV, JSON,
    JSONL) with a row for each caption or image, and pictures beside texts of the same name, a
    caption a line. Splits come from the files, else from `split_by_image`; `val` is called
    `dev`, and `rest` holds what belongs to training beside `train`; it may be empty.

    Args:
        path: a folder, or the file with the captions.
        split_file: says which image is in which split: Karpathy's JSON, `{split: [image]}`, or
            a table with an image and a split column; images it does not name are in `rest`.
        images: the folder with the pictures; by default the usual places near the captions.
        image_column: of a table, where its name cannot be guessed.
        caption_column: likewise.
        fractions: the shares of a seeded split, where the files name none.
        seed: of that split.
        unsplit: put all images into one split `all`, in the order of the captions.
        faults: "refuse" raises if a picture or all captions of one are missing, "drop" leaves
            such images out, "keep" keeps them, and blank captions too, for `inspect`.

    Raises:
        DataError: nothing known is there, or something is missing.
    """
    path = Path(path)
    if not path.exists():
        raise DataError(f"got {path}, which does not exist; expected a folder or a caption file")
    listing = _recognise(path, image_column, caption_column)
    if split_file is not None:
        _split_by_file(listing, Path(split_file))
    pictures = Pictures(path if path.is_dir() else path.parent, images)
    shared = Counter(PurePath(name).name for name in listing.images)
    splits: dict[str, list[tuple[int, Example]]] = {}
    lacking: list[str] = []
    for name, found in listing.images.items():
        unique = shared[PurePath(name).name] == 1
        picture = pictures.find(name, anywhere=unique)
        captions = [" ".join(caption.split()) for caption in found.captions]
        if faults != "keep":
            captions = list(filter(None, captions))
            if not captions or not picture.is_file():
                lacking.append(f"{name} has no {'picture' if captions else 'captions'}")
                continue
        example = Example(picture, tuple(captions), "" if unique else PurePath(name).as_posix())
        split, rank = ("all", 0) if unsplit else (found.split, found.rank)
        splits.setdefault(split, []).append((rank, example))
    if lacking and (faults == "refuse" or not splits):
        raise DataError(
            f"got {len(lacking)} of {len(listing.images)} images of {path} without picture or "
            f"captions: {lacking[0]}; expected both; `cutline data check` lists them all"
        )
    known = next((each for each in _LICENCES if listing.name.startswith(each)), "")
    collection = Collection(
        listing.name,
        listing.licence or _LICENCES.get(known, "unknown"),
        {
            split: tuple(example for _, example in sorted(each, key=itemgetter(0)))
            for split, each in splits.items()
        },
    )
    if unsplit:
        return collection
    if set(splits) == {""}:
        collection = split_by_image(collection, fractions, seed)
    return replace(collection, splits=_in_order(collection.splits))


def read_flickr8k(root: Path | str) -> Collection:
    """Flickr8k (Hodosh, Young and Hockenmaier, 2013) with the release's split lists.

    `root` holds `Images/`, `captions.txt` (`image,caption` rows) and the lists
    `Flickr_8k.{train,dev,test}Images.txt`, of which any may be missing. Images that no list
    names form the split `rest`: training data only if the test list is there to tell them apart.

    Raises:
        DataError: a file is missing, or a listed image has no captions or no picture.
    """
    if not _first(Path(root), ("*_8k.*Images.txt", "*/*_8k.*Images.txt")):
        raise DataError(f"got {root} without split lists; expected Flickr_8k.trainImages.txt there")
    return replace(read(root), name="flickr8k", licence=_LICENCES["flickr8k"])


def _in_order(splits: dict[str, tuple[Example, ...]]) -> dict[str, tuple[Example, ...]]:
    """Train, dev, test, then others; what had no split joins `rest`, which is always there."""
    rest = (*splits.pop("rest", ()), *splits.pop("", ()))
    known = [(name, splits.pop(name)) for name in ("train", "dev", "test") if name in splits]
    return {**dict(known), **splits, "rest": rest}


def _recognise(path: Path, image: str | None, caption: str | None) -> _Listing:
    """Find the captions and read them."""
    if path.is_file():
        return _read_file(path, image, caption)
    if karpathy := sorted(path.glob("dataset_*.json")):
        if len(karpathy) > 1:
            names = ", ".join(file.name for file in karpathy)
            raise DataError(f"got {names} in {path}; expected one of them: name it")
        return _read_file(karpathy[0], image, caption)
    if coco := _first(path, ("captions_*.json", "annotations/captions_*.json")):
        parts = [_read_file(file, image, caption) for file in coco]
        return _Listing("coco", {k: v for part in parts for k, v in part.images.items()})
    if (own := path / "captions.json").is_file():
        return _read_file(own, image, caption)
    if tokens := _first(path, ("*.token.txt", "*.token", "*/*.token.txt", "*/*.token")):
        return _read_file(tokens[0], image, caption)
    reasons = []
    for ending in ("csv", "tsv", "jsonl", "ndjson", "txt", "json"):
        for file in sorted(path.glob(f"*.{ending}")):
            if ending == "txt" and any(file.with_suffix(each).exists() for each in EXTENSIONS):
                continue
            try:
                return _read_file(file, image, caption)
            except _UnknownFormError as error:
                reasons.append(f"; {error}")
    if sidecars := _read_sidecars(path):
        return _Listing(path.resolve().name, sidecars)
    raise DataError(
        f"got {path}, where nothing known was found; looked for {_LOOKED_FOR}{''.join(reasons[:1])}"
    )


def _first(folder: Path, patterns: Iterable[str]) -> list[Path]:
    """The files of the first pattern that matches."""
    return next(filter(None, (sorted(folder.glob(pattern)) for pattern in patterns)), [])


def _read_file(path: Path, image: str | None, caption: str | None) -> _Listing:
    """The captions of one file, with the split lists beside it."""
    name = path.stem.removeprefix("dataset_")
    listing = _Listing(path.resolve().parent.name if name in _PLAIN_STEMS else name, {})
    ending = path.suffix.lower()
    if ending == ".json":
        content = _parse(path.read_bytes(), str(path))
        if isinstance(content, dict) and "annotations" in content:
            _read_coco(content, path, listing)
        else:
            rows = content.get("images") if isinstance(content, dict) else content
            if not (isinstance(rows, list) and all(isinstance(row, dict) for row in rows)):
                raise _UnknownFormError(
                    f"got {path}; expected COCO's or Karpathy's form, or a list of images"
                )
            _read_rows(rows, path, listing, image, caption)
    elif ending in (".jsonl", ".ndjson"):
        _read_rows(json_lines(path), path, listing, image, caption)
    elif _is_token_file(path):
        listing.name = "flickr8k" if "8k" in path.name.lower() else "flickr30k"
        _read_tokens(path, listing)
    else:
        _columns(dict.fromkeys(header(path)), path, image, caption)  # some other text is no table
        _read_rows(table(path), path, listing, image, caption)
    if not listing.images:
        raise _UnknownFormError(f"got {path} without a single image; expected captioned images")
    if not any(found.split for found in listing.images.values()):
        _split_by_lists(listing, path.parent)
    return listing


def _read_coco(content: dict[str, Any], path: Path, listing: _Listing) -> None:
    """COCO's captions; an image may name its `split`, else the file's name may tell it."""
    told = re.search(r"(train|val|test)\d{4}", path.stem)
    try:
        info = content.get("info") or {}
        if info.get("contributor") == CONTRIBUTOR:
            listing.name = str(info["description"])
            listing.licence = str(content["licenses"][0]["name"])
        by_id: dict[Any, _Found] = {}
        for each in content["images"]:
            found = by_id[each["id"]] = listing.image(str(each["file_name"]))
            found.split = _split_name(each.get("split", told[1] if told else ""))
        for each in content["annotations"]:
            by_id[each["image_id"]].captions.append(str(each["caption"]))
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(
            f"got {path}, which lacks {error}; expected COCO captions: images with id and "
            "file_name, annotations with image_id and caption"
        ) from error


def _is_token_file(path: Path) -> bool:
    with _opened(path) as file:
        return re.match(r"[^\t]+#\d+\t", file.readline()) is not None


def _read_tokens(path: Path, listing: _Listing) -> None:
    """`image.jpg#0<TAB>caption` lines: the original Flickr8k and Flickr30k.

    Flickr8k's release has one name with a stray ending, `.jpg.1`, for which it has no picture.
    """
    with _opened(path) as file:
        for line in file:
            name, tab, caption = line.partition("\t")
            image, _, number = name.rpartition("#")
            if tab and number.isdigit() and not image.endswith(".jpg.1"):
                listing.image(image).captions.append(caption)


def _read_rows(
    rows: Iterable[Mapping[str, Any]],
    path: Path,
    listing: _Listing,
    image: str | None,
    caption: str | None,
) -> None:
    """A row for each caption, or for each image with several in a list or in several columns.

    A row that names no image counts as one whose picture is missing, unless it is empty.
    """
    columns: tuple[str, list[str]] | None = None
    for number, row in enumerate(rows, 1):
        columns = columns or _columns(row, path, image, caption)
        name = str(row.get(columns[0]) or "").strip()
        texts = [text for column in columns[1] for text in _texts(row.get(column))]
        if not name and not any(map(str.strip, texts)):
            continue
        if columns[1] == ["sentences"] and row.get("filepath"):  # Karpathy's, of COCO
            name = f"{row['filepath']}/{name}"
        found = listing.image(name or f"row {number}, which names no image,")
        found.captions += texts
        split = _split_name(row.get(column_named(row, ["split"]) or ""))
        if split and found.split not in ("", split):
            raise DataError(
                f"got {name} in the splits {found.split} and {split} of {path}; expected it in one"
            )
        found.split = split or found.split


def _columns(
    row: Mapping[str, Any], path: Path, image: str | None, caption: str | None
) -> tuple[str, list[str]]:
    """Which columns hold the image and its captions."""
    if "filename" in row and "sentences" in row and not (image or caption):
        return "filename", ["sentences"]
    numbered = [
        column for column in row if re.fullmatch(r"(?i)(caption|sentence)[ _-]?\d+", column)
    ]
    picture = column_named(row, (image,) if image else IMAGE_COLUMNS)
    text = column_named(row, (caption,) if caption else CAPTION_COLUMNS)
    texts = numbered if numbered and not caption else [text] if text is not None else []
    if picture is None or not texts:
        raise _UnknownFormError(
            f"got columns {', '.join(map(str, row))} in {path}; expected one for the image "
            f"({image or ', '.join(IMAGE_COLUMNS[:5]) + ' ...'}) and one for the caption "
            f"({caption or ', '.join(CAPTION_COLUMNS[:4]) + ' ...'}): name them"
        )
    return picture, texts


def column_named(row: Mapping[str, Any], names: Iterable[str]) -> str | None:
    """The column that bears the first of these names; case, spaces and hyphens do not matter."""

    def plain(name: str) -> str:
        return re.sub(r"[\s-]+", "_", name.strip().lower())

    columns = {plain(str(column)): column for column in row}
    return next((columns[plain(name)] for name in names if plain(name) in columns), None)


def _texts(cell: Any) -> list[str]:
    """The captions in one cell: a text, a list of texts, or Karpathy's sentences."""
    if isinstance(cell, list):
        return [text for each in cell for text in _texts(each)]
    if isinstance(cell, dict):
        return _texts(cell.get("raw", cell.get("caption")))
    return ["" if cell is None else str(cell)]


def table(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a table with a header, parted by commas, semicolons, tabs or bars.

    Raises:
        DataError: it is empty or no text, or a row has more cells than the header.
    """
    with _opened(path) as file:
        rows, names = _rows(file, path)
        try:
            for row in rows:
                if None in row:
                    raise DataError(
                        f"got line {rows.line_num} of {path} with more cells than its header; "
                        f"expected {len(names)}: put a cell with {rows.reader.dialect.delimiter!r} "
                        "in it between quotation marks"
                    )
                yield row
        except csv.Error as error:
            raise DataError(f"got {path}, which is no table: {error}") from error


def header(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        DataError: it is empty or no text.
    """
    with _opened(path) as file:
        return _rows(file, path)[1]


def _rows(file: TextIO, path: Path) -> tuple[csv.DictReader[str], list[str]]:
    """The rows of a table, and the names of its columns."""
    first = file.readline()
    file.seek(0)
    delimiter = max(",;\t|", key=first.count)
    quoting: Literal[0, 3] = csv.QUOTE_NONE if delimiter == "|" else csv.QUOTE_MINIMAL
    rows = csv.DictReader(
        file, delimiter=delimiter, quoting=quoting, skipinitialspace=True, restval=""
    )
    names = rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    if not any(names):
        raise _UnknownFormError(f"got {path}, which is empty; expected a header and rows")
    return rows, names


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The objects of a file with one on each line.

    Raises:
        DataError: a line holds something else.
    """
    with _opened(path) as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                row = _parse(line, f"line {number} of {path}")
                if not isinstance(row, dict):
                    raise DataError(
                        f"got {line.strip():.40} in line {number} of {path}; expected an object"
                    )
                yield row


def _read_sidecars(folder: Path) -> dict[str, _Found]:
    """Pictures beside texts of the same name; subfolders named like splits are splits."""
    images: dict[str, _Found] = {}
    for picture in find_images([folder], recursive=True):
        sidecar = picture.with_suffix(".txt")
        if sidecar.is_file():
            place = picture.relative_to(folder)
            split = _SPLITS.get(place.parts[0].lower(), "")
            with _opened(sidecar) as file:
                lines = [line for line in file.read().splitlines() if line.strip()]
            images[place.as_posix()] = _Found(lines, split)
    return images


def _split_by_lists(listing: _Listing, folder: Path) -> None:
    """Splits from lists of names: Flickr8k's `*_8k.trainImages.txt`, Flickr30k's `train.txt`."""
    listed: set[str] = set()
    for part in ("train", "dev", "val", "test"):
        for file in _first(folder, (f"*.{part}Images.txt", f"{part}.txt")):
            with _opened(file) as lines:
                names = lines.read().split()
            for rank, line in enumerate(names, 1):
                name = line if line in listing.images else f"{line}.jpg"
                if name not in listing.images:
                    raise DataError(f"got {line} in {file} without captions; expected some")
                if name in listed:
                    raise DataError(f"got {line} twice in the lists of {folder}; expected it once")
                listed.add(name)
                found = listing.images[name]
                found.split, found.rank = _split_name(part), rank
    if listed:
        rest = sorted(listing.images.keys() - listed)
        for rank, name in enumerate(rest):
            found = listing.images[name]
            found.split, found.rank = "rest", rank


def _split_by_file(listing: _Listing, path: Path) -> None:
    """Splits from Karpathy's JSON, {split: [image]} or a table."""
    rows: Iterable[Mapping[str, Any]]
    if not path.is_file():
        raise DataError(f"got no split file {path}; expected a JSON or a table")
    if path.suffix.lower() == ".json":
        content = _parse(path.read_bytes(), str(path))
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
        rows = table(path)
    chosen: dict[str, str] = {}
    for row in rows:
        column, told = column_named(row, IMAGE_COLUMNS), column_named(row, ["split"])
        if column is None or told is None or not row[told]:
            raise DataError(f"got {dict(row)} in {path}; expected an image and its split")
        name = PurePath(str(row[column])).name
        split = _split_name(row[told])
        if chosen.setdefault(name, split) != split:
            raise DataError(f"got {name} in two splits of {path}; expected it in one")
    for name, found in listing.images.items():
        pure = PurePath(name)
        found.split, found.rank = chosen.get(pure.name, chosen.get(pure.stem, "rest")), 0


def _split_name(value: object) -> str:
    name = str(value or "").strip().lower()
    return _SPLITS.get(name, name)


class Pictures:
    """Finds pictures by the names that captions give them."""

    def __init__(self, root: Path, given: Path | str | None) -> None:
        roots = [root]
        if re.search("annotation|text|caption", root.name, re.IGNORECASE):
            roots.append(root.parent)
        folders = [each / name for each in roots for name in ("", *_FOLDERS)]
        self._folders = [Path(given)] if given else [each for each in folders if each.is_dir()]
        self._last = self._folders[0]

    def find(self, name: str, *, anywhere: bool) -> Path:
        """Where the picture is, or would be; `anywhere` also takes one of its bare file name."""
        for folder in (self._last, *self._folders):
            if (folder / name).is_file():
                self._last = folder
                return folder / name
        if anywhere and PurePath(name).name != name:
            return self.find(PurePath(name).name, anywhere=False)
        return self._folders[0] / name


@contextmanager
def _opened(path: Path) -> Iterator[TextIO]:
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            yield file
    except UnicodeDecodeError as error:
        raise DataError(
            f"got {path}, which is no UTF-8 text; expected captions in UTF-8"
        ) from error


def _parse(text: str | bytes, what: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise _UnknownFormError(f"got {what}, which is no JSON: {error}") from error
