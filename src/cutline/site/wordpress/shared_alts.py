"""Alts that were approved for the content of posts and fit the same image in the media library."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

from cutline.site.model import ImageOccurrence, Purpose, Review
from cutline.site.store.store import Store, StoredOccurrence
from cutline.site.wordpress.library import image_id, without_size

_OWN = frozenset({Purpose.INFORMATIVE, Purpose.COMPLEX, Purpose.TEXT, Purpose.UNKNOWN})


def reviews_for_library(store: Store) -> dict[int, Review]:
    """Reviews for images of the library that have none of their own and no alt.

    An image takes the alt that was approved for the content that shows it, if that is the same in
    all posts. What a link or a decoration says there does not count.

    Returns:
        A review by the id of the occurrence in the library.
    """
    library: dict[int, StoredOccurrence] = {}
    content: list[StoredOccurrence] = []
    for stored in store.occurrences():
        number = library_id(stored.occurrence.page)
        if number is not None:
            library[number] = stored
        elif stored.review is not None:
            content.append(stored)
    by_file = {_path(each.occurrence.source): each for each in library.values()}
    found: dict[int, list[Review]] = {}
    for stored in content:
        item = _same_image(stored.occurrence, library, by_file)
        if item is not None and item.review is None and not (item.occurrence.alt or "").strip():
            found.setdefault(item.id, []).extend(_reviews([stored]))
    return {
        id: replace(reviews[0], replaces=None)
        for id, reviews in found.items()
        if len({review.alt for review in reviews}) == 1
    }


def library_id(page: str) -> int | None:
    """The number of the library's image that a page of the record is; None for a post."""
    text = dict(parse_qsl(urlsplit(page).query)).get("attachment_id", "")
    return int(text) if text.isdecimal() else None


def _reviews(occurrences: Iterable[StoredOccurrence]) -> Iterator[Review]:
    for stored in occurrences:
        purpose = stored.draft.decision.purpose if stored.draft else Purpose.UNKNOWN
        if stored.review is not None and stored.review.alt and purpose in _OWN:
            yield stored.review


def _same_image(
    occurrence: ImageOccurrence,
    library: dict[int, StoredOccurrence],
    by_file: dict[str, StoredOccurrence],
) -> StoredOccurrence | None:
    """The library's image that content shows: by `wp-image-ID` if the file agrees, else by file."""
    path = _path(occurrence.url or occurrence.source)
    number = image_id(occurrence.markup)
    item = library.get(number) if number is not None else None
    if item is not None and _path(item.occurrence.source) == path:
        return item
    return by_file.get(path)


def _path(url: str) -> str:
    """The host and path of an upload, without the additions for sizes."""
    parts = urlsplit(url)
    folder, _, name = unquote(parts.path).rpartition("/")
    return f"{parts.netloc}{folder}/{without_size(name.lower())}"
