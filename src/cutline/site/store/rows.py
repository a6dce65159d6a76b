"""What the store returns, and how it becomes rows and JSON."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import cache
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, cast, get_args, get_origin, get_type_hints

from cutline.site.model import (
    Alt,
    Draft,
    ImageOccurrence,
    Judgement,
    Pixels,
    Purpose,
    Review,
    Verdict,
)
from cutline.site.pages.write_rules import WriteOptions, may_write

T = TypeVar("T")
_DEFAULT = WriteOptions()


class Stage(StrEnum):
    """How far an occurrence has come; it may be in several stages."""

    FOUND = "found"  # no draft yet
    DRAFTED = "drafted"  # a suggestion waits for a review
    ASKED = "asked"  # no suggestion: a person must write one
    WAITING = "waiting"  # drafted or asked
    REVIEWED = "reviewed"
    APPLIED = "applied"
    FAILED = "failed"  # its image could not be fetched
    STALE = "stale"  # its draft would come out differently now


@dataclass(frozen=True)
class StoredImage:
    """The image at a URL.

    Attributes:
        url: as in `ImageOccurrence.url`; for a data URI "data:" and its digest.
        status: "new" (not fetched yet), "ok" or "failed".
        code, error: why it failed: a short, stable word and a sentence; "" otherwise.
        sha256: of its bytes; "" if they were never fetched, like the five after it.
        group: the same number for near-duplicates, such as other sizes.
        path: the file with its bytes: the site's own, or one in the cache; None if there is none.
        etag, last_modified: the response headers, for a conditional request.
        checked_at: when it was last requested, ISO 8601 in UTC.
    """

    id: int
    url: str
    status: str = "new"
    code: str = ""
    error: str = ""
    sha256: str = ""
    media_type: str = ""
    bytes: int = 0
    width_px: int = 0
    height_px: int = 0
    group: int | None = None
    path: Path | None = None
    pixels: Pixels | None = None
    content: int | None = None
    etag: str = ""
    last_modified: str = ""
    checked_at: str = ""


@dataclass(frozen=True)
class StoredOccurrence:
    """An image occurrence with everything that is stored about it.

    Attributes:
        id: stays the same over scans.
        occurrence: as it is in the page now.
        image: None if there is nothing to fetch.
        review: the newest that was not undone.
        applied: whether the reviewed alt was written into the page.
        stale: whether the draft was made from another version of the occurrence, image, model or
            rules.
        origin: the imported file that lists it; "" if its page was read.
        line: the number of its row there, as in `crawler_csv.Export`.
        judgement: of the present alt, by a rule or a chat model; None if it was not judged.
        judgement_recipe: equal for judgements that ask the same.
        original: the occurrence before Cutline wrote an alt into its page; None if it did not.
    """

    id: int
    occurrence: ImageOccurrence
    image: StoredImage | None = None
    draft: Draft | None = None
    review: Review | None = None
    applied: bool = False
    stale: bool = False
    origin: str = ""
    line: int | None = None
    original: ImageOccurrence | None = None
    judgement: Judgement | None = None
    judgement_recipe: str = ""

    @property
    def approved_long_description(self) -> str:
        """The long description that a person approved with the alt; "" if there is none."""
        review = self.review
        if review is None or review.verdict not in (Verdict.APPROVED, Verdict.EDITED):
            return ""
        if review.long_description is None:
            return self.draft.long_description if self.draft else ""
        return review.long_description

    @property
    def as_found(self) -> ImageOccurrence:
        """The occurrence without the alt that Cutline wrote into its page."""
        return self.original or self.occurrence

    def is_refused(self, reviews: Sequence[Review], options: WriteOptions = _DEFAULT) -> bool:
        """Whether `apply` leaves the page's text and refuses the approved alt.

        Args:
            reviews: all that the occurrence ever had, oldest first, as `Store.history` gives them.
            options: of `apply`.
        """
        review = self.review
        if review is None or review.alt is None or self.applied or self.original or self.origin:
            return False
        return not may_write(self.occurrence, [*reviews, review], options).allowed


@dataclass(frozen=True)
class Counts:
    """The numbers of a site; `drafted`, `asked` and `stale` count occurrences without a review.

    Attributes:
        pages, failed_pages: all pages, and those that could not be read.
        occurrences: image occurrences; `by_alt` counts them by the state of their alt, except CSS
            backgrounds, which have none; `by_purpose` by their draft.
        images: distinct URLs; `distinct` counts near-duplicates once.
        fetched, failed: images that were fetched, and that could not be.
        captions: captions made so far, by any model.
        found: occurrences without a draft.
        drafted: those with a suggestion; `asked` are those that a person must write, `abstained`
            of these had a caption of too little confidence. Neither includes what is kept.
        reviewed: occurrences by verdict.
        applied: occurrences whose reviewed alt was written.
    """

    pages: int
    failed_pages: int
    uses: int
    by_alt: Mapping[Alt, int]
    by_purpose: Mapping[Purpose, int]
    images: int
    distinct: int
    fetched: int
    failed: int
    captions: int
    found: int
    drafted: int
    asked: int
    abstained: int
    reviewed: Mapping[Verdict, int]
    applied: int
    stale: int


@dataclass(frozen=True)
class Content:
    """A distinct image, for `Store.put_content`.

    Attributes:
        signature: its perceptual hash; b"" if it has none.
    """

    sha256: str
    media_type: str
    size_bytes: int
    pixels: Pixels = field(default_factory=Pixels)
    signature: bytes = b""


def now() -> str:
    """The current time, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def digest(text: str) -> str:
    """A short hash of a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def plain(text: str) -> str:
    """Text that SQLite can store: undecodable bytes of file names as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def non_defaults(record: Any) -> dict[str, Any]:
    """The fields of a record whose values are not the default, by name."""
    values = {each.name: (getattr(record, each.name), each.default) for each in fields(record)}
    return {name: value for name, (value, default) in values.items() if value != default}


