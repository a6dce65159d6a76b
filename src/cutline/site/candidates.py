"""The order in which an occurrence's sources are tried: its own, then its `candidates`.

The first source fails where a lazy-loading script builds another from it, where a server no longer
has that size, or where it is a blank placeholder. Then the next one is the image.
"""

from __future__ import annotations

from cutline.site.store.rows import StoredImage, StoredOccurrence
from cutline.site.store.store import Store


class Candidates:
    """Tries the sources of a site's occurrences in turn, each once in a run.

    Args:
        store: the site's store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tried: dict[int, list[str]] = {}  # by occurrence, the first source first

    def advance(self, image_ids: set[int]) -> set[int]:
        """Give each occurrence whose image cannot be used its next source.

        An occurrence of which no source can be used gets its first one back, so that its error is
        the one that is reported.

        Args:
            image_ids: the images that were fetched or tried to; others are left alone.

        Returns:
            The ids of the images to fetch now; empty when there is nothing left to try.
        """
        found: set[int] = set()
        for each in list(self._store.occurrences()):
            image = each.image
            if image is None or image.id not in image_ids or is_usable(image):
                continue
            if (source := self._next(each, image)) is not None:
                image_id = self._store.put_source(each.id, source)
                if source != self._tried[each.id][0]:
                    found.add(image_id)
        return found

    def _next(self, each: StoredOccurrence, image: StoredImage) -> str | None:
        """The next source to try; the first again after the last, None if it is the only one."""
        sources = dict.fromkeys([each.occurrence.url or image.url, *each.occurrence.candidates])
        if len(sources) < 2:
            return None
        tried = self._tried.setdefault(each.id, [next(iter(sources))])
        if image.url not in tried:
            tried.append(image.url)
        left = [source for source in sources if source not in tried]
        if left:
            tried.append(left[0])
            return left[0]
        return tried[0] if image.url != tried[0] else None


def is_usable(image: StoredImage) -> bool:
    """Whether an image was fetched and is not a script's blank placeholder."""
    pixels = image.pixels
    if image.status != "ok" or pixels is None:
        return image.status == "new"
    blank = pixels.flat or 0 < max(pixels.width_px, pixels.height_px) <= 2
    return not blank
