"""Reads the source of a caption set: which images, with which captions, in which splits."""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cutline.data.formats import is_token_file
from cutline.data.listing import normalise_name, split_name
from cutline.data.readers import MAX_CAPTION_CHARS, read_listing
from cutline.data.splits import split_by_file
from cutline.data.tabular import (
    IMAGE_COLUMNS,
    USUAL_COLUMNS,
    ColumnNames,
    column_named,
    column_of,
    header_of,
    is_image_name,
    json_lines,
    open_table,
    opened,
    split_column,
    table_rows,
    texts_in,
)
from cutline.discover import is_url
from cutline.errors import DataError
from cutline.similarity import MAX_DISTANCE

RATING_COLUMNS = ("rating", "stars", "star_rating", "overall", "score")
TITLE_COLUMNS = ("title", "review_title", "summary", "headline")
REVIEW_COLUMNS = ("review", "review_text", "review_body", "reviewtext", "text", "body", "content")

_TAG = re.compile(
    r"<!--.*?-->|</?(?:a|abbr|b|big|blockquote|br|cite|code|div|del|em|font|h[1-6]|hr|i|img|ins|kbd"
    r"|li|ol|p|pre|q|s|small|span|strike|strong|sub|sup|table|tbody|td|tfoot|th|thead|tr|tt|u|ul)"
    r"(?:\s[^<>]*)?/?>",
    re.IGNORECASE | re.DOTALL,
)


@dataclass(frozen=True)
class BuildOptions:
    """What is kept, and how it is written."""

    side_px: int = 640
    """The longest side of an image; smaller ones are not enlarged."""

    captions: int = 5
    """The most captions of an image; the first ones are kept."""

    min_stars: float = 3.0
    """Reviews with fewer stars are left out."""

    max_stars: float = 5.0
    """Reviews with more stars are left out, since their scale is another one."""

    min_words: int = 3
    """A review's title or sentence with fewer words does not describe an image."""

    max_words: int = 40
    """One with more is no caption."""

    max_distance: int = MAX_DISTANCE
    """Images that differ in at most so many of 128 bits count as the same; -1 keeps all that are
    not identical."""

    quality: int = 90
    """Of the JPEG files, 1 to 95."""

    seed: int = 0
    """Of the split into train, dev and test by image, if the source has no splits."""

    licence: str = "unknown"
    """The terms under which images and captions may be used."""


DEFAULTS = BuildOptions()


@dataclass(frozen=True)
class Dropped:
    """An image or a caption that is not in the set, and why."""

    source: str
    what: str
    """`image` or `caption`."""
    reason: str
    """One of few, to be counted."""
    detail: str = ""


@dataclass
class Planned:
    """One image of a plan.

    Attributes:
        name: a path relative to the plan's root, a URL or an id.
        captions: without blank ones.
        written_by: their authors; "" if unknown.
        split: as the source says; "" if it does not.
        source: the split that the caption file's name denotes; "" if none.
        unique: whether no other image of the plan has the same file name.
    """

    name: str
    captions: list[str] = field(default_factory=list)
    written_by: list[str] = field(default_factory=list)
    split: str = ""
    source: str = ""
    unique: bool = True


