"""A destination for Cutline: the JSON file of a headless CMS.

The file is a list of entries, each with a slug, a title, a language and a list of images:

    [{"slug": "dogs", "title": "Dogs", "lang": "en",
      "images": [{"src": "media/dog.jpg", "caption": "Rex", "alt": null}]}]

Each entry is a page, and the value of an image's "alt" is one part of it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cutline.atomic import replacing
from cutline.errors import FetchError, OutputError
from cutline.site.destination import AltChange, Commit, Edit, PageBase
from cutline.site.model import ImageOccurrence, Kind, Page


class JsonDestination:
    """The entries of one JSON file; the images are files beside it."""

    kind = "json"

    def __init__(self, file: Path) -> None:
        self.file = file.resolve()
        self.address = str(self.file)

    def read(self) -> Iterator[tuple[Page, list[ImageOccurrence]]]:
        """Every entry as a page, with its images."""
        for entry in self.entries():
            url, title, language = entry["slug"], entry["title"], entry["lang"]
            yield Page(url, digest(entry), title, language), occurrences(entry, self.file.parent)

    def open_image(self, url: str) -> bytes | None:
        """An image file beside the JSON file, whose URL begins with "media:"."""
        if not url.startswith("media:"):
            return None
        file = (self.file.parent / url.removeprefix("media:")).resolve()
        if not file.is_relative_to(self.file.parent) or not file.is_file():
            raise FetchError(url, "missing", "no such file")
        return file.read_bytes()

    def location(self, page: Page) -> str:
        """The file's path and the entry's slug."""
        return f"{self.address}#{page.url}"

    def owns(self, location: str) -> bool:
        """Whether it names an entry of this file."""
        return location.startswith(f"{self.address}#")

    def open(self, location: str) -> JsonPage:
        """An entry as it is now."""
        return JsonPage(self, location.removeprefix(f"{self.address}#"))

    def clean_up(self) -> None:
        """Nothing: files are replaced atomically."""

    def entries(self) -> list[dict[str, Any]]:
        """The content of the file."""
        try:
            found: list[dict[str, Any]] = json.loads(self.file.read_bytes())
            return found
        except (OSError, ValueError) as error:
            raise OutputError(f"{self.file.name} cannot be read: {error}") from error


class JsonPage(PageBase):
    """One entry. `PageBase` finds occurrences again, and shows differences."""

    def __init__(self, destination: JsonDestination, slug: str) -> None:
        self.destination, self.path = destination, slug
        self.entries = destination.entries()
        named = [each for each in self.entries if each["slug"] == slug]
        if not named:
            raise OutputError(f"there is no entry {slug!r} any more")
        self.entry = named[0]
        self.sha256 = digest(self.entry)
        self.occurrences = occurrences(self.entry, destination.file.parent)

    def edits(self, changes: Sequence[AltChange]) -> tuple[Edit, ...]:
        """For each alt, its old and new value as JSON."""
        return tuple(
            Edit(
                each.id,
                0,
                json.dumps(each.occurrence.alt).encode(),
                json.dumps(each.alt).encode(),
                each.alt,
                part=f"images/{each.occurrence.position}/alt",
            )
            for each in sorted(changes, key=lambda each: each.occurrence.position)
        )

    def only_alts(self, edits: Sequence[Edit]) -> bool:
        """Whether each edit belongs to an alt and sets it to a string or null."""
        alts = {f"images/{position}/alt" for position in range(len(self.occurrences))}
        texts = [json.loads(edit.after) for edit in edits]
        return all(edit.part in alts for edit in edits) and all(
            isinstance(text, str | None) for text in texts
        )

    def write(self, edits: Sequence[Edit], commit: Commit) -> None:
        """Set the alts and replace the file, with the journal entry on the disk just before."""
        for edit in edits:
            image = self.entry["images"][int(edit.part.split("/")[1])]
            if image.get("alt") != json.loads(edit.before):
                raise OutputError(f"{edit.part} is not what it was; read the file again")
            image["alt"] = json.loads(edit.after)
        with replacing(self.destination.file, keep_owner=True) as file:
            file.write(json.dumps(self.entries, indent=2, ensure_ascii=False).encode())
            commit(digest(self.entry))


def occurrences(entry: dict[str, Any], folder: Path) -> list[ImageOccurrence]:
    """The images of an entry. The words near an image help to describe it."""
    return [
        ImageOccurrence(
            page=entry["slug"],
            position=position,
            kind=Kind.IMG,
            source=image["src"],
            url=f"media:{image['src']}",
            alt=image.get("alt"),
            caption=image.get("caption", ""),
            page_title=entry["title"],
            language=entry["lang"],
        )
        for position, image in enumerate(entry["images"])
    ]


def digest(entry: dict[str, Any]) -> str:
    """The SHA-256 of an entry."""
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()