def encode(record: Any) -> str:
    """A record as JSON, all ASCII, without the fields that have their default."""
    return json.dumps(non_defaults(record), separators=(",", ":"))


def decode(kind: type[T], text: str) -> T:
    """A record from its JSON, every field checked against its type.

    Raises:
        ValueError: it is not such a record; the message says why.
    """
    try:
        return cast(T, _from_json(kind, json.loads(text)))
    except (TypeError, RecursionError) as error:
        raise ValueError(f"not a {kind.__name__}: {error}") from error


def encode_draft(draft: Draft) -> str:
    """A draft as JSON."""
    return json.dumps(
        non_defaults(draft) | {"decision": non_defaults(draft.decision)}, separators=(",", ":")
    )


def stored_occurrence(row: sqlite3.Row, cache: Path) -> StoredOccurrence:
    """An occurrence from a row of `queries.select_use`.

    Args:
        row: the row.
        cache: the folder of downloaded images.

    Raises:
        ValueError: a part of the row is damaged.
    """
    return StoredOccurrence(
        id=row["id"],
        occurrence=decode(ImageOccurrence, row["use_record"]),
        image=None if row["image_id"] is None else stored_image(row, cache),
        draft=None if row["draft_record"] is None else decode(Draft, row["draft_record"]),
        review=None if row["review_record"] is None else decode(Review, row["review_record"]),
        applied=bool(row["is_applied"]),
        stale=bool(row["is_stale"]),
        origin=row["origin"],
        line=row["line"],
        judgement=None
        if row["judgement_record"] is None
        else decode(Judgement, row["judgement_record"]),
        judgement_recipe=row["judgement_recipe"] or "",
        original=None if row["original"] is None else decode(ImageOccurrence, row["original"]),
    )


def stored_image(row: sqlite3.Row, cache: Path) -> StoredImage:
    """An image from a row of `queries.SELECT_IMAGE`; the rest as for `stored_occurrence`."""
    known = {name: row[name] for name in ("url", "status", "code", "error", "etag")}
    known |= {name: row[name] for name in ("last_modified", "checked_at")}
    if row["content_id"] is None:
        return StoredImage(row["image_id"], **known)
    pixels = Pixels(
        int(row["width_px"]),
        int(row["height_px"]),
        bool(row["flat"]),
        float(row["text_like"]),
        float(row["chart_like"]),
    )
    return StoredImage(
        row["image_id"],
        **known,
        sha256=str(row["sha256"]),
        media_type=row["media_type"],
        bytes=int(row["bytes"]),
        width_px=pixels.width_px,
        height_px=pixels.height_px,
        group=row["group_id"],
        path=Path(row["path"]) if row["path"] else cached(cache, row["sha256"]),
        pixels=pixels,
        content=row["content_id"],
    )


def cached(cache: Path, sha256: str) -> Path:
    """The file of a cache that has the bytes with this SHA-256."""
    return cache / sha256[:2] / sha256


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind)


def _from_json(hint: Any, value: Any) -> Any:
    """A value of this type from its JSON form; only the types that the records use."""
    if is_dataclass(hint) and isinstance(hint, type):
        if not isinstance(value, dict):
            raise ValueError(f"got {value!r:.40}; expected an object ({hint.__name__})")
        known = {name: kind for name, kind in _hints(hint).items() if name in value}
        return hint(**{name: _from_json(kind, value[name]) for name, kind in known.items()})
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is UnionType:
        if value is None and NoneType in arguments:
            return None
        [hint] = [each for each in arguments if each is not NoneType]
        return _from_json(hint, value)
    if origin is tuple and isinstance(value, list):
        if arguments[-1] is Ellipsis:
            return tuple(_from_json(arguments[0], item) for item in value)
        if len(value) == len(arguments):
            return tuple(map(_from_json, arguments, value))
    elif isinstance(hint, type) and issubclass(hint, StrEnum):
        if isinstance(value, str) and value in tuple(hint):
            return hint(value)
    elif hint is float and type(value) in (int, float):
        return float(value)
    elif type(value) is hint:
        return value
    raise ValueError(f"got {value!r:.40}; expected {getattr(hint, '__name__', hint)}")