@dataclass
class Plan:
    """What to build: the images of a source with their captions.

    Attributes:
        source: the file or folder that was read, which identifies the plan.
        root: the folder that the images' paths are relative to.
        images_folder: where the images are, if the user says so.
        images: by an identifier, in order.
        dropped: what is left out, with reasons.
        notes: what the reader could not use, one sentence each.
    """

    source: Path
    root: Path
    images_folder: Path | None = None
    images: dict[str, Planned] = field(default_factory=dict)
    dropped: list[Dropped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def add(self, name: str, captions: Iterable[str], split: str = "") -> None:
        """Add captions to the image of that name."""
        texts = [text for text in (" ".join(each.split()) for each in captions) if text]
        planned = self.images.setdefault(name, Planned(name))
        planned.captions += texts
        planned.written_by += [""] * len(texts)
        if split and planned.split and split != planned.split:
            raise DataError(
                f"got {name} in the splits {planned.split} and {split} of {self.source}; expected "
                "it in one"
            )
        planned.split = split or planned.split


def plan(
    source: Path,
    options: BuildOptions = DEFAULTS,
    *,
    images: Path | None = None,
    columns: ColumnNames = USUAL_COLUMNS,
    split_file: Path | None = None,
) -> Plan:
    """Read which images and captions a source names.

    Args:
        source: whatever `cutline.data.read` reads; or a table or JSONL with an image, a rating and
            a title or review column; or a list of URLs or paths, each alone or with a TAB and a
            caption. Paths are relative to the source.
        options: which reviews are kept.
        images: the folder of the images; by default the usual places near the source.
        columns: of tables, where their names are unusual.
        split_file: which image is in which split; see `cutline.data.read`.

    Raises:
        DataError: it is none of these, or it is damaged.
    """
    if not source.exists():
        raise DataError(f"got {source}, which does not exist; expected a table or a list of images")
    found = Plan(source, source if source.is_dir() else source.parent, images)
    kind = "captions" if source.is_dir() else _kind(source, columns)
    if kind == "list":
        _add_list(found, source)
    elif kind == "reviews":
        _add_reviews(found, [*_rows(source)], options, columns)
    elif kind == "images":
        for row in _rows(source):
            _add_image(found, row, columns)
    else:
        _add_captions(found, source, columns, split_file)
    if split_file is not None and kind != "captions":
        raise DataError(f"got a split file for {source}, which has no captions; expected captions")
    names = Counter(PurePosixPath(each.name).name for each in found.images.values())
    for each in found.images.values():
        each.unique = names[PurePosixPath(each.name).name] == 1
    return _settled(found)


def _kind(source: Path, columns: ColumnNames) -> str:
    """What a file holds: captions, reviews, images without captions in a table, or a list."""
    suffix = source.suffix.lower()
    if suffix == ".json" or is_token_file(source):
        return "captions"
    if suffix in (".jsonl", ".ndjson"):
        header: tuple[str, ...] = tuple(next(iter(json_lines(source)), {}))
        in_file = True
    else:
        header, in_file = header_of(open_table(source))
    if not in_file:
        with opened(source) as file:
            first = file.readline().strip()
        name, tab, _ = first.partition("\t")
        alone = len(header) == 1 or (source.parent / first).is_file() or is_url(first)
        if not alone and tab and is_image_name(name):
            alone = "caption_2" not in header
        return "list" if alone else "captions"
    image = column_of(header, columns.image, IMAGE_COLUMNS)
    if image is None:  # `read` says which columns a table must have
        return "captions" if suffix in (".csv", ".tsv") and len(header) > 1 else "list"
    if columns.caption or column_named(header, ("caption", "captions")):
        return "captions"
    text = column_named(header, TITLE_COLUMNS) or column_named(header, REVIEW_COLUMNS)
    if column_named(header, RATING_COLUMNS) and text:
        return "reviews"
    return "captions" if len(header) > 1 else "images"


def _rows(source: Path) -> Iterable[Mapping[str, Any]]:
    if source.suffix.lower() in (".jsonl", ".ndjson"):
        return json_lines(source)
    return table_rows(open_table(source))


def _add_captions(found: Plan, source: Path, columns: ColumnNames, split_file: Path | None) -> None:
    """The images of a caption file or folder of any form that `read` knows."""
    listing = read_listing(source, columns)
    if split_file is not None:
        split_by_file(listing, split_file)
    found.notes += listing.notes
    for entry in listing.entries.values():
        if entry.name.endswith(", which names no image,"):
            text = (entry.captions or [""])[0]
            found.dropped.append(Dropped(text[:80], "image", "no image in its row"))
            continue
        key = f"{entry.source}/{entry.name}" if entry.source else entry.name
        planned = Planned(entry.name, split=entry.split, source=entry.source)
        for caption, author in zip(entry.captions, entry.written_by, strict=True):
            text = " ".join(caption.split())
            if len(text) > MAX_CAPTION_CHARS:
                reason = f"longer than {MAX_CAPTION_CHARS:,} characters"
                found.dropped.append(Dropped(entry.name, "caption", reason, text[:80]))
            elif text:
                planned.captions.append(text)
                planned.written_by.append(author)
        found.images[key] = planned


def _add_list(found: Plan, source: Path) -> None:
    """A path or URL on each line, alone or with a TAB and a caption; # begins a comment."""
    with opened(source) as file:
        for line in file.read().splitlines():
            name, _, caption = line.partition("\t")
            if name.strip() and not name.startswith("#"):
                found.add(normalise_name(name), texts_in(caption))


def _add_image(found: Plan, row: Mapping[str, Any], columns: ColumnNames) -> None:
    column = column_of(row, columns.image, IMAGE_COLUMNS)
    name = str(row.get(column or "") or "").strip()
    if name:
        found.add(normalise_name(name), [])


def _add_reviews(
    found: Plan, rows: Sequence[Mapping[str, Any]], options: BuildOptions, names: ColumnNames
) -> None:
    header = dict.fromkeys(column for row in rows for column in row)
    image = column_of(header, names.image, IMAGE_COLUMNS)
    split = column_of(header, names.split, ()) if names.split else split_column(rows, header)
    for row in rows:
        name = normalise_name(str(row.get(image or "") or ""))
        _add_review(found, name, split_name(row.get(split or "")), row, options)


def _add_review(
    found: Plan, name: str, split: str, row: Mapping[str, Any], options: BuildOptions
) -> None:
    """A review's title, else its first sentence, if it is positive and of a caption's length."""
    rating = column_named(row, RATING_COLUMNS)
    title, review = column_named(row, TITLE_COLUMNS), column_named(row, REVIEW_COLUMNS)
    if not name:
        found.dropped.append(Dropped(str(dict(row))[:80], "image", "no image in its row"))
        return
    try:
        stars = float(row.get(rating or "", ""))
    except (TypeError, ValueError):
        stars = float("nan")
    if not options.min_stars <= stars <= options.max_stars:
        kept = f"{options.min_stars:g} to {options.max_stars:g} stars"
        found.add(name, [], split)
        value = str(row.get(rating or ""))
        found.dropped.append(Dropped(name, "caption", f"not {kept}", value))
        return
    texts = [_plain(row.get(title or "")), _first_sentence(_plain(row.get(review or "")))]
    fitting = [
        text for text in texts if options.min_words <= len(text.split()) <= options.max_words
    ]
    if not fitting:
        reason = f"title and sentence not of {options.min_words} to {options.max_words} words"
        found.dropped.append(Dropped(name, "caption", reason, texts[0] or texts[1][:80]))
    found.add(name, fitting[:1], split)


def _plain(cell: Any) -> str:
    """A review's text on one line, without HTML."""
    text = _TAG.sub(" ", str(cell if cell is not None else ""))
    return " ".join(html.unescape(text).split())


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.!?])\s", text, maxsplit=1)[0]


def _settled(found: Plan) -> Plan:
    """Without images that have no caption, unless none has any: then someone will write them."""
    if any(each.captions for each in found.images.values()):
        for key in [key for key, each in found.images.items() if not each.captions]:
            del found.images[key]
            found.dropped.append(Dropped(key, "image", "no caption"))
    return found
