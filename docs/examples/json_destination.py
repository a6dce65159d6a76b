"""A destination for Cutline: the JSON file of a headless CMS.

The file is a list of entries, each with a slug, a title, a language and a list of images:

    [{"slug": "dogs", "title": "Dogs", "lang": "en",
      "images": [{"src": "media/dog.jpg", "caption": "Rex", "alt": null}]}]

Each entry is a page.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cutline.atomic import replacing
from cutline.errors import FetchError, OutputError
from cutline.site.destination import DestinationBase, FieldPage
from cutline.site.model import ImageOccurrence, Kind


class JsonDestination(DestinationBase):
    """The entries of one JSON file; the images are files beside it."""

    kind = "json"

    def __init__(self, file: Path) -> None:
        self.file = file.resolve()
        self.address = str(self.file)

    def urls(self) -> Iterator[str]:
        """The slug of every entry."""
        return (entry["slug"] for entry in self.entries())

    def open_page(self, url: str) -> JsonPage:
        """An entry as it is now."""
        return JsonPage(self.file, self.entries(), url)

    def open_image(self, url: str) -> bytes | None:
        """An image file beside the JSON file, whose URL begins with "media:"."""
        if not url.startswith("media:"):
            return None
        file = (self.file.parent / url.removeprefix("media:")).resolve()
        if not file.is_relative_to(self.file.parent) or not file.is_file():
            raise FetchError(url, "missing", "no such file")
        return file.read_bytes()

    def entries(self) -> list[dict[str, Any]]:
        """The content of the file."""
        try:
            found: list[dict[str, Any]] = json.loads(self.file.read_bytes())
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.file.name} cannot be read: {error}") from error
        return found


class JsonPage(FieldPage):
    """One entry; each alt is a field of it."""

    def __init__(self, file: Path, entries: list[dict[str, Any]], slug: str) -> None:
        self.file, self.entries = file, entries
        named = [entry for entry in entries if entry["slug"] == slug]
        if not named:
            raise OutputError(f"there is no entry {slug!r} any more")
        self.entry = named[0]
        self.title, self.language = self.entry["title"], self.entry["lang"]
        super().__init__(slug, list(map(self.occurrence, range(len(self.entry["images"])))))

    def occurrence(self, position: int) -> ImageOccurrence:
        """An image of the entry. The words near an image help to describe it."""
        image = self.entry["images"][position]
        return ImageOccurrence(
            page=self.entry["slug"],
            position=position,
            kind=Kind.IMG,
            source=image["src"],
            url=f"media:{image['src']}",
            alt=image.get("alt"),
            caption=image.get("caption", ""),
            page_title=self.title,
            language=self.language,
        )

    def save(self, alts: Mapping[int, str | None], commit: Callable[[], None]) -> None:
        """Set the alts and replace the file, with the journal entry on the disk just before."""
        for position, alt in alts.items():
            self.entry["images"][position]["alt"] = alt
        with replacing(self.file, keep_owner=True) as file:
            file.write(json.dumps(self.entries, indent=2, ensure_ascii=False).encode())
            commit()
