"""What the store gives back, and how records become text in it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from cutline.site.model import (
    Alt,
    Decision,
    Draft,
    ImageUse,
    Kind,
    Origin,
    Pixels,
    Purpose,
    Review,
    Verdict,
)
from cutline.site.pages.alt_markup import NAMED, clean


class Stage(StrEnum):
    """How far a use has come, to choose uses by; a use may be in several."""

    FOUND = "found"  # no draft yet
    DRAFTED = "drafted"  # a suggestion waits for a person
    ASKED = "asked"  # there is none: a person must write it
    WAITING = "waiting"  # either of these two
    REVIEWED = "reviewed"
    APPLIED = "applied"
    FAILED = "failed"  # its picture could not be had
    STALE = "stale"  # its draft would come out differently today


@dataclass(frozen=True)
class StoredImage:
    """A picture that a URL leads to.

    Attributes:
        url: as in `ImageUse.url`; for a data URI "data:" and its digest.
        status: "new" (not looked at), "ok" or "failed".
        code, error: why it failed: a short, stable word and a sentence; "" otherwise.
        sha256: of its bytes; "" if they were never had, as for the five after it.
        group: the same number for pictures that look the same, in other sizes or files.
        path: the file with its bytes, of the site itself or of the cache; None if there is none.
        etag, last_modified: as the server gave them, for asking whether it has changed.
        checked_at: when it was last fetched or asked for, ISO 8601 in UTC.
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
class StoredUse:
    """A use with all that is known of it.

    Attributes:
        id: the same over scans.
        image: None if there is nothing to fetch.
        review: the newest that was not taken back.
        applied: what the review says stands in the page, by our own hand.
        stale: the draft was made from another version of the use, picture, model or rules.
        origin: the export that names it; "" if its page was read.
        line: the number of its row there, as `tables.Export` counts.
        original: the use as people had left it, where our own alt stands in `use`; else None.
    """

    id: int
    use: ImageUse
    image: StoredImage | None = None
    draft: Draft | None = None
    review: Review | None = None
    applied: bool = False
    stale: bool = False
    origin: str = ""
    line: int | None = None
    original: ImageUse | None = None

    @property
    def as_found(self) -> ImageUse:
        """The use as people had left it, without what we wrote into its page."""
        return self.original or self.use

    @property
    def refused(self) -> bool:
        """Whether `apply` would, if not told otherwise, leave another's alt where it stands."""
        review, there = self.review, stands(self.use)
        if review is None or review.alt is None or self.applied or self.original or self.origin:
            return False
        blank = there is None or (there != "" and not there.strip())
        return not blank and there not in (clean(review.alt), review.replaces)


@dataclass(frozen=True)
class Counts:
    """How far a site has come; `drafted`, `asked` and `stale` count uses without a review.

    Attributes:
        pages, failed_pages: all, and those that could not be read.
        uses: all; `by_alt` splits them by the state of their alt, but for CSS backgrounds, which
            take none; `by_purpose` by their draft.
        images: distinct URLs; `distinct` are distinct pictures, near duplicates counted once.
        fetched, failed: of the images.
        captions: made so far, by any model.
        found: uses without a draft.
        drafted: with a suggestion; `asked` are those where a person must write, `abstained` of
            these had a caption that was too unsure. Neither counts what is kept as it is.
        reviewed: uses by verdict.
        applied: uses whose reviewed alt was written.
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
    """A distinct picture, as `put_content` takes it.

    Attributes:
        signature: what near duplicates are told by; b"" for one that has none.
    """

    sha256: str
    media_type: str
    size_bytes: int
    pixels: Pixels = field(default_factory=Pixels)
    signature: bytes = b""


def stands(use: ImageUse) -> str | None:
    """The words that stand where an alt would be written; None if there are none."""
    return use.name or None if use.alt is None and use.kind in NAMED else use.alt


def now() -> str:
    """This moment, ISO 8601 in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def digest(text: str) -> str:
    """A short name for a text."""
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


def plain(text: str) -> str:
    """Text that SQLite takes: undecodable bytes of file names as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def told(record: Any) -> dict[str, Any]:
    """The fields of a record that have another value than their default, by name."""
    found = {each.name: (getattr(record, each.name), each.default) for each in fields(record)}
    return {name: value for name, (value, default) in found.items() if value != default}


def encode(record: Any) -> str:
    """A flat record as JSON, all ASCII, without the fields that have their default."""
    return json.dumps(told(record), separators=(",", ":"))


def decode_use(text: str) -> ImageUse:
    """A use from its JSON."""
    record = json.loads(text)
    candidates = tuple(record.pop("candidates", ()))
    return ImageUse(kind=Kind(record.pop("kind")), candidates=candidates, **record)


def decode_review(text: str) -> Review:
    """A review from its JSON."""
    record = json.loads(text)
    return Review(Verdict(record.pop("verdict")), **record)


def encode_draft(draft: Draft) -> str:
    """A draft as JSON."""
    return json.dumps(told(draft) | {"decision": told(draft.decision)}, separators=(",", ":"))


def decode_draft(text: str) -> Draft:
    """A draft from its JSON."""
    record = json.loads(text)
    decision = record.pop("decision")
    words = tuple((word, Origin(origin)) for word, origin in record.pop("words", ()))
    for name in ("alternatives", "labels", "notes"):
        record[name] = tuple(record.get(name, ()))
    purpose = Purpose(decision.pop("purpose"))
    return Draft(Decision(purpose, **decision), words=words, **record)
